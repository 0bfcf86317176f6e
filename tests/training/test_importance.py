"""Importance weights: closed forms of what they estimate, their errors, what they cannot see, refusals."""

import numpy as np
import pytest
from helpers import refusal
from scipy.stats import norm

from npflow import Flow, to_device
from npflow.layers import Affine
from npflow.models import real_nvp
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import ImportanceSample, importance_sample

FLOW = Flow(Affine(), Normal(1))
LOG_Z = 3.7


def params(mean=0.0, std=1.0, dtype=np.float64):
    return {"layer": {"mean": np.array([mean], dtype), "log_std": np.log([std]).astype(dtype)}, "prior": {}}


def log_density(x):
    """A normal density of mean 1 and std 0.5, times exp(LOG_Z)."""
    return norm.logpdf(x[:, 0], 1, 0.5) + LOG_Z


def test_where_the_flow_is_the_density_all_weights_are_z(rng):
    sample = importance_sample(FLOW, params(1.0, 0.5), log_density, rng, 50)
    np.testing.assert_allclose(sample.log_weights, LOG_Z)
    np.testing.assert_allclose(sample.weights, 1 / 50)
    assert sample.effective_sample_size == pytest.approx(1)
    assert sample.log_z == pytest.approx(LOG_Z)
    assert sample.log_z_error == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_effective_sample_size_and_z_are_those_of_two_normals(dtype, rng):
    """1 / E_q[(p / q)^2] in closed form, and log Z within its error."""
    sample = importance_sample(FLOW, params(0.5, 1.0, dtype), log_density, rng, 100_000)
    s, t, d = 0.5, 1.0, 0.5  # the stds of p and q, and the distance of their means
    second = t**2 / (s * np.sqrt(2 * t**2 - s**2)) * np.exp(d**2 / (2 * t**2 - s**2))
    assert sample.x.dtype == dtype
    assert sample.log_weights.dtype == np.float64
    assert sample.effective_sample_size == pytest.approx(1 / second, rel=0.02)
    assert 0 < sample.log_z_error < 0.01
    assert abs(sample.log_z - LOG_Z) < 4 * sample.log_z_error


def test_means_are_those_of_the_density_with_errors_that_fit(rng):
    z_scores = []
    for _ in range(200):
        sample = importance_sample(FLOW, params(0.5, 1.0), log_density, rng, 300)
        mean, error = sample.mean(lambda x: np.concatenate([x, x**2], axis=1))
        z_scores.append([*(mean - [1.0, 1.25]) / error, (sample.log_z - LOG_Z) / sample.log_z_error])
    assert np.shape(z_scores) == (200, 3)
    assert (np.abs(np.mean(z_scores, axis=0)) < 0.35).all()
    np.testing.assert_allclose(np.std(z_scores, axis=0), 1, atol=0.25)


def test_resampled_rows_are_distributed_as_the_density(rng):
    sample = importance_sample(FLOW, params(0.5, 1.0), log_density, rng, 20_000)
    x = sample.resample(rng, 20_000)
    assert x.shape == (20_000, 1)
    assert np.mean(x) == pytest.approx(1, abs=0.03)
    assert np.std(x) == pytest.approx(0.5, abs=0.03)


def test_a_mode_without_samples_is_not_seen(rng):
    """Half of the mass is 40 stds away: log Z is log 2 too low, and nothing tells."""
    two = lambda x: np.logaddexp(norm.logpdf(x[:, 0]), norm.logpdf(x[:, 0], 40.0)) - np.log(2)
    sample = importance_sample(FLOW, params(), two, rng, 1000)
    assert sample.effective_sample_size > 0.999
    assert sample.log_z == pytest.approx(-np.log(2), abs=1e-6)


def test_weights_far_from_one_do_not_overflow(rng):
    sample = importance_sample(FLOW, params(), lambda x: -0.5 * x[:, 0] ** 2 + 1e4, rng, 100)
    assert sample.log_z == pytest.approx(1e4 + np.log(2 * np.pi) / 2)
    half = importance_sample(FLOW, params(), lambda x: np.where(x[:, 0] > 0, 0.0, -np.inf), rng, 1000)
    assert half.effective_sample_size < 0.6
    assert np.isfinite(half.log_z)


def test_a_conditional_flow_takes_one_context(rng):
    flow = real_nvp(2, 2, MLP((4,)), context_features=1)
    at = flow.init(rng, rng.standard_normal((20, 2)), context=np.zeros((20, 1)))
    density = lambda x, c: norm.logpdf(x, c, 1).sum(axis=1)
    sample = importance_sample(flow, at, density, rng, 500, context=[[0.3]])
    assert sample.x.shape == (500, 2)
    said = refusal(importance_sample, flow, at, density, rng, 5, context=np.zeros((5, 1)))
    assert "expected one context for all samples, got 5" in said


def test_samples_of_a_device_are_weighted_on_the_host(device, rng):
    there = to_device(params(0.5), device.name)
    sample = importance_sample(FLOW, there, log_density, rng, 200)
    assert type(sample.x) is type(sample.log_weights) is np.ndarray


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flow": 3}, "expected flow to be an instance of Flow, got 3"),
        ({"log_density": 3}, "expected log_density to be a function, got 3"),
        ({"n": 1}, "the number of samples to be at least 2, got 1"),
        ({"rng": 0}, "rng to be a numpy.random.Generator, got an int"),
        ({"log_density": lambda x: x}, "log_density to return an array of shape (5,), got (5, 1)"),
        ({"log_density": lambda x: x[:, 0] * np.nan}, "log_density to be finite or -inf, got nan in row 0"),
        (
            {"log_density": lambda x: x[:, 0] * 0 - np.inf},
            "positive at some of the samples, got -inf at each",
        ),
    ],
)
def test_arguments_that_cannot_be_used_get_a_sentence(change, words, rng):
    arguments = {"flow": FLOW, "params": params(), "log_density": log_density, "rng": rng, "n": 5} | change
    assert words in refusal(importance_sample, **arguments)


def test_a_function_with_other_rows_and_a_bad_resample_are_refused(rng):
    sample = ImportanceSample(np.zeros((3, 1)), np.zeros(3))
    assert "a function that returns 3 rows, got the shape (2,)" in refusal(sample.mean, lambda x: np.zeros(2))
    assert "rng to be a numpy.random.Generator" in refusal(sample.resample, 0, 5)
    assert "the number of rows to be at least 1" in refusal(sample.resample, rng, 0)
