"""Every recipe for images: training, densities, refusals; and the layers of each."""

import numpy as np
import pytest
from helpers import moved

from npflow import Dequantized, datasets, fit, models
from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    Conv1x1,
    Logit,
    Scaling,
    Split,
    Squeeze,
    Units,
    Unsqueeze,
)
from npflow.networks import ConvNet, ResNet
from npflow.priors import Logistic, Normal
from npflow.training import Adam, WarmupCosine

SMALL = ConvNet((12, 12))
# A small flow of each recipe.
RECIPES = {
    "image_glow": lambda shape, **more: models.image_glow(shape, 2, 2, SMALL, **more),
    "image_nice": lambda shape, **more: models.image_nice(shape, 4, SMALL, **more),
    "image_real_nvp": lambda shape, **more: models.image_real_nvp(shape, 2, SMALL, **more),
}
every_recipe = pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES.keys())


def test_every_recipe_for_images_is_listed():
    taking = {name for name in models.__all__ if name.startswith("image_")} - {"image_residual_flow"}
    assert taking == set(RECIPES)  # those that take a context


def test_a_narrow_glow_of_cifar_10_inverts_photographs_in_float32(rng):
    """Three levels of sixteen steps, on eight images of 32 x 32."""
    flow = models.image_glow((32, 32, 3), 3, 16, ConvNet((8, 8)))
    x = (datasets.patches(rng, 8) + rng.random((8, 32, 32, 3))).astype(np.float32) / 256
    params = moved(flow.init(rng, x), rng, by=0.02)
    z, log_det = flow.layer.forward(params["layer"], x)
    back, back_log_det = flow.layer.inverse(params["layer"], z)
    assert np.abs(back - x).max() < 1e-4
    np.testing.assert_allclose(back_log_det, -log_det, rtol=1e-4)
    assert (z.dtype, back.dtype, log_det.dtype) == (np.float32,) * 3


@pytest.mark.usefixtures("uncovered")
@every_recipe
def test_training_on_digits_saves_bits_and_distinguishes_the_classes(recipe):
    data, rng = datasets.image_data("digits"), np.random.default_rng(0)
    labels = lambda rows: np.eye(10, dtype=np.float32)[rows]
    model = Dequantized(recipe((8, 8, 1), context_features=10), data.levels)
    params = model.init(rng, data.train[:256], labels(data.train_labels[:256]))
    bits = lambda params, given: model.bits_per_dim(
        params, data.test[:120], given, rng=np.random.default_rng(1)
    ).mean()
    right = labels(data.test_labels[:120])
    wrong = np.roll(right, 1, axis=1)
    before = bits(params, right)
    params, history = fit(
        model,
        params,
        data.train,
        labels(data.train_labels),
        rng=rng,
        steps=50,
        batch_size=32,
        optimizer=Adam(WarmupCosine(2e-2, 50, warmup=12)),
        clip_norm=50.0,
        progress=False,
    )
    assert np.isfinite(history.loss).all()
    assert bits(params, right) < before - 0.05
    assert bits(params, right) < bits(params, wrong) - 0.01
    samples = model.sample(params, rng, 20, right[:20], temperature=0.7)
    assert (samples.shape, samples.dtype) == ((20, 8, 8, 1), np.uint8)
    assert model.reconstruction_error(params, data.test[:50], right[:50]).max() < 0.5


@every_recipe
def test_the_density_of_samples_is_the_flows_density(recipe):
    rng = np.random.default_rng(0)
    flow, x = recipe((8, 4, 2)), rng.uniform(0.2, 0.8, (30, 8, 4, 2))
    params = moved(flow.init(rng, x), rng, by=0.05)
    samples, log_prob = flow.sample_and_log_prob(params, rng, 9)
    np.testing.assert_allclose(flow.log_prob(params, samples), log_prob, rtol=1e-3)  # of samples near 0 or 1
    np.testing.assert_allclose(flow.decode(params, flow.encode(params, x)), x, atol=1e-8)


@every_recipe
def test_invalid_arguments_are_refused(recipe):
    for shape, sentence in (
        ((8, 8), r"shape to be \(height, width, channels\), got \(8, 8\)"),
        ((8, 0, 3), "shape to be at least 1, got 0"),
        (8, "shape as a list or tuple, got 8"),
    ):
        with pytest.raises(InputError, match=sentence):
            recipe(shape)
    with pytest.raises(InputError, match=r"expected a prior of shape \(8, 8, 1\), got one of shape \(64,\)"):
        recipe((8, 8, 1), prior=Normal(64))
    assert recipe((8, 8, 1), prior=Normal((8, 8, 1), trained=True)).prior.trained


def test_images_that_cannot_be_halved_often_enough_are_refused():
    with pytest.raises(
        InputError, match=r"height and width to be multiples of 2\^2, .* halved 2 times, got 8 x 6"
    ):
        models.image_glow((8, 6, 3), levels=2)
    models.image_real_nvp((8, 6, 3), levels=2)
    with pytest.raises(InputError, match=r"multiples of 2\^2"):
        models.image_real_nvp((8, 6, 3), levels=3)
    for recipe in (models.image_glow, models.image_real_nvp, models.mintnet):
        with pytest.raises(InputError, match=r"multiples of 2\^"):
            recipe((8, 8, 3), levels=10**10)  # at once


# ---------------------------------------------------------------- layers


def test_glow_is_levels_of_steps_with_a_learned_prior_for_channels_split_off():
    flow = models.image_glow((8, 8, 3), levels=3, steps=2, network=SMALL)
    step = [ActNorm(), Conv1x1(), AffineCoupling(SMALL)]
    learned_prior = AffineCoupling(ConvNet((), (3,)), "first")
    inner = Chain([Squeeze(), *step, *step, Unsqueeze()])
    for _ in range(2):
        inner = Chain([Squeeze(), *step, *step, learned_prior, Split(inner), Unsqueeze()])
    assert flow.layer == Chain([Logit(), Units(), *inner.layers])
    assert flow.prior == Normal((8, 8, 3))


def test_by_default_glow_is_the_papers_for_images_of_32_x_32():
    flow = models.image_glow((32, 32, 3))
    assert flow == models.image_glow((32, 32, 3), levels=3, steps=16, network=ConvNet((512, 512), (3, 1, 3)))
    x = np.random.default_rng(0).random((4, 32, 32, 3)).astype(np.float32)
    params = models.image_glow((32, 32, 3), steps=1).init(np.random.default_rng(0), x)
    assert Layout(params).size == 1_379_892  # of 22 million


def test_real_nvp_alternates_checkerboards_and_channels():
    flow = models.image_real_nvp((8, 8, 3), levels=2, network=SMALL)
    assert flow.layer.layers[:2] == (Logit(), Units())
    masks = [layer.transformed for layer in flow.layer.layers if isinstance(layer, AffineCoupling)]
    odd, even = "checkerboard-odd", "checkerboard-even"
    assert masks == [odd, even, odd, "second", "first", "second"]
    inner = flow.layer.layers[-2].layer
    assert [layer.transformed for layer in inner.layers[1::2]] == [odd, even, odd, even]
    assert set(inner.layers[::2]) == {ActNorm()}
    assert models.image_real_nvp((4, 4, 1)).layer.layers[3] == AffineCoupling(ResNet(64, 4), odd)


def test_nice_is_couplings_of_alternating_pixels_and_a_scaling():
    flow = models.image_nice((4, 4, 1), couplings=3, network=SMALL)
    odd, even = "checkerboard-odd", "checkerboard-even"
    couplings = [AdditiveCoupling(SMALL, part) for part in (odd, even, odd)]
    assert flow.layer == Chain([Logit(), Units(), ActNorm(), *couplings, Scaling()])
    assert flow.prior == Logistic((4, 4, 1))
