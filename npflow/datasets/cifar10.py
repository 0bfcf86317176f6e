"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes.

The binary and the Python version are read, as a folder or as the archive. Files are checked against the
official sizes and checksums. The Python version consists of pickles, which can run any code when they are
loaded, so only the official ones are. Archives are read in memory.

References
----------
Krizhevsky: Learning multiple layers of features from tiny images, 2009, chapter 3.
https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import hashlib
import os
import pickle
import warnings
from contextlib import contextmanager
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from npflow.datasets.archive import read_archive, read_at_most
from npflow.errors import InputError, MissingDataError, in_short
from npflow.validation import check_choice

CIFAR10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
FOLDERS = {".bin": "cifar-10-batches-bin", "": "cifar-10-batches-py"}  # by the suffix of their batches
RECORD = 1 + 3 * 32 * 32  # bytes of an image in the binary version: the label and the pixels
LARGEST = 2**26  # bytes of a batch, of which the official ones have 31 million


class Official(NamedTuple):
    """The size in bytes and the MD5 checksum of an official file of CIFAR-10."""

    size: int
    md5: str

    @classmethod
    def of(cls, data):
        """Those of a file with these bytes."""
        return cls(len(data), hashlib.md5(data, usedforsecurity=False).hexdigest())


URL = "https://www.cs.toronto.edu/~kriz/"
BINARY, PYTHON = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
ARCHIVES = {
    BINARY: Official(170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
    PYTHON: Official(170_498_071, "c58f30108f718f92721af3b95e74349a"),
}
# The authors publish the checksums of the archives only. These are the ones that other libraries check.
FILES = {
    "data_batch_1.bin": Official(30_730_000, "5dd7e06a14cb22eb9f671a540d1b7c25"),
    "data_batch_2.bin": Official(30_730_000, "5ea93a67294ea407fff1d09f752e9692"),
    "data_batch_3.bin": Official(30_730_000, "942cd6a4bcdd0dd3c604fbe906cb4421"),
    "data_batch_4.bin": Official(30_730_000, "ae636b3ba5c66a11e91e8cb52e771fcb"),
    "data_batch_5.bin": Official(30_730_000, "53f37980c15c3d472c316c40844f3f0d"),
    "test_batch.bin": Official(30_730_000, "803d5f7f4d78ea53de84dbe85f74fb6d"),
    "data_batch_1": Official(31_035_704, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": Official(31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": Official(31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": Official(31_035_696, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": Official(31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": Official(31_035_526, "40351d587109b95175f43aff81a1287e"),
}


def cifar10(
    path: str | PathLike | None = None, split: str = "train", complete: bool = True, download: bool = False
) -> tuple[ndarray, ndarray]:
    """Load the images of CIFAR-10 and their labels.

    Parameters
    ----------
    path : str or path, optional
        One of the official folders or archives: ``cifar-10-batches-bin``, ``cifar-10-batches-py``,
        ``cifar-10-binary.tar.gz`` or ``cifar-10-python.tar.gz``; or a folder that contains one of them.
        Archives need not be unpacked. The default is the path in the environment variable NPFLOW_DATA, or
        ``~/.cache/npflow`` without it.
    split : {"train", "test"}
        ``"train"``: the five training batches, in order; ``"test"``: the test batch.
    complete : bool
        Whether each batch must be the official one, with 10,000 images. If False, batches of the binary
        version may have fewer images. A file of the official size must have the official checksum either way.
    download : bool
        Whether to download the binary archive (162 MiB) into the folder if nothing is there, or again if the
        archive there is damaged. This needs pooch: ``pip install pooch``.

    Returns
    -------
    images : ndarray of uint8, shape (n, 32, 32, 3)
        Channels last: red, green, blue. Complete, there are 50,000 for training and 10,000 for test.
    labels : ndarray of int64, shape (n,)
        Indices into `CIFAR10_CLASSES`.

    Raises
    ------
    MissingDataError
        If nothing is at `path`. The message says what to download, and where to put it.
    InputError
        If a batch is missing, incomplete, damaged or not what its name says, or if a download fails.

    Examples
    --------
    >>> from npflow.datasets import CIFAR10_CLASSES, cifar10
    >>> images, labels = cifar10("cifar-10-batches-bin", "test")  # doctest: +SKIP
    >>> images.shape, CIFAR10_CLASSES[labels[0]]  # doctest: +SKIP
    ((10000, 32, 32, 3), 'cat')
    """
    check_choice(split, BATCHES, "split")
    source, contents = _read_files(path, BATCHES[split], download)
    return _read_split(source, contents, split, complete)


def cifar10_parts(path=None, complete=True, download=False):
    """Load training images, their labels, test images and their labels; see `cifar10` for the parameters.

    If `complete` is False and there is no test batch, the last tenth of the training images takes its place.
    """
    source, contents = _read_files(path, (*BATCHES["train"], *BATCHES["test"]), download)
    images, labels = _read_split(source, contents, "train", complete)
    if complete or any(name.startswith("test_batch") for name in contents):
        return images, labels, *_read_split(source, contents, "test", complete)
    cut = 9 * len(images) // 10
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def _read_files(path, batches, download):
    """Return where CIFAR-10 is, and the bytes of those of the batches that are there, by file name."""
    source = _locate(path, download)
    names = {f"{batch}{suffix}": folder for suffix, folder in FOLDERS.items() for batch in batches}
    with _inside(source):
        if source.is_dir():
            return source, {name: _read_file(source / name) for name in names if (source / name).is_file()}
        for official in ARCHIVES.values():
            if source.stat().st_size == official.size:
                _check_md5(source.read_bytes(), official)
        wanted = {f"{folder}/{name}" for name, folder in names.items()}
        members = read_archive(source, wanted, largest=LARGEST)
        return source, {Path(member).name: data for member, data in members.items()}


def _locate(path, download):
    """Return the folder or archive that a path stands for."""
    if path is None:
        path = os.environ.get("NPFLOW_DATA") or "~/.cache/npflow"
    try:
        path = Path(path).expanduser()
    except TypeError:
        raise InputError(f"expected the path of CIFAR-10, got {in_short(path)}") from None
    places = [path, *(path / name for name in (*FOLDERS.values(), *ARCHIVES))]
    found = [place for place in places if place.is_file() or any((place / name).is_file() for name in FILES)]
    archive = path if path.name == BINARY else path / BINARY
    if download and not found and path.name.endswith(".tar.gz") and path.name != BINARY:
        raise InputError(
            f"expected a folder to download {BINARY} to, got {path}, an archive that is not there"
        )
    if download and found in ([], [archive]):  # an archive that is there may be damaged
        return _download(archive)
    if not found:
        archives = " or ".join(
            f"{URL}{name} ({size:,} bytes, MD5 {md5})" for name, (size, md5) in ARCHIVES.items()
        )
        raise MissingDataError(
            f"expected CIFAR-10 at {path}, got nothing there: download {archives} into that folder (there is "
            "no need to unpack it), or let download=True (npflow train --download) download the first one"
        )
    return found[0]


def _download(archive):
    """Download the binary archive, unless it is there already; return its path."""
    official = ARCHIVES[BINARY]
    there = archive.is_file() and archive.stat().st_size == official.size
    if there and Official.of(archive.read_bytes()) == official:
        return archive
    try:
        import pooch
    except ImportError as error:
        raise InputError(
            f"expected pooch, to download {URL}{BINARY}, got none ({error}): pip install pooch"
        ) from error
    registry = {BINARY: f"md5:{official.md5}"}
    files = pooch.create(archive.parent, URL, registry=registry, retry_if_failed=2)
    try:
        # pooch downloads to a temporary file, and moves it to its place once its checksum is right.
        files.fetch(BINARY, downloader=pooch.HTTPDownloader(progressbar=True, chunk_size=2**18, timeout=60))
        archive.chmod(0o644)  # a temporary file is its owner's alone, but NPFLOW_DATA may be a shared folder
    except (OSError, ValueError) as error:
        raise InputError(f"expected to download {URL}{BINARY} to {archive}, got: {error}") from error
    return archive


def _read_file(path):
    with _inside(path.name), path.open("rb") as file:
        return read_at_most(file, LARGEST)


def _read_split(source, contents, split, complete):
    """Return the images of a split and their labels."""
    suffix = ".bin" if any(name.endswith(".bin") for name in contents) else ""
    read = _read_binary if suffix else _read_python
    names = [f"{batch}{suffix}" for batch in BATCHES[split]]
    batches = []
    with _inside(source):
        if missing := [name for name in names if name not in contents]:
            raise InputError(f"expected the batches of the {split} split, got no {', '.join(missing)}")
        for name in names:
            with _inside(name):
                batches.append(read(contents[name], FILES[name], complete))
    pixels, labels = (np.concatenate(arrays) for arrays in zip(*batches))
    # Planes of red, green and blue become channels.
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, labels.astype(np.int64)


@contextmanager
def _inside(place):
    """Name the file in the message of an error."""
    try:
        yield
    except InputError as error:
        raise error.inside(place) from error


def _read_binary(data, official, complete):
    """Return pixels and labels of a batch of the binary version, whose records are a label and the pixels."""
    if len(data) == official.size:
        _check_md5(data, official)
    if not data or len(data) % RECORD:
        raise InputError(f"expected a whole number of records of {RECORD:,} bytes, got {len(data):,} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    labels, pixels = records[:, 0], records[:, 1:]
    if labels.max() >= len(CIFAR10_CLASSES):
        raise InputError(f"expected labels from 0 to 9, got {labels.max()} in record {labels.argmax()}")
    if complete and len(data) != official.size:
        raise InputError(
            f"expected the official batch of {official.size:,} bytes, got {len(data):,} bytes with "
            f"{len(records):,} images; complete=False (npflow's --part) reads what is there"
        )
    return pixels, labels


def _read_python(data, official, complete):
    """Return pixels and labels of a batch of the Python version, which is always complete.

    A pickle can run any code when it is loaded, so only the official files are. The checksum is that of the
    very bytes that are loaded. No way is known to make another file with the MD5 of a given one.
    """
    found = Official.of(data)
    if found != official:
        raise InputError(
            f"expected the official pickle of {official.size:,} bytes with the MD5 checksum {official.md5}, "
            f"got {found.size:,} bytes with {found.md5}; no other pickle is opened: use the binary version, "
            f"{BINARY}"
        )
    with warnings.catch_warnings():
        # NumPy 2.4.0 to 2.4.4 warn about the arguments that old pickles give to np.dtype.
        warnings.simplefilter("ignore", np.exceptions.VisibleDeprecationWarning)
        batch = pickle.loads(data, encoding="bytes")
    return batch[b"data"], np.array(batch[b"labels"])


def _check_md5(data, official):
    if (found := Official.of(data)) != official:
        raise InputError(
            f"expected the official file of this size, with the MD5 checksum {official.md5}, "
            f"got one with {found.md5}"
        )
