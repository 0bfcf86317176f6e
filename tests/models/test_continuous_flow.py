"""Continuous flows: training by traces, and SciPy's solver in the place of the steps."""

import re

import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow import Flow, fit
from npflow.autodiff import record, value_and_grad
from npflow.errors import ConvergenceError
from npflow.layers import AffineCoupling, Chain, Continuous, Inverse, Logit
from npflow.models import (
    EstimatedLogDet,
    EstimatedTrace,
    ExactTrace,
    FlowMatching,
    Solved,
    continuous_flow,
    glow,
    residual_flow,
)
from npflow.priors import Normal
from npflow.training import Adam


def small(steps=4):
    """A flow that is not at its start, with parameters and rows."""
    flow, x = continuous_flow(3, (8,), steps), rows(12, 3)
    return flow, perturbed(flow, x), x


def test_the_loss_of_the_trace_is_near_that_of_the_flow_and_its_estimate_has_it_as_its_mean():
    flow, params, x = small(steps=10)
    exact = ExactTrace(flow).losses(params, x)
    np.testing.assert_allclose(exact, -flow.log_prob(params, x), atol=1e-4)
    model, rng = EstimatedTrace(flow), np.random.default_rng(0)
    found = np.array([model.losses(params, x, *model.noise(rng, len(x), x.dtype)) for _ in range(100)])
    assert np.all(np.abs(found.mean(axis=0) - exact) < 5 * found.std(axis=0) / np.sqrt(100))


def test_the_noise_is_of_signs_in_the_dtype_that_is_asked_for():
    (v,) = EstimatedTrace(continuous_flow(3)).noise(np.random.default_rng(0), 500, np.float32)
    assert (v.shape, v.dtype) == ((500, 3), np.float32)
    assert set(np.unique(v)) == {-1, 1}
    assert abs(v.mean()) < 0.1


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("kind", [lambda flow: flow, ExactTrace, EstimatedTrace])
def test_training_lowers_the_loss_of_the_flow(kind):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    x[:, 1] += x[:, 0] ** 2
    flow = continuous_flow(2, (16,), steps=2)
    params = flow.init(rng, x)
    before = flow.loss(params, x)
    learned, _ = fit(kind(flow), params, x, rng=rng, steps=20, optimizer=Adam(3e-3), progress=False)
    assert flow.loss(learned, x) < before - 0.02


def test_layers_inside_others_have_their_trace_and_others_their_own_log_det():
    layer = Chain([Inverse(AffineCoupling()), Chain([Continuous((6,), 12), AffineCoupling()])])
    flow, x = Flow(layer, Normal(2)), rows(5, 2)
    params = perturbed(flow, x)
    np.testing.assert_allclose(ExactTrace(flow).losses(params, x), -flow.log_prob(params, x), atol=1e-5)


@pytest.mark.parametrize(
    "model",
    [
        ExactTrace(continuous_flow(2, (4,), 1)),
        FlowMatching(continuous_flow(2, (4,), 1)),
        EstimatedLogDet(residual_flow(2, 1, (4,)), terms=1),
    ],
    ids=lambda model: type(model).__name__,
)
def test_the_program_of_a_loss_names_the_layers_of_its_flow(model):
    x = rows(8, 2)
    params = model.flow.init(np.random.default_rng(0), x)
    source = record(model.loss, params, x, *model.noise(np.random.default_rng(0), 8, x.dtype)).source
    for number, layer in enumerate(model.flow.layer.layers):
        assert re.search(rf"# ---- layer{number:02d} \w+: {type(layer).__name__}\(", source)


def test_a_conditional_flow_is_refused():
    assert "a flow without a context" in refusal(ExactTrace, glow(2, context_features=1))


# ---------------------------------------------------------------- SciPy's solver


@pytest.mark.parametrize("method", ["DOP853", "LSODA"])
def test_the_solver_is_where_many_steps_are(method):
    flow, params, x = small(steps=32)
    solved = Flow(Solved(flow.layer, 1e-8, 1e-8, method), flow.prior)
    np.testing.assert_allclose(solved.log_prob(params, x), flow.log_prob(params, x), atol=1e-6)
    np.testing.assert_allclose(solved.encode(params, x), flow.encode(params, x), atol=1e-6)
    np.testing.assert_allclose(solved.decode(params, solved.encode(params, x)), x, atol=1e-7)
    draws = [one.sample(params, np.random.default_rng(2), 9) for one in (flow, solved)]
    np.testing.assert_allclose(*draws, atol=1e-5)
    samples, log_prob = solved.sample_and_log_prob(params, np.random.default_rng(2), 9)
    np.testing.assert_allclose(log_prob, solved.log_prob(params, samples), atol=1e-6)


def test_a_row_has_the_same_result_to_the_tolerance_whatever_is_beside_it():
    flow, params, x = small()
    solved = Flow(Solved(flow.layer, 1e-8, 1e-8), flow.prior)
    beside = np.concatenate([x, 30 * rows(300, 3)])
    np.testing.assert_allclose(
        solved.log_prob(params, beside)[: len(x)], solved.log_prob(params, x), atol=1e-6
    )


@pytest.mark.parametrize("beside", [[], [[0.5, -1.0, 2.0]]], ids=["alone", "beside another"])
def test_a_row_so_far_out_that_a_layer_overflows_has_no_density(beside):
    flow, params, _ = small()
    x = np.array([[1e308, -1e308, 1e308], *beside])
    params["layer"][1]["log_scale"] = params["layer"][1]["log_scale"] + 5
    found = Flow(Solved(flow.layer), flow.prior).log_prob(params, x)
    np.testing.assert_array_equal(np.isneginf(found), [True, False][: len(x)])
    assert np.isfinite(found[1:]).all()


def test_single_precision_goes_in_and_comes_out_and_double_precision_is_computed_with():
    layer, x = continuous_flow(2, (8,)).layer, rows(30, 2, dtype=np.float32)
    params = perturbed(layer, x)
    z, log_det = Solved(layer, 1e-9, 1e-9).forward(params, x)
    assert z.dtype == log_det.dtype == np.float32
    back, _ = Solved(layer, 1e-9, 1e-9).inverse(params, z)
    np.testing.assert_allclose(back, x, atol=2e-6)


def test_layers_inside_others_are_solved():
    layer = Chain([AffineCoupling(), Inverse(Chain([Continuous((6,), 64), AffineCoupling()]))])
    x = rows(5, 2)
    params = perturbed(layer, x)
    solved = Solved(layer, 1e-10, 1e-10)
    for direction in ("forward", "inverse"):
        for got, expected in zip(*(getattr(one, direction)(params, x) for one in (solved, layer))):
            np.testing.assert_allclose(got, expected, atol=1e-7)


@pytest.mark.parametrize("wrap", [ExactTrace, lambda flow: Flow(Solved(flow.layer), flow.prior)])
def test_the_domain_is_that_of_the_first_layer(wrap):
    assert wrap(Flow(Chain([Logit(), Continuous((4,))]), Normal(2))).domain == Logit().domain


def test_a_gradient_is_refused():
    flow, params, x = small()
    solved = Flow(Solved(flow.layer), flow.prior)
    assert "expected no gradient of a Solved layer" in refusal(value_and_grad(solved.loss), params, x)


def test_a_solver_that_gives_up_is_told(monkeypatch):
    flow, params, x = small()

    class Failure:
        success, message = False, "Required step size is less than spacing between numbers."

    monkeypatch.setattr("scipy.integrate.solve_ivp", lambda *_, **__: Failure)
    with pytest.raises(ConvergenceError, match="step size is less than spacing"):
        Solved(flow.layer).forward(params["layer"], x)


def test_a_method_that_scipy_does_not_have_is_refused():
    assert "DOP853" in refusal(Solved, Continuous(), method="euler")
