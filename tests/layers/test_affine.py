"""Scale and shift: one for each component, or one for each channel."""

import numpy as np
import pytest
from helpers import rows
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.layers import ActNorm, Affine

every_shape = pytest.mark.parametrize("shape", [(7, 3), (4, 2, 5, 3)], ids=["rows", "images"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=20, deadline=None)
any_shape = st.sampled_from([(1, 1), (3, 2), (2, 2, 3, 2)])


def data(*shape, dtype=np.float64):
    """Rows with mean 3 and standard deviation 2."""
    return 3 + 2 * rows(*shape, dtype=dtype)


def affine_params(shape, seed=0):
    rng = np.random.default_rng(seed)
    return {"mean": rng.normal(0, 2, shape), "log_std": rng.normal(0, 1, shape)}


def act_norm_params(channels, seed=0):
    rng = np.random.default_rng(seed)
    return {"bias": rng.normal(0, 2, channels), "log_scale": rng.normal(0, 1, channels)}


def assert_dtypes(arrays, dtype):
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


@few
@given(any_shape, st.integers(0, 99))
def test_affine_takes_the_shift_away_and_divides_by_the_scale_of_each_component(shape, seed):
    x, params = data(*shape), affine_params(shape[1:], seed)
    z, log_det = Affine().forward(params, x)
    np.testing.assert_allclose(z, (x - params["mean"]) / np.exp(params["log_std"]), rtol=1e-12)
    np.testing.assert_allclose(log_det, np.full(shape[0], -params["log_std"].sum()))


@few
@given(any_shape, st.integers(0, 99))
def test_affine_inverse_multiplies_by_the_scale_and_adds_the_shift(shape, seed):
    z, params = data(*shape), affine_params(shape[1:], seed)
    x, log_det = Affine().inverse(params, z)
    np.testing.assert_allclose(x, z * np.exp(params["log_std"]) + params["mean"], rtol=1e-12)
    np.testing.assert_allclose(log_det, np.full(shape[0], params["log_std"].sum()))


@every_shape
@every_dtype
def test_affine_starts_as_the_identity(shape, dtype):
    x = data(*shape, dtype=dtype)
    params = Affine().init(np.random.default_rng(0), x)
    assert_dtypes(params.values(), dtype)
    z, log_det = Affine().forward(params, x)
    np.testing.assert_array_equal(z, x, strict=True)
    np.testing.assert_array_equal(log_det, np.zeros(shape[0], dtype), strict=True)


def test_affine_with_the_mean_and_standard_deviation_of_the_data_normalizes_it():
    x = data(100, 2)
    z, _ = Affine().forward({"mean": x.mean(0), "log_std": np.log(x.std(0))}, x)
    np.testing.assert_allclose([z.mean(0), z.std(0)], [[0, 0], [1, 1]], atol=1e-12)


@few
@given(any_shape, st.integers(0, 99))
def test_act_norm_adds_the_bias_and_multiplies_by_the_scale_of_each_channel(shape, seed):
    x, params = data(*shape), act_norm_params(shape[-1], seed)
    z, log_det = ActNorm().forward(params, x)
    np.testing.assert_allclose(z, x * np.exp(params["log_scale"]) + params["bias"], rtol=1e-12)
    pixels = x[0].size // shape[-1]
    np.testing.assert_allclose(log_det, np.full(shape[0], pixels * params["log_scale"].sum()))


@few
@given(any_shape, st.integers(0, 99))
def test_act_norm_inverse_undoes_it(shape, seed):
    x, params = data(*shape), act_norm_params(shape[-1], seed)
    z, log_det = ActNorm().forward(params, x)
    back, inverse_log_det = ActNorm().inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-10)
    np.testing.assert_array_equal(inverse_log_det, -log_det)


@every_shape
@every_dtype
def test_the_first_batch_leaves_act_norm_with_mean_zero_and_variance_one_in_each_channel(shape, dtype):
    x = data(*shape, dtype=dtype) * np.array([1, 10, 0.1], dtype)
    params = ActNorm().init(np.random.default_rng(0), x)
    assert_dtypes(params.values(), dtype)
    assert params["bias"].shape == params["log_scale"].shape == (3,)
    z, _ = ActNorm().forward(params, x)
    channels = z.reshape(-1, 3)
    np.testing.assert_allclose(channels.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(channels.var(0), 1, rtol=1e-4)


@every_shape
@every_dtype
def test_a_constant_channel_stays_finite_through_act_norm(shape, dtype):
    x = data(*shape, dtype=dtype)
    x[..., 1] = 0.1
    params = ActNorm().init(np.random.default_rng(0), x)
    for values in (*params.values(), *ActNorm().forward(params, x), *ActNorm().inverse(params, x)):
        assert np.isfinite(values).all()
    back, _ = ActNorm().inverse(params, ActNorm().forward(params, x)[0])
    np.testing.assert_allclose(back, x, rtol=1e-5, atol=1e-5)


def test_act_norm_can_be_initialized_on_a_single_row():
    x = data(1, 2)
    z, log_det = ActNorm().forward(ActNorm().init(np.random.default_rng(0), x), x)
    assert np.abs(z).max() <= 1
    assert np.isfinite(log_det).all()


@every_shape
@every_dtype
@pytest.mark.parametrize("layer", [Affine(), ActNorm()], ids=["Affine", "ActNorm"])
def test_scale_and_shift_keep_the_dtype_in_both_directions(layer, shape, dtype):
    x = data(*shape, dtype=dtype)
    params = layer.init(np.random.default_rng(0), x)
    assert_dtypes([*layer.forward(params, x), *layer.inverse(params, x), layer.log_det(params, x)], dtype)


@every_dtype
@pytest.mark.parametrize("size", [1e-30, 1e-24, 1e-6, 1e20, 1e30])
def test_an_act_norm_normalizes_data_in_any_units(size, dtype):
    x = (np.random.default_rng(0).normal(1, 1, (200, 2)) * size).astype(dtype)
    z, _ = ActNorm().forward(ActNorm().init(None, x), x)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(z.std(axis=0), 1, rtol=200 * eps)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=200 * eps)


def test_its_statistics_are_exact_for_many_rows_far_from_zero():
    x = (1e4 + np.random.default_rng(0).normal(size=(100_000, 2))).astype(np.float32)
    z = ActNorm().forward(ActNorm().init(None, x), x)[0].astype(float)
    np.testing.assert_allclose(z.std(axis=0), 1, atol=1e-3)
    np.testing.assert_allclose(z.mean(axis=0), 0, atol=2e-3)  # the rounding of x


@every_dtype
@pytest.mark.parametrize("value", [0.0, 0.1, 2.5])
def test_a_constant_channel_has_the_scale_of_the_batch_in_any_units(value, dtype):
    x = np.random.default_rng(0).normal(size=(50, 3)).astype(dtype)
    x[:, 1] = value
    log_scales = [
        ActNorm().init(None, x * dtype(size))["log_scale"] + np.log(size) for size in (1, 2.0**-90, 2.0**90)
    ]
    np.testing.assert_allclose(log_scales[1:], [log_scales[0]] * 2, rtol=0, atol=1e-4)
    assert log_scales[0][1] == pytest.approx(-np.log(np.abs(x).max()), rel=1e-6)


@every_dtype
def test_the_rounding_of_a_constant_channel_is_not_taken_for_its_spread(dtype):
    x = np.random.default_rng(0).normal(size=(50, 2)).astype(dtype)
    x[:, 1] = 1e6
    x[::2, 1] = np.nextafter(x[0, 1], dtype(np.inf))
    for _ in range(3):
        params = ActNorm().init(None, x)
        x = ActNorm().forward(params, x)[0]
        assert np.abs(params["log_scale"][1]) < 15
    assert x[:, 1].std() < 1e-6
