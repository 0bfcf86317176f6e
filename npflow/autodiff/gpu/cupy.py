"""autograd on CuPy's arrays: a box, a vector space, and derivatives that stay on the device.

    import autograd, cupy
    import autograd.numpy as np
    from npflow.autodiff.gpu.cupy import register

    register(cupy)
    autograd.grad(lambda x: np.sum(np.tanh(x) ** 2))(cupy.ones(3))

NumPy's functions work on CuPy's arrays, and so does most of autograd. The exceptions are derivatives that
make a NumPy array (`sum` adds its gradient to zeros), and a few functions that take NumPy's arrays alone.
Those that flows need are rewritten here with the same arithmetic in the same order: on NumPy's arrays they
give the bits and the dtypes of autograd's own. Nothing changes before `register` is called.

On CuPy's arrays these raise a TypeError:

- complex numbers, and `autograd.jacobian`;
- `numpy.array` with another option than `dtype`, or of a list that mixes arrays and numbers;
- the derivatives of `gradient`, `partition`, `sort`, `trace` and `diagonal`;
- those of `cholesky`, `eigh`, `svd` and `pinv` in `numpy.linalg`.

Forward mode does not know the functions that are replaced.

This module imports autograd and NumPy alone, and can be used without npflow.
"""

import math

import autograd.numpy as np
import numpy as onp
from autograd.extend import SparseObject, VSpace, defvjp, defvjp_argnum, notrace_primitive, primitive, vspace
from autograd.numpy import numpy_vjps, numpy_wrapper
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.numpy.numpy_vjps import replace_zero, unbroadcast, unbroadcast_f
from autograd.numpy.numpy_vspaces import ArrayVSpace
from autograd.util import func


def register(module):
    """Let autograd differentiate functions of a module's arrays.

    Parameters
    ----------
    module : module
        CuPy, or a module that has its `ndarray`, `zeros` and `ones`.
    """
    replace_derivatives()

    class OnDevice(ArrayVSpace):
        """The arrays that autograd makes itself."""

        def __init__(self, value):
            if value.dtype.kind == "c":
                raise TypeError(f"expected real numbers to differentiate on a device, got {value.dtype}")
            self.shape, self.dtype = value.shape, value.dtype

        def zeros(self):
            return module.zeros(self.shape, self.dtype)

        def ones(self):
            return module.ones(self.shape, self.dtype)

        def standard_basis(self):
            raise TypeError("expected arrays of NumPy's for a Jacobian by autograd, got a device's")

    ArrayBox.register(module.ndarray)
    VSpace.register(module.ndarray, OnDevice)


def replace_derivatives():
    """Replace autograd's derivatives and functions by those of this module."""
    for fun, makers in DERIVATIVES.items():
        defvjp(fun, *makers)
    for fun, maker in DERIVATIVES_BY_NUMBER.items():
        defvjp_argnum(fun, maker)
    for name, fun in FUNCTIONS.items():
        setattr(numpy_wrapper, name, fun)
        setattr(np, name, fun)


# ---------------------------------------------------------------- functions that take NumPy's arrays alone


def _is_numpys(value):
    return isinstance(value, (onp.ndarray, onp.generic)) or onp.isscalar(value)


@primitive
def concatenate_args(axis, *args):
    """`numpy.concatenate`; autograd's makes a view of NumPy's class of the result."""
    return onp.concatenate(args, axis)


@primitive
def _array_from_scalar_or_array(array_args, array_kwargs, scalar):
    """`numpy.array` of one array."""
    if _is_numpys(scalar):
        return onp.array(scalar, *array_args, **array_kwargs)
    return _with_dtype(scalar, *array_args, **array_kwargs)


@primitive
def array_from_args(array_args, array_kwargs, *args):
    """`numpy.array` of a list of arrays."""
    if all(map(_is_numpys, args)):
        return onp.array(args, *array_args, **array_kwargs)
    return _with_dtype(onp.stack(args), *array_args, **array_kwargs)


def _with_dtype(x, dtype=None):
    return x.astype(dtype or x.dtype)


@notrace_primitive
def parse_einsum_input(*args):
    """The subscripts of an einsum; they depend on the shapes of its operands alone."""
    shapes = (onp.broadcast_to(0.0, arg.shape) if hasattr(arg, "shape") else arg for arg in args)
    return numpy_wrapper._parse_einsum_input(tuple(shapes))


FUNCTIONS = {
    fun.__name__: fun
    for fun in (concatenate_args, _array_from_scalar_or_array, array_from_args, parse_einsum_input)
}

# ---------------------------------------------------------------- reductions


def _axes(axis, ndim):
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))


def _repeated(g, x, axis):
    """The gradient `g` in a reduction of `x`, repeated over the reduced axes; and the number of copies."""
    shape = np.shape(x)
    if shape == ():
        return g, 1
    axes = _axes(axis, len(shape))
    kept = tuple(1 if a in axes else size for a, size in enumerate(shape))
    count = onp.int64(math.prod(shape[a] for a in axes))  # NumPy's integer promotes float32, as in autograd
    return np.reshape(g, kept) + np.zeros_like(x, order="C"), count


def _sum_vjp(ans, x, axis=None, keepdims=False, dtype=None, **kwargs):
    return lambda g: _repeated(g, x, axis)[0]


def _mean_vjp(ans, x, axis=None, keepdims=False, **kwargs):
    def vjp(g):
        repeated, count = _repeated(g, x, axis)
        return repeated / count

    return vjp


def _prod_vjp(ans, x, axis=None, keepdims=False, **kwargs):
    return lambda g: _repeated(g * ans, x, axis)[0] / x


def _centred(x, axis):
    # conj: once a device is used, complex arrays of the host go through here too.
    return np.conj(x - np.mean(x, axis=axis, keepdims=True))


def _var_vjp(ans, x, axis=None, ddof=0, keepdims=False, **kwargs):
    def vjp(g):
        repeated, count = _repeated(g, x, axis)
        return 2.0 * repeated * _centred(x, axis) / (count - ddof)

    return vjp


def _std_vjp(ans, x, axis=None, ddof=0, keepdims=False, **kwargs):
    def vjp(g):
        repeated, count = _repeated(g, x, axis)
        if count <= 1:
            return repeated * 0.0
        repeated, count = _repeated(g / ans, x, axis)
        return repeated * _centred(x, axis) / (count - ddof)

    return vjp


def _largest_vjp(ans, x, axis=None, keepdims=None, **kwargs):
    def vjp(g):
        places = x == _repeated(ans, x, axis)[0]
        return _repeated(g, x, axis)[0] * places / np.sum(places, axis=axis, keepdims=True)

    return vjp


# ---------------------------------------------------------------- products


@primitive
def _dot_adjoint_0(B, G, ndim, dtype):
    """The gradient in A of dot(A, B), where A has `ndim` axes."""
    if B.ndim in (0, 1) or ndim == 0:
        return onp.tensordot(G, B, max(0, B.ndim - (ndim != 0))).astype(dtype, copy=False)
    return onp.tensordot(G, onp.swapaxes(B, -1, -2), B.ndim - 1).astype(dtype, copy=False)


@primitive
def _dot_adjoint_1(A, G, ndim, dtype):
    """The gradient in B of dot(A, B), where B has `ndim` axes."""
    if A.ndim in (0, 1) or ndim == 0:
        out = onp.tensordot(G, A, max(0, A.ndim - (ndim != 0)))
    else:
        axes = [list(range(-A.ndim - ndim + 2, -ndim + 1)), list(range(A.ndim - 1))]
        out = onp.tensordot(G, A, axes)
    out = onp.swapaxes(out, -1, -2) if ndim > 1 and A.ndim != 0 else out
    return out.astype(dtype, copy=False)


def _array(x):
    """A number as an array: CuPy's dot does not take numbers, NumPy's does."""
    return x if hasattr(x, "ndim") else onp.asarray(x)


def _dot_vjp_0(ans, A, B):
    ndim, dtype = np.ndim(A), np.result_type(A)
    return lambda g: _dot_adjoint_0(_array(B), g, ndim, dtype)


def _dot_vjp_1(ans, A, B):
    ndim, dtype = np.ndim(B), np.result_type(B)
    return lambda g: _dot_adjoint_1(_array(A), g, ndim, dtype)


def _einsum_vjp(argnum, ans, operands, kwargs):
    """The gradient in one operand of an einsum: an einsum of the gradient and the other operands."""
    if not isinstance(operands[0], str):  # lists of axes
        return numpy_vjps.grad_einsum(argnum, ans, operands, kwargs)
    target, target_meta = operands[argnum], np.metadata(operands[argnum])

    def vjp(g):
        subscripts, output, _ = np.parse_einsum_input(*operands)
        others, arrays = subscripts.split(","), list(operands[1:])
        wanted, _ = others.pop(argnum - 1), arrays.pop(argnum - 1)
        # An axis that is summed within this operand alone is spread in its gradient: a product with ones.
        alone = [axis for axis, letter in enumerate(wanted) if letter not in output + "".join(others)]
        if alone:
            others = ["".join(wanted[axis] for axis in alone), *others]
            shape = tuple(np.shape(target)[axis] for axis in alone)
            arrays = [np.ones_like(target, shape=shape, dtype=float), *arrays]
        call = ",".join([output, *others]) + "->" + wanted
        return unbroadcast(np.einsum(call, g, *arrays), target_meta)

    return vjp


# ---------------------------------------------------------------- the others


def _zeros64(x):
    """Zeros like `x` in float64, to which autograd's derivatives of `where` promote."""
    return np.zeros_like(x, dtype=float, order="C")


def _power_vjp(ans, x, y):
    if onp.isscalar(y):  # keep its kind: NumPy's numbers promote, Python's do not
        less = onp.where(y, y - 1, 1.0)
        less = less[()] if isinstance(y, onp.generic) else less.item()
        return unbroadcast_f(x, lambda g: g * y * x**less)
    return unbroadcast_f(x, lambda g: g * y * x ** np.where(y, y - 1, 1.0))


@primitive
def _scatter(g, index, space):
    """Zeros of a vector space with `g` added at `index`, like autograd's `untake`."""
    if isinstance(index, list) and not index:
        index = slice(0, 0)

    def add_at(array):
        onp.add.at(array, index, g)
        return array

    return SparseObject(space, add_at)


# ---------------------------------------------------------------- what replaces autograd's

DERIVATIVES = {
    np.sum: (_sum_vjp,),
    numpy_wrapper._primitive_mean: (_mean_vjp,),
    numpy_wrapper._primitive_var: (_var_vjp,),
    numpy_wrapper._primitive_std: (_std_vjp,),
    np.prod: (_prod_vjp,),
    **dict.fromkeys((np.max, np.min, np.amax, np.amin), (_largest_vjp,)),
    np.dot: (_dot_vjp_0, _dot_vjp_1),
    np._original_where: (
        None,
        lambda ans, c, x=None, y=None: lambda g: np.where(c, g, _zeros64(g)),
        lambda ans, c, x=None, y=None: lambda g: np.where(c, _zeros64(g), g),
    ),
    np.power: (
        _power_vjp,
        lambda ans, x, y: unbroadcast_f(y, lambda g: g * np.log(replace_zero(x, 1.0)) * ans),
    ),
    func(ArrayBox.__getitem__): (lambda ans, x, index: lambda g: _scatter(g, index, vspace(x)),),
    # Derivatives of this module's own functions; the adjoints of a product are products again.
    _scatter: (lambda ans, g, index, space: lambda h: h[index],),
    _dot_adjoint_0: (
        lambda ans, B, G, *_: lambda A: _dot_adjoint_1(A, G, np.ndim(B), np.result_type(B)),
        lambda ans, B, G, *_: lambda A: np.dot(A, B),
    ),
    _dot_adjoint_1: (
        lambda ans, A, G, *_: lambda B: _dot_adjoint_0(B, G, np.ndim(A), np.result_type(A)),
        lambda ans, A, G, *_: lambda B: np.dot(A, B),
    ),
}
DERIVATIVES_BY_NUMBER = {
    np.einsum: _einsum_vjp,
    concatenate_args: numpy_vjps.grad_concatenate_args,
    array_from_args: numpy_vjps.array_from_args_gradmaker,
    _array_from_scalar_or_array: lambda argnum, ans, args, kwargs: (
        numpy_vjps.array_from_scalar_or_array_gradmaker(ans, *args, **kwargs)
    ),
}
