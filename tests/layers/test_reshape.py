"""Pixels as channels, and back."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.errors import InputError
from npflow.layers import Chain, Inverse, Reverse, Squeeze, Unsqueeze

few = settings(max_examples=10, deadline=None)
sizes = st.integers(1, 4)


def images(*shape, dtype=np.float64):
    return np.arange(np.prod(shape), dtype=dtype).reshape(shape)


def test_the_pixels_of_a_block_lie_side_by_side_row_by_row_for_each_channel():
    x = np.array([[["a1", "b1", "c1"], ["a2", "b2", "c2"]], [["a3", "b3", "c3"], ["a4", "b4", "c4"]]])[None]
    z, _ = Squeeze().forward({}, x.astype(object))
    assert z.tolist() == [[[["a1", "a2", "a3", "a4", "b1", "b2", "b3", "b4", "c1", "c2", "c3", "c4"]]]]


@few
@given(sizes, sizes, sizes, sizes)
def test_each_number_has_the_place_that_the_formula_says(n, height, width, channels):
    x = images(n, 2 * height, 2 * width, channels)
    z, log_det = Squeeze().forward({}, x)
    assert z.shape == (n, height, width, 4 * channels)
    for i, j, c, a, b in np.ndindex(height, width, channels, 2, 2):
        np.testing.assert_array_equal(z[:, i, j, 4 * c + 2 * a + b], x[:, 2 * i + a, 2 * j + b, c])
    np.testing.assert_array_equal(log_det, np.zeros(n))


@few
@given(sizes, sizes, sizes, sizes, st.sampled_from([np.float32, np.float64]))
def test_one_is_the_other_turned_round(n, height, width, channels, dtype):
    x = images(n, 2 * height, 2 * width, channels, dtype=dtype)
    z, _ = Squeeze().forward({}, x)
    for back in (Squeeze().inverse, Unsqueeze().forward, Inverse(Squeeze()).forward):
        y, log_det = back({}, z)
        np.testing.assert_array_equal(y, x, strict=True)
        np.testing.assert_array_equal(log_det, np.zeros(n, dtype), strict=True)
    np.testing.assert_array_equal(Unsqueeze().inverse({}, x)[0], z, strict=True)


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (2, 4, 3, 1), (2, 16)])
def test_what_has_no_blocks_is_refused(shape):
    sentence = "expected images (n, height, width, channels) of even height and width to squeeze, got shape "
    with pytest.raises(InputError, match=re.escape(f"1 (Squeeze): {sentence}{shape}")):
        Chain([Reverse(), Squeeze()]).init(np.random.default_rng(0), np.ones(shape))


@pytest.mark.parametrize("shape", [(2, 2, 2, 6), (2, 16)])
def test_channels_that_are_no_blocks_are_refused(shape):
    sentence = "expected images (n, height, width, channels) of a multiple of 4 channels to unsqueeze, got "
    with pytest.raises(InputError, match=re.escape(f"{sentence}shape {shape}")):
        Unsqueeze().forward({}, np.ones(shape))
