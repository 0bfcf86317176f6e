"""Exercise squeeze: make each block of 2 x 2 pixels one pixel with four times as many channels.

    z[i, j, 4 c + 2 a + b] = x[2 i + a, 2 j + b, c]         a and b are 0 or 1

A squeeze trades pixels for channels, so that a multi-scale flow can work at half the height and width. It
only rearranges numbers: what is the log-det?

x has shape (n, H, W, C) with an even H and W, z has shape (n, H / 2, W / 2, 4 C), log_det has shape (n,).

Hints:

1. ``np.reshape`` to (n, H / 2, 2, W / 2, 2, C) gives the indices row, i, a, j, b, c names of their own.
2. ``np.transpose(blocks, axes)`` puts them in another order. In z they are row, i, j, c, a, b.
3. The last three indices then become one channel by another ``np.reshape``.
4. The inverse takes the same steps back. There the channels are those of z, 4 C.

Mark it: ``npflow exercise squeeze squeeze.py``. Book: demos/book/09_many_scales.py. The library's own:
Squeeze in npflow/layers/reshape.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer


@dataclass(frozen=True)
class MySqueeze(Layer):
    """Blocks of 2 x 2 pixels as channels."""

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        n, H, W, C = x.shape
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        n, h, w, channels = z.shape
        x = ...
        log_det = ...
        return x, log_det

    def output_shape(self, shape, direction="forward"):
        """The shape of one row of the output, for `Flow`."""
        height, width, channels = shape
        if direction == "forward":
            return height // 2, width // 2, 4 * channels
        return 2 * height, 2 * width, channels // 4
