"""Archives are read in memory: only the files asked for, and none that is damaged or too large."""

import gzip
import io
import tarfile

import pytest

from npflow.datasets import archive as archive_module
from npflow.datasets.archive import read_archive, read_at_most
from npflow.errors import InputError

NAMES = {"folder/a.bin", "folder/b.bin"}


def member(name, data=b"", **attributes):
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    return info, data


def pack(path, *members, format=tarfile.GNU_FORMAT):
    with tarfile.open(path, "w:gz", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where a test writes its archive. After the test, nothing else is there or in the current folder."""
    inside, elsewhere = tmp_path / "inside", tmp_path / "elsewhere"
    inside.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield inside / "some.tar.gz"
    assert sorted(tmp_path.rglob("*")) == [elsewhere, inside, inside / "some.tar.gz"]


def read(path):
    return read_archive(path, NAMES, largest=100)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_only_the_files_asked_for_are_read(path, format):
    others = member("readme", b"4"), member("a.bin", 200 * b"1"), member(40 * "long/" + "name", b"5")
    pack(path, member("folder", type=tarfile.DIRTYPE), member("folder/a.bin", b"123"), *others, format=format)
    assert read(path) == {"folder/a.bin": b"123"}


def test_names_may_begin_with_the_current_folder_or_the_root(path):
    pack(path, member("./folder/a.bin", b"1"), member("/folder/b.bin", b"2"))
    assert read(path) == {"folder/a.bin": b"1", "folder/b.bin": b"2"}


@pytest.mark.parametrize("name", ["../folder/a.bin", "folder/../folder/b.bin", "/../folder/a.bin"])
def test_a_path_that_leads_out_is_not_one_asked_for(path, name):
    pack(
        path,
        member("folder/a.bin", b"1"),
        member(name, b"2"),
        member("x", type=tarfile.SYMTYPE, linkname=".."),
    )
    assert read(path) == {"folder/a.bin": b"1"}


TYPES = {
    "folder": tarfile.DIRTYPE,
    "symbolic link": tarfile.SYMTYPE,
    "hard link": tarfile.LNKTYPE,
    "device": tarfile.CHRTYPE,
    "pipe": tarfile.FIFOTYPE,
    "sparse file": tarfile.GNUTYPE_SPARSE,
    "unknown": b"?",
}


@pytest.mark.parametrize("type", TYPES.values(), ids=TYPES)
def test_only_plain_files_have_the_names_asked_for(path, type):
    pack(path, member("folder/a.bin", b"1"), member("folder/b.bin", type=type, linkname="folder/a.bin"))
    with pytest.raises(InputError, match=r"expected folder/b\.bin to be a plain file"):
        read(path)


def test_large_files_are_refused_under_the_names_asked_for(path):
    pack(path, member("folder/a.bin", 101 * b"1"))
    with pytest.raises(InputError, match=r"folder/a\.bin to have at most 100 bytes, got 101"):
        read(path)


def test_archives_with_too_many_bytes_or_files_are_refused(path, monkeypatch):
    pack(path, *[member(f"file{number}") for number in range(101)])
    with pytest.raises(InputError, match="at most 100 files"):
        read(path)
    # A long name is read before any file is: so the limit holds for all bytes of the archive.
    monkeypatch.setattr(archive_module, "MOST_BYTES", 20_000)
    for info, data in (member("zeros", bytes(10**6)), member(10**5 * "ab/")):
        pack(path, member("folder/a.bin", b"1"), (info, data))
        with pytest.raises(InputError, match="at most 20,000 bytes"):
            read(path)


@pytest.mark.parametrize("name", ["folder/a.bin", "another"])
@pytest.mark.parametrize("size", [90, -1, -512, -1024, -(2**40)])
def test_files_of_a_size_that_they_do_not_have_are_refused(path, name, size):
    with gzip.open(path, "wb") as file:
        file.write(member(name, size=size)[0].tobuf(tarfile.GNU_FORMAT) + b"only this")
    with pytest.raises(InputError, match="expected a"):
        read(path)


def test_headers_of_headers_of_headers_are_refused(path):
    header = member("x", size=512, type=tarfile.XHDTYPE)[0].tobuf() + bytes(512)
    path.write_bytes(gzip.compress(10_000 * header))
    with pytest.raises(InputError, match=r"expected a \.tar\.gz, got a file .* damaged"):
        read(path)


def test_archives_that_are_cut_short_or_damaged_are_refused(path):
    data = pack(path, member("folder/a.bin", bytes(range(100)))).read_bytes()
    other = bytearray(data)
    other[-8] ^= 1  # gzip's checksum
    for damaged in (*(data[:length] for length in (0, 1, 5, 20, len(data) // 2, len(data) - 1)), other):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"expected a \.tar\.gz, got a file of {len(damaged)} bytes"):
            read(path)


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" + bytes(100), b"<!DOCTYPE html>", gzip.compress(b"no tar"), gzip.compress(bytes(300))],
    ids=["zip", "html", "gzip of something else", "gzip of half a block"],
)
def test_other_files_are_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"expected a \.tar\.gz, got "):
        read(path)


def test_no_more_is_read_than_the_limit():
    file = io.BytesIO(bytes(50))
    assert read_at_most(file, 50) == bytes(50)
    file.seek(0)
    with pytest.raises(InputError, match="at most 20 bytes"):
        read_at_most(file, 20)
    assert file.tell() == 21
