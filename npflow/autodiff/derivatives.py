"""npflow's own derivatives of functions that autograd differentiates too; autograd itself is left as it is.

autograd's derivatives of arithmetic sum over every axis of length one, broadcast or not, and add up long
columns with `numpy.sum`. Those of a choice (`where`, `clip`) do not sum over broadcast axes at all. Its derivative of
indexing is an object, not an array. That of a transpose keeps its axes in an array, which a device would have to
fetch.
"""

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.util import func

from npflow.autodiff.gradient import derivative
from npflow.autodiff.primitives import fresh, sum_rows


def sum_to(g, shape):
    """`g` summed over the axes along which `shape` was broadcast."""
    if g.shape == shape:
        return g
    if shape == ():
        return np.sum(g)
    if shape == g.shape[-1:]:
        return sum_rows(g)
    more = g.ndim - len(shape)
    axes = tuple(
        axis for axis in range(g.ndim) if axis < more or (shape[axis - more] == 1 and g.shape[axis] != 1)
    )
    total = np.sum(g, axis=axes, keepdims=True)  # never a scalar, which NumPy and a device treat differently
    return np.reshape(total, shape) if more else total


def _summed(argument, gradient):
    """The derivative that sums ``gradient(g)`` to the shape of the argument."""
    shape, is_complex = np.shape(argument), np.iscomplexobj(argument)

    def vjp(g):
        g = sum_to(gradient(g), shape)
        return np.real(g) if np.iscomplexobj(g) and not is_complex else g

    return vjp


def _arithmetic(fun, in_x, in_y):
    """Give ``z = fun(x, y)`` the gradients ``in_x(g, z, x, y)`` and ``in_y(g, z, x, y)``, summed to x and y."""
    derivative(
        fun,
        lambda z, x, y: _summed(x, lambda g: in_x(g, z, x, y)),
        lambda z, x, y: _summed(y, lambda g: in_y(g, z, x, y)),
    )


_arithmetic(np.add, lambda g, z, x, y: g, lambda g, z, x, y: g)
_arithmetic(np.subtract, lambda g, z, x, y: g, lambda g, z, x, y: -g)
_arithmetic(np.multiply, lambda g, z, x, y: g * y, lambda g, z, x, y: g * x)
_arithmetic(np.true_divide, lambda g, z, x, y: g / y, lambda g, z, x, y: -g * z / y)

derivative(
    np._original_where,  # `np.where` calls it
    None,
    lambda z, condition, x=None, y=None: _summed(x, lambda g: np.where(condition, g, 0)),
    lambda z, condition, x=None, y=None: _summed(y, lambda g: np.where(condition, 0, g)),
)


def _between(x, a_min=None, a_max=None, out=None, *, min=None, max=None):
    """The bounds of a call of `np.clip`, by whichever names."""
    return (min if a_min is None else a_min), (max if a_max is None else a_max)


def _clip_vjp(place):
    """The derivative of `np.clip` in an argument: where the result equals a bound, the gradient is the bound's."""

    def maker(z, *args, **kwargs):
        low, high = _between(*args, **kwargs)
        if place == 0:
            here = np.logical_and(z != low, z != high)
        else:
            here = np.logical_and(z == low, z != high) if place == 1 else z == high
        return _summed(args[place], lambda g: g * here)

    return maker


derivative(np.clip, *map(_clip_vjp, range(3)))
derivative(np.broadcast_to, lambda y, x, shape, **kwargs: _summed(x, lambda g: g))


@fresh
def scatter(g, index, shape, out=None):
    """Zeros of `shape`, with `g` added at `index`; an element that the index names twice gets both parts."""
    y = onp.empty_like(g, shape=shape, order="C") if out is None else out
    y[...] = 0
    if _reads_once(index):
        y[index] = g
    else:
        onp.add.at(y, index, g)
    return y


def _reads_once(index):
    """Whether an index names no element twice, being of numbers and slices: `add.at` is 50 times as slow."""
    parts = index if isinstance(index, tuple) else (index,)
    return {type(part) for part in parts} <= {int, slice, type(None), type(Ellipsis)}


def _only_adds_axes(index):
    """Whether an index takes the whole array and only adds axes of length one."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(
        part is None or part is Ellipsis or (isinstance(part, slice) and part == slice(None))
        for part in parts
    )


def _getitem_vjp(y, x, index):
    shape = x.shape
    if _only_adds_axes(index):
        return lambda g: np.reshape(g, shape)
    return lambda g: scatter(g, index, shape)


derivative(func(ArrayBox.__getitem__), _getitem_vjp)
defvjp(scatter, lambda y, g, index, shape: lambda h: h[index])


def _transpose_vjp(y, x, axes=None):
    back = axes and tuple(onp.argsort([axis % x.ndim for axis in axes]).tolist())
    return lambda g: np.transpose(g, back)


derivative(np.transpose, _transpose_vjp)
