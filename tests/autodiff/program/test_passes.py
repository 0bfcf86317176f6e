"""Each pass alone: what it leaves out, what it must not, and that no result changes by a bit."""

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import assert_same_results, call, entry, functions, inputs, line, tape_of

from npflow.autodiff.program import passes
from npflow.autodiff.program.calls import ASTYPE
from npflow.autodiff.program.tape import Place, Tape, Value

ROW = np.array([0.3, -1.7, 2.9])


def called(tape):
    return [one.function for one in tape.calls]


# ---------------------------------------------------------------- all of them


def made_before_it_is_read(tape):
    made = {*tape.parameters, *tape.data}
    for one in tape.calls:
        if not set(one.parents) <= made:
            return False
        made.add(one)
    return set(tape.results) <= made


@settings(deadline=None, max_examples=20)
@given(functions, st.sampled_from([np.float32, np.float64]))
def test_every_pass_keeps_the_bits_and_makes_arguments_before_they_are_read(fun, dtype):
    before = tape_of(fun, *inputs(dtype))
    assert made_before_it_is_read(before)
    for change in passes.ALL:
        after = change(before)
        assert made_before_it_is_read(after), change.__name__
        assert_same_results(before, after)
        before = after


@settings(deadline=None, max_examples=10)
@given(functions)
def test_a_pass_leaves_the_tape_it_is_given_as_it_was(fun):
    tape = tape_of(fun, *inputs())
    before = [(one, one.function, one.arguments, one.name) for one in tape.calls]
    for change in passes.ALL:
        change(tape)
        assert [(one, one.function, one.arguments, one.name) for one in tape.calls] == before


def test_a_tape_without_a_backward_pass_stays_without():
    x = entry(ROW)
    tape = line([x], call(np.exp, x))
    for change in passes.ALL:
        assert change(tape).gradients is None


# ---------------------------------------------------------------- dead code


def test_dead_code_is_removed_and_what_results_depend_on_is_kept():
    x = entry(ROW)
    used = call(np.exp, x)
    unused = call(np.log1p, used)
    more_unused = call(np.negative, unused)
    value, gradient = call(np.sum, used), call(np.square, x)
    tape = Tape((x,), (), (used, unused, more_unused, value, gradient), value, (gradient,))
    assert passes.dead_code(tape).calls == (used, value, gradient)


def test_a_result_that_is_an_input_needs_no_call():
    x = entry(ROW)
    assert passes.dead_code(line([x], call(np.exp, x), value=x)).calls == ()


# ---------------------------------------------------------------- constants


def test_what_depends_on_no_input_becomes_a_constant():
    x, fixed = entry(ROW), call(np.exp, ROW)
    more = call(np.negative, fixed)
    tape = passes.constants(line([x], fixed, more, call(np.add, x, more)))
    assert called(tape) == [np.add]
    np.testing.assert_array_equal(tape.calls[0].arguments[1], -np.exp(ROW))


@pytest.mark.parametrize("function", [np.zeros_like, np.ones_like, np.shape, np.ndim, np.size])
def test_what_depends_on_shapes_alone_becomes_a_constant(function):
    x = entry(ROW)
    assert called(passes.constants(line([x], call(function, call(np.exp, x)), value=x))) == []


def test_what_depends_on_an_input_is_not_folded():
    x = entry(ROW)
    assert called(passes.constants(line([x], call(np.multiply, x, 0.0)))) == [np.multiply]


# ---------------------------------------------------------------- identities


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (np.multiply, ("x", 1)),
        (np.multiply, ("x", 1.0)),
        (np.multiply, (np.float64(1), "x")),
        (np.multiply, (np.array(1.0), "x")),
        (np.true_divide, ("x", 1)),
        (np.reshape, ("x", (3,))),
        (np.reshape, ("x", -1)),
        (np.broadcast_to, ("x", (3,))),
    ],
)
def test_a_call_that_returns_its_argument_is_left_out(function, arguments):
    x = entry(ROW)
    y = call(function, *(x if argument == "x" else argument for argument in arguments))
    tape = passes.identities(line([x], y))
    assert (tape.calls, tape.value) == ((), x)


@pytest.mark.parametrize(
    ("function", "arguments", "options"),
    [
        (np.multiply, ("x", np.ones((2, 1))), {}),  # broadcasts
        (np.multiply, ("x", 2), {}),
        (np.multiply, ("x", -1), {}),
        (np.true_divide, (1, "x"), {}),
        (np.add, ("x", 1), {}),
        (np.reshape, ("x", (3, 1)), {}),
        (np.broadcast_to, ("x", (2, 3)), {}),
        (np.multiply, ("x", 1), {"dtype": np.float32}),
        (np.reshape, ("x",), {"shape": (3,)}),
    ],
)
def test_a_call_that_does_more_is_kept(function, arguments, options):
    x = entry(ROW)
    arguments = [x if isinstance(argument, str) else argument for argument in arguments]
    assert called(passes.identities(line([x], call(function, *arguments, **options)))) == [function]


def test_a_product_with_one_that_promotes_is_kept():
    x = entry(ROW.astype(np.float32))
    tape = passes.identities(line([x], call(np.multiply, x, np.float64(1))))
    assert called(tape) == [np.multiply]


# ---------------------------------------------------------------- common subexpressions


def merged(function, first, second, first_options=(), second_options=()):
    """How many of two calls are left."""
    x = entry(ROW)
    put = lambda arguments: [x if isinstance(argument, str) else argument for argument in arguments]
    one = call(function, *put(first), **dict(first_options))
    two = call(function, *put(second), **dict(second_options))
    return len(passes.common_subexpressions(line([x], one, two, value=one, gradients=(two,))).calls)


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [
        (np.exp, ["x"], ["x"]),
        (np.add, ["x", 2], ["x", 2]),
        (np.add, ["x", 2.5], ["x", 2.5]),
        (np.reshape, ["x", (3, 1)], ["x", (3, 1)]),
        (np.add, ["x", np.float32(2)], ["x", np.float32(2)]),
        (np.add, ["x", float("nan")], ["x", float("nan")]),
        (np.ndarray.__getitem__, ["x", slice(1, 3)], ["x", slice(1, 3)]),
    ],
)
def test_the_same_call_is_made_once(function, first, second):
    assert merged(function, first, second) == 1


@pytest.mark.parametrize(
    ("function", "first", "second"),
    [
        (np.exp, ["x"], [0.5]),
        (np.add, ["x", 0.0], ["x", -0.0]),
        (np.add, ["x", np.float64(0.0)], ["x", np.float64(-0.0)]),
        (np.add, ["x", 1], ["x", 1.0]),
        (np.add, ["x", 1], ["x", True]),
        (np.add, ["x", np.float32(1)], ["x", np.float64(1)]),
        (np.add, ["x", 2], [2, "x"]),
        (np.reshape, ["x", (3, 1)], ["x", (1, 3)]),
        (np.ndarray.__getitem__, ["x", slice(1, 3)], ["x", slice(1, 3, 2)]),
        (np.ndarray.__getitem__, ["x", [0, 1]], ["x", [0, 2]]),
    ],
)
def test_calls_that_differ_in_a_bit_are_both_made(function, first, second):
    assert merged(function, first, second) == 2


@pytest.mark.parametrize(("axis", "left"), [(0, 1), (-1, 2), (None, 2)])
def test_options_are_compared_too(axis, left):
    assert merged(np.sum, ["x"], ["x"], {"axis": 0}, {"axis": axis}) == left


@pytest.mark.parametrize(
    ("other", "left"),
    [
        (np.array([1.0, 0.0, 2.0]), 1),
        (np.array([1.0, -0.0, 2.0]), 2),
        (np.array([1.0, 0.0, 2.0], np.float32), 2),
        (np.array([1, 0, 2]), 2),
    ],
)
def test_constant_arrays_are_compared_by_their_content(other, left):
    x = entry(ROW)
    one, two = call(np.add, x, np.array([1.0, 0.0, 2.0])), call(np.add, x, other)
    tape = passes.common_subexpressions(line([x], one, two, value=one, gradients=(two,)))
    assert len(tape.calls) == left


def test_what_reads_a_merged_call_reads_the_first_and_is_merged_in_turn():
    x = entry(ROW)
    pairs = [[one := call(np.exp, x), call(np.negative, one)] for _ in range(2)]
    end = call(np.add, pairs[0][1], pairs[1][1])
    tape = passes.common_subexpressions(line([x], *pairs[0], *pairs[1], end))
    assert called(tape) == [np.exp, np.negative, np.add]
    assert tape.value.arguments == (pairs[0][1], pairs[0][1])


def test_arguments_that_cannot_be_hashed_are_equal_if_they_are_the_very_same():
    x, things = entry(ROW), [{1}, {1}]
    function = lambda x, thing: x + len(thing)
    calls = [call(function, x, thing) for thing in (things[0], things[1], things[0])]
    tape = passes.common_subexpressions(line([x], *calls, value=calls[0], gradients=tuple(calls)))
    assert tape.calls == (calls[0], calls[1])


# ---------------------------------------------------------------- scalars


def spread(number, shape=(3,), dtype=np.float64):
    return call(np.multiply, number, np.ones(shape, dtype), name="spread")


def test_a_sum_of_numbers_spread_over_rows_is_a_sum_of_numbers():
    a, b, x = entry(0.1, "a"), entry(0.7, "b"), entry(ROW)
    first, second = spread(a), spread(b)
    total = call(np.add, first, second)
    end = call(np.add, total, x)
    before = line([a, b, x], first, second, total, end)
    after = passes.dead_code(passes.scalars(before))
    assert [np.shape(one.example) for one in after.calls] == [(), (3,)]
    assert_same_results(before, after)


def test_an_array_of_one_number_meets_another_array_as_that_number():
    x = entry(ROW)
    tape = passes.scalars(line([x], call(np.multiply, np.full(3, 2.5), x)))
    number = tape.calls[0].arguments[0]
    assert (np.shape(number), number.dtype, number) == ((), np.float64, 2.5)


@pytest.mark.parametrize("array", [np.array([0.0, -0.0, 0.0]), np.array([1.0, 1.0, 2.0])])
def test_an_array_of_different_bits_stays_an_array(array):
    x = entry(ROW)
    assert passes.scalars(line([x], call(np.add, array, x))).calls[0].arguments[0] is array


def test_an_array_that_gives_the_result_its_shape_stays_an_array():
    x = entry(ROW)
    ones = np.ones((2, 3))
    assert passes.scalars(line([x], call(np.multiply, ones, x))).calls[0].arguments[0] is ones


def test_a_number_that_is_spread_as_another_dtype_is_not_put_in_the_place_of_the_array():
    scale, x = entry(np.float32(0.3), "scale"), entry(ROW.astype(np.float32))
    wide = spread(scale)  # float64
    before = line([scale, x], wide, call(np.add, wide, x))
    assert_same_results(before, passes.scalars(before))


def test_the_number_is_read_where_the_array_is_written_over():
    # `total` and the number it is throughout had one name: readers of the number got what came to be there.
    def loss(params, x):
        total = params["s"] * np.ones(3) + params["s"] * np.ones(3)
        h = anp.exp(total) * x
        return anp.sum(h * h) + anp.sum(total * x * anp.exp(x))

    before = tape_of(loss, {"s": np.array(0.7)}, ROW)
    after = before
    for change in passes.ALL:
        after = change(after)
    names = [one.name for one in after.calls]
    assert len(set(names)) == len(names)
    assert_same_results(before, after)


def test_the_spread_of_a_single_row_is_a_number_too():
    scale, x = entry(0.3, "scale"), entry(ROW[:1])
    one = spread(scale, (1,))
    total = call(np.add, one, call(np.multiply, 2.0, one))
    before = line([scale, x], one, total.arguments[1], total, call(np.add, total, x))
    assert_same_results(before, passes.scalars(before))


# ---------------------------------------------------------------- casts


def astype(value, dtype):
    return Value(value.example.astype(dtype), ASTYPE, (value, np.dtype(dtype)))


def test_a_comparison_that_is_only_turned_into_floats_writes_floats():
    x = entry(ROW)
    compared = call(np.greater, x, 0)
    floats = astype(compared, np.float64)
    before = line([x], compared, floats)
    after = passes.dead_code(passes.casts(before))
    assert called(after) == [np.greater]
    assert after.value.example.dtype == np.float64
    assert_same_results(before, after)


def test_a_comparison_with_another_reader_stays_boolean():
    x = entry(ROW)
    compared = call(np.greater, x, 0)
    floats = astype(compared, np.float64)
    end = call(np.where, compared, floats, x)
    assert called(passes.casts(line([x], compared, floats, end))) == [np.greater, ASTYPE, np.where]


def test_a_comparison_that_is_returned_stays_boolean():
    x = entry(ROW)
    compared = call(np.greater, x, 0)
    floats = astype(compared, np.float64)
    tape = passes.casts(line([x], compared, floats, value=compared, gradients=(floats,)))
    assert called(tape) == [np.greater, ASTYPE]


def test_a_comparison_of_two_numbers_stays_as_it_is():
    x = entry(0.3)
    compared = call(np.greater, x, 0)
    floats = Value(np.float64(1.0), ASTYPE, (compared, np.dtype(float)))
    assert called(passes.casts(line([x], compared, floats))) == [np.greater, ASTYPE]


def test_a_cast_of_what_is_no_comparison_is_kept():
    x = entry(ROW)
    exp = call(np.exp, x)
    assert called(passes.casts(line([x], exp, astype(exp, np.float32)))) == [np.exp, ASTYPE]


# ---------------------------------------------------------------- by layer, names


def placed(function, argument, title, backward):
    one = call(function, argument)
    one.place = Place(title=title, backward=backward)
    return one


def test_the_backward_calls_of_a_layer_come_together_the_last_layer_first():
    x = entry(ROW)
    first, second = placed(np.exp, x, "first", False), placed(np.sin, x, "second", False)
    a = placed(np.negative, second, "second", True)
    b = placed(np.square, first, "first", True)
    c = placed(np.tanh, a, "second", True)
    tape = passes.by_layer(line([x], first, second, b, a, c, value=second, gradients=(b, c)))
    assert tape.calls == (first, second, a, c, b)


def test_what_a_later_layer_reads_goes_with_that_layer():
    x = entry(ROW)
    first, second = placed(np.exp, x, "first", False), placed(np.sin, x, "second", False)
    of_first = placed(np.square, first, "first", True)
    of_second = placed(np.negative, of_first, "second", True)
    other = placed(np.tanh, x, "second", True)
    tape = passes.by_layer(line([x], first, second, of_first, other, of_second, value=second))
    assert tape.calls == (first, second, of_first, other, of_second)
    assert made_before_it_is_read(tape)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(st.integers(0, 40), st.sampled_from("abc")), min_size=1, max_size=15))
def test_by_layer_makes_every_argument_before_it_is_read(steps):
    x = entry(ROW)
    ahead = [placed(np.exp, x, title, False) for title in "abc"]
    behind = []
    for number, title in steps:
        made = [*ahead, *behind]
        behind.append(placed(np.negative, made[number % len(made)], title, True))
    tape = passes.by_layer(line([x], *ahead, *behind))
    assert made_before_it_is_read(tape)
    assert set(tape.calls) == {*ahead, *behind}


def test_calls_of_one_name_get_names_of_their_own():
    x = entry(ROW)
    one = call(np.exp, x, name="h")
    two = call(np.negative, one, name="h")
    three = call(np.add, one, two, name="h_2")
    tape = passes.distinct_names(line([x], one, two, three))
    assert [call.name for call in tape.calls] == ["h", "h_3", "h_2"]
    assert tape.value.arguments == tape.calls[:2]
