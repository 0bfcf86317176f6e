"""Checks of a user's input, made before any work.

A check returns its input, or raises `InputError` with one sentence: what was expected, what came, and where, such as
the row of a NaN.
"""

import operator

import numpy as np
from autograd.tracer import getval

from npflow.errors import InputError, in_short, kind_of


def check_rows(x, event_shape=None, dtype=None, name="x", any_shape=False):
    """Raise unless `x` is a non-empty batch of finite float32 or float64 rows; return it.

    Parameters
    ----------
    x : ndarray, shape (n, *event_shape)
        The batch. It may be an autograd box, so that checked functions stay differentiable.
    event_shape : tuple of int, optional
        The shape of one row; None accepts any.
    dtype : dtype, optional
        The only dtype accepted; None accepts float32 and float64.
    name : str
        What the caller calls the array.
    any_shape : bool
        Whether rows may have any number of axes.

    Raises
    ------
    InputError
        With the row of a value that is not finite.
    """
    array = getval(x)  # of nested boxes too
    check_array(array, f"expected {name} as a NumPy array")
    if array.dtype not in (np.float32, np.float64):
        hint = f"; convert it: {name}.astype(np.float32)" if array.dtype.kind in "iubf" else ""
        raise InputError(f"expected {name} in float32 or float64, got {array.dtype}{hint}")
    _check_shape(array, event_shape, name, any_shape and array.ndim > 0)
    if dtype is not None and array.dtype != dtype:
        raise InputError(
            f"expected {name} in {np.dtype(dtype)}, the dtype of the parameters, got {array.dtype}; "
            f"convert it: {name}.astype(np.{np.dtype(dtype)})"
        )
    finite = np.isfinite(array)
    if not finite.all():
        raise InputError(
            f"expected {name} to be finite, got {_at(array, np.argmin(finite))}"
        )  # the first False
    return x


def check_domain(x, domain, name="x"):
    """Raise unless each number of `x` lies in the open interval `domain`; return it."""
    low, high = domain
    inside = (x > low) & (x < high)
    if not inside.all():
        raise InputError(
            f"expected {name} above {low:.6g} and below {high:.6g}, got {_at(x, np.argmin(inside))}"
        )
    return x


def check_integers(x, levels, event_shape=None, name="x"):
    """Raise unless `x` is a non-empty batch of integers from 0 to `levels` - 1; return it.

    Parameters
    ----------
    x : ndarray of integers, shape (n, *event_shape)
    levels : int
    event_shape : tuple of int, optional
        The shape of one row; None accepts any.
    name : str
        What the caller calls the array.

    Raises
    ------
    InputError
        With the row of an integer that is out of range.
    """
    expected = f"expected {name} as integers from 0 to {levels - 1}"
    check_array(x, expected)
    if x.dtype.kind not in "ui":
        raise InputError(f"{expected}, got {x.dtype}")
    _check_shape(x, event_shape, name)
    if x.min() < 0 or x.max() >= levels:
        raise InputError(f"{expected}, got {_at(x, np.argmin(x) if x.min() < 0 else np.argmax(x))}")
    return x


def check_array(array, expected):
    """Raise, in a sentence that begins with `expected`, unless `array` is an array of all its numbers."""
    if not hasattr(array, "__array_function__"):
        raise InputError(f"{expected}, got {kind_of(array)}")
    if isinstance(array, np.ma.MaskedArray):
        raise InputError(f"{expected}, got a MaskedArray: fill what is masked, or leave its rows out")
    if isinstance(array, np.matrix):
        raise InputError(f"{expected}, got a matrix: convert it with np.asarray")


def check_dtype(dtype):
    """Raise unless parameters can have this dtype; return it."""
    if dtype not in (np.float32, np.float64):
        raise InputError(f"expected the parameters' dtype to be float32 or float64, got {dtype!r}")
    return dtype


def check_context(context, features, rows, dtype, model, name="context"):
    """Raise unless `context` has shape (rows, features), or is None where `features` is 0."""
    if features == 0:
        if context is not None:
            raise InputError(f"expected no {name} for {model} with context_features=0, got one")
        return
    if context is None:
        raise InputError(f"expected a {name} of {features} features for each of {rows} rows, got none")
    check_rows(context, (features,), dtype, name)
    if len(context) != rows:
        raise InputError(f"expected a row of {name} for each of {rows} rows, got {len(context)}")


def context_name(name):
    """What the caller calls the context of the rows called `name`."""
    return "validation_context" if name == "validation" else "context"


def _check_shape(array, event_shape, name, any_shape=False):
    """Raise unless `array` is a non-empty batch, of rows of a shape if it is given."""
    if array.ndim not in (2, 4) and not any_shape:
        hint = f"; add an axis for the channels: {name}[..., None]" if array.ndim == 3 else ""
        if event_shape is not None and array.shape == event_shape:
            hint = f"; a single one is a batch of one: {name}[None]"
        raise InputError(
            f"expected {name} of shape (n, features) or (n, height, width, channels), got shape {array.shape}{hint}"
        )
    if event_shape is not None and array.shape[1:] != event_shape:
        raise InputError(f"expected {name} with rows of {_words(event_shape)}, "
                         f"got rows of {_words(array.shape[1:])}")  # fmt: skip
    if array.size == 0:
        raise InputError(f"expected {name} to have at least one row and one value in each, "
                         f"got shape {array.shape}")  # fmt: skip


def _at(array, place):
    """The number at a place of a flattened array, and its row and index, as text."""
    row, *index = map(int, np.unravel_index(int(place), array.shape))
    return f"{array[row, *index].item()} in row {row}, at index {tuple(index)}"


def check_count(value, name, *, least=1, most=None, because=""):
    """Raise unless `value` is an integer from `least` to `most`; return it as an int."""
    try:
        count = operator.index(value)
    except TypeError:
        raise InputError(f"expected {name} to be an integer, got {in_short(value)}") from None
    if count < least:
        raise InputError(f"expected {name} to be at least {least}, got {count}")
    if most is not None and count > most:
        raise InputError(f"expected {name} to be at most {most}{because}, got {count}")
    return count


def check_sequence(value, name):
    """Raise unless `value` is a list, a tuple or the like; return it as a tuple."""
    try:
        if isinstance(value, (str, bytes, dict)):
            raise TypeError
        return tuple(value)
    except TypeError:
        raise InputError(f"expected {name} as a list or tuple, got {in_short(value)}") from None


def check_number(value, name, *, above=None, least=None, below=None):
    """Raise unless `value` is a finite number within the bounds; return it as a float."""
    bounds = [
        ("above", above, operator.gt),
        ("at least", least, operator.ge),
        ("below", below, operator.lt),
    ]
    bounds = [(word, bound, holds) for word, bound, holds in bounds if bound is not None]
    words = "".join(f" {word} {bound}" for word, bound, _ in bounds)
    try:
        if isinstance(value, (str, bytes)):
            raise TypeError  # `float` accepts strings
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"expected {name} to be a number{words}, got {in_short(value)}") from None
    if not np.isfinite(number) or not all(holds(number, bound) for _, bound, holds in bounds):
        raise InputError(f"expected {name} to be a finite number{words}, got {number}")
    return number


def check_choice(value, choices, name):
    """Raise unless `value` is one of some strings; return it."""
    if not isinstance(value, str) or value not in tuple(choices):
        raise InputError(
            f"expected {name} to be one of {', '.join(map(repr, choices))}, got {in_short(value)}"
        )
    return value


def check_flag(value, name):
    """Raise unless `value` is True or False; return it as a bool."""
    if not isinstance(value, (bool, np.bool_)):
        raise InputError(f"expected {name} to be True or False, got {in_short(value)}")
    return bool(value)


def check_instance(value, kind, name):
    """Raise unless `value` is an instance of the class `kind`; return it."""
    if not isinstance(value, kind):
        raise InputError(f"expected {name} to be an instance of {kind.__name__}, got {in_short(value)}")
    return value


def check_rng(rng):
    """Raise unless `rng` is a `numpy.random.Generator`; return it."""
    if not isinstance(rng, np.random.Generator):
        raise InputError(
            f"expected rng to be a numpy.random.Generator, got {kind_of(rng)}; "
            "make one: np.random.default_rng(0)"
        )
    return rng


def _words(event_shape):
    if len(event_shape) == 1:
        return f"{event_shape[0]} features"
    return f"shape {event_shape}"
