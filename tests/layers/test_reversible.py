"""`Reversible`: the gradient of the ordinary layer, in memory that does not grow with the number of layers."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import moved, refusal, rows, same_bits, vector

import npflow
from npflow import Dequantized, Flow, fit
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.program import slices
from npflow.layers import (
    ActNorm,
    AffineCoupling,
    Chain,
    Conv1x1,
    Inverse,
    Logit,
    MaskedAutoregressive,
    Reversible,
    Split,
    Squeeze,
    Unsqueeze,
)
from npflow.models import VAE, iaf, image_glow, maf
from npflow.networks import MADE, MLP, ConvNet
from npflow.priors import Normal
from npflow.verify.cases import CASES

NETWORK = MLP((8,), "tanh")
STEP = [ActNorm(), AffineCoupling(NETWORK), Conv1x1()]
CHAINS = {name: case for name, case in CASES.items() if isinstance(case.layer, Chain)}


def start(layer, x, seed=0):
    return moved(layer.init(np.random.default_rng(seed), x), seed, by=0.05)


def both_directions(layer):
    """A loss that reads all results of a layer, at x and at the same numbers as z."""

    def loss(params, x):
        total = 0.0
        for direction in (layer.forward, layer.inverse):
            output, log_det = direction(params, x)
            total = total + anp.sum(anp.sin(output)) + anp.sum(log_det * log_det)
        return total

    return loss


def assert_same_gradients(params, ordinary, other):
    """The same value, and gradients that differ by at most 1e-9 of their length."""
    assert other[0] == ordinary[0]
    expected, got = (Layout(params).pack(gradient) for _, gradient in (ordinary, other))
    assert np.linalg.norm(got - expected) <= 1e-9 * np.linalg.norm(expected)


@pytest.mark.parametrize("name", CHAINS)
def test_the_gradient_is_the_ordinary_one_to_rounding(name):
    layer, x = CHAINS[name].layer, CHAINS[name].batch(np.random.default_rng(0), 7)
    reversible, params = Reversible(layer), start(layer, x)
    loss = lambda layer: lambda both, x: both_directions(layer)(*both)
    both = (params, x)
    assert_same_gradients(both, *(value_and_grad(loss(one))(both, x) for one in (layer, reversible)))


@pytest.mark.parametrize("gradient_of", ["forward", "inverse"])
def test_the_workspace_does_not_grow_with_the_number_of_layers(gradient_of):
    def workspace(steps, kind):
        x = rows(50, 6)
        layer = kind(Chain(STEP * steps))
        params = start(layer, x)

        def loss(params, x):
            output, log_det = getattr(layer, gradient_of)(params, x)
            return anp.sum(output * output) - anp.sum(log_det)

        return record(loss, params, x).peak_bytes

    assert workspace(8, Reversible) == workspace(4, Reversible)
    assert workspace(8, lambda layer: layer) > 1.5 * workspace(4, lambda layer: layer)


def test_neither_does_it_in_scales_within_scales():
    def workspace(steps):
        flow = image_glow((4, 4, 1), 2, steps, ConvNet((16, 16)))
        x = np.random.default_rng(0).random((4, 4, 4, 1))
        return record(flow.reversible().loss, flow.init(np.random.default_rng(0), x), x).peak_bytes

    assert workspace(4) == workspace(3)


def test_a_coupling_runs_its_network_twice_in_all_and_not_three_times():
    flow, x = Flow(Chain(STEP * 4), Normal(6)), rows(50, 6)
    params = flow.init(np.random.default_rng(0), x)
    ordinary, again = (record(one.loss, params, x) for one in (flow, flow.reversible()))
    count = lambda program: program.source.count("np.tanh(")
    # Of each coupling: one in the network and one of the log-scale, in the forward pass and once more.
    assert (count(ordinary), count(again)) == (8, 16)
    assert again.cost_once.flops < again.total_cost.flops < 1.5 * ordinary.total_cost.flops


def test_the_source_names_what_is_computed_again_after_its_layer():
    flow, x = Flow(Reversible(Chain(STEP)), Normal(4)), rows(9, 4)
    source = record(flow.loss, flow.init(np.random.default_rng(0), x), x).source
    ahead, behind = source.split("def backward")
    assert "layer01_coupling_b" not in ahead
    last, middle = (behind.index(f"again_{name} = ") for name in ("layer02_conv1x1_y1", "layer01_coupling_b"))
    assert last < middle


def test_an_input_is_kept_where_the_inverse_is_slow(monkeypatch):
    def refuse(self, params, z, context=None):
        raise AssertionError("the inverse takes a pass for each component")

    layer, x = Chain([MaskedAutoregressive(MADE((8,), "tanh")), ActNorm()] * 2), rows(9, 3)
    params = start(layer, x)
    loss = lambda layer: lambda params, x: anp.sum(anp.sin(layer.forward(params, x)[0]))
    expected = value_and_grad(loss(layer))(params, x)
    monkeypatch.setattr(MaskedAutoregressive, "inverse", refuse)
    assert_same_gradients(params, expected, value_and_grad(loss(Reversible(layer)))(params, x))


def test_a_conditional_flow_has_the_ordinary_gradient_in_its_context_too():
    layer, x, context = Chain(STEP * 2), rows(9, 4), rows(9, 3, seed=2)
    params = moved(layer.init(np.random.default_rng(0), x, context))

    def loss(layer):
        return lambda both, x: anp.sum(anp.sin(layer.forward(both[0], x, both[1])[0]))

    both = (params, context)
    assert_same_gradients(both, *(value_and_grad(loss(one))(both, x) for one in (layer, Reversible(layer))))


def test_a_second_derivative_is_that_of_the_ordinary_layer():
    layer, x = Chain(STEP), rows(5, 4)
    params = start(layer, x)

    def squared_slope(layer):
        def loss(params, x):
            inner = lambda x, params: anp.sum(anp.sin(layer.forward(params, x)[0]))
            slope = value_and_grad(inner)(x, params)[1]
            return anp.sum(slope * slope)

        return loss

    slopes = (value_and_grad(squared_slope(one))(params, x) for one in (layer, Reversible(layer)))
    assert_same_gradients(params, *slopes)


# ---------------------------------------------------------------- training


SCALES = [Squeeze(), *STEP, Split(Chain([Squeeze(), *STEP, Unsqueeze()])), Inverse(ActNorm()), Unsqueeze()]
IMAGES = Dequantized(Flow(Chain([Logit(), *SCALES]), Normal((4, 4, 1))), levels=8)


def run(model, x, params=None, **options):
    rng = np.random.default_rng(0)
    params = model.init(rng, x) if params is None else params
    return fit(model, params, x, rng=rng, **{"steps": 6, "batch_size": 16, "progress": False} | options)


@pytest.mark.parametrize("record", [True, False])
def test_training_gives_the_ordinary_parameters_to_rounding(record):
    x = np.random.default_rng(0).integers(8, size=(40, 4, 4, 1))
    (ordinary, _), (learned, history) = (
        run(IMAGES, x, record=record, reversible=reversible) for reversible in (False, True)
    )
    assert vector(learned).dtype == np.float32
    np.testing.assert_allclose(vector(learned), vector(ordinary), rtol=1e-4, atol=1e-6)
    assert len(history.loss) == 6


def test_with_and_without_a_program_and_on_any_number_of_threads_it_is_the_same_to_the_bit(monkeypatch):
    flow, x = Flow(Chain(STEP * 2), Normal(4)), rows(32, 4)
    learned = [run(flow, x, record=record, reversible=True)[0] for record in (True, False)]
    assert same_bits(*learned)
    monkeypatch.setattr(slices, "slices_worth", lambda program, seconds: 3)
    assert same_bits(*(run(flow, x, threads=threads, reversible=True)[0] for threads in (1, 2)))


def test_a_resumed_run_is_the_uninterrupted_one_and_another_kind_is_refused(tmp_path):
    flow, x, path = Flow(Chain(STEP), Normal(4)), rows(40, 4), tmp_path / "run.npz"
    whole, _ = run(flow, x, reversible=True)
    run(flow, x, reversible=True, steps=3, checkpoint=path)
    resumed, _ = run(flow, x, reversible=True, checkpoint=path)
    assert same_bits(resumed, whole)
    assert "another reversible (True there, None here)" in refusal(run, flow, x, steps=7, checkpoint=path)
    assert npflow.load(path).flow == flow


def test_a_student_is_distilled_reversibly():
    teacher, student = (recipe(3, steps=2, network=MADE((8,), "tanh")) for recipe in (maf, iaf))
    x = rows(50, 3)
    teacher_params, params = (flow.init(np.random.default_rng(0), x) for flow in (teacher, student))
    learned = [
        npflow.training.distill(
            student,
            params,
            teacher,
            teacher_params,
            rng=np.random.default_rng(0),
            steps=3,
            batch_size=8,
            progress=False,
            reversible=reversible,
        )[0]
        for reversible in (False, True)
    ]
    np.testing.assert_allclose(*map(vector, learned), rtol=1e-7, atol=1e-9)


def test_a_model_without_invertible_layers_is_refused():
    model, x = VAE(features=3, encoder=NETWORK, decoder=NETWORK), rows(9, 3)
    words = refusal(run, model, x, reversible=True, batch_size=4)
    assert words == "expected a model of invertible layers for reversible training, got a VAE"
