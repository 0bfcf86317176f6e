"""Exercise split: leave half of the channels alone, and apply a layer f to the rest.

    x = (a, b)              the first C / 2 channels, and the others
    z = (a, f(b))

So a flow stops working on a half of the numbers at each scale. Work out the log-det from the Jacobian, which
has two blocks on its diagonal: the identity for a, and that of f for b.

x and z have shape (n, H, W, C) with an even C, log_det has shape (n,).

Hints:

1. ``x[..., :half]`` are the first channels.
2. ``self.layer.forward(params, b)`` and ``self.layer.inverse(params, b)`` return an array and its log-det,
   shape (n,).
3. ``np.concatenate([a, b], axis=-1)`` joins the channels.

Mark it: ``npflow exercise split split.py``. Book: demos/book/09_many_scales.py. The library's own: Split in
npflow/layers/split.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Conv1x1, Layer

INNER = Conv1x1()


@dataclass(frozen=True)
class MySplit(Layer):
    """A layer on the second half of the channels."""

    layer: Layer = INNER

    def init(self, rng, x):
        """Parameters of f."""
        return self.layer.init(rng, x[..., x.shape[-1] // 2 :])

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        half = x.shape[-1] // 2
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        half = z.shape[-1] // 2
        x = ...
        log_det = ...
        return x, log_det
