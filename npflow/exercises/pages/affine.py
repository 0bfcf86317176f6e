"""Exercise affine: scale and shift each component.

    z = (x - mean) * exp(-log_std)          log|det J| = -sum(log_std)

Work out the inverse: solve for x. Its log-det has which sign?

x and z have shape (n, D), mean and log_std have shape (D,), log_det has shape (n,).

Hints:

1. ``params["mean"]`` and ``params["log_std"]`` broadcast over the rows.
2. The log-det is the same number for each row. ``np.ones_like(x[:, 0])`` has one entry for each row, in the
   dtype of x.

Mark it: ``npflow exercise affine affine.py``. Book: demos/book/04_affine.py. The library's own: Affine in
npflow/layers/affine.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer


@dataclass(frozen=True)
class MyAffine(Layer):
    """A mean and a standard deviation for each component."""

    def init(self, rng, x):
        """Start as the identity."""
        return {"mean": np.zeros(x.shape[1:], x.dtype), "log_std": np.zeros(x.shape[1:], x.dtype)}

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
