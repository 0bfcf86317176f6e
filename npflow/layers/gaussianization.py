"""Gaussianization of each component: a learned distribution function, then the normal quantile function."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode
from autograd.extend import defvjp, primitive
from autograd.tracer import register_notrace
from scipy import special

from npflow.autodiff.gpu.devices import HOST, device_of, scipy_function
from npflow.autodiff.primitives import held, log_sigmoid, logsumexp_last, sum_event, where
from npflow.description import count
from npflow.layers.layer import Layer, spread
from npflow.priors import LOG_2PI


@dataclass(frozen=True)
class Gaussianize(Layer):
    r"""Map each component by its distribution function F, and then by the normal quantile function Phi^-1.

    z = Phi^-1(F(x))        F(x) = sum_k w_k sigmoid((x - mean_k) / scale_k)
    x = F^-1(Phi(z))        log|det J| = sum(log F'(x) - log Phi'(z))

    F is a mixture of logistics, one mixture for each component of an event. `init` fits it to the first batch by the EM
    algorithm. Where F is the distribution of x, F(x) is uniform and z is standard normal.

    The map is unbounded. It is computed from the logits of probabilities, which stay exact in both tails. Beyond three
    standard deviations Phi continues as a logistic distribution function, whose logit is linear, as that of F is far
    out. So outliers move in proportion, in both directions, through any number of layers. (With the normal's own tail,
    the inverse of one layer squares an outlier, and some draws from a chain of fifteen are not finite.)

    Parameters
    ----------
    components : int
        The number of logistics in each mixture.

    References
    ----------
    Chen, Gopinath: Gaussianization, 2000, section 3.

    Meng, Song, Song, Ermon: Gaussianization flows, 2020, section 3.1.
    https://arxiv.org/abs/2003.01941

    Examples
    --------
    Two clusters become one standard normal:

    >>> import numpy as np
    >>> from npflow.layers import Gaussianize
    >>> rng = np.random.default_rng(0)
    >>> x = np.concatenate([rng.normal(-3, 0.5, (500, 1)), rng.normal(2, 1, (500, 1))])
    >>> layer = Gaussianize(components=4)
    >>> z, _ = layer.forward(layer.init(rng, x), x)
    >>> np.quantile(z, [0.159, 0.841]).round(1)  # of a standard normal: -1 and 1
    array([-1.,  1.])
    """

    components: int = count(8)

    keeps_input = True  # `inverse` is an iteration

    def init(self, rng, x):
        columns = x.reshape(len(x), -1).astype(onp.float64)
        size = onp.max(spread(columns)) or onp.max(onp.abs(columns))
        fits = [fit_logistics(column, self.components, size) for column in columns.T]
        return {
            name: onp.array(rows, x.dtype).reshape(*x.shape[1:], self.components)
            for name, rows in zip(("means", "log_scales", "log_weights"), zip(*fits))
        }

    def forward(self, params, x):
        logit, log_slope = logistic_mixture(x, **params)
        z = normal_of_logit(logit)
        return z, sum_event(log_slope + log_normal_slope(z, logit))

    def inverse(self, params, z):
        logit = logit_of_normal(z)
        x = mixture_quantile(logit, **params)
        _, log_slope = logistic_mixture(x, **params)
        return x, -sum_event(log_slope + log_normal_slope(z, logit))


# ---------------------------------------------------------------- the normal distribution, with straight tails
#
# A probability p is given by its logit, log p - log(1 - p), which stays exact in both tails, where p itself is rounded
# to 0 or 1: the logit of 1e-300 is -690.8, that of 1 - 1e-300 is 690.8. Phi is the distribution function of the
# standard normal, phi its density.
#
# z as a function of the logit is that of the standard normal up to |z| = BEND, and linear beyond. The tails of a normal
# are lighter than those of any mixture of logistics: through the inverse of each mixture an outlier would be squared,
# and a few of them would overflow.

BEND = 3.0
LOGIT_BEND = float(special.log_ndtr(BEND) - special.log_ndtr(-BEND))  # 6.6
SLOPE_BEND = float(
    special.ndtr(BEND) * special.ndtr(-BEND) * math.exp(0.5 * (BEND**2 + LOG_2PI))
)  # dz / d logit: 0.3


@primitive
def normal_of_logit(logit):
    """The z with Phi(z) = sigmoid(logit), straight on beyond the bend."""
    size = onp.abs(logit)  # z is odd, and the smaller of the two probabilities the one with all its digits
    near = onp.minimum(size, LOGIT_BEND)
    ndtri = scipy_function("special.ndtri", like=logit)
    return onp.copysign(SLOPE_BEND * (size - near) - ndtri(1 / (1 + onp.exp(near))), logit)


@primitive
def logit_of_normal(z):
    """The logit of Phi(z), straight on beyond the bend."""
    near = onp.clip(z, -BEND, BEND)
    log_ndtr = scipy_function("special.log_ndtr", like=z)
    return log_ndtr(near) - log_ndtr(-near) + (z - near) / SLOPE_BEND


def log_normal_slope(z, logit):
    """log(dz / d logit) = log(Phi(z) Phi(-z) / phi(z)) at the z of a logit; constant beyond the bend."""
    near = where(np.abs(z) < BEND, z, BEND)
    near_logit = where(np.abs(logit) < LOGIT_BEND, logit, LOGIT_BEND)
    return log_sigmoid(near_logit) + log_sigmoid(-near_logit) + 0.5 * (near * near + LOG_2PI)


defvjp(normal_of_logit, lambda z, logit: lambda g: g * np.exp(log_normal_slope(z, logit)))
defvjp(logit_of_normal, lambda logit, z: lambda g: g * np.exp(-log_normal_slope(z, logit)))

# ---------------------------------------------------------------- mixtures of logistics


def logistic_mixture(x, means, log_scales, log_weights):
    """The logit of F(x), and the log of its slope in x, for F = sum_k w_k sigmoid((x - mean_k) / scale_k).

    The slope of log F - log(1 - F) is f / F + f / (1 - F). Each term is a mean of the slopes of the components, with
    their shares in F and in 1 - F as weights, so that nothing cancels in either tail.

    Parameters
    ----------
    x : ndarray, shape (...)
    means, log_scales, log_weights : ndarray, shape (..., k)
        The components of each mixture. The weights are divided by their sum.
    """
    a = (x[..., None] - means) * np.exp(-log_scales)
    below = log_sigmoid(a)
    above = below - a  # log(1 - sigmoid(a))
    log_f, log_rest = logsumexp_last(log_weights + below), logsumexp_last(log_weights + above)
    rise = logsumexp_last(log_weights + below - log_f[..., None] + above - log_scales)
    fall = logsumexp_last(log_weights + above - log_rest[..., None] + below - log_scales)
    return log_f - log_rest, np.logaddexp(rise, fall)


def mixture_quantile(logit, means, log_scales, log_weights):
    """The x at which the F of `logistic_mixture` has a given logit, to rounding.

    The derivative is that of the implicit function: dx = (d logit - dF) / slope, where dF is the change of the logit
    of F at a fixed x.
    """
    x = _solve(logit, means, log_scales, log_weights)
    found, log_slope = logistic_mixture(x, means, log_scales, log_weights)
    return _implicit(x, found - logit, held(log_slope))


@primitive
def _implicit(x, residual, log_slope):
    """x, at which a residual is 0: x depends on the parameters through the residual alone."""
    return x


STEPS = 100  # more than any mixture takes, as each step halves the bracket or the step


@primitive
def _solve(logit, means, log_scales, log_weights):
    """`mixture_quantile` by Newton's method inside a bracket; a constant for autograd.

    The solution lies between the smallest and the largest solution for a single component. A Newton step is taken
    where it stays inside the bracket and is at most half as long as the one before; otherwise the bracket is halved.
    """
    quantiles = means + onp.exp(log_scales) * logit[..., None]
    low, high = onp.min(quantiles, axis=-1), onp.max(quantiles, axis=-1)
    x, step, eps = 0.5 * (low + high), high - low, float(onp.finfo(logit.dtype).eps)
    found = onp.zeros_like(x, dtype=bool)
    for _ in range(STEPS):
        at, log_slope = logistic_mixture(x, means, log_scales, log_weights)
        low, high = onp.where(at < logit, x, low), onp.where(at < logit, high, x)
        with onp.errstate(over="ignore", invalid="ignore"):  # F may be flat there
            newton = x + (logit - at) * onp.exp(-log_slope)
        good = (low <= newton) & (newton <= high) & (onp.abs(newton - x) <= 0.5 * step)
        new = onp.where(good, newton, 0.5 * (low + high))
        step = onp.abs(new - x)
        found = found | (step <= 2 * eps * onp.abs(x))
        found = found | (onp.abs(logit - at) <= 4 * eps * (1 + onp.abs(logit)))
        x = onp.where(found, x, new)
        if device_of(x) is HOST and found.all():  # asking a GPU would wait for it
            break
    return x


defvjp(_implicit, lambda y, x, residual, log_slope: lambda g: -g * np.exp(-log_slope), argnums=(1,))
register_notrace(VJPNode, _solve)


# ---------------------------------------------------------------- the start: a mixture fitted without gradients

NO_SPREAD = 1e-4  # of the largest spread
POINTS = 500  # quantiles that stand for a column, so that a fit takes no longer for a million rows
ROUNDS = 50


def fit_logistics(column, components, size=0.0):
    r"""Fit a mixture of logistics to a column of numbers by the EM algorithm.

    In each round the E-step shares each point out among the components, in proportion to their densities there, and
    the M-step moves each component to where its shares are more likely. The log density of a logistic,
    -2 log cosh(a / 2) at a scales from its mean, lies above a parabola in a that touches it there, with the factor
    tanh(a / 2) / 2a of a^2. The sum of these parabolas is highest at a weighted mean and variance.

    The components start at quantiles of the column. Each keeps one pseudo-observation at its start, so that none
    vanishes or shrinks to a point, and for few numbers the fit stays near the start.

    Parameters
    ----------
    column : ndarray, shape (n,)
    components : int
    size : float
        The largest spread of the columns beside it, in the same units. A column with next to none of it, such as a
        direction in which the data do not vary, has no distribution to fit.

    Returns
    -------
    means, log_scales, log_weights : ndarray, shape (components,)
        Where the column does not vary, all components are the same, of scale `size`, or 1.

    References
    ----------
    Dempster, Laird, Rubin: Maximum likelihood from incomplete data via the EM algorithm, 1977.

    Jaakkola, Jordan: Bayesian parameter estimation via variational methods, 2000, section 3 (the parabola).
    """
    points = onp.quantile(column, midpoints(min(len(column), POINTS)), method="hazen")[:, None]
    start = means = onp.quantile(column, midpoints(components), method="hazen")
    own = spread(column[:, None])[0]
    if own <= max(10 * onp.finfo(column.dtype).eps * onp.max(onp.abs(column)), NO_SPREAD * size):
        return means, onp.full(components, onp.log(size or 1.0)), onp.zeros(components)

    first_scale = 1.1 * own / (components + 1)
    scales, counts = onp.full(components, first_scale), onp.ones(components)
    for _ in range(ROUNDS):
        a = onp.maximum(onp.abs(points - means) / scales, 1e-6)
        log_densities = onp.log(counts / scales) - a - 2 * onp.log1p(onp.exp(-a))
        shares = onp.exp(log_densities - onp.max(log_densities, axis=1, keepdims=True))
        shares *= len(column) / len(points) / onp.sum(shares, axis=1, keepdims=True)
        pulls = shares * onp.tanh(a / 2) / (2 * a)  # 1/4 at the mean
        counts = 1 + onp.sum(shares, axis=0)
        means = (start / 4 + onp.sum(pulls * points, axis=0)) / (1 / 4 + onp.sum(pulls, axis=0))
        squares = (
            first_scale**2 + (start - means) ** 2 / 2 + 2 * onp.sum(pulls * (points - means) ** 2, axis=0)
        )
        scales = onp.sqrt(squares / counts)
    return means, onp.log(scales), onp.log(counts / onp.sum(counts))


def midpoints(count):
    """The midpoints of `count` equal parts of [0, 1]."""
    return (onp.arange(count) + 0.5) / count
