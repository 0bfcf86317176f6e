"""Monotone maps of each component: a shift, a scale and a shift, and a map of the reader's own."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import refusal, rows

from npflow.layers import Elementwise, ScaleShift, Shift, Spline
from npflow.verify import check

MAPS = {"Shift": Shift(), "ScaleShift": ScaleShift(), "Spline": Spline(bins=4)}
every_map = pytest.mark.parametrize("layer", MAPS.values(), ids=MAPS)
every_shape = pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)], ids=["rows", "images"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


# ---------------------------------------------------------------- all maps


@every_map
@every_shape
@every_dtype
def test_a_new_map_is_the_identity(layer, shape, dtype):
    x = rows(*shape, dtype=dtype)
    params = layer.init(np.random.default_rng(0), x)
    np.testing.assert_array_equal(params["raw"], np.zeros(4 * layer.numbers, dtype), strict=True)
    tolerance = 8 * np.finfo(dtype).eps
    for y, log_det in (layer.forward(params, x), layer.inverse(params, x)):
        np.testing.assert_allclose(y, x, rtol=tolerance, atol=tolerance, strict=True)
        np.testing.assert_allclose(log_det, np.zeros(shape[0], dtype), atol=50 * tolerance, strict=True)


@every_map
@every_shape
@every_dtype
def test_both_directions_and_their_log_slopes_are_like_their_input(layer, shape, dtype):
    x = rows(*shape, dtype=dtype)
    numbers = layer.numbers * shape[-1]
    for raw in (rows(numbers, dtype=dtype, seed=2), rows(*shape[:-1], numbers, dtype=dtype, seed=2)):
        for array in (*layer.transform(raw, x), *layer.untransform(raw, x)):
            assert (array.shape, array.dtype) == (x.shape, x.dtype)


@every_map
@every_shape
def test_the_log_det_is_the_sum_of_the_log_slopes_of_an_event(layer, shape):
    x, raw = rows(*shape), rows(layer.numbers * shape[-1], seed=2)
    axes = tuple(range(1, x.ndim))
    z, log_slope = layer.transform(raw, x)
    for got, expected in zip(layer.forward({"raw": raw}, x), (z, log_slope.sum(axes))):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    back, back_log_slope = layer.untransform(raw, z)
    for got, expected in zip(layer.inverse({"raw": raw}, z), (back, back_log_slope.sum(axes))):
        np.testing.assert_allclose(got, expected, rtol=1e-13)
    np.testing.assert_allclose(back, x, rtol=1e-12)
    np.testing.assert_allclose(back_log_slope, -log_slope, rtol=1e-10, atol=1e-12)


@every_map
@every_shape
def test_the_numbers_of_all_rows_are_broadcast_to_each(layer, shape):
    x, raw = rows(*shape), rows(layer.numbers * shape[-1], seed=2)
    to_each = np.broadcast_to(raw, (*shape[:-1], len(raw)))
    same_in_a_row = np.broadcast_to(raw, (shape[0], *[1] * (x.ndim - 2), len(raw)))
    for direction in (layer.transform, layer.untransform):
        expected = direction(raw, x)
        for given in (to_each, same_in_a_row, raw[None], to_each[:1]):
            np.testing.assert_allclose(direction(given, x), expected, rtol=1e-13, atol=1e-15)


@every_map
def test_entries_of_the_numbers_are_a_whole_row_of_components_apart(layer):
    x, raw = rows(5, 4), rows(5, layer.numbers * 4, seed=2)
    for direction in (layer.transform, layer.untransform):
        together = direction(raw, x)
        for i in range(4):
            alone = direction(raw[:, i::4], x[:, i : i + 1])
            np.testing.assert_array_equal(alone, [part[:, i : i + 1] for part in together])


@every_map
@every_dtype
def test_numbers_of_any_size_and_far_inputs_give_finite_results(layer, dtype):
    x = rows(50, 4, dtype=dtype) * np.array([1, 10, 1e10, 1e30], dtype)
    for size in (1, 1e3, 1e30):
        raw = (size * rows(50, layer.numbers * 4, seed=2)).astype(dtype)
        for array in (*layer.transform(raw, x), *layer.untransform(raw, x)):
            assert np.isfinite(array).all()


@dataclass(frozen=True)
class Sinh(Elementwise):
    """z = sinh(arcsinh(x) + raw): a map as a reader would write it."""

    numbers = 1

    def transform(self, raw, x):
        y = anp.arcsinh(x) + raw
        return anp.sinh(y), anp.log(anp.cosh(y)) - anp.log(1 + x * x) / 2

    def untransform(self, raw, z):
        return self.transform(-raw, z)


def test_a_map_of_the_readers_own_is_a_layer():
    check(Sinh(), rows(8, 3)).raise_if_failed()


# ---------------------------------------------------------------- shift, scale and shift


@every_shape
def test_a_shift_is_added(shape):
    x, raw = rows(*shape), rows(*shape, seed=2)
    np.testing.assert_array_equal(Shift().transform(raw, x), (x + raw, np.zeros(shape)))
    np.testing.assert_array_equal(Shift().untransform(raw, x), (x - raw, np.zeros(shape)))


@pytest.mark.parametrize("limit", [0.5, 2, 10.0])
@every_dtype
def test_the_log_scale_stays_inside_its_limit(limit, dtype):
    raw = 1e4 * rows(50, 2, dtype=dtype)
    _, log_slope = ScaleShift(limit).transform(raw, rows(50, 1, dtype=dtype))
    assert 0.99 * limit < np.abs(log_slope).max() <= limit


@pytest.mark.parametrize("limit", [2, np.float64(2), np.float32(2)])
def test_float32_is_kept_whatever_the_type_of_the_limit(limit):
    arrays = ScaleShift(limit).transform(rows(5, 4, dtype=np.float32), rows(5, 2, dtype=np.float32))
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize("limit", [0, np.inf, None, "2"])
def test_limits_that_cannot_be_used_are_refused(limit):
    assert "ScaleShift's log_scale_limit to be a" in refusal(ScaleShift, limit)
