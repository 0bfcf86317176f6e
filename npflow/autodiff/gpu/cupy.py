"""autograd on CuPy's arrays: a box, a vector space, and derivatives that stay on the device.

    import autograd, cupy
    import autograd.numpy as np
    from npflow.autodiff.gpu.cupy import register

    register(cupy)
    autograd.grad(lambda x: np.sum(np.tanh(x) ** 2))(cupy.ones(3))

NumPy's functions work on CuPy's arrays, and so does most of autograd. The exceptions are derivatives that
make a NumPy array (`sum` adds its gradient to zeros), and a few functions that take NumPy's arrays alone.
They are rewritten here with the same arithmetic in the same order: on NumPy's arrays they give the bits and
the dtypes of autograd's own. Nothing changes before `register` is called. CuPy still refuses, with a
TypeError, the derivatives of `numpy.gradient`, `numpy.partition` and `cholesky`, `eigh`, `svd` and `pinv` in
`numpy.linalg`, and a list of arrays and numbers.

This module imports autograd and NumPy alone, and can be used without npflow.
"""

import math
from functools import partial

import autograd.numpy as np
import numpy as onp
from autograd.core import primitive_jvps
from autograd.extend import SparseObject, VSpace, defvjp, defvjp_argnum, notrace_primitive, primitive, vspace
from autograd.numpy import numpy_vjps, numpy_wrapper
from autograd.numpy.numpy_boxes import ArrayBox
from autograd.numpy.numpy_vjps import (
    match_complex,
    replace_zero,
    unbroadcast,
    unbroadcast_einsum,
    unbroadcast_f,
)
from autograd.numpy.numpy_vspaces import ArrayVSpace, ComplexArrayVSpace
from autograd.tracer import getval
from autograd.util import func


def register(module):
    """Let autograd differentiate functions of a module's arrays.

    Parameters
    ----------
    module : module
        CuPy, or a module that has its `ndarray`, `asarray`, `zeros` and `ones`.
    """
    replace_derivatives()

    class OnDevice:
        """The arrays that autograd makes itself."""

        def __init__(self, value):
            self.shape, self.dtype = value.shape, value.dtype

        def zeros(self):
            return module.zeros(self.shape, self.dtype)

        def standard_basis(self):
            return map(module.asarray, super().standard_basis())

        def randn(self):
            return module.asarray(super().randn())

    class Real(OnDevice, ArrayVSpace):
        def ones(self):
            return module.ones(self.shape, self.dtype)

    class Complex(OnDevice, ComplexArrayVSpace):
        def ones(self):
            return module.ones(self.shape, self.dtype) * (1 + 1j)

    ArrayBox.register(module.ndarray)
    VSpace.register(module.ndarray, lambda value: (Complex if value.dtype.kind == "c" else Real)(value))


def replace_derivatives():
    """Replace autograd's derivatives and functions by those of this module."""
    for fun, makers in DERIVATIVES.items():
        defvjp(fun, *makers)
    for fun, maker in DERIVATIVES_BY_NUMBER.items():
        defvjp_argnum(fun, maker)
    for name, fun in FUNCTIONS.items():
        replaced = getattr(numpy_wrapper, name)
        if replaced in primitive_jvps:  # forward mode stays as it is
            primitive_jvps[fun] = primitive_jvps[replaced]
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
    if _is_numpys(getval(scalar)):
        return onp.array(scalar, *array_args, **array_kwargs)
    return _formed(scalar, *array_args, **array_kwargs)


@primitive
def array_from_args(array_args, array_kwargs, *args):
    """`numpy.array` of a list of arrays."""
    if all(map(_is_numpys, args)):
        return onp.array(args, *array_args, **array_kwargs)
    return _formed(onp.stack(args), *array_args, **array_kwargs)


def _formed(x, dtype=None, *, copy=True, order="K", ndmin=0):
    x = x.astype(x.dtype if dtype is None else dtype, order, copy=copy)
    return onp.reshape(x, (1,) * (ndmin - x.ndim) + x.shape)


@primitive
def make_diagonal(D, offset=0, axis1=0, axis2=1):
    """Matrices with `D` on their diagonals, along the two last axes."""
    if not (offset == 0 and axis1 == -1 and axis2 == -2):
        raise NotImplementedError("Currently make_diagonal only supports offset=0, axis1=-1, axis2=-2")
    # With a matrix as one row of n * n numbers, the diagonal is every (n + 1)-th number.
    size = D.shape[-1]
    matrices = onp.zeros_like(D, shape=(*D.shape[:-1], size * size), dtype=float, order="C")
    matrices[..., :: size + 1] = D
    return onp.reshape(matrices, (*D.shape, size))


@notrace_primitive
def parse_einsum_input(*args):
    """The subscripts of an einsum; they depend on the shapes of its operands alone."""
    shapes = (onp.broadcast_to(0.0, arg.shape) if hasattr(arg, "shape") else arg for arg in args)
    return numpy_wrapper._parse_einsum_input(tuple(shapes))


FUNCTIONS = {
    fun.__name__: fun
    for fun in (
        concatenate_args,
        _array_from_scalar_or_array,
        array_from_args,
        make_diagonal,
        parse_einsum_input,
    )
}

# ---------------------------------------------------------------- reductions


def _axes(axis, ndim):
    if axis is None:
        return tuple(range(ndim))
    return tuple(a % ndim for a in (axis if isinstance(axis, (tuple, list)) else (axis,)))


def _repeated(g, x, axis):
    """`g`, a gradient in a reduction of `x`, repeated over the axes of the reduction; and their number of
    places.
    """
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
    return np.conj(x - np.mean(x, axis=axis, keepdims=True))


def _var_vjp(ans, x, axis=None, ddof=0, keepdims=False, **kwargs):
    def vjp(g):
        g = g + 0j if np.iscomplexobj(x) else g
        repeated, count = _repeated(g, x, axis)
        return 2.0 * repeated * _centred(x, axis) / (count - ddof)

    return vjp


def _std_vjp(ans, x, axis=None, ddof=0, keepdims=False, **kwargs):
    def vjp(g):
        g = g + 0j if np.iscomplexobj(x) else g
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
    return lambda g: match_complex(A, _dot_adjoint_0(_array(B), g, ndim, dtype))


def _dot_vjp_1(ans, A, B):
    ndim, dtype = np.ndim(B), np.result_type(B)
    return lambda g: match_complex(B, _dot_adjoint_1(_array(A), g, ndim, dtype))


def _einsum_vjp(argnum, ans, operands, kwargs):
    """The gradient in one operand of an einsum: an einsum of the gradient and the other operands."""
    target, target_meta = operands[argnum], np.metadata(operands[argnum])

    def of_string(g):
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

    def of_lists(g):
        if len(operands) % 2 == 0:
            raise NotImplementedError("Need sublistout argument")
        parts = list(operands)
        rest = [parts[-1], *parts[:argnum], *parts[argnum + 2 : -1], parts[argnum + 1]]
        return unbroadcast_einsum(np.einsum(g, *rest), target_meta, parts[argnum + 1])

    return of_string if isinstance(operands[0], str) else of_lists


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


def _trace_vjp(ans, x, offset=0):
    return lambda g: np.einsum("ij,...->ij...", _shifted_eye(x, offset), g)


def _shifted_eye(x, offset):
    ones = np.ones_like(x, shape=x.shape[:2], dtype=float, order="C")
    return np.tril(np.triu(ones, offset), offset)


def _sort_vjp(ans, x, axis=-1, kind=None, order=None):
    if x.ndim > 1:
        raise NotImplementedError("Gradient of sort not implemented for multi-dimensional arrays.")
    options = {"kind": kind, "order": order} if kind or order else {}
    permutation = np.argsort(x, axis, **options)
    return lambda g: g[np.argsort(permutation)]


@primitive
def _scatter(g, index, space):
    """Zeros of a vector space with `g` added at `index`, like autograd's `untake`."""
    if isinstance(index, list) and not index:
        index = slice(0, 0)
    return SparseObject(space, partial(_add_at, index=index, g=g))


def _add_at(array, index, g):
    parts = [(array.real, g.real), (array.imag, g.imag)] if array.dtype.kind == "c" else [(array, g)]
    for part, added in parts:  # CuPy adds only real numbers at an index
        onp.add.at(part, index, added)
    return array


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
    np.trace: (_trace_vjp,),
    np.sort: (_sort_vjp,),
    func(ArrayBox.__getitem__): (lambda ans, x, index: lambda g: _scatter(g, index, vspace(x)),),
    # Derivatives of this module's own functions; the adjoints of a product are products again.
    make_diagonal: (lambda ans, D, *axes, **named: lambda g: np.diagonal(g, *axes, **named),),
    _scatter: (lambda ans, g, index, space: lambda h: h[index],),
    _dot_adjoint_0: (
        lambda ans, B, G, *_: lambda A: match_complex(B, _dot_adjoint_1(A, G, np.ndim(B), np.result_type(B))),
        lambda ans, B, G, *_: lambda A: match_complex(G, np.dot(A, B)),
    ),
    _dot_adjoint_1: (
        lambda ans, A, G, *_: lambda B: match_complex(A, _dot_adjoint_0(B, G, np.ndim(A), np.result_type(A))),
        lambda ans, A, G, *_: lambda B: match_complex(G, np.dot(A, B)),
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
