"""Record the calls of a function and of its gradient, under one more trace of autograd's."""

import functools
import gc
import itertools
import mmap
import re
import threading
import traceback
from contextlib import contextmanager
from dataclasses import replace
from types import CellType

import numpy as np
from autograd.numpy import numpy_boxes, numpy_wrapper
from autograd.tracer import Box, Node, isbox, new_box, notrace_primitives, register_notrace, trace_stack

from npflow.autodiff import tree
from npflow.autodiff.forks import in_forked_child
from npflow.autodiff.gpu.devices import as_array, device_of, is_array
from npflow.autodiff.gradient import Differentiated, value_and_grad
from npflow.autodiff.primitives import FRESH, TRANSPARENT
from npflow.autodiff.program import frames
from npflow.autodiff.program.calls import SHAPE_ONLY, is_numpys, key_of
from npflow.autodiff.program.refusals import IN_PLACE, NUMPY, READING, holds_box, refusal
from npflow.autodiff.program.tape import Place, Tape, Value
from npflow.errors import InputError, kind_of

LARGE = 2**14  # bytes: smaller arrays are kept as they are


class Recorded(Node):
    """A node of the recording's trace: the value that a call made."""

    __slots__ = ["value"]

    def __init__(self, value, fun, args, kwargs, argnums, parents):
        arguments = list(args)
        for argnum, parent in zip(argnums, parents):
            arguments[argnum] = parent.value
        self.value = Recording.running.add(value, fun, args, tuple(arguments), kwargs)

    def initialize_root(self, value):
        self.value = value


# Functions of shapes and dtypes alone: their results are constants.
for name in ("size", "isscalar", "metadata", "zeros_like", "ones_like", "empty_like"):
    register_notrace(Recorded, getattr(numpy_wrapper, name))


class RecordedGradient(Differentiated):
    """A node of the differentiated tape, which tells the recording when its derivative is computed."""

    __slots__ = ["value"]

    def __init__(self, value, fun, args, kwargs, argnums, parents):
        super().__init__(value, fun, args, kwargs, argnums, parents)
        self.watch(value)

    def initialize_root(self, value):
        super().initialize_root(value)
        self.watch(value)

    @classmethod
    def of(cls, parents, vjp, value=None):
        node = super().of(parents, vjp, value)
        node.watch(value)
        return node

    @classmethod
    def apart(cls, again):
        return Recording.running.apart(again)

    def watch(self, box):
        """Tell the recording from now on when this node's derivative is computed."""
        self.value = value_of(box)
        self.vjp = functools.partial(Recording.running.differentiate, self.value, self.vjp)

    def add(self, gradient, part):
        Recording.running.begin_derivative_of(self.value)
        return super().add(gradient, part)


notrace_primitives[RecordedGradient] = notrace_primitives[Differentiated]


def value_of(box):
    """The Value of a box of the recording; a constant as it is."""
    return box._node.value if isbox(box) else box


class Sealed(numpy_boxes.ArrayBox):
    """A box that refuses to be read: a number read off an array would be a constant of the program."""

    __slots__ = []

    def _refuse(self, *args, **kwargs):
        if self._is_another_threads():
            raise TypeError("expected an array, got a box of autograd's, whose number cannot be read")
        raise refused(READING)

    def __bool__(self):
        return super().__bool__() if self._is_another_threads() else self._refuse()

    def _is_another_threads(self):
        """Whether a thread that is not recording boxed it while a recording runs; that thread may branch."""
        return Recording.running is not None and Recording.running.thread != threading.get_ident()

    def __array__(self, *args, **kwargs):
        if self._is_another_threads():
            return self._refuse()
        raise refused(NUMPY, IN_PLACE)

    __float__ = __int__ = __complex__ = __index__ = __round__ = __format__ = item = tolist = _refuse


def refused(sentence, of_assignment=None):
    """An error with the line and the layer that are being recorded; on an assignment, with its own sentence."""
    line = Recording.running.line() if Recording.running else "a line after the recording"
    if of_assignment and re.search(r"\(.*\]\s*[-+*/@%]*=[^=]", line):
        sentence = of_assignment
    running = list(frames.frames_of_code(Recording.record.__code__)) if Recording.running else []
    return InputError(f"{sentence}, at {line}", frames.place_of_layer(running[::-1]))


UNDO = []  # how to end what recordings have changed for the process, the latest last: the thread, and a function


@contextmanager
def undone(undo):
    """A context that ends with ``undo()``, also in a child process that another thread forks meanwhile."""
    UNDO.append((threading.get_ident(), undo))
    try:
        yield
    finally:
        undo()
        UNDO.pop()


@contextmanager
def one_at_a_time():
    """A context that one thread can be in: autograd's stack of traces is one for the whole process.

    It collects no garbage: a recording makes thousands of nodes, and needs all.
    """
    with Recording.lock, undone(gc.enable if gc.isenabled() else gc.disable):
        gc.disable()
        yield


@in_forked_child
def end_others():
    """End what other threads were recording."""
    while UNDO and UNDO[-1][0] != threading.get_ident():
        UNDO.pop()[1]()
    if not UNDO:
        Recording.lock = threading.RLock()


SCALARS = (bool, int, float, np.bool_, np.int8, np.int16, np.int32, np.int64, np.uint8)
SCALARS += (np.uint16, np.uint32, np.uint64)


@contextmanager
def sealed_boxes():
    """A context in which arrays and scalars are boxed in `Sealed`."""
    before = dict(Box.type_mappings)

    def unseal():
        Box.type_mappings.clear()
        Box.type_mappings.update(before)

    with undone(unseal):
        for kind in (*(kind for kind, box in before.items() if box is numpy_boxes.ArrayBox), *SCALARS):
            Sealed.register(kind)
        yield


class Recording:
    """The calls that a recording has seen so far, in order."""

    running, lock = None, threading.RLock()

    def __init__(self):
        self.calls, self.thread = [], threading.get_ident()
        self.latest = None  # in the backward pass, the value whose derivative is computed
        self.again = None  # where the backward pass runs a function once more: the value that it made
        self.visits = {}  # the last position of each running frame
        self.spots = {}  # the file and line number of each statement
        self.gradient_of = {}  # for a gradient, the value that it is the gradient of
        self.fixed = set()  # values that depend on shapes alone: the constants of a program
        self.blank = mmap.mmap(-1, mmap.PAGESIZE)  # see `likeness`

    def add(self, example, fun, args, arguments, options):
        """Append the call of a primitive, or those of its body if it is transparent."""
        if fun in TRANSPARENT:
            return self.look_into(fun, args, arguments, options)
        sentence = refusal(getattr(fun, "__name__", str(fun)), arguments, options, example)
        if sentence:
            raise refused(sentence)
        function = getattr(fun, "fun", fun)
        views = tuple(
            number
            for number, (plain, argument) in enumerate(zip(args, arguments))
            if isinstance(argument, Value) and may_share_memory(function, example, plain)
        )
        value = Value(example, function, arguments, dict(options), views, self.place())
        if depends_on_shapes_alone(function, arguments, self.fixed):
            self.fixed.add(value)
        else:
            value.example = self.likeness(example)
        self.calls.append(value)
        return value

    def likeness(self, example):
        """An array of the same shape, dtype and strides, without its numbers.

        A recording uses the layout of arrays that depend on parameters and data, not their numbers. If it
        kept all arrays of a large model, it would take several times the memory of a step. All likenesses
        share one range of memory, which takes none until it is written to.
        """
        if type(example) is not np.ndarray or not example.flags.forc or not example.nbytes >= LARGE:
            return example
        if len(self.blank) < example.nbytes:
            self.blank = mmap.mmap(-1, example.nbytes)
        return np.ndarray(example.shape, example.dtype, self.blank, strides=example.strides)

    def look_into(self, fun, args, arguments, options):
        """Record the body of a primitive instead of the call."""
        with trace_stack.new_trace() as trace:
            boxes = [
                new_box(plain, trace, Recorded.new_root(argument))
                if isinstance(argument, Value)
                else argument
                for plain, argument in zip(args, arguments)
            ]
            return value_of(fun.fun(*boxes, **options))

    def place(self):
        """The place of the value that is made now."""
        if self.latest is not None:
            place = self.latest.place
            if self.latest is self.again:
                return self.place_again(place)
            return Place(place.prefix, place.title, backward=True, statement=self.latest, again=self.again)
        running = list(frames.frames_of_code(Recording.record.__code__))
        place = frames.place_of(running, self.visits)
        self.spots[place.statement] = frames.spot_of(running)
        return place

    def place_again(self, first):
        """The place of a value that the backward pass makes again, as it made those at the place `first`."""
        running = list(frames.frames_of_code(Recording.record.__code__))
        place = frames.place_of(running, self.visits)
        prefix = "_".join(filter(None, ["again", first.prefix, place.prefix]))
        statement = (self.again, place.statement)
        self.spots[statement] = frames.spot_of(running)
        return Place(prefix, first.title, place.variables, statement, backward=True, again=self.again)

    @contextmanager
    def apart(self, again):
        """A context in which a function runs whose tape is not kept; `again` for its derivative."""
        before, visits = self.again, self.visits
        self.again, self.visits = self.latest if again else self.again, dict(visits)
        try:
            yield
        finally:
            # Without the frames of the function, which hold its arrays.
            self.again, self.visits = before, visits

    def settle(self, parameters):
        """Give each parameter, and the parts of its gradient, the place of the layer that reads it."""
        parameters = set(parameters)
        for call in self.calls:
            for parent in call.parents:
                if parent in parameters and not parent.place.title and not call.place.backward:
                    parent.place = call.place
        for call in self.calls:
            if call.place.backward and call.place.statement in parameters:
                place = call.place.statement.place
                call.place = replace(call.place, prefix=place.prefix, title=place.title)

    def line(self):
        """The line of recorded code that runs now, or whose derivative is computed now."""
        running = frames.frames_of_code(Recording.record.__code__)
        return frames.line_at(frames.spot_of(running) or self.spot_of_derivative())

    def spot_of_derivative(self):
        """The file and line number of the statement whose derivative is computed now."""
        return self.spots.get(self.latest.place.statement) if self.latest else None

    def line_of_error(self, error):
        """The line of recorded code that an error came from."""
        frames_inward = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
        running = (frame for frame in reversed(frames_inward) if frames.is_code(frame.f_code.co_filename))
        return frames.line_at(frames.spot_of(running) or self.spot_of_derivative())

    def first_difference(self, other):
        """The line of the first call that is not the same in another recording, or None."""
        for pair in itertools.zip_longest(self.calls, other.calls):
            if None in pair or what_is_fixed(pair[0]) != what_is_fixed(pair[1]):
                both = [(call.place, recording) for call, recording in zip(pair, (self, other)) if call]
                place, recording = min(both, key=lambda one: one[0].backward)
                origin = place.derivative_of
                spot = recording.spots.get((origin.place if origin else place).statement)
                return spot and frames.line_at(spot)
        return None

    def differentiate(self, origin, vjp, gradient):
        """``vjp(gradient)``, the gradients in the arguments of the call that made `origin`."""
        if isbox(gradient) and isinstance(origin, Value):
            self.gradient_of.setdefault(value_of(gradient), origin)
        self.begin_derivative_of(origin)
        return tuple(vjp(gradient))

    def begin_derivative_of(self, origin):
        """From now on calls belong to the derivative of a value, and to the backward pass."""
        if isinstance(origin, Value):
            self.latest = origin

    def record(self, fun, params, args, names, gradient):
        """The tape of a function, and of its gradient if `gradient` is True."""
        parameters, data = [], []
        with one_at_a_time(), sealed_boxes(), trace_stack.new_trace() as trace:

            def box(inputs, path, leaf):
                inputs.append(Value(leaf, name=path))
                return new_box(leaf, trace, Recorded.new_root(inputs[-1]))

            def parameter(path, leaf):
                if not tree.is_trained(leaf):
                    return leaf
                if not is_array(leaf) and not isinstance(leaf, np.generic):
                    raise InputError(f"expected an array to train at {path!r}, got {kind_of(leaf)}")
                return box(parameters, path, as_array(leaf))

            boxed = tree.build(parameter, params)
            boxes = [
                tree.build(lambda path, leaf: box(data, path, leaf) if is_array(leaf) else leaf, arg, name)
                for name, arg in zip(names, args)
            ]
            before = Recording.running  # one recording may start another
            with undone(lambda: setattr(Recording, "running", before)):
                Recording.running = self
                try:
                    if gradient:
                        value, gradients = value_and_grad(fun, RecordedGradient)(boxed, *boxes)
                    else:
                        value, gradients = fun(boxed, *boxes), None
                finally:
                    self.visits.clear()  # it holds every frame of the recording, and with it every array
        if not isbox(value) and holds_box(value):
            raise InputError(f"expected one array from the function that is recorded, got {kind_of(value)}")
        self.settle(parameters)
        leaves = None
        if gradient:
            pairs = zip(tree.items(gradients), tree.items(boxed))
            leaves = tuple(value_of(leaf) for (_, leaf), (_, mine) in pairs if isbox(mine))
        return Tape(tuple(parameters), tuple(data), tuple(self.calls), value_of(value), leaves)


def what_is_fixed(call):
    """What a program fixes of a call: the function, its constants, and the numbers in its closure."""
    code, cells = getattr(call.function, "__code__", call.function), getattr(call.function, "__closure__", ())
    captured = (cell.cell_contents for cell in cells or () if cell != CellType())
    numbers = [key_of(one) for one in captured if is_array(one) or isinstance(one, np.generic | int | float)]
    given = (*call.arguments, *call.options.values())
    return code, numbers, [isinstance(one, Value) or key_of(one) for one in given]


def depends_on_shapes_alone(function, arguments, fixed):
    """Whether a call depends on no number of its arguments, except those of `fixed` values."""
    looked_at = arguments[1:] if function in SHAPE_ONLY else arguments
    return all(argument in fixed for argument in looked_at if isinstance(argument, Value))


def may_share_memory(function, result, argument):
    """Whether a result of the function may lie in the memory of an argument, in this call or another.

    For NumPy's functions that depends on shapes and strides alone, so this call tells. The result of a fresh
    primitive never does. Any other function may return its argument at times, and a result that is no array
    may contain it.
    """
    if function in FRESH:
        return False
    if any(isinstance(one, np.generic | bool | int | float | complex) for one in (result, argument)):
        return False
    if not (is_array(result) and is_array(argument)) or not is_numpys(function):
        return True
    return device_of(result) is device_of(argument) and bool(np.may_share_memory(result, argument))
