"""Invertible residual layers: z = x + g(x), where g shortens every distance."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.core import VJPNode
from autograd.extend import defvjp, primitive
from autograd.tracer import register_notrace

from npflow.autodiff.convolution import conv2d, conv2d_vjp_x
from npflow.autodiff.gpu.devices import HOST, constant, device_of
from npflow.autodiff.primitives import concatenate_last, held, linear, log_abs_det, sum_event, tanh
from npflow.description import checked, number
from npflow.errors import ConvergenceError, InputError
from npflow.layers.layer import Layer, zeros_per_row
from npflow.networks.convnet import check_kernel
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

    g is a perceptron, h <- [a tanh(beta a), a] / 1.5619 of a = h W + b, with a trained beta > 0 for each unit. The pair
    changes by at most 1.5619 times the change of a, for every beta. Each W is scaled down where a bound of its largest
    singular value is too large, so that g changes by at most `lipschitz` times the change of x. Two different points
    therefore never have the same z. The iteration of the inverse is a contraction: after k steps its error is at most
    lipschitz^k of the first.

    For images g is a network of convolutions: the first and the last have kernels of `kernel` x `kernel`, those between
    of 1 x 1. `norm_bound` says how their largest singular values are bounded.

    The log-det is that of a D x D matrix for each row: O(D^3). `forward_estimate` takes one product with G for each term
    of the series

    log det(I + G) = sum_k (-1)^(k+1) tr(G^k) / k

    Parameters
    ----------
    hidden : tuple of int
        The number of units, or of channels, in each hidden layer of g.
    lipschitz : float
        Between 0 and 1. Near 1 the layer can do more, and its inverse takes more steps.
    kernel : int
        The height and width of a convolution's kernel, for images; an odd number.

    References
    ----------
    Behrmann, Grathwohl, Chen, Duvenaud, Jacobsen: Invertible residual networks, 2019, sections 2 and 3.
    https://arxiv.org/abs/1811.00995

    Chen, Behrmann, Duvenaud, Jacobsen: Residual flows for invertible generative modeling, 2019, section 3.
    https://arxiv.org/abs/1906.02735

    Perugachi-Diaz, Tomczak, Bhulai: Invertible DenseNets with concatenated LipSwish, 2021, section 3.2. Their pair, of
    s(a) and s(-a) with s(a) = a sigmoid(2 beta a), is this one turned by 45 degrees: a tanh(beta a) is a smooth |a|, and a
    itself is kept. https://arxiv.org/abs/2102.02694

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
    kernel: int = checked(check_kernel, 3)

    keeps_input = True  # `inverse` is an iteration

    def init(self, rng, x):
        if x.ndim not in (2, 4):
            raise InputError(
                f"expected rows (n, features) or images (n, height, width, channels) for Residual, got shape {x.shape}"
            )
        widths = [x.shape[-1], *self.hidden, x.shape[-1]]
        params = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
            inputs *= 2 if index else 1  # an activation makes two numbers of each
            size = self.kernel if index in (0, len(self.hidden)) else 1
            shape = (inputs, outputs) if x.ndim == 2 else (size, size, inputs, outputs)
            weight = rng.standard_normal(shape) / math.sqrt(math.prod(shape[:-1]))
            params.append({"weight": weight.astype(x.dtype), "bias": onp.zeros(outputs, x.dtype)})
        for layer in params[:-1]:
            units = len(layer["bias"])
            layer["bias"] = (0.5 * rng.standard_normal(units)).astype(x.dtype)
            layer["log_sharpness"] = onp.full(units, math.log(2.0), x.dtype)
        params[-1]["weight"] *= 0.01
        return params

    def forward(self, params, x):
        arrays = self.arrays(params)
        g, slopes = residual(x, *arrays)
        return x + g, log_det_plus_identity(jacobian(slopes, x.shape[1:], *arrays))

    def inverse(self, params, z):
        arrays = self.arrays(params)
        x = invert_residual(z, self.lipschitz, *arrays)
        _, slopes = residual(x, *arrays)
        return x, -log_det_plus_identity(jacobian(slopes, x.shape[1:], *arrays))

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
        x, v : ndarray, shape (n, ...)
        coefficients : ndarray, shape (n, terms)
            c_k, in most cases the same for all rows. Without terms the log-det is 0.

        Returns
        -------
        z : ndarray, shape (n, ...)
        log_det : ndarray, shape (n,)
            In nats.

        References
        ----------
        Chen et al. 2019, section 3.2 and appendix C.
        """
        arrays = self.arrays(params)
        g, slopes = residual(x, *arrays)
        if not coefficients.shape[1]:
            return x + g, zeros_per_row(x)
        fixed, fixed_slopes = [held(array) for array in arrays], [held(slope) for slope in slopes]
        total, w, power = 0, 0, v  # G^k v, in the order of rows: (v^T G^k)^T
        for k in range(coefficients.shape[1]):
            c = coefficients[:, k]
            w = w + np.reshape((-1) ** k * c, (-1, *[1] * (x.ndim - 1))) * power
            power = times_jacobian(power, fixed_slopes, *fixed)
            total = total + (-1) ** k / (k + 1) * c * sum_event(power * v)
        change = sum_event(times_jacobian(w, slopes, *arrays) * v)
        return x + g, total + (change - held(change))

    def arrays(self, params):
        """W_1, b_1, beta_1, W_2, ..., W_K, b_K of g. W_2 ... W_K include the division of the activations before them."""
        most, arrays = self.lipschitz ** (1 / len(params)), []
        for index, layer in enumerate(params):
            arrays += [bounded(layer["weight"], most, SLOPE if index else 1.0), layer["bias"]]
            if "log_sharpness" in layer:
                arrays.append(np.exp(layer["log_sharpness"]))
        return arrays


# ---------------------------------------------------------------- the network, its slopes and its Jacobian
#
# For rows the change of g is dx W_1 diag(s_1) W_2 diag(s_2) ... W_K, with the slopes s_k of the activations. `G` stands
# for the transpose of this product, but traces and determinants are those of both. The division of an activation is in
# the weights that follow it.

SLOPE = 1.5619  # the slope of a tanh(beta a) is at most 1.19968, that of a is 1: together sqrt(1 + 1.19968^2)


def residual(x, *arrays):
    """g(x), and the slopes of each hidden layer."""
    h, slopes = x, []
    for weight, bias, beta in zip(arrays[::3], arrays[1::3], arrays[2::3]):
        a = times(h, weight) + bias
        b = beta * a
        t = tanh(b)
        h = concatenate_last(a * t, a)
        slopes.append(t + b * (1 - t * t))
    return times(h, arrays[-2]) + arrays[-1], slopes


def times(x, weight):
    """x W, or the convolution of images with a kernel."""
    return linear(x, weight) if weight.ndim == 2 else conv2d(x, weight)


def times_transposed(x, weight):
    """x W^T, or the same for a kernel."""
    return linear(x, weight.T) if weight.ndim == 2 else conv2d_vjp_x(x, weight)


def times_jacobian(v, slopes, *arrays):
    """G v for each row, shape (n, ...)."""
    for weight, slope in zip(arrays[::3], slopes):
        v = times(v, weight)
        v = concatenate_last(v * slope, v)
    return times(v, arrays[-2])


def jacobian(slopes, shape, *arrays):
    """G^T of each row, shape (n, D, D): row i is the change of g with x_i. `shape` is that of a row of x."""
    n, D, weight = len(slopes[0]), math.prod(shape), arrays[0]
    G = weight if len(shape) == 1 else times(identity(shape, like=weight), weight)
    for slope, weight in zip(slopes, arrays[3::3]):
        G = concatenate_last(G * slope[:, None], G * np.ones_like(slope[:, None]))
        G = linear(G, weight) if weight.ndim == 2 else conv2d(np.reshape(G, (-1, *G.shape[2:])), weight)
        G = np.reshape(G, (n, D, *G.shape[2 if weight.ndim == 2 else 1 :]))
    return np.reshape(G, (n, D, D))


def identity(shape, like):
    """The unit vectors of D dimensions in a shape: (D, *shape)."""
    D = math.prod(shape)
    return constant(onp.eye(D, dtype=like.dtype).reshape(D, *shape), like=like)


def log_det_plus_identity(G):
    """log|det(I + G)| of each matrix, shape (n,)."""
    return log_abs_det(G + identity(G.shape[-1:], like=G))


# ---------------------------------------------------------------- a bound of the largest singular value

SQUARINGS = 6  # of W^T W
FREQUENCIES = 10  # in each direction, at least


def bounded(weight, most, divisor):
    """The weight, shortened where `norm_bound` is above `most`, and divided."""
    return _bounded(weight, most, divisor)[0]


@primitive
def _bounded(weight, most, divisor):
    """`bounded`, the derivative of the bound, and the factor everywhere: what the derivative needs, in one array."""
    bound, slope = _bound_and_slope(weight)
    factor = onp.minimum(most / bound, 1) / divisor
    shortened = (bound > most) * slope / bound
    return onp.stack([weight * factor, shortened, factor * onp.ones_like(weight)])


defvjp(
    _bounded,
    lambda found, weight, most, divisor: lambda g: found[2] * (g[0] - found[1] * np.sum(g[0] * weight)),
)


def norm_bound(weight):
    r"""A bound of the largest singular value of a matrix, or of the convolution with a kernel.

    |W| <= tr((W^T W)^64)^(1/128)

    The Schatten norm of order 128 is at most c^(1/128) times the largest singular value of a c x c matrix: 1.03 times
    for 64 units. It holds at every step of training and has a gradient. Power iteration, as in the papers, gives an
    estimate, which may be too low.

    A convolution with a kernel W of k x k places, on images of any size with zeros around them, is a part of that on
    the infinite plane, which multiplies each frequency w by a matrix: W(w) = sum_d exp(i w.d) W_d. The norm is bounded
    by the largest |W(w)|. For unit vectors u and v, Re(u^* W(w) v) is a trigonometric polynomial of degree (k - 1)/2
    in each direction. So the largest value on a grid of N x N frequencies, divided by cos(pi (k - 1) / (2 N))^2, is a
    bound. N is 10, and 4 (k - 1) for kernels of 5 x 5 and more. For 3 x 3 the bound is up to 1.11 times too large.

    Parameters
    ----------
    weight : ndarray, shape (inputs, outputs) or (k, k, inputs, outputs)

    Returns
    -------
    ndarray, shape ()

    References
    ----------
    Pfister, Bresler: Bounding multivariate trigonometric polynomials, 2019 (the grid).
    https://arxiv.org/abs/1802.09588

    Delattre, Barthelemy, Araujo, Allauzen: Efficient bound of Lipschitz constant for convolutional layers by Gram
    iteration, 2023, section 3 (the powers, and the frequencies). https://arxiv.org/abs/2305.16173
    """
    return _bound_and_slope(weight)[0]


def _bound_and_slope(weight):
    """`norm_bound`, and its derivative in the shape of the weight."""
    kernel = weight if weight.ndim == 4 else weight[None, None]
    *places, inputs, outputs = kernel.shape
    waves = constant(frequencies(places[0], weight.dtype), like=weight)
    W = (waves @ kernel.reshape(len(waves.T), -1)).reshape(-1, inputs, outputs)
    if inputs < outputs:  # the smaller of the two products
        W = W.swapaxes(1, 2)
    H = onp.conj(W).swapaxes(1, 2) @ W
    tiny, log_size, powers, power = float(onp.finfo(weight.dtype).tiny), 0.0, [], H
    for index in range(SQUARINGS):
        if index % 3 == 0:  # so that none overflows
            size = onp.sqrt(onp.sum(onp.abs(power) ** 2, axis=(1, 2), keepdims=True)) + tiny
            power, log_size = power / size, log_size + onp.log(size)
        powers.append(power)
        power, log_size = power @ power, 2 * log_size
    trace = onp.real(onp.trace(power, axis1=1, axis2=2)) + tiny
    log_bounds = (log_size[:, 0, 0] + onp.log(trace)) / 2 ** (SQUARINGS + 1)
    largest = onp.argmax(log_bounds)
    bound = onp.exp(log_bounds[largest])
    # d tr(H^64) = 128 Re tr(H^63 W^* dW), and H^63 is the product of H, H^2, H^4, ... H^32, up to a factor.
    first, *others = (power[largest] for power in powers)
    product = first
    for power in others:
        product = product @ power
    size = onp.sqrt(onp.sum(onp.abs(H[largest]) ** 2)) + tiny
    normal = onp.sum(onp.real(product * first.T)) + tiny
    slope = (W[largest] / size) @ product * (bound / normal)
    if inputs < outputs:
        slope = slope.T
    slope = onp.real(onp.conj(waves[largest])[:, None] * slope.reshape(1, -1)).reshape(weight.shape)
    return bound, slope


@functools.lru_cache(maxsize=16)
def frequencies(size, dtype):
    """exp(i w.d) / cos(pi (k - 1) / (2 N))^2 for each place d of a kernel of k x k and half of the N x N frequencies w.

    W(-w) is the conjugate of W(w), so the other half has the same norms.
    """
    if size == 1:
        return onp.ones((1, 1), dtype)
    count = max(FREQUENCIES, 4 * (size - 1))
    w = 2 * math.pi / count * onp.arange(count)
    d = onp.arange(size) - size // 2
    wave = onp.exp(1j * onp.outer(w, d)) / math.cos(math.pi * (size - 1) / (2 * count))
    both = onp.einsum("ad,be->abde", wave[: count // 2 + 1], wave).reshape(-1, size * size)
    return both.astype(onp.result_type(dtype, onp.complex64))


# ---------------------------------------------------------------- the inverse: a fixed point

NEWTON = 16  # dimensions, up to which a row takes Newton's steps


def invert_residual(z, lipschitz, *arrays):
    """The x with x + g(x) = z, to rounding.

    x <- z - g(x) multiplies the distance to the solution, and the residual r = z - x - g(x), by at most `lipschitz`. In
    up to 16 dimensions Newton's step, x <- x + (I + G)^-1 r, is tried first, and taken by the rows in which it shortens
    r by as much. So twice log(eps) / log(lipschitz) steps are enough from anywhere, up to rounding: 740 in float64 with
    0.9. Newton's method mostly takes 5. A row stops where r is at rounding, or where x <- z - g(x) no longer shortens
    it. Then x is within r / (1 - lipschitz) of the solution.

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
    shape = z.shape[1:]

    def rest(x):
        g, slopes = residual(x, *arrays)
        return z - x - g, slopes

    def newton(r, slopes):
        G = jacobian(slopes, shape, *arrays).swapaxes(1, 2) + identity(shape, like=z)
        return onp.linalg.solve(G, r[..., None])[..., 0]

    return fixed_point(rest, z, lipschitz, newton if len(shape) == 1 and shape[0] <= NEWTON else None)


@primitive
def _solve_transposed(target, x, lipschitz, *arrays):
    """The u with u + G^T u = target: by the same iteration, or in few dimensions at once."""
    _, slopes = residual(x, *arrays)
    shape = x.shape[1:]
    if len(shape) == 1 and shape[0] <= NEWTON:
        G_T = jacobian(slopes, shape, *arrays) + identity(shape, like=x)
        return onp.linalg.solve(G_T, target[..., None])[..., 0]
    weights = list(zip(arrays[::3], slopes))

    def rest(u):
        v = times_transposed(u, arrays[-2])
        for weight, slope in reversed(weights):
            half = v.shape[-1] // 2
            v = times_transposed(v[..., :half] * slope + v[..., half:], weight)
        return target - u - v, None

    return fixed_point(rest, target, lipschitz)


# At `x`, with its derivatives, so that a second derivative is refused rather than 0.
defvjp(
    _implicit,
    lambda x, _, difference, lipschitz, *arrays: lambda g: -_solve_transposed(g, x, lipschitz, *arrays),
    argnums=(1,),
)
register_notrace(VJPNode, _solve)


def fixed_point(rest, x, lipschitz, newton=None):
    """The x at which r = rest(x) is 0, where the step x <- x + r multiplies the length of r by at most `lipschitz`.

    Parameters
    ----------
    rest : callable
        Returns r, and what `newton` takes.
    x : ndarray, shape (n, ...)
        Where to start.
    lipschitz : float
    newton : callable, optional
        ``newton(r, ...)`` returns a step to try first.
    """
    eps, event = float(onp.finfo(x.dtype).eps), tuple(range(1, x.ndim))
    length = lambda r: onp.sqrt(onp.sum(r * r, axis=event, keepdims=True))
    most = math.ceil(math.log(eps / 8) / math.log(lipschitz)) * (1 if newton is None else 2)
    finite = onp.isfinite(x).all(axis=event, keepdims=True)
    with onp.errstate(over="ignore", invalid="ignore"):
        r, more = rest(x)
        left = length(r)
        plain, found = onp.full_like(left, newton is None, dtype=bool), False  # rows that take the step x + r
        for _ in range(most):
            step = r if newton is None else onp.where(plain, r, newton(r, more))
            new = x + step
            new_r, more = rest(new)
            new_left = length(new_r)
            # A plain step has to be as much shorter, too, but for rounding.
            shorter = new_left <= onp.where(plain, (1 + lipschitz) / 2, lipschitz).astype(x.dtype) * left
            at_rounding = new_left <= 2 * eps * length(new)
            keep = found | ~(shorter | at_rounding | (plain & (new_left < left)))
            x, r, left = onp.where(keep, x, new), onp.where(keep, r, new_r), onp.where(keep, left, new_left)
            found = found | at_rounding | (plain & ~shorter) | ~onp.isfinite(new_left)
            if newton is not None:
                plain = ~shorter & ~found
            if device_of(x) is HOST and found.all():  # asking a GPU would wait for it
                break
    if device_of(x) is HOST and (finite & ~onp.isfinite(left)).any():
        raise ConvergenceError(
            "expected the fixed point of a residual layer, got nan: are its weights finite?"
        )
    return x
