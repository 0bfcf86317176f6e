"""Pixels as channels, and back: how a multi-scale flow changes scale."""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.errors import InputError
from npflow.layers.layer import Layer, zeros_per_row


@dataclass(frozen=True)
class Squeeze(Layer):
    r"""Make each block of 2 x 2 pixels one pixel with four times as many channels.

    z[i, j, 4 c + 2 a + b] = x[2 i + a, 2 j + b, c]         log|det J| = 0

    (n, height, width, channels) becomes (n, height / 2, width / 2, 4 channels). The four pixels of a block, row by
    row, lie side by side for each channel. This is the order of Glow's code and of PyTorch's `PixelUnshuffle`.
    TensorFlow's `space_to_depth` has the other common order: all channels of the first pixel, then of the second.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 3.6; Kingma & Dhariwal 2018, Glow, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Squeeze
    >>> x = np.arange(16.0).reshape(1, 4, 4, 1)  # row by row
    >>> z, log_det = Squeeze().forward({}, x)
    >>> z.shape, z[0, 0, 0]  # the pixel at the upper left: two of the first row, two of the second
    ((1, 2, 2, 4), array([0., 1., 4., 5.]))
    """

    def forward(self, params, x):
        return squeeze(x), zeros_per_row(x)

    def inverse(self, params, z):
        return unsqueeze(z), zeros_per_row(z)

    def output_shape(self, shape, direction="forward"):
        return (squeezed if direction == "forward" else unsqueezed)((1, *shape))[1:]


@dataclass(frozen=True)
class Unsqueeze(Layer):
    r"""Make each pixel a block of 2 x 2 pixels with a quarter of its channels: the inverse of `Squeeze`.

    z[2 i + a, 2 j + b, c] = x[i, j, 4 c + 2 a + b]         log|det J| = 0

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Unsqueeze
    >>> z, log_det = Unsqueeze().forward({}, np.array([[[[1.0, 2.0, 3.0, 4.0]]]]))
    >>> z.shape, z[0, :, :, 0]
    ((1, 2, 2, 1), array([[1., 2.],
           [3., 4.]]))
    """

    def forward(self, params, x):
        return unsqueeze(x), zeros_per_row(x)

    def inverse(self, params, z):
        return squeeze(z), zeros_per_row(z)

    def output_shape(self, shape, direction="forward"):
        return (unsqueezed if direction == "forward" else squeezed)((1, *shape))[1:]


def squeeze(x):
    """Blocks of 2 x 2 pixels as channels: shape (n, 2 h, 2 w, c) gives (n, h, w, 4 c)."""
    n, height, width, channels = shape = squeezed(x.shape)
    blocks = np.reshape(x, (n, height, 2, width, 2, channels // 4))
    return np.reshape(np.transpose(blocks, (0, 1, 3, 5, 2, 4)), shape)


def unsqueeze(z):
    """Channels as blocks of 2 x 2 pixels: shape (n, h, w, 4 c) gives (n, 2 h, 2 w, c)."""
    n, height, width, channels = shape = unsqueezed(z.shape)
    blocks = np.reshape(z, (n, height // 2, width // 2, channels, 2, 2))
    return np.reshape(np.transpose(blocks, (0, 1, 4, 2, 5, 3)), shape)


def squeezed(shape):
    """The shape that images of a shape are squeezed to."""
    if len(shape) != 4 or shape[1] % 2 or shape[2] % 2:
        raise InputError(
            f"expected images (n, height, width, channels) of even height and width to squeeze, got shape {shape}"
        )
    n, height, width, channels = shape
    return n, height // 2, width // 2, 4 * channels


def unsqueezed(shape):
    """The shape that images of a shape are unsqueezed to."""
    if len(shape) != 4 or shape[3] % 4:
        raise InputError(
            f"expected images (n, height, width, channels) of a multiple of 4 channels to unsqueeze, got shape {shape}"
        )
    n, height, width, channels = shape
    return n, 2 * height, 2 * width, channels // 4
