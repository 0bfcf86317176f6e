"""Networks of convolutions."""

import numpy as np
import pytest
from helpers import perturbed, refusal, rows
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

from npflow.autodiff import Layout
from npflow.networks import ConvNet, ResNet

few = settings(max_examples=10, deadline=None)


def last_layer(x, layer):
    """A convolution whose outputs are scaled by the root of its inputs and a trained number."""
    weight = layer["weight"] / np.sqrt(np.prod(layer["weight"].shape[:3]))
    return conv(x, {"weight": weight, "bias": layer["bias"]}) * np.exp(3 * layer["log_scale"])


def conv(x, layer):
    """A convolution by SciPy, image by image and channel by channel."""
    weight = layer["weight"]
    planes = [
        sum(correlate(image[..., a], weight[:, :, a, b], "same", "direct") for a in range(x.shape[-1]))
        for image in x
        for b in range(weight.shape[-1])
    ]
    return np.moveaxis(np.reshape(planes, (len(x), -1, *x.shape[1:3])), 1, -1) + layer["bias"]


@few
@given(st.lists(st.tuples(st.integers(1, 4), st.sampled_from([1, 3])), max_size=3), st.integers(1, 4))
def test_a_conv_net_is_convolutions_with_a_relu_between_them_and_a_scale_at_the_end(hidden, outputs):
    x = rows(2, 4, 3, 2)
    network = ConvNet(tuple(width for width, _ in hidden), (*(size for _, size in hidden), 3))
    *inner, last = params = perturbed(network, x, outputs)
    h = x
    for layer in inner:
        h = np.maximum(conv(h, layer), 0)
    np.testing.assert_allclose(network.apply(params, x), last_layer(h, last), rtol=1e-10, atol=1e-12)


@few
@given(st.integers(1, 3), st.integers(1, 3), st.sampled_from([1, 3]))
def test_a_residual_network_adds_each_block_to_its_input(channels, blocks, kernel):
    x = rows(2, 4, 3, 2)
    network = ResNet(channels, blocks, kernel)
    params = perturbed(network, x, 5)
    h = conv(x, params["first"])
    for first, second in params["blocks"]:
        h = h + conv(np.maximum(conv(np.maximum(h, 0), first), 0), second)
    expected = last_layer(np.maximum(h, 0), params["last"])
    np.testing.assert_allclose(network.apply(params, x), expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("network", [ConvNet((6, 5)), ConvNet((), (1,)), ResNet(6)])
def test_a_new_network_gives_zeros_in_the_dtype_of_its_input(network, dtype):
    x = rows(2, 4, 3, 2, dtype=dtype)
    params = network.init(np.random.default_rng(0), x, 4)
    assert Layout(params).dtype == dtype
    np.testing.assert_array_equal(network.apply(params, x), np.zeros((2, 4, 3, 4), dtype), strict=True)


def test_equal_moves_of_all_weights_move_outputs_by_the_root_of_the_width():
    x, means = rows(4, 6, 6, 3), []
    for width in (32, 256):
        network = ConvNet((width, width))
        params = network.init(np.random.default_rng(0), x, 2)
        params[-1]["weight"] += 1e-3
        means.append(np.mean(network.apply(params, x)))
    assert means[1] / means[0] == pytest.approx(np.sqrt(8), rel=0.3)


def test_hidden_weights_start_with_variance_two_over_inputs():
    params = ConvNet((90, 70), (3, 1, 3)).init(np.random.default_rng(0), rows(1, 2, 2, 10), 2)
    for layer, inputs in zip(params, (90, 90)):
        assert np.std(layer["weight"]) == pytest.approx(np.sqrt(2 / inputs), rel=0.05)
        assert not layer["bias"].any()


def test_a_deep_residual_network_starts_as_its_first_layer():
    x = rows(2, 4, 3, 2)
    few, many = (ResNet(5, blocks).init(np.random.default_rng(0), x, 2) for blocks in (1, 9))
    for params in (few, many):
        params["last"]["weight"][...] = 1
    np.testing.assert_array_equal(ResNet(5, 1).apply(few, x), ResNet(5, 9).apply(many, x))


def test_invalid_hyper_parameters_and_input_are_refused():
    for make, sentence in (
        (lambda: ConvNet((5,), (3, 3, 3)), "ConvNet to have 2 kernels, one more than hidden layers"),
        (lambda: ConvNet((5,), (3, 2)), "ConvNet's kernels to be an odd number, got 2"),
        (lambda: ConvNet((0,), (3, 3)), "ConvNet's hidden to be at least 1, got 0"),
        (lambda: ResNet(0), "ResNet's channels to be at least 1, got 0"),
        (lambda: ResNet(kernel=4), "ResNet's kernel to be an odd number, got 4"),
        (
            lambda: ConvNet().init(np.random.default_rng(0), np.zeros((3, 4)), 2),
            "for ConvNet, got shape (3, 4)",
        ),
    ):
        assert sentence in refusal(make)
