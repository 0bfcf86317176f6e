"""How a call is written in Python, and what is known about its function."""

import math
from collections.abc import KeysView
from dataclasses import replace

import numpy as np
from autograd.numpy import numpy_boxes, numpy_wrapper

from npflow.autodiff.derivatives import scatter
from npflow.autodiff.gpu import cupy
from npflow.autodiff.gpu.devices import HOST, as_array, device_of, fetch, is_array
from npflow.autodiff.primitives import FRESH
from npflow.autodiff.program.naming import identifier, unique
from npflow.autodiff.program.tape import Value, example_of

GETITEM = numpy_boxes.ArrayBox.__getitem__.fun
ASTYPE = numpy_wrapper._astype.fun
# autograd's functions, and those that replace them once a device is used.
CONCATENATE = {numpy_wrapper.concatenate_args.fun, cupy.concatenate_args.fun}
ARRAY = {numpy_wrapper.array_from_args.fun, cupy.array_from_args.fun}

# Functions of the shape and dtype of their first argument.
SHAPE_ONLY = {np.zeros_like, np.ones_like, np.empty_like, np.full_like, np.shape, np.ndim, np.size}
INDEXED = {GETITEM, np.take, scatter.fun}  # their second argument is an index
WITH_OUT = {np.dot, np.sum, np.prod, np.max, np.min, np.mean, np.take, np.cumsum, np.clip, *CONCATENATE}
# As methods these take half the time: numpy.sum first looks for a method of its argument.
METHODS = {np.sum: "sum", np.prod: "prod", np.max: "max", np.min: "min", np.mean: "mean", np.take: "take"}
MODULES = {"np": np, "np.linalg": np.linalg, "np.fft": np.fft}
PUBLIC = {}
for module, namespace in MODULES.items():
    for public, function in vars(namespace).items():
        if callable(function) and not public.startswith("_"):
            PUBLIC.setdefault(id(function), f"{module}.{getattr(function, '__name__', public)}")


def is_numpys(function):
    """Whether a function is NumPy's, or autograd's version of one."""
    return id(function) in PUBLIC or function in {GETITEM, ASTYPE, *CONCATENATE, *ARRAY}


def is_ufunc(function):
    """Whether a function is a universal function with one result, which works element by element."""
    return isinstance(function, np.ufunc) and function.nout == 1 and function.signature is None


def is_elementwise(function):
    """Whether a function reads each element before it writes there, so that it may write over an argument."""
    return is_ufunc(function) or function is np.clip


def takes_out(call):
    """Whether a call can write its result to an existing array."""
    example, has_out = call.example, call.function in WITH_OUT or call.function in FRESH
    return (
        call.is_array
        and not call.views
        and example.ndim > 0
        and example.size > 0
        and (example.flags.c_contiguous or (example.flags.f_contiguous and not has_out))
        and not {"out", "where", "dtype", "casting", "order", "subok"} & set(call.options)
        and (is_ufunc(call.function) or call.function is np.matmul or has_out)
    )


class Spelling:
    """Calls as Python expressions.

    `namespace` has the functions and constants that the text names and does not make. `definitions` has a line
    for each constant: an expression, or a comment where it would be too long.
    """

    def __init__(self, taken, device=HOST):
        self.device, self.alias = device, device.alias
        self.namespace, self.definitions, self.constants = {self.alias: device.module}, [], 0
        self.taken = set(taken) | {self.alias}
        self.known = {}

    def call(self, call, out=None):
        """A call as an expression, which writes to the array named `out` if there is one."""
        if call.function in INDEXED and self.device is not HOST:
            array, index, *rest = call.arguments
            call = replace(call, arguments=(array, self.sent(index), *rest))
        function, options = call.function, dict(call.options)
        if function is GETITEM:
            return f"{self.argument(call.arguments[0])}[{self.index(call.arguments[1])}]"
        first, *rest = call.arguments
        if function is ASTYPE:
            return f"{self.argument(first)}.astype({self.listed(rest, options)})"
        if function is np.reshape and len(rest) == 1 and not options and is_array(example_of(first)):
            shape = rest[0].tolist() if isinstance(rest[0], np.ndarray) else rest[0]
            return f"{self.argument(first)}.reshape({self.argument(shape)})"
        if function in CONCATENATE:
            options = {"axis": first} | ({"out": Text(out)} if out else {})
            return f"{self.alias}.concatenate({self.listed([tuple(rest)], options)})"
        if function in ARRAY:
            array_args, array_kwargs, *parts = call.arguments
            parts = ", ".join(map(self.argument, parts))
            return f"{self.alias}.array({self.listed([Text(f'[{parts}]'), *array_args], array_kwargs)})"
        if out:
            options["out"] = Text(out)
        if function in METHODS and isinstance(first, Value) and hasattr(first.example, METHODS[function]):
            return f"{self.argument(first)}.{METHODS[function]}({self.listed(rest, options)})"
        return f"{self.function(function)}({self.listed(call.arguments, options)})"

    def sent(self, index):
        """An index with its arrays and lists on the device: CuPy would send them at every call."""
        if isinstance(index, tuple):
            return tuple(map(self.sent, index))
        is_hosts = isinstance(index, list) or (isinstance(index, np.ndarray) and index.ndim)
        return self.device.send(np.asarray(index)) if is_hosts else index

    def listed(self, arguments, options):
        """Arguments and options as text."""
        named = [f"{name}={self.argument(option)}" for name, option in options.items()]
        return ", ".join([*map(self.argument, arguments), *named])

    def function(self, function):
        """The name of a function."""
        if id(function) in PUBLIC:
            return self.alias + PUBLIC[id(function)].removeprefix("np")
        return self.named(identifier(getattr(function, "__name__", "function")), function)

    def named(self, name, thing):
        """The name in `namespace` of a thing that has no text."""
        if id(thing) not in self.known:
            self.known[id(thing)] = unique(name, self.taken)
            self.namespace[self.known[id(thing)]] = thing
        return self.known[id(thing)]

    def argument(self, argument):
        """A value's name, or a constant as text."""
        if isinstance(argument, Value) and is_transpose(argument):
            return f"{self.argument(argument.arguments[0])}.T"
        if isinstance(argument, Value):
            return argument.name
        if isinstance(argument, Text):
            return argument
        if isinstance(argument, KeysView):  # of a dict of autograd's
            argument = tuple(argument)
        if isinstance(argument, (tuple, list)):
            inside = ", ".join(map(self.argument, argument))
            if isinstance(argument, list):
                return f"[{inside}]"
            return f"({inside},)" if len(argument) == 1 else f"({inside})"
        if argument is None or argument is Ellipsis or type(argument) in (bool, int, str):
            return repr(argument) if argument is not Ellipsis else "..."
        if type(argument) is float and math.isfinite(argument):
            return repr(argument)
        if type(argument) is float and math.isinf(argument):
            return f'float("{argument}")'
        if isinstance(argument, slice):
            return f"slice({argument.start}, {argument.stop}, {argument.step})"
        if isinstance(argument, np.dtype) and argument.isbuiltin == 1:
            return f"{self.alias}.{argument.type.__name__}"
        if isinstance(argument, type) and issubclass(argument, np.generic):
            return f"{self.alias}.{argument.__name__}"
        return self.constant(argument)

    def constant(self, argument):
        """The name of a constant, which a line of its own defines if it is short."""
        array = is_array(argument) or isinstance(argument, np.generic)
        key = content(argument) if array else id(argument)
        if key not in self.known:
            name, definition = _definition(fetch(argument), self.alias) if array else (None, None)
            self.constants += name is None
            self.known[key] = name = unique(name or f"constant_{self.constants}", self.taken)
            if definition is None:
                self.namespace[name] = argument.copy("K") if is_array(argument) else argument
                self.definitions.append(f"# {name} = program.constants[{name!r}], {_about(argument)}")
            else:
                self.definitions.append(f"{name} = {definition}")
        return self.known[key]

    def index(self, index):
        """The text between the brackets."""
        if isinstance(index, tuple) and index:
            return ", ".join(self.index(i) if isinstance(i, slice) else self.argument(i) for i in index) + (
                "," if len(index) == 1 else ""
            )
        if isinstance(index, slice):
            ends = ["" if end is None else self.argument(end) for end in (index.start, index.stop)]
            step = "" if index.step is None else f":{self.argument(index.step)}"
            return ":".join(ends) + step
        return self.argument(index)


def content(array):
    """A key that is equal for arrays that a function cannot tell apart."""
    values, array = fetch(array), as_array(array)
    even = is_uniform(values)  # as most large constants, which are quick to compare then
    bits = values.flat[:1].tobytes() if even else values.tobytes()
    return (device_of(array).name, array.dtype.str, array.shape, array.strides, even, bits)


def key_of(argument):
    """A key that is equal for arguments that a function cannot tell apart."""
    if is_array(argument):
        return ("array", content(argument))
    if isinstance(argument, (tuple, list)):
        return (type(argument), *map(key_of, argument))
    if isinstance(argument, dict):
        return tuple((name, key_of(value)) for name, value in sorted(argument.items()))
    if isinstance(argument, slice):
        return (slice, argument.start, argument.stop, argument.step)
    try:
        hash(argument)
    except TypeError:
        return ("the very same", id(argument))
    # repr tells 0.0 from -0.0, which are equal
    return (type(argument), repr(argument) if isinstance(argument, (float, np.floating)) else argument)


def is_uniform(array):
    """Whether an array has the same bits in every place."""
    array = fetch(array)
    words = f"u{array.dtype.itemsize}"  # compared as integers, 0.0 is not -0.0, and nan is nan
    if array.size == 0:
        return True
    if array.dtype.itemsize not in (1, 2, 4, 8) or array.dtype.hasobject:
        return False
    return bool((array.view(words) == array.flat[:1].view(words)).all())


def _definition(array, alias):
    """A name for a constant array, or None, and the expression that makes it, or None if it is too long."""
    dtype = f"{alias}.{array.dtype.type.__name__}"
    plain = array.dtype.kind in "fiub" and array.dtype.isnative and array.dtype.itemsize <= 8
    contiguous = array.flags.c_contiguous or array.flags.f_contiguous
    if not plain or not contiguous or not np.isfinite(array).all():
        return None, None
    if not array.ndim:
        return None, f"{alias}.array({array.item()!r}, {dtype})"
    if is_uniform(array) and array.flags.c_contiguous:
        shape, first = array.shape, array.flat[0].item() if array.size else 0
        word = {"0.0": "zeros", "1.0": "ones"}.get(repr(float(first)))  # -0.0 is not 0.0
        if word:
            return f"{word}_{'x'.join(map(str, shape))}", f"{alias}.{word}({shape}, {dtype})"
        return None, f"{alias}.full({shape}, {first!r}, {dtype})"
    if array.size > 16:
        return None, None
    if array.flags.c_contiguous:
        return None, f"{alias}.array({array.tolist()!r}, {dtype})"
    return None, f"{alias}.array({array.T.tolist()!r}, {dtype}).T"


def _about(argument):
    shape = f" of shape {argument.shape}" if is_array(argument) else ""
    return f"{getattr(argument, 'dtype', type(argument).__name__)}{shape}"


def is_transpose(call):
    """Whether a call is a plain transpose, which its readers write as ``x.T``."""
    return call.function is np.transpose and len(call.arguments) == 1 and not call.options


class Text(str):
    """An argument that is already text."""

    __slots__ = ()
