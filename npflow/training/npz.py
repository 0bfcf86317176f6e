"""The `.npz` of a checkpoint: its arrays are read only if npflow may have written the file.

No pickle is loaded, no code in the file is run, and no more memory is taken than the file has bytes. Each entry is read
to its end, so that its checksum is compared.
"""

import math
import os
import re
import zipfile

import numpy as np

from npflow.errors import InputError

ENTRY = re.compile(r"(description|params|constant:.*|run:.*)\.npy")


def read_npz(path):
    """The arrays of a checkpoint by name.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file is damaged, compressed, or none that npflow writes.
    """
    with path.open("rb") as file:
        try:
            return _read_entries(file)
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from error
        except Exception as error:  # a damaged archive raises almost anything
            # NumPy's own message is left out: it may advise to load the file with pickle.
            raise InputError(
                f"expected a checkpoint at {path}, got a file that is damaged, cut short or foreign: "
                f"{type(error).__name__}"
            ) from None


def _read_entries(file):
    """The arrays in an open `.npz`; none is read unless npflow may have written all, and all fit into the file."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:
            name = entry.filename[:80]
            if not ENTRY.fullmatch(entry.filename):
                raise InputError(f"expected the entries of a checkpoint of npflow, got one called {name!r}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise InputError(
                    f"expected entries that are not compressed, as npflow writes them, got {name!r}"
                )
        size, room = sum(entry.file_size for entry in entries), os.fstat(file.fileno()).st_size
        if size > room:
            raise InputError(f"expected entries that fit into the file of {room:,} bytes, got {size:,}")
        if len({entry.filename for entry in entries}) < len(entries):
            raise InputError("expected the entries of a checkpoint, one of each name, got one twice")
        return {entry.filename.removesuffix(".npy"): _read_entry(archive, entry) for entry in entries}


def _read_entry(archive, entry):
    """The array of an entry, whose header must account for each of its bytes before anything is allocated."""
    with archive.open(entry) as stored:
        if np.lib.format.read_magic(stored) != (1, 0):
            raise ValueError("another version of NumPy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stored)
        if dtype.kind not in "fiubU" or not dtype.itemsize:
            raise InputError(f"expected numbers or a text in {entry.filename!r}, got {dtype}")
        size, left = math.prod(shape) * dtype.itemsize, entry.file_size - stored.tell()
        if size != left or min(shape, default=0) < 0:
            raise InputError(f"expected {size:,} bytes in {entry.filename!r}, which is damaged, got {left:,}")
    with archive.open(entry) as stored:
        array = np.lib.format.read_array(stored, allow_pickle=False)
        stored.read(1)  # the checksum is compared at the end of the entry
    return array.astype(dtype.newbyteorder("="), copy=False)
