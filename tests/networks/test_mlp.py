"""The multi-layer perceptron."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import perturbed, rows, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout, value_and_grad
from npflow.errors import InputError
from npflow.networks import MLP

ACTIVATIONS = {
    "leaky_relu": lambda x: np.where(x > 0, x, 0.01 * x),
    "relu": lambda x: np.maximum(x, 0),
    "softplus": lambda x: np.log1p(np.exp(x)),
    "tanh": np.tanh,
}
widths = st.lists(st.integers(1, 5), max_size=3).map(tuple)
few = settings(max_examples=15, deadline=None)


@few
@given(widths, st.sampled_from(sorted(ACTIVATIONS)), st.integers(1, 4))
def test_apply_is_dense_layers_with_the_activation_between_them(hidden, activation, outputs):
    network, x = MLP(hidden, activation), rows(4, 3)
    params = perturbed(network, x, outputs)
    h = x
    for index, layer in enumerate(params):
        h = h @ layer["weight"] + layer["bias"]
        h = ACTIVATIONS[activation](h) if index < len(hidden) else h
    np.testing.assert_allclose(network.apply(params, x), h, rtol=1e-12, atol=1e-14)


@few
@given(widths, st.integers(1, 4), st.sampled_from([np.float32, np.float64]))
def test_a_new_network_gives_zeros_in_the_dtype_of_its_input(hidden, outputs, dtype):
    network, x = MLP(hidden), rows(4, 3, dtype=dtype)
    params = network.init(np.random.default_rng(0), x, outputs)
    assert Layout(params).dtype == dtype
    np.testing.assert_array_equal(network.apply(params, x), np.zeros((4, outputs), dtype), strict=True)


def test_hidden_weights_start_with_mean_zero_and_variance_two_over_inputs_and_biases_with_zero():
    params = MLP((300, 200)).init(np.random.default_rng(0), rows(2, 100), 2)
    for layer, inputs in zip(params[:-1], (100, 300)):
        assert abs(np.mean(layer["weight"])) < 0.01
        np.testing.assert_allclose(np.var(layer["weight"]), 2 / inputs, rtol=0.05)
        np.testing.assert_array_equal(layer["bias"], 0)


def test_the_same_generator_state_gives_the_same_weights():
    first, second = (MLP().init(np.random.default_rng(5), rows(4, 3), 2) for _ in range(2))
    assert same_bits(first, second)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_on_images_it_is_a_one_by_one_convolution(activation):
    network, x = MLP((5,), activation), rows(2, 3, 4, 2)
    params = perturbed(network, x, 6)
    pixel_by_pixel = network.apply(params, x.reshape(-1, 2)).reshape(2, 3, 4, 6)
    np.testing.assert_allclose(network.apply(params, x), pixel_by_pixel, rtol=1e-13)


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_float32_stays_float32_in_value_and_gradient(activation):
    network, x = MLP((5, 4), activation), rows(4, 3, dtype=np.float32)
    params = perturbed(network, x, 2)
    assert network.apply(params, x).dtype == np.float32
    _, gradient = value_and_grad(lambda p: anp.sum(network.apply(p, x) ** 2))(params)
    assert {leaf.dtype for layer in gradient for leaf in layer.values()} == {np.dtype(np.float32)}


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_the_gradient_equals_finite_differences(activation):
    network, x = MLP((4,), activation), rows(4, 3)
    params = perturbed(network, x, 2)
    layout = Layout(params)
    vector = layout.pack(params)
    energy = lambda p: anp.sum(network.apply(p, x) ** 2)
    values = [energy(layout.unpack(vector + step, params)) for step in 1e-6 * np.eye(layout.size)]
    lower = [energy(layout.unpack(vector - step, params)) for step in 1e-6 * np.eye(layout.size)]
    _, gradient = value_and_grad(energy)(params)
    np.testing.assert_allclose(layout.pack(gradient), np.subtract(values, lower) / 2e-6, rtol=1e-6, atol=1e-7)


def test_widths_are_stored_as_a_tuple_of_int():
    network = MLP([np.int64(8), 4])
    assert network.hidden == (8, 4)
    assert all(type(width) is int for width in network.hidden)
    assert hash(network) == hash(MLP((8, 4)))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden": (8, 0)}, "MLP's hidden to be at least 1, got 0"),
        ({"hidden": (8.0,)}, "MLP's hidden to be an integer, got 8.0"),
        ({"activation": "gelu"}, "MLP's activation to be one of .*'relu', .*, got 'gelu'"),
        ({"squash_inputs": 1}, "MLP's squash_inputs to be True or False, got 1"),
    ],
)
def test_invalid_hyper_parameters_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        MLP(**arguments)
