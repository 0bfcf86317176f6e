"""Data in its own units."""

import numpy as np
import pytest
from helpers import vector

from npflow import Flow, fit
from npflow.autodiff import Layout
from npflow.layers import Chain, Gaussianize, Units
from npflow.layers.units import context_units, in_units
from npflow.priors import Normal

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def columns(n=400, dtype=np.float64):
    """Columns from millionths to millions, one with heavy tails."""
    rng = np.random.default_rng(0)
    x = np.stack([rng.normal(5, 1, n), rng.exponential(1, n), rng.standard_t(1, n)], axis=1)
    return (x * [1e-6, 1e6, 1]).astype(dtype)


def new(x):
    return Units().init(np.random.default_rng(0), x)


@every_dtype
def test_the_first_batch_leaves_with_spreads_of_the_order_of_one(dtype):
    x = columns(dtype=dtype)
    z, _ = Units().forward(new(x), x)
    low, high = np.quantile(z, [0.1, 0.9], axis=0)
    assert ((high - low > 2.56 / 2) & (high - low < 2.56 * 2)).all()
    assert z.dtype == dtype


@every_dtype
@pytest.mark.parametrize("shape", [(400, 3), (20, 5, 4, 3)], ids=["rows", "images"])
def test_it_multiplies_each_channel_by_a_power_of_two_and_back_without_losing_a_bit(shape, dtype):
    x = columns(dtype=dtype).reshape(shape)
    params = new(x)
    z, log_det = Units().forward(params, x)
    factors, exponents = np.frexp(z[x != 0] / x[x != 0])
    assert set(factors.tolist()) == {0.5}
    assert len(set(exponents.tolist())) == 3
    expected = -np.prod(shape[1:-1]) * np.log(2) * params["exponent"].astype(float).sum()
    np.testing.assert_allclose(log_det, np.full(len(x), expected), rtol=1e-6)
    back, inverse_log_det = Units().inverse(params, z)
    np.testing.assert_array_equal(back, x, strict=True)
    np.testing.assert_array_equal(inverse_log_det, -log_det)


def test_the_exponents_are_constants():
    params = new(columns())
    assert params["exponent"].dtype == np.int16
    assert Layout(params).size == 0


@pytest.mark.parametrize(("value", "exponent"), [(0.0, 0), (0.1, -3), (3e7, 25)])
def test_where_no_column_varies_the_largest_value_of_the_batch_is_the_unit(value, exponent):
    assert new(np.full((30, 2), [value, 0]))["exponent"].tolist() == [exponent] * 2


def test_a_column_that_does_not_vary_has_the_largest_spread_for_a_unit_unless_it_is_larger():
    x = columns()
    exponents = new(np.column_stack([x, np.zeros(400), np.full(400, 2.5), np.full(400, 1e30)]))["exponent"]
    assert exponents.tolist() == [-20, 20, 2, 20, 20, 100]


@every_dtype
def test_the_columns_have_the_same_sizes_beside_each_other_in_any_unit(dtype):
    kinds = [columns(), np.zeros((400, 1)), np.full((400, 2), [2.5, 2e7])]
    x = np.concatenate(kinds, axis=1)
    exponents = [new((x * unit).astype(dtype))["exponent"] for unit in np.geomspace(1, 2, 20)]
    assert np.ptp([one - one[0] for one in exponents], axis=0).max() == 0


def test_a_column_that_is_mostly_one_value_goes_by_its_standard_deviation():
    x = np.zeros((100, 1))
    x[:5] = 640
    assert new(x)["exponent"].tolist() == [7]


@pytest.mark.parametrize("size", [1e-38, 1e38])
def test_numbers_at_the_ends_of_float32_have_finite_scales(size):
    x = (size * np.random.default_rng(0).standard_normal((50, 2))).astype(np.float32)
    z, log_det = Units().forward(new(x), x)
    assert np.isfinite(z).all()
    assert np.isfinite(log_det).all()


def test_training_does_not_depend_on_the_units():
    x, unit = columns(dtype=np.float32), np.array([2.0**9, 2.0**-14, 1], np.float32)
    flow = Flow(Chain([Units(), Gaussianize(3)]), Normal(3))
    learned = []
    for data in (x, x * unit):
        start = flow.init(np.random.default_rng(0), data)
        params, _ = fit(flow, start, data, rng=np.random.default_rng(1), steps=8, progress=False)
        learned.append(vector(params))
    np.testing.assert_array_equal(*learned)


@pytest.mark.parametrize("far", [100, 2000, 1e6])
def test_a_column_far_from_zero_is_centered_without_losing_a_bit(far):
    x = (far + np.random.default_rng(0).standard_normal((400, 2))).astype(np.float32)
    params = new(x)
    z, _ = Units().forward(params, x)
    assert np.abs(np.median(z, axis=0)).max() < 2
    np.testing.assert_array_equal(Units().inverse(params, z)[0], x, strict=True)
    near = x.astype(float) - far
    scales = np.exp2(-params["exponent"].astype(float))
    np.testing.assert_array_equal(np.diff(z, axis=0), np.diff(near * scales, axis=0))


def test_a_column_near_zero_is_not_centered():
    assert not new(columns())["center"].any()


@every_dtype
def test_exponents_go_as_far_as_the_dtype(dtype):
    size = float(np.finfo(dtype).max) ** 0.75
    z, _ = Units().forward(new(x := (columns() * size / 1e6).astype(dtype)), x)
    assert np.quantile(np.abs(z), 0.8, axis=0).max() < 20


@pytest.mark.parametrize("unit", [1.0, 1e-30, 1e30])
def test_a_context_is_brought_to_the_order_of_one_but_for_columns_of_zeros_and_ones(unit, rng):
    numbers = rng.normal(2000, 10, (50, 1)) * unit
    classes = rng.integers(0, 2, 50)
    classes[7] = 2  # a rare one
    context = np.concatenate([numbers, np.eye(4)[classes]], axis=1)
    seen = in_units({"context": context_units(context)}, context)
    np.testing.assert_array_equal(seen[:, 1:], context[:, 1:])
    assert np.abs(seen[:, 0]).max() < 8
    assert 0.5 < np.std(seen[:, 0]) < 2
