"""The inverse of a triangular map, found for all components at once by a fixed-point iteration.

In a triangular map f each f_i depends on x_i and on what is before it in some order of the components. The diagonal d of
its Jacobian is positive. The iteration is

x <- x + (z - f(x)) / d(x)

Each component takes a step of Newton's in its own number, as if the others stood still. Once those before it do, it is
Newton's method for a function of one number; so components settle one after the other, whatever is after them. Mostly
they settle many at a time: ten or twenty steps are enough for some hundred of them, a hundred for thousands.

Where each f_i is convex in its own number, or concave, with a slope nowhere below some t > 0, it converges from
anywhere. For let r be the distance of f_i from z_i and s its slope, r' and s' those after a step. A convex function lies
above its tangents, so that from the second step on it is never below z_i, and r >= r' + s' r / s. Divided by r that is
1 >= r'/r + s'/s, of which the product is a quarter at most: each step divides r s by four or more, and s stays above t.
"""

import itertools
import math

import numpy as onp
from autograd.core import VJPNode, make_vjp
from autograd.extend import defvjp, primitive
from autograd.tracer import register_notrace

from npflow.autodiff.gpu.devices import HOST, device_of
from npflow.autodiff.primitives import held
from npflow.errors import ConvergenceError

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
