"""Masked convolutions: each pixel and channel of an image sees those before it in the order of reading.

The features of a layer are divided into as many groups as the image has channels; group k stands for channel k. Of a kernel's
places, row by row, those behind the middle are left out: a weight has shape (places, inputs, outputs), and its places end
with the middle, where it is masked by groups.

Source: van den Oord, Kalchbrenner, Kavukcuoglu 2016, Pixel recurrent neural networks, sections 3.3 and 3.4.
"""

import functools
import itertools
import math

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.convolution import unfold
from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import dense


def masked_convolution(x, weight, bias, kind, channels):
    """The sum over a kernel's places up to its middle: (n, h, w, inputs) gives (n, h, w, outputs)."""
    places = len(weight)
    side = side_of(places)
    return dense(
        unfold(x, side, side, places=places) if side > 1 else x, masked(weight, kind, channels), bias
    )


def masked(weight, kind, channels):
    """A weight times its mask as a matrix: shape (places, inputs, outputs) gives (places * inputs, outputs)."""
    mask = constant(causal_mask(kind, weight.shape, channels, weight.dtype), like=weight)
    return np.reshape(weight * mask, (-1, weight.shape[-1]))


@functools.lru_cache(maxsize=64)
def causal_mask(kind, shape, channels, dtype):
    """Mask A or B, of zeros and ones, for a weight of shape (places, inputs, outputs)."""
    _, inputs, outputs = shape
    given, group = groups_of(inputs, channels)[:, None], groups_of(outputs, channels)
    mask = onp.ones(shape, dtype)
    mask[-1] = given < group if kind == "A" else given <= group
    mask.setflags(write=False)  # it is kept for the next call
    return mask


def groups_of(features, channels):
    """The group of each feature; that of a channel is its own number."""
    return onp.arange(features) * channels // features


def slices_of(features, channels):
    """Where each group's features are."""
    ends = onp.searchsorted(groups_of(features, channels), onp.arange(channels + 1)).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def side_of(places):
    """The side of a kernel that has so many places up to its middle."""
    return math.isqrt(2 * places - 1)
