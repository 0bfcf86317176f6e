"""Jacobians of a map of rows, one for each row: by finite differences, and exactly by autograd.

Both take a map (n, *event) -> (n, *event) whose rows do not influence each other. They return shape
(n, D, D): row, output, input, where an event is flattened to D numbers.
"""

import warnings

import numpy as np
from autograd.core import backward_pass
from autograd.tracer import trace

from npflow.autodiff.gradient import Differentiated

# First steps of the finite differences, in units of the data's spread. A large step loses less to rounding; a
# smaller one follows where it reaches across a kink or out of the domain.
STEPS = (0.5, 0.1, 0.01, 0.001, 0.0001)
EPS = np.finfo(float).eps


def by_finite_differences(fun, x):
    """Jacobians by SciPy's differences of order 8, and SciPy's error estimate of each entry."""
    n, *event = x.shape
    y = fun(x)
    inputs, outputs = spread(x), spread(y)

    def columns(points):
        # SciPy's points have shape (D, ...), one point a column; a layer's are rows.
        rows = np.moveaxis(points, 0, -1).reshape(-1, *event) * inputs.reshape(event)
        values = fun(rows).reshape(*points.shape[1:], -1) / outputs
        return np.moveaxis(values, -1, 0)

    noise = EPS * np.max(np.abs(y.reshape(n, -1) / outputs), initial=1.0)
    matrices, errors = differentiate(columns, (x.reshape(n, -1) / inputs).T, noise)
    units = outputs[:, None] / inputs
    return np.moveaxis(matrices, -1, 0) * units, np.moveaxis(errors, -1, 0) * units


def spread(x):
    """A power of two near the standard deviation of each component, shape (D,): division by it is exact."""
    x = x.reshape(len(x), -1)
    std = np.std(x, axis=0)
    usable = np.isfinite(std) & (std > 1e-9 * np.max(np.abs(x), axis=0))  # less is rounding
    return 2.0 ** np.round(np.log2(np.where(usable, std, 1.0)))


def differentiate(fun, x, noise=EPS):
    """`scipy.differentiate.jacobian` with steps small enough for kinks: derivatives and error estimates.

    `noise` is how far rounding moves a value of `fun`. A tolerance below it would lead SciPy to steps so
    small that only rounding is left. An entry that no step resolves has an infinite error.
    """
    from scipy.differentiate import jacobian

    best, best_error = None, np.inf
    enough = max(1e-11, 50 * noise)
    for step in STEPS:
        with np.errstate(all="ignore"):
            result = jacobian(fun, x, initial_step=step, tolerances={"atol": enough, "rtol": enough})
        error = np.where(np.isfinite(result.df) & np.isfinite(result.error), result.error, np.inf)
        best = result.df if best is None else np.where(error < best_error, result.df, best)
        best_error = np.minimum(error, best_error)
        if np.all(best_error <= 100 * enough * (1 + np.abs(best))):
            break
    # The estimate, the difference of the last two steps, can be far below rounding by chance.
    return best, best_error + 0.1 * enough * (1 + np.abs(best))


def by_autograd(fun, x):
    """Jacobians by reverse mode: one backward pass for each output."""
    with warnings.catch_warnings():  # autograd warns where it sees no way to the output; zeros say the same
        warnings.simplefilter("ignore", UserWarning)
        y, end = trace(Differentiated.new_root(x), fun, x)  # npflow's derivatives are those that train
    rows, width = len(y), y[0].size
    matrices = np.empty((rows, width, x[0].size))
    for output in range(width):
        seed = np.zeros((rows, width), y.dtype)
        seed[:, output] = 1
        matrices[:, output] = (
            0 if end is None else backward_pass(seed.reshape(y.shape), end).reshape(rows, -1)
        )
    return matrices


def log_abs_det(matrices, errors=None):
    """log|det| of each matrix in nats, and a bound of its error from those of the entries; shape (n,) both.

    d log|det J| = sum_ij (J^-1)_ji dJ_ij, so errors e_ij of the entries move it by at most
    sum_ij |(J^-1)_ji| e_ij.
    A singular matrix has -inf, one that is not finite has nan, and both an infinite bound. Without `errors`,
    the entries are exact up to rounding.
    """
    values = np.full(len(matrices), np.nan)
    bounds = np.full(len(matrices), np.inf)
    for row, matrix in enumerate(matrices):
        if not np.isfinite(matrix).all():
            continue
        values[row] = np.linalg.slogdet(matrix)[1]
        if np.isfinite(values[row]) and np.linalg.cond(matrix) < 1 / EPS:
            entry_errors = EPS * np.abs(matrix) if errors is None else errors[row]
            bounds[row] = np.sum(np.abs(np.linalg.inv(matrix)).T * entry_errors)
    return values, bounds
