"""npflow's own derivatives of functions that autograd differentiates too; autograd itself is left as it is.

autograd's derivatives of arithmetic sum over every axis of length one, broadcast or not, and add up long
columns with `numpy.sum`. Its derivative of indexing is an object, not an array. That of a transpose keeps its
axes in an array, which a device would have to fetch.
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
    return np.reshape(np.sum(g, axis=axes), shape)


def _to_argument(argument, gradient):
    shape, is_complex = np.shape(argument), np.iscomplexobj(argument)

    def vjp(g):
        g = sum_to(gradient(g), shape)
        return np.real(g) if np.iscomplexobj(g) and not is_complex else g

    return vjp


derivative(
    np.add,
    lambda z, x, y: _to_argument(x, lambda g: g),
    lambda z, x, y: _to_argument(y, lambda g: g),
)
derivative(
    np.subtract,
    lambda z, x, y: _to_argument(x, lambda g: g),
    lambda z, x, y: _to_argument(y, lambda g: -g),
)
derivative(
    np.multiply,
    lambda z, x, y: _to_argument(x, lambda g: g * y),
    lambda z, x, y: _to_argument(y, lambda g: g * x),
)
derivative(
    np.true_divide,
    lambda z, x, y: _to_argument(x, lambda g: g / y),
    lambda z, x, y: _to_argument(y, lambda g: -g * z / y),
)


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
    """Whether an index of numbers and slices alone names no element twice: adding would take 50 times as
    long.
    """
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
