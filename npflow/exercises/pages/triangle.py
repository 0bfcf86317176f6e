"""Exercise triangle: multiply each row by a lower triangular matrix.

    z = L x         L is lower triangular, with exp(log_diagonal) on its diagonal

A row of a batch is a row vector, so in arrays this is ``z = x @ L.T``. The determinant of a triangle is the
product of its diagonal.

x and z have shape (n, D), L has shape (D, D), log_diagonal has shape (D,), log_det has shape (n,).

Hints:

1. The log-det does not depend on x: it is the same number for each row. ``np.ones_like(x[:, 0])`` has one
   entry for each row, in the dtype of x.
2. For the inverse solve L x = z. ``np.linalg.solve(L, z.T).T`` does it for all rows.
3. The inverse undoes the change of volume: what is its log-det?

Mark it: ``npflow exercise triangle triangle.py``. Book: demos/book/03_products_and_triangles.py. The
library's own: Conv1x1, a product of two triangles, in npflow/layers/linear.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Layer


@dataclass(frozen=True)
class MyTriangle(Layer):
    """A lower triangular matrix on each row."""

    def init(self, rng, x):
        """The numbers below the diagonal, and the logarithms of the diagonal."""
        D = x.shape[1]
        return {"below": np.zeros((D, D), x.dtype), "log_diagonal": np.zeros(D, x.dtype)}

    def triangle(self, params):
        """L."""
        return np.tril(params["below"], -1) + np.diag(np.exp(params["log_diagonal"]))

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        L = self.triangle(params)
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        L = self.triangle(params)
        x = ...
        log_det = ...
        return x, log_det
