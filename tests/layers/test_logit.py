"""Numbers between 0 and 1 as any real numbers."""

import numpy as np
import pytest
import scipy.special
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import Flow, fit
from npflow.layers import ActNorm, Chain, Logit, Reverse
from npflow.priors import Logistic, Normal
from npflow.verify import check

few = settings(max_examples=10, deadline=None)
alphas = st.sampled_from([1e-6, 1e-3, 0.05, 0.4])


def numbers(seed, dtype=np.float64):
    """Numbers inside, at the ends, and next to them."""
    x = np.random.default_rng(seed).uniform(0, 1, (4, 6))
    x[0, :4] = [0, 1, 1e-7, 1 - 1e-7]
    return x.astype(dtype)


@few
@given(alphas, st.integers(0, 99))
def test_it_is_scipys_logit_of_numbers_moved_away_from_both_ends(alpha, seed):
    x, layer = numbers(seed), Logit(alpha)
    p = alpha + (1 - 2 * alpha) * x
    z, log_det = layer.forward({}, x)
    np.testing.assert_allclose(z, scipy.special.logit(p), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(log_det, np.sum(np.log((1 - 2 * alpha) / (p * (1 - p))), axis=1), rtol=1e-9)
    back, inverse_log_det = layer.inverse({}, z)
    np.testing.assert_allclose(back, x, atol=1e-14)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-9)


@few
@given(alphas, st.integers(0, 99))
def test_float32_loses_no_digits_at_either_end(alpha, seed):
    x, layer = numbers(seed, np.float32), Logit(alpha)
    for got, exact in zip(layer.forward({}, x), layer.forward({}, x.astype(np.float64))):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-6)
    z, _ = layer.forward({}, x)
    for got, exact in zip(layer.inverse({}, z), layer.inverse({}, z.astype(np.float64))):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=1e-6)


def test_zero_and_one_lie_as_far_from_the_middle():
    z, _ = Logit(0.05).forward({}, np.array([[0, 0.5, 1]]))
    np.testing.assert_allclose(z, [[np.log(0.05 / 0.95), 0, np.log(0.95 / 0.05)]], atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_any_z_has_a_finite_x_which_lies_a_little_beyond_the_ends_at_most(dtype):
    z = np.array([[-1e4, -30, 0, 30, 1e4]], dtype)
    x, log_det = Logit(0.05).inverse({}, z)
    beyond = 0.05 / 0.9
    np.testing.assert_allclose(x, [[-beyond, -beyond, 0.5, 1 + beyond, 1 + beyond]], rtol=1e-5)
    assert np.isfinite(log_det).all()


def test_with_logistic_z_and_no_alpha_its_x_is_uniform():
    x = np.random.default_rng(0).uniform(0, 1, (100, 3))
    flow = Flow(Logit(alpha=0), Logistic(3))
    np.testing.assert_allclose(flow.log_prob(flow.init(np.random.default_rng(0), x), x), 0, atol=1e-12)


def test_without_alpha_it_passes_what_verify_asks_of_it():
    x = np.random.default_rng(0).uniform(0.1, 0.9, (8, 3))
    check(Logit(alpha=0), x).raise_if_failed()


def test_the_domain_is_where_p_lies_between_its_ends():
    assert Logit(0).domain == (0, 1)
    assert Logit(0.05).domain == pytest.approx((-0.05 / 0.9, 1 + 0.05 / 0.9))


@pytest.mark.parametrize("alpha", [0, 0.05])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_outside_the_domain_the_density_is_zero_and_nothing_is_nan(alpha, dtype):
    flow, rng = Flow(Chain([Logit(alpha), ActNorm()]), Normal(2)), np.random.default_rng(0)
    x = rng.uniform(0.1, 0.9, (50, 2)).astype(dtype)
    params = flow.init(rng, x)
    largest = np.finfo(dtype).max
    outside = np.array([[1.2, 0.5], [0.5, -0.2], [largest, 0.5], [-largest, largest]], dtype)
    np.testing.assert_array_equal(flow.log_prob(params, outside), -np.inf)
    for call in (flow.init, lambda rng, x: fit(flow, params, x, rng=rng, steps=1, progress=False)):
        assert "got 1.2" in refusal(call, rng, np.concatenate([x, outside[:1]]))
        assert "in row 50, at index (0,)" in refusal(call, rng, np.concatenate([x, outside[:1]]))


@pytest.mark.parametrize("alpha", [0, 1e-6, 0.05])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_own_samples_have_a_finite_density(alpha, dtype):
    z = np.concatenate([np.linspace(-1000, 1000, 999), np.linspace(-40, 40, 999)]).astype(dtype)[:, None]
    x, _ = Logit(alpha).inverse({}, z)
    low, high = Logit(alpha).domain
    assert ((low < x.astype(float)) & (x.astype(float) < high)).all()
    assert all(np.isfinite(part).all() for part in Logit(alpha).forward({}, x))


def test_deeper_inside_the_layer_is_named(rng):
    flow = Flow(Chain([Reverse(), Logit()]), Normal(2))
    assert "layer/1 (Logit): expected its input above -0.0555556" in refusal(
        flow.init, rng, np.full((4, 2), 3.0)
    )


@pytest.mark.parametrize("alpha", [-0.1, 0.5, "a"])
def test_an_alpha_that_cannot_be_used_is_refused(alpha):
    sentence = refusal(Logit, alpha)
    assert "Logit's alpha to be a" in sentence
    assert f"at least 0 below 0.5, got {alpha!r}" in sentence
