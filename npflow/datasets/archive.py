"""Files out of a `.tar.gz`, in memory: nothing is unpacked to the disk, nor read that was not asked for."""

import gzip
import io
import tarfile
import zlib
from pathlib import PurePosixPath

from npflow.errors import InputError

MOST_BYTES = 2**29  # unpacked; an archive of a few kilobytes may fill any memory
MOST_MEMBERS = 100


def read_at_most(file, limit):
    """All bytes of an open file.

    Raises
    ------
    InputError
        If there are more than `limit`; no more than that is read.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"expected at most {limit:,} bytes, got more")
    return data


def read_archive(path, names, *, largest):
    """The members of a `.tar.gz` that have one of the given names.

    Parameters
    ----------
    path : Path
        The archive.
    names : collection of str
        Folder and file as in the archive, such as ``"cifar-10-batches-bin/test_batch.bin"``.
    largest : int
        The most bytes one of them may have.

    Returns
    -------
    dict of bytes
        By name; a name that the archive lacks is not in it.

    Raises
    ------
    InputError
        If the archive is damaged, cut short or something else, if a member's path leads out of it, if one
        of the given names is a link or a folder or too large, or if there is far more in it than in any archive
        that is read here.
    """
    try:
        with path.open("rb") as file, gzip.open(file) as unpacked:
            data = read_at_most(unpacked, MOST_BYTES)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"expected a .tar.gz, got a file of {path.stat().st_size:,} bytes that is damaged, cut short or "
            f"something else: {error}"
        ) from error
    contents = {}
    try:
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            for count, member in enumerate(archive):
                if count == MOST_MEMBERS:
                    raise InputError(f"expected an archive of at most {MOST_MEMBERS} files, got more")
                name = PurePosixPath(member.name)
                if name.is_absolute() or ".." in name.parts:
                    raise InputError(
                        f"expected files inside the archive, got {member.name[:80]!r}, which leads out of it"
                    )
                if str(name) in names:
                    contents[str(name)] = _read_member(archive, member, largest)
    except InputError:
        raise
    except Exception as error:  # a damaged archive raises almost anything
        raise InputError(f"expected a .tar.gz, got one that is damaged inside: {error}") from error
    return contents


def _read_member(archive, member, largest):
    if not member.isfile():
        raise InputError(f"expected {member.name} to be a file, got a link, a folder or a device")
    if not 0 <= member.size <= largest:
        raise InputError(f"expected {member.name} to have at most {largest:,} bytes, got {member.size:,}")
    return archive.extractfile(member).read()
