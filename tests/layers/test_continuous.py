"""Continuous layers: closed forms, the order of the steps, traces and their estimates, steps that cannot be inverted."""

import itertools
import math

import autograd.numpy as anp
import numpy as np
import pytest
from autograd import elementwise_grad
from helpers import moved, perturbed, refusal, rows
from scipy.linalg import expm
from scipy.stats import multivariate_normal

from npflow import Flow, to_device
from npflow.autodiff.gpu.devices import to_host
from npflow.errors import ConvergenceError
from npflow.layers import Continuous
from npflow.layers.continuous import field, times_jacobian, unit_vectors, waves
from npflow.models import Solved
from npflow.priors import Normal
from npflow.verify.jacobians import by_autograd

A, B = np.array([[0.3, 0.8], [-0.5, 0.2]]), np.array([0.4, -1.0])


def linear_field(steps):
    """A flow along dx/dt = x A + b, and its parameters."""
    flow = Flow(Continuous(hidden=(), steps=steps), Normal(2))
    params = flow.init(np.random.default_rng(0), np.zeros((1, 2)))
    params["layer"][0]["weight"][...], params["layer"][0]["bias"][...] = A, B
    return flow, params


def bent_field(steps=8, features=2, by=0.4):
    """A flow along a field that turns, stretches and depends on the time, and its parameters."""
    flow = Flow(Continuous(hidden=(8, 8), steps=steps), Normal(features))
    return flow, perturbed(flow, rows(9, features), by=by)


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("solved", [False, True])
def test_a_linear_field_has_the_gaussian_density_that_its_matrix_exponential_gives(solved):
    # z = x e^A + c is standard normal, so x is normal with mean -c e^-A and precision e^A e^A^T.
    flow, params = linear_field(steps=40)
    if solved:
        flow = Flow(Solved(flow.layer, rtol=1e-10, atol=1e-10), flow.prior)
    grown = expm(A)
    c = B @ np.linalg.solve(A, grown - np.eye(2))
    normal = multivariate_normal(-c @ np.linalg.inv(grown), np.linalg.inv(grown @ grown.T))
    x = rows(50, 2)
    np.testing.assert_allclose(flow.log_prob(params, x), normal.logpdf(x), atol=1e-6, rtol=0)
    np.testing.assert_allclose(flow.encode(params, x), x @ grown + c, atol=1e-7)
    np.testing.assert_allclose(flow.decode(params, x), (x - c) @ np.linalg.inv(grown), atol=1e-7)


def grid(half, points):
    """Points of a square of the plane, and the area of each."""
    line = np.linspace(-half, half, points)
    return np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2), (line[1] - line[0]) ** 2


def test_the_density_of_the_steps_integrates_to_one_with_two_of_them_and_that_of_a_trace_does_not():
    flow, params = bent_field(steps=2, by=0.3)
    points, area = grid(9, 121)
    assert np.sum(np.exp(flow.log_prob(params, points))) * area == pytest.approx(1, abs=1e-8)
    z, log_det = flow.layer.forward_trace(params["layer"], points)
    assert abs(np.sum(np.exp(flow.prior.log_prob({}, z) + log_det)) * area - 1) > 5e-4


def test_the_density_of_the_solver_integrates_to_one():
    flow, params = bent_field(by=0.3)
    solved = Flow(Solved(flow.layer, rtol=1e-7, atol=1e-7), flow.prior)
    points, area = grid(8, 61)
    assert np.sum(np.exp(solved.log_prob(params, points))) * area == pytest.approx(1, abs=1e-6)


def test_the_step_is_that_of_runge_and_kutta():
    flow, params = linear_field(steps=1)
    params["layer"][0]["bias"][...] = 0
    x = rows(4, 2)
    powers = [np.linalg.matrix_power(A, k) / math.factorial(k) for k in range(5)]
    np.testing.assert_allclose(flow.encode(params, x), x @ sum(powers), atol=1e-14)


# ---------------------------------------------------------------- how the error shrinks


def test_all_errors_shrink_sixteenfold_where_the_steps_are_halved():
    x = rows(30, 2)
    flow, params = bent_field(by=0.6)
    exact = Solved(flow.layer, rtol=1e-13, atol=1e-13)
    params = params["layer"]
    params[0]["time"][...] = 0  # the error of cos(k pi t) shrinks faster
    z, log_det = exact.forward(params, x)
    errors = []
    for steps in (32, 64):
        layer = Continuous((8, 8), steps)
        by_steps, by_trace = layer.forward(params, x), layer.forward_trace(params, x)
        np.testing.assert_allclose(by_steps[0], by_trace[0], atol=1e-14)
        wrong = by_steps[0] - z, by_steps[1] - log_det, by_trace[1] - log_det, by_steps[1] - by_trace[1]
        errors.append([np.sqrt(np.mean(one**2)) for one in wrong])
    ratios = np.array(errors[0]) / np.array(errors[1])
    assert np.all((ratios > 14) & (ratios < 19)), ratios


# ---------------------------------------------------------------- traces


def test_the_trace_is_that_of_autograds_jacobian():
    flow, params = bent_field(features=3)
    arrays, x = flow.layer.arrays(params["layer"]), rows(5, 3)
    v = unit_vectors(x)
    product = times_jacobian(v, field(0.3, x, *arrays)[1], *arrays)
    exact = by_autograd(lambda x: field(0.3, x, *arrays)[0], x)
    np.testing.assert_allclose(product, np.swapaxes(exact, 1, 2), atol=1e-14)


def test_the_mean_of_the_estimates_over_all_signs_is_the_exact_trace():
    flow, params = bent_field(features=3)
    x = rows(6, 3)
    z, exact = flow.layer.forward_trace(params["layer"], x)
    signs = itertools.product([-1.0, 1.0], repeat=3)
    found = [flow.layer.forward_estimate(params["layer"], x, np.tile(v, (6, 1))) for v in signs]
    np.testing.assert_allclose(np.mean([log_det for _, log_det in found], axis=0), exact, atol=1e-13)
    np.testing.assert_array_equal(found[0][0], z)
    assert np.std([log_det for _, log_det in found], axis=0).min() > 1e-3


def test_a_time_for_each_row_gives_what_a_number_gives():
    flow, params = bent_field()
    x = rows(7, 2)
    at_once = flow.layer.velocity(params["layer"], np.full((7, 1), 0.3), x)
    np.testing.assert_allclose(at_once, flow.layer.velocity(params["layer"], 0.3, x), atol=1e-14)
    assert waves(np.zeros((7, 1), np.float32), np.zeros(1, np.float32)).dtype == np.float32


# ---------------------------------------------------------------- the inverse


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 2e-5)])
def test_a_step_is_inverted_to_rounding_and_not_only_to_its_order(dtype, tolerance):
    layer, x = Continuous((8, 8), steps=2), rows(40, 3, dtype=dtype)
    params = perturbed(layer, x, by=0.4)
    z, log_det = layer.forward(params, x)
    back, back_log_det = layer.inverse(params, z)
    np.testing.assert_allclose(back, x, atol=tolerance)
    np.testing.assert_allclose(back_log_det, -log_det, atol=10 * tolerance)


def test_a_field_too_steep_for_its_steps_is_told_and_more_steps_help():
    layer, z = Continuous((8,), steps=1), rows(20, 2)
    params = moved(layer.init(np.random.default_rng(0), z), by=2.0)
    with pytest.raises(ConvergenceError, match=r"too steep for steps of 1, in \d+ of 20 rows: take more"):
        layer.inverse(params, z)
    many = Continuous((8,), steps=60)
    np.testing.assert_allclose(many.forward(params, many.inverse(params, z)[0])[0], z, atol=1e-10)


def test_on_a_device_a_row_that_is_not_found_is_nan(device):
    layer, z = Continuous((8,), steps=1), rows(20, 2)
    params = moved(layer.init(np.random.default_rng(0), z), by=2.0)
    x, _ = layer.inverse(*to_device((params, z), device.name))
    lost = np.isnan(to_host(x)).any(axis=1)
    assert 0 < lost.sum() < len(z)
    np.testing.assert_allclose(layer.forward(params, to_host(x)[~lost])[0], z[~lost], atol=1e-10)


def test_a_second_derivative_of_the_inverse_is_refused_rather_than_zero():
    layer, z = Continuous((4,), steps=1), rows(3, 2)
    params = perturbed(layer, z)
    slope = elementwise_grad(lambda z: layer.inverse(params, z)[0])
    with pytest.raises(NotImplementedError, match="VJP of _implicit_vjp"):
        elementwise_grad(lambda z: anp.sum(slope(z)))(z)


@pytest.mark.parametrize("steps", [0, 10_001, 2.5])
def test_a_number_of_steps_that_cannot_be_taken_is_refused(steps):
    assert "expected Continuous's steps to be " in refusal(Continuous, (8,), steps)


def test_images_are_refused():
    assert "Continuous" in refusal(Continuous().init, np.random.default_rng(0), np.zeros((2, 4, 4, 1)))
