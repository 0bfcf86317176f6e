"""Files that are replaced as a whole or not at all."""

import os
import threading
from contextlib import contextmanager, suppress


@contextmanager
def written_aside(path):
    """A binary file to write, which replaces `path` once it is complete and on the disk.

    Until then it lies beside `path`. If the process is killed, `path` is the old file or the new one, never a part of
    it. After an error `path` is the old file, and nothing lies beside it.

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
    # Processes and threads that save to one path write to files of their own.
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with aside.open("xb") as file:  # "x" does not follow a link that somebody else put there
            yield file
            file.flush()
            os.fsync(file.fileno())
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
