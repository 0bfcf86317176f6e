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
from npflow.errors import ConvergenceError, InputError
from npflow.layers.layer import Layer
from npflow.networks.masked import causal_mask, groups_of, masked_convolution
from npflow.validation import check_choice, check_count

PLACES = 5  # of a kernel of 3 x 3, row by row, those as far as its middle
START = (1.0, 1.0, 0.2)  # what D adds up to in each convolution: d starts between t and t + 0.2


@dataclass(frozen=True)
class MaskedConvolution(Layer):
    r"""Three masked convolutions beside the identity, with a triangular Jacobian; starts near the identity.

    f(x) = t x + W3 h(a2) + b3                  a1 = W1 x + b1,  a2 = W2 h(a1) + b2,  W = L + D,  h = ELU
    d(x) = t + D3 h'(a2) D2 h'(a1) D1           t = exp(log_scale) > 0,  D = softplus(diagonal) > 0

    z = f(x)                                    log|det J| = sum(log d(x))
    x = f^-1(z), by x <- x + (z - f(x)) / d(x)

    The components of an image have an order: pixel by pixel, row by row, and channel by channel within a pixel. Each
    hidden channel belongs to a channel of the image, `filters` of them to each. L is a convolution with the mask A of a
    PixelCNN, through which a component sees those before it; D is what it sees itself by. So f is triangular. On the
    diagonal of its Jacobian is d, made of the ways that lead through D alone, and d is positive whatever is learned.

    In the reversed order z = -R f(-R x), where R turns an image by half a circle and reverses its channels: the last
    component comes first. Each f_i is convex in its own x_i, as h is, and as D is positive; the signs make it concave. So
    of a pair of layers the one has slopes that rise with x_i, the other slopes that fall. And with either the inverse's
    iteration converges from anywhere (below the class is why). In the paper D1 and D3 may have any signs,
    and D2 has those that make the products positive; there the iteration converges from nearby.

    The inverse stops where all residuals z - f(x) are rounding. Where in fifty steps not one more comes to that, and some are
    not below eps^(2/3) of the size of the numbers they are made of (4e-11 in float64), it raises `ConvergenceError`.

    Parameters
    ----------
    filters : int
        How many hidden channels each channel of the image has, in both hidden layers.
    order : {"raster", "reversed"}
        Whether components see what is above and on the left of them, or what is below and on the right.

    References
    ----------
    Song, Meng, Ermon: MintNet: Building invertible neural networks with masked convolutions, 2019.
    https://arxiv.org/abs/1907.07945
    """

    filters: int = 16
    order: str = "raster"

    def __post_init__(self):
        object.__setattr__(self, "filters", check_count(self.filters, "MaskedConvolution's filters"))
        check_choice(self.order, ("raster", "reversed"), "MaskedConvolution's order")

    def init(self, rng, x):
        if x.ndim != 4:
            raise InputError(f"expected images (n, height, width, channels), got shape {x.shape}")
        channels = x.shape[-1]
        hidden = self.filters * channels
        widths = [channels, hidden, hidden, channels]
        convolutions = []
        for (inputs, outputs), start in zip(itertools.pairwise(widths), START):
            lower = causal_mask("A", (PLACES, inputs, outputs), channels, onp.float64)
            seen = onp.maximum(onp.sum(lower, axis=(0, 1)), 1)
            convolutions.append(
                {
                    "lower": lower * rng.standard_normal(lower.shape) / onp.sqrt(seen),
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
        """x, or -R x, which takes itself back."""
        return x if self.order == "raster" else -half_turn(x)

    def arrays(self, params, x):
        """t, and L, D and b of each convolution: what `residual_block` takes."""
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
# The inverse of a triangular map, found for all components at once by a fixed-point iteration.
#
# In a triangular map f each f_i depends on x_i and on what is before it in some order of the components. The diagonal d of
# its Jacobian is positive. The iteration is
#
# x <- x + (z - f(x)) / d(x)
#
# Each component takes a step of Newton's in its own number, as if the others stood still. Once those before it do, it is
# Newton's method for a function of one number; so components settle one after the other, whatever is after them. Mostly
# they settle many at a time: ten or twenty steps are enough for some hundred of them, a hundred for thousands.
#
# Where each f_i is convex in its own number, or concave, with a slope nowhere below some t > 0, it converges from
# anywhere. For let r be the distance of f_i from z_i and s its slope, r' and s' those after a step. A convex function lies
# above its tangents, so that from the second step on it is never below z_i, and r >= r' + s' r / s. Divided by r that is
# 1 >= r'/r + s'/s, of which the product is a quarter at most: each step divides r s by four or more, and s stays above t.

PATIENCE = 50  # steps in which not one more component settles: no more will
DEVICE_STEPS = 100  # on a device, which is not waited for: so many, and one more for each four components


def invert_triangular(fun, z, *arrays):
    """The x that a triangular map takes to z, to rounding.

    Its derivative is that of the implicit function: where f(x; arrays) keeps its value z, dx = J^-1 (dz - df), with df at a
    fixed x.

    Parameters
    ----------
    fun : callable
        `fun(x, *arrays)` gives f(x) and d(x), each of the shape of x; a row of them depends on that row of x alone.
    z : ndarray, shape (n, ...)
    *arrays : ndarray
        The parameters of f.

    Raises
    ------
    ConvergenceError
        If the iteration ends, as for `PATIENCE` steps not one more component has settled, where z - f(x) is not small, as
        the numbers go that it is made of: below eps^(2/3) of their size, which is 4e-11 in float64 and 2e-5 in float32.
        On a device, which nobody waits for, the steps are counted beforehand, and such a row is nan instead.

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
    """x itself, for which a residual is 0: all that it depends on, it depends on through the residual."""
    return x


@primitive
def _solve(fun, z, *arrays):
    """`invert_triangular`; to autograd a constant."""
    return _settle(lambda x: fun(x, *arrays), z, start=z, unit=1.0)


@primitive
def _solve_transposed(fun, g, x, *arrays):
    """The u with J^T u = g, by the same iteration: J^T is triangular in the opposite order, and linear."""
    _, d = fun(x, *arrays)
    transposed, _ = make_vjp(lambda x: fun(x, *arrays)[0], x)
    unit = onp.max(onp.abs(g), axis=tuple(range(1, g.ndim)), keepdims=True)  # most of g may be 0
    return _settle(lambda u: (transposed(u), d), g, start=g / d, unit=unit)


defvjp(
    _implicit,
    # At `ans`, which is x and has its derivatives, so that a second one is refused and not 0.
    lambda ans, x, residual, fun, *arrays: lambda g: -_solve_transposed(fun, g, ans, *arrays),
    argnums=(1,),
)
register_notrace(VJPNode, _solve)


def _settle(fun, target, start, unit):
    """The x at which f(x) is the target, where `fun(x)` gives f(x) and d(x); `unit` is a size that counts as large."""
    on_host, eps = device_of(target) is HOST, float(onp.finfo(target.dtype).eps)
    # Components are thrown far out while those before them are still wrong: without a limit they might overflow.
    limit = math.sqrt(onp.finfo(target.dtype).max)
    x, event = start, tuple(range(1, start.ndim))
    most, since = -1, 0  # how many components have settled at the most, and for how many steps
    steps = itertools.count(1) if on_host else range(DEVICE_STEPS + math.prod(start.shape[1:]) // 4)
    with onp.errstate(over="ignore", invalid="ignore"):
        for step in steps:  # noqa: B007 (the error says how many there were)
            value, d = fun(x)
            residual = target - value
            size = unit + onp.abs(target) + d * onp.abs(x)
            # A component whose residual is rounding stays where it is, for the next ones to settle.
            settled = onp.abs(residual) <= 8 * eps * size
            if on_host:  # a GPU would have to be waited for
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
            f"expected the inverse of a triangular map to settle, got a residual of {worst:.3g} after {step} steps, the "
            f"last {PATIENCE} of them in vain"
        )
    return onp.where(lost.any(axis=event, keepdims=True), onp.nan, x)
