"""CIFAR-10: both versions, as a folder and as an archive, with made-up images; the real ones where they are."""

import hashlib
import importlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from npflow.datasets import CIFAR10_CLASSES, cifar10
from npflow.datasets.cifar10 import ARCHIVES, BATCHES, FILES, FOLDERS, Official, cifar10_parts
from npflow.errors import InputError, MissingDataError

module = importlib.import_module("npflow.datasets.cifar10")  # the function has the same name
ALL = (*BATCHES["train"], *BATCHES["test"])
N = 4  # images in a batch


def made_up(batch):
    """Images and labels of a batch, each batch's its own."""
    rng = np.random.default_rng(ALL.index(batch))
    return rng.integers(256, size=(N, 32, 32, 3), dtype=np.uint8), rng.integers(10, size=N)


def binary(images, labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return np.concatenate([labels[:, None].astype(np.uint8), planes], axis=1).tobytes()


def python(images, labels):
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    batch = {b"batch_label": b"made up", b"labels": labels.tolist(), b"data": planes, b"filenames": []}
    return pickle.dumps(batch, protocol=2)


VERSIONS = {"binary": (".bin", binary), "python": ("", python)}


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


def contents(version, batches=ALL):
    """The files of a version: their bytes by name."""
    suffix, write = VERSIONS[version]
    return {f"{batch}{suffix}": write(*made_up(batch)) for batch in batches}


def folder(path, version, batches=ALL):
    path = path / FOLDERS[VERSIONS[version][0]]
    path.mkdir(parents=True)
    for name, data in contents(version, batches).items():
        (path / name).write_bytes(data)
    return path


def archive(path, version, batches=ALL):
    path = path / f"cifar-10-{version}.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        for name, data in {"readme.html": b"about", **contents(version, batches)}.items():
            info = tarfile.TarInfo(f"{FOLDERS[VERSIONS[version][0]]}/{name}")
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def expected(split):
    return tuple(np.concatenate(part) for part in zip(*map(made_up, BATCHES[split])))


def assert_are(found, split):
    for array, right in zip(found, expected(split), strict=True):
        assert array.dtype == right.dtype
        np.testing.assert_array_equal(array, right)


@pytest.fixture
def official(monkeypatch, version):
    """As if the made-up files were the official ones."""
    for name, data in contents(version).items():
        monkeypatch.setitem(FILES, name, Official(len(data), hashlib.md5(data).hexdigest()))


@pytest.mark.parametrize("make", [folder, archive])
@pytest.mark.parametrize("split", BATCHES)
def test_both_versions_are_read_as_folders_and_as_archives(tmp_path, version, make, split, official):
    images, labels = cifar10(make(tmp_path, version), split)
    assert_are((images, labels), split)
    assert images.flags.c_contiguous


@pytest.mark.parametrize("make", [folder, archive])
def test_a_folder_that_they_lie_in_will_do(tmp_path, monkeypatch, version, make, official):
    made = make(tmp_path, version)
    assert_are(cifar10(str(tmp_path)), "train")
    monkeypatch.setenv("NPFLOW_DATA", str(tmp_path))
    assert_are(cifar10(), "train")
    monkeypatch.setenv("NPFLOW_DATA", str(made))
    assert_are(cifar10(split="test"), "test")


def test_without_a_path_it_is_looked_for_in_the_cache(tmp_path, monkeypatch, version, official):
    monkeypatch.delenv("NPFLOW_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    with pytest.raises(MissingDataError) as error:
        cifar10()
    for part in (
        f"expected CIFAR-10 at {tmp_path / '.cache' / 'npflow'}, got nothing there",
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz (170,052,171 bytes, MD5 c32a1d4ab5d03f1284b67883e8d87530)",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz (170,498,071 bytes, MD5 c58f30108f718f92721af3b95e74349a)",
        "download=True",
    ):
        assert part in str(error.value)
    folder(tmp_path / ".cache" / "npflow", version)
    assert_are(cifar10(), "train")


def test_fewer_images_are_taken_where_that_is_asked_for(tmp_path, version):
    path = folder(tmp_path, version)
    with pytest.raises(InputError, match=r"data_batch_1.*: expected the official batch of 3\d,\d{3},\d{3} bytes, "
                       r"got \d+,\d{3} bytes with 4 images; complete=False .* reads what is there"):  # fmt: skip
        cifar10(path)
    assert_are(cifar10(path, complete=False), "train")


def test_a_file_of_the_official_size_has_the_official_checksum(tmp_path, version, official):
    path = folder(tmp_path, version)
    name = f"data_batch_3{VERSIONS[version][0]}"
    data = bytearray((path / name).read_bytes())
    data[-10] ^= 1
    (path / name).write_bytes(data)
    for complete in (True, False):
        with pytest.raises(
            InputError, match=rf"{name}: expected the official file of this size, with the MD5"
        ):
            cifar10(path, complete=complete)


def test_an_archive_of_the_official_size_has_the_official_checksum(tmp_path, monkeypatch, version, official):
    path = archive(tmp_path, version)
    monkeypatch.setitem(ARCHIVES, path.name, Official(path.stat().st_size, "0" * 32))
    with pytest.raises(
        InputError, match=rf"{path.name}: expected the official file of this size, with the MD5 .*0{{32}}"
    ):
        cifar10(path)


def test_an_archive_cut_short_is_refused(tmp_path, version):
    path = archive(tmp_path, version)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=rf"{path.name}: expected a \.tar\.gz, got a file of .* cut short"):
        cifar10(path, complete=False)


@pytest.mark.parametrize("make", [folder, archive])
def test_batches_that_are_missing_are_named(tmp_path, version, make):
    path = make(tmp_path, version, ALL[1:3])
    suffix = VERSIONS[version][0]
    with pytest.raises(
        InputError, match=rf"{path.name}: expected the batches of the train split, got no data_batch_1{suffix}, "
        rf"data_batch_4{suffix}, data_batch_5{suffix}$"
    ):  # fmt: skip
        cifar10(path, complete=False)
    with pytest.raises(InputError, match="expected the batches of the test split, got no test_batch"):
        cifar10(path, "test", complete=False)


@pytest.mark.parametrize("length", [0, 1, 3072, 3074])
def test_records_are_whole(tmp_path, length):
    path = folder(tmp_path, "binary")
    (path / "test_batch.bin").write_bytes(bytes(length))
    for complete in (True, False):
        with pytest.raises(InputError, match=rf"test_batch\.bin: expected a whole number of records of 3,073 bytes, "
                           rf"got {length:,} bytes"):  # fmt: skip
            cifar10(path, "test", complete=complete)


def test_labels_are_those_of_ten_classes(tmp_path, version):
    path = folder(tmp_path, version)
    images, labels = made_up("test_batch")
    labels[2] = 10
    suffix, write = VERSIONS[version]
    (path / f"test_batch{suffix}").write_bytes(write(images, labels))
    with pytest.raises(
        InputError, match=rf"test_batch{suffix}: expected labels from 0 to 9, got 10 in record 2"
    ):
        cifar10(path, "test", complete=False)


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch, version):
    path = folder(tmp_path, version)
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(InputError, match=r"test_batch.*: expected at most 1,000 bytes, got more"):
        cifar10(path, "test", complete=False)
    with pytest.raises(
        InputError, match=r"expected .*test_batch.* to have at most 1,000 bytes, got 1\d,\d{3}"
    ):
        cifar10(archive(tmp_path, version), "test", complete=False)


class Runs:
    """Creates a folder where it is loaded by `pickle`."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


PLANES = np.zeros((2, 3072), np.uint8)


@pytest.mark.parametrize("make", [folder, archive])
def test_a_pickle_that_would_run_something_is_refused(tmp_path, monkeypatch, make):
    marker = tmp_path / "marker"
    batch = pickle.dumps({b"data": PLANES, b"labels": [0, Runs(marker)]}, protocol=2)
    monkeypatch.setitem(VERSIONS, "python", ("", lambda images, labels: batch))
    with pytest.raises(InputError, match=r"/test_batch: expected a pickle that names nothing but NumPy's arrays, got one "
                       r"that names '\w+\.mkdir'; nothing in it was called"):  # fmt: skip
        cifar10(make(tmp_path, "python"), "test", complete=False)
    assert not marker.exists()


@pytest.mark.parametrize(
    ("batch", "sentence"),
    [
        ([1, 2], "expected a dict"),
        ({b"data": PLANES}, "expected a dict"),
        ({b"data": PLANES, b"labels": (1, 2)}, "a list of integers"),
        ({b"data": PLANES, b"labels": [1, True]}, "a list of integers"),
        ({b"data": PLANES, b"labels": [1, b"2"]}, "a list of integers"),
        ({b"data": [[0] * 3072], b"labels": [1]}, "expected an array of uint8"),
        ({b"data": PLANES.astype(object), b"labels": [1, 2]}, "expected an array of uint8"),
        ({b"data": PLANES, b"labels": [1]}, r"3,072 pixels for each of 1 labels, got an array of shape \(2, 3072\)"),
        ({b"data": PLANES[:, 1:], b"labels": [1, 2]}, r"got an array of shape \(2, 3071\)"),
        ({b"data": PLANES, b"labels": [1, -1]}, "got -1 in record 1"),
        ({b"data": PLANES, b"labels": [2**70, 1]}, "in record 0"),
    ],
)  # fmt: skip
def test_what_a_pickle_holds_is_checked(tmp_path, batch, sentence):
    path = folder(tmp_path, "python")
    (path / "test_batch").write_bytes(pickle.dumps(batch, protocol=2))
    with pytest.raises(InputError, match=rf"/test_batch: .*{sentence}"):
        cifar10(path, "test", complete=False)


def test_a_folder_with_nothing_and_a_file_of_something_else_are_refused(tmp_path):
    with pytest.raises(MissingDataError, match="got nothing there"):
        cifar10(tmp_path)
    (tmp_path / "photo.png").write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"photo\.png: expected a \.tar\.gz") as error:
        cifar10(tmp_path / "photo.png")
    assert not isinstance(error.value, MissingDataError)  # something is there
    with pytest.raises(InputError, match="expected split to be one of 'train', 'test', got 'validation'"):
        cifar10(tmp_path, "validation")


@pytest.fixture
def fetched(monkeypatch, tmp_path):
    """The arguments of each download; what is downloaded is made up."""
    calls, source = [], archive(tmp_path, "binary")
    data = source.read_bytes()
    source.unlink()

    def fetch(url, path, *, size, md5):
        calls.append((url, path, size, md5))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    monkeypatch.setattr(module, "fetch", fetch)
    return calls


def test_the_binary_archive_is_downloaded_where_there_is_nothing(tmp_path, fetched, monkeypatch):
    monkeypatch.setenv("NPFLOW_DATA", str(tmp_path / "cache"))
    assert_are(cifar10(complete=False, download=True), "train")
    (call,) = fetched
    url = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
    place = tmp_path / "cache" / "cifar-10-binary.tar.gz"
    assert call == (url, place, 170_052_171, "c32a1d4ab5d03f1284b67883e8d87530")


@pytest.mark.parametrize("path", ["", "cifar-10-binary.tar.gz"])
def test_an_archive_that_may_be_damaged_is_looked_at_by_the_download(tmp_path, fetched, path):
    (tmp_path / "cifar-10-binary.tar.gz").write_bytes(b"damaged")
    assert_are(cifar10(tmp_path / path, complete=False, download=True), "train")
    assert fetched[0][1] == tmp_path / "cifar-10-binary.tar.gz"


def test_an_archive_of_another_name_is_no_folder_to_download_to(tmp_path, fetched):
    with pytest.raises(
        InputError, match=r"expected a folder to download cifar-10-binary\.tar\.gz to, got .*python"
    ):
        cifar10(tmp_path / "cifar-10-python.tar.gz", download=True)
    assert fetched == []


def test_nothing_is_downloaded_where_something_else_is(tmp_path, fetched, version):
    folder(tmp_path, version)
    assert_are(cifar10(tmp_path, complete=False, download=True), "train")
    assert fetched == []


def test_parts_have_the_test_batch_or_the_last_tenth(tmp_path, version, official):
    path = folder(tmp_path, version)
    parts = cifar10_parts(path)
    assert_are(parts[:2], "train")
    assert_are(parts[2:], "test")
    (path / f"test_batch{VERSIONS[version][0]}").unlink()
    with pytest.raises(InputError, match="expected the batches of the test split, got no test_batch"):
        cifar10_parts(path)
    images, labels, test_images, test_labels = cifar10_parts(path, complete=False)
    assert len(images) == len(labels) == 18
    assert len(test_images) == len(test_labels) == 2
    together = np.concatenate([images, test_images]), np.concatenate([labels, test_labels])
    assert_are(together, "train")


def test_the_real_images_are_photographs():
    try:
        images, labels = cifar10(complete=False)
    except MissingDataError as error:
        pytest.skip(str(error))
    assert images.shape[1:] == (32, 32, 3)
    assert set(labels) == set(range(10))
    assert len(CIFAR10_CLASSES) == 10
    # Neighbours are alike in both directions, and so are channels: rows, columns and planes are where they belong.
    levels = images[:1000].astype(np.float64)
    for axis in (1, 2, 3):
        assert np.abs(np.diff(levels, axis=axis)).mean() < 0.35 * levels.std()
    # The sky is above, and blue: the planes come in the order red, green, blue.
    planes = images[labels == CIFAR10_CLASSES.index("airplane")]
    red, _, blue = planes[:, :4].mean(axis=(0, 1, 2))
    assert blue > red + 10
