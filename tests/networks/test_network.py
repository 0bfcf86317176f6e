"""The contract of a network, and two networks side by side."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow.layers import AffineCoupling
from npflow.networks import MLP, Beside, Network

PAIR = Beside(log_scale=MLP((4,), "tanh"), shift=MLP((5, 3), "relu"))


@dataclass(frozen=True)
class Constant(Network):
    """A network of the reader's own: the same number everywhere."""

    value: float

    def init(self, rng, x, outputs):
        return {"value": np.full(outputs, self.value, x.dtype)}

    def apply(self, params, x):
        return np.broadcast_to(params["value"], (*x.shape[:-1], len(params["value"])))


def test_the_base_class_cannot_be_initialized_or_applied():
    with pytest.raises(NotImplementedError):
        Network().init(np.random.default_rng(0), rows(6, 3), 2)
    with pytest.raises(NotImplementedError):
        Network().apply({}, rows(6, 3))


@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 5, 3)])
def test_beside_concatenates_the_outputs_of_two_networks(shape):
    x = rows(*shape)
    params = perturbed(PAIR, x, 4)
    value = PAIR.apply(params, x)
    assert value.shape == (*shape[:-1], 4)
    np.testing.assert_array_equal(value[..., :2], PAIR.log_scale.apply(params["log_scale"], x))
    np.testing.assert_array_equal(value[..., 2:], PAIR.shift.apply(params["shift"], x))


def test_each_half_depends_on_the_parameters_of_its_own_network_alone():
    x = rows(6, 3)
    params = perturbed(PAIR, x, 4)
    other = PAIR.apply(params | {"shift": perturbed(PAIR.shift, x, 2)}, x)
    value = PAIR.apply(params, x)
    np.testing.assert_array_equal(value[:, :2], other[:, :2])
    assert not np.allclose(value[:, 2:], other[:, 2:])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_new_networks_side_by_side_give_zeros_in_the_dtype_of_their_input(dtype):
    x = rows(6, 3, dtype=dtype)
    params = PAIR.init(np.random.default_rng(0), x, 6)
    np.testing.assert_array_equal(PAIR.apply(params, x), np.zeros((6, 6), dtype), strict=True)


def test_a_coupling_takes_its_log_scale_and_its_shift_from_the_network_of_that_name():
    coupling = AffineCoupling(Beside(log_scale=Constant(0.5), shift=Constant(3.0)), log_scale_limit=1.0)
    x = rows(5, 4)
    z, log_det = coupling.forward(coupling.init(np.random.default_rng(0), x), x)
    np.testing.assert_allclose(z[:, 2:], x[:, 2:] * np.exp(np.tanh(0.5)) + 3)
    np.testing.assert_allclose(log_det, 2 * np.tanh(0.5))


def test_beside_refuses_an_odd_number_of_outputs_and_what_is_no_network(rng):
    assert "got 3" in refusal(PAIR.init, rng, rows(6, 3), 3)
    for network in ("tanh", MLP, None):
        assert "Beside's shift to be an object with init and apply" in refusal(Beside, MLP(), network)


def test_networks_of_equal_hyper_parameters_are_equal():
    assert Beside(MLP([4], "tanh"), MLP((5, 3), "relu")) == PAIR
    assert hash(Beside(MLP([4], "tanh"), MLP((5, 3), "relu"))) == hash(PAIR)
    assert Beside(PAIR.shift, PAIR.log_scale) != PAIR
