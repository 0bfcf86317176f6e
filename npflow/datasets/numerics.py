"""What the toy densities are computed with: sums that stand for integrals, and roots by bisection."""

import numpy as np


def gauss(edges, order=16):
    """Points and weights of Gauss's rule on the panels between ascending edges: int f = sum(weights f(points)).

    With 16 points a panel of six standard deviations integrates a Gaussian to 13 digits.
    """
    points, weights = np.polynomial.legendre.leggauss(order)
    middles, halves = (edges[1:] + edges[:-1]) / 2, np.diff(edges) / 2
    return (middles[:, None] + halves[:, None] * points).ravel(), (halves[:, None] * weights).ravel()


def log_sum(log_terms, weights):
    """log(sum(weights exp(log_terms))) along the last axis, without overflow; the weights are not all 0."""
    top = np.max(log_terms, axis=-1, keepdims=True)
    return np.log(np.exp(log_terms - top) @ weights) + top[..., 0]


def plane(limits, spacing):
    """Points of an even grid, shape (m, 2), and the area that each stands for.

    A sum over it is right to many digits where the integrand is smooth at the scale of the spacing, and has
    vanished at the limits.
    """
    x, y = (np.arange(low, high, spacing) for low, high in limits)
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2), spacing**2


def normal_plane(spacing=0.1, reach=8):
    """Points e, shape (m, 2), and weights, of an expectation over the standard normal in two dimensions."""
    e, cell = plane(((-reach, reach), (-reach, reach)), spacing)
    return e, np.exp(-np.sum(e * e, axis=1) / 2) / (2 * np.pi) * cell


def bisect(increasing, low, high, shape, steps=54):
    """Where a function that increases from low to high is 0, in each element of an array of the given shape.

    After so many halvings what is left is a float's resolution. Where it is positive throughout, `low`
    comes out; where it is negative throughout, `high`.
    """
    low, high = (np.array(np.broadcast_to(end, shape), float) for end in (low, high))
    for _ in range(steps):
        middle = (low + high) / 2
        below = increasing(middle) < 0
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return (low + high) / 2
