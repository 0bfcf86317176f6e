"""A parameter tree as plain data beside its vector: what does not fit is refused."""

import numpy as np
import pytest
from helpers import refusal
from stored import saved, with_contents

from npflow import load


@pytest.mark.parametrize("dtype", [np.float16, np.longdouble, np.int64])
def test_parameters_are_in_float32_or_float64(dtype, tmp_path):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, lambda contents: contents.update(params=contents["params"].astype(dtype)))
    assert "expected parameters in float32 or float64" in refusal(load, path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda c: c.pop("constant:layer/3/permutation"),
            "an entry for the constant 'layer/3/permutation', got none",
        ),
        (lambda c: c.update({"constant:x": np.arange(2)}), "constants of the architecture, got 'x'"),
        (lambda c: c.update({"constant:layer/3/sign": np.ones(3, np.int8)}), "integers of shape (2,) at"),
        (lambda c: c.update({"constant:layer/3/sign": np.ones(2)}), "integers of shape (2,) at"),
        (lambda c: c.update({"run:vector": np.zeros(2)}), "expected the state of a run"),
    ],
)
def test_missing_and_odd_entries_get_a_sentence(change, words, tmp_path):
    path = saved(tmp_path / "flow.npz")
    with_contents(path, change)
    words_said = refusal(load, path)
    assert words in words_said
    assert str(path) in words_said


@pytest.mark.parametrize(
    "numbers",
    [[0, 1, 2, 101], [0, 1, 2, 2], [-1, 0, 1, 2], np.array([0, 1, 2, 3], np.uint64)],
    ids=["out of bounds", "twice", "negative", "no index"],
)
@pytest.mark.parametrize("layer", ["Permutation", "Conv1x1"])
def test_a_permutation_that_is_none_gets_a_sentence(layer, numbers, tmp_path):
    path = saved(tmp_path / "flow.npz", "nested")
    place = f"layer/0/{['Permutation', 'Conv1x1'].index(layer)}/permutation"
    with_contents(path, lambda contents: contents.update({f"constant:{place}": np.array(numbers)}))
    assert f"each number below 4 once at '{place}'" in refusal(load, path)
