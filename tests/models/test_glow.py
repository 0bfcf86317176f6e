"""Glow, for rows of features."""

import numpy as np
import pytest
from helpers import refusal

from npflow.flow import Flow
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Units
from npflow.models import glow
from npflow.networks import MLP, Beside
from npflow.priors import GaussianMixture, Normal

SMALL = MLP((6,), "tanh")


def rows(features=2, dtype=np.float64):
    return np.random.default_rng(1).normal(2, 3, (40, features)).astype(dtype)


@pytest.mark.parametrize("steps", [1, 3])
def test_each_step_is_an_act_norm_a_coupling_and_a_one_by_one_convolution(steps):
    flow = glow(2, steps, SMALL)
    assert isinstance(flow, Flow)
    assert isinstance(flow.layer, Chain)
    assert flow.layer.layers[0] == Units()
    assert len(flow.layer.layers) == 1 + 3 * steps
    for start in range(1, 1 + 3 * steps, 3):
        step = flow.layer.layers[start : start + 3]
        assert step[0] == ActNorm()
        assert step[1:] == (AffineCoupling(SMALL), Conv1x1())


def test_by_default_it_has_ten_steps_mlps_of_three_hidden_layers_and_a_standard_normal_prior():
    flow = glow(4)
    assert len(flow.layer.layers) == 31
    couplings = {layer for layer in flow.layer.layers if isinstance(layer, AffineCoupling)}
    assert couplings == {AffineCoupling(MLP((64, 64, 64), squash_inputs=True))}
    assert flow.prior == Normal(4)


def test_network_and_prior_can_be_given():
    network, prior = Beside(SMALL, MLP(())), GaussianMixture([[-1, 0], [1, 0]], [1, 1], trained=True)
    flow = glow(2, 2, network, prior)
    couplings = {layer for layer in flow.layer.layers if isinstance(layer, AffineCoupling)}
    assert couplings == {AffineCoupling(network)}
    assert flow.prior is prior


def test_equal_arguments_make_equal_flows():
    assert glow(2, 2, SMALL) == glow(2, 2, MLP([6], "tanh"))
    assert glow(2, 2, SMALL) != glow(2, 3, SMALL)


def test_a_new_glow_is_units_and_the_first_act_norm_followed_by_a_rotation():
    flow, x = glow(4, 1, SMALL), rows(4)
    params = flow.init(np.random.default_rng(0), x)
    normalized, log_det = Chain([Units(), ActNorm()]).forward(params["layer"][:2], x)
    z = flow.encode(params, x)
    np.testing.assert_allclose((z * z).sum(1), (normalized * normalized).sum(1), rtol=1e-10)
    np.testing.assert_allclose(flow.layer.log_det(params["layer"], x), log_det, rtol=1e-10)


@pytest.mark.parametrize("features", [2, 5])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_encodes_decodes_and_samples_rows_of_its_features(features, dtype):
    flow, x = glow(features, 2, SMALL), rows(features, dtype)
    params = flow.init(np.random.default_rng(0), x)
    np.testing.assert_allclose(flow.decode(params, flow.encode(params, x)), x, rtol=1e-3, atol=1e-3)
    samples = flow.sample(params, np.random.default_rng(0), 7)
    assert (samples.shape, samples.dtype) == ((7, features), dtype)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((2, 0), "steps to be at least 1, got 0"),
        ((2, 2.5), "steps to be an integer, got 2.5"),
        ((1,), "features to be at least 2, got 1"),
        ((2.0,), "features to be an integer, got 2.0"),
    ],
)
def test_invalid_arguments_are_refused(arguments, sentence):
    assert sentence in refusal(glow, *arguments)
