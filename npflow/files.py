"""Files that are replaced as a whole or not at all."""

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

# The end of a partial file's name: a random number, or in older versions those of the process and the thread.
ASIDE = r"\.([0-9a-f]{8}|\d+-\d+)\.partial"


@contextmanager
def written_aside(path):
    """A binary file to write, which replaces `path` once it is complete and on the disk.

    Until then it lies beside `path`. If the process is killed, `path` is the old file or the new one, never a part of
    it; `clear_leftovers` removes what the process has left. After an error `path` is the old file, and nothing lies
    beside it. Where `path` is a symbolic link, the file that it points at is replaced, and the link stays.

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
    path = Path(os.path.realpath(path))
    aside, file = open_aside(path)
    try:
        with file:
            yield file
            file.flush()
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


def open_aside(path):
    """A new file beside `path`, under a name that is not taken: its path, and the file, locked and open to write.

    The lock tells `clear_leftovers`, also in another process, container or machine, that the file is being written. It
    ends with the process that holds it.
    """
    while True:
        aside = path.with_name(f"{path.name}.{secrets.token_hex(4)}.partial")
        try:
            file = aside.open("xb")  # "x" does not follow a link that somebody else put there
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
    path = Path(os.path.realpath(path))
    expected = f"expected {name} to be a path that can be written to, got {str(path)!r}"
    try:
        aside, file = open_aside(path)
        file.close()
        aside.unlink()
    except OSError as error:
        raise InputError(f"{expected}: {error.strerror or error}") from error
    if path.exists() and not may_replace(path):
        raise InputError(f"{expected}: it is another user's, in a folder like /tmp")
    clear_leftovers(path)


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
    path = Path(os.path.realpath(path))
    ours = re.compile(re.escape(path.name) + ASIDE)
    with suppress(OSError):  # a folder that cannot be read: nothing is removed
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
