"""Quantiles in both tails: of the normal distribution, and of mixtures of logistics."""

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_ndtr
from scipy.stats import norm

from npflow.autodiff import value_and_grad
from npflow.layers import gaussianization as quantiles
from npflow.layers.gaussianization import (
    logistic_mixture,
    logit_of_normal,
    mixture_quantile,
    normal_of_logit,
)

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32)


def slope(fun, x):
    return value_and_grad(lambda x: anp.sum(fun(x)))(x)[1]


def draw(seed, shape=(3,), components=4, spread=1.0):
    """A mixture whose scales differ by a factor of exp(4 spread) or so."""
    rng = np.random.default_rng(seed)
    return [factor * rng.standard_normal((*shape, components)) for factor in (2, spread, 1)]


# ---------------------------------------------------------------- the normal distribution, with straight tails


@every_dtype
def test_to_the_bend_the_normal_quantile_is_the_normal_quantile(dtype):
    z = np.linspace(-quantiles.BEND, quantiles.BEND, 101)
    logit = log_ndtr(z) - log_ndtr(-z)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(normal_of_logit(logit.astype(dtype)), z, rtol=20 * eps, atol=2 * eps)
    np.testing.assert_allclose(logit_of_normal(z.astype(dtype)), logit, rtol=20 * eps, atol=2 * eps)


@every_dtype
def test_beyond_the_bend_it_goes_straight_on_with_the_slope_it_has_there(dtype):
    bend = quantiles.BEND
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
    near = np.clip(np.abs(z), 0, quantiles.BEND)
    expected = norm.pdf(near) / (norm.cdf(near) * norm.sf(near))
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(slope(logit_of_normal, z), expected, rtol=tolerance)
    np.testing.assert_allclose(slope(normal_of_logit, logit_of_normal(z)), 1 / expected, rtol=tolerance)
    around = quantiles.LOGIT_BEND + np.array([-1e-3, 1e-3], dtype)
    np.testing.assert_allclose(*slope(normal_of_logit, around), rtol=1e-3)


# ---------------------------------------------------------------- mixtures of logistics


@few
@given(seeds, st.integers(1, 5))
def test_a_mixture_has_the_distribution_function_and_the_density_of_its_components(seed, components):
    means, log_scales, log_weights = mixture = draw(seed, components=components)
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
    mixture = draw(seed, components=components, spread=spread)
    logit = 30 * np.random.default_rng(seed).standard_t(2, (50, 3))
    x = mixture_quantile(logit, *mixture)
    found, log_slope = logistic_mixture(x, *mixture)
    # As near as the numbers next to x let it be.
    resolution = np.finfo(float).eps * (1 + np.abs(logit) + np.abs(x) * np.exp(log_slope))
    assert np.max(np.abs(found - logit) / resolution) < 100


def test_it_is_found_long_before_the_steps_are_used_up(monkeypatch):
    steps = []
    plain = quantiles.logistic_mixture

    def counting(*args):
        steps[-1] += 1
        return plain(*args)

    monkeypatch.setattr(quantiles, "logistic_mixture", counting)
    for seed in range(30):
        mixture = draw(seed, components=2 + seed % 7, spread=seed / 8)
        steps.append(0)
        quantiles._solve(logit_of_normal(np.linspace(-40, 40, 123).reshape(41, 3)), *mixture)
    assert max(steps) < 0.8 * quantiles.STEPS
    assert np.median(steps[:8]) < 12  # with scales that do not differ that much


@every_dtype
def test_the_gradient_of_a_quantile_is_that_of_the_implicit_function(dtype):
    names, mixture = ("logit", "means", "log_scales", "log_weights"), draw(0)
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
    mixture = draw(3, spread=2.0)
    logit = 20 * np.random.default_rng(0).standard_normal((9, 3))
    together = mixture_quantile(logit, *mixture)
    for row, alone in zip(logit, together):
        np.testing.assert_array_equal(mixture_quantile(row[None], *mixture)[0], alone)


@every_dtype
def test_between_two_clusters_that_are_far_apart_every_number_is_finite(dtype):
    """There F is 1/2 over a long way, and its density 0: x cannot be told from F."""
    mixture = [np.array([values], dtype) for values in ([-500.0, 500.0], [0.0, 0.0], [0.0, 0.0])]
    x = mixture_quantile(np.zeros((1, 1), dtype), *mixture)
    assert np.abs(x) < 500
    logit, log_slope = logistic_mixture(x, *mixture)
    assert np.abs(logit) < 1e-6
    assert -501 < log_slope < -198
