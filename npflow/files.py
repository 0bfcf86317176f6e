"""Files that are replaced whole or not at all."""

import os
import threading
from contextlib import contextmanager, suppress


@contextmanager
def written_aside(path):
    """A binary file to write, which takes the place of `path` once it is whole and on the disk.

    It lies beside `path` while it is written. A kill at any instant leaves the old file or the new one, never a part,
    and so does an error: it leaves the old one, and nothing beside it.

    Parameters
    ----------
    path : Path
    """
    # A name of its own, so that two processes that save to one path do not write into one file.
    aside = path.with_name(f"{path.name}.{os.getpid()}-{threading.get_ident()}.partial")
    try:
        with aside.open("xb") as file:  # "x" follows no link that somebody else put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    if os.name == "posix":  # the rename itself must reach the disk too; Windows has no such call
        # The new file is in its place: an error would say that the old one is. Some network file systems raise one.
        with suppress(OSError):
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
