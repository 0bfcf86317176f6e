"""CIFAR-10: both versions, as folders, archives and downloads, with random images; real ones if at hand."""

import hashlib
import importlib
import io
import os
import pickle
import sys
import tarfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from npflow.datasets import CIFAR10_CLASSES, cifar10
from npflow.datasets.cifar10 import ARCHIVES, BATCHES, BINARY, FILES, FOLDERS, Official, cifar10_parts
from npflow.errors import InputError, MissingDataError

module = importlib.import_module("npflow.datasets.cifar10")  # the function has the same name
ALL = (*BATCHES["train"], *BATCHES["test"])
N = 4  # images in a batch
VERSIONS = {"binary": ".bin", "python": ""}


def batch_of(name):
    """Images and labels of a batch."""
    rng = np.random.default_rng(ALL.index(name.removesuffix(".bin")))
    return rng.integers(256, size=(N, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=N)


def encode(name):
    """The bytes of a batch's file."""
    images, labels = batch_of(name)
    planes = images.transpose(0, 3, 1, 2).reshape(N, -1)
    if name.endswith(".bin"):
        return np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tobytes()
    # As Python 2 and NumPy 1 wrote it: strings for bytes, old names, integers for the flags of the dtype.
    return b"".join([
        b"\x80\x02}(U\x06labels](", *(b"K" + bytes([label]) for label in labels),
        b"eU\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R",
        b"(K\x01K", bytes([N]), b"M\x00\x0c\x86cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R",
        b"(K\x03U\x01|NNN", 2 * b"J\xff\xff\xff\xff", b"K\x00tb",
        b"\x89T", planes.size.to_bytes(4, "little"), planes.tobytes(), b"tbu.",
    ])  # fmt: skip


def folder(path, version, batches=ALL):
    path = path / FOLDERS[VERSIONS[version]]
    path.mkdir(parents=True)
    for batch in batches:
        name = batch + VERSIONS[version]
        (path / name).write_bytes(encode(name))
    return path


def archive(path, version, batches=ALL):
    path = path / f"cifar-10-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name, data in {"readme.html": b"about", **{b + VERSIONS[version]: None for b in batches}}.items():
            data = data or encode(name)
            info = tarfile.TarInfo(f"{FOLDERS[VERSIONS[version]]}/{name}")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def assert_are(found, split):
    expected = (np.concatenate(arrays) for arrays in zip(*map(batch_of, BATCHES[split])))
    for array, right in zip(found, expected, strict=True):
        assert array.dtype == right.dtype
        np.testing.assert_array_equal(array, right)


def make_official(monkeypatch, name, data, table=FILES):
    monkeypatch.setitem(table, name, Official(len(data), hashlib.md5(data).hexdigest()))


@pytest.fixture
def official(monkeypatch):
    """Makes the random batches the official ones."""
    for name in FILES:
        make_official(monkeypatch, name, encode(name))


every_version = pytest.mark.parametrize("version", VERSIONS)
both_forms = pytest.mark.parametrize("make", [folder, archive])


@every_version
@both_forms
@pytest.mark.parametrize("split", BATCHES)
def test_both_versions_are_read_as_folders_and_as_archives(tmp_path, version, make, split, official):
    images, labels = cifar10(make(tmp_path, version), split)
    assert_are((images, labels), split)
    assert images.flags.c_contiguous


@both_forms
def test_the_path_may_be_a_folder_around_it_or_come_from_the_environment(
    tmp_path, monkeypatch, make, official
):
    path = make(tmp_path, "binary")
    assert_are(cifar10(str(tmp_path)), "train")
    for place in (tmp_path, path):
        monkeypatch.setenv("NPFLOW_DATA", str(place))
        assert_are(cifar10(split="test"), "test")


def test_the_default_path_is_the_cache_and_the_error_says_what_to_do(tmp_path, monkeypatch, official):
    monkeypatch.delenv("NPFLOW_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    cache = tmp_path / ".cache" / "npflow"
    with pytest.raises(MissingDataError) as error:
        cifar10()
    for name, (size, md5) in ARCHIVES.items():
        assert f"https://www.cs.toronto.edu/~kriz/{name} ({size:,} bytes, MD5 {md5})" in str(error.value)
    assert f"expected CIFAR-10 at {cache}, got nothing there" in str(error.value)
    assert "download=True" in str(error.value)
    folder(cache, "binary")
    assert_are(cifar10(), "train")


def test_other_files_and_splits_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match="got nothing there"):
        cifar10(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"photo\.png: expected a \.tar\.gz") as error:
        cifar10(tmp_path / "photo.png")
    assert not isinstance(error.value, MissingDataError)  # something is there
    with pytest.raises(InputError, match="expected split to be one of 'train', 'test', got 'validation'"):
        cifar10(tmp_path, "validation")


@both_forms
def test_parts_of_the_binary_version_are_read_on_request(tmp_path, make):
    path = make(tmp_path, "binary")
    with pytest.raises(InputError, match=r"data_batch_1\.bin: .*30,730,000 bytes.* 4 images; complete=False"):
        cifar10(path)
    assert_are(cifar10(path, complete=False), "train")


@every_version
def test_files_of_the_official_size_have_the_official_checksum(tmp_path, monkeypatch, version, official):
    path = folder(tmp_path, version)
    name = f"data_batch_3{VERSIONS[version]}"
    (path / name).write_bytes(encode(name)[:-1] + b"?")
    for complete in (True, False):
        with pytest.raises(InputError, match=rf"{name}: expected the official .* MD5 .*{FILES[name].md5}"):
            cifar10(path, complete=complete)
    path = archive(tmp_path, version)
    monkeypatch.setitem(ARCHIVES, path.name, Official(path.stat().st_size, "0" * 32))
    with pytest.raises(InputError, match=rf"{path.name}: expected the official .* MD5 .*0{{32}}"):
        cifar10(path)


def test_a_damaged_archive_is_named(tmp_path):
    path = archive(tmp_path, "binary")
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=rf"{path.name}: expected a \.tar\.gz, got a file of .* cut short"):
        cifar10(path, complete=False)


@every_version
@both_forms
def test_missing_batches_are_named(tmp_path, version, make, official):
    path = make(tmp_path, version, ALL[1:3])
    names = ", ".join(f"data_batch_{number}{VERSIONS[version]}" for number in (1, 4, 5))
    with pytest.raises(InputError, match=rf"{path.name}: .* train split, got no {names}$"):
        cifar10(path)
    with pytest.raises(InputError, match=rf"{path.name}: .* test split, got no test_batch"):
        cifar10(path, "test")


@pytest.mark.parametrize("length", [0, 1, 3072, 3074])
def test_records_are_whole(tmp_path, length):
    path = folder(tmp_path, "binary")
    (path / "test_batch.bin").write_bytes(bytes(length))
    for complete in (True, False):
        with pytest.raises(
            InputError, match=rf"test_batch\.bin: .*records of 3,073 bytes, got {length:,} bytes"
        ):
            cifar10(path, "test", complete=complete)


def test_labels_are_those_of_ten_classes(tmp_path):
    path = folder(tmp_path, "binary")
    data = bytearray(encode("test_batch.bin"))
    data[2 * 3073] = 10
    (path / "test_batch.bin").write_bytes(data)
    with pytest.raises(InputError, match=r"test_batch\.bin: expected labels from 0 to 9, got 10 in record 2"):
        cifar10(path, "test", complete=False)


def test_files_that_are_too_large_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LARGEST", 1000)
    for make in (folder, archive):
        with pytest.raises(InputError, match="at most 1,000 bytes"):
            cifar10(make(tmp_path, "binary"), "test", complete=False)


class Mkdir:
    """Its pickle creates a folder when it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@both_forms
@pytest.mark.parametrize("complete", [True, False])
def test_other_pickles_are_not_opened(tmp_path, monkeypatch, official, make, complete):
    marker = tmp_path / "marker"
    hostile = pickle.dumps({b"data": Mkdir(marker)}, protocol=2)
    same_size = hostile + bytes(FILES["test_batch"].size - len(hostile))
    for directory, data in (("another size", hostile), ("the official size", same_size)):
        with monkeypatch.context() as patch:
            patch.setitem(globals(), "encode", lambda name, data=data: data)
            (tmp_path / directory).mkdir()
            path = make(tmp_path / directory, "python")
        with pytest.raises(InputError, match=rf"/test_batch: expected the official pickle .*{BINARY}"):
            cifar10(path, "test", complete=complete)
        assert not marker.exists()
    pickle.loads(same_size)
    assert marker.exists()  # so it would have been created


@every_version
def test_parts_have_the_test_batch_or_the_last_tenth(tmp_path, version, official):
    path = folder(tmp_path, version)
    parts = cifar10_parts(path)
    assert_are(parts[:2], "train")
    assert_are(parts[2:], "test")
    (path / f"test_batch{VERSIONS[version]}").unlink()
    with pytest.raises(InputError, match="test split, got no test_batch"):
        cifar10_parts(path)
    images, labels, test_images, test_labels = cifar10_parts(path, complete=False)
    assert (len(images), len(labels), len(test_images), len(test_labels)) == (18, 18, 2, 2)
    assert_are((np.concatenate([images, test_images]), np.concatenate([labels, test_labels])), "train")


# ---------------------------------------------------------------- downloads


class Handler(BaseHTTPRequestHandler):
    """Sends the server's data with the server's status, or breaks off after some bytes."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.server.status != 200:
            self.send_error(self.server.status)
            return
        self.send_response(200)
        self.send_header("Content-Length", len(self.server.data))
        self.end_headers()
        self.wfile.write(self.server.data[: self.server.breaks_off_at])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A server on this machine in the place of the official one, with an archive of random images."""
    made = archive(tmp_path, "binary")
    data = made.read_bytes()
    made.unlink()
    make_official(monkeypatch, BINARY, data, ARCHIVES)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # between two attempts
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.data, server.status, server.breaks_off_at, server.requests = data, 200, None, []
        monkeypatch.setattr(module, "URL", f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def load(path):
    return cifar10(path, complete=False, download=True)


@pytest.mark.parametrize("name", ["", BINARY])
@pytest.mark.parametrize("there", ["nothing", "a damaged archive", "an archive of another checksum"])
def test_the_archive_is_downloaded_once(tmp_path, server, name, there, capsys):
    cache = tmp_path / "new" / "cache"
    if there != "nothing":
        cache.mkdir(parents=True)
        (cache / BINARY).write_bytes(b"damaged" if there == "a damaged archive" else server.data[:-1] + b"?")
    for _ in range(2):
        assert_are(load(cache / name), "train")
    assert server.requests == [f"/{BINARY}"]
    assert list(cache.iterdir()) == [cache / BINARY]
    assert (cache / BINARY).read_bytes() == server.data
    assert (cache / BINARY).stat().st_mode & 0o777 == 0o644 or os.name == "nt"
    assert "100%" in capsys.readouterr().err


def test_the_archive_goes_to_the_folder_of_the_environment(tmp_path, server, monkeypatch):
    monkeypatch.setenv("NPFLOW_DATA", str(tmp_path))
    assert_are(load(None), "train")
    assert list(tmp_path.iterdir()) == [tmp_path / BINARY]


@pytest.mark.parametrize("there", [None, b"an old file"])
@pytest.mark.parametrize("fault", ["another file", "too short", "404", "breaks off", "no server"])
def test_a_download_that_fails_leaves_what_was_there(tmp_path, server, monkeypatch, fault, there):
    if there:
        (tmp_path / BINARY).write_bytes(there)
    match fault:
        case "another file":
            server.data = server.data[:-1] + b"?"
        case "too short":
            server.data = b"<!DOCTYPE html>"
        case "404":
            server.status = 404
        case "breaks off":
            server.breaks_off_at = 1000
        case "no server":
            monkeypatch.setattr(module, "URL", "http://127.0.0.1:1/")
    with pytest.raises(InputError, match=rf"expected to download http://.*{BINARY}"):
        load(tmp_path)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [there][: bool(there)]
    assert len(server.requests) == (0 if fault == "no server" else 3)  # it tries again


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, server):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=rf"expected to download .*{BINARY}"):
        load(tmp_path / "file" / "folder")


def test_without_pooch_the_error_says_how_to_install_it(tmp_path, server, monkeypatch):
    monkeypatch.setitem(sys.modules, "pooch", None)
    with pytest.raises(InputError, match=r"expected pooch.*pip install pooch"):
        load(tmp_path)
    (tmp_path / BINARY).write_bytes(server.data)
    assert_are(load(tmp_path), "train")  # nothing is to be downloaded


def test_nothing_is_downloaded_where_something_else_is(tmp_path, server):
    with pytest.raises(InputError, match=rf"expected a folder to download {BINARY} to, got .*python"):
        load(tmp_path / "cifar-10-python.tar.gz")
    folder(tmp_path, "binary")
    assert_are(load(tmp_path), "train")
    assert server.requests == []


def test_the_real_images_are_photographs():
    try:
        images, labels = cifar10(complete=False)
    except MissingDataError as error:
        pytest.skip(str(error))
    assert images.shape[1:] == (32, 32, 3)
    assert set(labels) == set(range(10))
    assert len(CIFAR10_CLASSES) == 10
    # Neighbours are alike in both directions, and so are channels: rows, columns and planes are not mixed up.
    levels = images[:1000].astype(np.float64)
    for axis in (1, 2, 3):
        assert np.abs(np.diff(levels, axis=axis)).mean() < 0.35 * levels.std()
    # The sky is above, and blue: the planes come in the order red, green, blue.
    planes = images[labels == CIFAR10_CLASSES.index("airplane")]
    red, _, blue = planes[:, :4].mean(axis=(0, 1, 2))
    assert blue > red + 10
