"""Primitives with closed-form derivatives, where autograd's own are slow or promote float32.

Each is a NumPy function, then its vector-Jacobian product: given the gradient `g` of a scalar in the
result, the gradient in each argument. The products are made of `autograd.numpy` and of these primitives
again, so second derivatives follow by themselves. All keep float32.

"The last axis" is where features and channels lie; all axes before it are rows, or rows and pixels.
"""

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f

# ---------------------------------------------------------------- products on the last axis


def _rows(x):
    """All axes but the last as one: a product with a matrix is then a single BLAS call."""
    return x if x.ndim == 2 else np.reshape(x, (-1, x.shape[-1]))


@primitive
def linear(x, weight):
    """The product x W on the last axis: shapes (..., inputs) and (inputs, outputs) give (..., outputs)."""
    return (_rows(x) @ weight).reshape(*x.shape[:-1], weight.shape[1])


defvjp(
    linear,
    lambda y, x, weight: lambda g: linear(g, weight.T),
    lambda y, x, weight: lambda g: _rows(x).T @ _rows(g),
)


@primitive
def dense(x, weight, bias):
    """The dense layer x W + b on the last axis: shapes (..., inputs), (inputs, outputs), (outputs,)."""
    y = _rows(x) @ weight
    y += bias
    return y.reshape(*x.shape[:-1], len(bias))


defvjp(
    dense,
    lambda y, x, weight, bias: lambda g: linear(g, weight.T),
    lambda y, x, weight, bias: lambda g: _rows(x).T @ _rows(g),
    lambda y, x, weight, bias: lambda g: np.sum(_rows(g), axis=0),
)


@primitive
def solve_triangular(y, matrix, lower, unit_diagonal=False):
    """The x of x A = y on the last axis, for a triangular A, by substitution.

    Parameters
    ----------
    y : ndarray, shape (..., c)
    matrix : ndarray, shape (c, c)
        A; the other triangle is not read.
    lower : bool
        Whether A is the lower triangle.
    unit_diagonal : bool
        Whether the diagonal of A is all ones and not read.
    """
    from scipy.linalg import solve_triangular as solve  # a quarter of the time of `import npflow`

    # x A = y is A^T x^T = y^T: the transposed system, columns as right-hand sides.
    x = solve(
        matrix,
        _rows(y).T,
        trans="T",
        lower=lower,
        unit_diagonal=unit_diagonal,
        check_finite=False,
    )
    return onp.ascontiguousarray(x.T).reshape(y.shape)


def _solve_triangular_vjp_matrix(x, y, matrix, lower, unit_diagonal=False):
    # dx = -x dA A^-1, so the gradient in A is -x^T (g A^-T), in the triangle that is read.
    triangle = np.tril if lower else np.triu
    edge = (-1 if lower else 1) if unit_diagonal else 0

    def vjp(g):
        h = solve_triangular(g, matrix.T, not lower, unit_diagonal)
        return -triangle(_rows(x).T @ _rows(h), edge)

    return vjp


defvjp(
    solve_triangular,
    lambda x, y, matrix, lower, unit_diagonal=False: (
        lambda g: solve_triangular(g, matrix.T, not lower, unit_diagonal)
    ),
    _solve_triangular_vjp_matrix,
)

# ---------------------------------------------------------------- activations


@primitive
def relu(x):
    """max(x, 0)."""
    return onp.maximum(x, 0)


defvjp(relu, lambda y, x: lambda g: g * (y > 0))


@primitive
def leaky_relu(x, slope=0.01):
    """x where it is positive, slope * x elsewhere; 0 < slope < 1."""
    return onp.maximum(x, slope * x)


@primitive
def leaky_relu_vjp(g, y, slope):
    """g where the result y of the leaky ReLU is positive, slope * g elsewhere."""
    return onp.where(y > 0, g, slope * g)


defvjp(leaky_relu, lambda y, x, slope=0.01: lambda g: leaky_relu_vjp(g, y, slope))
defvjp(leaky_relu_vjp, lambda _, g, y, slope: lambda h: leaky_relu_vjp(h, y, slope), None)


@primitive
def tanh(x):
    """Hyperbolic tangent; autograd's derivative 1 / cosh(x)^2 overflows, 1 - tanh(x)^2 does not."""
    return onp.tanh(x)


defvjp(tanh, lambda y, x: lambda g: g * (1 - y * y))


@primitive
def sigmoid(x):
    """1 / (1 + exp(-x)), as exp(-log(1 + exp(-x))), which overflows nowhere and keeps small values exact."""
    return onp.exp(-onp.logaddexp(-x, 0))


defvjp(sigmoid, lambda y, x: lambda g: g * (y * (1 - y)))


@primitive
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return onp.logaddexp(x, 0)


defvjp(softplus, lambda y, x: lambda g: g * sigmoid(x))


@primitive
def where(condition, a, b):
    """`numpy.where`; the derivative of autograd's promotes float32, and does not sum over axes broadcast."""
    return onp.where(condition, a, b)


defvjp(
    where,
    None,
    lambda y, condition, a, b: unbroadcast_f(a, lambda g: where(condition, g, 0)),
    lambda y, condition, a, b: unbroadcast_f(b, lambda g: where(condition, 0, g)),
)

# ---------------------------------------------------------------- parts of the last axis


@primitive
def slice_last(x, start, stop):
    """x[..., start:stop]; autograd's derivative of indexing scatters, this one pads."""
    return x[..., start:stop]


@primitive
def pad_last(x, start, width):
    """Zeros of `width` on the last axis, with x from `start` on."""
    y = onp.zeros((*x.shape[:-1], width), x.dtype)
    y[..., start : start + x.shape[-1]] = x
    return y


defvjp(slice_last, lambda y, x, start, stop: lambda g: pad_last(g, start, x.shape[-1]))
defvjp(pad_last, lambda y, x, start, width: lambda g: slice_last(g, start, start + x.shape[-1]))


def split_last(x, at):
    """The two parts x[..., :at] and x[..., at:]."""
    return slice_last(x, 0, at), slice_last(x, at, x.shape[-1])


@primitive
def concatenate_last(a, b):
    """a and b joined on the last axis."""
    return onp.concatenate((a, b), axis=-1)


defvjp(
    concatenate_last,
    lambda y, a, b: lambda g: slice_last(g, 0, a.shape[-1]),
    lambda y, a, b: lambda g: slice_last(g, a.shape[-1], y.shape[-1]),
)


@primitive
def permute(x, permutation, axis=-1):
    """Entry i of the result along `axis` is entry permutation[i] of x."""
    return onp.take(x, permutation, axis=axis)


defvjp(
    permute,
    lambda y, x, permutation, axis=-1: lambda g: permute(g, onp.argsort(permutation), axis),
)

# ---------------------------------------------------------------- sums over an event, and back


@primitive
def sum_event(x):
    """The sum over all axes but the first: shape (n, ...) gives (n,)."""
    return x.reshape(len(x), -1).sum(axis=1)


@primitive
def spread_event(x, shape):
    """One number a row, repeated over the whole row: shape (n,) gives `shape`, which is (n, ...)."""
    return onp.broadcast_to(x.reshape(-1, *[1] * (len(shape) - 1)), shape)


defvjp(sum_event, lambda y, x: lambda g: spread_event(g, x.shape))
defvjp(spread_event, lambda y, x, shape: lambda g: sum_event(g))


@primitive
def spread_rows(value, rows):
    """One number, repeated for each row: shape () gives (rows,)."""
    return onp.full(rows, value)


defvjp(spread_rows, lambda y, value, rows: lambda g: np.sum(g))


@primitive
def logsumexp_last(x):
    """log(sum(exp(x))) over the last axis, without overflow: shape (..., k) gives (...)."""
    largest = onp.max(x, axis=-1, keepdims=True)
    largest = onp.maximum(largest, onp.finfo(x.dtype).min)  # -inf - -inf would be nan
    with onp.errstate(divide="ignore"):
        return onp.log(onp.sum(onp.exp(x - largest), axis=-1)) + largest[..., 0]


defvjp(logsumexp_last, lambda y, x: lambda g: g[..., None] * np.exp(x - y[..., None]))
