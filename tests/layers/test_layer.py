"""The contract of a layer, and what layers share."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import refusal, rows

from npflow.layers import ActNorm, AffineCoupling, Layer, Logit, Squeeze
from npflow.layers.layer import (
    check_keeps_shape,
    check_layer,
    context_at,
    domain_of,
    given,
    pixels,
    takes_context,
    with_context,
    zeros_per_row,
)
from npflow.networks import MLP

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@dataclass(frozen=True)
class Scale(Layer):
    """A layer of the reader's own, without a `log_det` of its own: it multiplies by a number."""

    factor: float

    def forward(self, params, x):
        return x * self.factor, zeros_per_row(x) + x[0].size * np.log(self.factor)

    def inverse(self, params, z):
        return z / self.factor, zeros_per_row(z) - z[0].size * np.log(self.factor)


class Foreign:
    """A layer that does not derive from `Layer`."""

    def init(self, rng, x):
        return {}

    def forward(self, params, x):
        return x, zeros_per_row(x)

    inverse = forward


def test_a_layer_that_defines_nothing_has_no_parameters_and_no_map():
    assert Layer().init(np.random.default_rng(0), rows(5, 4)) == {}
    with pytest.raises(NotImplementedError):
        Layer().forward({}, rows(5, 4))
    with pytest.raises(NotImplementedError):
        Layer().inverse({}, rows(5, 4))


def test_log_det_is_the_second_half_of_forward_by_default():
    np.testing.assert_array_equal(Scale(3.0).log_det({}, rows(5, 4)), np.full(5, 4 * np.log(3)))
    layer, x, context = AffineCoupling(), rows(5, 4), rows(5, 2, seed=2)
    params = layer.init(np.random.default_rng(0), x, context)
    params[-1]["weight"][...] = 0.1
    expected = layer.forward(params, x, context)[1]
    np.testing.assert_array_equal(Layer.log_det(layer, params, x, context), expected)


@every_dtype
def test_zeros_per_row_and_pixels_count_rows_and_pixels(dtype):
    x = rows(3, 2, dtype=dtype)
    np.testing.assert_array_equal(zeros_per_row(x), np.zeros(3, dtype), strict=True)
    assert (pixels(x), pixels(rows(3, 4, 5, 2))) == (1, 20)


def test_the_output_of_a_layer_has_the_shape_of_its_input_by_default():
    assert Layer().output_shape((4, 4, 3)) == Layer().output_shape((4, 4, 3), "inverse") == (4, 4, 3)


def test_a_domain_is_unbounded_unless_the_layer_says_otherwise():
    assert domain_of(ActNorm()) == domain_of(Foreign()) == (-np.inf, np.inf)
    assert domain_of(Logit(0)) == (0, 1)


def test_a_context_is_given_to_layers_that_take_one():
    context = rows(5, 2)
    assert (takes_context(AffineCoupling), takes_context(ActNorm), takes_context(Foreign)) == (
        True,
        False,
        False,
    )
    assert given(AffineCoupling(), context) == {"context": context}
    assert given(AffineCoupling(), None) == given(ActNorm(), context) == {}


@every_dtype
def test_a_context_stands_behind_the_channels_of_each_pixel(dtype):
    x, context = rows(5, 2, 3, 4, dtype=dtype), rows(5, 2, dtype=dtype, seed=2)
    both = with_context(x, context)
    assert (both.shape, both.dtype) == ((5, 2, 3, 6), dtype)
    np.testing.assert_array_equal(both[..., :4], x)
    np.testing.assert_array_equal(both[..., 4:], np.broadcast_to(context[:, None, None], (5, 2, 3, 2)))
    np.testing.assert_array_equal(with_context(x[:, 0, 0], context), both[:, 0, 0])
    assert with_context(x, None) is x


@pytest.mark.parametrize("what", [ActNorm, 3, MLP()])
def test_an_object_without_the_methods_of_a_layer_is_refused(what):
    assert "expected f to be an object with init, forward and inverse, got " in refusal(
        check_layer, what, "f"
    )
    foreign = Foreign()
    assert check_layer(foreign) is foreign


def test_a_change_of_shape_is_refused():
    check_keeps_shape("f", rows(5, 4), rows(5, 4))
    sentence = refusal(check_keeps_shape, "f", rows(5, 4), rows(5, 3))
    assert "expected f to keep the shape of its input, got (5, 3) of (5, 4)" in sentence


@every_dtype
def test_a_context_of_images_is_brought_to_the_size_of_x(dtype):
    x, image = rows(5, 4, 8, 1, dtype=dtype), rows(5, 4, 8, 3, dtype=dtype, seed=2)
    assert context_at(x, image) is image
    small = image[:, :2, :4]
    large = context_at(x, small)
    assert (large.shape, large.dtype) == (image.shape, dtype)
    np.testing.assert_array_equal(large, small.repeat(2, axis=1).repeat(2, axis=2))
    squeezed = context_at(x[:, :2, :4], image)
    np.testing.assert_array_equal(squeezed, Squeeze().forward({}, image)[0], strict=True)
    assert context_at(x[:, :1, :2], image).shape == (5, 1, 2, 48)


@pytest.mark.parametrize(
    ("x", "size", "sentence"),
    [
        ((5, 3), (2, 2), "expected images beside a context of images, got rows of 3 features"),
        ((5, 4, 4, 1), (3, 3), "whole number of times larger or smaller, got 3 x 3 pixels beside 4 x 4"),
        ((5, 4, 4, 1), (2, 1), "whole number of times larger or smaller, got 2 x 1 pixels beside 4 x 4"),
    ],
)
def test_a_context_of_images_that_does_not_fit_is_refused(x, size, sentence):
    assert sentence in refusal(with_context, rows(*x), rows(5, *size, 1))
