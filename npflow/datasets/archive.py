"""Read chosen files of a `.tar.gz` in memory. Nothing is written to the disk."""

import gzip
import io
import tarfile
import zlib
from pathlib import PurePosixPath

from npflow.errors import InputError

# CIFAR-10 has 186 million bytes unpacked. Without a limit, an archive of a megabyte could fill the memory.
MOST_BYTES = 2**28
MOST_MEMBERS = 100
# What gzip and tarfile raise for damaged files; the last three are for header fields that make no sense.
DAMAGED = (
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    EOFError,
    ValueError,
    OverflowError,
    RecursionError,
)


def read_at_most(file, limit):
    """Read an open file to its end.

    Raises
    ------
    InputError
        If it has more than `limit` bytes. At most ``limit + 1`` are read.
    """
    data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"expected at most {limit:,} bytes, got more")
    return data


def read_archive(path, names, *, largest):
    """Read the members of a `.tar.gz` that have one of the given names.

    Parameters
    ----------
    path : Path
        The archive.
    names : collection of str
        Folder and file as in the archive, such as ``"cifar-10-batches-bin/test_batch.bin"``.
    largest : int
        The largest size accepted for one of these members, in bytes.

    Returns
    -------
    dict of bytes
        The contents by name, without the names that the archive lacks.

    Raises
    ------
    InputError
        If the archive is damaged, cut short or not a `.tar.gz`; if it has a link, a device or a sparse file;
        if the path of a member leads out of it; if one of the given names is a folder or too large; or if
        the whole archive is too large.
    """
    try:
        with path.open("rb") as file, gzip.open(file) as unpacked:
            data = read_at_most(unpacked, MOST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            return _read_members(archive, path, names, largest)
    except InputError:  # a ValueError too
        raise
    except DAMAGED as error:
        raise InputError(
            f"expected a .tar.gz, got a file of {path.stat().st_size:,} bytes that is damaged, cut short or "
            f"something else: {error}"
        ) from error


def _read_members(archive, path, names, largest):
    contents = {}
    for count, member in enumerate(archive):
        if count == MOST_MEMBERS:
            raise InputError(f"expected an archive of at most {MOST_MEMBERS} files, got more")
        # A member of negative size would be followed by itself. A sparse file can be larger than its archive.
        if not (member.isreg() or member.isdir()) or member.issparse() or member.size < 0:
            raise InputError(f"expected an archive of plain files and folders, got {member.name[:80]!r}, "
                             f"of tar's type {member.type!r} and {member.size:,} bytes")  # fmt: skip
        try:
            # The filter asks for a folder to extract to. The archive stands in, as nothing lies below a file.
            member = tarfile.data_filter(member, path)
        except tarfile.FilterError as error:
            raise InputError(
                f"expected files inside the archive, got {member.name[:80]!r}, which leads out of it"
            ) from error
        name = str(PurePosixPath(member.name))  # without the "./" that some archives begin names with
        if name in names:
            if member.isdir():
                raise InputError(f"expected {name} to be a file, got a folder")
            if member.size > largest:
                raise InputError(f"expected {name} to have at most {largest:,} bytes, got {member.size:,}")
            contents[name] = archive.extractfile(member).read()
    return contents
