"""The record of a training run."""

import numpy as np
import pytest

from npflow import InputError
from npflow.training import History


def test_it_is_rebuilt_from_its_arrays():
    history = History([1.0, 2.0], [0.1, 0.1], [3.0, 4.0], [0.5, 1.0], [2], [1.5])
    again = History.from_arrays(history.arrays())
    assert again == history
    assert again.steps == 2
    assert isinstance(again.validation_step[0], int)


def test_missing_series_are_refused():
    with pytest.raises(InputError, match=r"expected the series loss, learning_rate, .*, got \['a'\]"):
        History.from_arrays({"a": np.zeros(2)})


def test_it_plots(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    _, ax = plt.subplots()
    assert History([1.0, 2.0], [0.1, 0.1], [3.0, 4.0], [0.5, 1.0]).plot(ax, limit=0.5) is ax
    assert ax.lines
    plt.close("all")


def test_its_repr_is_one_line():
    assert repr(History()) == "History(0 steps)"
    assert repr(History([1.0, 2.25], [0.1, 0.1])) == "History(2 steps, the last loss 2.25 nats)"
