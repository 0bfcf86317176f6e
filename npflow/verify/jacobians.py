"""Jacobians of a map of rows, one for each row: by finite differences, and exactly by autograd.

Both take a map (n, *event) -> (n, *event') whose rows do not influence each other. They return shape
(n, E, D): row, output, input, where events are flattened to D and E numbers.
"""

import warnings

import numpy as np
from autograd.core import backward_pass
from autograd.tracer import trace

from npflow.autodiff.gradient import Differentiated

# First steps of the finite differences, in units of the data's spread. A large step loses less to rounding; a
# smaller one follows where it reaches across a kink or out of the domain.
STEPS = (0.5, 0.1, 0.01, 0.001, 0.0001)
SMALL_STEPS = (0.003, 0.0003, 0.00003)  # to confirm by, before anything is called wrong
EPS = np.finfo(float).eps


def by_finite_differences(fun, x, noise=0.0, units=None, steps=STEPS, y=None):
    """Jacobians by SciPy's differences of order 8, and SciPy's error estimate of each entry.

    Parameters
    ----------
    fun : callable
        It is called with several copies of each row, one beside the other.
    x : ndarray, shape (n, ...)
    noise : float
        How far a value of `fun` may be off, in units of the outputs, where that is more than rounding.
    units : pair of ndarray, optional
        The spread of the inputs, shape (D,), and of the outputs, shape (E,); by default those of the rows.
    steps : sequence of float
    y : ndarray, optional
        What `fun` makes of `x`, where that is known.
    """
    n, *event = x.shape
    y = fun(x) if y is None else y
    inputs, outputs = (spread(x), spread(y)) if units is None else units

    def columns(points):
        # SciPy's points have shape (D, ..., n, ...), one point a column; a layer's are rows, copies of one together.
        place = 1 if points.ndim == 2 else 2
        rows = np.moveaxis(points, (place, 0), (0, -1))
        values = fun(rows.reshape(-1, *event) * inputs.reshape(event)).reshape(*rows.shape[:-1], -1) / outputs
        return np.moveaxis(values, (0, -1), (place, 0))

    scaled = y.reshape(n, -1) / outputs
    noise = max(noise, EPS * np.max(np.abs(scaled), initial=1.0, where=np.isfinite(scaled)))
    matrices, errors = differentiate(columns, (x.reshape(n, -1) / inputs).T, noise, steps)
    units = outputs[:, None] / inputs
    return np.moveaxis(matrices, -1, 0) * units, np.moveaxis(errors, -1, 0) * units


def spread(x):
    """A power of two near the standard deviation of each component, shape (D,): division by it is exact.

    A component without one has that of the others.
    """
    x = x.reshape(len(x), -1)
    x = x[np.isfinite(x).all(axis=1)]
    if not len(x):
        return np.ones(x.shape[1])
    size = np.max(np.abs(x), axis=0)
    std = size * np.std(x / np.where(size > 0, size, 1.0), axis=0)  # squares do not overflow
    usable = std > 1e-9 * size  # less is rounding
    other = np.median(std[usable]) if usable.any() else 1.0
    return 2.0 ** np.round(np.log2(np.where(usable, std, other)))


def differentiate(fun, x, noise=EPS, steps=STEPS, wanted=1e-11):
    """`scipy.differentiate.jacobian` with steps small enough for kinks: derivatives and error estimates.

    `noise` is how far rounding moves a value of `fun`. A tolerance below it would lead SciPy to steps so
    small that only rounding is left. An entry that no step resolves has an infinite error. SciPy stops where the
    error is below `wanted`.
    """
    from scipy.differentiate import jacobian

    best, best_error = None, np.inf
    enough = max(wanted, 50 * noise)
    for step in steps:
        with np.errstate(all="ignore"):
            result = jacobian(fun, x, initial_step=step, tolerances={"atol": enough, "rtol": enough})
        # The estimate, the difference of the last two steps, can be far below rounding by chance: the last stencil
        # is some 8 times as narrow as its step.
        rounding = 8 * noise / step * 2.0**result.nit
        finite = np.isfinite(result.df) & np.isfinite(result.error)
        error = np.where(finite, result.error + rounding, np.inf)
        best = result.df if best is None else np.where(error < best_error, result.df, best)
        best_error = np.minimum(error, best_error)
        if np.all(best_error <= 100 * enough * (1 + np.abs(best))):
            break
    return best, best_error + 0.1 * enough * (1 + np.abs(best))


def by_small_differences(fun, x, inputs):
    """Jacobians by one central difference each: 2 D calls a row, good enough to see where to look."""
    n, *event = x.shape
    steps = 2.0**-17 * np.diag(inputs)
    rows = x.reshape(n, 1, 1, -1) + np.stack([steps, -steps])
    y = fun(rows.reshape(-1, *event)).reshape(n, 2, len(inputs), -1)
    return np.swapaxes((y[:, 0] - y[:, 1]) / (2.0**-16 * inputs[:, None]), 1, 2)


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


def balanced(matrices, errors):
    """Matrices, and the errors of their entries, with the largest entry of each column and row near 1.

    The units of inputs and outputs are gone from them then. Also returned is the log|det| that left with them. The rows
    of matrices that are not square stay, as those of a surface are of one unit.
    """
    shift = np.zeros(len(matrices))
    for axis in (1, 2) if matrices.shape[1] == matrices.shape[2] else (1,):
        size = np.max(np.abs(matrices), axis=axis, keepdims=True)
        scale = 2.0 ** np.round(np.log2(np.where(size > 0, size, 1.0)))
        matrices, errors = matrices / scale, errors / scale
        shift += np.sum(np.log(scale), axis=(1, 2))
    return matrices, errors, shift


def log_abs_det(matrices, errors=None):
    """log|det| of each matrix in nats, and a bound of its error from those of the entries; shape (n,) both.

    d log|det J| = sum_ij (J^-1)_ji dJ_ij, so errors e_ij of the entries move it by at most
    sum_ij |(J^-1)_ji| e_ij.
    A singular matrix has -inf, one that is not finite has nan, and both an infinite bound. Without `errors`,
    the entries are exact up to rounding. A matrix with more outputs than inputs has the logarithm of its volume
    element, log det(J'J) / 2.
    """
    values, bounds = np.full(len(matrices), np.nan), np.full(len(matrices), np.inf)
    finite = np.flatnonzero(np.isfinite(matrices).all(axis=(1, 2)))
    if not len(finite):
        return values, bounds
    errors = EPS * np.abs(matrices) if errors is None else errors
    outputs, inputs = matrices.shape[1:]
    with np.errstate(all="ignore"):
        matrices, errors, shift = balanced(matrices[finite], errors[finite])
        sizes = np.linalg.svd(matrices, compute_uv=False)
        values[finite] = shift + (
            np.linalg.slogdet(matrices)[1] if outputs == inputs else np.sum(np.log(sizes), axis=1)
        )
        good = np.isfinite(values[finite]) & (sizes[:, 0] < sizes[:, -1] / EPS) & (outputs >= inputs)
        inverses = np.swapaxes(np.abs(np.linalg.pinv(matrices[good])), 1, 2)
        bounds[finite[good]] = np.sum(np.where(inverses > 0, inverses * errors[good], 0.0), axis=(1, 2))
    return values, bounds


def inverted(matrices):
    """The inverse of each matrix; nan where it has none."""
    found = np.full(np.swapaxes(matrices, 1, 2).shape, np.nan)
    if matrices.shape[1] == matrices.shape[2]:
        good = np.isfinite(matrices).all(axis=(1, 2))
        good[good] = np.linalg.det(matrices[good]) != 0
        found[good] = np.linalg.inv(matrices[good])
    return found


def coordinates(matrix):
    """The first outputs, as many as there are inputs, whose rows of a Jacobian are independent."""
    chosen, basis = [], np.zeros((0, matrix.shape[1]))
    for output, row in enumerate(matrix):
        size = np.linalg.norm(row)
        left = row - basis.T @ (basis @ row)
        if len(chosen) < matrix.shape[1] and np.linalg.norm(left) > 1e-6 * size > 0:
            left -= basis.T @ (basis @ left)
            basis = np.vstack([basis, left / np.linalg.norm(left)])
            chosen.append(output)
    return chosen
