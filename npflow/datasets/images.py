r"""Images as integers from 0 to levels - 1, shape (n, height, width, channels).

Digits and patches of photographs come with scikit-learn. Faces are drawn. CIFAR-10 is read from its files.

Examples
--------
>>> from npflow.datasets import image_data
>>> data = image_data("digits")
>>> data.train.shape, data.test.shape, data.levels
((1437, 8, 8, 1), (360, 8, 8, 1), 17)
"""

from os import PathLike
from typing import NamedTuple

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from npflow.datasets.cifar10 import cifar10_parts
from npflow.datasets.faces import faces
from npflow.validation import check_choice, check_count, check_rng

IMAGES = ("digits", "patches", "faces", "cifar10")
SPLITS = ("train", "test")


class ImageData(NamedTuple):
    """A data set of images, in a training and a test part.

    Attributes
    ----------
    name : str
        One of `IMAGES`.
    levels : int
        The number of values that a pixel can have.
    train, test : ndarray of uint8, shape (n, height, width, channels)
        Values are below `levels`.
    train_labels, test_labels : ndarray of int64, shape (n,), or None
        The class of each image; None if the data set has none.

    Examples
    --------
    >>> from npflow.datasets import image_data
    >>> data = image_data("digits")
    >>> data.levels, data.train.shape, data.test_labels.shape
    (17, (1437, 8, 8, 1), (360,))
    """

    name: str
    levels: int
    train: np.ndarray
    train_labels: np.ndarray | None
    test: np.ndarray
    test_labels: np.ndarray | None


def image_data(
    name: str = "digits",
    path: str | PathLike | None = None,
    rng: Generator | None = None,
    *,
    complete: bool = True,
    download: bool = False,
    n: int = 10_000,
    size: int = 32,
) -> ImageData:
    """Load a data set of images by its name.

    Parameters
    ----------
    name : {"digits", "patches", "faces", "cifar10"}
        See `digit_images`, `patches`, `faces` and `cifar10`.
    path : str or path, optional
        Where CIFAR-10 is; see `cifar10`.
    rng : numpy.random.Generator
        Draws the training images, then the test images. Only ``"patches"`` and ``"faces"`` need it.
    complete, download : bool
        See `cifar10`. If `complete` is False and there is no test batch, the last tenth of the training
        images is the test part.
    n : int
        The number of training patches or faces, at least 10. There are a tenth as many for the test.
    size : int
        The height and width of a patch, in pixels.

    Returns
    -------
    ImageData
        Digits have 17 levels, the others 256. Patches have no labels. The label of a face is 1 with glasses, 0
        without.

    Raises
    ------
    InputError
        If there is no data set of that name, or as `patches` and `cifar10` raise it.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import image_data
    >>> data = image_data("patches", rng=np.random.default_rng(0), n=100, size=8)
    >>> data.train.shape, data.test.shape, data.levels
    ((100, 8, 8, 3), (10, 8, 8, 3), 256)
    """
    check_choice(name, IMAGES, "the name of a data set of images")
    if name == "digits":
        return ImageData(name, 17, *digit_images("train"), *digit_images("test"))
    if name == "patches":
        n = check_count(n, "the number of patches", least=10)
        train, test = patches(rng, n, size, "train"), patches(rng, n // 10, size, "test")
        return ImageData(name, 256, train, None, test, None)
    if name == "faces":
        n = check_count(n, "the number of faces", least=10)
        parts = [faces(count, rng) for count in (n, n // 10)]
        train, test = ((images, drawn["glasses"].astype(np.int64)) for images, drawn in parts)
        return ImageData(name, 256, *train, *test)
    return ImageData(name, 256, *cifar10_parts(path, complete, download))


def digit_images(split: str = "train") -> tuple[ndarray, ndarray]:
    """Load handwritten digits as images of 17 grey levels, with their labels.

    `npflow.datasets.digits` returns the same digits as rows of 64 features, with noise.

    Parameters
    ----------
    split : {"train", "test"}
        1437 training digits or 360 test digits. The split is fixed: the test part is that of
        ``npflow.datasets.split(..., rng=np.random.default_rng(0))``.

    Returns
    -------
    images : ndarray of uint8, shape (n, 8, 8, 1)
        Grey levels from 0 to 16, white on black.
    labels : ndarray of int64, shape (n,)
        The digits, 0 to 9.

    References
    ----------
    Alpaydin, Kaynak: Optical recognition of handwritten digits, 1998. https://doi.org/10.24432/C50P49

    Examples
    --------
    >>> from npflow.datasets import digit_images
    >>> images, labels = digit_images("test")
    >>> images.shape, labels[:5].tolist()
    ((360, 8, 8, 1), [0, 8, 8, 9, 8])
    """
    from sklearn.datasets import load_digits

    check_choice(split, SPLITS, "split")
    levels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(levels))
    cut = 8 * len(levels) // 10
    rows = order[:cut] if split == "train" else order[cut:]
    return levels[rows].reshape(-1, 8, 8, 1).astype(np.uint8), labels[rows].astype(np.int64)


def patches(rng: Generator, n: int, size: int = 32, split: str = "train") -> ndarray:
    """Draw random patches of two photographs, a Chinese temple and a flower.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the photograph and the place in it, uniformly.
    n : int
        The number of patches.
    size : int
        Their height and width in pixels, at most 160.
    split : {"train", "test"}
        ``"train"``: from the left three quarters of the photographs; ``"test"``: from the right quarter. No
        pixel is in both.

    Returns
    -------
    ndarray of uint8, shape (n, size, size, 3)
        Channels last: red, green, blue. Patches may overlap: there are 355,608 patches of 32 pixels in the
        training part, and 102,168 in the test part.

    Raises
    ------
    InputError
        If `n` is below 1, or `size` or `split` is not as above.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import patches
    >>> patches(np.random.default_rng(0), 5, size=16).shape
    (5, 16, 16, 3)
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
