"""Passes over a tape before it is written down: each takes a tape, and returns one that does less.

Every result stays the same to the bit: passes leave out work, and change no operation whose result is needed.
"""

from collections import Counter
from dataclasses import replace

import numpy as np

from npflow.autodiff.gpu.devices import is_array
from npflow.autodiff.program.calls import (
    ASTYPE,
    CONCATENATE,
    GETITEM,
    SHAPE_ONLY,
    is_uniform,
    key_of,
    takes_out,
)
from npflow.autodiff.program.naming import unique
from npflow.autodiff.program.tape import Value, example_of


def dead_code(tape):
    """Leave out calls that no result depends on."""
    needed = set(tape.results)
    for call in reversed(tape.calls):
        if call in needed:
            needed.update(call.parents)
    return replace(tape, calls=tuple(call for call in tape.calls if call in needed))


def constants(tape):
    """Replace calls that depend on no parameter and no data, or on their shapes alone, by their results."""

    def fold(call):
        looked_at = call.arguments[1:] if call.function in SHAPE_ONLY else call.arguments
        return call if any(isinstance(one, Value) for one in looked_at) else call.example

    return tape.rewrite(fold)


def identities(tape):
    """Leave out calls that return their argument: a product with one, a reshape to the same shape."""
    return tape.rewrite(lambda call: _same(call) or call)


def _same(call):
    """What a call returns as it is, an argument or a part of one; None if there is none."""
    if call.function is GETITEM:
        return _part(*call.arguments, call.example)
    if len(call.arguments) != 2 or call.options:
        return None
    first, second = call.arguments
    if call.function is np.multiply and _is_one(first):
        first, second = second, first
    by_one = call.function in (np.multiply, np.true_divide) and _is_one(second)
    if not isinstance(first, Value) or not (by_one or call.function in (np.reshape, np.broadcast_to)):
        return None
    looks = lambda example: (np.shape(example), np.result_type(example))
    return first if looks(first.example) == looks(call.example) else None


def _part(joined, index, example):
    """The array that was joined with others on the last axis and is taken out again; None if it is not that."""
    if not isinstance(joined, Value) or joined.function not in CONCATENATE:
        return None
    axis, *arrays = joined.arguments
    if (
        axis not in (-1, example.ndim - 1)
        or type(index) is not tuple
        or len(index) != 2
        or index[0] is not Ellipsis
    ):
        return None
    start = 0
    for array in arrays:
        stop = start + example_of(array).shape[-1]
        if index[1] == slice(start, stop) and isinstance(array, Value):
            mine = array.example
            same = (mine.shape, mine.dtype, mine.strides) == (example.shape, example.dtype, example.strides)
            return array if same else None
        start = stop
    return None


def _is_one(argument):
    plain = isinstance(argument, (int, float, np.generic)) or is_array(argument)
    return bool(plain and np.ndim(argument) == 0 and argument == 1)


def common_subexpressions(tape):
    """Make calls of the same function with the same arguments once.

    What the backward pass runs once more, so that nothing of it is kept, is made once in that run.
    """
    seen = {}

    def first(call):
        key = (call.place.again, call.function, tuple(map(key_of, call.arguments)), key_of(call.options))
        return seen.setdefault(key, call)

    return tape.rewrite(first)


EXACT = {np.add, np.subtract, np.multiply, np.true_divide, np.negative}


def scalars(tape):
    """Compute with one number in the place of an array that is this number everywhere.

    The log-determinant of a layer that treats all rows alike is one number, repeated for each row. Sums of
    such arrays become sums of numbers, and are spread where they meet another array. A number added to an
    array gives the same bits as an array full of it.
    """
    number = {}  # for an array that is the same number everywhere: the number

    def one(argument):
        if is_array(argument) and argument.ndim and argument.size:
            return argument.reshape(-1)[:1].reshape(()).copy() if is_uniform(argument) else None
        return number.get(argument) if isinstance(argument, Value) else None

    def shrink(call):
        if call.function not in EXACT or call.options or not call.is_array or not call.example.ndim:
            return call
        ones = [
            argument if np.ndim(example_of(argument)) == 0 else one(argument) for argument in call.arguments
        ]
        if all(argument is not None for argument in ones):
            if call.function is np.multiply and any(map(_is_one, ones)):
                kept = next((argument for argument in ones if isinstance(argument, Value)), None)
                if kept is not None and np.result_type(kept.example) == call.example.dtype:
                    number[call] = kept
                    return call
            small = replace(call, arguments=tuple(ones), example=call.example.reshape(-1)[0])
            number[call] = small
            return small, call
        arguments = tuple(
            argument if small is None else small for argument, small in zip(call.arguments, ones)
        )
        shape = np.broadcast_shapes(*(np.shape(example_of(argument)) for argument in arguments))
        return replace(call, arguments=arguments) if shape == call.example.shape else call

    return tape.rewrite(shrink)


COMPARISONS = {np.greater, np.greater_equal, np.less, np.less_equal, np.equal, np.not_equal}


def casts(tape):
    """Let a comparison write floats if its result is only converted to floats."""
    readers = Counter(parent for call in tape.calls for parent in call.parents)
    readers.update(tape.results)

    def join(call):
        compared = call.arguments[0]
        if (
            call.function is ASTYPE
            and isinstance(compared, Value)
            and compared.function in COMPARISONS
            and readers[compared] == 1
            and takes_out(replace(compared, example=call.example))
        ):
            return replace(compared, example=call.example)
        return call

    return tape.rewrite(join)


def by_layer(tape):
    """Bring the backward calls of each layer together, the last layer first."""
    ahead = [call for call in tape.calls if not call.place.backward]
    behind = [call for call in tape.calls if call.place.backward]
    order = {title: number for number, title in enumerate(dict.fromkeys(call.place.title for call in ahead))}
    # A call goes with the last layer, in forward order, that needs it.
    level = {call: order.get(call.place.title, -1) for call in behind}
    for call in reversed(behind):
        for parent in call.parents:
            if parent in level:
                level[parent] = max(level[parent], level[call])
    behind.sort(key=lambda call: -level[call])
    return replace(tape, calls=(*ahead, *behind))


def distinct_names(tape):
    """Number calls of the same name, such as an array and the number that it is everywhere."""
    taken = {value.name for value in (*tape.parameters, *tape.data, *tape.calls)}
    seen = set()

    def rename(call):
        if call.name not in seen:
            seen.add(call.name)
            return call
        return replace(call, name=unique(call.name, taken))

    return tape.rewrite(rename)


ALL = (
    constants,
    identities,
    common_subexpressions,
    scalars,
    common_subexpressions,
    dead_code,
    casts,
    dead_code,
    by_layer,
    distinct_names,
)
