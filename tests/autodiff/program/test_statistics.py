"""What calls cost, computed by hand."""

import autograd.numpy as anp
import numpy as np
import pytest
from tapes import call, entry

from npflow.autodiff.primitives import dense
from npflow.autodiff.program import record
from npflow.autodiff.program.calls import GETITEM
from npflow.autodiff.program.statistics import Cost, bytes_moved, costs_by_layer, flops, table, total
from npflow.autodiff.program.tape import Place, Tape, Value

ROWS = np.ones((4, 3))


@pytest.mark.parametrize(
    ("function", "arguments", "expected"),
    [
        (np.exp, (ROWS,), 12),
        (np.add, (ROWS, ROWS[:1]), 12),
        (np.dot, (ROWS, np.ones((3, 5))), 2 * 4 * 3 * 5),
        (np.matmul, (ROWS, np.ones((3, 5))), 2 * 4 * 3 * 5),
        (np.dot, (np.ones(4), ROWS), 2 * 4 * 3),
        (np.dot, (np.ones(3), np.ones(3)), 2 * 3),
        (np.dot, (2.0, ROWS), 2 * 12),
        (np.sum, (ROWS,), 12),
        (np.where, (ROWS > 0, ROWS, 0.0), 12),
        (np.take, (ROWS, [1, 0]), 0),
        (GETITEM, (ROWS, ([0, 1], (1, 2))), 0),
        (np.reshape, (ROWS, (12,)), 0),
    ],
)
def test_flops_are_two_for_a_product_and_one_for_each_element_otherwise(function, arguments, expected):
    assert (
        flops(call(function, *(entry(a) if isinstance(a, np.ndarray) else a for a in arguments))) == expected
    )


def test_arguments_that_are_no_arrays_count_nothing():
    # ([0, 1], ()) has no size: NumPy cannot make an array of it
    assert flops(call(lambda x, index: x * 2, entry(ROWS), ([0, 1], ()))) == 12


def test_bytes_are_those_read_and_those_written():
    assert bytes_moved(call(np.add, entry(ROWS), entry(ROWS[:1]))) == (12 + 3 + 12) * 8
    assert bytes_moved(call(np.exp, entry(ROWS.astype(np.float32)))) == (12 + 12) * 4
    assert bytes_moved(call(np.sum, entry(ROWS))) == (12 + 1) * 8
    assert bytes_moved(call(np.add, np.float64(2), entry(ROWS))) == (1 + 12 + 12) * 8


def test_views_are_free():
    one = Value(ROWS.T, np.transpose, (entry(ROWS),), views=(0,))
    assert (flops(one), bytes_moved(one)) == (0, 0)


def test_costs_add_up_but_for_the_peak():
    assert Cost(1, 2, 3, 40) + Cost(10, 20, 30, 4) == Cost(11, 22, 33, 40)


def test_costs_are_by_layer_and_direction():
    x = entry(ROWS)
    calls = [call(np.exp, x) for _ in range(4)]
    for one, title, backward in zip(calls, ("a", "b", "b", "b"), (False, False, True, True)):
        one.place = Place(title=title, backward=backward)
    costs = costs_by_layer(Tape((), (x,), tuple(calls), calls[0]), dict(zip(calls, (5, 6, 8, 7))))
    assert list(costs) == ["a", "b"]
    assert costs["a"] == (Cost(1, 12, 192, 5), Cost())
    assert costs["b"] == (Cost(1, 12, 192, 6), Cost(2, 24, 384, 8))
    assert total(costs) == Cost(4, 48, 768, 8)


def numbers(row):
    return [float(word) for word in row.split()[-8:]]


def test_the_last_row_of_the_table_is_the_sum_of_the_others():
    costs = {
        "layer00 norm: ActNorm()": (Cost(1, 2_000_000, 3_000_000, 5_000_000), Cost(2, 0, 1_000, 0)),
        "": (Cost(10, 0, 500_000, 7_000_000), Cost(0, 0, 0, 0)),
    }
    heads, columns, *rows, last = table(costs).splitlines()
    assert heads.split() == ["forward", "backward"]
    assert columns.split()[0] == "layer"
    assert [row[: len("outside the layers")].strip() for row in rows] == [
        "layer00 norm",
        "outside the layers",
    ]
    assert last.startswith("all ")
    values = np.array([numbers(row) for row in rows])
    for column, (value, expected) in enumerate(zip(numbers(last), values.T)):
        held = column % 4 == 3  # of what is held at a time the most counts
        assert value == pytest.approx(expected.max() if held else expected.sum(), abs=1e-3)


def test_a_table_of_nothing_has_a_sum():
    assert numbers(table({}).splitlines()[-1]) == [0] * 8


def test_the_cost_of_a_small_program_is_what_one_counts_by_hand():
    params = {"weight": np.ones((3, 5)), "bias": np.ones(5)}
    program = record(lambda params, x: anp.sum(dense(x, params["weight"], params["bias"])), params, ROWS)
    ((ahead, behind),) = program.costs.values()
    # the product, the bias, the sum; then the transposed inputs times the sum's gradient, and the sum over rows
    assert ahead.lines == 3
    assert ahead.flops == 2 * 4 * 3 * 5 + 4 * 5 + 4 * 5
    assert ahead.bytes == 8 * ((12 + 15 + 20) + (20 + 5 + 20) + (20 + 1))
    assert behind.flops in (2 * 3 * 4 * 5, 2 * 3 * 4 * 5 + 2 * 4 * 5)  # the latter may be a constant
    assert program.total_cost.flops == ahead.flops + behind.flops
    assert program.lines == ahead.lines + behind.lines
