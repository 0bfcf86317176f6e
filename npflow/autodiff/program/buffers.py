"""Where results are written: each to a place in a workspace, which is free again after its last reader."""

import bisect
import math
from dataclasses import dataclass

import numpy as np

from npflow.autodiff.gpu.device import ALIGNMENT
from npflow.autodiff.gpu.devices import HOST
from npflow.autodiff.program.calls import is_elementwise, takes_out
from npflow.autodiff.program.tape import Value


@dataclass(frozen=True)
class Slot:
    """The place of a result: byte `offset` of the workspace, or the gradient of parameter `leaf`."""

    offset: int
    shape: tuple
    dtype: np.dtype
    strides: tuple
    leaf: int | None = None

    def array(self, memory, device=HOST):
        """The array at this place in `memory`, a vector of bytes on a device."""
        return device.array_at(memory, self.offset, self.shape, self.dtype, self.strides)


@dataclass(frozen=True)
class Plan:
    """Where the results of a tape are written."""

    slots: dict  # the Slot of each call that writes its result to a place
    copies: dict  # by the call that makes a gradient elsewhere: the parameters to whose places it is copied
    peak_bytes: int  # the size of the workspace
    bytes_without_reuse: int  # its size if each result had a place of its own
    live: dict  # for each call, the bytes of the workspace that hold results still to be read


def plan(tape, reuse=True):
    """Give each result that can be written to a place one, and free the place after its last reader.

    An elementwise call writes over an argument that is not read later. Any other result takes the first gap
    in the workspace that is large enough, so that memory which is still in the cache is used again. With
    `reuse` False each result has a place of its own.
    """
    roots = find_roots(tape)
    (slots, copies), live = gradient_places(tape, roots), {}
    last = last_readers(tape, roots, copies)
    arena, places, without_reuse = Arena(), {}, 0
    for position, call in enumerate(tape.calls):
        if call not in slots and takes_out(call):
            without_reuse += _rounded(call.example.nbytes)
            donor = _donor(call, roots, last, position, places) if reuse else None
            places[call] = places.pop(donor) if donor else arena.take(_rounded(call.example.nbytes))
            slots[call] = _slot(call, places[call][0])
        live[call] = arena.in_use
        for root in {root for parent in (call, *call.parents) for root in roots[parent]}:
            if reuse and root in places and last[root] <= position:
                arena.free(places.pop(root))
    return Plan(slots, copies, arena.peak, without_reuse, live)


class Arena:
    """Memory whose parts are taken and freed; it grows as needed."""

    def __init__(self):
        self.taken, self.peak, self.in_use = [], 0, 0

    def take(self, size):
        """Take the first gap of at least `size` bytes; return the start and end of the place."""
        start = 0
        for first, end in self.taken:
            if first - start >= size:
                break
            start = end
        place = (start, start + size)
        bisect.insort(self.taken, place)
        self.peak = max(self.peak, place[1])
        self.in_use += size
        return place

    def free(self, place):
        """Free a place from `take`."""
        self.taken.pop(bisect.bisect_left(self.taken, place))
        self.in_use -= place[1] - place[0]


def find_roots(tape):
    """For each value, the values in whose memory it lies: itself, or those that it is a view of."""
    roots = {value: {value} for value in (*tape.parameters, *tape.data)}
    for call in tape.calls:
        viewed = (call.arguments[number] for number in call.views)
        # The array of a view may have become a constant, which has no place.
        roots[call] = set().union(*(roots[one] for one in viewed if isinstance(one, Value))) or {call}
    return roots


def last_readers(tape, roots, copies=()):
    """For each value with memory of its own: the number of the call that reads it last, or infinity.

    Gradients that are copied as soon as they are made are not read later.
    """
    last = dict.fromkeys(roots, -1)
    for position, call in enumerate(tape.calls):
        last[call] = position
        for parent in call.parents:
            for root in roots[parent]:
                last[root] = position
    for result in tape.results:
        if result is tape.value or result not in copies:
            for root in roots[result]:
                last[root] = math.inf
    return last


def gradient_places(tape, roots):
    """Slots in the gradient vector for the results that can be written there: a gradient in any shape.

    And for the calls of the backward pass that make a gradient elsewhere: the numbers of its parameters.
    """
    slots, copies, calls = {}, {}, set(tape.calls)
    for leaf, (parameter, gradient) in enumerate(zip(tape.parameters, tape.gradients or ())):
        made = _reshaped(gradient)
        if (
            made in calls
            and made.place.backward
            and made not in slots
            and made is not tape.value
            and roots[made] == {made}
            and takes_out(made)
            and made.example.flags.c_contiguous
            and gradient.example.shape == parameter.example.shape
            and gradient.example.dtype == parameter.example.dtype
        ):
            slots[made] = _slot(made, 0, leaf)
        elif made and gradient in calls and gradient.place.backward:
            copies.setdefault(gradient, []).append(leaf)
    return slots, copies


def _reshaped(gradient):
    """The value that a gradient only reshapes, or the gradient itself; None if it is a constant."""
    while isinstance(gradient, Value) and _keeps_order(gradient):
        gradient = gradient.arguments[0]
    return gradient if isinstance(gradient, Value) else None


def _keeps_order(call):
    """Whether a call gives its argument another shape and keeps the numbers in order."""
    return (
        call.function is np.reshape and len(call.arguments) == 2 and call.options.get("order") in (None, "C")
    )


def _slot(call, offset, leaf=None):
    example = call.example
    order = "C" if example.flags.c_contiguous else "F"
    strides = np.empty(example.shape, example.dtype, order).strides
    return Slot(offset, example.shape, example.dtype, strides, leaf)


def _donor(call, roots, last, position, places):
    """The value whose place an elementwise call can write over: an argument, or what one reshapes; or None."""
    if not is_elementwise(call.function):
        return None
    for argument in call.parents:
        donor, *others = roots[argument]
        if (
            not others
            and donor in places
            and last[donor] <= position
            and argument.is_array
            and (argument.example.shape, argument.example.dtype) == (call.example.shape, call.example.dtype)
            and argument.example.strides == call.example.strides
            and (argument is donor or _is_all_of(argument.example, donor.example))
            and all(parent is argument or donor not in roots[parent] for parent in call.parents)
        ):
            return donor
    return None


def _is_all_of(view, array):
    """Whether a view of an array is all of it with the numbers in the same order."""
    return view.nbytes == array.nbytes and view.flags.c_contiguous and array.flags.c_contiguous


def _rounded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT
