"""Mixtures of logistics, fitted to columns of numbers without gradients."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from npflow.layers import gaussianization as logistics
from npflow.layers.gaussianization import fit_logistics, logistic_mixture, normal_of_logit


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
    for rounds in (0, 1, 3, 10, 50):
        monkeypatch.setattr(logistics, "ROUNDS", rounds)
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


@settings(max_examples=50, deadline=None)
@given(
    column=st.lists(st.floats(-1e6, 1e6, width=32) | st.sampled_from([0.0, 1.0]), min_size=1, max_size=12),
    components=st.integers(1, 9),
)
def test_any_numbers_have_a_fit(column, components):
    """Few, tied, all alike, far apart: a mixture with weights that sum to one, and numbers that it can be told."""
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
