"""Exercise conditional: a coupling that knows the class, or any other context.

A conditional flow has a density of x for each context c. It suffices that the network sees c beside a:

    x = (a, b)                      the first D / 2 components, and the others
    z = (a, b + network(a, c))      log|det J| = 0

The Jacobian is that in x, for a fixed c, so it is a triangle as before.

x and z have shape (n, D) with an even D, the context has shape (n, contexts), log_det has shape (n,).

Hints:

1. ``np.concatenate([a, context], axis=1)`` is what the network sees, in `init`, `forward` and `inverse`.
2. ``self.network.init(rng, seen, outputs=half)`` makes parameters for an input like `seen`.
3. ``self.network.apply(params, seen)`` is the shift of b, shape (n, D / 2).

Mark it: ``npflow exercise conditional conditional.py``. Book: demos/book/17_conditioning.py. The library's
own: AdditiveCoupling in npflow/layers/coupling.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer
from npflow.networks import MLP

SMALL = MLP((16, 16), "tanh")


@dataclass(frozen=True)
class MyConditional(Layer):
    """Shift the second half by a network of the first half and of a context."""

    network: MLP = SMALL

    def init(self, rng, x, context=None):
        """Parameters of the network, which sees a and the context, and returns D / 2 numbers."""
        return ...

    def forward(self, params, x, context=None):
        """x -> z, and log|det dz/dx| of each row."""
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z, context=None):
        """z -> x, and log|det dx/dz| of each row."""
        x = ...
        log_det = ...
        return x, log_det
