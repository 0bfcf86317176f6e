"""Exercise planar: move each row along a vector, by a function of its distance from a plane (planar flows).

    a = w.x + b                 one number for each row
    z = x + u tanh(a)

The Jacobian is I + tanh'(a) u w^T. By the matrix determinant lemma, det(I + v w^T) = 1 + w.v, so its determinant
is

    1 + tanh'(a) w.u            tanh'(a) = 1 - tanh(a)^2

For the inverse, multiply z by w and add b: w.z + b = a + w.u tanh(a). ``root(y, 1 + w.u)`` solves y = a + w.u tanh(a)
for a, for the y of each row.

``self.numbers(params)`` returns w, u, b and 1 + w.u, which the layer keeps above 0, so that the determinant is positive.

x and z have shape (n, D), w and u have shape (D,), b and 1 + w.u have shape (1,), log_det has shape (n,).

Hints:

1. ``np.dot(x, w)`` is w.x of each row, shape (n,). ``t[:, None] * u`` multiplies u by one number for each row, shape
   (n, D).
2. The log-det is the logarithm of one number for each row: there is no sum over components.
3. In the inverse, use the a that you have found: x = z - u tanh(a), and the log-det has the opposite sign.

Mark it: ``npflow exercise planar planar.py``. Book: demos/book/14_planar_and_sylvester.py. The library's own:
Planar in npflow/layers/planar.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer, Planar
from npflow.layers.planar import root


@dataclass(frozen=True)
class MyPlanar(Layer):
    """Moves rows along u, by the tanh of their distance from a plane."""

    def init(self, rng, x):
        """The parameters of the library's layer."""
        return Planar().init(rng, x)

    def numbers(self, params):
        """w, u, b and 1 + w.u."""
        w, u, b, product = Planar().plane(params, context=None)
        return w[0], u[0], b, product[0]

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        w, u, b, product = self.numbers(params)
        a = ...
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        w, u, b, product = self.numbers(params)
        a = ...
        x = ...
        log_det = ...
        return x, log_det
