"""Invertible residual layers: z = x + g(x), where g shortens every distance."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode
from autograd.extend import defvjp, primitive
from autograd.tracer import register_notrace

from npflow.autodiff.gpu.devices import HOST, constant, device_of
from npflow.autodiff.primitives import dense, held, linear, sigmoid, sum_event, where
from npflow.description import checked, number
from npflow.errors import ConvergenceError, InputError
from npflow.layers.layer import Layer
from npflow.layers.planar import check_rows
from npflow.networks.mlp import check_widths


def check_hidden(hidden, name):
    """Raise `InputError` unless `hidden` is a sequence of positive integers, not empty; return a tuple of int."""
    hidden = check_widths(hidden, name)
    if not hidden:
        raise InputError(f"expected at least one number in {name}, got none")
    return hidden


@dataclass(frozen=True)
class Residual(Layer):
    r"""Add a network whose Lipschitz constant is below 1; starts near the identity.

    z = x + g(x)                                log|det J| = log det(I + G),  G = dg/dx
    x = f^-1(z), by x <- z - g(x)

    g is a perceptron, h <- swish(h W + b) / 1.1 with swish(a) = a sigmoid(a), whose slope is below 1.1. Each W is divided
    by a bound of its largest singular value, so that g changes by at most `lipschitz` times the change of x. Two
    different points therefore never have the same z. The iteration of the inverse is a contraction: after k steps its
    error is at most lipschitz^k of the first.

    The bound of the largest singular value is tr((W^T W)^16)^(1/32), the Schatten norm of order 32. For 64 units it is
    at most 1.14 times that value. It holds at every step of training and has a gradient. Power iteration, as in the
    papers, gives an estimate, which may be too low.

    The log-det is that of a D x D matrix for each row: O(D^3). `forward_estimate` takes one product with G for each term
    of the series

    log det(I + G) = sum_k (-1)^(k+1) tr(G^k) / k

    Parameters
    ----------
    hidden : tuple of int
        The number of units in each hidden layer of g.
    lipschitz : float
        Between 0 and 1. Near 1 the layer can do more, and its inverse takes more steps.

    References
    ----------
    Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen: Invertible residual networks, 2019, sections 2 and 3.
    https://arxiv.org/abs/1811.00995

    Chen, Behrmann, Duvenaud, Jacobsen: Residual flows for invertible generative modeling, 2019, section 3.
    https://arxiv.org/abs/1906.02735

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Residual
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Residual(hidden=(16,), lipschitz=0.5), rng.normal(size=(4, 3))
    >>> params = layer.init(rng, x)
    >>> z, log_det = layer.forward(params, x)
    >>> np.allclose(layer.inverse(params, z)[0], x)
    True
    """

    hidden: Sequence[int] = checked(check_hidden, (64, 64))
    lipschitz: float = number(0.9, above=0, below=1)

    def init(self, rng, x):
        check_rows(x, "Residual")
        widths = [x.shape[1], *self.hidden, x.shape[1]]
        params = []
        for inputs, outputs in itertools.pairwise(widths):
            weight = rng.standard_normal((inputs, outputs)) / math.sqrt(inputs)
            params.append({"weight": weight.astype(x.dtype), "bias": onp.zeros(outputs, x.dtype)})
        params[-1]["weight"] *= 0.01
        return params

    def forward(self, params, x):
        arrays = self.arrays(params)
        g, slopes = residual(x, *arrays)
        return x + g, log_det_plus_identity(jacobian(slopes, *arrays))

    def inverse(self, params, z):
        arrays = self.arrays(params)
        x = invert_residual(z, self.lipschitz, *arrays)
        return x, -self.log_det(params, x)

    def log_det(self, params, x):
        arrays = self.arrays(params)
        return log_det_plus_identity(jacobian(residual(x, *arrays)[1], *arrays))

    def forward_estimate(self, params, x, v, coefficients):
        r"""Apply the layer with an estimate of its log-det, by a series and Hutchinson's trace.

        sum_k (-1)^(k+1) c_k / k  v^T G^k v

        With v of mean 0 and the identity as its covariance, E[v^T A v] = tr(A). With c_k = 1 up to some k and 0 from
        then on, the estimate has the bias of the terms that are left out. With c_k = 1 / P(N >= k) and a random
        number N of terms it has none; see `npflow.models.residual_flow.roulette`.

        The gradient is not that of this sum, which would keep the values of every term. It is
        E[w^T dG v], where w = sum_k (-1)^k c_(k+1) (G^T)^k v is a constant: the series of (I + G)^-1. It has the
        same expectation, and keeps the values of one term.

        Parameters
        ----------
        params : tree of ndarray
        x, v : ndarray, shape (n, D)
        coefficients : ndarray, shape (n, terms)
            c_k, in most cases the same for all rows.

        Returns
        -------
        z : ndarray, shape (n, D)
        log_det : ndarray, shape (n,)
            In nats.
        """
        arrays = self.arrays(params)
        g, slopes = residual(x, *arrays)
        fixed, fixed_slopes = [held(array) for array in arrays], [held(slope) for slope in slopes]
        total, w, power = 0, 0, v  # G^k v, in the order of rows: (v^T G^k)^T
        for k in range(coefficients.shape[1]):
            c = coefficients[:, k : k + 1]
            w = w + (-1) ** k * c * power
            power = times_jacobian(power, fixed_slopes, *fixed)
            total = total + (-1) ** k / (k + 1) * c[:, 0] * sum_event(power * v)
        change = sum_event(times_jacobian(w, slopes, *arrays) * v)
        return x + g, total + (change - held(change))

    def arrays(self, params):
        """W_1, b_1, W_2, b_2, ... of g; the product of the norms of the W is at most `lipschitz`."""
        most = self.lipschitz ** (1 / len(params))
        arrays = []
        for layer in params:
            bound = norm_bound(layer["weight"])
            arrays += [layer["weight"] * where(bound > most, most / bound, 1), layer["bias"]]
        return arrays


# ---------------------------------------------------------------- the network, its slopes and its Jacobian
#
# For rows the change of g is dx W_1 diag(s_1) W_2 diag(s_2) ... W_K, with the slopes s_k of the activations. `G` stands
# for the transpose of this product, but traces and determinants are those of both.

SLOPE = 1.1  # swish'(a) is at most 1.09984


def residual(x, *arrays):
    """g(x), and the slopes of each hidden layer."""
    h, slopes = x, []
    for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2]):
        a = dense(h, weight, bias)
        gate = sigmoid(a)
        h = a * gate / SLOPE
        slopes.append(gate * (1 + a * (1 - gate)) / SLOPE)
    return dense(h, *arrays[-2:]), slopes


def times_jacobian(v, slopes, *arrays):
    """G v for each row, shape (n, D)."""
    for weight, slope in zip(arrays[:-2:2], slopes):
        v = linear(v, weight) * slope
    return linear(v, arrays[-2])


def jacobian(slopes, *arrays):
    """G^T of each row, shape (n, D, D): row i is the change of g with x_i."""
    G = arrays[0] * slopes[0][:, None]
    for weight, slope in zip(arrays[2:-2:2], slopes[1:]):
        G = linear(G, weight) * slope[:, None]
    return linear(G, arrays[-2])


def norm_bound(weight):
    """A bound of the largest singular value of a matrix: tr((W^T W)^16)^(1/32), a number between it and 1.14 times it."""
    gram = linear(weight.T, weight)
    size = np.sqrt(sum_event((gram * gram)[None])) + float(
        onp.finfo(gram.dtype).tiny
    )  # so that no power overflows
    power = gram / size
    for _ in range(3):  # (W^T W)^8
        power = linear(power, power)
    return np.sqrt(size) * sum_event((power * power)[None]) ** (1 / 32)


@primitive
def log_det_plus_identity(G):
    """log|det(I + G)| of each matrix, shape (n,)."""
    return onp.linalg.slogdet(G + constant(onp.eye(G.shape[-1], dtype=G.dtype), like=G))[1]


@primitive
def _inverse_transposed(G):
    """(I + G)^-T of each matrix."""
    inverse = onp.linalg.inv(G + constant(onp.eye(G.shape[-1], dtype=G.dtype), like=G))
    return inverse.swapaxes(1, 2).copy()


defvjp(log_det_plus_identity, lambda log_det, G: lambda g: g[:, None, None] * _inverse_transposed(G))

# ---------------------------------------------------------------- the inverse: a fixed point


def invert_residual(z, lipschitz, *arrays):
    """The x with x + g(x) = z, to rounding.

    x <- z - g(x) multiplies the error by at most `lipschitz`. So log(eps) / log(lipschitz) steps are enough from anywhere,
    up to rounding: 370 in float64 with 0.9. It mostly takes a tenth of them, and stops where a step is at rounding.

    Raises
    ------
    ConvergenceError
        If x is not finite where z is, which takes weights that are not.
    """
    x = _solve(z, lipschitz, *arrays)
    g, _ = residual(x, *arrays)
    return _implicit(x, x + g - z, lipschitz, *map(held, arrays))


@primitive
def _implicit(x, difference, lipschitz, *arrays):
    """x, at which a difference is 0: x depends on the parameters through the difference alone."""
    return x


@primitive
def _solve(z, lipschitz, *arrays):
    """`invert_residual`; a constant for autograd."""
    return fixed_point(lambda x: z - residual(x, *arrays)[0], z, lipschitz)


@primitive
def _solve_transposed(target, x, lipschitz, *arrays):
    """The u with u + G^T u = target, by the same iteration."""
    _, slopes = residual(x, *arrays)
    weights = list(zip(arrays[:-2:2], slopes))

    def step(u):
        v = linear(u, arrays[-2].T)
        for weight, slope in reversed(weights):
            v = linear(v * slope, weight.T)
        return target - v

    return fixed_point(step, target, lipschitz)


# At `x`, with its derivatives, so that a second derivative is refused rather than 0.
defvjp(
    _implicit,
    lambda x, _, difference, lipschitz, *arrays: lambda g: -_solve_transposed(g, x, lipschitz, *arrays),
    argnums=(1,),
)
register_notrace(VJPNode, _solve)


def fixed_point(step, start, lipschitz):
    """The x with step(x) = x, for a map that shortens distances to `lipschitz` of what they are."""
    eps = float(onp.finfo(start.dtype).eps)
    most = math.ceil(math.log(eps / 8) / math.log(lipschitz))
    x, found = start, False
    with onp.errstate(over="ignore", invalid="ignore"):
        for _ in range(most):
            new = step(x)
            # What is left is at most lipschitz / (1 - lipschitz) of the step.
            change = onp.max(onp.abs(new - x), axis=1, keepdims=True)
            x = onp.where(found, x, new)  # a row that is found stays, whatever the others take
            found = found | (change <= 2 * eps * onp.max(onp.abs(new), axis=1, keepdims=True))
            if device_of(x) is HOST and found.all():  # asking a GPU would wait for it
                break
    if device_of(x) is HOST and onp.isnan(change[onp.isfinite(start).all(axis=1)]).any():
        raise ConvergenceError(
            "expected the fixed point of a residual layer, got nan: are its weights finite?"
        )
    return x
