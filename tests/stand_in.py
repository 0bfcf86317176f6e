"""A stand-in for CuPy's arrays, as strict as they are, for machines with no GPU.

It holds its numbers on the host, and lets them be used as CuPy 14 lets its arrays be used: NumPy's functions
reach it by dispatch (`__array_ufunc__`, `__array_function__`) if CuPy has them, with the keywords that CuPy has;
it refuses implicit conversion, and arrays of NumPy's beside it; what NumPy gives as a scalar is an array
without axes. Every transfer is counted. In two things it is stricter: CuPy sends a NumPy array that is an index at
every call, and wraps an index that is out of bounds around; here both are errors. `tests/test_stand_in.py` holds the tables below against CuPy itself, where it
is installed (no GPU is needed for that).

Source: CuPy's user guide, "Differences between CuPy and NumPy", and what CuPy 14.2 answered.
"""

import functools
import importlib
import inspect
import operator
import sys
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from npflow.autodiff.gpu.device import Device
from npflow.autodiff.gpu.devices import HOST

# ---------------------------------------------------------------- what CuPy has

# The arguments of CuPy's functions, of those that npflow, autograd's derivatives and the tests call: any other
# function is refused. What comes before a slash has no keyword, what comes after a star is for keywords alone.
FUNCTIONS = {
    "all": "a axis out keepdims",
    "allclose": "a b rtol atol equal_nan",
    "amax": "a axis out keepdims",
    "amin": "a axis out keepdims",
    "any": "a axis out keepdims",
    "argmax": "a axis dtype out keepdims",
    "argmin": "a axis dtype out keepdims",
    "argpartition": "a kth axis",
    "argsort": "a axis kind",
    "array_equal": "a1 a2 equal_nan",
    "array_split": "ary indices_or_sections axis",
    "astype": "x dtype / * copy",
    "atleast_1d": "*arys",
    "atleast_2d": "*arys",
    "atleast_3d": "*arys",
    "broadcast_to": "array shape",
    "clip": "a a_min a_max out",
    "concatenate": "tup axis out * dtype casting",
    "copy": "a order",
    "copyto": "dst src casting where",
    "count_nonzero": "a axis",
    "cross": "a b axisa axisb axisc axis",
    "cumprod": "a axis dtype out",
    "cumsum": "a axis dtype out",
    "diag": "v k",
    "diagonal": "a offset axis1 axis2",
    "diff": "a n axis prepend append",
    "dot": "a b out",
    "einsum": "*operands **kwargs",
    "empty_like": "prototype dtype order subok shape",
    "expand_dims": "a axis",
    "flip": "a axis",
    "fliplr": "a",
    "flipud": "a",
    "full_like": "a fill_value dtype order subok shape",
    "gradient": "f *varargs axis edge_order",
    "imag": "val",
    "inner": "a b",
    "interp": "x xp fp left right period",
    "isclose": "a b rtol atol equal_nan",
    "iscomplexobj": "x",
    "kron": "a b",
    "max": "a axis out keepdims",
    "may_share_memory": "a b max_work",
    "mean": "a axis dtype out keepdims",
    "min": "a axis out keepdims",
    "moveaxis": "a source destination",
    "nan_to_num": "x copy nan posinf neginf",
    "ndim": "a",
    "nonzero": "a",
    "ones_like": "a dtype order subok shape",
    "outer": "a b out",
    "partition": "a kth axis",
    "prod": "a axis dtype out keepdims",
    "ravel": "a order",
    "real": "val",
    "repeat": "a repeats axis",
    "reshape": "a newshape order * copy",
    "result_type": "*arrays_and_dtypes",
    "roll": "a shift axis",
    "rollaxis": "a axis start",
    "rot90": "a k axes",
    "searchsorted": "a v side sorter",
    "shape": "a",
    "sinc": "x",
    "size": "a axis",
    "sort": "a axis kind",
    "split": "ary indices_or_sections axis",
    "squeeze": "a axis",
    "stack": "tup axis out * dtype casting",
    "std": "a axis dtype out ddof keepdims",
    "sum": "a axis dtype out keepdims",
    "swapaxes": "a axis1 axis2",
    "take": "a indices axis out",
    "take_along_axis": "a indices axis",
    "tensordot": "a b axes",
    "tile": "A reps",
    "trace": "a offset axis1 axis2 dtype out",
    "transpose": "a axes",
    "tril": "m k",
    "triu": "m k",
    "var": "a axis dtype out ddof keepdims",
    "where": "condition x y",
    "zeros_like": "a dtype order subok shape",
    "linalg.cholesky": "a",
    "linalg.det": "a",
    "linalg.eigh": "a UPLO",
    "linalg.inv": "a",
    "linalg.norm": "x ord axis keepdims",
    "linalg.pinv": "a rcond",
    "linalg.slogdet": "a",
    "linalg.solve": "a b",
    "linalg.svd": "a full_matrices compute_uv",
}
# What a program or a test makes an array with.
CREATION = {
    "arange": "start stop step dtype",
    "array": "obj dtype copy order subok ndmin * blocking",
    "asarray": "a dtype order * copy blocking",
    "empty": "shape dtype order",
    "eye": "N M k dtype order",
    "full": "shape fill_value dtype order",
    "ones": "shape dtype order",
    "tri": "N M k dtype",
    "zeros": "shape dtype order",
}
NOT_UFUNCS = {"isnat", "matvec", "spacing", "vecdot", "vecmat"}  # NumPy's ufuncs that CuPy has not
UFUNC_OPTIONS = {"out", "where", "dtype", "casting"}
# Which ufuncs have a method; the others' raise NotImplementedError.
UFUNC_METHODS = {
    "at": {"add", "maximum", "minimum"},
    "reduce": {"add", "multiply"},
    "accumulate": {"add", "multiply"},
}
AT_DTYPES = ("int32", "int64", "uint32", "uint64", "float16", "float32", "float64")
# These want arrays where NumPy takes numbers too: which arguments.
ARRAYS_ALONE = {"dot": 2, "inner": 2, "outer": 2, "tensordot": 2, "concatenate": 1, "stack": 1}
COMPARISONS = {np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal}
# Where these may be given integers of the host's: shapes and axes.
SHAPES_AND_AXES = {"broadcast_to": 1, "reshape": 1, "tensordot": 2, "transpose": 1}
# What these say of an array is known on the host; everything else gives arrays.
ON_THE_HOST = {"iscomplexobj", "may_share_memory", "ndim", "result_type", "shape", "size"}
METHODS = {
    "all": "axis out keepdims",
    "any": "axis out keepdims",
    "argmax": "axis out dtype keepdims",
    "argmin": "axis out dtype keepdims",
    "argsort": "axis kind",
    "astype": "dtype order casting subok copy",
    "clip": "min max out",
    "copy": "order",
    "cumprod": "axis dtype out",
    "cumsum": "axis dtype out",
    "diagonal": "offset axis1 axis2",
    "dot": "b out",
    "flatten": "order",
    "max": "axis out keepdims",
    "mean": "axis dtype out keepdims",
    "min": "axis out keepdims",
    "nonzero": "",
    "prod": "axis dtype out keepdims",
    "ravel": "order",
    "repeat": "repeats axis",
    "reshape": "*shape order copy",
    "round": "decimals out",
    "squeeze": "axis",
    "std": "axis dtype out ddof keepdims",
    "sum": "axis dtype out keepdims",
    "swapaxes": "axis1 axis2",
    "take": "indices axis out",
    "trace": "offset axis1 axis2 dtype out",
    "transpose": "*axes",
    "var": "axis dtype out ddof keepdims",
    "view": "dtype type",
}
# SciPy's functions in cupyx.scipy, and their arguments; those without are universal functions.
SCIPY = {
    "linalg.solve_triangular": "a b trans lower unit_diagonal overwrite_b check_finite",
    "special.expit": "",
    "special.gammaln": "",
    "special.log_ndtr": "",
    "special.ndtr": "",
    "special.ndtri": "",
}

# ---------------------------------------------------------------- transfers


@dataclass
class Transfers:
    """How many times something went to the device, and to the host."""

    to_device: int = 0
    to_host: int = 0


TRANSFERS = Transfers()


@contextmanager
def counted():
    """The transfers that are made while it is open."""
    before, here = Transfers(TRANSFERS.to_device, TRANSFERS.to_host), Transfers()
    yield here
    here.to_device = TRANSFERS.to_device - before.to_device
    here.to_host = TRANSFERS.to_host - before.to_host


# ---------------------------------------------------------------- the array

# How the result of a ufunc lies in memory: rows first, whatever order the arguments lie in. NumPy keeps theirs.
ORDER = "C"


@contextmanager
def numpys_order():
    """While it is open, results lie in memory as NumPy's do: what is added up later is added in the same order."""
    global ORDER
    ORDER = "K"
    try:
        yield
    finally:
        ORDER = "C"


def unwrap(argument, place="an argument"):
    """What NumPy is given in the place of an argument; arrays of its own are refused."""
    if isinstance(argument, StrictArray):
        return argument.host
    if isinstance(argument, np.ndarray):
        raise TypeError(
            f"Unsupported type {type(argument)}: {place} of shape {argument.shape} is on the host"
        )
    if isinstance(argument, (list, tuple)):
        return type(argument)(unwrap(part, place) for part in argument)
    return argument


def wrap(result):
    """What the device gives where NumPy gave this."""
    if isinstance(result, (np.ndarray, np.generic, bool)):
        return StrictArray(np.asarray(result))
    if isinstance(result, (list, tuple)):
        parts = [wrap(part) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


@functools.cache
def signature(text):
    """An argument list of the tables as a signature; all but the first may be left out."""
    kinds = inspect.Parameter
    kind, parameters = kinds.POSITIONAL_OR_KEYWORD, []
    for word in text.split():
        if word == "*":
            kind = kinds.KEYWORD_ONLY
        elif word == "/":
            parameters = [parameter.replace(kind=kinds.POSITIONAL_ONLY) for parameter in parameters]
        elif word.startswith("**"):
            parameters.append(kinds(word[2:], kinds.VAR_KEYWORD))
        elif word.startswith("*"):
            parameters.append(kinds(word[1:], kinds.VAR_POSITIONAL))
            kind = kinds.KEYWORD_ONLY
        else:
            parameters.append(kinds(word, kind, default=None))
    return inspect.Signature(parameters)


def check_arguments(name, text, args, kwargs):
    """The arguments by their names; raise the error that CuPy's function would."""
    try:
        bound = signature(text).bind(*args, **kwargs).arguments
    except TypeError as error:
        raise TypeError(f"cupy.{name}() {error}") from None
    if bound.get("kind", "stable") not in (None, "stable"):
        raise ValueError("kind can only be None or 'stable'")
    return bound


def call(name, function, args, kwargs):
    """A function of NumPy's, as CuPy's of the same name."""
    bound = check_arguments(name, FUNCTIONS[name], args, kwargs)
    for arg in args[: ARRAYS_ALONE.get(name, 0)]:
        for one in arg if isinstance(arg, (list, tuple)) else [arg]:
            if not isinstance(one, (StrictArray, np.ndarray)):
                raise TypeError(
                    f"an argument of {name} has incorrect type (expected ndarray, got {type(one).__name__})"
                )
    if name in ("take", "take_along_axis"):
        check_inside(bound["indices"], np.shape(bound["a"]), bound.get("axis"))
    if name == "nonzero":
        TRANSFERS.to_host += 1  # how many there are has to be known on the host
    if name == "copyto" and isinstance(args[1], np.ndarray) and args[1].ndim:
        raise ValueError("non-scalar numpy.ndarray cannot be used for copyto")
    plain = SHAPES_AND_AXES.get(name)
    result = function(
        *(
            arg if number == plain else unwrap(arg, f"an argument of {name}")
            for number, arg in enumerate(args)
        ),
        **{key: unwrap(value, f"{key} of {name}") for key, value in kwargs.items() if value is not None},
    )
    if bound.get("out") is not None:
        return bound["out"]
    return result if name in ON_THE_HOST else wrap(result)


def call_ufunc(ufunc, method, inputs, kwargs):
    """A universal function of NumPy's, as CuPy's of the same name."""
    unknown = set(kwargs) - (UFUNC_OPTIONS | ({"axis", "keepdims"} if method == "reduce" else set()))
    if unknown:
        raise TypeError(f"Wrong arguments {sorted(unknown)} of {ufunc.__name__}")
    if ufunc in COMPARISONS:
        inputs = [
            value.item() if isinstance(value, np.ndarray) and not value.ndim else value for value in inputs
        ]
    for value in inputs:
        if isinstance(value, list):
            raise TypeError(f"Unsupported type {type(value)}")
    out = kwargs.pop("out", None)
    out = out[0] if isinstance(out, tuple) else out
    if out is not None and not isinstance(out, StrictArray):
        raise TypeError(f"return arrays must be of the device's type, got a {type(out).__name__}")
    options = {key: unwrap(value, key) for key, value in kwargs.items()}
    if out is not None:
        options["out"] = out.host
    result = getattr(ufunc, method)(
        *(unwrap(value, f"an argument of {ufunc.__name__}") for value in inputs), **options
    )
    if out is not None:
        return out
    return wrap(np.asarray(result, order=ORDER))


def check_inside(indices, shape, axis):
    """CuPy wraps indices that are out of bounds around, and says nothing; here they are an error."""
    size = np.prod(shape, dtype=int) if axis is None else shape[axis]
    indices = indices.host.reshape(-1) if isinstance(indices, StrictArray) else ()
    if len(indices) and not -size <= indices.min() <= indices.max() < size:
        raise IndexError(f"an index is out of bounds for {size} places: CuPy would wrap it around silently")


def unwrap_index(index, shape):
    """An index without arrays of the device."""
    parts = index if isinstance(index, tuple) else (index,)
    taken = [part for part in parts if part is not None]
    axes = sum(
        part.ndim if isinstance(part, StrictArray) and part.dtype == bool else 1
        for part in taken
        if part is not Ellipsis
    )
    plain, axis = [], 0
    for part in parts:
        if isinstance(part, np.ndarray):
            raise TypeError(f"Unsupported type {type(part)}: an index of shape {part.shape} is on the host")
        if isinstance(part, list):
            TRANSFERS.to_device += 1
        if isinstance(part, StrictArray) and part.dtype == bool:
            TRANSFERS.to_host += 1  # how many there are has to be known on the host
        elif isinstance(part, StrictArray):
            check_inside(part, shape, axis)
        if part is Ellipsis:
            axis += len(shape) - axes
        elif part is not None:
            axis += part.ndim if isinstance(part, StrictArray) and part.dtype == bool else 1
        plain.append(part.host if isinstance(part, StrictArray) else part)
    return tuple(plain) if isinstance(index, tuple) else plain[0]


class StrictArray:
    """An array that can be used as CuPy's can; made by `Strict.send`, or by NumPy's functions on others."""

    __slots__ = ("host",)
    __array_priority__ = 100
    __hash__ = None

    def __init__(self, host):
        self.host = host

    shape, ndim, size, dtype, strides, nbytes, itemsize, flags = (
        property(operator.attrgetter(f"host.{name}"))
        for name in ("shape", "ndim", "size", "dtype", "strides", "nbytes", "itemsize", "flags")
    )
    T = property(lambda self: StrictArray(self.host.T))
    real = property(lambda self: StrictArray(self.host.real))
    imag = property(lambda self: StrictArray(self.host.imag))
    base = property(lambda self: None if self.host.base is None else StrictArray(self.host.base))

    # Dispatch.

    def __array__(self, *args, **kwargs):
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        plain = (StrictArray, np.ndarray, np.generic, bool, int, float, complex, list)
        values = inputs[::2] if method == "at" else inputs  # the second is an index
        numpys = getattr(np, ufunc.__name__, None) is ufunc and ufunc.__name__ not in NOT_UFUNCS
        if not numpys or not all(isinstance(value, plain) for value in values):
            return NotImplemented
        if method in UFUNC_METHODS and ufunc.__name__ not in UFUNC_METHODS[method]:
            raise NotImplementedError(f"`{method}` is not supported for {ufunc.__name__}")
        if method == "at":
            target, index, value = inputs
            if target.dtype.name not in AT_DTYPES:
                raise TypeError(f"cupy.{ufunc.__name__}.at only supports {', '.join(AT_DTYPES)}")
            ufunc.at(
                target.host,
                unwrap_index(index, target.shape),
                unwrap(value, f"an argument of {ufunc.__name__}.at"),
            )
            return None
        return call_ufunc(ufunc, method, inputs, kwargs)

    def __array_function__(self, function, types, args, kwargs):
        module = function.__module__.partition(".")[2]
        name = f"{module}.{function.__name__}" if module in ("linalg", "fft") else function.__name__
        if name not in FUNCTIONS or not all(issubclass(kind, (StrictArray, np.ndarray)) for kind in types):
            return NotImplemented
        return call(name, function, args, kwargs)

    # Indexing.

    def __getitem__(self, index):
        index = unwrap_index(index, self.shape)
        found = self.host[index]
        if isinstance(found, np.generic):  # a view, as all that has no arrays in its index
            found = self.host[(*index, ...) if isinstance(index, tuple) else (index, ...)]
        return wrap(found)

    def __setitem__(self, index, value):
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if isinstance(value, (list, tuple)):
            TRANSFERS.to_device += 1
        self.host[unwrap_index(index, self.shape)] = value.host if isinstance(value, StrictArray) else value

    def __len__(self):
        return len(self.host)

    def __iter__(self):
        return (self[number] for number in range(len(self)))

    # Transfers.

    def get(self):
        """A copy on the host."""
        TRANSFERS.to_host += 1
        return self.host.copy("K")

    def item(self):
        return self.get().item()

    def tolist(self):
        return self.get().tolist()

    def tobytes(self):
        return self.get().tobytes()

    def __bool__(self):
        return bool(self.get())

    def __float__(self):
        return float(self.get())

    def __int__(self):
        return int(self.get())

    def __complex__(self):
        return complex(self.get())

    def __index__(self):
        return operator.index(self.get())

    def fill(self, value):
        self[...] = value

    def __repr__(self):
        return f"StrictArray({self.host!r})"


def _method(name):
    def method(self, *args, **kwargs):
        bound = check_arguments(f"ndarray.{name}", METHODS[name], args, kwargs)
        if name == "take":
            check_inside(bound["indices"], self.shape, bound.get("axis"))
        if name == "nonzero":
            TRANSFERS.to_host += 1
        args = [unwrap(arg, f"an argument of {name}") for arg in args]
        kwargs = {key: unwrap(value, f"{key} of {name}") for key, value in kwargs.items()}
        result = getattr(self.host, name)(*args, **kwargs)
        return wrap(result) if bound.get("out") is None else bound["out"]

    return method


for name in METHODS:
    setattr(StrictArray, name, _method(name))

BINARY = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "pow": np.power, "mod": np.remainder,
    "floordiv": np.floor_divide, "matmul": np.matmul, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
COMPARING = {
    "gt": np.greater,
    "ge": np.greater_equal,
    "lt": np.less,
    "le": np.less_equal,
    "eq": np.equal,
    "ne": np.not_equal,
}
UNARY = {"neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert}
for name, ufunc in BINARY.items():
    setattr(StrictArray, f"__{name}__", lambda self, other, ufunc=ufunc: ufunc(self, other))
    setattr(StrictArray, f"__r{name}__", lambda self, other, ufunc=ufunc: ufunc(other, self))
    setattr(StrictArray, f"__i{name}__", lambda self, other, ufunc=ufunc: ufunc(self, other, out=self))
for name, ufunc in COMPARING.items():
    setattr(StrictArray, f"__{name}__", lambda self, other, ufunc=ufunc: ufunc(self, other))
for name, ufunc in UNARY.items():
    setattr(StrictArray, f"__{name}__", lambda self, ufunc=ufunc: ufunc(self))

# ---------------------------------------------------------------- the module, and the device


class Module:
    """What the stand-in has in the place of the module `cupy`; programs import it by its name."""

    __name__ = "strict"
    ndarray = StrictArray

    def __init__(self, prefix="", holder=np):
        self.prefix, self.holder = prefix, holder

    def __getattr__(self, name):
        full, found = f"{self.prefix}{name}", getattr(self.holder, name, None)
        if isinstance(found, np.ufunc) and name not in NOT_UFUNCS:
            return lambda *args, **kwargs: call_ufunc(found, "__call__", args, kwargs)
        if full in FUNCTIONS:
            return lambda *args, **kwargs: call(full, found, args, kwargs)
        if full in CREATION:
            return functools.partial(self._create, full, found)
        if isinstance(found, type) and issubclass(found, np.generic):
            return found
        if name in ("linalg", "fft"):
            return Module(f"{name}.", found)
        raise AttributeError(f"module 'cupy' has no attribute {full!r}")

    @staticmethod
    def _create(name, function, *args, **kwargs):
        check_arguments(name, CREATION[name], args, kwargs)
        if name in ("array", "asarray"):
            if isinstance(args[0], StrictArray):
                return StrictArray(function(args[0].host, *args[1:], **kwargs))
            if isinstance(args[0], list) and any(isinstance(part, StrictArray) for part in args[0]):
                return StrictArray(function(unwrap(args[0], "a part of an array"), *args[1:], **kwargs))
            TRANSFERS.to_device += 1
        return StrictArray(function(*args, **kwargs))


class Strict(Device):
    """The device of the stand-in's arrays: what CuPy is to `npflow.autodiff.gpu.devices.Cuda`."""

    name, alias = "strict", "strict"
    exact = True  # its numbers are the host's
    available = 2**30  # bytes

    def __init__(self):
        self.array_type, self.module, self.files = StrictArray, Module(), (__file__,)
        sys.modules[self.module.__name__] = self.module

    def send(self, array):
        TRANSFERS.to_device += 1
        return StrictArray(np.array(array))

    def fetch(self, array):
        return array.get()

    def generator(self, rng):
        return StrictGenerator(rng)

    def scipy(self, name):
        if name not in SCIPY:
            raise AttributeError(f"cupyx.scipy has no {name}")
        module, _, function = name.rpartition(".")
        function = getattr(importlib.import_module(f"scipy.{module}"), function)

        def on_device(*args, **kwargs):
            if isinstance(function, np.ufunc):
                return call_ufunc(function, "__call__", args, kwargs)
            check_arguments(name, SCIPY[name], args, kwargs)
            return wrap(function(*map(unwrap, args), **kwargs))

        return on_device

    def free_bytes(self):
        return self.available

    def memory(self, size):
        return StrictArray(HOST.memory(size))

    def array_at(self, memory, offset, shape, dtype, strides):
        return StrictArray(np.ndarray(shape, dtype, memory.host, offset, strides))


class StrictGenerator:
    """What CuPy's generator has, with the host generator's own numbers."""

    def __init__(self, rng):
        self.rng = rng

    def standard_normal(self, size=None, dtype=np.float64, out=None):
        return wrap(self.rng.standard_normal(size, dtype))

    def random(self, size=None, dtype=np.float64, out=None):
        return wrap(self.rng.random(size, dtype))

    def uniform(self, low=0.0, high=1.0, size=None, dtype=np.float64):
        return wrap(self.rng.uniform(low, high, size).astype(dtype))
