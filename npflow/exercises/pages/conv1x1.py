"""Exercise conv1x1: multiply the channels of each pixel by a matrix, kept as P L U (Glow).

    z = x W             W = P L U           on the channels of each pixel, which are a row vector
    P                   a permutation of the rows: ``P A`` is ``A[params["permutation"]]``
    L                   lower triangular, with ones on its diagonal
    U                   upper triangular, with sign * exp(log_scale) on its diagonal

Work out the log-det from det(P L U), where |det P| = 1. An image has H W pixels, and each is multiplied by W.
Work out the inverse: x = z W^-1.

x and z have shape (n, H, W, C), the matrices have shape (C, C), log_det has shape (n,).

Hints:

1. ``L @ U`` is a matrix product. ``x @ W`` multiplies the last axis of x, for any number of axes before it.
2. The diagonals of L and U tell their determinants. The sign does not matter under |det|.
3. ``np.linalg.inv(W)`` will do here. The library solves two triangular systems, which is cheaper and more
   exact.
4. ``np.ones_like(x[:, 0, 0, 0])`` has one entry for each row, in the dtype of x.

Mark it: ``npflow exercise conv1x1 conv1x1.py``. Book: demos/book/07_conv1x1.py. The library's own: Conv1x1 in
npflow/layers/linear.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Conv1x1, Layer


@dataclass(frozen=True)
class MyConv1x1(Layer):
    """A matrix on the channels of each pixel."""

    def init(self, rng, x):
        """The P L U of a random orthogonal W: "permutation", "lower", "upper", "log_scale", "sign"."""
        return Conv1x1().init(rng, x)

    def triangles(self, params):
        """L and U."""
        L = np.tril(params["lower"], -1) + np.eye(len(params["lower"]), dtype=params["lower"].dtype)
        U = np.triu(params["upper"], 1) + np.diag(params["sign"] * np.exp(params["log_scale"]))
        return L, U

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        L, U = self.triangles(params)
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        L, U = self.triangles(params)
        x = ...
        log_det = ...
        return x, log_det
