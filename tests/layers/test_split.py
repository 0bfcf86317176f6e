"""A part of the channels stays, a layer goes on with the rest."""

import numpy as np
import pytest
from scipy.stats import norm

from npflow import Flow
from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Given,
    Inverse,
    Reverse,
    Split,
    Squeeze,
    Unsqueeze,
)
from npflow.layers.layer import uses_context
from npflow.networks import MLP
from npflow.priors import Normal

NETWORK = MLP((6,), "tanh")


def images(*shape, dtype=np.float64):
    return np.random.default_rng(1).normal(1, 2, shape).astype(dtype)


def perturbed(layer, x, context=None):
    rng = np.random.default_rng(0)
    params = layer.init(rng, x) if context is None else layer.init(rng, x, context)
    layout = Layout(params)
    return layout.unpack(layout.pack(params) + 0.3 * rng.standard_normal(layout.size), params)


@pytest.mark.parametrize(("channels", "stay"), [(4, 2), (5, 3), (2, 1)])
@pytest.mark.parametrize("size", [(), (3, 2)], ids=["rows", "images"])
def test_the_first_half_stays_to_the_bit_and_the_layer_has_the_rest(channels, stay, size):
    layer, x = Conv1x1(), images(6, *size, channels)
    params = perturbed(Split(layer), x)
    for direction in ("forward", "inverse"):
        y, log_det = getattr(Split(layer), direction)(params, x)
        rest, expected = getattr(layer, direction)(params, x[..., stay:])
        np.testing.assert_array_equal(y[..., :stay], x[..., :stay])
        np.testing.assert_array_equal(y[..., stay:], rest)
        np.testing.assert_array_equal(log_det, expected)


def test_the_layer_is_initialized_on_the_rest():
    x = images(50, 4)
    np.testing.assert_allclose(
        Split(ActNorm()).init(np.random.default_rng(0), x)["bias"], -x[:, 2:].mean(axis=0)
    )


def test_a_flow_of_three_scales_squeezes_what_goes_on_again_and_again():
    shapes = []

    class Seen(Affine):
        def forward(self, params, x):
            shapes.append(x.shape)
            return super().forward(params, x)

    scale = lambda inner: Chain([Squeeze(), Seen(), *inner, Unsqueeze()])
    layer, x = scale([Split(scale([Split(scale([]))]))]), images(2, 8, 8, 1)
    params = perturbed(layer, x)
    shapes.clear()
    z, log_det = layer.forward(params, x)
    assert shapes == [(2, 4, 4, 4), (2, 2, 2, 8), (2, 1, 1, 16)]
    assert z.shape == x.shape
    np.testing.assert_allclose(layer.inverse(params, z)[0], x, rtol=1e-12, atol=1e-12)
    factors = [params[1]["log_std"], params[2][1]["log_std"], params[2][2][1]["log_std"]]
    np.testing.assert_allclose(log_det, -sum(map(np.sum, factors)), rtol=1e-12)


def test_a_coupling_in_front_is_a_learned_prior_of_the_half_that_is_split_off():
    x = images(5, 2, 2, 4)
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
    x, context = images(6, 2, 2, 4), np.random.default_rng(2).standard_normal((6, 3))
    layer = Split(Chain([ActNorm(), AffineCoupling(NETWORK)]))
    params = perturbed(layer, x, context)
    z, log_det = layer.forward(params, x, context)
    np.testing.assert_allclose(layer.inverse(params, z, context)[0], x, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(layer.log_det(params, x, context), log_det)
    assert np.any(layer.forward(params, x, -context)[0] != z, axis=(1, 2, 3)).all()
    assert uses_context(layer)
    assert not uses_context(Split(Inverse(ActNorm())))
    with pytest.raises(InputError, match="expected a layer that takes a context"):
        Given(Split(ActNorm()), (1.0,))
    with pytest.raises(InputError, match="expected a layer that takes a context, as context_features is 2"):
        Flow(Split(ActNorm()), Normal((2, 2, 4)), context_features=2)


def test_what_cannot_be_split_off_or_gone_on_with_is_refused():
    rng = np.random.default_rng(0)
    for layer, shape, sentence in (
        (
            Chain([Reverse(), Split(ActNorm())]),
            (5, 1),
            r"1 \(Split\): expected at least two channels to take parts of, got 1",
        ),
        (
            Chain([Split(Chain([ActNorm(), Squeeze()]))]),
            (5, 2, 2, 2),
            r"0 \(Split\): expected the layer of Split to keep the shape of its input, got \(5, 1, 1, 4\) of "
            r"\(5, 2, 2, 1\); an Unsqueeze at its end undoes a Squeeze",
        ),
        (Chain([Split(Chain([ActNorm(), Squeeze()]))]), (5, 3, 2, 2), r"0/1 \(Squeeze\): expected images"),
    ):
        with pytest.raises(InputError, match=f"^{sentence}"):
            layer.init(rng, images(*shape))
    with pytest.raises(InputError, match="expected the layer of Split to be an object with init, forward"):
        Split(ActNorm)
