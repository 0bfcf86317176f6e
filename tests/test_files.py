"""Files are replaced whole or not at all."""

import os
import stat
import threading

import pytest

from npflow.files import written_aside


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with written_aside(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), written_aside(path) as file:
        file.write(b"half")
        raise OSError("the disk is full")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_place_of_the_new_file_is_not_followed(tmp_path):
    path, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
    path.write_bytes(b"old")
    elsewhere.write_bytes(b"another's")
    link = tmp_path / f"file.{os.getpid()}-{threading.get_ident()}.partial"
    link.symlink_to(elsewhere)
    with pytest.raises(FileExistsError), written_aside(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert elsewhere.read_bytes() == b"another's"


def test_a_folder_that_cannot_be_flushed_is_no_error_once_the_new_file_is_there(tmp_path, monkeypatch):
    flushed = []

    def fsync(descriptor):
        flushed.append(stat.S_ISDIR(os.fstat(descriptor).st_mode))
        if flushed[-1]:
            raise OSError("not on this file system")

    monkeypatch.setattr("npflow.files.os.fsync", fsync)
    with written_aside(tmp_path / "file") as file:
        file.write(b"new")
    assert (tmp_path / "file").read_bytes() == b"new"
    assert flushed == [False, True]
