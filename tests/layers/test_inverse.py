"""A layer turned round."""

import numpy as np
import pytest
from helpers import perturbed, refusal, rows, same_bits

from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Inverse, Permutation, Squeeze, Unsqueeze
from npflow.networks import MLP

COUPLING = AffineCoupling(MLP((4,), "tanh"))


@pytest.mark.parametrize(
    "layer", [ActNorm(), COUPLING, Permutation(), Chain([ActNorm(), Conv1x1()]), Inverse(COUPLING)], ids=repr
)
def test_inverse_turns_a_layer_round(layer):
    x, turned = rows(5, 4), Inverse(layer)
    params = perturbed(layer, x)
    assert same_bits(turned.forward(params, x), layer.inverse(params, x))
    assert same_bits(turned.inverse(params, x), layer.forward(params, x))
    np.testing.assert_array_equal(turned.log_det(params, x), layer.inverse(params, x)[1])


def test_the_inner_layer_is_initialized_on_the_batch_as_it_is():
    x = rows(5, 4)
    params, inner = (layer.init(np.random.default_rng(0), x) for layer in (Inverse(ActNorm()), ActNorm()))
    assert same_bits(params, inner)


def test_a_layer_turned_round_after_itself_is_the_identity():
    x = rows(5, 4)
    params = perturbed(COUPLING, x)
    z, log_det = Chain([COUPLING, Inverse(COUPLING)]).forward([params, params], x)
    np.testing.assert_allclose(z, x, rtol=1e-12)
    np.testing.assert_allclose(log_det, 0, atol=1e-12)


def test_it_may_rearrange_a_row_and_takes_a_context(rng):
    x, context = rows(3, 2, 2, 4), rows(3, 2, seed=2)
    chain = Chain([Inverse(Unsqueeze()), Inverse(COUPLING), Inverse(Squeeze())])
    params = perturbed(chain, x, context)
    z, _ = chain.forward(params, x, context)
    assert z.shape == x.shape
    np.testing.assert_allclose(chain.inverse(params, z, context)[0], x, rtol=1e-12, atol=1e-12)
    assert (chain.forward(params, x, -context)[0] != z).any()


def test_what_is_not_a_layer_is_refused():
    assert "expected Inverse's layer to be an object with init, forward and inverse" in refusal(
        Inverse, ActNorm
    )
