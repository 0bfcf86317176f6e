"""Linear maps of the channels: a learned 1x1 convolution, a fixed permutation, a reversal."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import linear, permute, solve_triangular, spread_rows
from npflow.layers.layer import Layer, pixels, zeros_per_row


@dataclass(frozen=True)
class Conv1x1(Layer):
    r"""An invertible 1x1 convolution: one matrix W on the channels of each pixel, learned as P L U.

    z = x W,    W = P (L' + I) (U' + diag(s))       log|det J| = H W sum(log|s|)
    x = z W^-1, by two triangular solves and a permutation

    The channels of a pixel are a row vector here; the paper has columns and writes z = W x. L' is strictly lower and
    U' strictly upper triangular. L', U' and log|s| are learned, P and the signs of s are fixed, so W stays
    invertible. W starts as a random orthogonal matrix, with log-det 0. H W is the number of pixels, 1 for rows of
    features.

    References
    ----------
    Kingma & Dhariwal 2018, Glow, section 3.2.

    Examples
    --------
    The rows of the identity leave as the rows of W. The log-det is the one that NumPy computes from W:

    >>> import numpy as np
    >>> from npflow.layers import Conv1x1
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Conv1x1(), rng.normal(size=(5, 3))
    >>> params = layer.init(rng, x)
    >>> params["log_scale"] += [0.1, 0.2, 0.3]
    >>> W, log_det = layer.forward(params, np.eye(3))
    >>> np.allclose(log_det, np.linalg.slogdet(W)[1]), log_det.round(4)
    (True, array([0.6, 0.6, 0.6]))
    """

    def init(self, rng, x):
        from scipy.linalg import lu, qr

        channels = x.shape[-1]
        orthogonal, _ = qr(rng.standard_normal((channels, channels)))
        rows, lower, upper = lu(orthogonal, p_indices=True)  # orthogonal = lower[rows] @ upper
        s = np.diag(upper)
        return {
            "permutation": rows,
            "lower": np.tril(lower, -1).astype(x.dtype),
            "upper": np.triu(upper, 1).astype(x.dtype),
            "log_scale": np.log(np.abs(s)).astype(x.dtype),
            "sign": np.sign(s).astype(np.int8),
        }

    def triangles(self, params):
        """L' + I and U' + diag(s)."""
        channels, dtype = len(params["sign"]), params["lower"].dtype
        below = constant(onp.tri(channels, k=-1, dtype=dtype), like=params["lower"])
        diagonal = constant(onp.eye(channels, dtype=dtype), like=params["lower"])
        s = params["sign"] * np.exp(params["log_scale"])
        lower = params["lower"] * below + diagonal
        upper = params["upper"] * below.T + diagonal * s
        return lower, upper

    def forward(self, params, x):
        lower, upper = self.triangles(params)
        weight = permute(linear(lower, upper), params["permutation"], axis=0)
        z = linear(x, weight)
        return z, self.log_det(params, x)

    def inverse(self, params, z):
        lower, upper = self.triangles(params)
        y = solve_triangular(z, upper, lower=False)
        y = solve_triangular(
            y, lower, lower=True, unit_diagonal=True
        )  # x P, as forward permuted the rows of W
        return permute(y, params["permutation"]), -self.log_det(params, z)

    def log_det(self, params, x):
        return spread_rows(pixels(x) * np.sum(params["log_scale"]), len(x))


@dataclass(frozen=True)
class Permutation(Layer):
    """A fixed permutation of the channels, drawn by `init`; not the identity, unless there is one channel alone.

    z_i = x_{p(i)}      x_{p(i)} = z_i      log|det J| = 0

    The determinant is 1 or -1.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Permutation
    >>> z, log_det = Permutation().forward({"permutation": np.array([2, 0, 1])}, np.array([[10.0, 20.0, 30.0]]))
    >>> z, log_det
    (array([[30., 10., 20.]]), array([0.]))
    """

    def init(self, rng, x):
        channels = x.shape[-1]
        order = rng.permutation(channels)
        while channels > 1 and onp.array_equal(order, onp.arange(channels)):
            order = rng.permutation(channels)
        return {"permutation": order}

    def forward(self, params, x):
        return permute(x, params["permutation"]), zeros_per_row(x)

    def inverse(self, params, z):
        return permute(z, np.argsort(params["permutation"])), zeros_per_row(z)


@dataclass(frozen=True)
class Reverse(Layer):
    """The channels in reverse order, so that the two halves of a coupling change places.

    z_i = x_{c+1-i}, for channels i = 1 ... c       log|det J| = 0

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Reverse
    >>> Reverse().forward({}, np.array([[1.0, 2.0, 3.0, 4.0]]))
    (array([[4., 3., 2., 1.]]), array([0.]))
    """

    def forward(self, params, x):
        order = constant(onp.arange(x.shape[-1] - 1, -1, -1), like=x)
        return permute(x, order), zeros_per_row(x)

    def inverse(self, params, z):
        return self.forward(params, z)
