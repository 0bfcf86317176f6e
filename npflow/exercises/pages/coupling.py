"""Exercise coupling: scale and shift one half by a network of the other (RealNVP).

    x = (a, b)                              the first D / 2 components, and the others
    raw, shift = network(a)                 the first D / 2 outputs, and the others
    log_scale = 2 tanh(raw / 2)             between -2 and 2, so that exp does not overflow

    z = (a, b * exp(log_scale) + shift)     log|det J| = sum(log_scale)

Work out the inverse. a is unchanged, so raw and shift are known again.

x and z have shape (n, D) with an even D, log_det has shape (n,).

Hints:

1. ``self.network.apply(params, a)`` has shape (n, D). Cut it into raw and shift, as x is cut into a and b.
2. log_scale has shape (n, D / 2). It differs from row to row: sum over axis 1.
3. ``np.concatenate([a, b], axis=1)`` joins the halves.

Mark it: ``npflow exercise coupling coupling.py``. Book: demos/book/06_couplings.py. The library's own:
AffineCoupling in npflow/layers/coupling.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer
from npflow.networks import MLP

SMALL = MLP((16, 16), "tanh")


@dataclass(frozen=True)
class MyCoupling(Layer):
    """Scale and shift the second half by a network of the first."""

    network: MLP = SMALL

    def init(self, rng, x):
        """Parameters of the network, which takes D / 2 numbers and returns D."""
        half = x.shape[1] // 2
        return self.network.init(rng, x[:, :half], outputs=2 * half)

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
