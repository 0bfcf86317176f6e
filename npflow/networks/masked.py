"""Masked convolutions: each pixel and channel of an image depends only on those before it in raster order.

The features of a layer are divided into as many groups as the image has channels; group k belongs to channel
k. The kernel's places are taken row by row up to the middle one, and the rest are left out. A weight has
shape (places, inputs, outputs), and its last place, the middle, is masked by groups.

References
----------
Van den Oord, Kalchbrenner, Kavukcuoglu: Pixel recurrent neural networks, 2016, sections 3.3 and 3.4.
https://arxiv.org/abs/1601.06759
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
    """Convolve with mask "A" or "B": (n, height, width, inputs) gives (n, height, width, outputs)."""
    places = len(weight)
    side = side_of(places)
    return dense(
        unfold(x, side, side, places=places) if side > 1 else x, masked(weight, kind, channels), bias
    )


def masked(weight, kind, channels):
    """A weight times its mask, as a matrix: (places, inputs, outputs) gives (places * inputs, outputs)."""
    mask = constant(causal_mask(kind, weight.shape, channels, weight.dtype), like=weight)
    return np.reshape(weight * mask, (-1, weight.shape[-1]))


@functools.lru_cache(maxsize=64)
def causal_mask(kind, shape, channels, dtype):
    """Mask A or B, zeros and ones, of a weight's shape (places, inputs, outputs).

    At the middle place mask A lets an output group depend on the groups before it; mask B on its own group
    too.
    """
    _, inputs, outputs = shape
    input_group, output_group = groups_of(inputs, channels)[:, None], groups_of(outputs, channels)
    mask = onp.ones(shape, dtype)
    mask[-1] = input_group < output_group if kind == "A" else input_group <= output_group
    mask.setflags(write=False)  # the cache returns it again
    return mask


def groups_of(features, channels):
    """The group of each feature, shape (features,); for the channels themselves, their index."""
    return onp.arange(features) * channels // features


def slices_of(features, channels):
    """The slice of features of each group."""
    ends = onp.searchsorted(groups_of(features, channels), onp.arange(channels + 1)).tolist()
    return [slice(start, stop) for start, stop in itertools.pairwise(ends)]


def side_of(places):
    """The side of the square kernel that has this many places up to its middle."""
    return math.isqrt(2 * places - 1)
