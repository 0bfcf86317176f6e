"""`check`: choose points where an error cannot hide, run the checks, report."""

import copy
import traceback
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import to_host
from npflow.autodiff.mistakes import explain, explaining
from npflow.autodiff.program.threads import one_blas_thread
from npflow.errors import InputError
from npflow.layers.composite import walk
from npflow.layers.layer import check_layer, init_layer
from npflow.typing import Params
from npflow.validation import check_rng, check_rows
from npflow.verify import contract, formulas, gradients
from npflow.verify.finding import DIRECTIONS, CannotRun, NotDecided, finding_of, together, undecided
from npflow.verify.jacobians import log_abs_det
from npflow.verify.point import ROWS, Point, cast_tree, copy_tree, unit_of, within
from npflow.verify.report import Check, Jacobians, Report

# The number of layers of a deep chain in which signs are flipped: each becomes ill-conditioned, and all of
# them together would be so beyond float64.
FLIPPED = 2
MIXED = 256  # rows between those of x

# ---------------------------------------------------------------- the checks

# In the order of a report, which is that of causes: the name, the function, and the checks without which it means
# nothing. A row has a Jacobian of its own only where rows do not influence each other and the output is not random.
TWICE = ("same output twice",)
VALUES = ("finite", "same output twice")
JACOBIAN = ("finite", "same output twice", "rows independent")


def both(name, function, needs):
    """A check of each direction."""
    return [
        (name.format(direction), partial(function, direction=direction), needs) for direction in DIRECTIONS
    ]


FORM = (
    ("shapes", contract.shapes, ()),
    ("same output twice", contract.same_output_twice, ()),
    ("input unchanged", contract.input_unchanged, ()),
    ("no memory between calls", contract.no_memory, TWICE),
    ("finite", contract.finite, TWICE),
    ("rows independent", partial(contract.rows_independent, part=0), VALUES),
    ("rows independent in log-det", partial(contract.rows_independent, part=1), VALUES),
)
ROUND_TRIPS = (
    ("x -> z -> x", partial(formulas.round_trip, direction="forward"), VALUES),
    ("z -> x -> z", partial(formulas.round_trip, direction="inverse"), VALUES),
)
LOG_DETS = (
    ("Jacobian invertible", formulas.jacobian_invertible, JACOBIAN),
    *both("log-det {}, finite differences", formulas.log_det_by_finite_differences, JACOBIAN),
)
ONTO = (
    ("log-dets cancel", formulas.log_dets_cancel, VALUES),
    ("z -> x -> z, any z", formulas.every_z_has_an_x, VALUES),
)
START = "where parameters start"
OF_LAYERS = (
    *FORM,
    ("float64 kept", partial(contract.dtype_kept, dtype=np.float64), ()),
    *ROUND_TRIPS,
    *LOG_DETS,
    *both("log-det {}, autograd", formulas.log_det_by_exact_jacobian, JACOBIAN),
    *both("derivative of {}", formulas.jacobian_derivative, JACOBIAN),
    *both("gradient of {}", gradients.gradients, ("shapes", *JACOBIAN)),
    *ONTO,
    ("log_det alone", contract.log_det_alone, TWICE),
    ("float32 kept", partial(contract.dtype_kept, dtype=np.float32), ()),
    ("float32 agrees with float64", contract.float32_agrees, JACOBIAN),
    ("init repeats itself", contract.init_repeats, ()),
    ("finite for large inputs", contract.finite_for_large_inputs, VALUES),
)
FAR = tuple(both("log-det {}, far out", partial(formulas.log_det_by_exact_jacobian, far=True), JACOBIAN))
AT_START = ((START, contract.start, ()),)
DECIDED = (
    ("x -> z -> x",),
    ("log-det forward, finite differences", "log-det forward, autograd"),
    ("log-det inverse, finite differences", "log-det inverse, autograd", "log-dets cancel"),
)


def check(
    layer: object,
    x: ArrayLike,
    *,
    params: Params | None = None,
    rng: Generator | None = None,
    skip: Sequence[str] = (),
) -> Report:
    """Hold a layer against its numerical Jacobian and the rest of its contract.

    An error must not hide at the points that are checked. A new layer is often the identity, whose log-det is
    zero however it is computed. So the parameters are moved: at a first point by noise; at a second by noise
    and random signs, where an abs missing under a log shows; at a third far out, where clipping and
    saturation show. Where they start outputs, gradients and the Jacobian are looked at too.

    Parameters
    ----------
    layer : object
        A `Layer`, or any object with ``init(rng, x)``, ``forward(params, x)`` and ``inverse(params, z)``,
        written with `autograd.numpy`.
    x : ndarray, shape (n, ...), n >= 2
        Rows for the layer, in any units, on the host or on a device; the check works on the host. Keep the number D of
        components of a row below 200: a Jacobian has D^2 entries, and takes D backward and about 20 D forward passes.
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
    Shapes, purity, round trips and "log-dets cancel" are checked at all rows of x, and at mixtures of them. Jacobians
    are computed at eight rows of each: those where a log-det is furthest from that of quick differences, the ends of z
    and of log-det, and random rows. The quick differences are taken at up to 4,096 / D rows: random ones, and those that
    are extreme in a component of x or z, in size or in log-det.

    The checks decide, in the order of the report:

    shapes
        Rows and components are kept; a log-det has shape (n,).
    same output twice, input unchanged, no memory between calls
        forward and inverse are pure functions.
    finite
        forward gives numbers for x, and inverse for what forward gave.
    rows independent, rows independent in log-det
        Each row alone gives what it gives among others. Without this a row has no Jacobian of its own.
    float64 kept
        Parameters, outputs and gradients have the dtype of x.
    x -> z -> x, z -> x -> z
        The directions are each other's inverse. The tolerance grows with the condition of the Jacobian.
    Jacobian invertible
        It is finite and not singular.
    log-det, finite differences
        It is log|det J| of SciPy's finite-difference Jacobian, within SciPy's error estimate. A failure has to be
        confirmed by smaller steps.
    log-det, autograd
        It is log|det J| of autograd's Jacobian, to 1e-9 and rounding. Where the layer is made of layers, a
        failure names the inner layer at fault.
    derivative, gradient
        autograd's Jacobian, and its gradients in input and parameters, are those of finite differences.
    log-dets cancel
        The log-dets of forward and inverse add up to zero.
    z -> x -> z, any z
        Every z has an x, also a z three times as far as those of x.
    log_det alone
        The method ``log_det``, where there is one, returns the second half of ``forward``.
    float32 kept, float32 agrees with float64
        float32 stays float32, and changes the outputs by rounding alone.
    init repeats itself
        The same generator gives the same parameters, and init leaves its batch unchanged.
    finite for large inputs
        Inputs 10,000 times as large do not overflow, in float64 and float32, and neither does the inverse of what
        forward makes of them.
    where parameters start
        Outputs and gradients are finite at the parameters that init gives, and the Jacobian is not singular.
    log-det, far out
        It is log|det J| at parameters and inputs far from the start, to 1e-5.

    The report stands in the order of causes, and begins with the first. A check that means nothing because another
    one failed is not run. What rounding or roughness hides is not decided: a report passes where nothing failed, and
    the log-det and the round trip are decided on at least four rows.

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
    >>> print(check(WrongSign(), rng.normal(size=(8, 4))).cause)
    log-det inverse, finite differences: log_det of inverse has the opposite sign (the inverse's is minus the forward's)
    """
    check_layer(layer)
    skip = check_names(skip, OF_LAYERS + AT_START + FAR)
    rng = np.random.default_rng(0) if rng is None else check_rng(rng)
    x, pristine = batch_of(x), copy.deepcopy(layer)
    report = Report(type(layer).__name__, skipped=skip, essential=DECIDED)
    if not getattr(getattr(layer, "__dataclass_params__", None), "frozen", False):
        report.notes = ("the layer is no frozen dataclass of hyper-parameters, as the contract asks",)
    with one_blas_thread(), np.errstate(all="ignore"):
        if params is None:
            with explaining():
                params_of_init = init_layer(layer, rng, x.copy())
        start = cast_tree(params_of_init if params is None else to_host(params), np.float64)
        near, far = _points(rng, layer, pristine, start, x)
        at_start = replace(near[0], params=copy_tree(start))
        run_all(report, OF_LAYERS, near if params is None else [*near, at_start])
        run_all(report, AT_START, [at_start])
        run_all(report, FAR, far)
        report.jacobians = jacobians_of(near[0])
    return report


# ---------------------------------------------------------------- where to look


def batch_of(x, name="x", least=2, any_shape=False):
    """Raise unless x is a batch; return it on the host in float64."""
    x = check_rows(x, name=name, any_shape=any_shape)
    if len(x) < least:
        raise InputError(
            f"expected {name} to have at least two rows, to see whether they influence each other, got one"
        )
    return np.array(to_host(x), np.float64)


def mixed(rng, x, rows):
    """Rows between rows of x: they stay in any convex domain that x lies in."""
    share = rng.uniform(0.2, 0.8, (rows, *[1] * (x.ndim - 1)))
    first, second = (np.resize(rng.permutation(len(x)), rows) for _ in range(2))
    return share * x[first] + (1 - share) * x[second]


def _points(rng, layer, pristine, start, x):
    """Two points near the start, in parameters and data, and one far out."""
    try:
        inner = len(list(walk(copy.deepcopy(pristine), copy_tree(start), x.copy())))
    except Exception:  # the checks will say what is wrong
        inner = 1
    noise = 0.5 / np.sqrt(inner)  # that of the inner layers adds up
    signs = min(1.0, FLIPPED / inner)
    few, between = x[rng.permutation(len(x))[:ROWS]], mixed(rng, x, max(2, min(len(x), MIXED)))
    first = Point(layer, _moved(rng, start, noise), x, pristine, rows=np.arange(len(x)))
    second = Point(layer, _moved(rng, start, noise, signs=signs), between, pristine)
    second = _of_the_other_sign(first, second, lambda: _moved(rng, start, noise, signs=signs))
    far = within(layer, 3 * few)
    return [first, second], [Point(layer, _moved(rng, start, 10 * noise), far, pristine)]


def _of_the_other_sign(first, second, draw, tries=12):
    """The second point, with parameters where the Jacobian's determinant has another sign than at the first.

    Half of all parameters hide an abs that is missing under a log. Where the determinant always has one sign,
    or cannot be computed, the point stays as it is.
    """

    def sign(point):
        one = point.at(np.arange(1))
        return np.linalg.slogdet(one.quick("forward")[0])[0]

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


NEAR = 3.0  # a parameter of this size is one of a scale or of a weight


def _moved(rng, params, noise, signs=0.0):
    """Parameters moved by noise, scaled so that it changes a dense layer's output alike at any width.

    `signs` is the chance that a leaf has half of its signs flipped.
    """

    def move(_, leaf):
        if not tree.is_trained(leaf):
            return np.array(leaf)
        inputs = max(1, int(np.prod(leaf.shape[:-1]))) if leaf.ndim > 1 else 1
        # Half of the signs, and at least one. A number far from zero comes from the data: its sign stays. Those of a
        # row of a square matrix can all change, whatever their size: its singular values stay.
        square = leaf.ndim > 1 and leaf.shape[-1] == leaf.shape[-2] > 1
        flips = rng.permuted(np.resize([-1.0, 1.0], leaf.shape))
        flipped = signs == 1 or (signs and rng.random() < signs)
        flip = np.where(np.abs(leaf) <= NEAR, flips, 1.0) if flipped else 1.0
        if flipped and square and np.abs(leaf).max() > NEAR:
            flip = np.where(np.arange(leaf.shape[-1]) == 0, -1.0, 1.0)[
                :, None
            ]  # so the determinant's sign changes
        return leaf * flip + rng.normal(0, unit_of(leaf) * noise / np.sqrt(inputs), leaf.shape)

    return tree.build(move, params)


# ---------------------------------------------------------------- to run the checks


def check_names(skip, checks):
    """Raise unless `skip` is a list of names of checks; return it as a tuple."""
    known = [name for name, _, _ in checks]
    if isinstance(skip, str) or not set(skip) <= set(known):
        raise InputError(f"expected a list of checks to skip among {known}, got {skip!r}")
    return tuple(skip)


def run_all(report, checks, points):
    """Run each check that is not skipped at all points, and put the worst of its findings into the report."""
    for name, function, needs in checks:
        if name in report.skipped:
            continue
        failed = [
            check.name
            for check in report.checks
            if check.name in needs and check.status in ("failed", "not run")
        ]
        if failed:
            why = f"not run, because it means nothing without: {', '.join(failed)}"
            report.checks.append(Check(name, np.nan, np.nan, "not run", why))
            continue
        try:
            finding = together([_run(function, point) for point in points])
        except Stopped as error:
            status = "not run" if report.failures else "failed"
            sentence = f"not run: {error}" if report.failures else str(error)
            report.checks.append(Check(name, np.nan, np.nan, status, sentence))
            continue
        if not finding.decided:
            status, sentence = "not decided", finding.sentence
        elif finding.passed:
            status, sentence = "passed", finding.note
        else:
            status, sentence = "failed", finding.sentence
        report.checks.append(Check(name, float(finding.error), float(finding.tolerance), status, sentence))


class Stopped(Exception):
    """A check came to no result, as the layer raised or returned no pair. That is news only where nothing failed."""


def _run(function, point):
    try:
        with np.errstate(all="ignore"):
            return finding_of(function(point))
    except NotDecided as reason:
        return undecided(str(reason))
    except (CannotRun, InputError) as error:
        raise Stopped(str(error)) from error
    except Exception as error:  # whatever a layer raises belongs into its report
        named = explain(error)
        if named is not error:
            raise Stopped(str(named)) from error
        frame = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{frame.name}, {Path(frame.filename).name}:{frame.lineno}"
        raise Stopped(f"could not be run: {type(error).__name__} in {place}: {error}") from error


def jacobians_of(point):
    """The Jacobians of the first row, for pictures."""
    found = {}
    for direction in DIRECTIONS:
        try:
            point = point.few
            settled = point.settled[direction] is not None
            matrix = (point.quick(direction) if settled else point.numerical[direction][0])[0]
            found[direction] = Jacobians(
                matrix,
                point.exact[direction][0] if getattr(point.layer, "jacobian", True) is not None else None,
                float(log_abs_det(matrix[None])[0][0]),
                float(point.log_det(direction)[0]),
            )
        except Exception:  # the checks have said what is wrong
            found[direction] = Jacobians()
    return found
