"""Calls that a recording refuses, because a program could not repeat them on other values."""

from autograd.tracer import isbox

from npflow.autodiff.program.tape import Value

SHAPES_FROM_VALUES = {
    *("argwhere", "bincount", "compress", "extract", "flatnonzero", "intersect1d", "nonzero", "setdiff1d"),
    *("setxor1d", "trim_zeros", "union1d", "unique"),
}

# The number of the argument that is a size.
SIZES = {"arange": 0, "empty": 0, "eye": 0, "full": 0, "identity": 0, "ones": 0, "tri": 0, "zeros": 0}
SIZES |= {"broadcast_to": 1, "repeat": 1, "reshape": 1, "tile": 1}

READING = (
    "expected the same operations for every batch of one shape, as a program repeats them, got a branch on the value "
    "of an array, or a number read off it (bool, float, int, item, or a function of math)"
)
NUMPY = "expected functions of autograd.numpy and autograd.scipy, which have derivatives, got one of NumPy's or SciPy's own"
IN_PLACE = (
    "expected new arrays, got one that is changed in place (x *= y, x[...] = y, out=): write x = x * y, and join or "
    "choose parts with np.concatenate and np.where"
)


def refusal(name, arguments, options, result):
    """A sentence on why a call of the function `name` cannot be recorded; None if it can."""
    culprit = _shape_from_values(name, arguments)
    if culprit:
        return (
            f"expected results whose shapes depend on shapes alone, as a program repeats them, got {culprit}"
        )
    if any(map(holds_box, (*arguments, *options.values()))):
        return (
            f"expected the arrays of {name} as positional arguments, where a recording sees them, "
            "got one inside another argument"
        )
    if holds_box(result):
        return (
            f"expected the arrays of {name} as its arguments, where a recording sees them, "
            "got one that it takes from the code around it"
        )
    return None


def _shape_from_values(name, arguments):
    """What makes the shape of a result depend on values; None if nothing does."""
    if name == "__getitem__" and any(map(_is_mask, arguments[1:])):
        return "an index by a mask"
    if name == "where" and len(arguments) == 1:
        return "where of a condition alone"
    sized_by_value = isinstance(dict(enumerate(arguments)).get(SIZES.get(name)), Value)
    return name if name in SHAPES_FROM_VALUES or sized_by_value else None


def _is_mask(argument):
    return isinstance(argument, Value) and argument.is_array and argument.example.dtype == bool


def holds_box(argument):
    """Whether an argument is or contains a box that a recording would not see."""
    if isinstance(argument, (list, tuple)):
        return any(map(holds_box, argument))
    if isinstance(argument, dict):
        return any(map(holds_box, argument.values()))
    return isbox(argument)
