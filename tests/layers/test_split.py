"""A part of the channels stays, a layer goes on with the rest."""

import numpy as np
import pytest
from helpers import perturbed, refusal, rows
from scipy.stats import norm

from npflow import Flow
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Inverse,
    Reverse,
    Split,
    Squeeze,
    Unsqueeze,
)
from npflow.layers.composite import uses_context
from npflow.networks import MLP
from npflow.priors import Normal

NETWORK = MLP((6,), "tanh")


@pytest.mark.parametrize(("channels", "stay"), [(4, 2), (5, 3), (2, 1)])
@pytest.mark.parametrize("size", [(), (3, 2)], ids=["rows", "images"])
def test_the_first_half_stays_to_the_bit_and_the_layer_has_the_rest(channels, stay, size):
    layer, x = Conv1x1(), rows(6, *size, channels)
    params = perturbed(Split(layer), x)
    for direction in ("forward", "inverse"):
        y, log_det = getattr(Split(layer), direction)(params, x)
        rest, expected = getattr(layer, direction)(params, x[..., stay:])
        np.testing.assert_array_equal(y[..., :stay], x[..., :stay])
        np.testing.assert_array_equal(y[..., stay:], rest)
        np.testing.assert_array_equal(log_det, expected)


def test_the_layer_is_initialized_on_the_rest():
    x = rows(50, 4)
    np.testing.assert_allclose(
        Split(ActNorm()).init(np.random.default_rng(0), x)["bias"],
        -x[:, 2:].mean(axis=0) / x[:, 2:].std(axis=0),
    )


def test_a_flow_of_three_scales_squeezes_what_goes_on_again_and_again():
    shapes = []

    class Seen(Affine):
        def forward(self, params, x):
            shapes.append(x.shape)
            return super().forward(params, x)

    scale = lambda inner: Chain([Squeeze(), Seen(), *inner, Unsqueeze()])
    layer, x = scale([Split(scale([Split(scale([]))]))]), rows(2, 8, 8, 1)
    params = perturbed(layer, x)
    shapes.clear()
    z, log_det = layer.forward(params, x)
    assert shapes == [(2, 4, 4, 4), (2, 2, 2, 8), (2, 1, 1, 16)]
    assert z.shape == x.shape
    np.testing.assert_allclose(layer.inverse(params, z)[0], x, rtol=1e-12, atol=1e-12)
    factors = [params[1]["log_std"], params[2][1]["log_std"], params[2][2][1]["log_std"]]
    np.testing.assert_allclose(log_det, -sum(map(np.sum, factors)), rtol=1e-12)


def test_a_coupling_in_front_is_a_learned_prior_of_the_half_that_is_split_off():
    x = rows(5, 2, 2, 4)
    prior = AffineCoupling(NETWORK, transformed="first")
    flow = Flow(Chain([prior, Split(Reverse())]), Normal((2, 2, 4)))
    params = perturbed(flow, x)
    a, b = x[..., :2], x[..., 2:]
    raw, shift = np.split(NETWORK.apply(params["layer"][0], b), 2, axis=-1)
    std = np.exp(-2 * np.tanh(raw / 2))
    log_a = norm.logpdf(a, -shift * std, std).reshape(5, -1).sum(axis=1)
    log_b = norm.logpdf(b).reshape(5, -1).sum(axis=1)
    np.testing.assert_allclose(flow.log_prob(params, x), log_a + log_b, rtol=1e-12)


def test_a_context_is_handed_to_the_layer_if_it_takes_one():
    x, context = rows(6, 2, 2, 4), rows(6, 3, seed=2)
    layer = Split(Chain([ActNorm(), AffineCoupling(NETWORK)]))
    params = perturbed(layer, x, context)
    z, log_det = layer.forward(params, x, context)
    np.testing.assert_allclose(layer.inverse(params, z, context)[0], x, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(layer.log_det(params, x, context), log_det)
    assert np.any(layer.forward(params, x, -context)[0] != z, axis=(1, 2, 3)).all()
    assert uses_context(layer, (2, 2, 4))
    assert not uses_context(Split(Inverse(ActNorm())), (2, 2, 4))
    sentence = refusal(Flow, Split(ActNorm()), Normal((2, 2, 4)), context_features=2)
    assert "expected a layer that takes a context, as context_features is 2" in sentence


def test_rows_that_cannot_be_split_and_layers_that_change_their_shape_are_refused(rng):
    for layer, shape, sentence in (
        (Chain([Reverse(), Split(ActNorm())]), (5, 1), "1 (Split): expected at least two channels"),
        (
            Chain([Split(Chain([ActNorm(), Squeeze()]))]),
            (5, 2, 2, 2),
            "0 (Split): expected the layer of Split to keep the shape of its input, got (5, 1, 1, 4) of",
        ),
        (Chain([Split(Chain([ActNorm(), Squeeze()]))]), (5, 3, 2, 2), "0/1 (Squeeze): expected images"),
    ):
        assert refusal(layer.init, rng, rows(*shape)).startswith(sentence)
    assert "expected Split's layer to be an object with init, forward" in refusal(Split, ActNorm)
