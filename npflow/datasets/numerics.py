"""The numerical methods behind the toy densities: quadrature, sums of exponentials, and bisection.

Examples
--------
>>> import numpy as np
>>> from npflow.datasets.numerics import gauss
>>> points, weights = gauss(np.array([0.0, 1.0, 3.0]))
>>> print(f"{np.sum(weights * points**2):.6f}")
9.000000
"""

import math

import numpy as np
from scipy.special import log_ndtr


def gauss(edges, order=16):
    """Return points and weights of Gauss-Legendre quadrature, int f = sum(weights f(points)).

    The panels lie between ascending edges. With 16 points, a panel of six standard deviations integrates a
    Gaussian to 13 digits.
    """
    points, weights = np.polynomial.legendre.leggauss(order)
    middles, halves = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    return (middles[:, None] + halves[:, None] * points).ravel(), (halves[:, None] * weights).ravel()


def log_sum(log_terms, weights):
    """Compute log(sum(weights exp(log_terms))) along the last axis, without overflow.

    The weights are at least 0, and not all 0. `scipy.special.logsumexp` has no matrix product, and takes
    nearly three times as long.
    """
    top = np.max(log_terms, axis=-1, keepdims=True)
    return np.log(np.exp(log_terms - top) @ weights) + top[..., 0]


def mean_under(log_terms, weights, values):
    """Compute the mean of values, shape (m, d), under weights exp(log_terms) along the last axis, normalized."""
    terms = np.exp(log_terms - np.max(log_terms, axis=-1, keepdims=True)) * weights
    return terms @ values / np.sum(terms, axis=-1, keepdims=True)


def log_blurred_step(d, half, noise):
    """Compute log P(|d + noise e| < half) for a standard normal e, accurate in the tails.

    It is even in d, so it is the difference of a tail and a smaller one.
    """
    d = np.abs(d)
    tail, smaller = log_ndtr((half - d) / noise), log_ndtr((-half - d) / noise)
    return tail + np.log1p(-np.exp(smaller - tail))


def blurred_step_slope(d, half, noise):
    """Compute the derivative of `log_blurred_step` in d."""
    log_step = log_blurred_step(d, half, noise)
    rise, fall = (np.exp(-(((d + side) / noise) ** 2) / 2 - log_step) for side in (half, -half))
    return (rise - fall) / (noise * math.sqrt(2 * math.pi))


def plane(limits, spacing):
    """Return the points of an even grid, shape (m, 2), and the area of a cell.

    The sum over it is accurate to many digits if the integrand is smooth at the scale of the spacing and
    vanishes at the limits.
    """
    x, y = (np.arange(low, high, spacing) for low, high in limits)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), spacing**2


def normal_plane(spacing=0.1, reach=8):
    """Return points e, shape (m, 2), and weights, for expectations over the standard normal in the plane."""
    e, cell = plane(((-reach, reach), (-reach, reach)), spacing)
    return e, np.exp(-np.sum(e * e, axis=1) / 2) / (2 * np.pi) * cell


def bisect(increasing, low, high, shape, steps=54):
    """Find the root of an increasing function between low and high, for each element of an array.

    54 halvings reach the resolution of float64. The result is `low` where the function is positive
    throughout, and `high` where it is negative throughout.
    """
    low, high = (np.array(np.broadcast_to(end, shape), float) for end in (low, high))
    for _ in range(steps):
        middle = (low + high) / 2
        below = increasing(middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
