"""Files out of a `.tar.gz`, in memory: nothing is unpacked to the disk, nor read that was not asked for."""

import gzip
import tarfile
import zlib
from pathlib import PurePosixPath

from npflow.errors import InputError

# Unpacked, CIFAR-10 has 186 million bytes; an archive of a few kilobytes may fill any memory.
MOST_BYTES = 2**28
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
        If the archive is damaged, cut short or something else, if anything but plain files and folders is in
        it, if a member's path leads out of it, if one of the given names is a folder or too large, or if there is
        far more in it than in any archive that is read here.
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
    for count, (member, content) in enumerate(_members(data)):
        if count == MOST_MEMBERS:
            raise InputError(f"expected an archive of at most {MOST_MEMBERS} files, got more")
        name = PurePosixPath(member.name)
        if name.is_absolute() or ".." in name.parts:
            raise InputError(
                f"expected files inside the archive, got {member.name[:80]!r}, which leads out of it"
            )
        if str(name) in names:
            if member.isdir():
                raise InputError(f"expected {name} to be a file, got a folder")
            if len(content) > largest:
                raise InputError(f"expected {name} to have at most {largest:,} bytes, got {len(content):,}")
            contents[str(name)] = bytes(content)
    return contents


def _members(data):
    """The header and the content of each file and folder in a tar archive.

    A `TarFile` would read on where a header of another type, such as that of a long name or of a file with holes,
    says so, and make of a few kilobytes many megabytes. Here such a header is refused before what follows it is read.
    """
    end = 0
    while not end or any(data[end : end + tarfile.BLOCKSIZE]):  # an archive ends with zeros
        start = end + tarfile.BLOCKSIZE
        try:
            member = tarfile.TarInfo.frombuf(data[end:start], "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise InputError(f"expected a .tar.gz, got one that is damaged inside: {error}") from error
        if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise InputError(
                "expected an archive of plain files and folders, as tar --format=ustar makes it, got "
                f"{member.name[:80]!r} of tar's type {member.type!r}"
            )
        size = 0 if member.isdir() else member.size
        if not 0 <= size <= len(data) - start:
            raise InputError(
                f"expected a .tar.gz, got one that is damaged inside: {member.name[:80]!r} has {size:,} bytes"
            )
        yield member, memoryview(data)[start : start + size]
        end = start + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE  # filled up to whole blocks
