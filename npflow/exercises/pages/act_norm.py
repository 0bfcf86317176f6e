"""Exercise act_norm: scale and shift each channel of an image, and start where the data is.

    z = x * exp(log_scale) + bias           one log_scale and one bias for each channel

`init` chooses both so that each channel of its batch leaves with mean 0 and standard deviation 1:

    exp(log_scale) = 1 / std                bias = -mean / std

Work out the log-det: an image has H W pixels, and each is scaled. How often does exp(log_scale) of a channel
stand on the diagonal of the Jacobian?

x and z have shape (n, H, W, C), log_scale and bias have shape (C,), log_det has shape (n,).

Hints:

1. The mean of a channel is over all rows and pixels: ``np.mean(x, axis=(0, 1, 2))``. np.std takes the axes
   likewise.
2. ``_, H, W, _ = x.shape``
3. ``np.ones_like(x[:, 0, 0, 0])`` has one entry for each row, in the dtype of x.

Mark it: ``npflow exercise act_norm act_norm.py``. Book: demos/book/05_act_norm.py. The library's own: ActNorm
in npflow/layers/affine.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer


@dataclass(frozen=True)
class MyActNorm(Layer):
    """A scale and a shift for each channel."""

    def init(self, rng, x):
        """Choose both so that each channel of x leaves with mean 0 and standard deviation 1."""
        log_scale = ...
        bias = ...
        return {"log_scale": log_scale, "bias": bias}

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        x = ...
        log_det = ...
        return x, log_det
