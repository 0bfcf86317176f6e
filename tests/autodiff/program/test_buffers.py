"""The buffer plan: no result is written over before its last reader, and places are used again."""

import itertools
import math

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import bits, call, entry, examples, functions, inputs, interpret, line, tape_of

from npflow.autodiff.program import passes
from npflow.autodiff.program.buffers import ALIGNMENT, Arena, Slot, find_roots, gradient_places, plan
from npflow.autodiff.program.calls import GETITEM, is_elementwise, is_ufunc
from npflow.autodiff.program.tape import Place, Tape, Value

ROWS = np.linspace(-1, 2, 60).reshape(20, 3)  # 480 bytes: 512 of a workspace
PLACE = 512


def view(function, *arguments, **options):
    """A call whose result lies in the memory of its first argument."""
    one = call(function, *arguments, **options)
    one.views = (0,)
    return one


def offsets(buffers, *calls):
    return [buffers.slots[one].offset for one in calls]


# ---------------------------------------------------------------- random programs


def passed(fun, dtype=np.float64):
    tape = tape_of(fun, *inputs(dtype))
    for change in passes.ALL:
        tape = change(tape)
    return tape


def span(slot):
    return slot.offset, slot.offset + math.prod(slot.shape) * slot.dtype.itemsize


def readings(tape, copies=()):
    """For each call: the positions at which its memory is read, by itself or by views; worked out anew.

    A gradient that is copied as soon as it is made is read then.
    """
    read = {one: [] for one in tape.calls}

    def owners(value):
        if not isinstance(value, Value) or value not in read:
            return set()
        above = [value.arguments[number] for number in value.views]
        return set().union(*map(owners, above)) if above else {value}

    for position, one in enumerate(tape.calls):
        for parent in one.parents:
            for owner in owners(parent):
                read[owner].append(position)
    for result in tape.results:
        copied = result in copies and result is not tape.value
        for owner in owners(result):
            read[owner].append(tape.calls.index(result) if copied else math.inf)
    return read


@settings(deadline=None, max_examples=15)
@given(functions, st.sampled_from([np.float32, np.float64]))
def test_no_place_is_written_to_before_the_last_reader_of_what_is_there(fun, dtype):
    tape = passed(fun, dtype)
    buffers = plan(tape)
    read = readings(tape, buffers.copies)
    placed = [one for one in tape.calls if one in buffers.slots and buffers.slots[one].leaf is None]
    for first, second in itertools.combinations(placed, 2):
        (start, stop), (other_start, other_stop) = span(buffers.slots[first]), span(buffers.slots[second])
        if start >= other_stop or other_start >= stop:
            continue
        written = tape.calls.index(second)
        assert all(position <= written for position in read[first])
        if written in read[first]:  # it writes over what it reads: element by element, in the same places
            assert is_elementwise(second.function)
            assert buffers.slots[first] == buffers.slots[second]


@settings(deadline=None, max_examples=15)
@given(functions, st.sampled_from([np.float32, np.float64]))
def test_a_tape_run_in_a_poisoned_workspace_gives_the_same_bits(fun, dtype):
    tape = passed(fun, dtype)
    buffers = plan(tape)
    read = readings(tape, buffers.copies)
    parameters, data = examples(tape)
    memory = np.full(buffers.peak_bytes, 0xFF, np.uint8)  # of these bytes floats are nan
    known = dict(zip((*tape.parameters, *tape.data), (*parameters, *data)))
    leaves = [np.full(value.example.shape, np.nan, dtype) for value in tape.parameters]
    place_of = lambda slot: (
        slot.array(memory) if slot.leaf is None else np.reshape(leaves[slot.leaf], slot.shape, copy=False)
    )
    for position, one in enumerate(tape.calls):
        arguments = [known[a] if isinstance(a, Value) else a for a in one.arguments]
        slot, options = buffers.slots.get(one), dict(one.options)
        if slot is not None and is_ufunc(one.function):
            options["out"] = place_of(slot)
        result = one.function(*arguments, **options)
        if slot is not None and not is_ufunc(one.function):
            place = place_of(slot)
            place[...] = result
            result = place
        known[one] = result
        for leaf in buffers.copies.get(one, ()):
            leaves[leaf][...] = result
        # What nothing reads any more is gone, so that a late reader would see it.
        wanted = [other for other in read if other in known and any(at > position for at in read[other])]
        free = np.ones(len(memory), bool)
        for other in wanted:
            if other in buffers.slots and buffers.slots[other].leaf is None:
                free[slice(*span(buffers.slots[other]))] = False
        memory[free] = 0xFF
    there = {slot.leaf for slot in buffers.slots.values()}.union(*buffers.copies.values())
    value, *gradients = interpret(tape, parameters, data)
    assert bits(known[tape.value]) == bits(value)
    for leaf, (expected, gradient) in enumerate(zip(gradients, tape.gradients, strict=True)):
        found = leaves[leaf] if leaf in there else known.get(gradient, gradient)
        assert bits(found) == bits(expected.astype(found.dtype) if leaf in there else expected)


@settings(deadline=None, max_examples=15)
@given(functions)
def test_the_peak_is_what_the_places_reach_and_never_above_what_no_reuse_needs(fun):
    tape = passed(fun)
    buffers = plan(tape)
    slots = [slot for slot in buffers.slots.values() if slot.leaf is None]
    assert buffers.peak_bytes <= buffers.bytes_without_reuse
    assert max((span(slot)[1] for slot in slots), default=0) <= buffers.peak_bytes
    assert all(slot.offset % ALIGNMENT == 0 for slot in slots)
    assert set(buffers.live) == set(tape.calls)
    assert max(buffers.live.values()) <= buffers.peak_bytes


# ---------------------------------------------------------------- tapes made by hand


def test_a_place_is_used_again_after_its_last_reader():
    x = entry(ROWS)
    calls = [call(np.exp, x)]
    for _ in range(4):
        calls.append(call(np.dot, calls[-1], np.eye(3)))
    buffers = plan(line([x], *calls))
    # A product can't be written over what it reads, so two places take turns.
    assert offsets(buffers, *calls) == [0, PLACE, 0, PLACE, 0]
    assert (buffers.peak_bytes, buffers.bytes_without_reuse) == (2 * PLACE, 5 * PLACE)


def test_an_elementwise_call_writes_over_an_argument_that_nothing_reads_later():
    x = entry(ROWS)
    one = call(np.exp, x)
    two = call(np.multiply, one, one)
    three = call(np.add, two, one)
    buffers = plan(line([x], one, two, three))
    assert offsets(buffers, one, two, three) == [0, PLACE, PLACE]
    # `one` is read by `three`, so that `two` needs a place of its own; `three` could write over either.
    assert buffers.peak_bytes == 2 * PLACE


@pytest.mark.parametrize("read_first", [False, True])
def test_an_argument_that_is_also_read_as_a_view_is_not_written_over(read_first):
    x = entry(np.ones((3, 3)))
    one = call(np.exp, x)
    turned = view(np.transpose, one)
    end = call(np.add, *((turned, one) if read_first else (one, turned)))
    buffers = plan(line([x], one, turned, end))
    assert buffers.slots[one].offset != buffers.slots[end].offset


def test_an_argument_is_written_over_in_another_shape_too():
    x = entry(ROWS)
    one = call(np.exp, x)
    again = view(np.reshape, one, (5, 4, 3))
    end = call(np.negative, again)
    buffers = plan(line([x], one, again, end))
    assert offsets(buffers, one, end) == [0, 0]
    assert buffers.slots[end].shape == (5, 4, 3)


@pytest.mark.parametrize("part", [slice(0, 10), slice(None, None, -1)])
def test_an_argument_that_is_a_part_or_lies_in_another_order_is_not_written_over(part):
    x = entry(ROWS)
    one = call(np.exp, x)
    seen = view(GETITEM, one, part)
    end = call(np.negative, seen)
    buffers = plan(line([x], one, seen, end))
    assert buffers.slots[one].offset != buffers.slots[end].offset


def test_a_smaller_dtype_is_not_written_over_what_it_is_computed_from():
    x = entry(ROWS)
    one = call(np.exp, x)
    end = call(np.greater, one, 1)
    buffers = plan(line([x], one, end))
    assert buffers.slots[end].offset == PLACE


def test_an_argument_that_is_broadcast_is_not_written_over():
    x = entry(ROWS)
    small = call(np.exp, entry(ROWS[:1]))
    end = call(np.add, small, x)
    buffers = plan(line([x, small.arguments[0]], small, end))
    assert buffers.slots[small].offset != buffers.slots[end].offset


def test_inputs_are_never_written_to():
    x = entry(ROWS)
    one = call(np.exp, x)
    buffers = plan(line([x], one))
    assert set(buffers.slots) == {one}


def test_a_view_keeps_what_it_looks_at_alive():
    x = entry(ROWS)
    root = call(np.exp, x)
    rows = view(np.reshape, root, (60,))
    part = view(np.ndarray.__getitem__, rows, slice(0, 3))
    between = call(np.sin, x)
    end = call(np.dot, ROWS, part)
    buffers = plan(line([x], root, rows, part, between, end))
    assert set(buffers.slots) == {root, between, end}
    assert buffers.slots[between].offset != buffers.slots[root].offset
    assert find_roots(line([x], root, rows, part))[part] == {root}


def test_what_is_returned_keeps_its_place_to_the_end():
    x = entry(ROWS)
    value = call(np.exp, x)
    later = [call(np.sin, x), call(np.cos, x)]
    buffers = plan(line([x], value, *later, value=value))
    assert offsets(buffers, value, *later) == [0, PLACE, PLACE]


def test_a_result_that_nothing_reads_gives_its_place_back_at_once():
    x = entry(ROWS)
    calls = [call(np.exp, x) for _ in range(3)]
    buffers = plan(line([x], *calls, value=x))
    assert offsets(buffers, *calls) == [0, 0, 0]


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (np.reshape, ("x", (60,)), {}),
        (np.linalg.inv, (np.eye(3),), {}),
        (np.sum, ("x",), {}),  # a scalar
        (np.divmod, ("x", 2.0), {}),  # two results
        (np.exp, ("x",), {"dtype": np.float64}),
        (np.where, (True, "x", 0.0), {}),
        (np.exp, (np.ones((0, 3)),), {}),
    ],
)
def test_what_cannot_be_written_to_a_place_has_none(function, arguments, options):
    x = entry(ROWS)
    one = call(function, *(x if isinstance(a, str) else a for a in arguments), **options)
    buffers = plan(line([x], one))
    assert (buffers.slots, buffers.peak_bytes, buffers.bytes_without_reuse) == ({}, 0, 0)


def test_a_result_in_fortran_order_has_a_place_in_fortran_order():
    x = entry(np.asfortranarray(ROWS))
    one = call(np.exp, x)
    slot = plan(line([x], one)).slots[one]
    assert slot.array(np.zeros(PLACE, np.uint8)).flags.f_contiguous
    assert slot.strides == one.example.strides


def test_a_call_that_reads_a_tuple_of_arrays_has_no_place():
    # Its result may lie in one of them, for all that is known.
    pair = Value((ROWS, ROWS), lambda: (ROWS, ROWS), (), {})
    one = Value(ROWS[0], np.add, (pair, 1), {}, (0,))
    assert plan(line([], pair, one)).slots == {}


# ---------------------------------------------------------------- gradients


def behind(function, *arguments):
    one = call(function, *arguments)
    one.place = Place(backward=True)
    return one


def test_gradients_are_written_to_their_place_in_the_vector():
    p, q = entry(ROWS, "p"), entry(ROWS, "q")
    first, second = behind(np.exp, p), behind(np.negative, q)
    tape = Tape((p, q), (), (first, second), 1.0, (first, second))
    buffers = plan(tape)
    assert [buffers.slots[one].leaf for one in (first, second)] == [0, 1]
    assert buffers.peak_bytes == 0


def test_one_gradient_of_two_parameters_is_written_to_the_first():
    p, q = entry(ROWS, "p"), entry(ROWS, "q")
    both = behind(np.add, p, q)
    assert plan(Tape((p, q), (), (both,), 1.0, (both, both))).slots[both].leaf == 0


def test_a_gradient_is_never_written_over():
    p = entry(ROWS, "p")
    gradient = behind(np.exp, p)
    more = behind(np.negative, gradient)
    buffers = plan(Tape((p,), (), (gradient, more), more, (gradient,)))
    assert (buffers.slots[gradient].leaf, buffers.slots[more].leaf) == (0, None)


def test_a_gradient_in_another_shape_is_written_to_its_place():
    p = entry(ROWS, "p")
    made = behind(np.exp, entry(ROWS.reshape(3, 20)))
    flat = view(np.reshape, made, (-1,))
    gradient = view(np.reshape, flat, (20, 3))
    buffers = plan(Tape((p,), made.parents, (made, flat, gradient), 1.0, (gradient,)))
    assert (buffers.slots[made].leaf, buffers.slots[made].shape, buffers.copies) == (0, (3, 20), {})


def test_what_a_function_makes_of_something_is_not_taken_for_the_same_in_another_shape():
    p = entry(ROWS, "p")
    made = behind(np.exp, entry(ROWS))
    for gradient in (
        view(np.reshape, made, (20, 3), "F"),
        view(np.reshape, made, (20, 3), order="F"),
        view(lambda x: 2 * x, made),  # a stranger, of which it is not known whether it gives a view
    ):
        gradient.place = Place(backward=True)
        buffers = plan(Tape((p,), made.parents, (made, gradient), 1.0, (gradient,)))
        assert (buffers.slots[made].leaf, buffers.copies) == (None, {gradient: [0]})


def test_a_gradient_that_lies_elsewhere_is_copied_at_once_and_its_memory_is_free_again():
    p, q = entry(ROWS, "p"), entry(ROWS, "q")
    made = behind(np.exp, entry(ROWS.reshape(3, 20)))
    gradient = view(np.transpose, made)
    gradient.place = Place(backward=True)
    more, last = behind(np.negative, q), behind(np.tanh, q)
    calls = (made, gradient, more, last)
    buffers = plan(Tape((p, q), made.parents, calls, 1.0, (gradient, None)))
    assert buffers.copies == {gradient: [0]}
    assert offsets(buffers, made, more) == [0, 0]


def test_a_gradient_of_the_forward_pass_is_kept_to_the_end():
    p = entry(ROWS, "p")
    gradient, more = call(np.exp, p), call(np.negative, p)
    buffers = plan(Tape((p,), (), (gradient, more), 1.0, (gradient,)))
    assert (buffers.copies, offsets(buffers, gradient, more)) == ({}, [0, PLACE])


@pytest.mark.parametrize(
    "gradient",
    [
        view(np.reshape, entry(ROWS), (20, 3)),  # lies in something else's memory
        behind(np.exp, entry(ROWS.astype(np.float32))),  # of another dtype
        behind(np.exp, entry(ROWS[:1])),  # of another shape
        behind(np.exp, entry(np.asfortranarray(ROWS))),  # of another order
        behind(np.where, True, entry(ROWS), 0.0),  # np.where has no out
        call(np.exp, entry(ROWS)),  # the forward pass makes it, which has no vector
    ],
)
def test_a_gradient_that_cannot_be_written_there_is_copied_later(gradient):
    p = entry(ROWS, "p")
    made_from = gradient.parents[0]
    tape = Tape((p,), (made_from,), (gradient,), 1.0, (gradient,))
    assert gradient_places(tape, find_roots(tape))[0] == {}


@pytest.mark.parametrize("gradient", [None, 1.0, ROWS])
def test_a_gradient_that_is_a_constant_or_zero_has_no_place_before_it_is_copied(gradient):
    p = entry(ROWS, "p")
    tape = Tape((p,), (), (), 1.0, (gradient,))
    assert gradient_places(tape, find_roots(tape))[0] == {}


# ---------------------------------------------------------------- the arena


def test_an_arena_hands_out_the_first_gap_that_is_large_enough():
    arena = Arena()
    small, large, last = arena.take(64), arena.take(192), arena.take(64)
    assert (small, large, last) == ((0, 64), (64, 256), (256, 320))
    arena.free(large)
    assert arena.take(128) == (64, 192)
    assert arena.take(128) == (320, 448)  # the gap of 64 bytes is too small
    assert arena.take(64) == (192, 256)
    assert (arena.peak, arena.in_use) == (448, 448)


def test_an_arena_that_is_empty_again_starts_at_its_beginning():
    arena = Arena()
    for place in [arena.take(64), arena.take(128)]:
        arena.free(place)
    assert (arena.taken, arena.in_use, arena.peak) == ([], 0, 192)
    assert arena.take(64) == (0, 64)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.integers(1, 5), st.booleans()), max_size=30), st.randoms())
def test_parts_of_an_arena_never_overlap(steps, random):
    arena, held = Arena(), []
    for size, give_back in steps:
        if give_back and held:
            arena.free(held.pop(random.randrange(len(held))))
        else:
            held.append(arena.take(64 * size))
        taken = sorted(held)
        assert arena.taken == taken
        assert all(first[1] <= second[0] for first, second in itertools.pairwise(taken))
        assert arena.in_use == sum(stop - start for start, stop in taken) <= arena.peak


def test_a_slot_is_an_array_at_its_offset():
    memory = np.zeros(256, np.uint8)
    place = Slot(64, (2, 3), np.dtype(np.float32), (12, 4)).array(memory)
    place[...] = 1
    assert np.flatnonzero(memory).min() >= 64
    assert np.count_nonzero(memory.view(np.float32)) == 6


def test_a_workspace_of_a_deep_function_does_not_grow_with_its_depth():
    def chain(depth):
        def loss(params, x):
            h = x
            for _ in range(depth):
                h = anp.tanh(anp.dot(h, params["weight"]))
            return anp.sum(h)

        return plan(tape_of(loss, *inputs(), gradient=False))

    short, long = chain(4), chain(20)
    assert short.peak_bytes == long.peak_bytes
    assert long.bytes_without_reuse == 5 * short.bytes_without_reuse
