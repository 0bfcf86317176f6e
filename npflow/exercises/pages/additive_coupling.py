"""Exercise additive_coupling: shift one half by a network of the other (NICE).

    x = (a, b)              the first D / 2 components, and the others
    z = (a, b + network(a))

Work out the inverse: a is unchanged, so the network's output is known again. The Jacobian is a triangle with
ones on its diagonal: what is the log-det?

x and z have shape (n, D) with an even D, log_det has shape (n,).

Hints:

1. ``self.network.apply(params, a)`` is the shift of b, shape (n, D / 2).
2. ``np.concatenate([a, b], axis=1)`` joins the halves.
3. ``np.zeros_like(x[:, 0])`` has one zero for each row, in the dtype of x.

Mark it: ``npflow exercise additive_coupling additive_coupling.py``. Book: demos/book/06_couplings.py. The
library's own: AdditiveCoupling in npflow/layers/coupling.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer
from npflow.networks import MLP

SMALL = MLP((16, 16), "tanh")


@dataclass(frozen=True)
class MyAdditiveCoupling(Layer):
    """Shift the second half by a network of the first."""

    network: MLP = SMALL

    def init(self, rng, x):
        """Parameters of the network, which takes D / 2 numbers and returns D / 2."""
        half = x.shape[1] // 2
        return self.network.init(rng, x[:, :half], outputs=half)

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
