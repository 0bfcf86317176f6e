"""MintNet, on images."""

import numpy as np
import pytest
from helpers import moved, refusal

from npflow import Dequantized, datasets, fit
from npflow.layers import ActNorm, Chain, Logit, MaskedConvolution, Squeeze, Units, Unsqueeze
from npflow.models import mintnet
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine


def test_each_level_is_pairs_of_convolutions_in_both_orders():
    flow = mintnet((8, 4, 3), levels=3, steps=2, filters=5)
    step = [ActNorm(), MaskedConvolution(5, "raster"), MaskedConvolution(5, "reversed")]
    level = [*step, *step]
    assert flow.layer == Chain(
        [Logit(), Units(), *level, Squeeze(), *level, Squeeze(), *level, Unsqueeze(), Unsqueeze()]
    )
    assert flow.prior == Normal((8, 4, 3))
    assert mintnet((5, 3, 1), levels=1, steps=1).layer == Chain(
        [Logit(), Units(), ActNorm(), MaskedConvolution(16, "raster"), MaskedConvolution(16, "reversed")]
    )


def test_training_on_digits_saves_bits_and_it_draws_images():
    data, rng = datasets.image_data("digits"), np.random.default_rng(0)
    model = Dequantized(mintnet((8, 8, 1), levels=2, steps=1, filters=4), data.levels)
    params = model.init(rng, data.train[:256])
    bits = lambda params: model.bits_per_dim(params, data.test[:120], rng=np.random.default_rng(1)).mean()
    before = bits(params)
    params, history = fit(
        model,
        params,
        data.train,
        rng=rng,
        steps=50,
        batch_size=32,
        optimizer=Adam(WarmupCosine(3e-2, 50, warmup=12)),
        clip_norm=50.0,
        progress=False,
    )
    assert np.isfinite(history.loss).all()
    assert bits(params) < before - 0.5
    samples = model.sample(params, rng, 20)
    assert (samples.shape, samples.dtype) == ((20, 8, 8, 1), np.uint8)
    assert model.reconstruction_error(params, data.test[:50]).max() < 0.01


def test_the_density_of_samples_is_the_flows_density():
    rng = np.random.default_rng(0)
    flow, x = mintnet((4, 4, 2), levels=2, steps=1, filters=3), rng.uniform(0.2, 0.8, (30, 4, 4, 2))
    params = moved(flow.init(rng, x), rng, by=0.1)
    samples, log_prob = flow.sample_and_log_prob(params, rng, 9)
    np.testing.assert_allclose(flow.log_prob(params, samples), log_prob, rtol=1e-3)  # of samples near 0 or 1
    np.testing.assert_allclose(flow.decode(params, flow.encode(params, x)), x, atol=1e-9)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shape": (8, 6, 1)}, "height and width to be multiples of 2^2"),
        ({"shape": (8, 8)}, "shape to be (height, width, channels), got (8, 8)"),
        ({"levels": 0}, "levels to be at least 1, got 0"),
        ({"steps": 0}, "steps to be at least 1, got 0"),
        ({"filters": 1.5}, "MaskedConvolution's filters to be an integer, got 1.5"),
        ({"prior": Normal(64)}, "expected a prior of shape (8, 8, 1), got one of shape (64,)"),
    ],
)
def test_invalid_arguments_are_refused(arguments, sentence):
    assert sentence in refusal(mintnet, **{"shape": (8, 8, 1)} | arguments)
