"""MintNet's layer: masked convolutions, whose Jacobian is triangular."""

import itertools
import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode, make_vjp
from autograd.extend import defvjp, primitive
from autograd.tracer import register_notrace

from npflow.autodiff import tree
from npflow.autodiff.convolution import half_turn
from npflow.autodiff.gpu.devices import HOST, constant, device_of
from npflow.autodiff.primitives import elu, elu_slope, held, linear, softplus, sum_event
from npflow.description import choice, count
from npflow.errors import ConvergenceError, InputError
from npflow.layers.layer import Layer
from npflow.networks.masked import causal_mask, groups_of, masked_convolution

PLACES = 5  # of a 3 x 3 kernel, row by row up to its middle
START = (1.0, 1.0, 0.2)  # the sum of D in each convolution, so that d starts between t and t + 0.2


@dataclass(frozen=True)
class MaskedConvolution(Layer):
    r"""Three masked convolutions beside the identity, with a triangular Jacobian; starts near the identity.

    f(x) = t x + W3 h(a2) + b3                  a1 = W1 x + b1,  a2 = W2 h(a1) + b2,  W = L + D,  h = ELU
    d(x) = t + D3 h'(a2) D2 h'(a1) D1           t = exp(log_scale) > 0,  D = softplus(diagonal) > 0

    z = f(x)                                    log|det J| = sum(log d(x))
    x = f^-1(z), by x <- x + (z - f(x)) / d(x)

    The components of an image are ordered row by row, pixel by pixel, and channel by channel within a pixel. Each
    channel of the image has `filters` hidden channels. L is a convolution with mask A of a PixelCNN, through which a
    component sees those before it. Through D it sees itself. So the Jacobian of f is triangular. Its diagonal d
    collects the paths that lead through D alone, and is always positive.

    In the reversed order z = -R f(-R x), where R reverses the order of all components. Each f_i is convex in its own
    x_i, as h is convex and D positive; the signs make it concave in the reversed order. So of a pair of layers one has
    slopes that rise with x_i, the other slopes that fall. For both, the iteration of the inverse converges from any
    start (the comment below the class shows why). In the paper D1 and D3 may have any sign, and D2 the sign that makes
    the product positive; there the iteration converges from a near start.

    The inverse stops where all residuals z - f(x) are at rounding. It raises `ConvergenceError` where no further
    component reaches that in fifty steps and some residual is above eps^(2/3) of the size of its terms (4e-11 in
    float64).

    Parameters
    ----------
    filters : int
        The number of hidden channels for each channel of the image, in both hidden layers.
    order : {"raster", "reversed"}
        "raster": components see those above and on the left; "reversed": those below and on the right.

    References
    ----------
    Song, Meng, Ermon: MintNet: Building invertible neural networks with masked convolutions, 2019.
    https://arxiv.org/abs/1907.07945

    Examples
    --------
    Where one pixel changes, z changes at that pixel and at later ones:

    >>> import numpy as np
    >>> from npflow.layers import MaskedConvolution
    >>> rng = np.random.default_rng(0)
    >>> layer, x = MaskedConvolution(filters=4), rng.normal(size=(1, 3, 3, 1))
    >>> params = layer.init(rng, x)
    >>> y = x.copy()
    >>> y[0, 1, 1, 0] += 1
    >>> changed = np.abs(layer.forward(params, y)[0] - layer.forward(params, x)[0]) > 1e-9
    >>> changed[0, :, :, 0].astype(int)
    array([[0, 0, 0],
           [0, 1, 1],
           [1, 1, 1]])
    """

    filters: int = count(16)
    order: str = choice(("raster", "reversed"), "raster")

    keeps_input = True  # `inverse` is an iteration

    def init(self, rng, x):
        if x.ndim != 4:
            raise InputError(f"expected images (n, height, width, channels), got shape {x.shape}")
        channels = x.shape[-1]
        hidden = self.filters * channels
        widths = [channels, hidden, hidden, channels]
        convolutions = []
        for (inputs, outputs), start in zip(itertools.pairwise(widths), START):
            numbers = rng.standard_normal((PLACES, inputs, outputs))
            lower = causal_mask("A", numbers.shape, channels, onp.float64)
            seen = onp.maximum(onp.sum(lower, axis=(0, 1)), 1)
            convolutions.append(
                {
                    "lower": lower * numbers / onp.sqrt(seen),
                    "diagonal": onp.full((inputs, outputs), onp.log(onp.expm1(start * channels / inputs))),
                    "bias": 0.5 * rng.standard_normal(outputs),
                }
            )
        for name in ("lower", "bias"):
            convolutions[-1][name][...] = 0
        params = {"log_scale": onp.zeros(x.shape[1:]), "convolutions": convolutions}
        return tree.build(lambda _, leaf: leaf.astype(x.dtype), params)

    def forward(self, params, x):
        z, slope = residual_block(self.in_order(x), *self.arrays(params, x))
        return self.in_order(z), sum_event(np.log(slope))

    def inverse(self, params, z):
        arrays = self.arrays(params, z)
        x = self.in_order(invert_triangular(residual_block, self.in_order(z), *arrays))
        return x, -self.log_det(params, x)

    def in_order(self, x):
        """x, or -R x, which is its own inverse."""
        return x if self.order == "raster" else -half_turn(x)

    def arrays(self, params, x):
        """t, and L, D and b of each convolution: the arguments of `residual_block`."""
        arrays = [np.exp(params["log_scale"])]
        for layer in params["convolutions"]:
            inputs, outputs = (groups_of(count, x.shape[-1]) for count in layer["diagonal"].shape)
            same = (inputs[:, None] == outputs).astype(x.dtype)
            arrays += [layer["lower"], softplus(layer["diagonal"]) * constant(same, like=x), layer["bias"]]
        return arrays


def residual_block(x, t, lower1, diagonal1, bias1, lower2, diagonal2, bias2, lower3, diagonal3, bias3):
    """f(x) and d(x) of `MaskedConvolution`, each of the shape of x."""
    channels = x.shape[-1]
    a = masked_convolution(x, lower1, bias1, "A", channels) + linear(x, diagonal1)
    slope = elu_slope(a) * np.sum(diagonal1, axis=0)
    h = elu(a)
    a = masked_convolution(h, lower2, bias2, "A", channels) + linear(h, diagonal2)
    slope = elu_slope(a) * linear(slope, diagonal2)
    h = elu(a)
    a = masked_convolution(h, lower3, bias3, "A", channels) + linear(h, diagonal3)
    return t * x + a, t + linear(slope, diagonal3)


# ---------------------------------------------------------------- the inverse of a triangular map
#
# In a triangular map f, each f_i depends on x_i and on the components before it. The diagonal d of its Jacobian is
# positive. A fixed-point iteration finds all components of the inverse at once:
#
# x <- x + (z - f(x)) / d(x)
#
# Each component takes a Newton step in its own number, as if the others were fixed. Once those before it have settled,
# this is Newton's method for a function of one number. So the components settle one after the other. Mostly they settle
# many at a time: some hundred components take ten or twenty steps, thousands take a hundred.
#
# Where each f_i is convex in x_i, or concave, with a slope nowhere below some t > 0, the iteration converges from any
# start. Let r be the distance of f_i from z_i and s its slope, and r' and s' those after a step. A convex function lies
# above its tangents. So from the second step on it is never below z_i, and r >= r' + s' r / s. Division by r gives
# 1 >= r'/r + s'/s, so the product of these two ratios is at most a quarter: each step divides r s by four or more,
# while s stays above t.

PATIENCE = 50  # steps in which no further component settles: none will
DEVICE_STEPS = 100  # on a device, plus one for each four components: nothing waits for it to ask if fewer do


def invert_triangular(fun, z, *arrays):
    """The x that a triangular map takes to z, to rounding.

    The derivative is that of the implicit function: dx = J^-1 (dz - df), where df is the change of f at a fixed x.

    Parameters
    ----------
    fun : callable
        `fun(x, *arrays)` returns f(x) and d(x), each of the shape of x. Rows do not depend on each other.
    z : ndarray, shape (n, ...)
    *arrays : ndarray
        The parameters of f.

    Raises
    ------
    ConvergenceError
        If no further component settles for `PATIENCE` steps and some |z - f(x)| is above eps^(2/3) of the size of its
        terms, which is 4e-11 in float64 and 2e-5 in float32. On a device the number of steps is fixed beforehand, and
        such a row is nan instead.

    References
    ----------
    Song, Meng, Ermon: MintNet: Building invertible neural networks with masked convolutions, 2019 (the iteration, shown to
    converge from nearby). https://arxiv.org/abs/1907.07945
    """
    x = _solve(fun, z, *arrays)
    value, _ = fun(x, *arrays)
    return _implicit(x, value - z, fun, *map(held, arrays))


@primitive
def _implicit(x, residual, fun, *arrays):
    """x, at which a residual is 0: x depends on the parameters through the residual alone."""
    return x


@primitive
def _solve(fun, z, *arrays):
    """`invert_triangular`; a constant for autograd."""
    return _settle(lambda x: fun(x, *arrays), z, start=z, unit=1.0)


@primitive
def _solve_transposed(fun, g, x, *arrays):
    """The u with J^T u = g, by the same iteration: J^T is triangular in the opposite order, and linear."""
    _, d = fun(x, *arrays)
    transposed, _ = make_vjp(lambda x: fun(x, *arrays)[0], x)
    unit = onp.max(onp.abs(g), axis=tuple(range(1, g.ndim)), keepdims=True)  # much of g may be 0
    return _settle(lambda u: (transposed(u), d), g, start=g / d, unit=unit)


defvjp(
    _implicit,
    # At `ans`, which is x with its derivatives, so that a second derivative is refused rather than 0.
    lambda ans, x, residual, fun, *arrays: lambda g: -_solve_transposed(fun, g, ans, *arrays),
    argnums=(1,),
)
register_notrace(VJPNode, _solve)


def _settle(fun, target, start, unit):
    """The x at which f(x) is the target; `fun(x)` returns f(x) and d(x), residuals are measured in units of `unit`."""
    on_host, eps = device_of(target) is HOST, float(onp.finfo(target.dtype).eps)
    # While the components before it are still wrong, a component may move far out; the limit avoids overflow.
    limit = math.sqrt(onp.finfo(target.dtype).max)
    x, event = start, tuple(range(1, start.ndim))
    most, since = -1, 0  # the largest number of settled components so far, and the steps since it was reached
    steps = itertools.count(1) if on_host else range(DEVICE_STEPS + math.prod(start.shape[1:]) // 4)
    with onp.errstate(over="ignore", invalid="ignore"):
        for step in steps:  # noqa: B007 (the error says how many there were)
            value, d = fun(x)
            residual = target - value
            size = unit + onp.abs(target) + d * onp.abs(x)
            # A component whose residual is at rounding stays, so that the next ones can settle.
            settled = onp.abs(residual) <= 8 * eps * size
            if on_host:  # asking a GPU would wait for it
                count = onp.count_nonzero(settled | onp.isnan(residual))
                most, since = max(count, most), 0 if count > most else since + 1
                if count == x.size or since == PATIENCE:
                    break
            x = onp.where(settled, x, onp.clip(x + residual / d, -limit, limit))
        lost = onp.abs(residual) > eps ** (2 / 3) * size
        lost = lost | (onp.isnan(residual) & onp.isfinite(target).all(axis=event, keepdims=True))
    if on_host and lost.any():
        worst = float(onp.max(onp.abs(residual[lost])))
        raise ConvergenceError(
            f"expected the inverse of a triangular map to converge, got a residual of {worst:.3g} after {step} steps, "
            f"{PATIENCE} of them without progress"
        )
    return onp.where(lost.any(axis=event, keepdims=True), onp.nan, x)
