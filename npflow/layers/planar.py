"""Planar and radial flows: a determinant in O(D), by the matrix determinant lemma."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp, primitive
from autograd.numpy.numpy_vjps import unbroadcast_f

from npflow.autodiff.gpu.devices import HOST, device_of
from npflow.autodiff.primitives import linear, softplus, split_last, sum_event, tanh, where
from npflow.layers.layer import Layer, check_features, spread
from npflow.networks.network import check_context, check_context_of_features


@dataclass(frozen=True)
class Planar(Layer):
    r"""Move x along u by a function of its distance from a plane; starts as the identity.

    z = x + u tanh(a)       a = w.x + b         log|det J| = log(1 + w.u (1 - tanh(a)^2))
    x = z - u tanh(a)       a + w.u tanh(a) = w.z + b

    The Jacobian is the identity and one product of a column and a row, J = I + tanh'(a) u w^T. The matrix determinant
    lemma, det(I + v w^T) = 1 + w.v, makes a single number of its determinant.

    The map is invertible if w.u > -1. So the component of u along w is replaced, and w.u = softplus(w.v + c) - 1 for
    the trained v. With c = log(e - 1), v = 0 is the identity. The inverse needs one number of each row, a, which is the
    root of an increasing function.

    With a context, w, v and b are linear functions of it plus their own values, so each row has a plane of its own. Where
    the context comes from an encoder, this is the amortized flow of the paper's section 4.2.

    References
    ----------
    Rezende, Mohamed: Variational inference with normalizing flows, 2015, sections 4.1 and 4.2 and appendix A.1.
    https://arxiv.org/abs/1505.05770

    Examples
    --------
    A straight line of points is bent at the plane x_1 = 0:

    >>> import numpy as np
    >>> from npflow.layers import Planar
    >>> params = {"weight": np.array([1.0, 0.0]), "direction": np.array([0.0, 2.0]), "bias": np.zeros(1)}
    >>> z, log_det = Planar().forward(params, np.array([[-9.0, 0.0], [0.0, 0.0], [9.0, 0.0]]))
    >>> z.round(2)
    array([[-9., -2.],
           [ 0.,  0.],
           [ 9.,  2.]])
    >>> log_det.round(2)
    array([0., 0., 0.])
    """

    def init(self, rng, x, context=None):
        check_features(x, "Planar")
        check_context_of_features(context)
        features, deviations = x.shape[1], deviations_of(x)
        weight = rng.standard_normal(features) / deviations / math.sqrt(features)
        bias = rng.standard_normal(1) - weight @ onp.mean(x, axis=0, dtype=onp.float64)
        params = {"weight": weight, "direction": onp.zeros(features), "bias": bias}
        if context is not None:
            params["context"] = onp.zeros((context.shape[1], 2 * features + 1))
        return {name: array.astype(x.dtype) for name, array in params.items()}

    def forward(self, params, x, context=None):
        w, u, b, product = self.plane(params, context)
        t = tanh(dot(x, w) + b)
        return x + u * t, log_slope(t, product)[:, 0]

    def inverse(self, params, z, context=None):
        w, u, b, product = self.plane(params, context)
        t = tanh(root(dot(z, w) + b, product))
        return z - u * t, -log_slope(t, product)[:, 0]

    def log_det(self, params, x, context=None):
        w, _, b, product = self.plane(params, context)
        return log_slope(tanh(dot(x, w) + b), product)[:, 0]

    def plane(self, params, context):
        """w, u, b and w.u + 1, which is positive: of one row, or of each row where there is a context."""
        check_context(params, context)
        w, v, b = params["weight"][None], params["direction"], params["bias"]
        if context is not None:
            more = linear(context, params["context"])
            more_w, more = split_last(more, w.shape[1])
            more_v, more_b = split_last(more, w.shape[1])
            w, v, b = w + more_w, v + more_v, b + more_b
        along, square = sum_event(w * v)[:, None], sum_event(w * w)[:, None]
        product = positive(along)
        tiny = float(onp.finfo(w.dtype).tiny)
        return w, v + w * ((product - 1 - along) / (square + tiny)), b, product


@dataclass(frozen=True)
class Radial(Layer):
    r"""Move x away from a centre or towards it, most in its neighbourhood; starts as the identity.

    z = x + g q (x - c)         q = s / (s + r),  r = |x - c|,  s = exp(log_scale)
    x = c + (z - c) / (1 + g q) with the r that solves r^2 + ((1 + g) s - R) r - s R = 0,  R = |z - c|

    log|det J| = (D - 1) log(1 + g q) + log(1 + g q^2)

    In the D - 1 directions around c a step is stretched by 1 + g q, as every circle is, and along the radius by
    the derivative of r (1 + g q), which is 1 + g q^2. The map is invertible if g > -1: g = softplus(strength + c) - 1
    with c = log(e - 1), so that a strength of 0 is the identity. The inverse needs r alone, which is the
    positive root of a quadratic equation.

    References
    ----------
    Rezende, Mohamed: Variational inference with normalizing flows, 2015, section 4.1 and appendix A.2; its alpha is s,
    its beta is g s. https://arxiv.org/abs/1505.05770

    Examples
    --------
    With g = 1 a point at the centre's scale moves from distance 1 to 1.5:

    >>> import numpy as np
    >>> from npflow.layers import Radial
    >>> strength = np.log(np.expm1(2.0)) - np.log(np.expm1(1.0))
    >>> params = {"centre": np.zeros(2), "log_scale": np.zeros(1), "strength": np.array([strength])}
    >>> z, log_det = Radial().forward(params, np.array([[1.0, 0.0]]))
    >>> z, log_det.round(4), np.log(1.5 * 1.25).round(4)
    (array([[1.5, 0. ]]), array([0.6286]), np.float64(0.6286))
    """

    def init(self, rng, x):
        check_features(x, "Radial")
        centre = x[rng.integers(len(x))]
        distance = math.sqrt(onp.sum(deviations_of(x) ** 2))
        params = {"centre": centre, "log_scale": onp.full(1, math.log(distance)), "strength": onp.zeros(1)}
        return {name: array.astype(x.dtype) for name, array in params.items()}

    def forward(self, params, x):
        offset = x - params["centre"]
        stretch, log_det = self.stretch(params, length(offset), x.shape[1])
        return params["centre"] + stretch * offset, log_det

    def inverse(self, params, z):
        offset, s, gain = z - params["centre"], np.exp(params["log_scale"]), positive(params["strength"])
        R = length(offset)
        p = gain * s - R
        far = 0.5 * (np.abs(p) + np.sqrt(p * p + 4 * s * R))
        r = where(p > 0, s * R / far, far)  # the product of both roots is -s R, and -far or far is one
        stretch, log_det = self.stretch(params, r, z.shape[1])
        return params["centre"] + offset / stretch, -log_det

    def log_det(self, params, x):
        return self.stretch(params, length(x - params["centre"]), x.shape[1])[1]

    def stretch(self, params, r, features):
        """1 + g q of each row, shape (n, 1), and the log-det."""
        s, gain = np.exp(params["log_scale"]), positive(params["strength"])
        q, rest = s / (s + r), r / (s + r)
        stretch = rest + q * gain  # 1 + g q, without cancellation where g is near -1
        slope = rest * (1 + q) + q * q * gain
        return stretch, ((features - 1) * np.log(stretch) + np.log(slope))[:, 0]


def dot(a, b):
    """a.b of each row, shape (n, 1); b may be a single row."""
    return linear(a, b.T) if len(b) == 1 else sum_event(a * b)[:, None]


def length(x):
    """|x| of each row, shape (n, 1); its derivative at 0 is 0."""
    return np.sqrt(sum_event(x * x) + float(onp.finfo(x.dtype).tiny))[:, None]


# ---------------------------------------------------------------- what planar, radial and Sylvester flows share

IDENTITY = math.log(math.expm1(1.0))  # softplus of it is 1


def positive(x):
    """softplus(x + log(e - 1)): positive, and 1 at x = 0."""
    return softplus(x + IDENTITY)


def log_slope(t, product):
    """log(1 + (product - 1) (1 - t^2)) for t = tanh(a), without cancellation where the product is near 0."""
    return np.log(t * t + product * (1 - t * t))


def deviations_of(x):
    """The standard deviation of each feature; 1 for one that does not vary."""
    deviations = spread(x.astype(onp.float64))
    return onp.where(deviations > 0, deviations, 1.0)


STEPS = 100  # more than any takes, as each step halves the bracket or is a Newton step of half the last one's length


@primitive
def root(y, product):
    """The a with a + (product - 1) tanh(a) = y, to rounding, for a positive product, which is broadcast to y.

    It is found by Newton's method inside a bracket: |tanh| is below 1, so a lies within |product - 1| of y.
    """
    reach, eps = onp.abs(product - 1), float(onp.finfo(y.dtype).eps)
    low, high, a = y - reach, y + reach, y
    step = 2 * reach
    for _ in range(STEPS):
        t = onp.tanh(a)
        residual = y - a - (product - 1) * t
        low, high = onp.where(residual > 0, a, low), onp.where(residual > 0, high, a)
        newton = a + residual / (t * t + product * (1 - t * t))
        good = (low <= newton) & (newton <= high) & (onp.abs(newton - a) <= 0.5 * step)
        new = onp.where(good, newton, 0.5 * (low + high))
        found = onp.abs(residual) <= 2 * eps * (onp.abs(a) + reach * onp.abs(t))
        step = onp.abs(new - a)
        a = onp.where(found, a, new)
        if device_of(a) is HOST and found.all():  # asking a GPU would wait for it
            break
    return a


# Those of the implicit function.
defvjp(
    root,
    lambda a, y, product: unbroadcast_f(y, lambda g: g * np.exp(-log_slope(tanh(a), product))),
    lambda a, y, product: unbroadcast_f(
        product, lambda g: -g * tanh(a) * np.exp(-log_slope(tanh(a), product))
    ),
)
