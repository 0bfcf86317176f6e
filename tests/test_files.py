"""Files are replaced whole or not at all."""

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
