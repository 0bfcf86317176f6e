r"""The toy densities themselves: log p(x), and the entropy, which no model's loss can be below in the mean.

Each is a frozen dataclass that says how one of `npflow.datasets.toy` draws its rows: `sample` draws,
`log_prob` is the log density at given points, `entropy` is -int p log p dx, both in nats. So a test loss has
something to be held against:

    E[-log q(x)] = entropy + KL(p || q)       x drawn from p; q the model

A mean over n test points differs from its expectation by about std(log q) / sqrt(n). Most of that goes away
where q is compared with p on the very same points.

All is computed in float64. Closed forms are used where there are any. The other integrands are analytic, so that
Gauss's rule, or a sum over an even grid that reaches to where they vanish, is right to many digits.

Examples
--------
>>> import numpy as np
>>> density = DENSITIES["moons"]
>>> x = density.sample(10_000, rng=np.random.default_rng(0))
>>> print(f"{density.entropy():.4f}, and on these points {-np.mean(density.log_prob(x)):.4f}")
0.2892, and on these points 0.2937
"""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import entr, i0e, log_ndtr

from npflow.autodiff.gpu.devices import to_host
from npflow.datasets import toy
from npflow.datasets.numerics import bisect, gauss, log_sum, normal_plane, plane
from npflow.priors import LOG_2PI
from npflow.validation import check_number, check_rows

LOG_2PI_E = LOG_2PI + 1  # the entropy of the standard normal in two dimensions
ROWS = 512  # worked off at a time, so that a few hundred numbers for each stay in the cache


class ToyDensity:
    """A density in the plane with a sampler, a log density and an entropy.

    Attributes
    ----------
    draw : function
        The one of `npflow.datasets.toy` that `sample` calls, with the fields of the dataclass.
    limits : ((left, right), (bottom, top))
        The part of the plane to look at, for `npflow.plots.density`.
    """

    def sample(self, n, *, rng):
        """`n` rows drawn from `rng`, float64, shape (n, 2)."""
        return self.draw(n, rng=rng, **vars(self))

    def log_prob(self, x):
        """log p(x) in nats, float64, shape (n,), for rows of shape (n, 2); -inf where p is 0."""
        x = to_host(check_rows(x, (2,))).astype(np.float64)
        return np.concatenate([self._log_prob(x[start : start + ROWS]) for start in range(0, len(x), ROWS)])

    def _log_prob(self, x):
        raise NotImplementedError

    def entropy(self):
        """-int p log p dx, in nats."""
        raise NotImplementedError


class _Blurred(ToyDensity):
    """What the densities with noise around a curve share."""

    def __post_init__(self):
        noise = check_number(self.noise, f"the noise of {type(self).__name__}", above=0)
        object.__setattr__(self, "noise", noise)


@dataclass(frozen=True)
class Moons(_Blurred):
    r"""Two interleaved half circles, blurred.

    p(x) = [q(x) + q((1, 1/2) - x)] / 2         q(x) = 1/pi int_0^pi N(x; (cos t, sin t), noise^2 I) dt

    q is the upper moon, which half a turn around (1/2, 1/4) takes to the lower one. The integral over half a
    circle has no closed form (over a whole one it has: see `Circles`); here it is a sum by Gauss's rule.

    `moons` takes t from an even grid, so its rows are not independent. What is given here is the density of
    one of them, for many rows.

    Parameters
    ----------
    noise : float
        The standard deviation around the arcs; with the default the entropy is 0.2892 nats.
    """

    noise: float = 0.05

    draw = staticmethod(toy.moons)
    limits = ((-1.5, 2.5), (-1.1, 1.6))

    def _log_prob(self, x):
        return np.logaddexp(self._log_upper(x), self._log_upper([1, 0.5] - x)) - math.log(2)

    def _log_upper(self, x):
        """log q(x); as |c| = 1 for c on the arc, |x - c|^2 = |x|^2 + 1 - 2 x.c."""
        t, weights = gauss(np.linspace(0, np.pi, 2 + int(np.pi / (6 * self.noise))))
        arc, variance = np.stack([np.cos(t), np.sin(t)]), self.noise**2
        log_integral = log_sum(x @ (arc / variance), weights / np.pi)
        return log_integral - (np.sum(x * x, axis=1) + 1) / (2 * variance) - LOG_2PI - math.log(variance)

    def entropy(self):
        """-int p log p dx, in nats, over a grid as fine as the noise asks for: its cost goes with noise^-3."""
        reach = 8 * self.noise
        points, cell = plane(((-1 - reach, 2 + reach), (-0.5 - reach, 1 + reach)), 0.4 * self.noise)
        return float(np.sum(entr(np.exp(self.log_prob(points)))) * cell)


@dataclass(frozen=True)
class Circles(_Blurred):
    r"""Two circles around 0, of radius 1 and 1/2, blurred.

    p(x) = 1/2 sum_r exp(-(|x| - r)^2 / (2 noise^2)) J(r |x| / noise^2) / (2 pi noise^2)        r in {1/2, 1}

    with J(k) = exp(-k) I_0(k), the scaled Bessel function: what is left of the integral over a circle, as in
    the von Mises distribution, int_0^{2 pi} exp(k cos t) dt = 2 pi I_0(k).

    `circles` takes t from an even grid, so its rows are not independent. What is given here is the density of
    one of them, for many rows.

    Parameters
    ----------
    noise : float
        The standard deviation around the circles; with the default the entropy is 0.6061 nats.
    """

    noise: float = 0.05

    draw = staticmethod(toy.circles)
    limits = ((-1.4, 1.4), (-1.4, 1.4))

    def _log_prob(self, x):
        return self._log_at(np.hypot(x[:, 0], x[:, 1]))

    def _log_at(self, radius):
        """log p at a distance from 0."""
        variance = self.noise**2
        log_rings = [
            np.log(i0e(r * radius / variance)) - (radius - r) ** 2 / (2 * variance) for r in (0.5, 1.0)
        ]
        return np.logaddexp(*log_rings) - math.log(2) - LOG_2PI - math.log(variance)

    def entropy(self):
        """-int p log p 2 pi r dr, in nats."""
        end = 1 + 10 * self.noise
        radius, weights = gauss(np.linspace(0, end, 2 + int(end / (4 * self.noise))))
        return float(np.sum(weights * 2 * np.pi * radius * entr(np.exp(self._log_at(radius)))))


@dataclass(frozen=True)
class Spirals(_Blurred):
    r"""Two spirals, one the other turned by half a circle, each blurred by a uniform and a normal noise.

    p(x) = [q(x) + q(-x)] / 2
    q(x) = int_0^{3 pi} B(x_1 + t cos(t) / 3) B(x_2 - t sin(t) / 3) 2 t / (3 pi)^2 dt
    B(d) = 6 [Phi(d / noise) - Phi((d - 1/6) / noise)]

    B is the density of v / 6 + noise e, with Phi the distribution function of the standard normal, and
    2 t / (3 pi)^2 that of t = 3 pi sqrt(u). The integral is a sum by Gauss's rule.

    Parameters
    ----------
    noise : float
        The standard deviation of the normal noise; with the default the entropy is 2.6455 nats.
    """

    noise: float = 0.1

    draw = staticmethod(toy.spirals)
    limits = ((-4, 4), (-4, 4))

    def _log_prob(self, x):
        return np.logaddexp(self._log_arm(x), self._log_arm(-x)) - math.log(2)

    def _log_arm(self, x):
        """log q(x)"""
        arm, weights = self._arm()
        squares = np.sum(x * x, axis=1)[:, None] - 2 * x @ arm.T + np.sum(arm * arm, axis=1)
        distance = np.sqrt(np.maximum(squares, 0))
        # The jitter moves a point by 0.12 at most; what is further away adds less than exp(-30) of what is nearest.
        nearest = np.min(distance, axis=1, keepdims=True) + 0.12
        row, at = np.nonzero(distance < 0.12 + np.sqrt(nearest**2 + 60 * self.noise**2))
        log_terms = np.sum(self._log_blur(x[row] - arm[at]), axis=1) + np.log(weights[at])
        return np.logaddexp.reduceat(log_terms, np.searchsorted(row, np.arange(len(x))))

    def _arm(self):
        """Points along an arm, shape (m, 2), and their weights, which sum to 1."""
        # Panels that are even in t^2 are about equally long on the arm, which is 15 long.
        t, weights = gauss(3 * np.pi * np.sqrt(np.linspace(0, 1, 2 + int(15 / (6 * self.noise)))))
        return np.stack([-t * np.cos(t), t * np.sin(t)], axis=1) / 3, weights * 2 * t / (3 * np.pi) ** 2

    def _log_blur(self, d):
        """log B(d): B is even around 1/12, so it is the difference of a tail and a smaller one."""
        d = np.abs(d - 1 / 12)
        tail, smaller = log_ndtr((1 / 12 - d) / self.noise), log_ndtr((-1 / 12 - d) / self.noise)
        return math.log(6) + tail + np.log1p(-np.exp(smaller - tail))

    def entropy(self):
        """-int p log p dx, in nats, over a grid: on one, the integral of q is a product of matrices."""
        reach = np.pi + 1 / 6 + 8 * self.noise
        axis, spacing = np.linspace(-reach, reach, 2 + int(2 * reach / (0.4 * self.noise)), retstep=True)
        arm, weights = self._arm()
        first, second = (np.exp(self._log_blur(axis[:, None] - coordinate)) for coordinate in arm.T)
        q = (first * weights) @ second.T
        return float(np.sum(entr((q + q[::-1, ::-1]) / 2)) * spacing**2)


@dataclass(frozen=True)
class Checkerboard(ToyDensity):
    r"""The black squares of a board of 4 x 4, filled uniformly.

    p(x) = 1/32 if floor(x_1 / 2) + floor(x_2 / 2) is even, and 0 otherwise, in [-4, 4) x [-4, 4)

    The entropy is log 32 = 3.4657 nats.
    """

    draw = staticmethod(toy.checkerboard)
    limits = ((-4.6, 4.6), (-4.6, 4.6))

    def _log_prob(self, x):
        on_board = np.all((x >= -4) & (x < 4), axis=1)
        black = np.sum(np.floor(x / 2), axis=1) % 2 == 0
        return np.where(on_board & black, -math.log(32), -np.inf)

    def entropy(self):
        """log 32, in nats."""
        return math.log(32)


@dataclass(frozen=True)
class EightGaussians(ToyDensity):
    r"""Eight equal Gaussians around a circle.

    p(x) = 1/8 sum_k N(x; sqrt(8) c_k, I / 8)       c_k = (cos(k pi / 4), sin(k pi / 4)), k = 0 .. 7

    The entropy is 2.8316 nats. If the eight did not overlap, it would be log(2 pi e) = 2.8379: log 8 more, and
    log 8 less, than that of the standard normal.
    """

    draw = staticmethod(toy.eight_gaussians)
    limits = ((-4.2, 4.2), (-4.2, 4.2))

    def _log_prob(self, x):
        angle = np.arange(8) * np.pi / 4
        centers = np.sqrt(8) * np.stack([np.cos(angle), np.sin(angle)], axis=1)
        squares = np.sum((x[:, None] - centers) ** 2, axis=-1)
        return log_sum(-4 * squares, np.ones(8)) - LOG_2PI  # the weight of 1/8 and the variance of 1/8 cancel

    def entropy(self):
        """-E[log p] in nats, over the first of the Gaussians, which stands for all."""
        e, weights = normal_plane()
        return float(-np.sum(weights * self.log_prob(np.sqrt(8) * np.array([1, 0]) + e / np.sqrt(8))))


@dataclass(frozen=True)
class Pinwheel(ToyDensity):
    r"""Five arms around 0, each an elongated Gaussian that is wound up the more the further out.

    x = 2 (r cos a + s sin a, s cos a - r sin a)        a = 2 pi k / 5 + exp(r) / 4, k = 0 .. 4

    p(x) = 1/5 sum_k N(r_k; 1, 0.3^2) N(s_k; 0, 0.1^2) / |det J|        |det J| = 4 (1 + s_k exp(r_k) / 4)

    with (r_k, s_k) what x comes from on arm k. x / 2 is (r, s) turned back by the angle a. So (r, s) =
    |x| / 2 (cos b, sin b), where b - a is the angle of x: an equation in b for each arm, solved by bisection.

    det J is not constant, because a depends on r rather than on |x|. Where s < -4 exp(-r) it is negative, and the
    map folds over; one in a billion rows comes from there, and is left out.

    The entropy is 2.3178 nats.
    """

    draw = staticmethod(toy.pinwheel)
    limits = ((-4, 4), (-4, 4))

    def _log_prob(self, x):
        radius = np.hypot(x[:, :1], x[:, 1:]) / 2
        angle = np.arctan2(x[:, 1:], x[:, :1])
        start = self._end_of_fold(radius)
        # From there on the angle b - exp(r) / 4 increases; the first five times that it is that of x, up to
        # a multiple of 2 pi / 5, are the five arms.
        turn = 2 * np.pi / 5
        wanted = angle + turn * (np.ceil((self._unwound(radius, start) - angle) / turn) + np.arange(5))
        b = bisect(lambda b: self._unwound(radius, b) - wanted, start, np.pi, wanted.shape)
        r, s = radius * np.cos(b), radius * np.sin(b)
        log_normals = -(((r - 1) / 0.3) ** 2 + (s / 0.1) ** 2) / 2 - LOG_2PI - math.log(0.3 * 0.1)
        log_det = np.log(4 * np.maximum(self._slope(radius, b), 1e-6))  # 0 where the fold ends
        return log_sum(log_normals - log_det, np.full(5, 1 / 5))

    def _unwound(self, radius, b):
        return b - self._winding(radius * np.cos(b))

    def _slope(self, radius, b):
        return 1 + radius * np.sin(b) * self._winding(radius * np.cos(b))

    def _winding(self, r):
        return np.exp(np.minimum(r, 20)) / 4  # further out, nothing comes from there, nor could a float tell

    def _end_of_fold(self, radius):
        """The b in [-pi, 0] from which on the slope is positive."""
        # It is least where its derivative is 0, |x| / 2 sin(b)^2 = cos(b).
        least = -np.arccos(2 * radius / (1 + np.sqrt(1 + 4 * radius**2)))
        end = bisect(lambda b: self._slope(radius, b), least, 0, radius.shape)
        return np.where(self._slope(radius, least) < 0, end, -np.pi)

    def entropy(self):
        """-E[log p] in nats, over the Gaussian that is wound up to the first of the arms."""
        e, weights = normal_plane()
        r, s = 1 + 0.3 * e[:, 0], 0.1 * e[:, 1]
        a = np.exp(r) / 4
        x = 2 * np.stack([r * np.cos(a) + s * np.sin(a), s * np.cos(a) - r * np.sin(a)], axis=1)
        return float(-np.sum(weights * self.log_prob(x)))


@dataclass(frozen=True)
class Funnel(ToyDensity):
    r"""Neal's funnel, in the plane.

    p(x) = N(v; 0, 3^2) N(x_2; 0, exp(v))       v = x_1

    The entropy is log(2 pi e) + log 3 = 3.9365 nats: that of the standard normal, and E[log|det J|] with
    log|det J| = log 3 + v / 2.
    """

    draw = staticmethod(toy.funnel)
    limits = ((-8, 7), (-7.5, 7.5))

    def _log_prob(self, x):
        v, second = x.T
        with np.errstate(divide="ignore", over="ignore"):  # 0 has the logarithm -inf; far out log p is -inf
            squares = (v / 3) ** 2 + np.exp(2 * np.log(np.abs(second)) - v)
        return -squares / 2 - LOG_2PI - math.log(3) - v / 2

    def entropy(self):
        """log(6 pi e), in nats."""
        return LOG_2PI_E + math.log(3)


@dataclass(frozen=True)
class Banana(ToyDensity):
    r"""A long Gaussian that is bent to a parabola.

    p(x) = N(x_1; 0, 10^2) N(e; 0, 1)       e = x_2 + 0.03 (x_1^2 - 100)

    The entropy is log(2 pi e) + log 10 = 5.1405 nats: bending keeps areas, so it is that of the long Gaussian.
    """

    draw = staticmethod(toy.banana)
    limits = ((-28, 28), (-26, 8))

    def _log_prob(self, x):
        e = x[:, 1] + 0.03 * (x[:, 0] ** 2 - 100)
        return -((x[:, 0] / 10) ** 2 + e**2) / 2 - LOG_2PI - math.log(10)

    def entropy(self):
        """log(20 pi e), in nats."""
        return LOG_2PI_E + math.log(10)


DENSITIES = {
    "moons": Moons(),
    "circles": Circles(),
    "spirals": Spirals(),
    "checkerboard": Checkerboard(),
    "eight_gaussians": EightGaussians(),
    "pinwheel": Pinwheel(),
    "funnel": Funnel(),
    "banana": Banana(),
}
