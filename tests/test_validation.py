"""Checks of what a user passes in: the boundary of what is accepted, and the sentences."""

import math
import random

import autograd
import numpy as np
import pytest
import scipy.sparse
from helpers import refusal

from npflow.errors import InputError, in_short
from npflow.layers import Chain, Reverse
from npflow.validation import (
    check_callable,
    check_choice,
    check_context,
    check_count,
    check_dtype,
    check_flag,
    check_instance,
    check_integers,
    check_number,
    check_rng,
    check_rows,
    check_sequence,
)


class Dispatching:
    """An array of another library, as far as the checks look at it."""

    def __init__(self, array):
        self.array, self.dtype, self.shape = array, array.dtype, array.shape
        self.ndim, self.size = array.ndim, array.size

    def __array_function__(self, *args):
        raise NotImplementedError

    def __array_ufunc__(self, ufunc, method, *inputs):
        return getattr(ufunc, method)(*(i.array if isinstance(i, Dispatching) else i for i in inputs))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (2, 4, 4, 3)])
def test_finite_float_rows_are_given_back_as_they_are(shape, dtype):
    x = np.ones(shape, dtype)
    assert check_rows(x) is x
    assert check_rows(x, shape[1:], dtype) is x


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("x", [[[0.0, 1.0], [1e300, 1.0]], ((0.0, 1.0), (np.float64(1e300), 1.0))])
def test_a_number_that_the_dtype_cannot_hold_gets_a_sentence(x):
    words = "expected {} as an array of numbers in the range of float32, got 1e+300"
    assert refusal(check_rows, x, None, np.float32) == words.format("x") + " in row 1, at index (0,)"
    assert refusal(check_context, x[1], 2, 1, np.float32, "a flow") == words.format("context")
    assert check_rows(x).tolist() == [[0.0, 1.0], [1e300, 1.0]]
    assert "expected x to be finite, got inf" in refusal(check_rows, [[math.inf, 1.0]], None, np.float32)


def test_an_array_of_another_library_that_dispatches_is_accepted():
    x = Dispatching(np.ones((3, 2)))
    assert check_rows(x, (2,), np.float64) is x


def test_rows_inside_a_gradient_are_looked_into_and_given_back_boxed():
    def total(x):
        assert check_rows(x, (2,), np.float64) is x
        return (x * x).sum()

    np.testing.assert_array_equal(autograd.grad(total)(np.ones((3, 2))), np.full((3, 2), 2.0))
    nested = autograd.grad(lambda x: (autograd.grad(total)(x) ** 2).sum())
    np.testing.assert_array_equal(nested(np.ones((3, 2))), np.full((3, 2), 8.0))
    with pytest.raises(InputError, match="got rows of 3 features"):
        autograd.grad(total)(np.ones((3, 3)))


class Frame:
    """A DataFrame, as far as NumPy looks at it: no array, but one that turns into an array."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, dtype)


@pytest.mark.parametrize("rows", [[[1, 2], [3, 4]], ((1.0, 2.0), (3.0, 4.0)), np.uint8([[1, 2], [3, 4]])])
@pytest.mark.parametrize("dtype", [None, np.float32, np.float64])
def test_lists_and_integers_become_the_dtype_of_the_parameters_or_float64(rows, dtype):
    x = check_rows(rows, (2,), dtype)
    assert x.dtype == (dtype or np.float64)
    np.testing.assert_array_equal(x, [[1, 2], [3, 4]])


def test_numbers_in_another_byte_order_become_native():
    x = check_rows(np.array([[1, 2]], ">f4"), (2,), np.float32)
    assert x.dtype.isnative
    np.testing.assert_array_equal(x, [[1, 2]])


def test_booleans_are_zeros_and_ones():
    np.testing.assert_array_equal(check_rows(np.eye(2, dtype=bool), dtype=np.float32), np.eye(2))


def test_a_frame_becomes_its_array_and_keeps_its_float_dtype():
    x = check_rows(Frame(np.float32([[1, 2]])))
    assert type(x) is np.ndarray
    assert x.dtype == np.float32
    words = refusal(check_rows, Frame([[1.0, 2.0]]), (2,), np.float32)
    assert "the dtype of the parameters, got float64; convert it: x.astype(np.float32)" in words
    assert "got nan in row 1, at index (0,)" in refusal(check_rows, Frame([[1.0], [np.nan]]))
    np.testing.assert_array_equal(check_integers(Frame([[1, 2]]), 8), [[1, 2]])
    np.testing.assert_array_equal(check_integers([[1, 2]], 8), [[1, 2]])


class Opaque:
    """A tensor that cannot be converted, such as one whose gradient is wanted."""

    def __array__(self, dtype=None, copy=None):
        raise RuntimeError("call detach")


@pytest.mark.parametrize(
    ("x", "kind"),
    [
        (None, "a NoneType"),
        ("x", "a str"),
        (np, "a module"),
        ({1.0}, "a set"),
        ({"a": [1.0]}, "a dict"),
        ([[1.0], [1.0, 2.0]], "a list"),
        ([["a"]], "a list"),
        ([[None]], "a list"),
        (iter([1.0]), "a list_iterator"),
        (Frame([[None]]), "a Frame"),
        (Opaque(), "an Opaque"),
    ],
)
def test_what_is_not_an_array_of_numbers_is_refused(x, kind):
    assert refusal(check_rows, x) == f"expected x as an array of numbers, got {kind}"
    assert refusal(check_integers, x, 8) == f"expected x as integers from 0 to 7, got {kind}"


@pytest.mark.parametrize("dtype", ["float16", "complex128", "object", "longdouble"])
def test_rows_of_another_dtype_than_float32_and_float64_are_refused(dtype):
    dtype = np.dtype(dtype).name
    hint = "; convert it: x.astype(np.float32)" if dtype.startswith("float") else ""
    assert (
        refusal(check_rows, np.ones((2, 2), dtype)) == f"expected x in float32 or float64, got {dtype}{hint}"
    )


@pytest.mark.parametrize("shape", [(8, 8, 1), (4,)])
def test_a_single_row_is_a_batch_of_one(shape):
    assert refusal(check_rows, np.ones(shape), shape).endswith("; a single one is a batch of one: x[None]")


def test_images_without_an_axis_for_channels_are_refused_with_a_hint():
    assert refusal(check_rows, np.ones((5, 28, 28))) == (
        "expected x of shape (n, features) or (n, height, width, channels), got shape (5, 28, 28); "
        "add an axis for the channels: x[..., None]"
    )


@pytest.mark.parametrize("shape", [(), (3,)])
def test_an_array_that_has_no_rows_and_features_is_refused(shape):
    assert refusal(check_rows, np.ones(shape)) == (
        f"expected x of shape (n, features) or (n, height, width, channels), got shape {shape}"
    )


@pytest.mark.parametrize(
    ("shape", "event_shape", "sentence"),
    [
        ((5, 3), (2,), "expected x with rows of 2 features, got rows of 3 features"),
        ((5, 2, 1, 1), (2,), "expected x with rows of 2 features, got rows of shape (2, 1, 1)"),
        ((5, 3), (4, 4, 3), "expected x with rows of shape (4, 4, 3), got rows of 3 features"),
        ((5, 4, 4, 1), (4, 4, 3), "expected x with rows of shape (4, 4, 3), got rows of shape (4, 4, 1)"),
    ],
)
def test_rows_of_another_shape_are_refused(shape, event_shape, sentence):
    assert refusal(check_rows, np.ones(shape), event_shape) == sentence


@pytest.mark.parametrize("shape", [(0, 2), (3, 0), (2, 0, 4, 3)])
def test_a_batch_without_rows_or_values_is_refused(shape):
    assert refusal(check_rows, np.ones(shape)) == (
        f"expected x to have at least one row and one value in each, got shape {shape}"
    )


@pytest.mark.parametrize(("expected", "given_"), [("float32", "float64"), ("float64", "float32")])
def test_rows_of_another_dtype_than_the_parameters_are_refused(expected, given_):
    assert refusal(check_rows, np.ones((2, 2), given_), (2,), np.dtype(expected), "z") == (
        f"expected z in {expected}, the dtype of the parameters, got {given_}; convert it: z.astype(np.{expected})"
    )


@pytest.mark.parametrize(("row", "column", "value"), [(0, 0, np.nan), (2, 1, np.inf), (4, 2, -np.inf)])
def test_a_value_that_is_not_finite_is_refused_with_its_row_and_index(row, column, value):
    x = np.zeros((5, 3))
    x[row, column] = value
    assert refusal(check_rows, x, name="validation") == (
        f"expected validation to be finite, got {value} in row {row}, at index ({column},)"
    )


def test_the_first_of_several_values_that_are_not_finite_is_named():
    x = np.zeros((3, 2, 2, 1), np.float32)
    x[1, 0, 1, 0], x[1, 1, 0, 0], x[2] = np.inf, np.nan, np.nan
    assert refusal(check_rows, x) == "expected x to be finite, got inf in row 1, at index (0, 1, 0)"


@pytest.mark.parametrize("value", [1, 7, np.int64(7), np.uint8(7), np.array(7)])
def test_a_count_is_given_back_as_an_int(value):
    count = check_count(value, "steps")
    assert type(count) is int
    assert count == value


def test_a_count_is_accepted_from_least_to_most():
    for count in (-2, 0, 3):
        assert check_count(count, "n", least=-2, most=3) == count
    for count, bound in ((-3, "least -2"), (4, "most 3")):
        words = refusal(check_count, count, "n", least=-2, most=3)
        assert words == f"expected n to be at {bound}, got {count}"


def test_a_count_that_is_too_large_can_say_why():
    assert refusal(check_count, 9, "batch_size", most=5, because=", the 5 rows of x") == (
        "expected batch_size to be at most 5, the 5 rows of x, got 9"
    )


def test_a_count_beyond_any_array_is_refused():
    assert check_count(2**40, "n") == 2**40
    assert refusal(check_count, 10**30, "n") == f"expected n to be at most {2**40}, got {10**30}"
    assert refusal(check_count, 10**300, "n") == f"expected n to be at most {2**40}, got an int"


@pytest.mark.parametrize("value", [1.0, "3", None, [1], np.float64(2), np.arange(2), True, np.False_])
def test_a_count_that_is_not_an_integer_is_refused(value):
    assert refusal(check_count, value, "steps") == f"expected steps to be an integer, got {value!r}"


@pytest.mark.parametrize("value", [0.5, 1, np.float32(0.5), np.int8(1), np.array(0.5), np.float64(0.25)])
def test_a_number_is_given_back_as_a_float(value):
    number = check_number(value, "decay")
    assert type(number) is float
    assert number == value


@pytest.mark.parametrize("number", [-0.1, 1.0, 2])
def test_a_number_outside_its_bounds_is_refused_with_both(number):
    words = refusal(check_number, number, "decay", least=0, below=1)
    assert words == f"expected decay to be a finite number at least 0 below 1, got {float(number)}"


def test_a_number_may_equal_its_least_and_not_above_and_below():
    assert check_number(0, "rate", least=0) == 0
    assert check_number(math.ulp(0), "rate", above=0) == math.ulp(0)
    assert check_number(math.nextafter(1, 0), "rate", below=1) < 1
    assert refusal(check_number, 0, "rate", above=0) == "expected rate to be a finite number above 0, got 0.0"
    assert refusal(check_number, 1, "rate", below=1) == "expected rate to be a finite number below 1, got 1.0"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, np.float32(np.nan)])
def test_a_number_that_is_not_finite_is_refused(value):
    assert refusal(check_number, value, "rate") == f"expected rate to be a finite number, got {float(value)}"


@pytest.mark.parametrize("value", ["0.5", b"1", None, [1.0], 1j])
def test_what_is_not_a_number_is_refused(value):
    assert refusal(check_number, value, "rate", above=0) == (
        f"expected rate to be a number above 0, got {value!r}"
    )


def test_a_number_too_large_for_a_float_is_refused():
    assert refusal(check_number, 10**400, "rate").startswith("expected rate to be a number, got an int")


@pytest.mark.parametrize(
    ("context", "features", "sentence"),
    [
        (np.ones((5, 2)), 0, "expected no context for a model with context_features=0, got one"),
        (None, 2, "expected a context of 2 features for each of 5 rows, got none"),
        (np.ones((5, 3)), 2, "expected context with rows of 2 features, got rows of 3 features"),
        (np.ones((4, 2)), 2, "expected a row of context for each of 5 rows, got 4"),
    ],
)
def test_a_context_that_does_not_belong_to_the_rows_is_refused(context, features, sentence):
    assert check_context(None, 0, 5, np.float64, "a model") is None
    assert refusal(check_context, context, features, 5, np.float64, "a model") == sentence


@pytest.mark.parametrize(
    ("context", "features", "rows"),
    [
        (np.arange(6.0).reshape(3, 2), 2, [[0, 1], [2, 3], [4, 5]]),
        (np.arange(6).reshape(3, 2), 2, [[0, 1], [2, 3], [4, 5]]),
        ([0.5, 2.0], 2, [[0.5, 2]] * 3),  # one row for all
        ([[0.5, 2.0]], 2, [[0.5, 2]] * 3),
        ([2, 0, 1], 3, [[0, 0, 1], [1, 0, 0], [0, 1, 0]]),  # classes
        (np.uint8([1, 1, 0]), 2, [[0, 1], [0, 1], [1, 0]]),
        (1, 3, [[0, 1, 0]] * 3),  # one class for all
        (2.5, 1, [[2.5]] * 3),  # one feature: numbers
        (7, 1, [[7]] * 3),
        ([7, 8, 9], 1, [[7], [8], [9]]),
        (Frame([7, 8, 9]), 1, [[7], [8], [9]]),
        (np.bool_([True, False]), 2, [[1, 0]] * 3),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_context_is_a_row_for_each_row_or_one_for_all_or_classes(context, features, rows, dtype):
    if getattr(context, "dtype", None) == np.float64:
        context = context.astype(dtype)
    found = check_context(context, features, 3, dtype, "a model")
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, rows)


@pytest.mark.parametrize(
    ("context", "features", "words"),
    [
        ([0, 3, 1], 3, "the classes in context to be from 0 to 2, got 3 in row 1"),
        ([-1, 0, 1], 3, "the classes in context to be from 0 to 2, got -1 in row 0"),
        ([0, 1], 3, "a row of context for each of 3 rows, got 2"),
        ([0.0, 1.0], 3, "context with rows of 3 features, got rows of 2"),
        ([np.nan, 1.0], 2, "context to be finite, got nan"),
        ("cat", 3, "context as an array of numbers, got a str"),
        (["cat", "dog", "cat"], 2, "context as an array of numbers, got a list"),
    ],
)
def test_classes_and_rows_that_do_not_fit_are_refused(context, features, words):
    assert words in refusal(check_context, context, features, 3, np.float64, "a model")


def test_sequences_come_back_as_tuples():
    assert check_sequence([1, 2], "widths") == check_sequence(iter((1, 2)), "widths") == (1, 2)
    assert check_sequence(np.array([3, 4]), "widths") == (3, 4)


@pytest.mark.parametrize("value", [5, None, "64", {"a": 1}])
def test_what_is_not_a_sequence_is_refused(value):
    assert refusal(check_sequence, value, "widths") == f"expected widths as a list or tuple, got {value!r}"


def test_a_choice_is_one_of_those_there_are():
    assert check_choice("b", ("a", "b"), "the letter") == "b"
    assert check_choice("b", {"a": 1, "b": 2}, "the letter") == "b"
    for value in ("c", None, ["a"]):
        assert refusal(check_choice, value, ("a", "b"), "the letter") == (
            f"expected the letter to be one of 'a', 'b', got {value!r}"
        )


@pytest.mark.parametrize("value", [True, np.bool_(False)])
def test_a_flag_is_given_back_as_a_bool(value):
    assert check_flag(value, "record") is bool(value)


@pytest.mark.parametrize("value", [0, 1, None, "yes", np.array(True)])
def test_what_is_not_true_or_false_is_refused(value):
    assert refusal(check_flag, value, "record") == f"expected record to be True or False, got {value!r}"


def test_an_instance_is_given_back_and_others_are_refused():
    layer = Reverse()
    assert check_instance(layer, Reverse, "the layer") is layer
    for value in (None, Reverse, Chain([layer])):
        words = refusal(check_instance, value, Reverse, "the layer")
        assert words == f"expected the layer to be an instance of Reverse, got {in_short(value)}"


def test_parameters_are_in_float32_or_float64():
    for dtype in (np.float32, np.float64, np.dtype("float32"), "float64", float):
        assert check_dtype(dtype) == np.dtype(dtype)
    for dtype in (np.float16, int, object, None, "none", 32, np.zeros(2, np.float32)):
        assert "float32 or float64" in refusal(check_dtype, dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64])
def test_integers_in_range_are_given_back_as_they_are(dtype):
    x = np.array([[0, 7], [3, 2]], dtype)
    assert check_integers(x, 8) is check_integers(x, 8, (2,)) is x


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.ones((2, 2)), "got float64"),
        (np.ones((2, 2), bool), "got bool"),
        (np.array([[0, 1], [8, -1]]), "got -1 in row 1, at index (1,)"),
        (np.array([[0, 1], [8, 9]]), "got 9 in row 1, at index (1,)"),
        (np.zeros((2, 3), int), "got rows of 3 features"),
        (np.zeros((0, 2), int), "at least one row"),
    ],
)
def test_what_is_not_integers_in_range_is_refused(x, words):
    assert words in refusal(check_integers, x, 8, (2,))


def test_a_function_is_given_back_and_what_cannot_be_called_is_refused():
    assert check_callable(len, "the loss") is len
    assert refusal(check_callable, None, "the loss") == "expected the loss to be a function, got None"


def test_a_numpy_generator_is_given_back():
    rng = np.random.default_rng(0)
    assert check_rng(rng) is rng


@pytest.mark.parametrize(
    ("rng", "kind"),
    [(0, "an int"), (None, "a NoneType"), (random.Random(0), "a Random"), (np.random.PCG64(0), "a PCG64")],
)
def test_what_is_not_a_numpy_generator_is_refused(rng, kind):
    assert refusal(check_rng, rng) == (
        f"expected rng to be a numpy.random.Generator, got {kind}; make one: np.random.default_rng(0)"
    )


def test_input_errors_are_value_errors_that_can_be_told_from_further_out():
    error = InputError("expected a, got b").inside(1, Reverse()).inside("layer", Chain([Reverse()]))
    assert isinstance(error, ValueError)
    assert type(error) is InputError
    assert str(error) == "layer/1 (Reverse): expected a, got b"


@pytest.mark.filterwarnings("ignore:the matrix subclass")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: np.ma.masked_array(np.ones((3, 2)), mask=np.eye(3, 2)),
            "got a MaskedArray: fill what is masked",
        ),
        (lambda: np.matrix(np.ones((3, 2))), "got a matrix: convert it with np.asarray"),
        (
            lambda: scipy.sparse.csr_array(np.ones((3, 2))),
            "got a csr_array: convert it with its method toarray",
        ),
    ],
    ids=["masked", "matrix", "sparse"],
)
def test_an_array_that_means_something_else_is_refused(make, words):
    assert words in refusal(check_rows, make())
    assert words in refusal(check_integers, make().astype(int), 9)


def test_an_array_of_a_subclass_is_taken_as_a_plain_one(tmp_path):
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=(3, 2))
    for array in (x, x.view(np.recarray)):
        taken = check_rows(array)
        assert type(taken) is np.ndarray
        assert np.shares_memory(taken, x)
