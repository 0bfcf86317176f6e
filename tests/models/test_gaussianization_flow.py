"""Gaussianization, iterative and trained."""

import numpy as np
import pytest

from npflow import datasets, fit
from npflow.errors import InputError
from npflow.layers import Chain, Gaussianize, Rotation, Units
from npflow.models import gaussianization
from npflow.priors import Normal
from npflow.training import Adam


@pytest.mark.parametrize("steps", [1, 3])
def test_it_is_units_then_steps_then_a_gaussianize(steps):
    flow = gaussianization(2, steps, components=3, rotation="random")
    step = [Gaussianize(3), Rotation(start="random")]
    assert flow.layer == Chain([Units(), *step * steps, Gaussianize(3)])
    assert flow.prior == Normal(2)


def test_by_default_it_has_five_steps_of_eight_components_and_principal_components():
    assert gaussianization(4) == gaussianization(4, steps=5, components=8, rotation="pca", prior=Normal(4))


def test_init_improves_with_more_steps_and_a_short_fit_improves_it_further():
    rng = np.random.default_rng(0)
    x, new = (datasets.moons(1500, rng=rng) for _ in range(2))
    flows = {steps: gaussianization(2, steps) for steps in (1, 3, 6)}
    starts = {steps: flow.init(np.random.default_rng(1), x) for steps, flow in flows.items()}
    losses = [flow.loss(starts[steps], new) for steps, flow in flows.items()]
    one_gaussian = 0.5 * np.linalg.slogdet(2 * np.pi * np.e * np.cov(x.T))[1]
    for worse, better in zip([one_gaussian, *losses], losses):
        assert better < worse - 0.1
    flow, start = flows[3], starts[3]
    options = {"steps": 60, "optimizer": Adam(2e-2), "progress": False}
    params, _ = fit(flow, start, x, rng=np.random.default_rng(2), **options)
    assert flow.loss(params, new) < losses[-1]


def test_samples_of_many_untrained_steps_lie_among_the_data():
    x = datasets.moons(1000, rng=np.random.default_rng(0))
    flow = gaussianization(2, steps=15, rotation="random")
    samples = flow.sample(flow.init(np.random.default_rng(1), x), np.random.default_rng(2), 1000)
    assert np.max(np.abs(samples)) < 2 * np.max(np.abs(x))


def test_on_correlated_columns_one_step_of_principal_components_beats_several_random_ones():
    rng = np.random.default_rng(0)
    mix = rng.standard_normal((6, 6)) * 2.0 ** -np.arange(6)
    x, new = (rng.standard_exponential((500, 6)) @ mix.T for _ in range(2))
    losses = {}
    for rotation, steps in (("pca", 1), ("random", 4)):
        flow = gaussianization(6, steps, components=4, rotation=rotation)
        losses[rotation] = flow.loss(flow.init(np.random.default_rng(0), x), new)
    assert losses["pca"] < losses["random"] - 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("features", [1, 3])
def test_it_encodes_decodes_and_samples_rows_of_its_features(features, dtype):
    x = np.random.default_rng(1).exponential(3, (300, features)).astype(dtype)
    flow = gaussianization(features, steps=2, components=4)
    params = flow.init(np.random.default_rng(0), x)
    np.testing.assert_allclose(flow.decode(params, flow.encode(params, x)), x, rtol=1e-3, atol=1e-3)
    samples = flow.sample(params, np.random.default_rng(0), 1000)
    assert (samples.shape, samples.dtype) == ((1000, features), dtype)
    np.testing.assert_allclose(samples.mean(axis=0), 3, atol=0.6)


def test_heavy_tails_in_any_units_leave_training_finite():
    rng = np.random.default_rng(0)
    x = (rng.standard_t(2, (1000, 5)) * 10.0 ** np.linspace(-3, 3, 5)).astype(np.float32)
    flow = gaussianization(5, steps=3)
    start = flow.init(rng, x)
    params, history = fit(flow, start, x, rng=rng, steps=25, progress=False)
    assert np.isfinite(history.loss).all()
    assert flow.loss(params, x) < flow.loss(start, x)
    assert np.isfinite(flow.sample(params, rng, 200)).all()
    assert np.isfinite(flow.log_prob(params, 1e6 * x)).all()


def test_invalid_arguments_are_refused():
    with pytest.raises(InputError, match=r"expected a prior of 2 features, got one of shape \(4,\)"):
        gaussianization(2, prior=Normal(4))
    for arguments, sentence in (
        (("2",), "features to be an integer, got '2'"),
        ((0,), "features to be at least 1, got 0"),
        ((2, 0), "steps to be at least 1, got 0"),
        ((2, 1, 0), "Gaussianize's components to be at least 1, got 0"),
        ((2, 1, 1, "ica"), "Rotation's start to be .*, got 'ica'"),
    ):
        with pytest.raises(InputError, match=sentence):
            gaussianization(*arguments)
