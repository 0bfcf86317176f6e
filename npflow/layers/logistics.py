"""A mixture of logistic distributions, fitted to numbers without gradients."""

import numpy as np

POINTS = 500  # quantiles that stand for a column: a fit takes as long for a million numbers as for these
ROUNDS = 50


def fit_logistics(column, components):
    r"""A mixture of logistics that is distributed much as a column of numbers is, by the EM algorithm.

    In each round, every point is shared out among the components, in proportion to the densities that they have
    there; and then each component is moved to where its shares are more likely. A logistic's log density,
    -2 log cosh(a / 2) at a scales from its mean, lies above a parabola that touches it there, in a^2 with the factor
    tanh(a / 2) / 2a; where those of all shares have their highest point together is a weighted mean and variance.

    The components start at quantiles of the column, side by side. Each is given one number of its own there,
    for good: so none ever dies or shrinks to a point, and where numbers are few the start remains.

    Parameters
    ----------
    column : ndarray, shape (n,)
    components : int

    Returns
    -------
    means, log_scales, log_weights : ndarray, shape (components,)
        Where the column is constant the components are all alike, of scale 1.

    References
    ----------
    Dempster, Laird, Rubin: Maximum likelihood from incomplete data via the EM algorithm, 1977.

    Jaakkola, Jordan: Bayesian parameter estimation via variational methods, 2000, section 3 (the parabola).
    """
    points = np.quantile(column, midpoints(min(len(column), POINTS)), method="hazen")[:, None]
    start = means = np.quantile(column, midpoints(components), method="hazen")
    low, high = np.quantile(column, [0.1, 0.9])
    # The standard deviation, if it is normal: outliers must not count.
    spread = (high - low) / 2.56 or np.std(column)
    if spread <= 10 * np.finfo(column.dtype).eps * np.max(np.abs(column)):
        return means, np.zeros(components), np.zeros(components)

    first_scale = 1.1 * spread / (components + 1)
    scales, counts = np.full(components, first_scale), np.ones(components)
    for _ in range(ROUNDS):
        a = np.maximum(np.abs(points - means) / scales, 1e-6)
        log_densities = np.log(counts / scales) - a - 2 * np.log1p(np.exp(-a))
        shares = np.exp(log_densities - np.max(log_densities, axis=1, keepdims=True))
        shares *= len(column) / len(points) / np.sum(shares, axis=1, keepdims=True)
        pulls = shares * np.tanh(a / 2) / (2 * a)  # 1/4 at the mean
        counts = 1 + np.sum(shares, axis=0)
        means = (start / 4 + np.sum(pulls * points, axis=0)) / (1 / 4 + np.sum(pulls, axis=0))
        squares = (
            first_scale**2 + (start - means) ** 2 / 2 + 2 * np.sum(pulls * (points - means) ** 2, axis=0)
        )
        scales = np.sqrt(squares / counts)
    return means, np.log(scales), np.log(counts / np.sum(counts))


def midpoints(count):
    """The middles of so many equal parts of the interval from 0 to 1."""
    return (np.arange(count) + 0.5) / count
