"""Rotations of the channels as products of reflections."""

import functools

import numpy as np
import pytest
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout, value_and_grad
from npflow.autodiff.primitives import sum_event
from npflow.layers import Rotation

few = settings(max_examples=15, deadline=None)
channel_counts, seeds = st.integers(1, 7), st.integers(0, 999)
every_start = pytest.mark.parametrize("start", ["random", "pca"])


def correlated(shape=(50, 4), dtype=np.float64, seed=1):
    """Correlated channels with a mean, of different variances."""
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) @ rng.standard_normal((shape[-1], shape[-1])) + 3).astype(dtype)


def new(channels, seed=0, **options):
    return Rotation(**options).init(np.random.default_rng(seed), correlated((50, channels)))


def drawn(channels, reflections, seed):
    """Any vectors, of any length."""
    rng = np.random.default_rng(seed)
    return {"vectors": rng.standard_normal((channels, reflections)) * 10.0 ** rng.integers(-3, 4)}


@few
@given(channel_counts, st.integers(1, 7), seeds)
def test_the_matrix_is_the_product_of_its_reflections_one_after_the_other(channels, reflections, seed):
    params = drawn(channels, reflections, seed)
    mirrors = [np.eye(channels) - 2 * np.outer(v, v) / (v @ v) for v in params["vectors"].T]
    product = functools.reduce(np.matmul, mirrors)
    matrix = Rotation().matrix(params)
    np.testing.assert_allclose(matrix, product, atol=1e-13)
    np.testing.assert_allclose(np.linalg.det(matrix), (-1.0) ** reflections)
    x = correlated((5, channels))
    np.testing.assert_allclose(Rotation().forward(params, x)[0], x @ product, atol=1e-11)


@few
@given(channel_counts, seeds, st.sampled_from([(3,), (2, 3, 4)]))
def test_the_inverse_is_a_product_with_the_transpose_and_neither_changes_volume(channels, seed, places):
    params, x = drawn(channels, channels, seed), correlated((*places, channels))
    z, log_det = Rotation().forward(params, x)
    back, inverse_log_det = Rotation().inverse(params, z)
    np.testing.assert_allclose(np.sum(z * z, axis=-1), np.sum(x * x, axis=-1))
    np.testing.assert_allclose(back, x, atol=1e-12)
    for zeros in (log_det, inverse_log_det):
        np.testing.assert_array_equal(zeros, np.zeros(places[0]), strict=True)


@every_start
@pytest.mark.parametrize("channels", range(1, 7))
def test_it_starts_as_an_orthogonal_matrix_of_one_reflection_less_than_channels(channels, start):
    params = new(channels, start=start)
    assert params["vectors"].shape == (channels, max(channels - 1, 1))
    matrix = Rotation().matrix(params)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(channels), atol=1e-14)


@pytest.mark.parametrize("reflections", [None, 4, 3, 2, 1])
def test_with_pca_the_first_columns_are_the_principal_components_of_the_batch(reflections):
    x = correlated((200, 4))
    layer = Rotation(reflections, start="pca")
    params = layer.init(np.random.default_rng(0), x)
    count = 4 if reflections is None else reflections
    variances, components = np.linalg.eigh(np.cov(x.T))
    products = np.abs(components[:, ::-1].T @ layer.matrix(params))[:, :count]
    np.testing.assert_allclose(products, np.eye(4)[:, :count], atol=1e-10)
    covariance = np.cov(layer.forward(params, x)[0].T)
    np.testing.assert_allclose(np.diag(covariance)[:count], variances[::-1][:count])
    np.testing.assert_allclose(covariance[:count] - np.diag(np.diag(covariance))[:count], 0, atol=1e-10)


def test_principal_components_of_images_are_those_of_their_pixels():
    x = correlated((10, 3, 2, 4))
    params, of_rows = (
        Rotation(start="pca").init(np.random.default_rng(0), batch) for batch in (x, x.reshape(-1, 4))
    )
    np.testing.assert_array_equal(params["vectors"], of_rows["vectors"])


@pytest.mark.parametrize("x", [np.ones((1, 3)), np.ones((9, 3)), np.diag([3.0, 2.0, 1.0])[[0, 0, 1, 2]]])
def test_pca_of_one_row_of_equal_rows_and_of_channels_without_correlation_is_orthogonal(x):
    """LAPACK then has no reflections where columns are those of the identity already: signs change instead."""
    params = Rotation(start="pca").init(np.random.default_rng(0), x)
    matrix = Rotation().matrix(params)
    np.testing.assert_allclose(matrix @ matrix.T, np.eye(3), atol=1e-14)
    covariance = np.atleast_2d(np.cov((x @ matrix).T, bias=True))
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-14)


def test_random_starts_point_everywhere_alike():
    axes = np.array([Rotation().matrix(new(3, seed)) for seed in range(200)])
    # The square of a coordinate of a random unit vector in three dimensions is 1/3 in the mean, with a standard
    # deviation of 0.3, here over 14.
    np.testing.assert_allclose(np.mean(axes**2, axis=0), 1 / 3, atol=4 * 0.3 / 14)
    first = axes[:, :, 0] * np.sign(axes[:, :1, 0])
    np.testing.assert_allclose(np.mean(first, axis=0), [0.5, 0, 0], atol=4 * 0.6 / 14)


def test_only_the_directions_of_the_vectors_count():
    params, x = drawn(4, 3, 0), correlated((5, 4))
    scaled = {"vectors": params["vectors"] * [1e-8, -1.0, 1e8]}
    for method in (Rotation().forward, Rotation().inverse):
        np.testing.assert_allclose(method(scaled, x)[0], method(params, x)[0], atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_vector_of_zeros_reflects_nothing_and_has_a_finite_gradient(dtype):
    vectors, x = drawn(4, 3, 0)["vectors"].astype(dtype), correlated((5, 4), dtype)
    without = {"vectors": vectors[:, [0, 2]].copy()}
    vectors[:, 1] = 0
    z, _ = Rotation().forward({"vectors": vectors}, x)
    np.testing.assert_allclose(z, Rotation().forward(without, x)[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.sum(z * z, axis=1), np.sum(x * x, axis=1), rtol=1e-5)
    energy = lambda params: (sum_event(Rotation().forward(params, x)[0] ** 3)).sum()
    assert np.isfinite(value_and_grad(energy)({"vectors": vectors})[1]["vectors"]).all()


def test_the_gradient_equals_finite_differences_and_leaves_the_length_of_a_vector_alone():
    params, x = {"vectors": np.random.default_rng(0).standard_normal((4, 3))}, correlated((4, 4))
    layout = Layout(params)
    vector, steps = layout.pack(params), 1e-6 * np.eye(layout.size)

    def energy(params):
        (z, _), (y, _) = Rotation().forward(params, x), Rotation().inverse(params, x)
        return (sum_event(z * z * z) + sum_event(y * y * y)).sum()

    _, gradient = value_and_grad(energy)(params)
    high, low = (
        np.array([energy(layout.unpack(vector + sign * step, params)) for step in steps]) for sign in (1, -1)
    )
    np.testing.assert_allclose(layout.pack(gradient), (high - low) / 2e-6, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.sum(gradient["vectors"] * params["vectors"], axis=0), 0, atol=1e-10)


@every_start
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)], ids=["rows", "images"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_rotation_keeps_the_dtype_in_both_directions(shape, dtype, start):
    x = correlated(shape, dtype)
    params = Rotation(start=start).init(np.random.default_rng(0), x)
    assert Layout(params).dtype == dtype
    assert params["vectors"].flags.c_contiguous
    arrays = (*Rotation().forward(params, x), *Rotation().inverse(params, x))
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


def test_hyper_parameters_that_cannot_be_used_are_refused(rng):
    assert "Rotation's start to be one of 'random', 'pca', got 'ica'" in refusal(Rotation, start="ica")
    assert "Rotation's reflections to be at least 1, got 0" in refusal(Rotation, reflections=0)
    sentence = refusal(Rotation(reflections=5).init, rng, correlated())
    assert "reflections to be at most 4, the 4 channels of x, got 5" in sentence
