"""Images given a part of them: bits by hand, answers that keep what is given, training, refusals."""

import math
from functools import partial

import numpy as np
import pytest
import stand_in
from helpers import assert_agrees, moved, refusal, same_bits
from scipy.stats import norm

from npflow import Completion, Flow, datasets, fit, load, to_device
from npflow.autodiff import Layout, record, value_and_grad
from npflow.completion import entropy_of_mean
from npflow.layers import AffineCoupling, AffineInjector, BlockMeans, Fold
from npflow.models import glow, image_glow, image_real_nvp, inpainting, maf, super_resolution
from npflow.networks import MLP, ConvNet
from npflow.priors import Normal
from npflow.training import Adam
from npflow.verify import assert_flow

NETWORK = ConvNet((6,), (3, 3))
SMALLER = super_resolution((4, 4, 2), 17, 1, 2, NETWORK)
TWICE = super_resolution((8, 4, 1), 17, 2, 1, NETWORK)
HALVES = {
    side: inpainting((4, 8, 1), 17, side, 1, 2, NETWORK) for side in ("lower", "upper", "left", "right")
}


def images(model, n=20, seed=0):
    """Integers whose pixels are alike."""
    rng = np.random.default_rng(seed)
    x = rng.normal(8, 4, (n, 1, 1, 1)) + rng.normal(0, 2, (n, *model.event_shape))
    return np.clip(x, 0, model.levels - 1).astype(np.uint8)


def trained(model, dtype=np.float64):
    """Parameters away from their start."""
    return moved(model.init(np.random.default_rng(1), images(model, 40), dtype=dtype), by=0.1)


# ---------------------------------------------------------------- bits


@pytest.mark.parametrize(("count", "entropy"), [(1, 0), (2, 0.5 - np.log(2))])
def test_the_entropy_of_a_mean_of_uniform_numbers(count, entropy):
    assert entropy_of_mean(count) == pytest.approx(entropy, abs=1e-4)


@pytest.mark.parametrize("count", [4, 16, 64])
def test_the_entropy_of_a_mean_is_that_of_draws_and_below_a_normal_one(count):
    draws = np.random.default_rng(0).random((400_000, count), np.float32).mean(axis=1)
    shares, edges = np.histogram(draws, 100, density=True)
    estimate = -np.sum(shares[shares > 0] * np.log(shares[shares > 0])) * (edges[1] - edges[0])
    assert entropy_of_mean(count) == pytest.approx(estimate, abs=2e-3)
    assert entropy_of_mean(count) <= norm(scale=np.sqrt(1 / 12 / count)).entropy()


def test_the_bits_of_a_half_are_those_of_its_cells():
    """Where the density of the missing half is uniform, each of its pixels costs log2 17 bits."""
    flow = Flow(AffineInjector(ConvNet((), (1,))), Normal((2, 8, 1)), context_features=(2, 8, 1))
    model, x = Completion([flow], Fold(), levels=17), images(HALVES["lower"])
    params = model.init(np.random.default_rng(0), x, dtype=np.float64)
    u = np.random.default_rng(1).random(x.shape)
    y = (x[:, 2:] + u[:, 2:]) / 17
    # log p(y) = log N(logit(y)) - log(y (1 - y)), the probability density of a logistic-normal number
    log_p = norm.logpdf(np.log(y / (1 - y))) - np.log(y * (1 - y))
    expected = 16 * np.log(17) - log_p.sum(axis=(1, 2, 3))
    np.testing.assert_allclose(model.losses(params, x, u), expected, rtol=1e-10)


def test_the_bits_given_sums_are_those_of_drawing_an_image_to_the_sums():
    """Images of 2 x 2 pixels of 0 or 1 with the sum s: details are drawn, and the noise of their mean."""
    flow = Flow(AffineInjector(ConvNet((), (1,))), Normal((1, 1, 3)), context_features=(1, 1, 1))
    model, n, s = Completion([flow], BlockMeans(), levels=2), 100_000, 1
    rng = np.random.default_rng(0)
    params = model.init(rng, np.zeros((4, 2, 2, 1), int), dtype=np.float64)  # the details are standard normal
    mean = (s + rng.random((n, 4)).sum(axis=1)) / 8
    drawn = model.quantize(model.answers(params, rng, mean.reshape(n, 1, 1, 1))).reshape(n, 4)
    irwin_hall = lambda t: sum((-1) ** k * math.comb(4, k) * np.maximum(t - k, 0) ** 3 / 6 for k in range(5))
    for x in np.eye(4, dtype=int):
        (u,) = model.noise(rng, n, np.float64)
        nats = model.losses(params, np.tile(x.reshape(1, 2, 2, 1), (n, 1, 1, 1)), u) - entropy_of_mean(4)
        # -log P(x | s) by integration over u: the bound has the mean of the last factor's log, -entropy.
        p = np.mean(np.exp(-nats) * 4 * irwin_hall(u.sum(axis=(1, 2, 3))))
        assert p == pytest.approx(np.mean((drawn == x).all(axis=1)), abs=0.006)
        assert p > 0.03


def test_more_draws_are_a_mean_of_bounds():
    x, params = images(SMALLER), trained(SMALLER)
    rng, again = np.random.default_rng(3), np.random.default_rng(3)
    several = SMALLER.log_prob(params, x, rng=rng, draws=3)
    one = [SMALLER.log_prob(params, x, rng=again) for _ in range(3)]
    np.testing.assert_allclose(several, np.mean(one, axis=0), rtol=1e-12)
    bits = SMALLER.bits_per_dim(params, x, rng=np.random.default_rng(3), draws=3)
    np.testing.assert_allclose(bits, -several / (32 * np.log(2)))


def test_an_image_so_far_out_that_the_flow_overflows_has_no_probability():
    x, params = images(SMALLER, 3), trained(SMALLER, np.float32)
    params[0]["layer"][1]["log_scale"][...] = 300
    assert (SMALLER.log_prob(params, x, rng=np.random.default_rng(0)) == -np.inf).all()


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("model", [SMALLER, TWICE], ids=["once", "twice"])
def test_answers_shrink_to_what_was_given_and_differ(model):
    x, params = images(model, 3), trained(model, np.float32)
    known = np.repeat(model.known(x), 8, axis=0)
    y = model.answers(params, np.random.default_rng(0), known)
    times, (height, width, channels) = 2 ** len(model.flows), model.known_shape
    blocks = y.reshape(24, height, times, width, times, channels).mean(axis=(2, 4))
    np.testing.assert_allclose(blocks, known, atol=1e-6)
    means = (x + 0.5) / 17
    np.testing.assert_allclose(
        known[::8], means.reshape(3, height, times, width, times, channels).mean(axis=(2, 4)), rtol=1e-10
    )
    assert y.dtype == np.float32
    assert ((y > 0) & (y < 1)).all()
    assert np.std(y[:8], axis=0).min() > 1e-4
    completed = model.complete(params, np.random.default_rng(0), np.repeat(x, 8, axis=0))
    np.testing.assert_allclose(completed, 17 * y - 0.5, atol=1e-5)


@pytest.mark.parametrize("side", HALVES)
def test_the_known_half_is_kept_and_the_other_not_used(side):
    model, params = HALVES[side], trained(HALVES[side])
    x = images(model, 5)
    known = {"lower": np.s_[:, :2], "upper": np.s_[:, 2:], "left": np.s_[:, :, 4:], "right": np.s_[:, :, :4]}[
        side
    ]
    drawn = model.complete(params, np.random.default_rng(0), x)
    np.testing.assert_allclose(drawn[known], x[known], atol=1e-9)
    other = np.zeros_like(x)
    other[known] = x[known]
    assert np.array_equal(model.complete(params, np.random.default_rng(0), other), drawn)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("model", [SMALLER, TWICE, HALVES["left"]], ids=["once", "twice", "left"])
def test_a_program_has_the_bits_of_the_plain_path_and_training_goes_on_from_a_file(model, tmp_path):
    x, params = images(model, 64), trained(model, np.float32)
    batch = x, *model.noise(np.random.default_rng(2), len(x), np.float32)
    assert same_bits(
        record(model.loss, params, *batch)(params, *batch)[0], value_and_grad(model.loss)(params, *batch)[0]
    )
    options = {"batch_size": 16, "progress": False}
    learned, history = fit(
        model, params, x, rng=np.random.default_rng(0), steps=6, checkpoint=tmp_path / "a.npz", **options
    )
    saved = load(tmp_path / "a.npz")
    assert saved.flow == model
    assert same_bits(saved.params, learned)
    assert np.isfinite(history.loss).all()
    _, reversible = fit(model, params, x, rng=np.random.default_rng(0), steps=2, reversible=True, **options)
    np.testing.assert_allclose(reversible.loss, history.loss[:2], rtol=1e-5)


@pytest.mark.parametrize("model", [SMALLER, HALVES["left"]], ids=["super_resolution", "inpainting"])
def test_on_a_device_it_learns_and_answers_what_it_does_on_the_host(model, device):
    x, params = images(model, 32), trained(model)
    batch = x, *model.noise(np.random.default_rng(2), len(x), np.float64)
    there = to_device((params, *batch), device.name)
    program = record(model.loss, *there)
    program(*there)
    with stand_in.counted() as transfers:
        results = program(*there)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, results, record(model.loss, params, *batch)(params, *batch))
    assert_agrees(
        device, model.init(np.random.default_rng(1), there[1]), model.init(np.random.default_rng(1), x)
    )
    if device.exact:  # a GPU draws numbers of its own
        answers = model.answers(there[0], np.random.default_rng(0), model.known(x))
        assert_agrees(device, answers, model.answers(params, np.random.default_rng(0), model.known(x)))


@pytest.mark.usefixtures("uncovered")
def test_training_on_digits_saves_bits():
    data = datasets.image_data("digits")
    model = super_resolution((8, 8, 1), 17, 1, 2, ConvNet((12, 12)))
    params = model.init(np.random.default_rng(0), data.train[:256])
    params, history = fit(
        model,
        params,
        data.train,
        rng=np.random.default_rng(1),
        steps=40,
        batch_size=64,
        optimizer=Adam(5e-3),
        clip_norm=100.0,
        progress=False,
    )
    bits = model.bits_per_dim(params, data.test, rng=np.random.default_rng(2))
    assert bits.mean() < 1.9  # of 4.1 without any model
    assert np.mean(history.loss[-10:]) < np.mean(history.loss[:10]) - 4


# ---------------------------------------------------------------- contexts of images in flows


@pytest.mark.parametrize("recipe", [partial(image_glow, steps=1), image_real_nvp], ids=["glow", "real_nvp"])
def test_a_flow_of_images_learns_from_an_image_as_context(recipe):
    """x is its context, larger, and noise: the flow gains what the context says."""
    rng = np.random.default_rng(0)
    small = rng.random((200, 2, 2, 1)).astype(np.float32)
    x = np.clip(small.repeat(2, 1).repeat(2, 2) + rng.normal(0, 0.05, (200, 4, 4, 1)), 0.01, 0.99).astype(
        np.float32
    )
    flow = recipe((4, 4, 1), levels=1, network=ConvNet((8,), (1, 1)), context_features=(2, 2, 1))
    params = flow.init(rng, x, small)
    params, _ = fit(
        flow, params, x, small, rng=rng, steps=60, batch_size=50, optimizer=Adam(1e-2), progress=False
    )
    right, wrong = flow.log_prob(params, x, small), flow.log_prob(params, x, small[::-1])
    assert right.mean() > wrong.mean() + 1
    assert flow.sample(params, rng, 3, small[0]).shape == (3, 4, 4, 1)  # one image for all
    assert same_bits(
        flow.log_prob(params, x, small[0]), flow.log_prob(params, x, small[:1].repeat(200, axis=0))
    )
    back = flow.decode(params, flow.encode(params, x, small), small)
    np.testing.assert_allclose(back, x, atol=1e-4)


def test_a_check_of_a_conditional_flow_takes_an_image():
    flow = image_glow((4, 4, 2), 1, 1, ConvNet((4,), (1, 1), "tanh"), context_features=(2, 2, 1), logit=False)
    assert_flow(flow, np.random.default_rng(0).normal(size=(6, 4, 4, 2)), context=np.full((2, 2, 1), 0.5))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Flow(AffineCoupling(), Normal(4), (2, 2)), "context_features as an integer or as (height, width, channels), got (2, 2)"),
        (lambda: Flow(AffineCoupling(), Normal(4), (2, 2, 0)), "each number in Flow's context_features to be at least 1, got 0"),
        (lambda: Flow(AffineCoupling(), Normal(4), "2"), "Flow's context_features to be an integer, got '2'"),
        (lambda: glow(2, 1, context_features=(2, 2, 1)).init(np.random.default_rng(0), np.eye(2), np.ones((2, 2, 2, 1))),
         "expected images beside a context of images, got rows of 1 features"),
        (lambda: maf(2, 1, context_features=(2, 2, 1)).init(np.random.default_rng(0), np.eye(2), np.ones((2, 2, 2, 1))),
         "expected a context of rows of features, shape (n, features), got images of shape (2, 2, 2, 1)"),
        (lambda: image_glow((4, 4, 1), 1, 1, NETWORK, context_features=(2, 2, 1)).init(np.random.default_rng(0), np.ones((2, 4, 4, 1)), np.ones((2, 3, 2, 1))),
         "expected context with rows of shape (2, 2, 1), got rows of shape (3, 2, 1)"),
        (lambda: image_glow((4, 4, 1), 1, 1, NETWORK, context_features=(2, 2, 1)).init(np.random.default_rng(0), np.ones((2, 4, 4, 1))),
         "expected a context of shape (2, 2, 1) for each of 2 rows, got none"),
        (lambda: Completion([], BlockMeans()), "expected Completion's flows to be at least one flow, got none"),
        (lambda: Completion([glow(2, 1)], BlockMeans()), "expected flows of images given images, with 3 channels for each of the context, got event_shape=(2,)"),
        (lambda: Completion(HALVES["lower"].flows, BlockMeans()), "got event_shape=(2, 8, 1) and context_features=(2, 8, 1)"),
        (lambda: Completion(TWICE.flows[::-1], BlockMeans()), "got event_shape=(2, 1, 3) and context_features=(2, 1, 1)"),
        (lambda: SMALLER.init(np.random.default_rng(0), images(SMALLER), np.ones(3)), "expected no context for a Completion beside the known part"),
        (lambda: SMALLER.check(trained(TWICE)), "expected a list with the parameters of each flow, 1, got 2 in a list"),
        (lambda: SMALLER.check([trained(TWICE)[0]]), "expected the parameters of this flow, got another architecture's"),
        (lambda: SMALLER.answers(trained(SMALLER), np.random.default_rng(0), np.ones((1, 2, 2, 2))), "expected known above 0 and below 1, got 1.0"),
        (lambda: SMALLER.answers(trained(SMALLER), np.random.default_rng(0), np.ones((1, 2, 2, 1))), "expected known with rows of shape (2, 2, 2)"),
        (lambda: SMALLER.answers(trained(SMALLER), np.random.default_rng(0), "small"), "expected known as an array of numbers, got a str"),
        (lambda: SMALLER.answers(trained(SMALLER), np.random.default_rng(0), np.full((1, 2, 2, 2), 0.5 + 0.5j)), "expected known in float32 or float64, got complex128"),
        (lambda: SMALLER.answers(trained(SMALLER), np.random.default_rng(0), np.full((1, 2, 2, 2), None)), "expected known in float32 or float64, got object"),
        (lambda: super_resolution((6, 4, 1), halvings=2), "expected height and width to be multiples of 2^2, so that they can be halved 2 times, got 6 x 4"),
        (lambda: super_resolution((6, 5, 1)), "expected height and width to be even, so that they can be halved, got 6 x 5"),
        (lambda: inpainting((10, 8, 1), scales=2), "expected height and width of a half to be multiples of 2^2, so that they can be halved 2 times, got 5 x 8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(make, sentence):
    assert sentence in refusal(make)


def test_a_row_of_features_as_context_is_what_it_was():
    """One number more in each network's input, as before contexts of images."""
    flow = glow(2, 1, MLP((3,)), context_features=1)
    params = flow.init(np.random.default_rng(0), np.random.default_rng(1).normal(size=(9, 2)), np.ones(9))
    assert (
        Layout(params).size
        == Layout(glow(2, 1, MLP((3,))).init(np.random.default_rng(0), np.eye(2))).size + 3
    )
