"""Files that are replaced as a whole or not at all."""

import errno
import os
import re
import secrets
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

from npflow.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where a file that is open cannot be removed
    fcntl = None

LINKS = 40  # that lead from one to the next, as on Linux
# The end of a partial file's name: a random number, or in older versions those of the process and the thread.
ASIDE = r"\.([0-9a-f]{8}|\d+-\d+)\.partial"


@contextmanager
def written_aside(path):
    """A binary file to write, which replaces `path` once it is complete and on the disk.

    Until then it lies beside `path`. If the process is killed, `path` is the old file or the new one, never a part of
    it; `clear_leftovers` removes what the process has left. After an error `path` is the old file, and nothing lies
    beside it. Where `path` is a symbolic link, the file that it points at is replaced, and the link stays.

    The new file keeps the permissions of the old one, and its owner and group where the process may set them. Without
    an old file the permissions follow the umask.

    Parameters
    ----------
    path : Path

    Yields
    ------
    file : binary file

    Raises
    ------
    OSError
        If the file cannot be written, as on a full disk.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from npflow.files import written_aside
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = pathlib.Path(folder.name) / "file"
    >>> with written_aside(path) as file:
    ...     _ = file.write(b"whole")
    ...     path.exists()
    False
    >>> path.read_bytes()
    b'whole'
    >>> folder.cleanup()
    """
    path = target_of(path)
    aside, file = open_aside(path)
    try:
        with file:
            yield file
            file.flush()
            keep_mode_and_owner(path, file.fileno())
            os.fsync(file.fileno())
            if fcntl is not None:  # the lock is held until the file has its name
                aside.replace(path)
        if fcntl is None:  # a file that is open cannot be renamed
            aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the renaming must reach the disk too; Windows has no such call
        # Some network file systems cannot flush a folder. Raising would say that the old file is still there.
        with suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


def target_of(path):
    """The file that writing to `path` makes or replaces, as an absolute path without links.

    It is found as the system finds it: a link at the end is followed, even to a file that does not exist yet, and every
    folder on the way must exist. ``nowhere/../file`` is not the path of a file.

    Raises
    ------
    OSError
        If a folder on the way does not exist, the path names a folder, or links lead in a circle.
    """
    given = str(path)
    for _ in range(LINKS):
        folder, name = os.path.split(path)
        if not stat.S_ISDIR(os.stat(folder or os.curdir).st_mode):  # noqa: PTH116 (a Path would drop a final dot)
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), given)
        if name in ("", os.curdir, os.pardir):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), given)
        path = Path(os.path.realpath(folder), name)
        if not path.is_symlink():
            return path
        path = os.path.join(path.parent, path.readlink())  # noqa: PTH118 (as above)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), given)


def keep_mode_and_owner(path, descriptor):
    """Give an open file the permissions of the one at `path`, if there is one, and its owner and group if permitted."""
    if os.name != "posix" or not path.exists():
        return
    old = path.stat()
    with suppress(OSError):  # permitted to root
        os.fchown(descriptor, old.st_uid, -1)
    with suppress(OSError):  # permitted to the members of the group
        os.fchown(descriptor, -1, old.st_gid)
    with suppress(OSError):  # a file system without permissions
        os.fchmod(descriptor, old.st_mode & 0o777)


def open_aside(path):
    """A new file beside `path`, under a name that is not taken: its path, and the file, locked and open to write.

    Where there is a file at `path`, nobody but the owner can read this one before it has the permissions of that one.

    The lock tells `clear_leftovers`, also in another process, container or machine, that the file is being written. It
    ends with the process that holds it.
    """
    mode = 0o600 if path.exists() else 0o666  # less what the umask takes
    while True:
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            # "x" does not follow a link that somebody else put there.
            file = open(aside, "xb", opener=lambda name, flags: os.open(name, flags, mode))  # noqa: SIM115
        except FileExistsError:
            continue
        if lock(file.fileno()) is not False and aside.exists():
            return aside, file
        # Before it was locked, another process has taken it for a leftover.
        file.close()


def lock(descriptor):
    """Lock an open file: True, or False where another process has locked it. None where there are no locks."""
    if fcntl is None:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return None
    return True


def check_target(path, name):
    """The file that writing to `path` makes or replaces; see `target_of`.

    Raises
    ------
    InputError
        If there can be none. An error calls the path `name`.
    """
    try:
        target = target_of(path)
        if target.exists() and not target.is_file():  # a folder, a pipe, a device
            got = f"the folder {str(path)!r}" if target.is_dir() else f"{str(path)!r}, which is none"
            raise InputError(f"expected {name} to be a file, got {got}")
    except OSError as error:  # a name that is too long, too
        raise not_writable(path, name, error) from error
    return target


def not_writable(path, name, reason):
    """The error that says why a path cannot be written to."""
    reason = getattr(reason, "strerror", None) or reason
    return InputError(f"expected {name} to be a path that can be written to, got {str(path)!r}: {reason}")


def prepare_to_write(path, name):
    """Clear what killed processes have left beside `path`, and make sure that a file can be written there.

    Parameters
    ----------
    path : Path
    name : str
        What an error calls the path.

    Raises
    ------
    InputError
        If no file can be made beside `path`, or an existing one may not be replaced.
    """
    target = check_target(path, name)
    try:
        aside, file = open_aside(target)
        file.close()
        aside.unlink()
    except OSError as error:
        raise not_writable(path, name, error) from error
    if target.exists() and not may_replace(target):
        raise not_writable(path, name, "it is another user's, in a folder like /tmp")
    clear_leftovers(target)


def may_replace(path):
    """Whether a file in a folder that can be written to may be renamed over: in /tmp, only one's own may."""
    folder = path.parent.stat()
    if os.name != "posix" or not folder.st_mode & stat.S_ISVTX:
        return True
    return os.geteuid() in (0, folder.st_uid, path.stat().st_uid)


def clear_leftovers(path):
    """Remove the files that killed processes have left beside `path`, half written.

    One that a process is still writing is locked, and stays. On a file system without locks all stay.
    """
    with suppress(OSError):  # a folder that is not there, or cannot be read: nothing is removed
        path = target_of(path)
        ours = re.compile(re.escape(path.name) + ASIDE)
        names = [entry.name for entry in os.scandir(path.parent) if ours.fullmatch(entry.name)]
        for name in names:
            with suppress(OSError):  # it is another user's, or gone by now
                remove_unless_locked(path.with_name(name))


def remove_unless_locked(leftover):
    """Remove a regular file that no process has locked."""
    if fcntl is None:
        leftover.unlink()  # fails where it is open
        return
    # Neither follow a link nor wait for a pipe. A lock on a network file system takes a file open to write.
    descriptor = os.open(leftover, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if stat.S_ISREG(os.fstat(descriptor).st_mode) and lock(descriptor):
            leftover.unlink()
    finally:
        os.close(descriptor)
