"""Files are replaced whole or not at all."""

import errno
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import refusal

from npflow.files import check_target, clear_leftovers, prepare_to_write, target_of, written_aside


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


def test_a_name_that_is_taken_is_left_alone_and_its_link_not_followed(tmp_path, monkeypatch):
    path, elsewhere = tmp_path / "file", tmp_path / "elsewhere"
    path.write_bytes(b"old")
    elsewhere.write_bytes(b"another's")
    link, taken = tmp_path / "file.00000000.partial", tmp_path / "file.11111111.partial"
    link.symlink_to(elsewhere)
    taken.write_bytes(b"another's")
    names = iter(["00000000", "11111111", "22222222"])
    monkeypatch.setattr("npflow.files.secrets.token_hex", lambda _: next(names))
    with written_aside(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert elsewhere.read_bytes() == taken.read_bytes() == b"another's"
    assert link.is_symlink()


def test_the_file_that_a_link_points_at_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "disk").mkdir()
    link, other, target = tmp_path / "file", tmp_path / "other", tmp_path / "disk" / "file"
    link.symlink_to(other)
    other.symlink_to(target)  # which does not exist yet
    for contents in (b"first", b"second"):
        with written_aside(link) as file:
            file.write(contents)
        assert link.is_symlink()
        assert target.read_bytes() == contents
    assert [path.name for path in target.parent.iterdir()] == ["file"]


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_the_permissions_are_those_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        with written_aside(tmp_path / "file") as file:
            file.write(b"new")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions_and_its_owner(mode, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(path, 12, 34)
    before = path.stat()
    with written_aside(path) as file:
        file.write(b"secret")
        aside = next(entry for entry in tmp_path.iterdir() if entry != path)
        assert stat.S_IMODE(aside.stat().st_mode) == 0o600  # others could read it meanwhile
    after = path.stat()
    assert path.read_bytes() == b"secret"
    assert after.st_ino != before.st_ino
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_file_system_without_owners_and_permissions_is_written_to(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    path = tmp_path / "file"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(os, "fchown", refuse)
    with written_aside(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"


# ---------------------------------------------------------------- what a path means


def test_a_path_means_what_the_system_means(tmp_path, monkeypatch):
    """The file that `open` would write to."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "disk").mkdir()
    (tmp_path / "elsewhere").symlink_to("disk")
    (tmp_path / "link").symlink_to("disk/none/../deep")  # no folder none
    (tmp_path / "good").symlink_to("elsewhere/deep")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path in ("new", "disk/../new", "elsewhere/new", "elsewhere/../new", "good", "file"):
        target = target_of(path)
        Path(path).write_bytes(b"")
        assert target.samefile(path)
        assert not target.is_symlink()
    for path in ("no/new", "no/../new", "file/new", "file/../new", "link", "loop", "disk/", "disk", "."):
        with pytest.raises(OSError, match="Errno"):
            Path(path).write_bytes(b"")
        assert refusal(check_target, path, "the path").startswith("expected the path to be a ")


# ---------------------------------------------------------------- what killed processes leave


def test_leftovers_of_exactly_this_file_are_cleared(tmp_path):
    path = tmp_path / "run.npz"
    ours = ["run.npz.0123abcd.partial", "run.npz.4711-140737353870208.partial"]
    others = [
        "run.npz",
        "film.mkv.partial",
        "run.npz.partial",
        "run.npz.mine.partial",
        "myrun.npz.0123abcd.partial",
        "runXnpz.0123abcd.partial",
        "run.npz.0123abcd.partial.npz",
    ]
    for name in (*ours, *others):
        (tmp_path / name).touch()
    (tmp_path / "run.npz.aaaaaaaa.partial").mkdir()
    (tmp_path / "run.npz.bbbbbbbb.partial").symlink_to(path)
    clear_leftovers(path)
    left = {entry.name for entry in tmp_path.iterdir()}
    assert left == {*others, "run.npz.aaaaaaaa.partial", "run.npz.bbbbbbbb.partial"}


def test_a_file_that_somebody_is_writing_is_no_leftover(tmp_path):
    path = tmp_path / "file"
    with written_aside(path) as file:
        file.write(b"new")
        clear_leftovers(path)
        prepare_to_write(path, "the path")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_of_a_process_that_is_killed_is_one(tmp_path):
    """The lock is held by the process that writes, whichever it is, and goes with it."""
    code = (
        "import pathlib, sys, time\nfrom npflow.files import written_aside\n"
        "with written_aside(pathlib.Path(sys.argv[1])) as file:\n    print('writing', flush=True)\n    time.sleep(60)"
    )
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        clear_leftovers(path)
        assert len(list(tmp_path.iterdir())) == 1
        process.kill()
        process.wait()
    clear_leftovers(path)
    assert not list(tmp_path.iterdir())


def test_one_that_was_taken_for_a_leftover_before_it_was_locked_is_made_again(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    flock, path = fcntl.flock, tmp_path / "file"

    def late(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        clear_leftovers(path)
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with written_aside(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"new"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_without_locks_files_are_written_and_leftovers_stay(error, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path, leftover = tmp_path / "file", tmp_path / "file.0123abcd.partial"
    leftover.touch()
    with written_aside(path) as file:
        file.write(b"new")
    clear_leftovers(path)
    assert path.read_bytes() == b"new"
    assert leftover.exists()


def test_on_windows_an_open_file_is_closed_before_it_is_renamed(tmp_path, monkeypatch):
    monkeypatch.setattr("npflow.files.fcntl", None)
    path, replace = tmp_path / "file", Path.replace
    (tmp_path / "file.0123abcd.partial").touch()
    monkeypatch.setattr(Path, "replace", lambda aside, new: file.closed and replace(aside, new))
    with written_aside(path) as file:
        file.write(b"new")
    clear_leftovers(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------- beforehand


@pytest.mark.parametrize("name", [240 * "a", "nowhere/file"])
def test_a_path_where_no_file_can_be_made_is_refused(name, tmp_path):
    path = tmp_path / name
    assert refusal(prepare_to_write, path, "the path").startswith(
        f"expected the path to be a path that can be written to, got '{path}': "
    )
    assert not list(tmp_path.iterdir())


def test_another_users_file_in_a_folder_like_tmp_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "file"
    path.touch()
    prepare_to_write(path, "the path")
    tmp_path.chmod(0o1777)
    prepare_to_write(path, "the path")
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert "another user's" in refusal(prepare_to_write, path, "the path")
    assert list(tmp_path.iterdir()) == [path]


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
