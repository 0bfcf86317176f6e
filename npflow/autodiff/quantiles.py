"""Quantiles: of a normal distribution with straight tails, and of a mixture of logistics; exact in both tails.

A probability p goes by its logit, log p - log(1 - p), which says in either tail what p itself rounds away: the
logit of 1e-300 is -690.8, that of 1 - 1e-300 is 690.8. Phi is the distribution function of the standard
normal, phi its density.

What is made of NumPy's functions and `npflow.autodiff.primitives` alone needs no derivative here.
"""

import math

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode
from autograd.extend import defvjp, primitive
from autograd.tracer import register_notrace
from scipy import special

from npflow.autodiff.gpu.devices import HOST, device_of, scipy_function
from npflow.autodiff.primitives import held, log_sigmoid, logsumexp_last, where

LOG_2PI = math.log(2 * math.pi)

# ---------------------------------------------------------------- the normal distribution, with straight tails
#
# z as a function of its logit is that of the standard normal as far as |z| = BEND, and goes straight on from there.
# A normal's tail is lighter than any mixture of logistics has: taken back through one such mixture after another, what
# is far out would be squared by each, and few of them lead beyond any number.

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
    """log(dz / d logit) = log(Phi(z) Phi(-z) / phi(z)), for the z of a logit; beyond the bend what it is there."""
    z = where(np.abs(z) < BEND, z, BEND)
    logit = where(np.abs(logit) < LOGIT_BEND, logit, LOGIT_BEND)
    return log_sigmoid(logit) + log_sigmoid(-logit) + 0.5 * (z * z + LOG_2PI)


defvjp(normal_of_logit, lambda z, logit: lambda g: g * np.exp(log_normal_slope(z, logit)))
defvjp(logit_of_normal, lambda logit, z: lambda g: g * np.exp(-log_normal_slope(z, logit)))

# ---------------------------------------------------------------- mixtures of logistics


def logistic_mixture(x, means, log_scales, log_weights):
    """The logit of F(x), and the log of its slope in x, for F = sum_k w_k sigmoid((x - mean_k) / scale_k).

    The slope of log F - log(1 - F) is f / F + f / (1 - F): each is a mean of the components' slopes, with
    weights that are their shares in F and in 1 - F, so that nothing cancels in either tail.

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

    Its derivative is that of the implicit function: where F(x; parameters) keeps its logit,
    dx = (d logit - d F's logit at a fixed x) / slope.
    """
    x = _solve(logit, means, log_scales, log_weights)
    found, log_slope = logistic_mixture(x, means, log_scales, log_weights)
    return _implicit(x, found - logit, held(log_slope))


@primitive
def _implicit(x, residual, log_slope):
    """x itself, for which a residual is 0: all that it depends on, it depends on through the residual."""
    return x


STEPS = 100  # more than any mixture takes: each halves the bracket or the step


@primitive
def _solve(logit, means, log_scales, log_weights):
    """`mixture_quantile`, by Newton's method kept inside a bracket; to autograd a constant.

    F has any logit between the first and the last of the places where its components have it. A step is
    Newton's where it stays inside and is half as long as the one before at most, otherwise to the middle.
    """
    quantiles = means + onp.exp(log_scales) * logit[..., None]
    low, high = onp.min(quantiles, axis=-1), onp.max(quantiles, axis=-1)
    x, step, eps = 0.5 * (low + high), high - low, float(onp.finfo(logit.dtype).eps)
    found = onp.zeros_like(x, dtype=bool)
    for _ in range(STEPS):
        at, log_slope = logistic_mixture(x, means, log_scales, log_weights)
        low, high = onp.where(at < logit, x, low), onp.where(at < logit, high, x)
        with onp.errstate(over="ignore", invalid="ignore"):  # F may be level there
            newton = x + (logit - at) * onp.exp(-log_slope)
        good = (low <= newton) & (newton <= high) & (onp.abs(newton - x) <= 0.5 * step)
        new = onp.where(good, newton, 0.5 * (low + high))
        step = onp.abs(new - x)
        found = found | (step <= 2 * eps * onp.abs(x))
        found = found | (onp.abs(logit - at) <= 4 * eps * (1 + onp.abs(logit)))
        x = onp.where(found, x, new)
        if device_of(x) is HOST and found.all():  # a GPU would have to be waited for
            break
    return x


defvjp(_implicit, lambda y, x, residual, log_slope: lambda g: -g * np.exp(-log_slope), argnums=(1,))
register_notrace(VJPNode, _solve)
