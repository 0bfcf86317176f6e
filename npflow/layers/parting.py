"""Images as two parts, of which one may be given: means of blocks and details, or two halves."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import (
    concatenate_last,
    log_sigmoid,
    permute,
    slice_last,
    softplus,
    split_last,
    sum_event,
)
from npflow.description import choice
from npflow.errors import InputError
from npflow.layers.layer import Layer, zeros_per_row
from npflow.layers.reshape import Squeeze, squeeze, unsqueeze, unsqueezed

SIDES = ("lower", "upper", "left", "right")


class Parting(Layer):
    """The base of layers that take an image apart: the first channels of z are one part, the others the other part.

    Attributes
    ----------
    parts : int
        The first part has one of so many equal shares of the channels of z.
    averaged : int
        How many pixels each number of the first part is the mean of.
    """

    parts = 2
    averaged = 1

    def split(self, z):
        """The part that may be given, and the rest."""
        return split_last(z, z.shape[-1] // self.parts)

    def join(self, known, rest):
        """z of both parts, the inverse of `split`."""
        return concatenate_last(known, rest)


@dataclass(frozen=True)
class BlockMeans(Parting):
    r"""Take images of logits apart: the means of blocks, and details, which may be any real numbers.

    logit(p) = log p - log(1 - p)           slope(l) = sigmoid(l) sigmoid(-l), the derivative of sigmoid

    A pair of pixels with the logits a and b becomes the logit l of its mean, and the difference v of the logits:

    l = logit((sigmoid(a) + sigmoid(b)) / 2)                        a = w + v / 2
    v = a - b                                                       b = w - v / 2
    w = l / 2 + arcsinh(sinh(l / 2) cosh(v / 2))                    log|det| = log(slope(a) + slope(b)) - log(2 slope(l))

    Each row of a block of 2 x 2 pixels is a pair, and the two means are a pair again. The block becomes four channels of
    one pixel: l of the block, v of the two means, v of the upper row and v of the lower row.

    log|det J| = sum(log|det|), over all pairs

    This is a Haar transform of logits, as `Logit` gives them. Whatever the details are, the pixels lie between 0 and 1,
    and each block has its mean. So a flow of the details given the means makes images that shrink to the given one
    exactly.

    Images (n, height, width, channels) become (n, height / 2, width / 2, 4 channels): first l of all channels, then the
    three v of all channels, one after the other.

    References
    ----------
    Yu, Derpanis, Brubaker: Wavelet Flow: Fast training of high resolution normalizing flows, 2020, section 3 (flows of
    the details of a Haar transform given the means). https://arxiv.org/abs/2010.13821

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import BlockMeans, Logit
    >>> layer, logit = BlockMeans(), Logit(alpha=0)
    >>> logits, _ = logit.forward({}, np.array([[[[0.1], [0.2]], [[0.3], [0.6]]]]))
    >>> z, _ = layer.forward({}, logits)
    >>> z[0, 0, 0].round(2)  # the mean; the rows; left and right in the upper row, and in the lower row
    array([-0.85, -1.53, -0.81, -1.25])
    >>> z[..., 1:] += 2.0  # other details
    >>> x, _ = logit.inverse({}, layer.inverse({}, z)[0])
    >>> x[0, :, :, 0].round(2), round(float(x.mean()), 6)  # the same mean
    (array([[0.48, 0.22],
           [0.32, 0.18]]), 0.3)
    """

    parts = 4
    averaged = 4

    def forward(self, params, x):
        blocks = squeeze(x)
        n, height, width, channels = blocks.shape
        blocks = np.reshape(blocks, (n, height, width, channels // 4, 4))  # the pixels of a block, row by row
        a, b, c, d = (slice_last(blocks, place, place + 1) for place in range(4))
        (upper, in_upper, first), (lower, in_lower, second) = of_pair(a, b), of_pair(c, d)
        mean, between, third = of_pair(upper, lower)
        parts = concatenate_last(concatenate_last(mean, between), concatenate_last(in_upper, in_lower))
        z = np.reshape(np.swapaxes(parts, 3, 4), (n, height, width, channels))
        return z, sum_event(first + second + third)

    def inverse(self, params, z):
        unsqueezed(z.shape)  # raises unless there are four parts
        n, height, width, channels = z.shape
        parts = np.swapaxes(np.reshape(z, (n, height, width, 4, channels // 4)), 3, 4)
        mean, between, in_upper, in_lower = (slice_last(parts, place, place + 1) for place in range(4))
        upper, lower, third = to_pair(mean, between)
        (a, b, first), (c, d, second) = to_pair(upper, in_upper), to_pair(lower, in_lower)
        blocks = concatenate_last(concatenate_last(a, b), concatenate_last(c, d))
        x = unsqueeze(np.reshape(blocks, (n, height, width, channels)))
        return x, -sum_event(first + second + third)

    def output_shape(self, shape, direction="forward"):
        return Squeeze().output_shape(shape, direction)


def of_pair(a, b):
    """l and v of pairs of logits, and the log-det of each pair."""
    log_mean, log_rest = log_mean_sigmoid(a, b), log_mean_sigmoid(-a, -b)  # of m and of 1 - m
    log_det = log_sum(log_slope(a), log_slope(b)) - math.log(2) - log_mean - log_rest
    return log_mean - log_rest, a - b, log_det


def to_pair(mean, v):
    """The pairs of logits of l and v, and the log-det of `of_pair` there."""
    p, q = 0.5 * mean, 0.5 * v
    w = p + arcsinh_of_product(p, np.abs(q))
    a, b = w + q, w - q
    return a, b, log_sum(log_slope(a), log_slope(b)) - math.log(2) - log_slope(mean)


def arcsinh_of_product(p, q):
    """arcsinh(sinh(p) cosh(q)), with q at least 0. It grows as p + q where the product would overflow."""
    most = 0.45 * math.log(float(onp.finfo(p.dtype).max))
    near_p, near_q = np.clip(p, -most, most), np.minimum(q, most)
    return np.arcsinh(np.sinh(near_p) * np.cosh(near_q)) + (p - near_p) + np.sign(p) * (q - near_q)


def log_slope(logit):
    """log(p (1 - p)), with p = sigmoid(logit)."""
    return log_sigmoid(logit) + log_sigmoid(-logit)


def log_mean_sigmoid(a, b):
    """log((sigmoid(a) + sigmoid(b)) / 2)."""
    return log_sum(log_sigmoid(a), log_sigmoid(b)) - math.log(2)


def log_sum(p, q):
    """log(exp(p) + exp(q))."""
    return q + softplus(p - q)


@dataclass(frozen=True)
class Fold(Parting):
    r"""Fold images along their middle: the two halves lie on each other, as channels. The missing half comes last.

    z[i, j] = (x[h - 1 - i, j], x[h + i, j])        with "lower" missing, and h half of the height
                                                    log|det J| = 0

    Pixels that meet at the fold lie on each other, in the first row of z, or in its first column. So convolutions that
    see the known half see what is near the missing pixels.

    Images (n, height, width, channels) become (n, height / 2, width, 2 channels), or (n, height, width / 2, 2 channels)
    where the left or right half is missing.

    Parameters
    ----------
    missing : {"lower", "upper", "left", "right"}
        The half that comes last.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Fold
    >>> x = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1, 1)  # from top to bottom
    >>> z, _ = Fold("lower").forward({}, x)
    >>> z[0, :, 0]
    array([[2., 3.],
           [1., 4.]])
    """

    missing: str = choice(SIDES, "lower")

    @property
    def axis(self):
        """Of the images, which is folded."""
        return 1 if self.missing in ("lower", "upper") else 2

    def order(self, size):
        """The places along the axis: the known half from the fold on, then the missing half from the fold on."""
        before, after = onp.arange(size // 2)[::-1], onp.arange(size // 2, size)
        known_first = (before, after) if self.missing in ("lower", "right") else (after, before)
        return onp.concatenate(known_first)

    def forward(self, params, x):
        check_images(x)
        n, *shape = x.shape
        size = shape[self.axis - 1]
        if size % 2:
            raise InputError(f"expected an even number of pixels along the folded axis, got {size}")
        x = permute(x, constant(self.order(size), like=x), self.axis)
        shape[self.axis - 1 : self.axis] = 2, size // 2
        sides = np.moveaxis(np.reshape(x, (n, *shape)), self.axis, 3)
        return np.reshape(sides, (n, *self.output_shape(x.shape[1:]))), zeros_per_row(x)

    def inverse(self, params, z):
        check_images(z)
        n, height, width, channels = z.shape
        if channels % 2:
            raise InputError(f"expected an even number of channels to unfold, got {channels}")
        sides = np.moveaxis(np.reshape(z, (n, height, width, 2, channels // 2)), 3, self.axis)
        shape = self.output_shape(z.shape[1:], "inverse")
        x = np.reshape(sides, (n, *shape))
        order = onp.argsort(self.order(shape[self.axis - 1]))
        return permute(x, constant(order, like=z), self.axis), zeros_per_row(z)

    def output_shape(self, shape, direction="forward"):
        shape = list(shape)
        half, double = (self.axis - 1, 2) if direction == "forward" else (2, self.axis - 1)
        shape[half], shape[double] = shape[half] // 2, 2 * shape[double]
        return tuple(shape)


def check_images(x):
    """Raise unless `x` has the axes of images."""
    if x.ndim != 4:
        raise InputError(f"expected images (n, height, width, channels) to fold, got shape {x.shape}")
