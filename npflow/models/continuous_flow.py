"""Continuous flows: the recipe, the log-det as an integral of the trace, and a solver of SciPy for evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from autograd.extend import defvjp_argnums, primitive

from npflow.autodiff.gpu.devices import device_of, to_host
from npflow.autodiff.program.frames import follows_steps
from npflow.description import checked, choice, number
from npflow.errors import ConvergenceError, InputError
from npflow.flow import Flow, check_unconditional
from npflow.layers import ActNorm, Composite, Continuous, Layer, Units
from npflow.layers.composite import Substituted, follow
from npflow.layers.continuous import field, times_jacobian, unit_vectors
from npflow.model import Model
from npflow.models.recipe import flow_of, recipe
from npflow.priors import Prior
from npflow.validation import check_count


@recipe
def continuous_flow(
    features: int, hidden: Sequence[int] = (64, 64), steps: int = 16, prior: Prior | None = None
) -> Flow:
    """Continuous flow: Units, ActNorm, Continuous.

    There are four ways to train it. `fit` with the flow itself maximizes the likelihood with the exact log-det of its
    Runge-Kutta steps, and with `ExactTrace` or `EstimatedTrace` with the integral of a trace. These three evaluate the
    network 4 `steps` times. `FlowMatching` evaluates it once, and takes no steps.

    `Solved` puts a solver of SciPy in the place of the steps, for densities and samples to a tolerance.

    Parameters
    ----------
    features : int
    hidden : tuple of int
        The number of units in each hidden layer of the velocity field.
    steps : int
        The number of Runge-Kutta steps.

    References
    ----------
    Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations, 2018, section 4.
    https://arxiv.org/abs/1806.07366

    Examples
    --------
    >>> from npflow.models import continuous_flow
    >>> [type(layer).__name__ for layer in continuous_flow(features=2).layer.layers]
    ['Units', 'ActNorm', 'Continuous']
    """
    return flow_of([Units(), ActNorm(), Continuous(hidden, steps)], check_count(features, "features"), prior)


# ---------------------------------------------------------------- the log-det as an integral of the trace


@dataclass(frozen=True)
class ExactTrace(Model):
    r"""The negative log-likelihood of a flow, with the log-det of `Continuous` layers as the integral of the trace.

    The loss of a row is -log prior(z) - the sum of the log-dets, those of `Continuous` layers by
    `Continuous.forward_trace`: the exact trace, integrated along with x by the same Runge-Kutta steps. It differs from
    the loss of the flow itself in the order of h^4, and has no determinant of D x D. Layers of other kinds keep their
    log-dets: for a flow without `Continuous` layers nothing changes.

    Parameters
    ----------
    flow : Flow
        Without a context.

    References
    ----------
    Chen, Rubanova, Bettencourt, Duvenaud: Neural ordinary differential equations, 2018, section 4.
    https://arxiv.org/abs/1806.07366

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import ExactTrace, continuous_flow
    >>> rng = np.random.default_rng(0)
    >>> flow, x = continuous_flow(2, hidden=(8,), steps=2), npflow.datasets.moons(300, rng=rng)
    >>> params = flow.init(rng, x)
    >>> params, _ = npflow.fit(ExactTrace(flow), params, x, rng=rng, steps=5, progress=False)
    >>> flow.log_prob(params, x).shape
    (300,)
    """

    flow: Flow = checked(check_unconditional)

    @property
    def domain(self):
        """That of the flow."""
        return self.flow.domain

    def check(self, params):
        return self.flow.check(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        return self.flow.check_batch(x, context, dtype, name)

    def losses(self, params, *batch):
        """Compute -log p(x) of each row, with the integral of the trace.

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            x, and v where the trace is estimated.

        Returns
        -------
        ndarray, shape (n,)
            In nats. It is pure arithmetic and checks nothing.
        """
        x, *noise = batch
        z, log_det = by_trace(self.flow.layer, params["layer"], x, *noise)
        return -(self.flow.prior.log_prob(params["prior"], z) + log_det)

    def visits(self, params, *batch):
        """Each layer of the flow, with exact log-dets, and its prior."""
        return self.flow.visits(params, batch[0])

    @property
    def learned(self):
        """The flow."""
        return self.flow


@dataclass(frozen=True)
class EstimatedTrace(ExactTrace):
    r"""As `ExactTrace`, with Hutchinson's estimate of the trace: one product with the Jacobian instead of D.

    The noise is v, of 1 and -1 at random, for each row: the estimate v^T (df/dx) v has no variance from the diagonal.
    The mean over v is the loss of `ExactTrace`.

    Evaluate the trained flow itself: its `log_prob` is not an estimate.

    Parameters
    ----------
    flow : Flow
        Without a context.

    References
    ----------
    Grathwohl, Chen, Bettencourt, Sutskever, Duvenaud: FFJORD, 2019, section 3.1. https://arxiv.org/abs/1810.01367

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import EstimatedTrace, continuous_flow
    >>> rng = np.random.default_rng(0)
    >>> flow, x = continuous_flow(2, hidden=(8,), steps=2), npflow.datasets.moons(300, rng=rng)
    >>> params = flow.init(rng, x)
    >>> params, _ = npflow.fit(EstimatedTrace(flow), params, x, rng=rng, steps=5, progress=False)
    >>> flow.log_prob(params, x).shape
    (300,)
    """

    noisy = True

    def noise(self, rng, rows, dtype):
        """v, shape (rows, D): 1 or -1."""
        uniform = rng.random((rows, *self.flow.event_shape), dtype)
        return (np.where(uniform < 0.5, uniform.dtype.type(-1), uniform.dtype.type(1)),)


def by_trace(layer, params, x, *v):
    """z, and the log-det with those of `Continuous` layers by their trace, estimated where there is noise v."""
    if isinstance(layer, Continuous):
        return layer.forward_estimate(params, x, *v) if v else layer.forward_trace(params, x)
    if not isinstance(layer, Composite):
        return layer.forward(params, x)
    log_dets = []

    @follows_steps
    def take(step):
        if step.direction == "forward":
            z, log_det = by_trace(step.layer, step.params(params), step.x, *v)
        else:
            z, log_det = step.apply(step.params(params))
        log_dets.append(log_det)
        return z

    z = follow(layer, x, "forward", None, take)
    return z, sum(log_dets[1:], log_dets[0])


# ---------------------------------------------------------------- SciPy's solvers

METHODS = ("DOP853", "RK45", "LSODA", "Radau")
LEAST = 3e-14  # a relative tolerance that solve_ivp takes


@dataclass(frozen=True)
class Solved(Substituted):
    r"""A layer, often a `Chain`, whose `Continuous` layers are solved by SciPy's `solve_ivp`, for evaluation.

    dx/dt = f(t, x),  d log_det / dt = tr(df/dx)        from t = 0 to 1 in `forward`, from 1 to 0 in `inverse`

    The parameters are those of the layer. ``Flow(Solved(flow.layer), flow.prior)`` evaluates a trained `flow`: its
    density, samples, `encode` and `decode`, with the error that you ask for rather than that of its steps. The
    solver chooses its steps by the values of x, which a recorded program does not, so there are no gradients:
    train the flow itself.

    It computes in float64 on the host, whatever the parameters are, with the exact trace: D products for each velocity.
    All rows of a chunk share the steps of the solver. Its tolerances are for the mean square over all numbers, so they
    are divided by the square root of their number: then each number meets them.

    Parameters
    ----------
    layer : Layer
    rtol, atol : float
        The relative and the absolute error that is allowed in a step, in the units of the state.
    method : {"DOP853", "RK45", "LSODA", "Radau"}
        See `scipy.integrate.solve_ivp`.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import Solved, continuous_flow
    >>> rng = np.random.default_rng(0)
    >>> flow, x = continuous_flow(2, hidden=(8,)), npflow.datasets.moons(300, rng=rng)
    >>> params = flow.init(rng, x)
    >>> solved = npflow.Flow(Solved(flow.layer, rtol=1e-8), flow.prior)
    >>> bool(np.allclose(solved.log_prob(params, x), flow.log_prob(params, x)))
    True
    """

    rtol: float = number(1e-6, above=0)
    atol: float = number(1e-6, above=0)
    method: str = choice(METHODS, "DOP853")

    def instead(self, layer):
        continuous = isinstance(layer, Continuous)
        return Ode(layer, self.rtol, self.atol, self.method) if continuous else layer


@dataclass(frozen=True)
class Ode(Layer):
    """A `Continuous` layer, solved; see `Solved`."""

    layer: Continuous
    rtol: float
    atol: float
    method: str

    def init(self, rng, x):
        return self.layer.init(rng, x)

    def forward(self, params, x):
        return self._between(params, x, 0.0, 1.0)

    def inverse(self, params, z):
        return self._between(params, z, 1.0, 0.0)

    def _between(self, params, x, start, end):
        both = solve(x, start, end, self, *self.layer.arrays(params))
        return both[:, :-1], both[:, -1]


@primitive
def solve(x, start, end, layer, *arrays):
    """x at the time `end` and the integral of the trace from `start`, side by side; nan where x is not finite."""
    from scipy.integrate import solve_ivp  # takes a quarter of the time of `import npflow`

    rows, arrays = to_host(x).astype(np.float64), [to_host(array).astype(np.float64) for array in arrays]
    finite = np.isfinite(rows).all(axis=1)
    n, D = np.count_nonzero(finite), rows.shape[1]
    found = np.full((len(rows), D + 1), np.nan)
    state = np.concatenate([rows[finite], np.zeros((n, 1))], axis=1).ravel()
    v, each = unit_vectors(rows[finite]), np.sqrt(max(1, state.size))

    def derivative(t, state):
        velocity, slopes = field(float(t), state.reshape(n, D + 1)[:, :D], *arrays)
        trace = np.sum(times_jacobian(v, slopes, *arrays) * v, axis=(1, 2))
        return np.concatenate([velocity, trace[:, None]], axis=1).ravel()

    if n:
        result = solve_ivp(
            derivative,
            (start, end),
            state,
            method=layer.method,
            t_eval=(end,),
            rtol=max(layer.rtol / each, LEAST),
            atol=layer.atol / each,
        )
        if not result.success:
            raise ConvergenceError(f"expected a solution of the differential equation, got: {result.message}")
        found[finite] = result.y[:, -1].reshape(n, D + 1)
    return device_of(x).send(found.astype(x.dtype))


def _refused(*_):
    raise InputError("expected no gradient of a Solved layer, as it is for evaluation; train the flow itself")


defvjp_argnums(solve, _refused)
