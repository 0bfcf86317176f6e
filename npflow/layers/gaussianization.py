"""Gaussianization of each component: a learned distribution function, then the normal quantile function."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode
from autograd.extend import defvjp, defvjp_argnums, primitive
from autograd.tracer import register_notrace
from scipy import special

from npflow.autodiff.gpu.devices import HOST, constant, device_of, scipy_function
from npflow.autodiff.primitives import fresh, held, softmax_last, sum_event, transparent
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
#
# In float32 both functions are rational: z / logit is a ratio of polynomials in logit^2, with coefficients in ascending
# order, and logit / z one in z^2. They differ from the functions by less than 4e-8 and 2e-9 of their values (float32
# rounds to 6e-8), and take a tenth of the time.

BEND = 3.0
LOGIT_BEND = float(special.log_ndtr(BEND) - special.log_ndtr(-BEND))  # 6.6
SLOPE_BEND = float(
    special.ndtr(BEND) * special.ndtr(-BEND) * math.exp(0.5 * (BEND**2 + LOG_2PI))
)  # dz / d logit: 0.3
Z_OF_LOGIT = (
    (0.626657048, 0.0734099434, 0.00207488695, 1.07897615e-05, -5.75167165e-09),
    (1.0, 0.135028579, 0.00475947406, 3.73976942e-05),
)
LOGIT_OF_Z = (
    (1.59576912, 0.198964798, 0.0153318545, 0.000397620916),
    (1.0, 0.0791427391, 0.00605010683, 4.25842553e-05),
)


@primitive
def normal_of_logit(logit):
    """The z with Phi(z) = sigmoid(logit), straight on beyond the bend."""
    near = onp.clip(logit, -LOGIT_BEND, LOGIT_BEND)
    if logit.dtype == onp.float32:
        z = ratio_of(near, *Z_OF_LOGIT)
    else:  # z is odd, and the smaller of the two probabilities the one with all its digits
        ndtri = scipy_function("special.ndtri", like=logit)
        z = onp.copysign(ndtri(1 / (1 + onp.exp(onp.abs(near)))), logit)
    return z + SLOPE_BEND * (logit - near)


@primitive
def logit_of_normal(z):
    """The logit of Phi(z), straight on beyond the bend."""
    near = onp.clip(z, -BEND, BEND)
    if z.dtype == onp.float32:
        logit = ratio_of(near, *LOGIT_OF_Z)
    else:
        log_ndtr = scipy_function("special.log_ndtr", like=z)
        logit = log_ndtr(near) - log_ndtr(-near)
    return logit + (z - near) / SLOPE_BEND


def ratio_of(x, above, below):
    """x P(x^2) / Q(x^2), for two polynomials with coefficients in ascending order."""
    square, values = x * x, []
    for *rest, last in (above, below):
        value = last * square
        for coefficient in rest[:0:-1]:
            value += coefficient
            value *= square
        value += rest[0]
        values.append(value)
    return x * values[0] / values[1]


@transparent
def log_sigmoids(logit):
    """log(sigmoid(logit)) + log(sigmoid(-logit)), for logits whose exp is finite."""
    return logit - 2 * np.log1p(np.exp(logit))


defvjp(log_sigmoids, lambda y, logit: lambda g: -np.tanh(0.5 * logit) * g)


def log_normal_slope(z, logit):
    """log(dz / d logit) = log(Phi(z) Phi(-z) / phi(z)) at the z of a logit; constant beyond the bend."""
    near, near_logit = np.clip(z, -BEND, BEND), np.clip(logit, -LOGIT_BEND, LOGIT_BEND)
    return log_sigmoids(near_logit) + 0.5 * (near * near + LOG_2PI)


defvjp(normal_of_logit, lambda z, logit: lambda g: g * np.exp(log_normal_slope(z, logit)))
defvjp(logit_of_normal, lambda logit, z: lambda g: g * np.exp(-log_normal_slope(z, logit)))

# ---------------------------------------------------------------- mixtures of logistics


def logistic_mixture(x, means, log_scales, log_weights):
    """The logit of F(x), and the log of its slope in x, for F = sum_k w_k sigmoid((x - mean_k) / scale_k).

    The slope of log F - log(1 - F) is f / (F (1 - F)), where f = F' and 1 - F = sum_k w_k sigmoid(-(x - mean_k) /
    scale_k). All three are sums of positive terms, so that nothing cancels in either tail.

    Parameters
    ----------
    x : ndarray, shape (...)
    means, log_scales, log_weights : ndarray, shape (..., k)
        The components of each mixture. The weights are divided by their sum.
    """
    flat, mixture = columns_and_mixture(x, means, log_scales, log_weights)
    sums = mixture_sums(flat, *mixture)
    f, rest, density, shift = sums[0], sums[1], sums[2], sums[3]
    log_f, log_rest = np.log(f), np.log(rest)
    like_x = lambda y: np.reshape(turned(y), x.shape)
    return like_x(log_f - log_rest + shift), like_x(np.log(density) - log_f - log_rest)


def columns_and_mixture(x, means, log_scales, log_weights):
    """x with a line for each of d components, shape (d, n); means, 1 / scales and weights, each of shape (d, k)."""
    k = means.shape[-1]
    means, log_scales, log_weights = (np.reshape(leaf, (-1, k)) for leaf in (means, log_scales, log_weights))
    flat = turned(np.reshape(x, (-1, len(means))))
    return flat, (means, np.exp(-log_scales), softmax_last(log_weights))


@fresh
def turned(x, out=None):
    """The transpose of a matrix as a new array."""
    y = onp.empty_like(x, shape=x.shape[::-1], order="C") if out is None else out
    y[...] = x.T
    return y


defvjp(turned, lambda y, x: lambda g: turned(g))


def logistics(x, means, rates, np=np):
    """sigmoid(a) and sigmoid(-a) for a = (x - mean_k) / scale_k, each divided by a factor that keeps it in range.

    Where x lies left of all means, all sigmoid(a) may be too small for floats. They are divided by exp(shift), where
    shift is the largest a. Right of all means all sigmoid(-a) are divided by exp(-shift), where shift is the smallest
    a. Elsewhere shift is 0.

    The logarithm of the density has a floor in a gap between components, of about -60 in float32 and -300 in float64. It
    is reached where every component is that many scales away.

    Parameters
    ----------
    x : ndarray, shape (d, n)
    means, rates : ndarray, shape (d, k)
    np : module
        NumPy itself saves autograd's bookkeeping where nothing is differentiated.

    Returns
    -------
    offsets, left, right : ndarray, shape (d, k, n)
        x - mean_k, and the scaled sigmoid(a) and sigmoid(-a). The rows lie side by side in memory, so that NumPy's
        loops are long.
    shift, scale_left, scale_right : ndarray, shape (d, n)
        The two factors: left * scale_left + right * scale_right = 1.
    """
    offsets = x[:, None] - means[:, :, None]
    a = offsets * rates[:, :, None]
    shift = held(np.maximum(np.min(a, axis=1), 0) + np.minimum(np.max(a, axis=1), 0))
    scale_left, scale_right = np.exp(np.minimum(shift, 0)), np.exp(np.minimum(-shift, 0))
    # An odd above the limit has a share that rounding loses. An array, as NumPy is slow with one number here.
    limit = np.full_like(x, 60.0 if x.dtype == onp.float32 else 300.0, shape=x.shape[-1:])
    odds = np.exp(np.minimum(shift[:, None] - a, limit))  # (1 - sigmoid(a)) / sigmoid(a), scaled
    left = 1 / (odds * scale_right[:, None] + scale_left[:, None])
    return offsets, left, odds * left, shift, scale_left, scale_right


@transparent
def mixture_sums(x, means, rates, weights):
    """F, 1 - F and f of mixtures, scaled as `logistics` does, f by both factors; and the shift.

    Parameters
    ----------
    x : ndarray, shape (d, n)
    means, rates, weights : ndarray, shape (d, k)

    Returns
    -------
    ndarray, shape (4, d, n)
    """
    left, right, shift = logistics(x, means, rates)[1:4]
    sums = weighted(left, right, shift, weights, rates)
    return np.concatenate([np.reshape(each, (1, *x.shape)) for each in sums], axis=0)


def weighted(left, right, shift, weights, rates, np=np):
    """The four parts of `mixture_sums`, each of shape (d, n): sums over components as products of small matrices."""
    return (
        np.matmul(weights[:, None], left)[:, 0],
        np.matmul(weights[:, None], right)[:, 0],
        np.matmul((weights * rates)[:, None], left * right)[:, 0],
        shift,
    )


def _mixture_sums_vjp(argnums, sums, arguments, options):
    # d sigmoid(a) = sigmoid(a) sigmoid(-a) da, and that product times (1 - 2 sigmoid(a)) da is its own change. The
    # shift changes no logit and no slope, so it counts as a constant.
    def vjp(g):
        x, means, rates, weights = arguments
        offsets, left, right, _, scale_left, scale_right = logistics(x, means, rates)
        of_f, of_rest, of_density = g[0], g[1], g[2]
        both, rates_n, weights_n = left * right, rates[:, :, None], weights[:, :, None]
        straight = (of_f * scale_right - of_rest * scale_left)[:, None]
        bent = (of_density[:, None] - left * (2 * scale_left * of_density)[:, None]) * rates_n
        of_a = (straight + bent) * both * weights_n
        over_rows = lambda terms, g: np.matmul(terms, g[:, :, None])[:, :, 0]
        ones = np.ones_like(x)
        of_both = over_rows(both, of_density)
        gradients = (
            lambda: np.matmul(rates[:, None], of_a)[:, 0],
            lambda: -rates * over_rows(of_a, ones),
            lambda: over_rows(of_a * offsets, ones) + weights * of_both,
            lambda: over_rows(left, of_f) + over_rows(right, of_rest) + rates * of_both,
        )
        return tuple(gradients[number]() for number in argnums)

    return vjp


defvjp_argnums(mixture_sums, _mixture_sums_vjp)


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
# Logits of each component where the table has its quantiles, in both dtypes.
LEVELS = {onp.dtype(kind): onp.linspace(-8, 8, 17, dtype=kind) for kind in (onp.float32, onp.float64)}


@primitive
def _solve(logit, means, log_scales, log_weights):
    """`mixture_quantile` by Newton's method; a constant for autograd.

    It starts from a table of F at quantiles of each component, which are dense where F bends. The few numbers that a
    few steps do not find are looked for inside a bracket. No number is looked for longer because of those beside it.
    """
    target, mixture = columns_and_mixture(logit, means, log_scales, log_weights)
    x, found = _from_table(target, *mixture), False
    for _ in range(2 if logit.dtype == onp.float32 else 4):
        new, near = _newton_step(x, target, *mixture)[2:]
        x, found = onp.where(found, x, new), found | near
    if device_of(logit) is not HOST:  # asking a GPU which are found would wait for it
        x = onp.where(found, x, _inside_bracket(target, *mixture))
    elif not found.all():
        missing = onp.nonzero(~found)
        each = (leaf[missing[0]] for leaf in mixture)  # a mixture for each number
        x[missing] = _inside_bracket(target[missing][:, None], *each)[:, 0]
    return like(x, logit)


def like(columns, x):
    """Lines for components, shape (d, n), as an array like x."""
    return onp.reshape(turned.fun(columns), x.shape)


def _from_table(logit, means, rates, weights):
    """Roughly the quantiles, shape (d, n), by linear interpolation in a table for each mixture."""
    grid = means[:, :, None] + constant(LEVELS[means.dtype], like=means) / rates[:, :, None]
    grid = onp.sort(onp.reshape(grid, (len(means), -1)), axis=1)
    logits, _ = _logit_and_slope(grid, means, rates, weights)
    logits, x = onp.sort(logits, axis=1), onp.empty_like(logit)  # rounding may have left them out of order
    for line, *known in zip(x, logit, logits, grid):
        line[...] = onp.interp(*known)
    return x


def _logit_and_slope(x, means, rates, weights):
    """The logit of F and its slope, without derivatives."""
    f, rest, density, shift = weighted(*logistics(x, means, rates, onp)[1:4], weights, rates, onp)
    return onp.log(f) - onp.log(rest) + shift, density / (f * rest)


def _newton_step(x, logit, means, rates, weights):
    """The logit at x, its tolerance, where Newton's method goes from there, and whether the quantile is so near.

    In units of the smallest scale a step squares the error, as the logarithm of the slope changes by at most one in
    such a unit: after a step of sqrt(eps) only rounding is left.
    """
    at, slope = _logit_and_slope(x, means, rates, weights)
    size, eps = 1 + onp.abs(logit), float(onp.finfo(x.dtype).eps)
    with onp.errstate(over="ignore", invalid="ignore", divide="ignore"):  # F may be flat there
        new = x + (logit - at) / slope
        near = onp.abs(new - x) * onp.max(rates, axis=1, keepdims=True) <= math.sqrt(eps)
        return at, 4 * eps * size, new, near


def _inside_bracket(logit, means, rates, weights):
    """The quantiles by Newton's method inside a bracket.

    The solution lies between the smallest and the largest solution for a single component. A Newton step is taken
    where it stays inside the bracket and is at most half as long as the one before; otherwise the bracket is halved.
    """
    quantiles = means[:, :, None] + logit[:, None] / rates[:, :, None]
    low, high = onp.min(quantiles, axis=1), onp.max(quantiles, axis=1)
    x, step, eps = 0.5 * (low + high), high - low, float(onp.finfo(logit.dtype).eps)
    found = onp.zeros_like(x, dtype=bool)
    for _ in range(STEPS):
        at, tolerance, newton, near = _newton_step(x, logit, means, rates, weights)
        low, high = onp.where(at < logit, x, low), onp.where(at < logit, high, x)
        good = (low <= newton) & (newton <= high) & (onp.abs(newton - x) <= 0.5 * step)
        new = onp.where(good, newton, 0.5 * (low + high))
        step = onp.abs(new - x)
        x = onp.where(found | (onp.abs(logit - at) <= tolerance), x, new)
        found = found | (near & good) | (step <= 2 * eps * onp.abs(x)) | (onp.abs(logit - at) <= tolerance)
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
