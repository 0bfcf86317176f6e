"""Checks of a user's input, made before any work.

A check returns its input as npflow uses it, or raises `InputError` with one sentence: what was expected, what came, and
where, such as the row of a NaN.
"""

import operator

import numpy as np
from autograd.tracer import getval, isbox

from npflow.errors import InputError, in_short, kind_of

MANY = 2**40  # the largest count: far beyond it NumPy fails without saying how much memory an array takes


def check_rows(x, event_shape=None, dtype=None, name="x", any_shape=False):
    """Check a batch of rows of finite numbers, and return it as a float32 or float64 array.

    Parameters
    ----------
    x : array_like, shape (n, *event_shape)
        An array in `dtype` is returned as it is. Integers, booleans and lists are converted to `dtype`, a DataFrame to
        its array, and numbers in another byte order to native ones. An autograd box is returned as it is, so that
        checked functions stay differentiable.
    event_shape : tuple of int, optional
        The shape of one row; None accepts any.
    dtype : dtype, optional
        The only float dtype accepted. None accepts float32 and float64, and makes integers float64.
    name : str
        What the caller calls the array.
    any_shape : bool
        Whether rows may have any number of axes.

    Returns
    -------
    ndarray, shape (n, *event_shape)

    Raises
    ------
    InputError
        With the row of a value that is not finite.
    """
    value = getval(x)  # of nested boxes too
    array = check_array(value, f"expected {name} as an array of numbers", dtype)
    if array.dtype.kind in "biu":
        array = array.astype(dtype or np.float64)
    if not array.dtype.isnative:  # such as numbers from a FITS file
        array = array.astype(array.dtype.newbyteorder("="))
    if array.dtype not in (np.float32, np.float64):
        hint = f"; convert it: {name}.astype(np.float32)" if array.dtype.kind == "f" else ""
        raise InputError(f"expected {name} in float32 or float64, got {array.dtype}{hint}")
    _check_shape(array, event_shape, name, any_shape and array.ndim > 0)
    if dtype is not None and array.dtype != dtype:
        raise InputError(
            f"expected {name} in {np.dtype(dtype)}, the dtype of the parameters, got {array.dtype}; "
            f"convert it: {name}.astype(np.{np.dtype(dtype)})"
        )
    finite = np.isfinite(array)
    if not finite.all():
        raise InputError(f"expected {name} to be finite, got {_at(array, np.argmin(finite))}")
    return x if isbox(x) else array


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
    """Check a batch of rows of integers from 0 to `levels` - 1, and return it as an array.

    Parameters
    ----------
    x : array_like of integers, shape (n, *event_shape)
    levels : int
    event_shape : tuple of int, optional
        The shape of one row; None accepts any.
    name : str
        What the caller calls the array.

    Returns
    -------
    ndarray of integers, shape (n, *event_shape)

    Raises
    ------
    InputError
        With the row of an integer that is out of range.
    """
    expected = f"expected {name} as integers from 0 to {levels - 1}"
    x = check_array(x, expected)
    if x.dtype.kind not in "ui":
        raise InputError(f"{expected}, got {x.dtype}")
    _check_shape(x, event_shape, name)
    if x.min() < 0 or x.max() >= levels:
        raise InputError(f"{expected}, got {_at(x, np.argmin(x) if x.min() < 0 else np.argmax(x))}")
    return x


def check_array(value, expected, dtype=None):
    """Convert a value to an array of numbers. An array, of NumPy or a library such as CuPy, is returned as it is.

    Python's floats, alone or in a list or tuple, are converted to `dtype`, by default float64.

    Raises
    ------
    InputError
        If NumPy cannot convert the value. The message begins with `expected`.
    """
    hint = ""
    if isinstance(value, np.ma.MaskedArray):
        hint = ": fill what is masked, or leave its rows out"
    elif isinstance(value, np.matrix):
        hint = ": convert it with np.asarray"
    elif hasattr(value, "toarray"):
        hint = ": convert it with its method toarray"
    elif isinstance(value, np.ndarray) and type(value) is not np.ndarray:  # such as a memmap
        return value.view(np.ndarray)
    elif hasattr(value, "__array_function__"):
        return value
    else:
        try:
            array = np.asarray(value)
        except Exception:  # rows of different lengths, or a tensor that cannot be converted
            array = None
        if array is not None and array.dtype.kind in "biufc":
            floats = isinstance(value, (list, tuple, float)) and array.dtype.kind == "f"
            return cast(array, dtype, expected) if floats and dtype is not None else array
    raise InputError(f"{expected}, got {kind_of(value)}{hint}")


def cast(values, dtype, expected):
    """Convert floats to an array in another float dtype, in which each finite number must stay finite.

    Raises
    ------
    InputError
        If one overflows. The message begins with `expected`.
    """
    array = np.asarray(values)
    with np.errstate(over="ignore"):
        result = array.astype(dtype)
    lost = np.isfinite(array) & np.isinf(result)
    if lost.any():
        got = _at(array, np.argmax(lost)) if array.ndim > 1 else array[lost][0]
        raise InputError(f"{expected} in the range of {np.dtype(dtype)}, got {got}")
    return result


def check_dtype(dtype, name="the parameters' dtype"):
    """Raise unless parameters can have this dtype; return it as a `numpy.dtype`."""
    try:
        known = isinstance(dtype, (str, type, np.dtype)) and np.dtype(dtype) in (np.float32, np.float64)
    except TypeError:
        known = False
    if not known:
        raise InputError(f"expected {name} to be float32 or float64, got {in_short(dtype)}")
    return np.dtype(dtype)


def check_context_features(features, name):
    """Raise unless `features` is a number of context features, or the shape of an image; return it."""
    if not isinstance(features, (tuple, list)):
        return check_count(features, name, least=0)
    if len(features) != 3:
        raise InputError(f"expected {name} as an integer or as (height, width, channels), got {features!r}")
    return tuple(check_count(size, f"each number in {name}") for size in features)


def context_shape(features):
    """The shape of a row of context: one axis of features, or the three of an image."""
    return features if isinstance(features, tuple) else (features,)


def check_context(context, features, rows, dtype, model, name="context"):
    """Check the context of some rows, and return it as an array, or None where `features` is 0.

    Parameters
    ----------
    context : array_like, shape (rows, features) or (rows, height, width, channels)
        Or one row for all, without the first axis or with one row. Integers of shape (rows,), or a single one, are
        classes: the context is one-hot. With one feature they are numbers, like floats.
    features : int or tuple of int
        The number of features, or the shape of an image.
    rows : int or None
        With None, there may be any number of them.
    dtype : dtype
        That of the parameters.
    model : str
        What takes the context, such as "a flow".
    name : str
        What the caller calls the context.

    Returns
    -------
    ndarray, shape (rows, features) or (rows, height, width, channels), or None
    """
    if features == 0:
        if context is not None:
            raise InputError(f"expected no {name} for {model} with context_features=0, got one")
        return None
    if context is None:
        many = "each row" if rows is None else f"each of {rows} rows"
        raise InputError(f"expected a {name} of {_words(context_shape(features))} for {many}, got none")
    if not isbox(context):
        context = check_array(context, f"expected {name} as an array of numbers", dtype)
        if isinstance(features, tuple):
            context = context[None] if context.shape == features else context
        elif context.ndim < 2:
            context = _context_rows(context, features, name)
    context = check_rows(context, context_shape(features), dtype, name)
    if rows is None:
        return context
    if len(context) == 1 and rows != 1:
        context = np.repeat(context, rows, axis=0)
    if len(context) != rows:
        raise InputError(f"expected a row of {name} for each of {rows} rows, got {len(context)}")
    return context


def _context_rows(context, features, name):
    """Rows of context from one row, from a class for each row, or from numbers where there is one feature."""
    if context.dtype.kind not in "iu" or features == 1:
        return context.reshape((1, -1) if features > 1 else (-1, 1))
    classes = context.reshape(-1, 1)
    if classes.size and not 0 <= classes.min() <= classes.max() < features:
        wrong = np.argmax((classes < 0) | (classes >= features))
        raise InputError(
            f"expected the classes in {name} to be from 0 to {features - 1}, got {_at(classes, wrong)}"
        )
    return classes == np.arange(features, like=classes)


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
    """Raise unless `value` is an integer from `least` to `most`, by default `MANY`; return it as an int."""
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError  # they are integers to Python
        count = operator.index(value)
    except TypeError:
        raise InputError(f"expected {name} to be an integer, got {in_short(value)}") from None
    if count < least:
        raise InputError(f"expected {name} to be at least {least}, got {count}")
    most = MANY if most is None else most
    if count > most:
        raise InputError(f"expected {name} to be at most {most}{because}, got {in_short(count)}")
    return count


def check_seed(value, name):
    """Raise unless `value` is an integer that can seed a generator, such as a time in nanoseconds; return it."""
    return check_count(value, name, least=0, most=2**64 - 1)


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
        if isinstance(value, (str, bytes, bool, np.bool_)):
            raise TypeError  # `float` accepts them
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InputError(f"expected {name} to be a number{words}, got {in_short(value)}") from None
    if not np.isfinite(number) or not all(holds(number, bound) for _, bound, holds in bounds):
        raise InputError(f"expected {name} to be a finite number{words}, got {number}")
    return number + 0.0  # -0.0, which some functions call negative, becomes 0.0


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


def check_callable(function, name):
    """Raise unless `function` can be called; return it."""
    if not callable(function):
        raise InputError(f"expected {name} to be a function, got {in_short(function)}")
    return function


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
