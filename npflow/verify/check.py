"""`check` and `check_functions`: choose points where an error cannot hide, run the checks, report."""

import copy
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import to_host
from npflow.autodiff.mistakes import explained, explaining
from npflow.autodiff.program.threads import one_blas_thread
from npflow.errors import InputError
from npflow.layers.composite import walk
from npflow.layers.layer import check_layer, check_start
from npflow.validation import check_rng, check_rows
from npflow.verify import contract, formulas, gradients
from npflow.verify.finding import DIRECTIONS, Finding, finding_of, worst
from npflow.verify.jacobians import by_autograd, log_abs_det
from npflow.verify.point import CannotRun, Point, cast_tree, copy_tree, within
from npflow.verify.report import Check, Jacobians, Report

ROWS = 8  # rows looked at: each costs a Jacobian
# The number of layers of a deep chain in which signs are flipped: each becomes ill-conditioned, and all of
# them together would be so beyond float64.
FLIPPED = 2

# ---------------------------------------------------------------- the checks

# In the order of a report: the name, the function, and the checks without which it means nothing. A row has a
# Jacobian of its own only where rows do not influence each other and the output is not random.
TWICE = ("same output twice",)
JACOBIAN = ("same output twice", "rows independent")


def _both(name, function, needs):
    """A check of each direction."""
    return [
        (name.format(direction), partial(function, direction=direction), needs) for direction in DIRECTIONS
    ]


FORM = (
    ("shapes", contract.shapes, ()),
    ("same output twice", contract.same_output_twice, ()),
    ("input unchanged", contract.input_unchanged, ()),
    ("no memory between calls", contract.no_memory, TWICE),
    ("rows independent", partial(contract.rows_independent, part=0), TWICE),
    ("rows independent in log-det", partial(contract.rows_independent, part=1), TWICE),
)
FORMULAS = (
    ("x -> z -> x", partial(formulas.round_trip, direction="forward"), TWICE),
    ("z -> x -> z", partial(formulas.round_trip, direction="inverse"), TWICE),
    ("z -> x -> z, any z", formulas.every_z_has_an_x, TWICE),
    ("log-dets cancel", formulas.log_dets_cancel, TWICE),
    ("Jacobian invertible", formulas.jacobian_invertible, JACOBIAN),
    *_both("log-det {}, finite differences", formulas.log_det_by_finite_differences, JACOBIAN),
)
OF_LAYERS = (
    *FORM,
    ("float64 kept", partial(contract.dtype_kept, dtype=np.float64), ()),
    ("float32 kept", partial(contract.dtype_kept, dtype=np.float32), ()),
    ("float32 agrees with float64", contract.float32_agrees, JACOBIAN),
    ("init repeats itself", contract.init_repeats, ()),
    ("log_det alone", contract.log_det_alone, TWICE),
    *FORMULAS,
    *_both("log-det {}, autograd", formulas.log_det_by_autograd, JACOBIAN),
    *_both("derivative of {}", formulas.jacobian_derivative, JACOBIAN),
    *_both("gradient of {}", gradients.gradients, TWICE),
    ("finite for large inputs", contract.finite_for_large_inputs, ()),
)
FAR = tuple(_both("log-det {}, far out", formulas.log_det_far_out, JACOBIAN))
OF_FUNCTIONS = (*FORM, ("float64 kept", partial(contract.output_dtype_kept, dtype=np.float64), ()), *FORMULAS)


def check(layer, x, *, params=None, rng=None, skip=()):
    """Hold a layer against its numerical Jacobian and the rest of its contract.

    An error must not hide at the points that are checked. A new layer is often the identity, whose log-det is
    zero however it is computed. So the parameters are moved: at a first point by noise; at a second by noise
    and random signs, where an abs missing under a log shows; at a third far out, where clipping and
    saturation show.

    Parameters
    ----------
    layer : object
        A `Layer`, or any object with ``init(rng, x)``, ``forward(params, x)`` and ``inverse(params, z)``,
        written with `autograd.numpy`.
    x : ndarray, shape (n, ...), n >= 2
        Rows for the layer. Eight of them are looked at, and eight mixtures of them. The Jacobian of a row of
        D components takes D^2 numbers, D backward passes and about 20 D forward passes: keep D below 200. The
        check runs on the host, also for an array on a device.
    params : tree of ndarray, optional
        Parameters to check at, and to move away from. By default those of ``init`` are moved.
    rng : numpy.random.Generator, optional
        Draws parameters and rows. The default has a fixed seed, so that a check repeats itself.
    skip : sequence of str, optional
        Names of checks that the layer need not pass: "z -> x -> z, any z" where its range is bounded, "finite
        for large inputs" where its domain is bounded and `Layer.domain` does not say so.

    Returns
    -------
    Report
        What was expected, what came, and what is likely wrong. It prints as a table.

    Raises
    ------
    InputError
        If `x` is not an array of at least two finite rows, `layer` lacks a method, or `skip` names no check.

    Notes
    -----
    The checks decide, in the order of the report:

    shapes
        Rows and components are kept; a log-det has shape (n,).
    same output twice, input unchanged, no memory between calls
        forward and inverse are pure functions.
    rows independent, rows independent in log-det
        Each row alone gives what it gives among others. Without this a row has no Jacobian of its own.
    float64 kept, float32 kept, float32 agrees with float64
        Parameters, outputs and gradients have the dtype of x; float32 changes the outputs by rounding alone.
    init repeats itself
        The same generator gives the same parameters, and init leaves its batch unchanged.
    log_det alone
        The method ``log_det``, where there is one, returns the second half of ``forward``.
    x -> z -> x, z -> x -> z, and any z
        The directions are each other's inverse, and every z has an x. The tolerance grows with the condition
        of the Jacobian.
    log-dets cancel
        The log-dets of forward and inverse add up to zero.
    Jacobian invertible
        It is finite and not singular.
    log-det, finite differences
        It is log|det J| of SciPy's finite-difference Jacobian, within SciPy's error estimate.
    log-det, autograd
        It is log|det J| of autograd's Jacobian, to 1e-9 and rounding. Where the layer is made of layers, a
        failure names the inner layer at fault.
    derivative, gradient
        autograd's Jacobian, and its gradients in input and parameters, are those of finite differences.
    finite for large inputs
        Inputs 10,000 times as large do not overflow, in float64 and float32.
    log-det, far out
        It is log|det J| at parameters and inputs far from the start, to 1e-5.

    A check that means nothing because another one failed counts as failed, and says so.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Conv1x1
    >>> from npflow.verify import check
    >>> rng = np.random.default_rng(0)
    >>> report = check(Conv1x1(), rng.normal(size=(8, 4)))
    >>> report.passed, report["log-det forward, autograd"].error < 1e-9
    (True, True)

    A wrong sign is caught, and named:

    >>> class WrongSign(Conv1x1):
    ...     def inverse(self, params, z):
    ...         x, log_det = super().inverse(params, z)
    ...         return x, -log_det
    >>> print(check(WrongSign(), rng.normal(size=(8, 4))).failures[0].sentence)
    log_det of forward and inverse are the same: the inverse's must be negated
    """
    check_layer(layer)
    known = [name for name, _, _ in OF_LAYERS + FAR]
    if isinstance(skip, str) or not set(skip) <= set(known):
        raise InputError(f"expected a list of checks to skip among {known}, got {skip!r}")
    rng = np.random.default_rng(0) if rng is None else check_rng(rng)
    x, pristine = _batch(x), copy.deepcopy(layer)
    report = Report(type(layer).__name__, skipped=tuple(skip))
    with one_blas_thread(), np.errstate(all="ignore"):
        if params is None:
            with explaining():
                params_of_init = layer.init(rng, x.copy())
            check_start(layer.init, params_of_init, x)
        start = cast_tree(params_of_init if params is None else to_host(params), np.float64)
        near, far = _points(rng, layer, pristine, start, x)
        if params is not None:
            near.append(replace(near[0], params=copy_tree(start)))
        _run_all(report, OF_LAYERS, near)
        _run_all(report, FAR, far)
        report.jacobians = _jacobians(near[0], exact=True)
    return report


def check_functions(forward, inverse, x):
    """Hold two plain functions against their numerical Jacobians, such as another library's transform.

    Parameters
    ----------
    forward, inverse : callable
        Each takes an array and returns an array and its log-det, in float64. Wrap a PyTorch or JAX transform
        in a lambda that converts.
    x : ndarray, shape (n, ...), n >= 2
        Rows for `forward`. Eight of them are looked at, and eight mixtures of them.

    Returns
    -------
    Report
        The checks of `check` that need neither parameters nor autograd.

    Raises
    ------
    InputError
        If `x` is not an array of at least two finite rows.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.verify import check_functions
    >>> rng = np.random.default_rng(0)
    >>> double = lambda x: (2 * x, np.full(len(x), x.shape[1] * np.log(2)))
    >>> halve = lambda z: (z / 2, np.full(len(z), -z.shape[1] * np.log(2)))
    >>> check_functions(double, halve, rng.normal(size=(8, 3))).passed
    True
    """
    x = _batch(x)
    subject = _Functions(forward, inverse)
    points = [Point(subject, {}, rows[:ROWS], subject) for rows in (x, _mixed(np.random.default_rng(0), x))]
    names = (getattr(function, "__name__", name) for name, function in subject.functions.items())
    report = Report(" and ".join(names))
    with one_blas_thread():
        _run_all(report, OF_FUNCTIONS, points)
        report.jacobians = _jacobians(points[0], exact=False)
    return report


class _Functions:
    """Two functions as a layer without parameters."""

    def __init__(self, forward, inverse):
        self.functions = {"forward": forward, "inverse": inverse}

    def forward(self, params, x):
        return self.functions["forward"](x)

    def inverse(self, params, z):
        return self.functions["inverse"](z)


# ---------------------------------------------------------------- where to look


def _batch(x):
    x = check_rows(x)
    if len(x) < 2:
        raise InputError(
            "expected x to have at least two rows, to see whether they influence each other, got one"
        )
    return np.array(to_host(x), np.float64)


def _mixed(rng, x):
    """Rows between rows of x: they stay in any convex domain that x lies in."""
    share = rng.uniform(0.2, 0.8, (len(x), *[1] * (x.ndim - 1)))
    return share * x[rng.permutation(len(x))] + (1 - share) * x[rng.permutation(len(x))]


def _points(rng, layer, pristine, start, x):
    """Two points near the start, in parameters and data, and one far out."""
    try:
        inner = len(list(walk(copy.deepcopy(pristine), copy_tree(start), x.copy())))
    except Exception:  # the checks will say what is wrong
        inner = 1
    noise = 0.5 / np.sqrt(inner)  # that of the inner layers adds up
    signs = min(1.0, FLIPPED / inner)
    few, mixed = x[rng.permutation(len(x))[:ROWS]], _mixed(rng, x)[:ROWS]
    first = Point(layer, _moved(rng, start, noise), few, pristine)
    second = Point(layer, _moved(rng, start, noise, signs=signs), mixed, pristine)
    second = _of_the_other_sign(first, second, lambda: _moved(rng, start, noise, signs=signs))
    far = within(layer, 3 * few)
    return [first, second], [Point(layer, _moved(rng, start, 10 * noise), far, pristine)]


def _of_the_other_sign(first, second, draw, tries=12):
    """The second point, with parameters where the Jacobian's determinant has another sign than at the first.

    Half of all parameters hide an abs that is missing under a log. Where the determinant always has one sign,
    or cannot be computed, the point stays as it is.
    """

    def sign(point):
        return np.sign(np.linalg.det(by_autograd(point.traced("forward"), point.x[:1])[0]))

    candidate = second
    try:
        here = sign(first)
        for _ in range(tries):
            if sign(candidate) != here:
                return candidate
            candidate = replace(candidate, params=draw())
    except Exception:  # the checks will say what is wrong
        return second
    return second


def _moved(rng, params, noise, signs=0.0):
    """Parameters moved by noise, scaled so that it changes a dense layer's output alike at any width.

    `signs` is the chance that a leaf has half of its signs flipped.
    """

    def move(_, leaf):
        if not tree.is_trained(leaf):
            return np.array(leaf)
        inputs = max(1, int(np.prod(leaf.shape[:-1]))) if leaf.ndim > 1 else 1
        # Half of the signs, and at least one. A number far from zero comes from the data: its sign stays.
        flips = rng.permuted(np.resize([-1.0, 1.0], leaf.shape))
        flipped = signs == 1 or (signs and rng.random() < signs)
        flip = np.where(np.abs(leaf) <= 1, flips, 1.0) if flipped else 1.0
        return leaf * flip + rng.normal(0, noise / np.sqrt(inputs), leaf.shape)

    return tree.build(move, params)


# ---------------------------------------------------------------- to run the checks


def _run_all(report, checks, points):
    """Run each check that is not skipped at all points, and put the worst of its findings into the report."""
    for name, function, needs in checks:
        if name in report.skipped:
            continue
        failed = [check.name for check in report.failures if check.name in needs]
        if failed:
            sentence = f"not run, because it means nothing where this failed: {', '.join(failed)}"
            finding = Finding(np.inf, 0.0, sentence)
        else:
            finding = worst([_run(function, point) for point in points])
        sentence = "" if finding.passed else finding.sentence
        report.checks.append(
            Check(name, float(finding.error), float(finding.tolerance), finding.passed, sentence)
        )


def _run(function, point):
    try:
        with np.errstate(all="ignore"):
            return finding_of(function(point))
    except (CannotRun, InputError) as error:
        return Finding(np.inf, 0.0, str(error))
    except Exception as error:  # whatever a layer raises belongs into its report
        named = explained(error)
        if named is not error:
            return Finding(np.inf, 0.0, str(named))
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.name}, {Path(frame.filename).name}:{frame.lineno}"
        return Finding(np.inf, 0.0, f"could not be run: {type(error).__name__} in {place}: {error}")


def _jacobians(point, exact):
    """The Jacobians of the first row, for pictures."""
    found = {}
    for direction in DIRECTIONS:
        try:
            numerical = point.numerical[direction][0][0]
            found[direction] = Jacobians(
                numerical,
                point.exact[direction][0] if exact else None,
                float(log_abs_det(numerical[None])[0][0]),
                float(point.log_det(direction, point.start(direction))[0]),
            )
        except Exception:  # the checks have said what is wrong
            found[direction] = Jacobians()
    return found
