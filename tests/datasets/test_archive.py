"""Archives in memory: what was asked for and nothing else, whatever the archive says of itself."""

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


def pack(path, *members):
    with tarfile.open(path, "w:gz", format=tarfile.GNU_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return path


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Where to write an archive to. Nothing else comes to lie there, nor in the current folder."""
    inside, elsewhere = tmp_path / "inside", tmp_path / "elsewhere"
    inside.mkdir()
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    yield inside / "some.tar.gz"
    assert sorted(tmp_path.rglob("*")) == [elsewhere, inside, inside / "some.tar.gz"]


def read(path):
    return read_archive(path, NAMES, largest=100)


def test_the_members_asked_for_are_read(path):
    pack(path, member("folder", type=tarfile.DIRTYPE), member("folder/a.bin", b"123"), member("readme", b"4"))
    assert read(path) == {"folder/a.bin": b"123"}


def test_a_name_may_begin_with_the_current_folder(path):
    pack(path, member("./folder/a.bin", b"1"), member("./folder/b.bin", b"2"))
    assert read(path) == {"folder/a.bin": b"1", "folder/b.bin": b"2"}


def test_other_files_may_be_there_but_are_not_read(path):
    pack(path, member("other", b"1"), member("a.bin", 200 * b"1"))
    assert read(path) == {}


@pytest.mark.parametrize("type", [tarfile.REGTYPE, tarfile.AREGTYPE])
def test_files_have_either_type(path, type):
    pack(path, member("folder/a.bin", b"1", type=type))
    assert read(path) == {"folder/a.bin": b"1"}


@pytest.mark.parametrize(
    "type", [b"1", b"2", b"3", b"4", b"6", b"7", b"D", b"K", b"L", b"S", b"X", b"g", b"x", b"?"]
)
def test_members_of_any_other_type_are_refused(path, type):
    pack(path, member("folder/a.bin", b"1"), member("other", b"20 path=folder/b.bin\n", type=type))
    with pytest.raises(
        InputError, match=r"expected an archive of plain files and folders, .* got 'other' of"
    ):
        read(path)


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_refused_before_they_are_read(path, format):
    with tarfile.open(path, "w:gz", format=format) as archive:
        archive.addfile(tarfile.TarInfo(10**5 * "ab/"))
    with pytest.raises(
        InputError, match="expected an archive of plain files and folders, as tar --format=ustar"
    ):
        read(path)


@pytest.mark.parametrize("name", ["../a.bin", "folder/../../a.bin", "/folder/a.bin", "/etc/passwd"])
def test_paths_that_lead_out_of_the_archive_are_refused(path, name):
    pack(path, member("folder/a.bin", b"1"), member(name, b"2"))
    with pytest.raises(
        InputError, match=r"expected files inside the archive, got '.*', which leads out of it"
    ):
        read(path)


def test_only_files_are_read(path):
    pack(path, member("folder/b.bin", b"1"), member("folder/a.bin", type=tarfile.DIRTYPE))
    with pytest.raises(InputError, match=r"expected folder/a\.bin to be a file, got a folder"):
        read(path)


def test_members_that_are_too_large_are_refused(path):
    pack(path, member("folder/a.bin", 101 * b"1"))
    with pytest.raises(InputError, match=r"expected folder/a\.bin to have at most 100 bytes, got 101"):
        read(path)


def test_a_member_larger_than_the_archive_is_refused(path):
    with gzip.open(path, "wb") as file:
        file.write(member("folder/a.bin", size=90)[0].tobuf() + b"only this")
    with pytest.raises(InputError, match=r"expected a \.tar\.gz, got one that is damaged inside"):
        read(path)


@pytest.mark.parametrize("size", [-1, -512, -1024, -(2**40)])
def test_a_member_of_negative_size_ends_nowhere_and_is_refused(path, size):
    with gzip.open(path, "wb") as file:
        file.write(2 * member("folder/a.bin", size=size)[0].tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match=r"expected "):
        read(path)


def test_a_bomb_is_refused(path, monkeypatch):
    monkeypatch.setattr(archive_module, "MOST_BYTES", 20_000)
    pack(path, member("folder/a.bin", b"1"), member("zeros", bytes(10**6)))
    with pytest.raises(InputError, match="expected at most 20,000 bytes, got more"):
        read(path)


def test_a_crowd_is_refused(path):
    pack(path, *[member(f"file{number}") for number in range(101)])
    with pytest.raises(InputError, match="expected an archive of at most 100 files, got more"):
        read(path)


def test_an_archive_cut_short_is_refused(path):
    data = pack(path, member("folder/a.bin", bytes(range(100)))).read_bytes()
    for length in (0, 1, 5, 20, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:length])
        if length:
            with pytest.raises(InputError, match=rf"got a file of {length} bytes that is damaged, cut short"):
                read(path)
        else:
            with pytest.raises(InputError, match="damaged inside: empty header"):
                read(path)


@pytest.mark.parametrize(
    "data",
    [b"PK\x03\x04" + bytes(100), b"<!DOCTYPE html>", gzip.compress(b"no tar"), gzip.compress(bytes(300))],
    ids=["zip", "html", "gzip of something else", "gzip of half a block"],
)
def test_something_else_is_refused(path, data):
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"expected a \.tar\.gz, got "):
        read(path)


def test_a_wrong_checksum_of_gzip_is_refused(path):
    data = bytearray(pack(path, member("folder/a.bin", b"1")).read_bytes())
    data[-8] ^= 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="damaged, cut short or something else: CRC check failed"):
        read(path)


def test_at_most_so_much_is_read():
    file = io.BytesIO(bytes(50))
    assert read_at_most(file, 50) == bytes(50)
    file.seek(0)
    with pytest.raises(InputError, match="expected at most 20 bytes, got more"):
        read_at_most(file, 20)
    assert file.tell() == 21
