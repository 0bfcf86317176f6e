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
    """Read an open file to its end; raise `InputError` after limit + 1 bytes, if there are as many."""
    data = file.read(limit + 1)
    if len(data) > limit:
        raise InputError(f"expected at most {limit:,} bytes, got more")
    return data


def read_archive(path, names, *, largest):
    """Read the members of a `.tar.gz` that have one of the given names, such as ``"folder/file.bin"``.

    Return a dict, without the names that the archive lacks. Raise `InputError` if the archive is damaged, too
    large or not a `.tar.gz`, or if one of the members is not a plain file or has more than `largest` bytes.
    """
    try:
        # tarfile's own "r|gz" does not check gzip's checksum, and reads a long name whatever its size.
        with gzip.open(path) as unpacked:
            data = read_at_most(unpacked, MOST_BYTES)
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
            return dict(_read_members(archive, names, largest))
    except InputError:  # a ValueError too
        raise
    except DAMAGED as error:
        raise InputError(
            f"expected a .tar.gz, got a file of {path.stat().st_size:,} bytes that is damaged, cut short or "
            f"something else: {error}"
        ) from error


def _read_members(archive, names, largest):
    for count, member in enumerate(archive):
        if member.size < 0:  # it could be followed by itself
            raise tarfile.ReadError(f"a member of {member.size} bytes")
        if count == MOST_MEMBERS:
            raise InputError(f"expected an archive of at most {MOST_MEMBERS} files, got more")
        name = str(PurePosixPath(member.name.lstrip("/")))  # without the "./" that some names begin with
        if name in names:
            # tarfile would follow a link, and a sparse file can be larger than its archive.
            if not member.isreg() or member.issparse():
                raise InputError(f"expected {name} to be a plain file, got one of tar's type {member.type!r}")
            if member.size > largest:
                raise InputError(f"expected {name} to have at most {largest:,} bytes, got {member.size:,}")
            yield name, archive.extractfile(member).read()
