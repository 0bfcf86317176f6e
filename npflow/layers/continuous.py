"""Continuous flows: x moves along a velocity field, the solution of an ordinary differential equation."""

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
from npflow.autodiff.primitives import held, inverse_transposed, linear, log_abs_det, sum_event, tanh
from npflow.description import checked, count
from npflow.errors import ConvergenceError
from npflow.layers.layer import Layer, check_features
from npflow.networks.mlp import check_widths


@dataclass(frozen=True)
class Continuous(Layer):
    r"""Move x along a velocity field for one unit of time, by steps of Runge and Kutta; starts as the identity.

    z = x_K,  x_{k+1} = x_k + h v(t_k, x_k),  x_0 = x       log|det J| = sum_k log|det dx_{k+1} / dx_k|
    x = x_0,  x_k from x_{k+1} by Newton's method,  x_K = z

    v is the mean of four velocities f(t, x) that the classical Runge-Kutta method (RK4) takes, and h = 1 / K. For
    h -> 0 this is the flow dx/dt = f(t, x) from t = 0 to 1, whose log-det is the integral of the trace of df/dx.

    f is a perceptron with tanh, whose first layer sees x, cos(pi t) and cos(2 pi t). It is Lipschitz, so that
    through each point goes one solution: the flow is invertible, whatever the weights are, and its inverse is the
    solution backwards in time.

    The layer computes the steps, and has two log-dets:

    - The log-det of the steps as they are, the sum of log|det dx_{k+1}/dx_k|. A step with its derivative is the same
      step of (x, J) along (f, df/dx J). It takes D products of df/dx with a column for each velocity, and a
      determinant of D x D for each step. `forward`, `inverse` and `log_det` have this one. It is exact: as long as
      the steps are one to one, the density of a flow integrates to 1, with few steps as with many.
    - The integral of the trace, by the same method along with x, in `forward_trace`. It is the log-det of the flow,
      up to an error in the order of h^4, and so is z. Neither is that of the other, and the density of the two
      together integrates to 1 up to this error. The trace takes D products too, or one for an estimate:
      `forward_estimate`.

    A step backwards differs from the inverse of a step in the order of h^5. `inverse` starts there and applies Newton's
    method, with the derivative of the step. Two or three iterations reach rounding. A step has an inverse if h is small
    for its field, about 1 / (how much f stretches distances). Other rows raise `ConvergenceError`; take more steps then. Nothing else holds the steps to that in training, but exact log-dets
    leave little to gain: a density that integrates to 1 cannot be raised everywhere. The integral of the trace can be
    made too large by a field that is too steep for its steps. Losses below the entropy of the data come from that, so
    compare with `npflow.models.Solved`.

    `Solved` has a solver of SciPy in the place of the steps, and `npflow.models.FlowMatching` trains the field without
    any solver.

    Parameters
    ----------
    hidden : tuple of int
        The number of units in each hidden layer of f. Without any, f is linear in x.
    steps : int
        The number of steps, of four velocities each; at most 10,000.

    References
    ----------
    Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations, 2018, section 4 and appendix A.
    https://arxiv.org/abs/1806.07366

    Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud: FFJORD, 2019, section 3. https://arxiv.org/abs/1810.01367

    Examples
    --------
    A linear field, dx/dt = x, takes x to e x; two steps have an error of a few thousandths:

    >>> import numpy as np
    >>> from npflow.layers import Continuous
    >>> layer, x = Continuous(hidden=(), steps=2), np.ones((1, 1))
    >>> params = layer.init(np.random.default_rng(0), x)
    >>> params[0]["weight"][...] = 1
    >>> z, log_det = layer.forward(params, x)
    >>> z.round(3), log_det.round(3)
    (array([[2.717]]), array([1.]))
    >>> np.allclose(layer.inverse(params, z)[0], x)
    True
    """

    hidden: Sequence[int] = checked(check_widths, (64, 64))
    steps: int = count(16, most=10_000)

    keeps_input = True

    def init(self, rng, x):
        check_features(x, "Continuous")
        widths = [x.shape[1], *self.hidden, x.shape[1]]
        params = []
        for inputs, outputs in itertools.pairwise(widths):
            weight = rng.standard_normal((inputs, outputs)) / math.sqrt(inputs)
            params.append({"weight": weight.astype(x.dtype), "bias": onp.zeros(outputs, x.dtype)})
        params[0]["time"] = (rng.standard_normal((FREQUENCIES, widths[1])) / 2).astype(x.dtype)
        params[-1]["weight"][...] = 0
        if not self.hidden:
            params[0]["time"][...] = 0
        return params

    def forward(self, params, x):
        arrays, total = self.arrays(params), 0
        for t, h in self.times():
            x, J = step_with_jacobian(x, t, h, *arrays)
            total = total + log_abs_det(J)
        return x, total

    def inverse(self, params, z):
        arrays, x, total = self.arrays(params), z, 0
        for t, h in reversed(self.times()):
            x = invert_step(x, t, h, *arrays)
            total = total - log_abs_det(step_with_jacobian(x, t, h, *arrays)[1])
        return x, total

    def forward_trace(self, params, x):
        """Apply the layer, with the integral of tr(df/dx) by the steps of x as log-det: D products for each velocity.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, D)

        Returns
        -------
        z : ndarray, shape (n, D)
        log_det : ndarray, shape (n,)
            In nats. It differs from that of `forward` in the order of h^4.
        """
        return self.integral(params, x, unit_vectors(x))

    def forward_estimate(self, params, x, v):
        r"""Apply the layer, with an estimate of the integral of the trace: one product for each velocity.

        With v of mean 0 and the identity as its covariance, E[v^T (df/dx) v] = tr(df/dx): Hutchinson's estimate. v is
        the same all the way, so what is integrated is as smooth as the trace, and the mean of the result is that of
        `forward_trace`.

        Parameters
        ----------
        params : tree of ndarray
        x, v : ndarray, shape (n, D)
            Normal v, or v of 1 and -1 at random, whose estimate has the smaller variance.

        Returns
        -------
        z : ndarray, shape (n, D)
        log_det : ndarray, shape (n,)
            In nats.
        """
        return self.integral(params, x, np.reshape(v, (len(v), 1, -1)))

    def integral(self, params, x, v):
        """z, and the integral of sum_j v_j^T (df/dx) v_j over the rows v_j of v, shape (n, m, D)."""
        arrays, total = self.arrays(params), np.zeros_like(x, shape=len(x))

        def derivative(t, x, _):
            velocity, slopes = field(t, x, *arrays)
            return velocity, sum_event(times_jacobian(v, slopes, *arrays) * v)

        for t, h in self.times():
            x, total = runge_kutta(derivative, t, h, x, total)
        return x, total

    def velocity(self, params, t, x):
        """f(t, x), shape (n, D), for a number t or an array of shape (n, 1)."""
        return field(t, x, *self.arrays(params))[0]

    def times(self):
        """The start and the length of each step."""
        return [(k / self.steps, 1 / self.steps) for k in range(self.steps)]

    def arrays(self, params):
        """The weights of the time, then W_1, b_1, W_2, b_2, ... of f."""
        return [params[0]["time"], *(layer[name] for layer in params for name in ("weight", "bias"))]


# ---------------------------------------------------------------- a step of Runge and Kutta


def runge_kutta(derivative, t, h, *state):
    """The arrays of a state after a step of length h; ``derivative(t, *state)`` are their derivatives in t."""
    ahead = lambda h, k: [array + h * slope for array, slope in zip(state, k)]
    k1 = derivative(t, *state)
    k2 = derivative(t + h / 2, *ahead(h / 2, k1))
    k3 = derivative(t + h / 2, *ahead(h / 2, k2))
    k4 = derivative(t + h, *ahead(h, k3))
    return [array + h / 6 * (a + 2 * (b + c) + d) for array, a, b, c, d in zip(state, k1, k2, k3, k4)]


def one_step(x, t, h, *arrays):
    """x after a step along the field, backwards where h is negative."""
    return runge_kutta(lambda t, x: [field(t, x, *arrays)[0]], t, h, x)[0]


def step_with_jacobian(x, t, h, *arrays):
    """x after a step, and the derivative of the step, shape (n, D, D): row i is the change with x_i."""

    def derivative(t, x, J):
        velocity, slopes = field(t, x, *arrays)
        return velocity, times_jacobian(J, slopes, *arrays)

    return runge_kutta(derivative, t, h, x, unit_vectors(x))


def unit_vectors(x):
    """The D unit vectors for each row of x, shape (n, D, D)."""
    features = x.shape[1]
    identity = constant(onp.eye(features, dtype=x.dtype), like=x)
    return identity * np.ones_like(x, shape=(len(x), 1, 1))


# ---------------------------------------------------------------- the field and its Jacobian

FREQUENCIES = 2


def field(t, x, time, *arrays):
    """f(t, x), and the slopes of the tanh of each hidden layer; t is a number, or an array of shape (n, 1)."""
    moment = linear(waves(t, like=x), time)
    h, slopes = x, []
    for weight, bias in zip(arrays[:-2:2], arrays[1:-2:2]):
        h = tanh(linear(h, weight) + (bias + moment))
        slopes.append(1 - h * h)
        moment = 0
    return linear(h, arrays[-2]) + (arrays[-1] + moment), slopes


def waves(t, like):
    """cos(k pi t) for each k, shape (1, k) or (n, k): what the first layer sees of the time."""
    k = onp.pi * onp.arange(1, FREQUENCIES + 1, dtype=like.dtype)
    if isinstance(t, float):
        return constant(onp.cos(k * t).astype(like.dtype)[None], like=like)
    return np.cos(t * constant(k, like=like))


def times_jacobian(v, slopes, _, *arrays):
    """v^T df/dx for each of m rows v, shape (n, m, D)."""
    for weight, slope in zip(arrays[:-2:2], slopes):
        v = linear(v, weight) * slope[:, None]
    return linear(v, arrays[-2])


# ---------------------------------------------------------------- the inverse of a step

MOST = 12  # iterations


def invert_step(z, t, h, *arrays):
    """The x whose step is z, to rounding.

    Raises
    ------
    ConvergenceError
        If the iteration does not converge: h is too long for the field, and the step may have no inverse. On a GPU the
        row is nan instead.
    """
    x = _solve(z, t, h, *arrays)
    again, J = step_with_jacobian(x, t, h, *arrays)
    return _implicit(x, again - z, held(J))


@primitive
def _implicit(x, difference, J):
    """x, at which a difference is 0: x depends on the parameters through the difference alone."""
    return x


@primitive
def _implicit_vjp(g, x, J):
    """-J^-1 g for each row. It has no derivatives of its own: x is there so that a second derivative is refused."""
    return -onp.sum(inverse_transposed(J) * g[:, :, None], axis=1)


defvjp(_implicit, lambda x, _, difference, J: lambda g: _implicit_vjp(g, x, J), argnums=(1,))


@primitive
def _solve(z, t, h, *arrays):
    """`invert_step`; a constant for autograd."""
    eps, x, found = float(onp.finfo(z.dtype).eps), one_step(z, t + h, -h, *arrays), False
    with onp.errstate(all="ignore"):
        for _ in range(MOST):
            again, J = step_with_jacobian(x, t, h, *arrays)
            new = x - onp.sum(inverse_transposed(J) * (again - z)[:, None, :], axis=2)
            change = onp.max(onp.abs(new - x), axis=1, keepdims=True)
            size = onp.max(onp.abs(new), axis=1, keepdims=True)
            x = onp.where(found, x, new)  # a row that is found stays, whatever the others take
            found = found | (change <= 4 * eps * size)
            if device_of(x) is HOST and found.all():  # asking a GPU would wait for it
                break
    lost = onp.isfinite(z).all(axis=1) & ~(found | (change <= 1e4 * eps * (1 + size)))[:, 0]
    if device_of(x) is HOST and lost.any():
        raise ConvergenceError(
            f"expected steps that can be inverted, got a field too steep for steps of {h:.3g}, in {lost.sum()} of "
            f"{len(z)} rows: take more steps"
        )
    return onp.where(lost[:, None], onp.nan, x)  # on a GPU; the host has raised


register_notrace(VJPNode, _solve)
