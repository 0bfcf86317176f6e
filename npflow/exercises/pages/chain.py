"""Exercise chain: what is the log-determinant of several layers in order?

    z = f_K(... f_2(f_1(x)))

The Jacobian of a composition is a product, J = J_K ... J_2 J_1, and det(A B) = det(A) det(B). Each J_k is
taken at the input of its own layer. Work out the inverse: which layer was applied last?

`params` is a list with the parameters of each layer. ``layer.forward(own, x)`` and ``layer.inverse(own, z)``
return an array and its log-det, shape (n,), with `own` the parameters of that layer.

Hints:

1. ``zip(self.layers, params)`` pairs layers and parameters. A list of these pairs can be reversed.
2. Start with ``log_det = 0``, and add the log-det of each layer that you apply.

Mark it: ``npflow exercise chain chain.py``. Book: demos/book/03_products_and_triangles.py. The library's own:
Chain in npflow/layers/chain.py.
"""

from dataclasses import dataclass

from npflow.layers import ActNorm, AffineCoupling, Layer, Reverse
from npflow.networks import MLP

LAYERS = (ActNorm(), AffineCoupling(MLP((16,), "tanh")), Reverse(), AffineCoupling(MLP((16,), "tanh")))


@dataclass(frozen=True)
class MyChain(Layer):
    """Layers in order."""

    layers: tuple = LAYERS

    def init(self, rng, x):
        """Parameters of each layer; each is started on what the layers before it make of x."""
        params = []
        for layer in self.layers:
            params.append(layer.init(rng, x))
            x, _ = layer.forward(params[-1], x)
        return params

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
