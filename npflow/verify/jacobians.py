"""Jacobians of a batched map, one for each row: by finite differences, and exactly by autograd.

Both take a map of rows to rows, (n, *event) -> (n, *event), whose rows do not influence each other, and
give arrays of shape (n, D, D), first the outputs, then the inputs, events flattened to D numbers.
"""

import warnings

import numpy as np
from autograd.core import make_vjp

# Where finite differences start, in units of the data's spread: smaller steps are tried where a larger one
# reaches across a kink or out of the domain, larger ones first because they lose less to rounding.
STEPS = (0.5, 0.1, 0.01, 0.001, 0.0001)
EPS = np.finfo(float).eps


def by_finite_differences(fun, x):
    """Jacobians by SciPy's order-8 differences, and SciPy's estimate of their error, entry by entry."""
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
    """A power of two near the standard deviation of each component, shape (D,): units that divide exactly."""
    x = x.reshape(len(x), -1)
    std = np.std(x, axis=0)
    usable = np.isfinite(std) & (std > 1e-9 * np.max(np.abs(x), axis=0))  # less is rounding
    return 2.0 ** np.round(np.log2(np.where(usable, std, 1.0)))


def differentiate(fun, x, noise=EPS):
    """`scipy.differentiate.jacobian` with steps small enough for kinks: derivatives and error estimates.

    `noise` is how far rounding moves values of `fun`, in units of their spread: asked for more than that
    allows, SciPy goes on to steps so small that rounding is all there is. An entry that no step resolves has
    an infinite error.
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
    # The estimate is the difference of the last two steps, which by chance can be far below rounding.
    return best, best_error + 0.1 * enough * (1 + np.abs(best))


def by_autograd(fun, x):
    """Jacobians by reverse mode, one backward pass for each output."""
    with warnings.catch_warnings():  # autograd warns where it sees no way to the output; the zeros say it too
        warnings.simplefilter("ignore", UserWarning)
        vjp, y = make_vjp(fun, x)
    rows, width = len(y), y[0].size
    matrices = np.empty((rows, width, x[0].size))
    for output in range(width):
        seed = np.zeros((rows, width), y.dtype)
        seed[:, output] = 1
        matrices[:, output] = vjp(seed.reshape(y.shape)).reshape(rows, -1)
    return matrices


def log_abs_det(matrices, errors=None):
    """log|det| of each matrix in nats, and how far the error estimates of the entries let it be off.

    d log|det J| = sum_ij (J^-1)_ji dJ_ij, so errors e_ij of the entries move it by at most
    sum_ij |(J^-1)_ji| e_ij. A matrix that is singular or not finite has -inf or nan, and no bound.
    """
    values = np.full(len(matrices), np.nan)
    bounds = np.full(len(matrices), np.inf)
    for row, matrix in enumerate(matrices):
        if not np.isfinite(matrix).all():
            continue
        values[row] = np.linalg.slogdet(matrix)[1]
        if np.isfinite(values[row]) and np.linalg.cond(matrix) < 1 / np.finfo(float).eps:
            entry_errors = np.finfo(float).eps * np.abs(matrix) if errors is None else errors[row]
            bounds[row] = np.sum(np.abs(np.linalg.inv(matrix)).T * entry_errors)
    return values, bounds
