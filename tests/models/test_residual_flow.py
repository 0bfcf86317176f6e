"""Residual flows: the roulette, and training with estimated log-dets."""

import math
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow import Dequantized, Flow, fit
from npflow.datasets import image_data
from npflow.layers import ActNorm, AffineCoupling, Chain, Composite, Inverse, Residual, Step, residual
from npflow.models import EstimatedLogDet, image_residual_flow, residual_flow
from npflow.models.residual_flow import numbers_in_residuals, roulette
from npflow.priors import Normal


def test_each_coefficient_of_the_roulette_has_a_mean_of_one():
    rng, total = np.random.default_rng(0), np.zeros(8)
    draws = 20_000
    for _ in range(draws):
        c = roulette(rng, exact=2, survival=0.6)[:8]
        total[: len(c)] += c
    p = 0.6 ** np.maximum(np.arange(1, 9) - 2, 0)
    error = np.sqrt((1 / p - 1) / draws)
    assert np.all(np.abs(total / draws - 1) <= 4 * error)


@pytest.mark.parametrize(
    ("exact", "survival", "words"),
    [(0, 0.5, "exact"), (2, 1.0, "survival"), (2, 0, "survival"), (2, "half", "survival")],
)
def test_a_roulette_that_cannot_be_played_is_refused(exact, survival, words):
    assert words in refusal(roulette, np.random.default_rng(0), exact, survival)


def test_the_loss_of_the_roulette_has_the_exact_loss_as_its_mean():
    flow, x = residual_flow(3, 2, (8,), 0.7), rows(2, 3)
    params = perturbed(flow, x, by=0.5)
    model, rng = EstimatedLogDet(flow), np.random.default_rng(1)
    many = np.tile(x, (20, 1))  # with one number of terms
    found = [model.losses(params, many, *model.noise(rng, 40, np.float64)) for _ in range(200)]
    found = np.mean(np.reshape(found, (200, 20, 2)), axis=1)
    error = found.std(axis=0) / math.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) + flow.log_prob(params, x)) < 4 * error)


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("terms", [None, 3])
def test_training_with_estimates_lowers_the_exact_loss(terms):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2))
    x[:, 1] += x[:, 0] ** 2
    flow = residual_flow(2, 2, (16,))
    params = flow.init(rng, x)
    before = flow.loss(params, x)
    learned, history = fit(EstimatedLogDet(flow, terms), params, x, rng=rng, steps=40, progress=False)
    assert flow.loss(learned, x) < before - 0.01
    assert len(history.loss) == 40


def test_residual_layers_are_found_in_chains_and_other_layers_are_exact():
    layer = Chain([Residual((4,)), Chain([AffineCoupling(), Residual((4,))]), Inverse(AffineCoupling())])
    flow, x = Flow(layer, Normal(2)), rows(5, 2)
    params = perturbed(flow, x)
    assert numbers_in_residuals(layer, (2,)) == 4
    model, many = EstimatedLogDet(flow, terms=80), np.tile(x, (2000, 1))
    found = model.losses(params, many, *model.noise(np.random.default_rng(0), len(many), np.float64))
    np.testing.assert_allclose(found.reshape(-1, 5).mean(axis=0), -flow.log_prob(params, x), atol=0.05)


def test_its_own_log_prob_has_few_terms_missing_and_it_samples_without_log_dets(monkeypatch):
    flow, x = image_residual_flow((4, 4, 1), levels=2, steps=1, hidden=(4,)), np.full((6, 4, 4, 1), 0.4)
    x = x + 0.1 * rows(6, 4, 4, 1).clip(-3, 3)
    params = perturbed(flow, x, by=0.2)
    model, rng = EstimatedLogDet(flow), np.random.default_rng(0)
    found = model.log_prob(params, x, rng=rng, draws=40)
    np.testing.assert_allclose(found, flow.log_prob(params, x), atol=0.4)
    z, samples = flow.encode(params, x), flow.sample(params, np.random.default_rng(1), 3, temperature=0.5)

    def refuse(G):
        raise AssertionError("expected no log-det")

    monkeypatch.setattr(residual, "log_det_plus_identity", refuse)
    np.testing.assert_array_equal(model.encode(params, x), z)
    np.testing.assert_allclose(model.decode(params, z), x, atol=1e-10)
    again = model.sample(params, np.random.default_rng(1), 3, temperature=0.5)
    np.testing.assert_array_equal(again, samples)


def test_rows_so_far_out_that_the_layers_overflow_have_no_density():
    flow, x = residual_flow(2, steps=1, hidden=(4,)), rows(9, 2, dtype=np.float32)
    params = flow.init(np.random.default_rng(0), x)
    far = np.array([[3e38, -3e38], [1, 1]], np.float32)
    found = EstimatedLogDet(flow).log_prob(params, far, rng=np.random.default_rng(0))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(np.isneginf(found), [True, False])


def test_noise_is_drawn_for_some_rows_at_a_time(monkeypatch):
    flow, x = residual_flow(2, steps=1, hidden=(4,)), rows(9, 2)
    model, params = EstimatedLogDet(flow, terms=3), perturbed(flow, x)
    monkeypatch.setattr("npflow.flow.AT_ONCE", 4 * 5)  # v and three coefficients for a row
    found, rng = model.log_prob(params, x, rng=np.random.default_rng(0)), np.random.default_rng(0)
    for part in (slice(0, 4), slice(4, 8), slice(8, 9)):
        np.testing.assert_allclose(found[part], model.log_prob(params, x[part], rng=rng), rtol=1e-12)


@dataclass(frozen=True)
class Named(Composite):
    """A reader's own container: layers with names."""

    entries: tuple

    def steps(self, x, direction, context=None):
        for name, layer in self.entries if direction == "forward" else self.entries[::-1]:
            x = yield Step(name, layer, x, direction, context)
        return x


def test_a_container_of_ones_own_samples_without_log_dets_too(monkeypatch):
    layers = ("a", Residual((4,))), ("b", Chain([ActNorm(), Residual((4,))]))
    flow, x = Flow(Named(layers), Normal(2)), rows(9, 2)
    model = EstimatedLogDet(flow)
    params = model.init(np.random.default_rng(0), x)
    z = flow.encode(params, x)
    monkeypatch.setattr(residual, "log_det_plus_identity", None)  # not to be called
    np.testing.assert_array_equal(model.encode(params, x), z)
    np.testing.assert_allclose(model.decode(params, z), x, atol=1e-12)


@pytest.mark.usefixtures("uncovered")
def test_integers_are_trained_scored_and_sampled_with_estimates():
    data = image_data("digits")
    flow = image_residual_flow((8, 8, 1), levels=1, steps=1, hidden=(8,))
    model, rng = Dequantized(EstimatedLogDet(flow, exact=2), data.levels), np.random.default_rng(0)
    params = model.init(rng, data.train[:200])
    before = model.bits_per_dim(params, data.test[:50], rng=np.random.default_rng(1))
    params, _ = fit(model, params, data.train, rng=rng, steps=30, clip_norm=100.0, progress=False)
    estimated = model.bits_per_dim(params, data.test[:50], rng=np.random.default_rng(1))
    exact = Dequantized(flow, data.levels).bits_per_dim(params, data.test[:50], rng=np.random.default_rng(1))
    assert estimated.mean() < before.mean() - 0.01
    assert estimated.mean() == pytest.approx(exact.mean(), abs=0.01)
    assert model.sample(params, rng, 2).dtype == np.uint8
    assert model.reconstruction_error(params, data.test[:5]).max() < 0.01
    words = "draws=1 of a flow whose log-probability is an estimate"
    assert words in refusal(model.bits_per_dim, params, data.test[:5], rng=rng, draws=2)


def test_a_conditional_flow_is_refused():
    from npflow.models import glow

    assert "a flow without a context" in refusal(EstimatedLogDet, glow(2, context_features=1))
