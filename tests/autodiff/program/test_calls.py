"""Calls as Python: executed, the text makes what the call made."""

import enum

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tapes import bits, call, entry, tape_of

import npflow.autodiff.convolution  # noqa: F401 (whose primitives are fresh too)
from npflow.autodiff.primitives import FRESH
from npflow.autodiff.program.calls import (
    PUBLIC,
    WITH_OUT,
    Spelling,
    content,
    is_transpose,
    is_ufunc,
    takes_out,
)
from npflow.autodiff.program.tape import Value

ROWS = np.linspace(-1, 2, 12).reshape(4, 3)


class Axis(enum.IntEnum):
    LAST = -1


def run(spelling, text, **names):
    """What a text gives, among what a spelling defines."""
    namespace = dict(spelling.namespace)
    exec("\n".join(spelling.definitions), namespace)
    return eval(text, namespace, names)


def spelled(argument):
    spelling = Spelling(())
    return run(spelling, spelling.argument(argument))


def same(one, other):
    if isinstance(one, (tuple, list)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, (np.ndarray, np.generic)):
        flags = np.asarray(other).flags  # an array with gaps is kept as a copy without
        contiguous = flags.c_contiguous or flags.f_contiguous
        return bits(one) == bits(other) and (
            not contiguous or np.asarray(one).strides == np.asarray(other).strides
        )
    return type(one) is type(other) and repr(one) == repr(other)


# ---------------------------------------------------------------- constants


@pytest.mark.parametrize(
    "argument",
    [
        *(None, Ellipsis, True, False, 0, -3, "constant", 'it\'s "quoted"\n', 1.5, -0.0, 1e300, 0.1 + 0.2),
        *(float("inf"), float("-inf"), float("nan"), 2 + 1j),
        *((), (1,), (1, (2.0, None)), [], [1, [2]], ([1], (2,))),
        *(slice(None), slice(1, -1, 2), np.dtype("U3"), np.dtype(">f8"), np.float32, float, Axis.LAST),
        *(
            np.float64(0.1),
            np.float32(0.1),
            np.float16(0.1),
            np.longdouble(1) / 3,
            np.int64(3),
            np.bool_(True),
        ),
        *(
            np.array(2.0),
            np.array(0.1, np.float32),
            np.array([0.1, 0.2], np.float32),
            np.arange(3, dtype=np.int8),
        ),
        *(np.zeros((2, 3)), np.ones((2, 3), np.float32), np.full((2, 3), 0.1, np.float32), np.zeros(3, bool)),
        *(np.ones(3, bool), np.zeros(3, np.int32), np.full(20, -7), np.zeros(1), np.ones((1, 1))),
        *(np.full(3, -0.0), np.full((2, 3), -0.0, np.float32), np.array([0.0, -0.0])),
        *(np.full(3, np.nan), np.array([np.inf, 1]), np.full(3, -np.inf)),
        *(np.zeros(0), np.zeros((0, 3)), np.zeros((3, 0), np.float32), np.zeros((0, 3), int)),
        *(np.arange(100.0), np.asfortranarray(ROWS), ROWS[:, ::-1], ROWS[::2], ROWS.astype(complex)),
        *(np.array([1.0], ">f8"), np.array(["a"]), np.full((2, 2), np.uint8(255))),
    ],
    ids=repr,
)
def test_a_constant_is_spelled_as_what_it_is(argument):
    assert same(spelled(argument), np.asarray(argument) if isinstance(argument, np.generic) else argument)


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(
        st.sampled_from([np.float64, np.float32, np.float16, np.int64, np.uint8, bool]),
        hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
    )
)
def test_any_constant_array_is_spelled_to_the_bit(array):
    # Two nans may differ in bits that Python does not show: those have no text, and stay the same object.
    assert bits(spelled(array)) == bits(array)


@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, bool])
def test_a_dtype_is_spelled_as_its_type(dtype):
    assert Spelling(()).argument(np.dtype(dtype)) == f"np.{np.dtype(dtype).name}"
    assert np.dtype(spelled(np.dtype(dtype))) == np.dtype(dtype)


def test_one_content_has_one_name_and_two_have_two():
    spelling = Spelling(())
    names = [
        spelling.argument(a)
        for a in (np.zeros(3), np.zeros(3), np.zeros(3, np.float32), np.full(3, -0.0), np.arange(3.0))
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 4
    assert names[0] == "zeros_3"


def test_a_constant_takes_no_name_that_a_value_has():
    spelling = Spelling({"zeros_3", "constant_2", "exp_of_mine"})
    names = [
        spelling.argument(np.zeros(3)),
        spelling.argument(np.arange(3.0)),
        spelling.argument(np.arange(9.0)),
    ]
    assert len({"zeros_3", "constant_2", *names}) == 5

    def exp_of_mine(x):
        return x

    assert spelling.function(exp_of_mine) == "exp_of_mine_2"


def test_content_is_equal_for_what_a_function_cannot_tell_apart():
    assert content(ROWS) == content(ROWS.copy())
    assert content(ROWS) != content(np.asfortranarray(ROWS))  # sums go another way
    assert content(np.zeros(1)) != content(np.full(1, -0.0))
    assert content(np.float64(1)) != content(np.float32(1))


# ---------------------------------------------------------------- functions


def test_every_public_name_is_that_functions():
    assert len(PUBLIC) > 300
    for identity, name in PUBLIC.items():
        assert id(eval(name, {"np": np})) == identity, name


def test_the_keys_of_a_dict_are_spelled_as_a_tuple():
    assert Spelling(set()).argument({"a": 1, "b": 2}.keys()) == "('a', 'b')"


def test_a_function_of_ones_own_is_called_by_its_name():
    def mine(x, *, power=1):
        return x**power

    x = entry(ROWS)
    spelling = Spelling({"x"})
    text = spelling.call(call(mine, x, power=3))
    assert text == "mine(x, power=3)"
    np.testing.assert_array_equal(run(spelling, text, x=ROWS), ROWS**3)


@pytest.mark.parametrize("name", ["<lambda>", "2nd", "class"])
def test_a_function_without_a_name_gets_one(name):
    fun = lambda x: x + 1
    fun.__name__ = name
    spelling = Spelling({"x"})
    text = spelling.call(call(fun, entry(ROWS)))
    np.testing.assert_array_equal(run(spelling, text, x=ROWS), ROWS + 1)


# ---------------------------------------------------------------- calls

CALLS = {
    "np.exp(x)": lambda x: anp.exp(x),
    "np.multiply(x, 2)": lambda x: x * 2,
    "x.sum()": lambda x: anp.sum(x),
    "x.sum(axis=0, keepdims=True)": lambda x: anp.sum(x, axis=0, keepdims=True),
    "x.mean(axis=1)": lambda x: anp.mean(x, axis=1),
    "np.cumsum(x, axis=0)": lambda x: anp.cumsum(x, axis=0),
    "x.reshape((12,))": lambda x: anp.reshape(x, (12,)),
    "x.reshape(-1)": lambda x: anp.reshape(x, -1),
    "x.reshape([3, 4])": lambda x: anp.reshape(x, np.array([3, 4])),
    "np.reshape(x, (12,), order='F')": lambda x: anp.reshape(x, (12,), order="F"),
    "np.transpose(x, (1, 0))": lambda x: anp.transpose(x, (1, 0)),
    "np.concatenate((x, x), axis=1)": lambda x: anp.concatenate((x, x), axis=1),
    "np.where(True, x, 0.0)": lambda x: anp.where(True, x, 0.0),
    "np.clip(x, 0, 1)": lambda x: anp.clip(x, 0, 1),
    "x[0]": lambda x: x[0],
    "x[-1, 2]": lambda x: x[-1, 2],
    "x[1:]": lambda x: x[1:],
    "x[:-1, ::2]": lambda x: x[:-1, ::2],
    "x[..., None]": lambda x: x[..., None],
    "x[()]": lambda x: x[()],
    "x[[0, 2]]": lambda x: x[[0, 2]],
    "x[:, [0, 2]]": lambda x: x[:, [0, 2]],
    "x[:, (0, 2)]": lambda x: x[:, (0, 2)],
    "x[(0, 2),]": lambda x: x[((0, 2),)],
    "x[(0, 2), (1, 1)]": lambda x: x[(0, 2), (1, 1)],
    "x[True]": lambda x: x[True],
}


@pytest.mark.parametrize("text", CALLS)
def test_a_call_is_spelled_as_one_would_write_it_and_does_the_same(text):
    tape = tape_of(lambda params, x: CALLS[text](x), {}, ROWS, gradient=False)
    (one,) = tape.calls
    tape.data[0].name = "x"
    spelling = Spelling({"x"})
    assert spelling.call(one) == text
    assert bits(run(spelling, text, x=ROWS)) == bits(CALLS[text](ROWS)) == bits(one.example)


@pytest.mark.parametrize(
    "fun",
    [
        lambda x: x[np.array([0, 2, 2])],
        lambda x: x[np.array([True, False, True, True])],
        lambda x: x[np.int64(1) :, np.int64(0)],
        lambda x: x[np.array([0, 1]), np.array([2, 2])],
        lambda x: x[np.array([[0], [1]]), :, None],
        lambda x: x.astype(np.float32),
        lambda x: x.astype("f4"),
        lambda x: anp.array([x[0], x[1]])[0],
        lambda x: anp.array([[1.0, x[0, 0]], [x[1, 1], 2.0]], dtype=np.float32),
        lambda x: anp.einsum("ij,kj->ik", x, x),
        lambda x: anp.linalg.slogdet(anp.dot(x.T, x))[1],
        lambda x: anp.sum(x, axis=Axis.LAST),
        lambda x: anp.multiply(x, 2.0, dtype=np.float32),
        lambda x: anp.dot(x.T, x),
        lambda x: x * np.float32(2) + np.float64(0.1),
    ],
)
def test_calls_with_constants_and_other_functions_do_the_same(fun):
    tape = tape_of(lambda params, x: fun(x), {}, ROWS, gradient=False)
    spelling = Spelling({one.name for one in (*tape.data, *tape.calls)})
    names = {tape.data[0].name: ROWS}
    for one in tape.calls:
        names[one.name] = run(spelling, spelling.call(one), **names)
        assert bits(names[one.name]) == bits(one.example)


def test_a_transpose_is_written_where_it_is_read():
    x = entry(ROWS)
    turned = call(np.transpose, x)
    assert is_transpose(turned)
    assert Spelling({"x"}).call(call(np.dot, turned, x)) == "np.dot(x.T, x)"
    assert not is_transpose(call(np.transpose, x, (1, 0)))


@pytest.mark.parametrize(
    ("function", "arguments", "options", "text"),
    [
        (np.exp, ("x",), {}, "np.exp(x, out=place)"),
        (np.dot, ("x", np.eye(3)), {}, "np.dot(x, constant_1, out=place)"),
        (np.sum, ("x",), {"axis": 0}, "x.sum(axis=0, out=place)"),
        (np.take, ("x", 2), {"axis": 1}, "x.take(2, axis=1, out=place)"),
    ],
)
def test_a_call_writes_to_the_place_it_is_given(function, arguments, options, text):
    one = call(function, *(entry(ROWS) if isinstance(a, str) else a for a in arguments), **options)
    spelling = Spelling({"x", "place"})
    assert spelling.call(one, "place") == text
    place = np.full_like(one.example, np.nan)
    assert run(spelling, text, x=ROWS, place=place) is place
    assert bits(place) == bits(one.example)


def test_a_concatenation_writes_to_the_place_it_is_given():
    tape = tape_of(lambda params, x: anp.concatenate((x, x)), {}, ROWS, gradient=False)
    tape.data[0].name = "x"
    place = np.empty((8, 3))
    spelling = Spelling({"x"})
    run(spelling, spelling.call(tape.calls[0], "place"), x=ROWS, place=place)
    np.testing.assert_array_equal(place, np.concatenate((ROWS, ROWS)))


# ---------------------------------------------------------------- what is known of functions


@pytest.mark.parametrize(
    "function", sorted(WITH_OUT | FRESH, key=str), ids=lambda function: function.__name__
)
def test_what_is_said_to_take_a_place_does_and_gives_the_same_bits(function):
    arguments = {
        "turned": (ROWS,),
        "dot": (ROWS, ROWS.T),
        "take": (ROWS, np.array([1, 0])),
        "clip": (ROWS, 0, 1),
    }
    arguments |= {"concatenate_args": (0, ROWS, ROWS), "scatter": (ROWS, np.array([1, 0, 2, 0]), (5, 3))}
    arguments |= {"planes": (ROWS[None], 1, 3), "unplanes": (ROWS, 1, (3, 6, 1))}
    arguments |= {"running_sums": (ROWS, 1.0, 2.0), "running_sums_vjp": (ROWS,)}
    arguments |= {"unfold": (ROWS[None, None], 1, 3, 2), "fold": (ROWS[None, :, None], 3, 1)}
    options = {} if function.__name__ in arguments else {"axis": 0}
    x = arguments.get(function.__name__, (ROWS,))
    inputs = [entry(a, "abc"[n]) if isinstance(a, np.ndarray) else a for n, a in enumerate(x)]
    one = call(function, *inputs, **options)
    assert takes_out(one)
    place, spelling = np.full_like(one.example, np.nan), Spelling(())
    names = {v.name: v.example for v in inputs if isinstance(v, Value)}
    run(spelling, spelling.call(one, "place"), place=place, **names)
    assert bits(place) == bits(one.example)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (np.exp, True),
        (np.add, True),
        (np.divmod, False),
        (np.matmul, False),
        (np.dot, False),
        (np.where, False),
    ],
)
def test_elementwise_are_the_universal_functions_of_one_result(function, expected):
    assert is_ufunc(function) is expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Value(ROWS, np.exp), True),
        (Value(np.asfortranarray(ROWS), np.exp), True),
        (Value(ROWS, np.matmul), True),
        (Value(np.asfortranarray(ROWS), np.dot), False),  # wants rows in order
        (Value(ROWS[:, ::2], np.exp), False),
        (Value(np.float64(1), np.exp), False),
        (Value(np.array(1.0), np.exp), False),
        (Value(ROWS[:0], np.exp), False),
        (Value(ROWS, np.where), False),
        (Value(ROWS, np.exp, (), {"dtype": float}), False),
        (Value(ROWS, np.exp, (), {}, views=(0,)), False),
    ],
)
def test_only_a_whole_array_of_a_function_that_allows_it_takes_a_place(value, expected):
    assert takes_out(value) is expected
