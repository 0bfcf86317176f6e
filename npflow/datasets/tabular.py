r"""Small real data sets as density-estimation tasks: scikit-learn's digits, breast cancer and wine.

They come with scikit-learn, so nothing is downloaded. They have what makes larger tables hard: features
that nearly determine each other, long tails and clusters. They also have few rows, so overfitting shows on
the test part.

Examples
--------
>>> import numpy as np
>>> from npflow.datasets import tabular
>>> train, validation, test = tabular("wine", rng=np.random.default_rng(0))
>>> train.shape, validation.shape, test.shape
((124, 13), (18, 13), (36, 13))
"""

from typing import NamedTuple

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.errors import InputError
from npflow.validation import check_choice, check_count, check_rng, check_rows

TABULAR = ("digits", "breast_cancer", "wine")


class Parts(NamedTuple):
    """The training, validation and test rows of a data set."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def digits(*, rng: Generator) -> tuple[ndarray, ndarray]:
    r"""Load handwritten digits of 8 x 8 pixels, dequantized, with their labels.

    x = (k + u) / 17        k = 0 ... 16 the grey level of a pixel, u uniform in [0, 1)

    Grey levels are integers, at which a density could be arbitrarily high. With the noise, the mean of
    log p(x) + 64 log(1/17) is at most the mean log-probability of the levels. Some pixels at the border are
    0 in every image, so they are pure noise here. `npflow.datasets.digit_images` returns the levels, as
    images.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws u, ``rng.random((1797, 64))``, and nothing else.

    Returns
    -------
    x : ndarray, shape (1797, 64)
        Float64 in [0, 1), in scikit-learn's order. ``x.reshape(-1, 8, 8, 1)`` are images, white on black.
    labels : ndarray, shape (1797,)
        The digits, 0 to 9.

    References
    ----------
    Alpaydin, Kaynak: Optical recognition of handwritten digits, 1998. https://doi.org/10.24432/C50P49

    Theis, van den Oord, Bethge: A note on the evaluation of generative models, 2016, section 3.1 (the noise).
    https://arxiv.org/abs/1511.01844

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import digits
    >>> x, labels = digits(rng=np.random.default_rng(0))
    >>> x.shape, labels[:5].tolist()
    ((1797, 64), [0, 1, 2, 3, 4])
    """
    from sklearn.datasets import load_digits

    check_rng(rng)
    levels, labels = load_digits(return_X_y=True)
    return (levels + rng.random(levels.shape)) / 17, labels


def split(x: ArrayLike, *, rng: Generator) -> Parts:
    """Shuffle the rows of `x` and split them: 70 % training, 10 % validation and 20 % test rows.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
        n is at least 10. The parts begin at rows 0, ``7 * n // 10`` and ``8 * n // 10`` of the new order.
    rng : numpy.random.Generator
        Draws the order, ``rng.permutation(n)``, and nothing else.

    Returns
    -------
    Parts
        ``train``, ``validation`` and ``test``.

    Raises
    ------
    InputError
        If there are fewer than 10 rows.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import split
    >>> [len(part) for part in split(np.zeros((20, 2)), rng=np.random.default_rng(0))]
    [14, 2, 4]
    """
    check_rng(rng)
    x = check_rows(x)
    n = len(x)
    if n < 10:
        raise InputError(f"expected at least 10 rows to split 70/10/20, got {n}")
    return Parts(*np.split(x[rng.permutation(n)], [7 * n // 10, 8 * n // 10]))


def tabular(name: str, *, rng: Generator, copies: int = 1) -> Parts:
    r"""Load a data set by its name, split into three parts and standardized.

    x_i <- (x_i - mean_i) / std_i       mean and std of feature i in the training part

    The density of the features as recorded is that of the standardized ones divided by the product of all
    std_i. Losses on such a task are mean negative log-likelihoods in nats per row. Independent normal
    features have 1.42 nats each.

    Parameters
    ----------
    name : {"digits", "breast_cancer", "wine"}
        ``"digits"``: 1797 rows of 64 features, see `digits`. ``"breast_cancer"``: 569 rows of 30 features,
        measures of cell nuclei, many of which are nearly functions of others. ``"wine"``: 178 rows of 13
        features, chemical analyses of wines from three vineyards. Labels are left out.
    rng : numpy.random.Generator
        Draws the noise of `digits`, if it is digits, then the order of the rows, see `split`, then the
        noise of further copies. The figures of npflow are measured with ``np.random.default_rng(0)``.
    copies : int
        How many times the training part contains each row of digits, each time with new noise: as the noise
        is known exactly, a model need not learn it from one draw. The other data sets have no noise, and
        each row once.

    Returns
    -------
    Parts
        ``train``, ``validation`` and ``test``, float64, with 70, 10 and 20 % of the rows. Validation and test
        rows, mean and std do not depend on the number of copies.

    References
    ----------
    Street, Wolberg, Mangasarian: Breast cancer Wisconsin (diagnostic), 1993. https://doi.org/10.24432/C5DW2B

    Aeberhard, Forina: Wine, 1991. https://doi.org/10.24432/C5PC7J

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import tabular
    >>> train, validation, test = tabular("wine", rng=np.random.default_rng(0))
    >>> train.shape, np.allclose(train.mean(axis=0), 0), np.allclose(train.std(axis=0), 1)
    ((124, 13), True, True)
    """
    from sklearn import datasets

    check_rng(rng)
    check_choice(name, TABULAR, "the name of a data set")
    copies = check_count(copies, "the number of copies")
    x = digits(rng=rng)[0] if name == "digits" else getattr(datasets, f"load_{name}")().data
    train, validation, test = split(x, rng=rng)
    mean, std = np.mean(train, axis=0), np.std(train, axis=0)
    if name == "digits":
        levels = np.floor(17 * train)
        train = np.concatenate(
            [train, *((levels + rng.random(levels.shape)) / 17 for _ in range(copies - 1))]
        )
    return Parts(*((part - mean) / std for part in (train, validation, test)))
