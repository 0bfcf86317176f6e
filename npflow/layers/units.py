"""Data in its own units, so that training does not depend on those it was measured in."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import spread_rows
from npflow.layers.layer import Layer, pixels, spread


@dataclass(frozen=True)
class Units(Layer):
    r"""Multiply each channel by a power of two that brings the first batch to the order of one; nothing is trained.

    z = x * 2^-e        log|det J| = -H W sum(e) log 2
    x = z * 2^e

    The exponents e are integers, and so constants. Adam moves all parameters by steps of about one size. For the mean
    of a column such a step is too large where the column is in millionths, too small where it is in millions. A power
    of two is exact in floating point. H W is the number of pixels, 1 for rows of features.
    """

    def init(self, rng, x):
        channels = x.reshape(-1, x.shape[-1]).astype(onp.float64)
        size, std = onp.max(onp.abs(channels), axis=0), spread(channels)
        constant = std <= 10 * onp.finfo(x.dtype).eps * size
        exponent = onp.round(onp.log2(onp.where(constant, onp.max(size) or 1.0, std)))
        return {"exponent": onp.clip(exponent, -100, 100).astype(onp.int16)}  # float32 ends at 127

    def forward(self, params, x):
        return x * self.scale(params, x), self.log_det(params, x)

    def inverse(self, params, z):
        return z / self.scale(params, z), -self.log_det(params, z)

    def log_det(self, params, x):
        return spread_rows(pixels(x) * np.sum(np.log(self.scale(params, x))), len(x))

    def scale(self, params, x):
        """2^-e of each channel, exactly, in the dtype of `x`."""
        exponent = params["exponent"]
        return onp.ldexp(np.ones_like(x, shape=exponent.shape), -exponent)
