"""A rotation of the channels: an orthogonal matrix, learned as a product of reflections."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import linear, solve_triangular, sum_rows
from npflow.description import choice, count
from npflow.layers.layer import Layer, zeros_per_row
from npflow.validation import check_count


@dataclass(frozen=True)
class Rotation(Layer):
    r"""An orthogonal map of the channels of each pixel: a product of m learned reflections.

    z = x Q         Q = H_1 H_2 ... H_m         log|det J| = 0
    x = z Q^T       H_i = I - 2 v_i v_i^T / |v_i|^2

    H_i reflects at the plane that v_i is normal to, so Q is always orthogonal. Its determinant is (-1)^m.

    The reflections are not applied one by one. With the v_i / |v_i| as the columns of U, their product is
    Q = I - U T U^T, where T^-1 is upper triangular: 1/2 on the diagonal, U^T U above it.

    Parameters
    ----------
    reflections : int, optional
        m, at most the number of channels. By default one less, which is enough for any orthogonal matrix up to
        signs; with a single channel, one.
    start : {"random", "pca"}
        "random": Q starts as a random orthogonal matrix, uniformly distributed. "pca": its columns start as the
        principal components of the first batch, that of the largest variance first, so that z is uncorrelated. With
        fewer reflections this holds for the first m columns.

    References
    ----------
    Bischof, Van Loan: The WY representation for products of Householder matrices, 1987; in the compact form
    with a triangle of Puglisi: Modification of the Householder method based on the compact WY representation, 1992.

    Tomczak, Welling: Improving variational auto-encoders using Householder flow, 2016.
    https://arxiv.org/abs/1611.09630

    Examples
    --------
    The rows of the identity leave as the rows of Q:

    >>> import numpy as np
    >>> from npflow.layers import Rotation
    >>> rng = np.random.default_rng(0)
    >>> layer = Rotation(reflections=2)
    >>> Q, log_det = layer.forward(layer.init(rng, np.zeros((1, 3))), np.eye(3))
    >>> np.allclose(Q @ Q.T, np.eye(3)), round(float(np.linalg.det(Q)), 6), log_det
    (True, 1.0, array([0., 0., 0.]))
    """

    reflections: int | None = count(None)
    start: str = choice(("random", "pca"), "random")

    def init(self, rng, x):
        from scipy.linalg import qr

        channels = x.shape[-1]
        reflections = max(channels - 1, 1) if self.reflections is None else self.reflections
        check_count(
            reflections, "Rotation's reflections", most=channels, because=f", the {channels} channels of x"
        )
        if self.start == "random":
            columns = rng.standard_normal((channels, channels))
        else:
            columns = principal_components(x)
        # LAPACK's QR leaves Q as its reflections: v_i has a one at i, zeros above, and the rest below.
        (below, _), _ = qr(columns, mode="raw")
        return {
            "vectors": (onp.tril(below, -1) + onp.eye(channels))[:, :reflections].astype(x.dtype, order="C")
        }

    def forward(self, params, x):
        return linear(x, self.matrix(params)), zeros_per_row(x)

    def inverse(self, params, z):
        return linear(z, self.matrix(params).T), zeros_per_row(z)

    def matrix(self, params):
        """Q, shape (channels, channels)."""
        return product_of_reflections(params["vectors"])


def product_of_reflections(vectors, columns=None):
    """The first columns, by default all, of H_1 H_2 ... H_m for the columns of `vectors`, shape (channels, m)."""
    (channels, reflections), dtype = vectors.shape, vectors.dtype
    squares = sum_rows(vectors * vectors)
    unit = vectors / np.sqrt(squares + float(onp.finfo(dtype).tiny))  # a vector of zeros reflects nothing
    above = constant(onp.tri(reflections, k=-1, dtype=dtype).T, like=vectors)
    half = constant(onp.eye(reflections, dtype=dtype) / 2, like=vectors)
    inverse_of_t = linear(unit.T, unit) * above + half
    identity = constant(onp.eye(channels, columns, dtype=dtype), like=vectors)
    return identity - linear(solve_triangular(unit, inverse_of_t, lower=False), unit[:columns].T)


def principal_components(x):
    """The eigenvectors of the channels' covariance, over rows and pixels, as columns: the largest variance first."""
    channels = x.reshape(-1, x.shape[-1]).astype(onp.float64)
    centred = channels - onp.mean(channels, axis=0)
    return onp.linalg.eigh(centred.T @ centred)[1][:, ::-1]
