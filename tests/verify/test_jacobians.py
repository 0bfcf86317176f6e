"""The two Jacobians: by finite differences with an error estimate, and by autograd."""

import autograd.numpy as np
import numpy as onp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff.primitives import leaky_relu
from npflow.verify.jacobians import by_autograd, by_finite_differences, log_abs_det


def smooth(x):
    return np.sin(x) + 0.5 * x[:, ::-1] ** 2


def smooth_jacobian(x):
    diagonal = onp.cos(x)[:, :, None] * onp.eye(x.shape[1])
    anti = x[:, ::-1][:, :, None] * onp.eye(x.shape[1])[::-1]
    return diagonal + anti


@settings(deadline=None, max_examples=20)
@given(rows=st.integers(1, 4), width=st.integers(1, 6), seed=st.integers(0, 2**32))
def test_both_equal_the_derivative_by_hand_within_the_estimate(rows, width, seed):
    x = onp.random.default_rng(seed).uniform(-3, 3, (rows, width))
    exact = smooth_jacobian(x)
    onp.testing.assert_allclose(by_autograd(smooth, x), exact, atol=1e-12)
    numerical, errors = by_finite_differences(smooth, x)
    assert onp.all(onp.abs(numerical - exact) <= 10 * errors)
    assert onp.max(errors) < 1e-8


@pytest.mark.parametrize(("mean", "std"), [(0, 1e4), (0, 1e-4), (1e6, 1), (-300, 0.1)])
def test_the_units_of_the_data_do_not_matter(mean, std):
    x = onp.random.default_rng(0).normal(mean, std, (8, 3))
    numerical, errors = by_finite_differences(lambda x: onp.arctan((x - mean) / std), x)
    exact = (1 / (1 + ((x - mean) / std) ** 2) / std)[:, :, None] * onp.eye(3)
    onp.testing.assert_allclose(numerical, exact, atol=1e-6 / std)
    assert onp.all(onp.abs(numerical - exact) <= 10 * errors)
    assert onp.all(errors < 1e-6 / std)


def test_kinks_are_resolved_by_smaller_steps():
    weights = onp.random.default_rng(0).standard_normal((6, 40))

    def kinks(x):
        return leaky_relu(x @ weights) @ weights.T

    x = onp.random.default_rng(1).standard_normal((8, 6))
    numerical, errors = by_finite_differences(kinks, x)
    onp.testing.assert_allclose(numerical, by_autograd(kinks, x), atol=1e-8)
    assert onp.all(onp.isfinite(errors))


def test_a_domain_that_ends_nearby_is_respected():
    x = onp.array([[0.01, 0.5], [0.99, 0.3]])  # the logit of anything outside (0, 1) is nan
    numerical, errors = by_finite_differences(lambda x: onp.log(x) - onp.log1p(-x), x)
    exact = (1 / (x * (1 - x)))[:, :, None] * onp.eye(2)
    onp.testing.assert_allclose(numerical, exact, rtol=1e-8, atol=1e-12)
    assert onp.all(onp.isfinite(errors))


def test_images_are_flattened_in_order():
    x = onp.random.default_rng(0).standard_normal((2, 2, 3, 1))
    numerical, _ = by_finite_differences(lambda x: x * onp.arange(6.0).reshape(2, 3, 1), x)
    onp.testing.assert_allclose(numerical, onp.broadcast_to(onp.diag(onp.arange(6.0)), (2, 6, 6)), atol=1e-9)


def test_log_abs_det_and_how_far_errors_move_it():
    rng = onp.random.default_rng(0)
    matrices = rng.standard_normal((20, 5, 5))
    errors = onp.full(matrices.shape, 1e-6)
    values, bounds = log_abs_det(matrices, errors)
    onp.testing.assert_allclose(values, onp.linalg.slogdet(matrices)[1])
    moved, _ = log_abs_det(matrices + errors * rng.choice([-1, 1], matrices.shape))
    assert onp.all(onp.abs(moved - values) <= bounds * 1.01)


@pytest.mark.parametrize(
    ("matrix", "value"), [(onp.zeros((2, 2)), -onp.inf), (onp.full((2, 2), onp.nan), onp.nan)]
)
def test_singular_and_not_finite_matrices_have_no_bound(matrix, value):
    values, bounds = log_abs_det(matrix[None])
    assert onp.array_equal(values, [value], equal_nan=True)
    assert bounds[0] == onp.inf
