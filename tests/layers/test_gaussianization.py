"""Gaussianization of each component: the layer, quantiles in both tails, and mixtures of logistics."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from helpers import perturbed, refusal
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import log_ndtr
from scipy.stats import norm

from npflow import Flow, fit
from npflow.autodiff import Layout, value_and_grad
from npflow.layers import Gaussianize, gaussianization
from npflow.layers.gaussianization import (
    fit_logistics,
    logistic_mixture,
    logit_of_normal,
    mixture_quantile,
    normal_of_logit,
)
from npflow.priors import Normal
from npflow.verify.jacobians import by_autograd

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=15, deadline=None)
fewer = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 2**32)


def columns(n=500, shape=(3,), dtype=np.float64, seed=0):
    """Two clusters, skewed, and with heavy tails, in columns of their own."""
    rng = np.random.default_rng(seed)
    size = (n, *shape[:-1])
    columns = [
        rng.normal(0, 1, size) + rng.choice([-3, 3], size),
        rng.exponential(10, size),
        rng.standard_t(2, size),
    ]
    return np.stack(columns, axis=-1).astype(dtype)


FAR_Z = np.linspace(-40, 40, 161)[:, None] * np.ones(3)


def tails(x, dtype=np.float64):
    """Rows from 40 standard deviations on one side of the data to 40 on the other."""
    return (np.mean(x, axis=0) + np.linspace(-40, 40, 161)[:, None] * np.std(x, axis=0)).astype(dtype)


def test_z_is_the_normal_quantile_of_the_mixtures_distribution_function():
    layer, x = Gaussianize(components=2), columns(20)
    params = perturbed(layer, x)
    z, log_det = layer.forward(params, x)
    weights = np.exp(params["log_weights"]) / np.exp(params["log_weights"]).sum(axis=-1, keepdims=True)
    logistic = stats.logistic(params["means"], np.exp(params["log_scales"]))
    np.testing.assert_allclose(z, stats.norm.ppf(np.sum(weights * logistic.cdf(x[..., None]), axis=-1)))
    density = np.sum(weights * logistic.pdf(x[..., None]), axis=-1)
    np.testing.assert_allclose(log_det, np.sum(np.log(density) - stats.norm.logpdf(z), axis=-1))


@every_dtype
def test_its_first_batch_and_others_like_it_leave_normal_without_a_gradient(dtype):
    layer = Gaussianize()
    params = layer.init(np.random.default_rng(0), columns(4000, dtype=dtype))
    for x in (columns(4000, dtype=dtype), columns(4000, dtype=dtype, seed=1)):
        for column in layer.forward(params, x)[0].T:
            assert stats.kstest(column, "norm").statistic < 0.04
    assert {leaf.dtype for leaf in params.values()} == {np.dtype(dtype)}
    assert all(leaf.flags.c_contiguous for leaf in params.values())


@pytest.mark.parametrize("components", [1, 2, 30])
@pytest.mark.parametrize("direction", ["forward", "inverse"])
@fewer
@example(seed=787)  # with 30 components one logit lies in a gap, where the density is 1e-8 of that around it
@example(seed=31972627)  # here 1e-9
@given(seed=seeds)
def test_there_and_back_is_exact_forty_standard_deviations_out(direction, components, seed):
    layer, x = Gaussianize(components), columns(100, seed=seed)
    params = perturbed(layer, x, seed=seed)
    start, scale = (tails(x), np.std(x, axis=0)) if direction == "forward" else (FAR_Z, 1)
    there, back = (layer.forward, layer.inverse) if direction == "forward" else (layer.inverse, layer.forward)
    y, log_det = there(params, start)
    again, back_log_det = back(params, y)
    # Where the slope is small, rounding y moves what it comes from by more.
    slope = elementwise_grad(lambda start: there(params, start)[0])(start)
    rounding = np.finfo(float).eps * np.maximum(1, np.abs(y)) / np.abs(slope) / scale
    assert np.all(np.abs(again - start) / scale <= 1e-9 + rounding)
    bend = elementwise_grad(lambda start: there(params, start)[1])(start)
    assert np.all(np.abs(back_log_det + log_det) <= 1e-8 + np.sum(np.abs(bend) * rounding * scale, axis=1))


@pytest.mark.parametrize("direction", ["forward", "inverse"])
@pytest.mark.parametrize("components", [1, 8])
def test_the_log_det_is_that_of_the_exact_jacobian_forty_standard_deviations_out(components, direction):
    layer, x = Gaussianize(components), columns(300)
    params = perturbed(layer, x)
    start = tails(x) if direction == "forward" else FAR_Z
    method = getattr(layer, direction)
    jacobians = by_autograd(lambda start: method(params, start)[0], start)
    expected = np.log(np.abs(np.diagonal(jacobians, axis1=1, axis2=2))).sum(axis=1)
    np.testing.assert_allclose(method(params, start)[1], expected, rtol=1e-9, atol=1e-9)


def test_in_float32_the_tails_are_as_exact_as_float32_is():
    layer, x = Gaussianize(), columns(300, dtype=np.float32)
    params = perturbed(layer, x)
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
    layer, x = Gaussianize(), columns(300, dtype=dtype)
    start = (
        tails(x, dtype)
        if direction == "forward"
        else tails(np.random.default_rng(0).normal(size=x.shape), dtype)
    )

    def total(everything):
        y, log_det = getattr(layer, direction)(everything["layer"], everything["input"])
        return anp.sum(y) + anp.sum(log_det)

    everything = {"layer": perturbed(layer, x), "input": start}
    _, gradient = value_and_grad(total)(everything)
    assert np.isfinite(Layout(everything).pack(gradient)).all()


def test_outliers_move_in_proportion_both_ways():
    layer, x = Gaussianize(), columns(2000)
    params = perturbed(layer, x)
    for method in (layer.forward, layer.inverse):
        out, log_det = method(params, np.array([[-1e6], [1e6], [2e6], [3e6]]) * np.ones(3))
        np.testing.assert_allclose(out[3] - out[2], out[2] - out[1], rtol=1e-6)
        np.testing.assert_allclose(np.sum(np.log((out[3] - out[2]) / 1e6)), log_det[3], rtol=1e-6)
        assert (out[0] < 0).all()


@every_dtype
@pytest.mark.parametrize("n", [1, 2, 4])
def test_init_takes_a_few_rows_and_equal_ones(n, dtype):
    x = np.array([[1.0, 5.0, 0.0], [2.0, 5.0, 0.0], [2.0, 5.0, 0.0], [4.0, 5.0, 1e-3]], dtype)[:n]
    layer = Gaussianize()
    params = layer.init(np.random.default_rng(0), x)
    for start in (x, columns(50, dtype=dtype)):
        z, log_det = layer.forward(params, start)
        assert np.isfinite(z).all()
        assert np.isfinite(log_det).all()
    np.testing.assert_allclose(
        layer.forward(params, x)[0][:, 1], 0, atol=1e-5
    )  # equal numbers lie in the middle


def test_each_place_of_an_image_has_a_mixture_of_its_own():
    layer, x = Gaussianize(components=4), columns(200, (2, 5, 3))
    params = layer.init(np.random.default_rng(0), x)
    assert {name: leaf.shape for name, leaf in params.items()} == dict.fromkeys(
        ("means", "log_scales", "log_weights"), (2, 5, 3, 4)
    )
    z, log_det = layer.forward(params, x)
    one = {name: leaf[1, 2] for name, leaf in params.items()}
    np.testing.assert_array_equal(layer.forward(one, x[:, 1, 2])[0], z[:, 1, 2])
    assert log_det.shape == (200,)


def test_the_number_of_components_is_a_count():
    assert "Gaussianize's components to be at least 1, got 0" in refusal(Gaussianize, components=0)
    assert "Gaussianize's components to be an integer" in refusal(Gaussianize, components=2.5)


def test_training_improves_the_fit():
    x = columns(2000)
    flow = Flow(Gaussianize(components=2), Normal(3))
    start = flow.init(np.random.default_rng(0), x)
    params, _ = fit(flow, start, x, rng=np.random.default_rng(1), steps=30, progress=False)
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
        np.testing.assert_allclose(*found, rtol=1e-3, atol=1e-4 + 5e-7 * abs(far))  # seven digits


def slope(fun, x):
    """The derivative of an elementwise function."""
    return value_and_grad(lambda x: anp.sum(fun(x)))(x)[1]


def mixture_of(seed, shape=(3,), components=4, spread=1.0):
    """Mixtures whose scales differ by a factor of exp(4 spread) or so."""
    rng = np.random.default_rng(seed)
    return [factor * rng.standard_normal((*shape, components)) for factor in (2, spread, 1)]


# ---------------------------------------------------------------- the normal quantile, with straight tails


@every_dtype
def test_to_the_bend_the_normal_quantile_is_the_normal_quantile(dtype):
    z = np.linspace(-gaussianization.BEND, gaussianization.BEND, 101)
    logit = log_ndtr(z) - log_ndtr(-z)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(normal_of_logit(logit.astype(dtype)), z, rtol=20 * eps, atol=2 * eps)
    np.testing.assert_allclose(logit_of_normal(z.astype(dtype)), logit, rtol=20 * eps, atol=2 * eps)


@every_dtype
def test_beyond_the_bend_it_goes_straight_on_with_the_slope_it_has_there(dtype):
    bend = gaussianization.BEND
    rise = norm.cdf(bend) * norm.sf(bend) / norm.pdf(bend)
    logit = norm.logcdf(bend) - norm.logsf(bend) + np.array([0, 1e-3, 1, 100, 1e8])
    for sign in (-1, 1):
        z = normal_of_logit((sign * logit).astype(dtype))
        assert z.dtype == dtype
        tolerance = 20 * np.finfo(dtype).eps
        np.testing.assert_allclose(z, sign * (bend + rise * (logit - logit[0])), rtol=tolerance)


@every_dtype
def test_the_logit_of_a_normal_quantile_is_its_inverse_however_far_out(dtype):
    z = np.concatenate([np.linspace(-60, 60, 241), [-1e8, 1e8]]).astype(dtype)
    logit = logit_of_normal(z)
    assert logit.dtype == dtype
    np.testing.assert_allclose(normal_of_logit(logit), z, rtol=20 * np.finfo(dtype).eps, atol=1e-15)
    np.testing.assert_array_equal(logit_of_normal(-z), -logit)


@every_dtype
def test_their_slopes_are_exact_and_do_not_jump_at_the_bend(dtype):
    z = np.linspace(-6, 6, 241).astype(dtype)
    near = np.clip(np.abs(z), 0, gaussianization.BEND)
    expected = norm.pdf(near) / (norm.cdf(near) * norm.sf(near))
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(slope(logit_of_normal, z), expected, rtol=tolerance)
    np.testing.assert_allclose(slope(normal_of_logit, logit_of_normal(z)), 1 / expected, rtol=tolerance)
    around = gaussianization.LOGIT_BEND + np.array([-1e-3, 1e-3], dtype)
    np.testing.assert_allclose(*slope(normal_of_logit, around), rtol=1e-3)


# ---------------------------------------------------------------- mixtures of logistics


@few
@given(seeds, st.integers(1, 5))
def test_a_mixture_has_the_distribution_function_and_the_density_of_its_components(seed, components):
    means, log_scales, log_weights = mixture = mixture_of(seed, components=components)
    x = np.random.default_rng(seed).standard_normal((7, 3))
    weights = np.exp(log_weights) / np.sum(np.exp(log_weights), axis=-1, keepdims=True)
    offsets = (x[..., None] - means) / np.exp(log_scales)
    below, above = 1 / (1 + np.exp(-offsets)), 1 / (1 + np.exp(offsets))
    odds = np.sum(weights * below, axis=-1) / np.sum(weights * above, axis=-1)
    density = np.sum(weights * below * above / np.exp(log_scales), axis=-1)
    slope = density / np.sum(weights * below, axis=-1) + density / np.sum(weights * above, axis=-1)
    logit, log_slope = logistic_mixture(x, *mixture)
    np.testing.assert_allclose(logit, np.log(odds), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_slope, np.log(slope), rtol=1e-9, atol=1e-9)


@every_dtype
def test_the_logit_of_one_logistic_is_a_straight_line_however_far_out(dtype):
    x = np.linspace(-1e4, 1e4, 10).astype(dtype)[:, None]  # not 0, where it bends
    logit, log_slope = logistic_mixture(x, *np.array([[[1.0]], [[np.log(2)]], [[5.0]]], dtype))
    np.testing.assert_allclose(logit, (x - 1) / 2, rtol=1e-6)
    np.testing.assert_allclose(log_slope, np.full_like(x, -np.log(2)), rtol=1e-6)
    assert logit.dtype == log_slope.dtype == dtype


@few
@given(seeds, st.integers(1, 6), st.floats(0, 3))
def test_a_quantile_has_its_logit(seed, components, spread):
    mixture = mixture_of(seed, components=components, spread=spread)
    logit = 30 * np.random.default_rng(seed).standard_t(2, (50, 3))
    x = mixture_quantile(logit, *mixture)
    found, log_slope = logistic_mixture(x, *mixture)
    # As near as the numbers next to x let it be.
    resolution = np.finfo(float).eps * (1 + np.abs(logit) + np.abs(x) * np.exp(log_slope))
    assert np.max(np.abs(found - logit) / resolution) < 100


def test_a_quantile_is_found_in_few_of_the_steps(monkeypatch):
    steps = []
    plain = gaussianization._logit_and_slope

    def counting(*args):
        steps[-1] += 1
        return plain(*args)

    monkeypatch.setattr(gaussianization, "_logit_and_slope", counting)
    for seed in range(20):
        mixture = mixture_of(seed, components=2 + seed % 7, spread=seed / 8)
        steps.append(0)
        gaussianization._solve(logit_of_normal(np.linspace(-40, 40, 123).reshape(41, 3)), *mixture)
    assert max(steps) < 0.8 * gaussianization.STEPS
    assert np.median(steps[:8]) < 12  # with scales that do not differ that much


@every_dtype
def test_the_gradient_of_a_quantile_is_that_of_the_implicit_function(dtype):
    names, mixture = ("logit", "means", "log_scales", "log_weights"), mixture_of(0)
    params = dict(zip(names, (np.random.default_rng(1).standard_normal((5, 3)), *mixture)))
    weights = np.random.default_rng(2).standard_normal((5, 3))
    total = lambda params: anp.sum(weights.astype(params["logit"].dtype) * mixture_quantile(**params))
    _, gradient = value_and_grad(total)({name: value.astype(dtype) for name, value in params.items()})
    for name, value in params.items():
        way = np.random.default_rng(3).standard_normal(value.shape)
        high, low = (total(params | {name: value + step * way}) for step in (1e-5, -1e-5))
        assert gradient[name].dtype == dtype
        tolerance = 1e-7 if dtype == np.float64 else 1e-4
        np.testing.assert_allclose(
            np.sum(gradient[name] * way), (high - low) / 2e-5, rtol=tolerance, atol=tolerance
        )


def test_a_quantile_does_not_depend_on_the_others_that_are_looked_for():
    mixture = mixture_of(3, spread=2.0)
    logit = 20 * np.random.default_rng(0).standard_normal((9, 3))
    together = mixture_quantile(logit, *mixture)
    for row, alone in zip(logit, together):
        np.testing.assert_allclose(mixture_quantile(row[None], *mixture)[0], alone, rtol=1e-13)


@every_dtype
def test_between_two_clusters_that_are_far_apart_every_number_is_finite(dtype):
    """There F is 1/2 over a long way, and its density 0: x cannot be told from F."""
    mixture = [np.array([values], dtype) for values in ([-500.0, 500.0], [0.0, 0.0], [0.0, 0.0])]
    x = mixture_quantile(np.zeros((1, 1), dtype), *mixture)
    assert np.abs(x) < 500
    logit, log_slope = logistic_mixture(x, *mixture)
    assert np.abs(logit) < 1e-6
    assert -501 < log_slope < (-59 if dtype == np.float32 else -299)  # where odds end


# ---------------------------------------------------------------- mixtures fitted to columns


def gaussianized(column, components, x=None):
    """What a column becomes through its own fit, or what x does."""
    fit = fit_logistics(column, components)
    return normal_of_logit(logistic_mixture(column if x is None else x, *fit)[0])


DRAWS = {
    "normal": lambda rng, n: rng.normal(7, 3, n),
    "two clusters": lambda rng, n: rng.normal(0, 1, n) + rng.choice([-8, 4], n),
    "skewed": lambda rng, n: rng.exponential(100, n),
    "bounded": lambda rng, n: rng.uniform(-1, 0, n),
    "heavy tails": lambda rng, n: rng.standard_t(2, n),
}


@pytest.mark.parametrize("name", DRAWS)
def test_what_goes_through_its_own_fit_is_nearly_normal(name):
    rng = np.random.default_rng(0)
    column, others = (DRAWS[name](rng, 4000) for _ in range(2))
    for x in (column, others):
        distance = stats.kstest(gaussianized(column, 8, x), "norm").statistic
        assert distance < 0.04  # 0.022 is the 5 % level of 4000 normal numbers


def test_one_logistic_is_the_likeliest_one():
    column = np.random.default_rng(0).standard_t(3, 5000)
    means, log_scales, log_weights = fit_logistics(column, 1)
    mean, scale = stats.logistic.fit(column)
    np.testing.assert_allclose(means, mean, atol=0.01)
    np.testing.assert_allclose(np.exp(log_scales), scale, rtol=0.01)
    np.testing.assert_array_equal(log_weights, [0])


@pytest.mark.parametrize("name", DRAWS)
def test_each_round_makes_the_column_likelier(name, monkeypatch):
    column = DRAWS[name](np.random.default_rng(0), 400)
    losses = []
    for rounds in (0, 1, 3, 10):
        monkeypatch.setattr(gaussianization, "ROUNDS", rounds)
        logit, log_slope = logistic_mixture(column, *fit_logistics(column, 4))
        losses.append(np.mean(np.logaddexp(0, logit) + np.logaddexp(0, -logit) - log_slope))
    assert (np.diff(losses) < 0).all()


def test_a_fit_moves_and_stretches_with_its_column():
    column = np.random.default_rng(0).standard_exponential(300)
    means, log_scales, log_weights = fit_logistics(column, 5)
    moved = fit_logistics(1000 + 1e-3 * column, 5)
    np.testing.assert_allclose(moved[0], 1000 + 1e-3 * means, rtol=1e-9)
    np.testing.assert_allclose(moved[1], log_scales + np.log(1e-3), rtol=1e-6)
    np.testing.assert_allclose(moved[2], log_weights, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    column=st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=12),
    components=st.integers(1, 9),
)
def test_any_numbers_have_a_fit(column, components):
    """Few numbers, ties, equal numbers, numbers far apart."""
    column = np.array(column)
    with np.errstate(all="raise", under="ignore"):
        means, log_scales, log_weights = fit_logistics(column, components)
    assert means.shape == log_scales.shape == log_weights.shape == (components,)
    assert np.isfinite([means, log_scales, log_weights]).all()
    assert column.min() - 1e-9 <= means.min() <= means.max() <= column.max() + 1e-9
    assert np.isfinite(gaussianized(column, components)).all()


def test_a_column_that_is_constant_gets_scale_one():
    for value in (0.0, 0.1, -3e7):
        means, log_scales, log_weights = fit_logistics(np.full(30, value), 4)
        np.testing.assert_array_equal(means, np.full(4, value))
        np.testing.assert_array_equal(log_scales, np.zeros(4))
        assert np.ptp(log_weights) == 0


def test_with_a_number_for_each_logistic_none_shrinks_to_a_point():
    column = np.array([-1.0, 0.0, 0.1, 2.0])
    _, log_scales, log_weights = fit_logistics(column, 4)
    assert np.exp(log_scales.min()) > 0.05 * np.std(column)
    assert np.exp(log_weights.min()) > 0.1


def test_one_outlier_does_not_take_the_others_resolution():
    rng = np.random.default_rng(0)
    for n in (50, 5000):
        column = np.append(rng.standard_normal(n), 1e8)
        *inside, outlier = gaussianized(column, 8)
        assert stats.kstest(inside, "norm").statistic < 0.1
        assert stats.kstest(gaussianized(column, 8, rng.standard_normal(5000)), "norm").statistic < 0.15
        assert outlier > max(inside)
