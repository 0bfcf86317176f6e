"""Sylvester flows: M planar flows at once, with a triangular M x M determinant."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import concatenate_last, linear, sum_event, tanh
from npflow.description import count
from npflow.layers.layer import Layer, check_features
from npflow.layers.planar import log_slope, positive, root
from npflow.layers.rotation import product_of_reflections
from npflow.validation import check_count


@dataclass(frozen=True)
class Sylvester(Layer):
    r"""Move x within a subspace of M dimensions, by functions of where it is there; starts as the identity.

    z = x + tanh(a) R^T Q^T         a = x Q S^T + b         log|det J| = sum_i log(1 + R_ii S_ii (1 - tanh(a_i)^2))
    x = z - tanh(a) R^T Q^T         with a of z Q, component by component, the last one first

    Q has D rows and M orthonormal columns, the product of M reflections as in `Rotation`. R and S are upper triangular
    M x M matrices. With M = 1 this is `Planar`.

    Sylvester's identity, det(I_D + A B) = det(I_M + B A), exchanges the two factors. Here A = Q R diag(tanh'(a)) and
    B = S Q^T. In B A the two Q stand beside each other, and Q^T Q = I: what is left is the triangle
    I + S R diag(tanh'(a)). Written for rows, x Q S^T and R^T Q^T keep this order. With x S Q^T and Q R instead, which
    looks the same, the Q are on the outside of B A, and the diagonal of a triangle is not its determinant.

    The map is invertible if R_ii S_ii > -1: S_ii = exp(log_scale_i) and R_ii S_ii = softplus(strength_i + c) - 1, with
    c = log(e - 1), so that a strength of 0 is the identity.

    Parameters
    ----------
    rank : int
        M; at most the number of features.

    References
    ----------
    van den Berg, Hasenclever, Tomczak, Welling: Sylvester normalizing flows for variational inference, 2018, sections
    3 and 4.2. https://arxiv.org/abs/1803.05649

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Sylvester
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Sylvester(rank=2), rng.normal(size=(5, 4))
    >>> params = layer.init(rng, x)
    >>> params["strength"] = np.array([1.0, -1.0])
    >>> z, log_det = layer.forward(params, x)
    >>> np.allclose(layer.inverse(params, z)[0], x)
    True
    """

    rank: int = count(4)

    def init(self, rng, x):
        check_features(x, "Sylvester")
        features, rank = x.shape[1], self.rank
        check_count(rank, "Sylvester's rank", most=features, because=f", the {features} features of x")
        vectors = rng.standard_normal((features, rank))
        projected = x.astype(onp.float64) @ product_of_reflections(vectors, rank)
        deviations = onp.std(projected, axis=0)
        scale = 1 / onp.where(deviations > 0, deviations, 1.0)
        params = {
            "vectors": vectors,
            "outer": onp.zeros((rank, rank)),
            "inner": onp.zeros((rank, rank)),
            "log_scale": onp.log(scale),
            "strength": onp.zeros(rank),
            "bias": rng.standard_normal(rank) - scale * onp.mean(projected, axis=0),
        }
        return {name: array.astype(x.dtype) for name, array in params.items()}

    def forward(self, params, x):
        Q, R_T, S_T, product = self.matrices(params)
        t = tanh(linear(linear(x, Q), S_T) + params["bias"])
        return x + linear(linear(t, R_T), Q.T), sum_event(log_slope(t, product))

    def inverse(self, params, z):
        Q, R_T, S_T, product = self.matrices(params)
        y = linear(z, Q)
        t = v = None  # tanh(a) and x Q, of the components that are known
        for i in reversed(range(self.rank)):
            rest, inside = y[:, i : i + 1], params["bias"][i]
            if t is not None:
                rest = rest - linear(t, R_T[i + 1 :, i : i + 1])
                inside = inside + linear(v, S_T[i + 1 :, i : i + 1])
            t_i = tanh(root(S_T[i, i] * rest + inside, product[i]))
            v_i = rest - R_T[i, i] * t_i
            t, v = (t_i, v_i) if t is None else (concatenate_last(t_i, t), concatenate_last(v_i, v))
        return z - linear(linear(t, R_T), Q.T), -sum_event(log_slope(t, product))

    def matrices(self, params):
        """Q, R^T and S^T, as rows take them, and R_ii S_ii + 1, which are positive."""
        scale, product = np.exp(params["log_scale"]), positive(params["strength"])
        below = constant(onp.tri(self.rank, k=-1, dtype=scale.dtype), like=scale)
        identity = constant(onp.eye(self.rank, dtype=scale.dtype), like=scale)
        R_T = params["outer"] * below + identity * ((product - 1) / scale)
        S_T = params["inner"] * below + identity * scale
        return product_of_reflections(params["vectors"], self.rank), R_T, S_T, product
