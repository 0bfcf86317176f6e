"""Gaussianization of each component."""

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from npflow import Flow, fit
from npflow.autodiff import Layout, value_and_grad
from npflow.errors import InputError
from npflow.layers import Gaussianize
from npflow.priors import Normal
from npflow.verify.jacobians import by_autograd

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 999)


def rows(n=500, shape=(3,), dtype=np.float64, seed=0):
    """Two clusters, skewed, and with heavy tails, in columns of their own."""
    rng = np.random.default_rng(seed)
    size = (n, *shape[:-1])
    columns = [
        rng.normal(0, 1, size) + rng.choice([-3, 3], size),
        rng.exponential(10, size),
        rng.standard_t(2, size),
    ]
    return np.stack(columns, axis=-1).astype(dtype)


def moved(layer, x, seed=0, noise=0.3):
    """Parameters that are not those of the fit, and the same in float64."""
    params = layer.init(np.random.default_rng(seed), x)
    layout = Layout(params)
    step = noise * np.random.default_rng(seed).standard_normal(layout.size)
    return layout.unpack(layout.pack(params) + step.astype(x.dtype), params)


def tails(x, dtype=np.float64):
    """Rows from 40 standard deviations on one side of the data to 40 on the other."""
    return (np.mean(x, axis=0) + np.linspace(-40, 40, 401)[:, None] * np.std(x, axis=0)).astype(dtype)


def test_z_is_the_normal_quantile_of_the_mixtures_distribution_function():
    layer, x = Gaussianize(components=2), rows(20)
    params = moved(layer, x)
    z, log_det = layer.forward(params, x)
    weights = np.exp(params["log_weights"]) / np.exp(params["log_weights"]).sum(axis=-1, keepdims=True)
    logistic = stats.logistic(params["means"], np.exp(params["log_scales"]))
    np.testing.assert_allclose(z, stats.norm.ppf(np.sum(weights * logistic.cdf(x[..., None]), axis=-1)))
    density = np.sum(weights * logistic.pdf(x[..., None]), axis=-1)
    np.testing.assert_allclose(log_det, np.sum(np.log(density) - stats.norm.logpdf(z), axis=-1))


@every_dtype
def test_its_first_batch_and_others_like_it_leave_normal_without_a_gradient(dtype):
    layer = Gaussianize()
    params = layer.init(np.random.default_rng(0), rows(4000, dtype=dtype))
    for x in (rows(4000, dtype=dtype), rows(4000, dtype=dtype, seed=1)):
        for column in layer.forward(params, x)[0].T:
            assert stats.kstest(column, "norm").statistic < 0.04
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(dtype)}
    assert all(leaf.flags.c_contiguous for leaf in params.values())


@few
@given(seeds, st.sampled_from([1, 2, 8, 30]))
def test_there_and_back_is_exact_forty_standard_deviations_out(seed, components):
    layer, x = Gaussianize(components), rows(300, seed=seed)
    params = moved(layer, x, seed)
    far = tails(x)
    z, log_det = layer.forward(params, far)
    back, inverse_log_det = layer.inverse(params, z)
    scale = np.std(x, axis=0)
    np.testing.assert_allclose(back / scale, far / scale, rtol=0, atol=1e-9)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=0, atol=1e-9)


@few
@given(seeds, st.sampled_from([1, 2, 8, 30]))
def test_the_other_way_round_is_exact_for_any_z_of_a_standard_normal_and_far_more(seed, components):
    layer, x = Gaussianize(components), rows(300, seed=seed)
    params = moved(layer, x, seed)
    z = np.linspace(-40, 40, 401)[:, None] * np.ones(3)
    back, log_det = layer.inverse(params, z)
    again, forward_log_det = layer.forward(params, back)
    np.testing.assert_allclose(again, z, rtol=0, atol=1e-9)
    np.testing.assert_allclose(forward_log_det, -log_det, rtol=0, atol=1e-9)


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("components", [1, 8])
def test_the_log_det_is_that_of_the_exact_jacobian_forty_standard_deviations_out(components, direction):
    layer, x = Gaussianize(components), rows(300)
    params = moved(layer, x)
    start = tails(x) if direction == "forward" else np.linspace(-40, 40, 401)[:, None] * np.ones(3)
    method = getattr(layer, direction)
    jacobians = by_autograd(lambda start: method(params, start)[0], start)
    expected = np.log(np.abs(np.diagonal(jacobians, axis1=1, axis2=2))).sum(axis=1)
    np.testing.assert_allclose(method(params, start)[1], expected, rtol=1e-9, atol=1e-9)


def test_in_float32_the_tails_are_as_exact_as_float32_is():
    layer, x = Gaussianize(), rows(300, dtype=np.float32)
    params = moved(layer, x)
    far = tails(x, np.float32)
    z, log_det = layer.forward(params, far)
    back, inverse_log_det = layer.inverse(params, z)
    assert {array.dtype for array in (z, log_det, back, inverse_log_det)} == {np.dtype(np.float32)}
    scale = np.std(x, axis=0)
    np.testing.assert_allclose(back / scale, far / scale, rtol=0, atol=1e-4)
    exact, exact_log_det = layer.forward(
        {name: leaf.astype(float) for name, leaf in params.items()}, far.astype(float)
    )
    np.testing.assert_allclose(z, exact, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(log_det, exact_log_det, rtol=1e-5, atol=3e-3)  # of densities of exp(-1000)


@every_dtype
@pytest.mark.parametrize("direction", ["forward", "inverse"])
def test_gradients_are_finite_in_both_tails(direction, dtype):
    layer, x = Gaussianize(), rows(300, dtype=dtype)
    start = (
        tails(x, dtype)
        if direction == "forward"
        else tails(np.random.default_rng(0).normal(size=x.shape), dtype)
    )

    def total(everything):
        y, log_det = getattr(layer, direction)(everything["layer"], everything["input"])
        return anp.sum(y) + anp.sum(log_det)

    everything = {"layer": moved(layer, x), "input": start}
    _, gradient = value_and_grad(total)(everything)
    assert np.isfinite(Layout(everything).pack(gradient)).all()


def test_what_is_far_out_moves_in_proportion_both_ways():
    layer, x = Gaussianize(), rows(2000)
    params = moved(layer, x)
    for method in (layer.forward, layer.inverse):
        out, log_det = method(params, np.array([[-1e6], [1e6], [2e6], [3e6]]) * np.ones(3))
        np.testing.assert_allclose(out[3] - out[2], out[2] - out[1], rtol=1e-6)
        np.testing.assert_allclose(np.sum(np.log((out[3] - out[2]) / 1e6)), log_det[3], rtol=1e-6)
        assert (out[0] < 0).all()


@every_dtype
@pytest.mark.parametrize("n", [1, 2, 4])
def test_a_batch_of_a_few_rows_some_of_them_alike_is_enough_to_start_from(n, dtype):
    x = np.array([[1.0, 5.0, 0.0], [2.0, 5.0, 0.0], [2.0, 5.0, 0.0], [4.0, 5.0, 1e-3]], dtype)[:n]
    layer = Gaussianize()
    params = layer.init(np.random.default_rng(0), x)
    for start in (x, rows(50, dtype=dtype)):
        z, log_det = layer.forward(params, start)
        assert np.isfinite(z).all()
        assert np.isfinite(log_det).all()
    np.testing.assert_allclose(layer.forward(params, x)[0][:, 1], 0, atol=1e-5)  # all alike: in the middle


def test_each_place_of_an_image_has_a_mixture_of_its_own():
    layer, x = Gaussianize(components=4), rows(200, (2, 5, 3))
    params = layer.init(np.random.default_rng(0), x)
    assert {name: leaf.shape for name, leaf in params.items()} == dict.fromkeys(
        ("means", "log_scales", "log_weights"), (2, 5, 3, 4)
    )
    z, log_det = layer.forward(params, x)
    one = {name: leaf[1, 2] for name, leaf in params.items()}
    np.testing.assert_array_equal(layer.forward(one, x[:, 1, 2])[0], z[:, 1, 2])
    assert log_det.shape == (200,)


def test_the_number_of_components_is_a_count():
    with pytest.raises(InputError, match="expected Gaussianize's components to be at least 1, got 0"):
        Gaussianize(components=0)
    with pytest.raises(InputError, match="expected Gaussianize's components to be an integer"):
        Gaussianize(components=2.5)


def test_trained_it_comes_nearer_to_the_data_than_it_was_fitted():
    x = rows(2000)
    flow = Flow(Gaussianize(components=2), Normal(3))
    start = flow.init(np.random.default_rng(0), x)
    params, _ = fit(flow, start, x, rng=np.random.default_rng(1), steps=60, progress=False)
    assert flow.loss(params, x) < flow.loss(start, x)


def test_log_det_and_gradients_of_an_outlier_are_those_of_double_precision_in_single():
    # log dz/dx is a difference of numbers of the size of z^2 / 2 if it is taken for one.
    data = np.random.default_rng(1).standard_normal((200, 1))
    for far in (1e1, 1e3, 1e5, -1e5):
        found = []
        for dtype in (np.float32, np.float64):
            layer, x = Gaussianize(), np.full((1, 1), far, dtype)
            params = layer.init(np.random.default_rng(0), data.astype(dtype))
            value, gradient = value_and_grad(lambda p, x=x, layer=layer: layer.forward(p, x)[1][0])(params)
            found.append([value, gradient["log_scales"].sum(), gradient["means"].sum() * far])
        np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-4)  # a logit of 1e5 has seven digits
