"""The program that a recording becomes, and how it is run."""

import importlib
import itertools
import linecache
import math
import operator
import weakref
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from types import ModuleType
from typing import NamedTuple

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import HOST, as_array, device_of, fetch, is_array
from npflow.autodiff.program import statistics
from npflow.autodiff.program.buffers import plan
from npflow.autodiff.program.tape import example_of
from npflow.autodiff.program.writing import write
from npflow.errors import InputError, in_short

NUMBERS = itertools.count(1)  # of programs, for the names of their sources


class Program:
    """A function and its gradient as straight-line NumPy, for fixed shapes and dtypes; made by `record`.

    A program is pure: it reads its arguments and writes to its own workspaces, one for each thread that runs
    it. ``print(program)`` shows its cost by layer and direction, ``print(program.source)`` all of its lines.
    It can be copied and pickled, if its `constants` can.

    Attributes
    ----------
    device : npflow.autodiff.gpu.device.Device
        Where it runs.
    source : str
        Two functions, `forward` and `backward`, with one NumPy call a line. They are compiled from this text,
        so that a debugger steps through it.
    filename : str
        The name of the source in tracebacks and debuggers.
    lines : int
        The number of calls.
    peak_bytes : int
        The size of a workspace, known before the first run.
    bytes_without_reuse : int
        The size of a workspace if no two results shared a place.
    costs : dict
        The forward and the backward `Cost` of each layer.
    total_cost : Cost
        Their sum.
    cost_once : Cost
        Without what the backward pass computes once more, see `npflow.layers.Reversible`.
    constants : dict
        The functions and large constants that the source names and does not make.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from npflow.autodiff import record
    >>> loss = lambda params, x: np.sum((x - params["mean"]) ** 2)
    >>> params, x = {"mean": np.zeros(2)}, np.ones((3, 2))
    >>> program = record(loss, params, x)
    >>> value, gradient = program(params, x)
    >>> float(value), gradient  # 3 rows of 2 ones; -2 sum(x - mean)
    (6.0, array([-6., -6.]))
    """

    def __init__(self, fun, params, args, names, tape, reuse=True):
        buffers, self.device = plan(tape, reuse), tape.device
        self.name = getattr(fun, "__name__", type(fun).__name__)
        self.names, self.with_gradient = names, tape.gradients is not None
        self.leaves = {path: Expected(leaf, tree.is_trained(leaf)) for path, leaf in tree.items(params)}
        self.arguments = [
            {path: Expected(leaf, is_array(leaf)) for path, leaf in tree.items(arg, name)}
            for name, arg in zip(names, args)
        ]
        self.shapes = [value.example.shape for value in tape.parameters]
        self.dtype = tape.parameters[0].example.dtype if tape.parameters else np.dtype(float)
        self.peak_bytes, self.bytes_without_reuse = buffers.peak_bytes, buffers.bytes_without_reuse
        self.costs = statistics.costs_by_layer(tape, buffers.live)
        self.total_cost = statistics.total(self.costs)
        once = [call for call in tape.calls if not call.place.again or call.place.derivative_of]
        self.cost_once = statistics.total(statistics.costs_by_layer(replace(tape, calls=once), buffers.live))
        self.lines = self.total_cost.lines
        value = example_of(tape.value)
        self.value_shape, self.value_dtype = np.shape(value), np.result_type(value)

        self.source, self.constants, self.slots = write(tape, buffers, self._head())
        self._compile()

    def _compile(self):
        """Make the functions from the source."""
        self.filename = f"<npflow program {next(NUMBERS)}: {self.name}>"
        lines = self.source.splitlines(keepends=True)
        linecache.cache[self.filename] = (len(self.source), None, lines, self.filename)
        weakref.finalize(self, linecache.cache.pop, self.filename, None)
        namespace = dict(self.constants)
        exec(compile(self.source, self.filename, "exec"), namespace)
        self.forward, self.backward = namespace["forward"], namespace.get("backward")
        # The workspaces that no thread is using, by the queue that used them last.
        self._idle = defaultdict(deque)

    def __call__(self, params, *args):
        """The value and the gradient, a flat vector in the order of the tree; or the value alone.

        They are the plain function's to the bit if the arrays lie in memory as the recorded ones did, such as
        rows first. Otherwise NumPy may add up in another order, and the last bits differ.

        Raises
        ------
        InputError
            If shapes, dtypes or constants differ from those that were recorded.
        """
        parameters, data = self.read(params, *args)
        gradient = self.new_gradient() if self.with_gradient else None
        with self.workspace() as workspace:
            value = self.run(parameters, data, workspace, gradient)
            if is_array(value):  # it may lie in the workspace, or be an argument
                value = value.copy(order="K")
        return (value, gradient.vector) if self.with_gradient else value

    def read(self, params, *args):
        """Check the arguments, and collect the arrays that the program reads.

        Parameters
        ----------
        params : tree of ndarray
        *args : tree of ndarray
            Those of the function.

        Returns
        -------
        parameters, data : tuple of ndarray

        Raises
        ------
        InputError
            If shapes, dtypes or constants differ from those that were recorded.
        """
        if len(args) != len(self.arguments):
            raise InputError(
                f"expected {len(self.arguments)} arguments after params for {self!r}, got {len(args)}"
            )
        parameters = self._match(self.leaves, tree.items(params))
        data = []
        for expected, name, arg in zip(self.arguments, self.names, args):
            data += self._match(expected, tree.items(arg, name))
        return tuple(parameters), tuple(data)

    def run(self, parameters, data, workspace, gradient=None):
        """Compute the value, and the gradient if the program has one; nothing is checked.

        Parameters
        ----------
        parameters, data : tuple of ndarray
            From `read`.
        workspace : tuple of ndarray
            From `workspace`. The value may lie in it.
        gradient : Gradient, optional
            From `new_gradient`; the gradient is written to it.

        Returns
        -------
        float or ndarray
            The value.
        """
        with np.errstate(invalid="ignore"):  # see primitives._dot
            if not self.with_gradient:
                return self.forward(parameters, data, workspace)
            value, saved = self.forward(parameters, data, workspace)
            # A number, not memory of the workspace.
            value = value[()] if isinstance(value, np.ndarray) else value.copy() if is_array(value) else value
            self.backward(parameters, data, saved, workspace, gradient.leaves)
            return value

    def new_gradient(self, vector=None):
        """Memory for a gradient: a vector, and its parts for the parameters."""
        sizes = list(map(math.prod, self.shapes))
        if vector is None:
            vector = self.device.module.empty(sum(sizes), self.dtype)
        ends = itertools.accumulate(sizes)
        leaves = [
            vector[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, self.shapes)
        ]
        return Gradient(vector, tuple(leaves))

    @contextmanager
    def workspace(self):
        """A workspace that no other thread is using: the arrays for intermediate results.

        It is the one that was used last, which may still be in the cache.
        """
        idle = self._idle[self.device.queue()]
        try:
            workspace = idle.pop()
        except IndexError:
            memory = self.device.memory(self.peak_bytes)
            workspace = tuple(slot.array(memory, self.device) for slot in self.slots)
        try:
            yield workspace
        finally:
            idle.append(workspace)

    def drop_workspaces(self):
        """Free the workspaces that no thread is using."""
        self._idle.clear()

    def __getstate__(self):
        made = ("filename", "forward", "backward", "_idle")
        state = {name: value for name, value in vars(self).items() if name not in made}
        return state | {"constants": {name: by_name(thing) for name, thing in self.constants.items()}}

    def __setstate__(self, state):
        vars(self).update(state)
        for name, thing in self.constants.items():
            self.constants[name] = thing.find() if isinstance(thing, Named) else thing
        self._compile()

    def _match(self, expected, leaves):
        """The arrays among the leaves that the program reads, checked."""
        leaves = dict(leaves)
        missing, extra = expected.keys() - leaves.keys(), leaves.keys() - expected.keys()
        if missing:
            raise InputError(f"expected {min(missing)!r} for {self!r}, got none")
        if extra:
            raise InputError(f"expected no {min(extra)!r} for {self!r}, got one")
        for path, leaf in leaves.items():
            expected[path].check(path, leaf, self)
            if expected[path].is_read:
                yield as_array(leaf)

    def _head(self):
        inputs = ", ".join(
            f"{path} {leaf.dtype} {leaf.shape}"
            for argument in self.arguments
            for path, leaf in argument.items()
            if leaf.is_read
        )
        gradient, names = "", ""
        if self.with_gradient:
            gradient = " and its gradient"
            names = (
                "\ngradient: a place for the gradient in each parameter. "
                "saved: values of the forward pass that the backward pass reads."
            )
        return (
            f"{self.name}{gradient}, of {inputs or 'the parameters'}: {self.lines} calls, recorded by npflow."
            "\nparameters, data: the arrays that are read; buffers: places in a workspace of "
            f"{self.peak_bytes} bytes. A place is used again after the last reader of its value; never with "
            f"record(..., reuse=False).{names}"
        )

    def __repr__(self):
        return f"Program({self._head().split(':')[0]})"

    def _repr_html_(self):
        return (
            f"<pre>{escape(str(self))}</pre>"
            f"<details><summary>source</summary><pre>{escape(self.source)}</pre></details>"
        )

    def __str__(self):
        total = self.total_cost
        return (
            f"{self._head().splitlines()[0]}\n\n{statistics.table(self.costs)}\n\n"
            f"{total.flops / 1e6:.1f} Mflop, {total.bytes / 1e6:.1f} MB moved; "
            f"workspace {self.peak_bytes / 1e6:.2f} MB, "
            f"without reuse {self.bytes_without_reuse / 1e6:.2f} MB\n"
            "lines: calls; MB moved: read and written; MB held: the largest part of the workspace in use"
        )


class Named(NamedTuple):
    """A module, or the function of a primitive, as it is pickled: `pickle` can store neither."""

    module: str
    primitive: str = ""

    def find(self):
        """The module or the function."""
        module = importlib.import_module(self.module)
        return operator.attrgetter(f"{self.primitive}.fun")(module) if self.primitive else module


def by_name(thing):
    """A `Named` for a module or the function of a primitive; anything else is returned as it is."""
    if isinstance(thing, ModuleType):
        return Named(thing.__name__)
    named = Named(getattr(thing, "__module__", None), getattr(thing, "__qualname__", None))
    try:
        return named if named.find() is thing else thing
    except (AttributeError, ImportError, TypeError, ValueError):
        return thing


class Gradient(NamedTuple):
    """The memory for a gradient: one vector, and its views for the parameters."""

    vector: np.ndarray
    leaves: tuple


class Expected:
    """A leaf in the recording: an array that the program reads, or a constant, which is the same at each call."""

    def __init__(self, leaf, is_read):
        numeric = is_array(leaf) or isinstance(leaf, (np.generic, int, float, complex))
        if numeric:
            self.shape, self.dtype = as_array(leaf).shape, as_array(leaf).dtype
        self.is_read = is_read
        if not is_read:
            self.type, self.numbers = type(leaf), fetch(leaf).copy() if numeric else None
            self.value = self.numbers if is_array(leaf) else leaf
            # The array of a device that was last found to be the same.
            self.seen = leaf if is_array(leaf) and device_of(leaf) is not HOST else None

    def check(self, path, leaf, program):
        """Raise unless a leaf has the shape and dtype that the program reads, or is the constant."""
        if not self.is_read:
            if not self.is_same(leaf):
                raise InputError(
                    f"expected {path!r} to be the constant of the recording, {in_short(self.value)}, "
                    f"got {in_short(leaf)}: record a program for it too"
                )
            return
        if is_array(leaf) and device_of(leaf) is not program.device:
            raise InputError(
                f"expected {path!r} on {program.device}, where {program!r} runs, "
                f"got it on {device_of(leaf)}; see npflow.to_device"
            )
        array = as_array(leaf)
        if (array.shape, array.dtype) != (self.shape, self.dtype):
            raise InputError(
                f"expected {self.dtype} of shape {self.shape} for {path!r}, "
                f"got {array.dtype} of shape {array.shape}: record a program for these shapes too"
            )

    def is_same(self, leaf):
        """Whether a leaf is this constant to the bit, as 1 / 0.0 is not 1 / -0.0.

        An array of a device is fetched and compared once; if it was the same, it is taken to stay so.
        """
        if self.numbers is None:
            return leaf is self.value or np.array_equal(leaf, self.value)
        if type(leaf) is not self.type:
            return False
        elsewhere = device_of(leaf) is not HOST
        if elsewhere and leaf is self.seen:
            return True
        mine = fetch(leaf)
        same = (mine.shape, mine.dtype) == (
            self.shape,
            self.dtype,
        ) and mine.tobytes() == self.numbers.tobytes()
        self.seen = leaf if same and elsewhere else self.seen
        return same
