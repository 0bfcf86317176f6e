r"""Images to learn from: whole numbers from 0 to levels - 1, in batches of shape (n, height, width, channels).

Digits and patches of photographs come with scikit-learn, so nothing is downloaded; CIFAR-10 is read from its files.

Examples
--------
>>> data = image_data("digits")
>>> data.train.shape, data.test.shape, data.levels
((1437, 8, 8, 1), (360, 8, 8, 1), 17)
"""

from typing import NamedTuple

import numpy as np

from npflow.datasets.cifar10 import cifar10_parts
from npflow.validation import check_choice, check_count, check_rng

IMAGES = ("digits", "patches", "cifar10")
SPLITS = ("train", "test")


class ImageData(NamedTuple):
    """A data set of images: what to learn from, and what to report on.

    `train` and `test` are uint8 of shape (n, height, width, channels), with values below `levels`. Labels are
    int64 of shape (n,), and None where there are none.
    """

    name: str
    levels: int
    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None


def image_data(name="digits", path=None, rng=None, *, complete=True, download=False, n=10_000, size=32):
    """A data set of images by its name, in two parts.

    Parameters
    ----------
    name : {"digits", "patches", "cifar10"}
        See `digit_images`, `patches` and `cifar10`.
    path : str or path, optional
        Where CIFAR-10 is, as for `cifar10`.
    rng : numpy.random.Generator
        Draws the patches: first those to train on, then those to test. The others need none.
    complete, download : bool
        As for `cifar10`. With `complete` False, the last tenth of the training images is held out as the test
        part where there is no test batch.
    n : int
        How many patches to train on, at least 10; to test there are a tenth as many.
    size : int
        The height and the width of a patch, in pixels.

    Returns
    -------
    ImageData
        With 17 levels for digits, 256 for the others, and no labels for patches.

    Raises
    ------
    InputError
        If there is no data set of that name, or as `patches` and `cifar10` do.
    """
    check_choice(name, IMAGES, "the name of a data set of images")
    if name == "digits":
        return ImageData(name, 17, *digit_images("train"), *digit_images("test"))
    if name == "patches":
        n = check_count(n, "the number of patches", least=10)
        train, test = patches(rng, n, size, "train"), patches(rng, n // 10, size, "test")
        return ImageData(name, 256, train, None, test, None)
    return ImageData(name, 256, *cifar10_parts(path, complete, download))


def digit_images(split="train"):
    """Handwritten digits as images of 17 grey levels, with their labels.

    The rows of `npflow.datasets.digits` are the same digits with noise, as features for density estimators.

    Parameters
    ----------
    split : {"train", "test"}
        1437 digits to train on, 360 to test. Which ones is fixed: the test part is that of
        ``npflow.datasets.split(..., rng=np.random.default_rng(0))``, a fifth of all.

    Returns
    -------
    images : ndarray, shape (n, 8, 8, 1)
        Uint8 from 0 to 16, white on black.
    labels : ndarray, shape (n,)
        Int64, which digit, 0 to 9.

    References
    ----------
    Alpaydin, Kaynak: Optical recognition of handwritten digits, 1998. https://doi.org/10.24432/C50P49
    """
    from sklearn.datasets import load_digits

    check_choice(split, SPLITS, "split")
    levels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(levels))
    cut = 8 * len(levels) // 10
    rows = order[:cut] if split == "train" else order[cut:]
    return levels[rows].reshape(-1, 8, 8, 1).astype(np.uint8), labels[rows].astype(np.int64)


def patches(rng, n, size=32, split="train"):
    """Random patches of two photographs, a Chinese temple and a flower.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws which photograph and which place in it, each as likely as any other.
    n : int
        How many patches.
    size : int
        Their height and width in pixels, at most 160.
    split : {"train", "test"}
        From the left three quarters of the photographs, or from the right one: no pixel is in both, so bits per
        dimension on the test part are those of images that the model has not seen.

    Returns
    -------
    ndarray, shape (n, size, size, 3)
        Uint8, channels last: red, green, blue. Patches may overlap: with 32 pixels there are 355,608 of them in
        the training part, 102,168 in the test part.
    """
    from sklearn.datasets import load_sample_images

    check_rng(rng)
    n = check_count(n, "the number of patches")
    check_choice(split, SPLITS, "split")
    photographs = np.stack(load_sample_images().images)
    cut = 3 * photographs.shape[2] // 4
    region = photographs[:, :, :cut] if split == "train" else photographs[:, :, cut:]
    size = check_count(size, "the size of a patch", most=photographs.shape[2] - cut)
    windows = np.lib.stride_tricks.sliding_window_view(region, (size, size), axis=(1, 2))
    photograph, row, column = (rng.integers(count, size=n) for count in windows.shape[:3])
    return np.ascontiguousarray(np.moveaxis(windows[photograph, row, column], 1, -1))
