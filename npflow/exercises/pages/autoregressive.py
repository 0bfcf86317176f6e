"""Exercise autoregressive: scale and shift each component by a network of the components before it.

    raw_i, shift_i = network_i(x_1 ... x_{i-1})
    log_scale_i = 2 tanh(raw_i / 2)                     between -2 and 2, so that exp does not overflow

    z_i = x_i exp(log_scale_i) + shift_i                log|det J| = sum(log_scale)

The network is a MADE: its masks see to it that outputs i depend on the components before i alone.
``numbers(params, x)`` gives log_scale and shift of all components at once. `forward` is one call of it.

For the inverse z is known, and x is not. But log_scale_1 and shift_1 depend on no x at all, so x_1 is known.
Then log_scale_2 and shift_2 are known, and so on.

x and z have shape (n, D), log_scale and shift too, log_det has shape (n,).

Hints:

1. For the inverse begin with ``x = z``, and repeat D times: compute log_scale and shift from x, and from them
   a new x. After the first time x_1 is right, after the second x_2 too.
2. Arrays must not be changed in place: make a new x each time.
3. The log-det of the inverse is that of the last, right x, with which sign?

Mark it: ``npflow exercise autoregressive autoregressive.py``. Book: demos/book/10_autoregressive.py. The
library's own: MaskedAutoregressive in npflow/layers/autoregressive.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer
from npflow.networks import MADE

SMALL = MADE((16, 16), "tanh")


@dataclass(frozen=True)
class MyAutoregressive(Layer):
    """Scale and shift each component by a network of those before it."""

    network: MADE = SMALL

    def init(self, rng, x):
        """Parameters of the network, which returns two numbers for each component."""
        return self.network.init(rng, x, outputs=2 * x.shape[1])

    def numbers(self, params, x):
        """log_scale and shift of all components, both of shape (n, D)."""
        D = x.shape[1]
        outputs = self.network.apply(params, x)
        return 2 * np.tanh(outputs[:, :D] / 2), outputs[:, D:]

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
