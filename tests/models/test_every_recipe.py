"""Every recipe for rows of features: conditional densities, heavy tails, refusals."""

import numpy as np
import pytest
from helpers import moved, refusal

from npflow import fit, models
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import ActNorm, Affine
from npflow.networks import MADE, MLP
from npflow.priors import Normal
from npflow.training import Adam

PLAIN, MASKED = MLP((8,), squash_inputs=True), MADE((8,), squash_inputs=True)
# A small flow of each recipe that takes a context.
RECIPES = {
    "glow": lambda features, **more: models.glow(features, 2, PLAIN, **more),
    "iaf": lambda features, **more: models.iaf(features, 2, MASKED, **more),
    "maf": lambda features, **more: models.maf(features, 2, MASKED, **more),
    "neural_spline": lambda features, **more: models.neural_spline(features, 2, network=PLAIN, **more),
    "neural_spline autoregressive": lambda features, **more: models.neural_spline(
        features, 2, "autoregressive", MASKED, **more
    ),
    "nice": lambda features, **more: models.nice(features, 3, PLAIN, **more),
    "real_nvp": lambda features, **more: models.real_nvp(features, 3, PLAIN, **more),
    "real_nvp masks": lambda features, **more: models.real_nvp(features, 3, PLAIN, ("odd", "even"), **more),
}
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


@pytest.mark.usefixtures("uncovered")
@every_recipe
def test_a_conditional_flow_learns_a_density_for_each_context(recipe):
    rng, dtype = np.random.default_rng(0), np.float32
    label = rng.integers(2, size=(600, 1))
    x = (rng.standard_normal((600, 3)) + 3 * (2 * label - 1) * [1, -1, 0]).astype(dtype)
    context, flow = label.astype(dtype), recipe(3, context_features=1)
    params = flow.init(rng, x, context)
    params, _ = fit(
        flow, params, x, context, rng=rng, steps=150, batch_size=100, optimizer=Adam(1e-2), progress=False
    )
    for value, mean in ((0, -3), (1, 3)):
        asked = np.full((500, 1), value, dtype)
        samples = flow.sample(params, rng, 500, asked)
        assert samples.dtype == dtype
        assert np.sign(samples[:, 0].mean()) == np.sign(mean)
        rows = x[label[:, 0] == value]
        right, wrong = (
            flow.log_prob(params, rows, np.full((len(rows), 1), c, dtype)) for c in (value, 1 - value)
        )
        assert right.dtype == dtype
        assert right.mean() > wrong.mean() + 1


@every_recipe
def test_the_density_of_samples_is_the_flows_density(recipe):
    rng = np.random.default_rng(0)
    flow, x, context = (
        recipe(3, context_features=2),
        rng.standard_normal((50, 3)),
        rng.standard_normal((50, 2)),
    )
    params = moved(flow.init(rng, x, context), rng, by=0.1)
    samples, log_prob = flow.sample_and_log_prob(params, np.random.default_rng(5), 50, context)
    np.testing.assert_array_equal(samples, flow.sample(params, np.random.default_rng(5), 50, context))
    np.testing.assert_allclose(log_prob, flow.log_prob(params, samples, context), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("uncovered")
@every_recipe
def test_heavy_tails_in_any_units_leave_training_finite(recipe):
    rng = np.random.default_rng(0)
    x = (rng.standard_t(2, (1000, 5)) * 10.0 ** np.linspace(-3, 3, 5)).astype(np.float32)
    flow = recipe(5)
    params = flow.init(rng, x)
    before = flow.loss(params, x)
    params, history = fit(flow, params, x, rng=rng, steps=60, progress=False)
    assert np.isfinite(history.loss).all()
    assert flow.loss(params, x) < before
    assert np.isfinite(flow.sample(params, rng, 100)).all()


@every_recipe
def test_invalid_arguments_are_refused(recipe):
    with pytest.raises(InputError, match=r"expected a prior of 4 features, got one of shape \(3,\)"):
        recipe(4, prior=Normal(3))
    with pytest.raises(InputError, match="features to be an integer, got '2'"):
        recipe("2")
    assert recipe(4, prior=Normal(4, trained=True)).prior.trained
    assert isinstance(recipe(4), Flow)


@pytest.mark.parametrize(
    "name",
    ["glow", "nice", "real_nvp", "maf", "iaf", "neural_spline", "gaussianization", "planar", "residual_flow"],
)
def test_more_layers_than_memory_could_hold_are_refused_at_once(name):
    for depth in (10**9, 10**30):
        assert "to be at most" in refusal(getattr(models, name), 2, depth)


def test_no_masks_are_refused():
    with pytest.raises(InputError, match="expected at least one mask, got none"):
        models.real_nvp(4, masks=())


def test_a_context_is_refused_where_no_layer_takes_one():
    with pytest.raises(
        InputError, match="expected a layer that takes a context, as context_features is 2, got none"
    ):
        Flow(ActNorm(), Normal(4), context_features=2)


def test_samples_and_their_density_take_one_pass_of_each_layer():
    calls = []

    class Counting(Affine):
        def inverse(self, params, z):
            calls.append(len(z))
            return super().inverse(params, z)

    flow, x = Flow(Counting(), Normal(2)), np.random.default_rng(0).standard_normal((9, 2))
    flow.sample_and_log_prob(flow.init(np.random.default_rng(0), x), np.random.default_rng(0), 5)
    assert calls == [5]


def test_every_recipe_that_takes_a_context_is_listed():
    recipes = {name: getattr(models, name) for name in models.__all__ if name.islower()}
    taking = {name for name, recipe in recipes.items() if "context_features" in recipe.__code__.co_varnames}
    assert {name for name in taking if not name.startswith("image_")} == {name.split()[0] for name in RECIPES}


def loss_after(flow, x, context=None):
    """The loss of a batch in nats after a short training on it."""
    params = flow.init(np.random.default_rng(0), x, context)
    rng = np.random.default_rng(1)
    params, _ = fit(flow, params, x, context, rng=rng, steps=15, progress=False)
    return -np.mean(flow.log_prob(params, x, context))


@pytest.mark.usefixtures("uncovered")
@every_recipe
@pytest.mark.parametrize("kind", ["plain", "constant", "twice"])
def test_training_depends_neither_on_the_units_of_the_data_nor_on_their_distance_from_zero(recipe, kind):
    x, flow = np.random.default_rng(0).normal(1, 1, (200, 3)), recipe(features=3)
    x[:, 2] = {"plain": x[:, 0] * x[:, 1], "constant": 2.5, "twice": x[:, 0]}[kind]
    losses = [loss_after(flow, unit * x) - 3 * np.log(unit) for unit in (1.0, 1e-30, 3e30)]
    np.testing.assert_allclose(losses, losses[0], atol=0.05)
    assert losses[0] < 12
    if kind == "plain":
        assert loss_after(flow, x + np.array([1e4, -1e6, 2000])) == pytest.approx(losses[0], abs=0.05)


@pytest.mark.usefixtures("uncovered")
@every_recipe
def test_training_does_not_depend_on_the_units_of_a_context(recipe):
    rng, flow = np.random.default_rng(0), recipe(features=3, context_features=2)
    context = rng.normal(size=(200, 2))
    x = rng.normal(size=(200, 3)) + 3 * context[:, :1]
    loss, *others = (loss_after(flow, x, context * unit) for unit in (1.0, 2.0**-100, 2.0**100))
    np.testing.assert_allclose(others, loss, rtol=1e-9)
    assert loss_after(flow, x, context * 10 + 2000) == pytest.approx(loss, abs=0.3)
