"""What a recording refuses, call by call; that it refuses it with the user's line is test_recording's."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import new_box

from npflow.autodiff.program.refusals import SHAPES_FROM_VALUES, SIZES, refusal
from npflow.autodiff.program.tape import Value

X = Value(np.arange(6.0).reshape(2, 3))
MASK = Value(X.example > 2)
COUNT = Value(np.array(3))


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("add", (X, 1.0)),
        ("__getitem__", (X, (slice(None), 0))),
        ("__getitem__", (X, COUNT)),
        ("where", (MASK, X, 0.0)),
        ("reshape", (X, (3, 2))),
        ("full", ((2, 3), COUNT)),
        ("ones", ((2, 3),)),
        ("unique_to_me", (X,)),
    ],
)
def test_calls_whose_shapes_follow_from_shapes_are_not_refused(name, arguments):
    assert refusal(name, arguments, {}, None) is None


@pytest.mark.parametrize(
    ("name", "arguments", "what"),
    [
        ("__getitem__", (X, MASK), "an index by a mask"),
        ("where", (MASK,), "where of a condition alone"),
        ("ones", (COUNT,), "ones"),
        ("reshape", (X, COUNT), "reshape"),
        *[(name, (X,), name) for name in sorted(SHAPES_FROM_VALUES)],
    ],
)
def test_calls_whose_shapes_follow_from_values_are_refused(name, arguments, what):
    sentence = refusal(name, arguments, {}, None)
    assert sentence.startswith("expected results whose shapes depend on shapes alone")
    assert sentence.endswith(f"got {what}")


@pytest.mark.parametrize(
    ("arguments", "options"),
    [(([1, "box"],), {}), (({"a": ("box",)},), {}), ((X,), {"axis": "box"}), ((X,), {"axis": ["box"]})],
)
def test_a_box_that_no_recording_would_see_is_refused(arguments, options):
    box = new_box(np.ones(2), 0, None)

    def put(thing):
        if isinstance(thing, (list, tuple)):
            return type(thing)(map(put, thing))
        if isinstance(thing, dict):
            return {name: put(value) for name, value in thing.items()}
        return box if isinstance(thing, str) else thing

    assert "got one inside another argument" in refusal("add", put(arguments), put(options), None)


@pytest.mark.parametrize("put", [lambda box: box, lambda box: (1, [box])])
def test_a_primitive_that_reads_a_box_from_around_it_is_refused(put):
    assert "from the code around it" in refusal("mine", (X,), {}, put(new_box(np.ones(2), 0, None)))


def test_every_function_it_names_is_numpys():
    assert all(callable(getattr(anp, name)) for name in SHAPES_FROM_VALUES | set(SIZES))
