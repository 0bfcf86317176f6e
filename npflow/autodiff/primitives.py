"""Primitives with closed-form derivatives, where autograd's own are slow or promote float32.

Each is a NumPy function, followed by its vector-Jacobian product: the gradient in each argument, from the
gradient `g` in the result. The products consist of `autograd.numpy` and these primitives, so that second
derivatives follow. All keep float32.

None names a device: new arrays are made like an argument (``np.ones_like(x, shape=...)``).

A `transparent` primitive consists of NumPy calls, and a program has these calls in its place. A `fresh` one
makes a new array, or writes to the array `out` that a program gives it.

The last axis holds features or channels; all axes before it are rows, or rows and pixels.
"""

import math

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f
from autograd.tracer import register_notrace

from npflow.autodiff.gpu.devices import constant, scipy_function

TRANSPARENT, FRESH = set(), set()


def transparent(body):
    """A primitive that has one derivative, but is recorded call by call; its body writes to no array."""
    whole = primitive(body)
    TRANSPARENT.add(whole)
    return whole


def fresh(body):
    """A primitive that makes a new array, or writes to `out`, and never returns memory of an argument."""
    FRESH.add(body)
    return primitive(body)


@primitive
def held(x):
    """x as a constant: derivatives do not look through it."""
    return x


register_notrace(VJPNode, held)

# ---------------------------------------------------------------- products on the last axis


def _rows(x):
    """x with all axes but the last joined to one: a product with a matrix is then one BLAS call."""
    return x if x.ndim == 2 else np.reshape(x, (-1, x.shape[-1]))


def _unrows(y, x):
    """`y`, computed from `_rows(x)`, with the axes of `x` before its last one."""
    return y if x.ndim == 2 else np.reshape(y, (*x.shape[:-1], y.shape[-1]))


def _dot(x, y):
    """`numpy.dot` without warnings of invalid values, as BLAS also computes on memory behind the last numbers."""
    with onp.errstate(invalid="ignore"):
        return np.dot(x, y)


@transparent
def linear(x, weight):
    """The product x W on the last axis: shapes (..., inputs) and (inputs, outputs) give (..., outputs).

    `numpy.dot`, unlike `numpy.matmul`, calls BLAS for a single input too.
    """
    return _unrows(_dot(_rows(x), weight), x)


defvjp(
    linear,
    lambda y, x, weight: lambda g: linear(g, weight.T),
    lambda y, x, weight: lambda g: linear(_rows(x).T, _rows(g)),
)


@transparent
def dense(x, weight, bias):
    """The dense layer x W + b on the last axis: shapes (..., inputs), (inputs, outputs), (outputs,)."""
    return _unrows(_dot(_rows(x), weight) + bias, x)


defvjp(
    dense,
    lambda y, x, weight, bias: lambda g: linear(g, weight.T),
    lambda y, x, weight, bias: lambda g: linear(_rows(x).T, _rows(g)),
    lambda y, x, weight, bias: lambda g: sum_rows(g),
)


@primitive
def solve_triangular(y, matrix, lower, unit_diagonal=False):
    """The x of x A = y on the last axis, by substitution: shapes (..., c) and (c, c) give (..., c).

    A is the lower or the upper triangle of `matrix`; the other one is not read. With `unit_diagonal` its
    diagonal counts as ones and is not read either.

    Where y has more than twice as many rows as A, it is multiplied by A^-1: substitution takes several times as long as a
    product.
    """
    solve = scipy_function("linalg.solve_triangular", like=y)
    rows, size = _rows(y), len(matrix)
    many = len(rows) > 2 * size
    right = constant(onp.eye(size, dtype=y.dtype), like=y) if many else rows

    # x A = y is A^T x^T = y^T: the transposed system, with columns as right-hand sides.
    x = solve(matrix, right.T, trans="T", lower=lower, unit_diagonal=unit_diagonal, check_finite=False)
    x = x.T.copy()
    return (_dot(rows, x) if many else x).reshape(y.shape)


def _solve_triangular_vjp_matrix(x, y, matrix, lower, unit_diagonal=False):
    # dx = -x dA A^-1, so the gradient in A is -x^T (g A^-T) in the triangle that is read.
    triangle = np.tril if lower else np.triu
    edge = (-1 if lower else 1) if unit_diagonal else 0

    def vjp(g):
        h = solve_triangular(g, matrix.T, not lower, unit_diagonal)
        return -triangle(linear(_rows(x).T, _rows(h)), edge)

    return vjp


defvjp(
    solve_triangular,
    lambda x, y, matrix, lower, unit_diagonal=False: (
        lambda g: solve_triangular(g, matrix.T, not lower, unit_diagonal)
    ),
    _solve_triangular_vjp_matrix,
)

# ---------------------------------------------------------------- determinants


@primitive
def log_abs_det(matrices):
    """log|det J| of each matrix J, shape (n,); nan, without a warning, where J is not finite."""
    with onp.errstate(invalid="ignore"):
        return onp.linalg.slogdet(matrices)[1]


@primitive
def inverse_transposed(matrices):
    """J^-T of each matrix J, shape (n, D, D); nan where J has no inverse."""
    try:
        inverse = onp.linalg.inv(matrices)
    except onp.linalg.LinAlgError:  # of a single one
        regular = (onp.linalg.slogdet(matrices)[0] != 0)[:, None, None]
        identity = onp.eye(matrices.shape[1], dtype=matrices.dtype)
        inverse = onp.where(regular, onp.linalg.inv(onp.where(regular, matrices, identity)), onp.nan)
    return inverse.swapaxes(1, 2).copy()


defvjp(log_abs_det, lambda log_det, J: lambda g: g[:, None, None] * inverse_transposed(J))
# d(J^-T) = -J^-T dJ^T J^-T
defvjp(inverse_transposed, lambda Y, J: lambda g: -np.matmul(np.matmul(Y, np.swapaxes(g, 1, 2)), Y))

# ---------------------------------------------------------------- activations


@transparent
def relu(x):
    """max(x, 0): `numpy.clip` takes a third of the time of `numpy.maximum` with one number."""
    return np.clip(x, 0, onp.inf)


@transparent
def relu_vjp(g, y):
    """g where the result y of the ReLU is positive, 0 elsewhere."""
    return np.greater(y, 0) * g


defvjp(relu, lambda y, x: lambda g: relu_vjp(g, y))
defvjp(relu_vjp, lambda _, g, y: lambda h: relu_vjp(h, y), None)


@transparent
def leaky_relu(x, slope=0.01):
    """x where it is positive, slope * x elsewhere; 0 < slope < 1."""
    return np.maximum(slope * x, x)


@transparent
def leaky_relu_vjp(g, y, slope):
    """g where the result y of the leaky ReLU is positive, slope * g elsewhere."""
    slopes = np.full_like(g, slope)  # np.maximum with one number takes three times as long
    return np.maximum(np.greater(y, 0).astype(g.dtype), slopes) * g


defvjp(leaky_relu, lambda y, x, slope=0.01: lambda g: leaky_relu_vjp(g, y, slope))
defvjp(leaky_relu_vjp, lambda _, g, y, slope: lambda h: leaky_relu_vjp(h, y, slope), None)


@transparent
def elu(x):
    """x where it is positive, exp(x) - 1 elsewhere: convex, with a continuous slope."""
    return np.maximum(x, 0) + np.expm1(np.minimum(x, 0))


@transparent
def elu_slope(x):
    """The derivative of the ELU: 1 where x is positive, exp(x) elsewhere."""
    return np.exp(np.minimum(x, 0))


defvjp(elu, lambda y, x: lambda g: elu_slope(x) * g)
defvjp(elu_slope, lambda y, x: lambda g: np.less(x, 0).astype(g.dtype) * y * g)


@transparent
def tanh(x):
    """Hyperbolic tangent; autograd's derivative 1 / cosh(x)^2 overflows, 1 - tanh(x)^2 does not."""
    return np.tanh(x)


defvjp(tanh, lambda y, x: lambda g: (1 - y * y) * g)


@transparent
def sigmoid(x):
    """1 / (1 + exp(-x)), computed as exp(min(x, 0)) / (1 + exp(-abs(x))): no overflow, and small values are exact."""
    return np.exp(np.minimum(x, 0)) / (1 + np.exp(-np.abs(x)))


defvjp(sigmoid, lambda y, x: lambda g: y * (1 - y) * g)


@transparent
def log_sigmoid(x):
    """log(sigmoid(x)), without overflow; exact for large negative x."""
    return np.minimum(x, 0) - np.log1p(np.exp(-np.abs(x)))


defvjp(log_sigmoid, lambda y, x: lambda g: np.exp(y - x) * g)  # 1 - sigmoid(x) is sigmoid(-x)


@transparent
def softplus(x):
    """log(1 + exp(x)), without overflow, in a tenth of the time of `numpy.logaddexp`."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


# sigmoid(x) = 1 - exp(-softplus(x))
defvjp(softplus, lambda y, x: lambda g: -np.expm1(-y) * g)


@transparent
def where(condition, a, b):
    """`numpy.where`; autograd's derivative promotes float32, and does not sum over broadcast axes."""
    return np.where(condition, a, b)


defvjp(
    where,
    None,
    lambda y, condition, a, b: unbroadcast_f(a, lambda g: where(condition, g, 0)),
    lambda y, condition, a, b: unbroadcast_f(b, lambda g: where(condition, 0, g)),
)

# ---------------------------------------------------------------- parts of the last axis


@transparent
def slice_last(x, start, stop):
    """x[..., start:stop]; its derivative pads, where autograd's derivative of indexing scatters."""
    return x[..., start:stop]


@transparent
def pad_last(x, start, width):
    """Zeros of length `width` on the last axis, with x from `start` on."""
    zeros = lambda count: np.zeros_like(x, shape=(*x.shape[:-1], count))
    before, after = start, width - start - x.shape[-1]
    parts = [zeros(before)] * (before > 0) + [x] + [zeros(after)] * (after > 0)
    return np.concatenate(parts, axis=-1)


defvjp(slice_last, lambda y, x, start, stop: lambda g: pad_last(g, start, x.shape[-1]))
defvjp(pad_last, lambda y, x, start, width: lambda g: slice_last(g, start, start + x.shape[-1]))


def split_last(x, at):
    """The two parts x[..., :at] and x[..., at:]."""
    return slice_last(x, 0, at), slice_last(x, at, x.shape[-1])


@transparent
def concatenate_last(a, b):
    """a and b joined on the last axis."""
    return np.concatenate((a, b), axis=-1)


defvjp(
    concatenate_last,
    lambda y, a, b: lambda g: slice_last(g, 0, a.shape[-1]),
    lambda y, a, b: lambda g: slice_last(g, a.shape[-1], y.shape[-1]),
)


@transparent
def permute(x, permutation, axis=-1):
    """Entry i of the result along `axis` is entry permutation[i] of x."""
    return np.take(x, permutation, axis=axis)


defvjp(permute, lambda y, x, permutation, axis=-1: lambda g: permute(g, np.argsort(permutation), axis))

# ---------------------------------------------------------------- sums, and their derivatives
# As products with ones: BLAS adds up short rows and long columns many times faster than `numpy.sum`.


@transparent
def sum_rows(x):
    """The sum over all axes but the last: shape (..., c) gives (c,)."""
    rows = _rows(x)
    return _dot(np.ones_like(x, shape=(len(rows),)), rows)


@transparent
def spread_over_rows(value, shape):
    """The same row everywhere: shape (c,) gives `shape`, which is (..., c)."""
    return value * np.ones_like(value, shape=shape)


defvjp(sum_rows, lambda y, x: lambda g: spread_over_rows(g, x.shape))
defvjp(spread_over_rows, lambda y, value, shape: lambda g: sum_rows(g))


@transparent
def sum_event(x):
    """The sum over all axes but the first: shape (n, ...) gives (n,)."""
    events = x if x.ndim == 2 else np.reshape(x, (len(x), -1))
    return _dot(events, np.ones_like(x, shape=(events.shape[1],)))


@transparent
def spread_event(x, shape):
    """The number of each row, repeated over the row: shape (n,) gives `shape`, which is (n, ...)."""
    return np.reshape(x, (-1, *[1] * (len(shape) - 1))) * np.ones_like(x, shape=shape)


defvjp(sum_event, lambda y, x: lambda g: spread_event(g, x.shape))
defvjp(spread_event, lambda y, x, shape: lambda g: sum_event(g))


@transparent
def spread_rows(value, rows):
    """The same number for each row: shape () gives (rows,)."""
    return value * np.ones_like(value, shape=(rows,))


defvjp(spread_rows, lambda y, value, rows: lambda g: np.sum(g))


@primitive
def logsumexp_last(x):
    """log(sum(exp(x))) over the last axis, without overflow: shape (..., k) gives (...)."""
    # Terms side by side: NumPy takes ten times as long for the maximum of each short row.
    terms = onp.reshape(x, (-1, x.shape[-1])).T.copy()
    largest = onp.maximum(onp.max(terms, axis=0), onp.finfo(x.dtype).min)  # -inf - -inf would be nan
    with onp.errstate(divide="ignore"):
        y = onp.log(onp.sum(onp.exp(terms - largest), axis=0)) + largest
    return onp.reshape(y, x.shape[:-1])


defvjp(logsumexp_last, lambda y, x: lambda g: g[..., None] * np.exp(x - y[..., None]))

# ---------------------------------------------------------------- one of k
# A label is a number from 0 to k - 1. Arrays with k numbers for each label are by far the largest, so calls
# on them are kept few: forward and backward pass begin with the same calls, which a program makes once.


@transparent
def log_softmax_at(x, labels):
    """log(exp(x_label) / sum(exp(x))), without overflow: shapes (..., k) and (...) give (...)."""
    x = x - np.max(x, axis=-1, keepdims=True)
    return take_last(x, labels) - np.log(_sum_last(_exp(x)))


@transparent
def softmax_last(x):
    """exp(x) / sum(exp(x)) over the last axis, without overflow."""
    y = _exp(x - np.max(x, axis=-1, keepdims=True))
    return y / _sum_last(y)[..., None]


@transparent
def take_last(x, labels):
    """x_label: shapes (..., k) and (...) give (...)."""
    return np.take_along_axis(x, labels[..., None], axis=-1)[..., 0]


@transparent
def one_hot_minus(x, labels, g):
    """g * (one-hot of the label - x): shapes (..., k), (...) and (...) give (..., k)."""
    k = x.shape[-1]
    dtype = onp.promote_types(labels.dtype, onp.min_scalar_type(k - 1))  # small integers are compared fast
    one_hot = np.equal(labels[..., None], constant(onp.arange(k, dtype=dtype), like=x))
    return (one_hot - x) * g[..., None]


def _exp(x):
    """exp(x) for x up to 0, but at least tiny^0.8, which is lost in a sum with exp(0) anyway."""
    # Denormal numbers are slow: a product takes ten times as long if one number of twenty-five is denormal,
    # as in a trained PixelCNN.
    return np.exp(np.maximum(x, 0.8 * math.log(onp.finfo(x.dtype).tiny)))


def _sum_last(x):
    """The sum over the last axis."""
    return np.reshape(_dot(_rows(x), np.ones_like(x, shape=(x.shape[-1],))), x.shape[:-1])


defvjp(log_softmax_at, lambda y, x, labels: lambda g: one_hot_minus(softmax_last(x), labels, g), None)
defvjp(softmax_last, lambda y, x: lambda g: y * (g - np.sum(y * g, axis=-1, keepdims=True)))
defvjp(take_last, lambda y, x, labels: lambda g: one_hot_minus(np.zeros_like(x), labels, g), None)
defvjp(
    one_hot_minus,
    lambda y, x, labels, g: lambda h: -h * g[..., None],
    None,
    lambda y, x, labels, g: lambda h: take_last(h, labels) - np.sum(h * x, axis=-1),
)
