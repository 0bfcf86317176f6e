r"""Two-dimensional toy densities that density estimators are compared on, as samplers.

Each takes a number of rows and an `rng`, and returns a float64 array of shape (n, 2) whose rows are in
random order. The first six, and where not said otherwise their constants, are of FFJORD's toy data. The funnel
and the banana are test densities of samplers: each a Gaussian that one layer of a flow makes, with a scale that
varies a thousandfold and with none that varies at all. What is known of the densities themselves, log p(x) and
the entropy, is in `npflow.datasets.densities`.

In the formulas e is standard normal in two dimensions, e_1 and e_2 its coordinates, and u is uniform in
[0, 1), drawn anew for every row.

Source: Grathwohl et al. 2019, FFJORD, section 4.1, https://arxiv.org/abs/1810.01367

Examples
--------
>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> [draw(7, rng=rng).shape for draw in (moons, pinwheel)]
[(7, 2), (7, 2)]
"""

import numpy as np

from npflow.validation import check_count, check_number, check_rng


def moons(n, *, rng, noise=0.05):
    r"""Two interleaved half circles of radius 1.

    x = (cos t, sin t) + noise e            upper moon, n // 2 of the rows
    x = (1 - cos t, 1/2 - sin t) + noise e  lower moon, the others

    with t on a fixed even grid from 0 to pi, so that the moons are filled evenly (rows are not independent draws).

    Source: scikit-learn's `make_moons`; here in its coordinates, which FFJORD stretches by 2.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    noise : float
        The standard deviation around the arcs.
    """
    from sklearn.datasets import make_moons

    n, noise = _check(n, rng, noise)
    return make_moons(n, noise=noise, random_state=int(rng.integers(2**32)))[0]


def circles(n, *, rng, noise=0.05):
    r"""Two circles around 0, of radius 1 and 1/2.

    x = r (cos t, sin t) + noise e      r = 1 for n // 2 of the rows, 1/2 for the others

    with t on a fixed even grid from 0 to 2 pi, so that the circles are filled evenly (rows are not independent
    draws).

    Source: scikit-learn's `make_circles`; here in its coordinates, which FFJORD stretches by 3.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    noise : float
        The standard deviation around the circles.
    """
    from sklearn.datasets import make_circles

    n, noise = _check(n, rng, noise)
    return make_circles(n, factor=0.5, noise=noise, random_state=int(rng.integers(2**32)))[0]


def spirals(n, *, rng, noise=0.1):
    r"""Two spirals, one the other turned by half a circle, each of one turn and a half.

    x = +-(-t cos t + v / 2, t sin t + w / 2) / 3 + noise e     t = 3 pi sqrt(u)

    with either sign equally likely, and v, w uniform in [0, 1). The square root fills the arms about
    evenly along their length.

    Source: Grathwohl et al. 2019, FFJORD: "2spirals" of its toy data.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    noise : float
        The standard deviation around the arms.
    """
    n, noise = _check(n, rng, noise)
    t = 3 * np.pi * np.sqrt(rng.random(n))
    arm = np.stack([-t * np.cos(t), t * np.sin(t)], axis=1) + rng.random((n, 2)) / 2
    sign = rng.choice([-1.0, 1.0], (n, 1))
    return sign * arm / 3 + noise * rng.standard_normal((n, 2))


def checkerboard(n, *, rng):
    r"""The eight black squares of a board of 4 x 4, of side 2, filled uniformly: a density with jumps.

    p(x) = 1/32 if floor(x_1 / 2) + floor(x_2 / 2) is even, and 0 otherwise, in [-4, 4) x [-4, 4)

    The entropy is log 32 = 3.4657 nats exactly.

    Source: Grathwohl et al. 2019, FFJORD: "checkerboard" of its toy data.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    """
    n = check_count(n, "the number of rows")
    check_rng(rng)
    column = rng.integers(4, size=n)
    row = 2 * rng.integers(2, size=n) + column % 2
    return 2 * (np.stack([column, row], axis=1) + rng.random((n, 2))) - 4


def eight_gaussians(n, *, rng):
    r"""Eight equal Gaussians around a circle.

    x = (4 c_k + e / 2) / sqrt(2)       c_k = (cos(k pi / 4), sin(k pi / 4)), k uniform in 0 .. 7

    so the centres lie on a circle of radius 2.83, and the standard deviation is 0.354.

    Source: Grathwohl et al. 2019, FFJORD: "8gaussians" of its toy data.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    """
    n = check_count(n, "the number of rows")
    check_rng(rng)
    angle = rng.integers(8, size=n) * np.pi / 4
    center = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (4 * center + rng.standard_normal((n, 2)) / 2) / np.sqrt(2)


def pinwheel(n, *, rng):
    r"""Five arms around 0, each an elongated Gaussian that is wound up the more the further out.

    x = 2 (r cos a + s sin a, s cos a - r sin a)    r = 1 + 0.3 e_1, s = 0.1 e_2
                                                    a = 2 pi k / 5 + exp(r) / 4, k uniform in 0 .. 4

    Source: Johnson et al. 2016, Composing graphical models with neural networks for structured
    representations and fast inference, https://arxiv.org/abs/1603.06277, figure 1; the constants are
    those of FFJORD's toy data.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    """
    n = check_count(n, "the number of rows")
    check_rng(rng)
    r = 1 + 0.3 * rng.standard_normal(n)
    s = 0.1 * rng.standard_normal(n)
    a = 2 * np.pi * rng.integers(5, size=n) / 5 + np.exp(r) / 4
    return 2 * np.stack([r * np.cos(a) + s * np.sin(a), s * np.cos(a) - r * np.sin(a)], axis=1)


def funnel(n, *, rng):
    r"""Neal's funnel, in the plane: the first coordinate is twice the logarithm of the second one's scale.

    x = (v, exp(v / 2) e_2)     v = 3 e_1

    Two in three rows have a scale exp(v / 2) from 0.2 to 4.5, one in a thousand one below 0.007 or above 140.
    One affine layer whose scale of x_2 depends on x_1 makes it out of a standard normal; a map of constant
    Jacobian, such as an additive coupling's, does not.

    Source: Neal 2003, Slice sampling, Annals of Statistics 31(3), section 8,
    https://doi.org/10.1214/aos/1056562461; there with nine coordinates of that scale instead of one.

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    """
    n = check_count(n, "the number of rows")
    check_rng(rng)
    e = rng.standard_normal((n, 2))
    return np.stack([3 * e[:, 0], np.exp(1.5 * e[:, 0]) * e[:, 1]], axis=1)


def banana(n, *, rng):
    r"""A long Gaussian that is bent to a parabola.

    x = (10 e_1, e_2 - 3 (e_1^2 - 1))

    that is, e_2 = x_2 + 0.03 (x_1^2 - 100). Bending keeps areas, so one additive coupling, between two
    scalings, makes it out of a standard normal.

    Source: Haario, Saksman, Tamminen 1999, Adaptive proposal distribution for random walk Metropolis
    algorithm, Computational Statistics 14(3), with its b = 0.03, https://doi.org/10.1007/s001800050022

    Parameters
    ----------
    n : int
        How many rows.
    rng : numpy.random.Generator
        Where all randomness comes from.
    """
    n = check_count(n, "the number of rows")
    check_rng(rng)
    e = rng.standard_normal((n, 2))
    return np.stack([10 * e[:, 0], e[:, 1] - 3 * (e[:, 0] ** 2 - 1)], axis=1)


TOY = {
    "moons": moons,
    "circles": circles,
    "spirals": spirals,
    "checkerboard": checkerboard,
    "eight_gaussians": eight_gaussians,
    "pinwheel": pinwheel,
    "funnel": funnel,
    "banana": banana,
}


def _check(n, rng, noise):
    check_rng(rng)
    return check_count(n, "the number of rows"), check_number(noise, "noise", least=0)
