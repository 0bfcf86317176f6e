"""CIFAR-10: 60,000 photographs of 32 x 32 pixels in ten classes, from either version, as a folder or an archive.

It does not matter where the files come from: they are verified, and none is trusted. The Python version is made of
pickles, which are read as data (`npflow.datasets.pickled`); archives are read in memory (`npflow.datasets.archive`).

Source: Krizhevsky 2009, Learning multiple layers of features from tiny images, chapter 3,
https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import hashlib
import os
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npflow.datasets.archive import read_archive, read_at_most
from npflow.datasets.download import fetch, md5_of
from npflow.datasets.pickled import as_array, read_pickle
from npflow.errors import InputError, MissingDataError
from npflow.validation import check_choice

CIFAR10_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)

BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
FOLDERS = {".bin": "cifar-10-batches-bin", "": "cifar-10-batches-py"}  # by the suffix of their batches
PIXELS = 3 * 32 * 32
RECORD = 1 + PIXELS  # bytes of an image in the binary version: the label and the pixels
# Bytes of a batch; one of the Python version has 31 million, and up to 61 if Python 3 wrote it.
LARGEST = 2**26


class Official(NamedTuple):
    """What a file of CIFAR-10 is known by: its size in bytes and its MD5 checksum."""

    size: int
    md5: str


URL = "https://www.cs.toronto.edu/~kriz/"
BINARY, PYTHON = "cifar-10-binary.tar.gz", "cifar-10-python.tar.gz"
ARCHIVES = {
    BINARY: Official(170_052_171, "c32a1d4ab5d03f1284b67883e8d87530"),
    PYTHON: Official(170_498_071, "c58f30108f718f92721af3b95e74349a"),
}
# Published are the checksums of the archives; these are what other libraries hold the files in them to.
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


def cifar10(path=None, split="train", complete=True, download=False):
    """The images of CIFAR-10 and their labels.

    Parameters
    ----------
    path : str or path, optional
        The folder with the batches, ``cifar-10-batches-bin`` or ``cifar-10-batches-py``; a folder that one of
        them lies in, or one of the archives; or the archive, ``cifar-10-binary.tar.gz`` or
        ``cifar-10-python.tar.gz``, which is read as it is. By default the folder that the environment
        variable NPFLOW_DATA names, or else ``~/.cache/npflow``.
    split : {"train", "test"}
        ``"train"``: the five training batches, in order; ``"test"``: the test batch.
    complete : bool
        Whether each batch has to be the official one, of 10,000 images. With False, batches may have fewer: a
        part of CIFAR-10 in the same layout. A file of the official size must have the official checksum
        either way.
    download : bool
        Whether to fetch the binary archive (162 MiB) into the folder if there is nothing yet, or anew if it
        is damaged. A download that broke off is resumed.

    Returns
    -------
    images : ndarray, shape (n, 32, 32, 3)
        Uint8, channels last: red, green, blue. All of CIFAR-10 has 50,000 for training and 10,000 to test.
    labels : ndarray, shape (n,)
        Int64, indices into `CIFAR10_CLASSES`.

    Raises
    ------
    MissingDataError
        If there is nothing at `path`; the message says what to download, and where to put it.
    InputError
        If a batch is missing, not complete or no whole number of images, if a file is damaged or is not what its
        name says, or if a download fails. Nothing in a file is ever executed.
    """
    check_choice(split, BATCHES, "split")
    source, contents = _read_files(path, BATCHES[split], download)
    return _read_split(source, contents, split, complete)


def cifar10_parts(path=None, complete=True, download=False):
    """Training images, their labels, test images and their labels, as `cifar10` reads them.

    With `complete` False the test batch may be missing: then the last tenth of the training images is held out
    in its place.
    """
    source, contents = _read_files(path, (*BATCHES["train"], *BATCHES["test"]), download)
    images, labels = _read_split(source, contents, "train", complete)
    if complete or any(name.startswith("test_batch") for name in contents):
        return images, labels, *_read_split(source, contents, "test", complete)
    cut = 9 * len(images) // 10
    return images[:cut], labels[:cut], images[cut:], labels[cut:]


def _read_files(path, batches, download):
    """Where CIFAR-10 was found, and the bytes of those of the batches that are there, by file name."""
    source = _locate(path, download)
    names = {f"{batch}{suffix}": folder for suffix, folder in FOLDERS.items() for batch in batches}
    with _inside(source):
        if source.is_dir():
            return source, {name: _read_file(source / name) for name in names if (source / name).is_file()}
        for size, md5 in ARCHIVES.values():
            if source.stat().st_size == size:
                _check_md5(md5_of(source), md5)
        members = read_archive(
            source, {f"{folder}/{name}" for name, folder in names.items()}, largest=LARGEST
        )
        return source, {Path(member).name: data for member, data in members.items()}


def _locate(path, download):
    """The folder or archive that is meant by a path."""
    if path is None:
        path = os.environ.get("NPFLOW_DATA") or "~/.cache/npflow"
    path = Path(path).expanduser()
    places = [path, *(path / name for name in (*FOLDERS.values(), *ARCHIVES))]
    found = [place for place in places if place.is_file() or any((place / name).is_file() for name in FILES)]
    archive = path if path.name == BINARY else path / BINARY
    if download and not found and path.name.endswith(".tar.gz") and path.name != BINARY:
        raise InputError(
            f"expected a folder to download {BINARY} to, got {path}, an archive that is not there"
        )
    if download and found in ([], [archive]):  # an archive that is there may be damaged
        return fetch(URL + BINARY, archive, **ARCHIVES[BINARY]._asdict())
    if not found:
        archives = " or ".join(
            f"{URL}{name} ({size:,} bytes, MD5 {md5})" for name, (size, md5) in ARCHIVES.items()
        )
        raise MissingDataError(
            f"expected CIFAR-10 at {path}, got nothing there: download {archives} into that folder, where it "
            "need not be unpacked, or have the first one downloaded with download=True (npflow train --download)"
        )
    return found[0]


def _read_file(path):
    with _inside(path.name), path.open("rb") as file:
        return read_at_most(file, LARGEST)


def _read_split(source, contents, split, complete):
    """The images of a split and their labels."""
    suffix = ".bin" if any(name.endswith(".bin") for name in contents) else ""
    names = [f"{batch}{suffix}" for batch in BATCHES[split]]
    batches = []
    with _inside(source):
        if missing := [name for name in names if name not in contents]:
            raise InputError(f"expected the batches of the {split} split, got no {', '.join(missing)}")
        for name in names:
            with _inside(name):
                batches.append(_read_batch(name, contents[name], complete))
    return tuple(np.concatenate(part) for part in zip(*batches))


@contextmanager
def _inside(place):
    """Errors say in which file they were found."""
    try:
        yield
    except InputError as error:
        raise error.inside(place) from error


def _read_batch(name, data, complete):
    """The images of a file and their labels."""
    official = FILES[name]
    if len(data) == official.size:
        _check_md5(hashlib.md5(data, usedforsecurity=False).hexdigest(), official.md5)
    pixels, labels = (_binary if name.endswith(".bin") else _python)(data)
    for record, label in enumerate(labels):
        if not 0 <= label < len(CIFAR10_CLASSES):
            raise InputError(f"expected labels from 0 to 9, got {label} in record {record}")
    if complete and len(data) != official.size:
        raise InputError(
            f"expected the official batch of {official.size:,} bytes, got {len(data):,} bytes with "
            f"{len(labels):,} images; complete=False (npflow's --part) reads what is there"
        )
    # Planes of red, green and blue become channels.
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels, np.int64)


def _binary(data):
    """Pixels and labels of a batch of the binary version: records of a label and the pixels."""
    if not data or len(data) % RECORD:
        raise InputError(f"expected a whole number of records of {RECORD:,} bytes, got {len(data):,} bytes")
    records = np.frombuffer(data, np.uint8).reshape(-1, RECORD)
    return records[:, 1:], records[:, 0].tolist()


def _python(data):
    """Pixels and labels of a batch of the Python version: a dict in a pickle."""
    match read_pickle(data):
        case {b"data": pixels, b"labels": list(labels)} if all(type(label) is int for label in labels):
            pixels = as_array(pixels)
        case _:
            raise InputError(
                "expected a dict with an array b'data' and a list of integers b'labels', got something else"
            )
    if pixels.shape != (len(labels), PIXELS):
        raise InputError(
            f"expected {PIXELS:,} pixels for each of {len(labels):,} labels, got an array of shape {pixels.shape}"
        )
    return pixels, labels


def _check_md5(found, official):
    if found != official:
        raise InputError(
            f"expected the official file of this size, with the MD5 checksum {official}, got one with {found}"
        )
