"""Residual flows: the roulette, and training with estimated log-dets."""

import math

import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow import Flow, fit
from npflow.layers import AffineCoupling, Chain, Inverse, Residual
from npflow.models import EstimatedLogDet, residual_flow
from npflow.models.residual_flow import residuals_in, roulette
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
    ("exact", "survival", "words"), [(0, 0.5, "exact"), (2, 1.0, "survival"), (2, 0, "survival")]
)
def test_a_roulette_that_cannot_be_played_is_refused(exact, survival, words):
    assert words in refusal(roulette, np.random.default_rng(0), exact, survival)


def test_the_loss_of_the_roulette_has_the_exact_loss_as_its_mean():
    flow, x = residual_flow(3, 2, (8,), 0.7), rows(2, 3)
    params = perturbed(flow, x, by=0.5)
    model, rng = EstimatedLogDet(flow), np.random.default_rng(1)
    found = np.array([model.losses(params, x, *model.noise(rng, 2, np.float64)) for _ in range(4000)])
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
    assert residuals_in(layer) == 2
    model = EstimatedLogDet(flow, terms=80)
    rng = np.random.default_rng(0)
    found = np.mean([model.losses(params, x, *model.noise(rng, 5, np.float64)) for _ in range(2000)], axis=0)
    np.testing.assert_allclose(found, -flow.log_prob(params, x), atol=0.05)


def test_a_conditional_flow_is_refused():
    from npflow.models import glow

    assert "a flow without a context" in refusal(EstimatedLogDet, glow(2, context_features=1))
