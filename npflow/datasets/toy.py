r"""Toy densities in the plane: a sampler, log p(x) and the entropy of each.

Each density is a frozen dataclass with `sample`, `log_prob`, `score` and `entropy`. The functions `moons`, `circles`
and so on draw from them in one call. The entropy is the lowest expected loss that a model can reach, so it
tells how far a test loss is from the best:

    E[-log q(x)] = entropy + KL(p || q)       x drawn from p; q the model

A mean over n test points differs from its expectation by about std(log q) / sqrt(n). Most of this error
cancels when q is compared with p on the same points.

In the formulas e is standard normal in two dimensions, e_1 and e_2 are its coordinates, and u is uniform in
[0, 1), drawn anew for each row. Everything is computed in float64. Where there is no closed form, the
integrand is analytic, so Gaussian quadrature, or a sum over an even grid that reaches to where the
integrand vanishes, is accurate to many digits.

The first six densities come from FFJORD's toy data, with its constants unless stated otherwise. The funnel
and the banana are test densities of samplers. One layer of a flow makes each of them from a Gaussian. The
funnel's scale varies a thousandfold, the banana's not at all.

References
----------
Grathwohl et al.: FFJORD, 2019, section 4.1. https://arxiv.org/abs/1810.01367

Examples
--------
>>> import numpy as np
>>> from npflow.datasets import Moons, moons, pinwheel
>>> rng = np.random.default_rng(0)
>>> [draw(7, rng=rng).shape for draw in (moons, pinwheel)]
[(7, 2), (7, 2)]

>>> density = Moons(noise=0.05)
>>> x = density.sample(10_000, rng=np.random.default_rng(0))
>>> print(f"{density.entropy():.4f}, and on these points {-np.mean(density.log_prob(x)):.4f}")
0.2892, and on these points 0.2937
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike
from scipy.special import entr, expit, i0e, i1e, softmax

from npflow.autodiff.gpu.devices import to_host
from npflow.datasets.numerics import (
    bisect,
    blurred_step_slope,
    gauss,
    log_blurred_step,
    log_sum,
    mean_under,
    normal_plane,
    plane,
)
from npflow.description import Declared, number
from npflow.errors import InputError
from npflow.priors import LOG_2PI
from npflow.validation import check_count, check_rng, check_rows

LOG_2PI_E = LOG_2PI + 1  # the entropy of the standard normal in two dimensions
TINY = np.finfo(np.float64).tiny
ROWS = 512  # rows computed at a time, so that a few hundred numbers for each stay in the cache


def starts_of(row):
    """Where each row starts in a sorted list of rows, none of which is missing."""
    return np.flatnonzero(np.diff(row, prepend=-1))


class ToyDensity(Declared):
    """A density in the plane, with a sampler, the log density, its gradient and the entropy.

    Attributes
    ----------
    limits : ((left, right), (bottom, top))
        The part of the plane to plot, as `npflow.plots.density` takes it.

    Examples
    --------
    >>> from npflow.datasets import DENSITIES
    >>> {name: round(DENSITIES[name].entropy(), 4) for name in ("circles", "checkerboard", "funnel")}  # nats
    {'circles': 0.6061, 'checkerboard': 3.4657, 'funnel': 3.9365}
    """

    def sample(self, n: int, *, rng: Generator) -> ndarray:
        """Draw rows.

        Parameters
        ----------
        n : int
            The number of rows.
        rng : numpy.random.Generator
            The only source of randomness.

        Returns
        -------
        ndarray of float64, shape (n, 2)
            The rows in random order.

        Raises
        ------
        InputError
            If `n` is not an integer of at least 1, or `rng` is not a Generator.
        """
        n = check_count(n, "the number of rows")
        check_rng(rng)
        return self._sample(n, rng)

    def log_prob(self, x: ArrayLike) -> ndarray:
        """Compute log p(x) in nats.

        Parameters
        ----------
        x : ndarray of float32 or float64, shape (n, 2)

        Returns
        -------
        ndarray of float64, shape (n,)
            -inf where p is 0.

        Raises
        ------
        InputError
            If `x` has another shape, or is not finite; or if the density has no noise.
        """
        log_prob = self._by_rows(self._log_prob, x)
        return np.where(np.isnan(log_prob), -np.inf, log_prob)

    def score(self, x: ArrayLike) -> ndarray:
        """Compute the gradient of log p in x, in closed form: what a flow needs that is trained to the density.

        Parameters
        ----------
        x : ndarray of float32 or float64, shape (n, 2)

        Returns
        -------
        ndarray of float64, shape (n, 2)
            In nats per unit of x. It is not finite where p is 0, as it may be far out.

        Raises
        ------
        InputError
            As `log_prob`; and for a density with jumps, a `Checkerboard` without noise.
        """
        return self._by_rows(self._score, x)

    def _by_rows(self, compute, x):
        """Some rows at a time, in float64."""
        x = to_host(check_rows(x, (2,))).astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # far out
            return np.concatenate([compute(x[start : start + ROWS]) for start in range(0, len(x), ROWS)])

    def entropy(self) -> float:
        """Compute the entropy -int p log p dx, in nats."""
        raise NotImplementedError

    def _sample(self, n, rng):
        raise NotImplementedError

    def _log_prob(self, x):
        raise NotImplementedError

    def _score(self, x):
        raise NotImplementedError


class _Blurred(ToyDensity):
    """A curve with normal noise around it. Without noise it can be sampled, but has no density."""

    @property
    def _scale(self):
        """The noise, for what exists only where it is above 0."""
        if self.noise == 0:
            raise InputError(
                f"expected the noise of {type(self).__name__} to be above 0 for a density, got 0.0"
            )
        return self.noise


@dataclass(frozen=True)
class Moons(_Blurred):
    r"""Two interleaved half circles of radius 1, blurred.

    x = (cos t, sin t) + noise e            upper moon, n // 2 of the rows
    x = (1 - cos t, 1/2 - sin t) + noise e  lower moon, the others

    p(x) = [q(x) + q((1, 1/2) - x)] / 2         q(x) = 1/pi int_0^pi N(x; (cos t, sin t), noise^2 I) dt

    q is the density of the upper moon. Half a turn around (1/2, 1/4) maps the upper moon to the lower one.
    The integral over half a circle has no closed form (over a whole circle it has: see `Circles`), so it is
    computed by Gaussian quadrature.

    The sampler takes t from an even grid from 0 to pi, so that the moons are filled evenly. The rows are
    therefore not independent, and p is the density of one of many rows.

    Parameters
    ----------
    noise : float
        The standard deviation around the arcs, at least 0; `log_prob` and `entropy` need more than 0. With
        the default the entropy is 0.2892 nats.

    References
    ----------
    scikit-learn's `make_moons`, in the same coordinates. FFJORD stretches them by 2.

    Examples
    --------
    Half a turn around (1/2, 1/4) maps the density to itself; between the moons it is low:

    >>> from npflow.datasets import Moons
    >>> Moons(noise=0.05).log_prob([[0.0, 1.0], [1.0, -0.5], [0.5, 0.25]]).round(2)
    array([  0.24,   0.24, -37.67])
    """

    noise: float = number(0.05, least=0)

    limits = ((-1.5, 2.5), (-1.1, 1.6))

    def _sample(self, n, rng):
        from sklearn.datasets import make_moons

        return make_moons(n, noise=self.noise, random_state=int(rng.integers(2**32)))[0]

    def _log_prob(self, x):
        return np.logaddexp(self._log_upper(x), self._log_upper([1, 0.5] - x)) - math.log(2)

    def _log_upper(self, x):
        """log q(x), with |x - c|^2 = |x|^2 + 1 - 2 x.c for c on the arc."""
        (arc, weights), variance = self._arc(), self._scale**2
        log_integral = log_sum(x @ (arc / variance), weights / np.pi)
        return log_integral - (np.sum(x * x, axis=1) + 1) / (2 * variance) - LOG_2PI - math.log(variance)

    def _arc(self):
        """Points on the upper arc, shape (2, m), and their weights."""
        t, weights = gauss(np.linspace(0, np.pi, 2 + int(np.pi / (6 * self._scale))))
        return np.stack([np.cos(t), np.sin(t)]), weights

    def _score(self, x):
        lower = [1, 0.5] - x
        share = expit(self._log_upper(x) - self._log_upper(lower))[:, None]  # of the upper moon in p(x)
        return share * self._score_upper(x) - (1 - share) * self._score_upper(lower)

    def _score_upper(self, x):
        """The gradient of log q(x): towards the mean of the points of the arc that x may come from."""
        (arc, weights), variance = self._arc(), self._scale**2
        return (mean_under(x @ (arc / variance), weights, arc.T) - x) / variance

    def entropy(self):
        """Compute the entropy -int p log p dx, in nats, on a grid: the cost grows as noise^-3."""
        reach = 8 * self._scale
        points, cell = plane(((-1 - reach, 2 + reach), (-0.5 - reach, 1 + reach)), 0.4 * self._scale)
        return float(np.sum(entr(np.exp(self.log_prob(points)))) * cell)


@dataclass(frozen=True)
class Circles(_Blurred):
    r"""Two circles around 0, of radius 1 and 1/2, blurred.

    x = r (cos t, sin t) + noise e      r = 1 for n // 2 of the rows, 1/2 for the others

    p(x) = 1/2 sum_r exp(-(|x| - r)^2 / (2 noise^2)) J(r |x| / noise^2) / (2 pi noise^2)        r in {1/2, 1}

    J(k) = exp(-k) I_0(k) is the scaled Bessel function. It comes from the integral over a circle, as in the
    von Mises distribution: int_0^{2 pi} exp(k cos t) dt = 2 pi I_0(k).

    The sampler takes t from an even grid from 0 to 2 pi, so that the circles are filled evenly. The rows are
    therefore not independent, and p is the density of one of many rows.

    Parameters
    ----------
    noise : float
        The standard deviation around the circles, at least 0; `log_prob` and `entropy` need more than 0.
        With the default the entropy is 0.6061 nats.

    References
    ----------
    scikit-learn's `make_circles`, in the same coordinates. FFJORD stretches them by 3.

    Examples
    --------
    >>> from npflow.datasets import Circles
    >>> density = Circles(noise=0.05)
    >>> density.log_prob([[1.0, 0.0], [0.0, 0.5], [0.0, 0.0]]).round(2)  # the two circles, and their centre
    array([ -0.45,   0.24, -46.54])
    >>> round(density.entropy(), 4)
    0.6061
    """

    noise: float = number(0.05, least=0)

    limits = ((-1.4, 1.4), (-1.4, 1.4))

    def _sample(self, n, rng):
        from sklearn.datasets import make_circles

        return make_circles(n, factor=0.5, noise=self.noise, random_state=int(rng.integers(2**32)))[0]

    def _log_prob(self, x):
        return self._log_at(np.hypot(x[:, 0], x[:, 1]))

    def _log_at(self, radius):
        """log p at a distance from 0."""
        variance = self._scale**2
        log_rings = [
            np.log(i0e(r * radius / variance)) - (radius - r) ** 2 / (2 * variance) for r in (0.5, 1.0)
        ]
        return np.logaddexp(*log_rings) - math.log(2) - LOG_2PI - math.log(variance)

    def _score(self, x):
        # d/dk log I_0(k) = I_1(k) / I_0(k)
        radius, variance, rings = np.hypot(x[:, :1], x[:, 1:]), self._scale**2, np.array([0.5, 1.0])
        k = rings * radius / variance
        log_rings = np.log(i0e(k)) - (radius - rings) ** 2 / (2 * variance)
        pull = np.sum(softmax(log_rings, axis=1) * rings * i1e(k) / i0e(k), axis=1, keepdims=True)
        return (pull / np.maximum(radius, TINY) - 1) * x / variance

    def entropy(self):
        """Compute the entropy -int p log p 2 pi r dr, in nats."""
        end = 1 + 10 * self._scale
        radius, weights = gauss(np.linspace(0, end, 2 + int(end / (4 * self._scale))))
        return float(np.sum(weights * 2 * np.pi * radius * entr(np.exp(self._log_at(radius)))))


@dataclass(frozen=True)
class Spirals(_Blurred):
    r"""Two spirals of one and a half turns, each blurred by uniform and normal noise.

    x = +-(-t cos t + v / 2, t sin t + w / 2) / 3 + noise e     t = 3 pi sqrt(u)

    with both signs equally likely, and v, w uniform in [0, 1). The square root fills the arms about evenly
    along their length.

    p(x) = [q(x) + q(-x)] / 2
    q(x) = int_0^{3 pi} B(x_1 + t cos(t) / 3) B(x_2 - t sin(t) / 3) 2 t / (3 pi)^2 dt
    B(d) = 6 [Phi(d / noise) - Phi((d - 1/6) / noise)]

    B is the density of v / 6 + noise e_1, Phi the distribution function of the standard normal, and
    2 t / (3 pi)^2 the density of t. The integral is computed by Gaussian quadrature.

    Parameters
    ----------
    noise : float
        The standard deviation of the normal noise, at least 0; `log_prob` and `entropy` need more than 0.
        With the default the entropy is 2.6455 nats.

    References
    ----------
    Grathwohl et al.: FFJORD, 2019, "2spirals" of its toy data.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import Spirals
    >>> density = Spirals()
    >>> x = density.sample(5, rng=np.random.default_rng(0))
    >>> np.allclose(density.log_prob(x), density.log_prob(-x))  # two arms, half a turn apart
    True
    """

    noise: float = number(0.1, least=0)

    limits = ((-4, 4), (-4, 4))

    def _sample(self, n, rng):
        t = 3 * np.pi * np.sqrt(rng.random(n))
        arm = np.stack([-t * np.cos(t), t * np.sin(t)], axis=1) + rng.random((n, 2)) / 2
        sign = rng.choice([-1.0, 1.0], (n, 1))
        return sign * arm / 3 + self.noise * rng.standard_normal((n, 2))

    def _log_prob(self, x):
        row, _, log_terms, _ = self._near(x)
        return np.logaddexp.reduceat(log_terms, starts_of(row)) - math.log(2)

    def _score(self, x):
        row, d, log_terms, sign = self._near(x)
        top = np.maximum.reduceat(log_terms, starts_of(row))
        terms = np.exp(log_terms - top[row])
        slopes = sign * blurred_step_slope(d - 1 / 12, 1 / 12, self._scale)
        sums = [np.bincount(row, terms * slope) for slope in (*slopes.T, 1)]
        return np.stack(sums[:2], axis=1) / sums[2][:, None]

    def _near(self, x):
        """The points of both arms that matter to each row.

        The row, +-x less the point of the arm, the log of what the point adds to q, and the sign of x.
        """
        arm, weights = self._arm()
        squares = np.sum(x * x, axis=1)[:, None] + np.sum(arm * arm, axis=1)
        products = 2 * x @ arm.T
        distance = np.sqrt(np.fmax(np.hstack([squares - products, squares + products]), 0))  # nan becomes 0
        # The uniform noise moves a point by at most 0.12. Points of the arms that are further away than this
        # cutoff add less than exp(-30) of what the nearest one adds.
        nearest = np.min(distance, axis=1, keepdims=True) + 0.12
        row, at = np.nonzero(distance <= 0.12 + np.sqrt(nearest**2 + 60 * self._scale**2))
        sign, at = np.where(at < len(arm), 1.0, -1.0)[:, None], at % len(arm)
        d = sign * x[row] - arm[at]
        return row, d, np.sum(self._log_blur(d), axis=1) + np.log(weights)[at], sign

    def _arm(self):
        """Points along an arm, shape (m, 2), and their weights, which sum to 1."""
        # Panels that are even in t^2 have about equal lengths on the arm, which is 15 long.
        t, weights = gauss(3 * np.pi * np.sqrt(np.linspace(0, 1, 2 + int(15 / (6 * self._scale)))))
        return np.stack([-t * np.cos(t), t * np.sin(t)], axis=1) / 3, weights * 2 * t / (3 * np.pi) ** 2

    def _log_blur(self, d):
        """log B(d)"""
        return math.log(6) + log_blurred_step(d - 1 / 12, 1 / 12, self._scale)

    def entropy(self):
        """Compute the entropy -int p log p dx, in nats, on a grid, where q is a product of matrices."""
        reach = np.pi + 1 / 6 + 8 * self._scale
        axis, spacing = np.linspace(-reach, reach, 2 + int(2 * reach / (0.4 * self._scale)), retstep=True)
        arm, weights = self._arm()
        first, second = (np.exp(self._log_blur(axis[:, None] - coordinate)) for coordinate in arm.T)
        q = (first * weights) @ second.T
        return float(np.sum(entr((q + q[::-1, ::-1]) / 2)) * spacing**2)


@dataclass(frozen=True)
class Checkerboard(ToyDensity):
    r"""The eight black squares of a board of 4 x 4, of side 2, filled uniformly: a density with jumps, or blurred.

    p(x) = 1/32 if floor(x_1 / 2) + floor(x_2 / 2) is even, and 0 otherwise, in [-4, 4) x [-4, 4)

    With noise a normal error of that standard deviation is added to each row:

    p(x) = [E(x_1) E(x_2) + O(x_1) O(x_2)] / 32     E(t) = S(t + 4) + S(t),  O(t) = S(t + 2) + S(t - 2)
    S(t) = Phi(t / noise) - Phi((t - 2) / noise)

    S is the step from 0 to 2, blurred; E are the even columns and O the odd ones. A square is black where both its
    column and its row are even, or both are odd.

    The entropy is log 32 = 3.4657 nats without noise.

    Parameters
    ----------
    noise : float
        The standard deviation of the normal noise, at least 0. A density with jumps has no gradient, so `score` needs
        more than 0.

    References
    ----------
    Grathwohl et al.: FFJORD, 2019, "checkerboard" of its toy data.

    Examples
    --------
    >>> from npflow.datasets import Checkerboard
    >>> Checkerboard().log_prob([[1.0, 1.0], [1.0, -1.0]]).round(4)  # a black square, -log 32; a white one
    array([-3.4657,    -inf])
    >>> Checkerboard(noise=0.1).log_prob([[1.0, 1.0], [1.0, 2.0]]).round(4)  # on an edge it is half as high
    array([-3.4657, -4.1589])
    """

    noise: float = number(0.0, least=0)

    limits = ((-4.6, 4.6), (-4.6, 4.6))

    def _sample(self, n, rng):
        column = rng.integers(4, size=n)
        row = 2 * rng.integers(2, size=n) + column % 2
        x = 2 * (np.stack([column, row], axis=1) + rng.random((n, 2))) - 4
        return x + self.noise * rng.standard_normal((n, 2)) if self.noise else x

    def _log_prob(self, x):
        if self.noise:
            return np.logaddexp(*np.sum(self._log_columns(x), axis=2)) - math.log(32)
        on_board = np.all((x >= -4) & (x < 4), axis=1)
        black = np.sum(np.floor(x / 2), axis=1) % 2 == 0
        return np.where(on_board & black, -math.log(32), -np.inf)

    def _steps(self, t):
        """t - 1 for each step S(t) of E and of O: shape (2, 2, *t.shape), the centre of a step is 0."""
        return np.reshape(t, (1, 1, *t.shape)) + np.reshape([[3.0, -1.0], [1.0, -3.0]], (2, 2, *[1] * t.ndim))

    def _log_columns(self, t):
        """log E(t) and log O(t), shape (2, *t.shape)."""
        return np.logaddexp.reduce(log_blurred_step(self._steps(t), 1.0, self.noise), axis=1)

    def _score(self, x):
        if self.noise == 0:
            raise InputError("expected the noise of Checkerboard to be above 0 for a score, got 0.0")
        steps = self._steps(x)
        log_steps, slopes = (of(steps, 1.0, self.noise) for of in (log_blurred_step, blurred_step_slope))
        slopes = np.sum(softmax(log_steps, axis=1) * slopes, axis=1)  # of log E and log O, shape (2, n, 2)
        log_colours = np.sum(self._log_columns(x), axis=2)
        return np.sum(softmax(log_colours, axis=0)[:, :, None] * slopes, axis=0)

    def entropy(self):
        """Compute the entropy -int p log p dx, in nats: log 32 without noise, else on a grid, with matrix products."""
        if self.noise == 0:
            return math.log(32)
        reach = 4 + 8 * self.noise
        axis, spacing = np.linspace(-reach, reach, 2 + int(2 * reach / (0.4 * self.noise)), retstep=True)
        even, odd = np.exp(self._log_columns(axis))
        p = (np.outer(even, even) + np.outer(odd, odd)) / 32
        return float(np.sum(entr(p)) * spacing**2)


@dataclass(frozen=True)
class EightGaussians(ToyDensity):
    r"""Eight equal Gaussians around a circle of radius sqrt(8), each of standard deviation 1 / sqrt(8).

    x = (4 c_k + e / 2) / sqrt(2)       c_k = (cos(k pi / 4), sin(k pi / 4)), k uniform in 0 .. 7

    p(x) = 1/8 sum_k N(x; sqrt(8) c_k, I / 8)

    The entropy is 2.8316 nats. Without overlap it would be log(2 pi e) = 2.8379, the entropy of the
    standard normal: the number of Gaussians adds log 8, and their scale takes log 8 away.

    References
    ----------
    Grathwohl et al.: FFJORD, 2019, "8gaussians" of its toy data.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import EightGaussians
    >>> density = EightGaussians()
    >>> x = density.sample(1000, rng=np.random.default_rng(0))
    >>> x.shape, round(density.entropy(), 4)
    ((1000, 2), 2.8316)
    """

    limits = ((-4.2, 4.2), (-4.2, 4.2))

    def _sample(self, n, rng):
        angle = rng.integers(8, size=n) * np.pi / 4
        center = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return (4 * center + rng.standard_normal((n, 2)) / 2) / np.sqrt(2)

    def _log_prob(self, x):
        return (
            log_sum(self._terms(x)[0], np.ones(8)) - LOG_2PI
        )  # the weight of 1/8 and the variance of 1/8 cancel

    def _score(self, x):
        terms, centers = self._terms(x)
        return 8 * (mean_under(terms, np.ones(8), centers) - x)

    def _terms(self, x):
        """-|x - c|^2 / (2 / 8) for each centre c, and the centres."""
        angle = np.arange(8) * np.pi / 4
        centers = np.sqrt(8) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        return -4 * np.sum((x[:, None] - centers) ** 2, axis=-1), centers

    def entropy(self):
        """Compute the entropy -E[log p], in nats, over one of the Gaussians, as all are alike."""
        e, weights = normal_plane()
        return float(-np.sum(weights * self.log_prob(np.sqrt(8) * np.array([1, 0]) + e / np.sqrt(8))))


@dataclass(frozen=True)
class Pinwheel(ToyDensity):
    r"""Five arms around 0, each an elongated Gaussian that is wound up more the further out it is.

    x = 2 (r cos a + s sin a, s cos a - r sin a)    r = 1 + 0.3 e_1, s = 0.1 e_2
                                                    a = 2 pi k / 5 + exp(r) / 4, k uniform in 0 .. 4

    p(x) = 1/5 sum_k N(r_k; 1, 0.3^2) N(s_k; 0, 0.1^2) / |det J|        |det J| = 4 (1 + s_k exp(r_k) / 4)

    (r_k, s_k) is the point of arm k that is mapped to x. x / 2 is (r, s) turned back by the angle a. So
    (r, s) = |x| / 2 (cos b, sin b), where b - a is the angle of x. This is an equation in b for each arm,
    which is solved by bisection.

    det J is not constant, because a depends on r rather than on |x|. Where s < -4 exp(-r) it is negative,
    and the map folds over. One in a billion rows comes from there. They are left out of p.

    The entropy is 2.3178 nats.

    References
    ----------
    Johnson et al.: Composing graphical models with neural networks for structured representations and fast
    inference, 2016, figure 1, with the constants of FFJORD's toy data. https://arxiv.org/abs/1603.06277

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import Pinwheel
    >>> angle = 2 * np.pi / 5  # from arm to arm
    >>> turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    >>> density, x = Pinwheel(), np.array([[-1.0, -1.5]])
    >>> np.allclose(density.log_prob(x @ turn), density.log_prob(x))
    True
    """

    limits = ((-4, 4), (-4, 4))

    def _sample(self, n, rng):
        r = 1 + 0.3 * rng.standard_normal(n)
        s = 0.1 * rng.standard_normal(n)
        a = 2 * np.pi * rng.integers(5, size=n) / 5 + np.exp(r) / 4
        return self._wind(r, s, a)

    def _wind(self, r, s, a):
        """The rows x, from the coordinates along and across an arm and the arm's angle."""
        return 2 * np.stack([r * np.cos(a) + s * np.sin(a), s * np.cos(a) - r * np.sin(a)], axis=1)

    def _log_prob(self, x):
        return log_sum(self._terms(x)[0], np.full(5, 1 / 5))

    def _score(self, x):
        terms, r, s, a = self._terms(x)
        wind = self._winding(r)  # da / dr
        slope = 1 + s * wind
        along, across = -(r - 1) / 0.3**2 - s * wind / slope, -s / 0.1**2 - wind / slope
        # Turned by a, the Jacobian of (r, s) -> x / 2 is [[1 + s wind, 0], [-r wind, 1]].
        along = (along + r * wind * across) / slope
        gradients = self._wind(along, across, a) / 4
        return np.sum(softmax(terms, axis=1)[:, None] * gradients, axis=2)

    def _terms(self, x):
        """The log of what each arm adds to p, without the weight of 1/5, and its r, s and a; shape (n, 5)."""
        radius = np.hypot(x[:, :1], x[:, 1:]) / 2
        angle = np.arctan2(x[:, 1:], x[:, :1])
        start = self._end_of_fold(radius)
        # From start on, the angle b - exp(r) / 4 increases. The first five b where it equals the angle of
        # x, up to a multiple of 2 pi / 5, belong to the five arms.
        turn = 2 * np.pi / 5
        wanted = angle + turn * (np.ceil((self._unwound(radius, start) - angle) / turn) + np.arange(5))
        b = bisect(lambda b: self._unwound(radius, b) - wanted, start, np.pi, wanted.shape)
        r, s = radius * np.cos(b), radius * np.sin(b)
        log_normals = -(((r - 1) / 0.3) ** 2 + (s / 0.1) ** 2) / 2 - LOG_2PI - math.log(0.3 * 0.1)
        log_det = np.log(4 * np.maximum(self._slope(radius, b), 1e-6))  # the slope is 0 where the fold ends
        return log_normals - log_det, r, s, b - angle

    def _unwound(self, radius, b):
        return b - self._winding(radius * np.cos(b))

    def _slope(self, radius, b):
        return 1 + radius * np.sin(b) * self._winding(radius * np.cos(b))

    def _winding(self, r):
        return np.exp(np.minimum(r, 20)) / 4  # further out p is 0 in float64, and exp would overflow

    def _end_of_fold(self, radius):
        """The b in [-pi, 0] from which on the slope is positive."""
        # The slope is least where its derivative is 0, |x| / 2 sin(b)^2 = cos(b).
        least = -np.arccos(2 * radius / (1 + np.sqrt(1 + 4 * radius**2)))
        end = bisect(lambda b: self._slope(radius, b), least, 0, radius.shape)
        return np.where(self._slope(radius, least) < 0, end, -np.pi)

    def entropy(self):
        """Compute the entropy -E[log p], in nats, over the Gaussian of one arm, as all are alike."""
        e, weights = normal_plane()
        r, s = 1 + 0.3 * e[:, 0], 0.1 * e[:, 1]
        return float(-np.sum(weights * self.log_prob(self._wind(r, s, np.exp(r) / 4))))


@dataclass(frozen=True)
class Funnel(ToyDensity):
    r"""Neal's funnel in the plane: the first coordinate is twice the logarithm of the second one's scale.

    x = (v, exp(v / 2) e_2)     v = 3 e_1

    p(x) = N(v; 0, 3^2) N(x_2; 0, exp(v))

    Two in three rows have a scale exp(v / 2) between 0.2 and 4.5, one in a thousand has one below 0.007 or
    above 140. One affine layer whose scale of x_2 depends on x_1 makes the funnel from a standard normal. A
    map of constant Jacobian determinant, such as an additive coupling, does not.

    The entropy is log(2 pi e) + log 3 = 3.9365 nats: that of the standard normal and E[log|det J|], with
    log|det J| = log 3 + v / 2.

    References
    ----------
    Neal: Slice sampling, Annals of Statistics 31(3), 2003, section 8, with nine coordinates of that scale
    instead of one. https://doi.org/10.1214/aos/1056562461

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import Funnel
    >>> density = Funnel()
    >>> x = density.sample(10_000, rng=np.random.default_rng(0))
    >>> low = x[:, 0] < 0  # where exp(v / 2) is below 1
    >>> bool(np.std(x[low, 1]) < 1 < np.std(x[~low, 1])), round(density.entropy(), 4)
    (True, 3.9365)
    """

    limits = ((-8, 7), (-7.5, 7.5))

    def _sample(self, n, rng):
        e = rng.standard_normal((n, 2))
        return np.stack([3 * e[:, 0], np.exp(1.5 * e[:, 0]) * e[:, 1]], axis=1)

    def _log_prob(self, x):
        v, second = x.T
        with np.errstate(divide="ignore", over="ignore"):  # log 0 is -inf, and far out log p is -inf
            squares = (v / 3) ** 2 + np.exp(2 * np.log(np.abs(second)) - v)
        return -squares / 2 - LOG_2PI - math.log(3) - v / 2

    def _score(self, x):
        v, second = x.T
        pull = second * np.exp(-v)
        return np.stack([-v / 9 + (second * pull - 1) / 2, -pull], axis=1)

    def entropy(self):
        """Return the entropy log(6 pi e), in nats."""
        return LOG_2PI_E + math.log(3)


@dataclass(frozen=True)
class Banana(ToyDensity):
    r"""A long Gaussian that is bent to a parabola.

    x = (10 e_1, e_2 - 3 (e_1^2 - 1))

    p(x) = N(x_1; 0, 10^2) N(e_2; 0, 1)     e_2 = x_2 + 0.03 (x_1^2 - 100)

    Bending keeps areas, so one additive coupling between two scalings makes the banana from a standard
    normal, and its entropy is that of the long Gaussian, log(2 pi e) + log 10 = 5.1405 nats.

    References
    ----------
    Haario, Saksman, Tamminen: Adaptive proposal distribution for random walk Metropolis algorithm,
    Computational Statistics 14(3), 1999, with b = 0.03. https://doi.org/10.1007/s001800050022

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.datasets import Banana
    >>> density = Banana()
    >>> density.log_prob([[0.0, 3.0], [0.0, -3.0]]).round(2)  # on the ridge, and six stds below it
    array([ -4.14, -22.14])
    >>> round(density.entropy(), 4)
    5.1405
    """

    limits = ((-28, 28), (-26, 8))

    def _sample(self, n, rng):
        e = rng.standard_normal((n, 2))
        return np.stack([10 * e[:, 0], e[:, 1] - 3 * (e[:, 0] ** 2 - 1)], axis=1)

    def _log_prob(self, x):
        e = x[:, 1] + 0.03 * (x[:, 0] ** 2 - 100)
        return -((x[:, 0] / 10) ** 2 + e**2) / 2 - LOG_2PI - math.log(10)

    def _score(self, x):
        e = x[:, 1] + 0.03 * (x[:, 0] ** 2 - 100)
        return -np.stack([x[:, 0] / 100 + 0.06 * x[:, 0] * e, e], axis=1)

    def entropy(self):
        """Return the entropy log(20 pi e), in nats."""
        return LOG_2PI_E + math.log(10)


SAMPLER = """Draw rows of {rows}; see `{kind}`.

Parameters
----------
n : int
    The number of rows.
rng : numpy.random.Generator
    The only source of randomness.{noise}

Returns
-------
ndarray of float64, shape (n, 2)
    The rows in random order.

Raises
------
InputError
    If an argument cannot be used.

Examples
--------
>>> import numpy as np
>>> from npflow.datasets import {kind}, {name}
>>> x = {name}(5, rng=np.random.default_rng(0))
>>> x.shape, bool(np.all(x == {kind}().sample(5, rng=np.random.default_rng(0))))
((5, 2), True)
"""
NOISE = """
noise : float
    The standard deviation of the noise, at least 0."""


def _sampler(name, kind, rows):
    """The function that draws from a density in one call."""
    noisy = "noise" in kind.__dataclass_fields__
    if noisy:

        def draw(n: int, *, rng: Generator, noise: float = kind.noise) -> ndarray:
            return kind(noise).sample(n, rng=rng)

    else:

        def draw(n: int, *, rng: Generator) -> ndarray:
            return kind().sample(n, rng=rng)

    draw.__name__ = draw.__qualname__ = name
    draw.__doc__ = SAMPLER.format(name=name, kind=kind.__name__, rows=rows, noise=NOISE if noisy else "")
    return draw


_ALL = {
    "moons": (Moons, "two interleaved half circles"),
    "circles": (Circles, "two circles around 0"),
    "spirals": (Spirals, "two spirals"),
    "checkerboard": (Checkerboard, "the black squares of a board"),
    "eight_gaussians": (EightGaussians, "eight Gaussians around a circle"),
    "pinwheel": (Pinwheel, "a pinwheel with five arms"),
    "funnel": (Funnel, "Neal's funnel"),
    "banana": (Banana, "a bent Gaussian"),
}
DENSITIES = {name: kind() for name, (kind, _) in _ALL.items()}
TOY = {name: _sampler(name, kind, rows) for name, (kind, rows) in _ALL.items()}
moons, circles, spirals, checkerboard, eight_gaussians, pinwheel, funnel, banana = TOY.values()
