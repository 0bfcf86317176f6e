"""`check` and `check_functions`: choose points where an error cannot hide, run the checks, report."""

import copy
import traceback
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import to_host
from npflow.autodiff.program.threads import one_blas_thread
from npflow.errors import InputError
from npflow.layers.composite import dry_run
from npflow.layers.layer import check_layer, domain_of
from npflow.validation import check_rng, check_rows
from npflow.verify import contract, formulas, gradients
from npflow.verify.finding import DIRECTIONS, Finding
from npflow.verify.jacobians import by_autograd, log_abs_det
from npflow.verify.point import CannotRun, Point, cast_tree, copy_tree
from npflow.verify.report import Check, Jacobians, Report

# In how many layers of a deep chain signs are flipped: each is then ill-conditioned, and all of them together are so
# beyond float64.
FLIPPED = 2
ROWS = 8  # rows looked at: each costs a Jacobian

# The checks in the order of a report: name, function, and what has to hold for it to mean anything. A row
# has a Jacobian of its own only where rows do not influence each other and the output is not random.
TWICE = ("same output twice",)
JACOBIAN = ("same output twice", "rows independent")
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
    *(
        (
            f"log-det {direction}, finite differences",
            partial(formulas.log_det_by_finite_differences, direction=direction),
            JACOBIAN,
        )
        for direction in DIRECTIONS
    ),
)
DERIVATIVES = tuple(
    (name.format(direction), partial(function, direction=direction), needs)
    for name, function, needs in (
        ("log-det {}, autograd", formulas.log_det_by_autograd, JACOBIAN),
        ("derivative of {}", formulas.jacobian_derivative, JACOBIAN),
        ("gradient of {}", gradients.gradients, TWICE),
    )
    for direction in DIRECTIONS
)
OF_LAYERS = (
    *FORM,
    ("float64 kept", partial(contract.dtype_kept, dtype=np.float64), ()),
    ("float32 kept", partial(contract.dtype_kept, dtype=np.float32), ()),
    ("float32 agrees with float64", contract.float32_agrees, JACOBIAN),
    ("init repeats itself", contract.init_repeats, ()),
    ("log_det alone", contract.log_det_alone, TWICE),
    *FORMULAS,
    *DERIVATIVES,
    ("finite for large inputs", contract.finite_for_large_inputs, ()),
)
FAR = tuple(
    (f"log-det {direction}, far out", partial(formulas.log_det_far_out, direction=direction), JACOBIAN)
    for direction in DIRECTIONS
)
OF_FUNCTIONS = (*FORM, ("float64 kept", partial(contract.output_dtype_kept, dtype=np.float64), ()), *FORMULAS)


def check(layer, x, *, params=None, rng=None, skip=()):
    """Hold a layer against its numerical Jacobian, and everything else that the contract promises.

    A point is never trusted where an error could hide. A new layer is often the identity, whose log-det is
    zero however it is computed; so the parameters are moved away from where they start, one time by noise,
    another time by noise and random signs (where an abs that is forgotten under a log shows), a third time
    far out (where clipping and saturation show). A second batch is mixed from the rows of the first.

    Parameters
    ----------
    layer : object
        Anything with ``init(rng, x)``, ``forward(params, x)`` and ``inverse(params, z)``, written with
        `autograd.numpy`; a `Layer` or one of your own.
    x : ndarray, shape (n, ...), n >= 2
        A batch that the layer is meant for. Eight of its rows are looked at closely. A Jacobian of D
        components takes D backward and some 20 D forward passes and D^2 numbers a row: D is best below 200. An array on
        a device is fetched: the check is made on the host.
    params : tree of ndarray, optional
        Check at these parameters too, and move away from them instead of from ``init``'s.
    rng : numpy.random.Generator, optional
        Draws parameters and rows; by default one with a fixed seed, so that a check repeats itself.
    skip : sequence of str
        Names of checks that this layer is not meant to pass: "z -> x -> z, any z" where its range is bounded, "finite
        for large inputs" where its domain is, and it does not say so as `Layer.domain`.

    Returns
    -------
    Report
        The checks: shapes; purity (same output twice, input unchanged, nothing kept between calls, rows
        independent, `init` repeats itself); float64 and float32 kept, in gradients too; round trips; log-dets
        that cancel; log-dets against log|det J| of SciPy's finite-difference Jacobian, with a tolerance from
        SciPy's own error estimate, and of autograd's exact one, in both directions; derivatives and gradients in
        input and parameters against finite differences; finite outputs for large inputs.

    Raises
    ------
    InputError
        If `x` is not a batch of at least two finite rows, `layer` lacks a method, or `skip` names no check.

    Examples
    --------
    >>> from npflow.layers import Conv1x1
    >>> check(Conv1x1(), np.random.default_rng(0).normal(size=(8, 4))).raise_if_failed()
    """
    check_layer(layer)
    known = [name for name, _, _ in OF_LAYERS + FAR]
    unknown = [name for name in skip if name not in known]
    if isinstance(skip, str) or unknown:
        raise InputError(f"expected a list of checks to skip among {known}, got {skip!r}")
    rng = np.random.default_rng(0) if rng is None else check_rng(rng)
    x, pristine = _batch(x), copy.deepcopy(layer)
    params = None if params is None else to_host(params)
    report = Report(type(layer).__name__, skipped=tuple(skip))
    asked = lambda checks: [entry for entry in checks if entry[0] not in skip]
    with one_blas_thread(), np.errstate(all="ignore"):
        start = layer.init(rng, x.copy()) if params is None else params
        start = cast_tree(start, np.float64)
        near, far = _points(rng, layer, pristine, start, x)
        if params is not None:
            near.append(Point(layer, copy_tree(start), near[0].x, pristine))
        _run_all(report, asked(OF_LAYERS), near)
        _run_all(report, asked(FAR), far)
        report.jacobians = _jacobians(near[0], exact=True)
    return report


def check_functions(forward, inverse, x):
    """Hold two plain functions to the same test, such as another library's transform.

    Parameters
    ----------
    forward, inverse : callable
        Each takes an array and returns an array and its log-det, in double precision: wrap a PyTorch or JAX
        transform in a lambda that converts.
    x : ndarray, shape (n, ...), n >= 2

    Returns
    -------
    Report
        The checks of `check` that need neither parameters nor autograd.

    Examples
    --------
    >>> double = lambda x: (2 * x, np.full(len(x), x.shape[1] * np.log(2)))
    >>> halve = lambda z: (z / 2, np.full(len(z), -z.shape[1] * np.log(2)))
    >>> check_functions(double, halve, np.random.default_rng(0).normal(size=(8, 3))).passed
    True
    """
    x = _batch(x)
    subject = _Functions(forward, inverse)
    points = [Point(subject, {}, rows[:ROWS], subject) for rows in (x, _mixed(np.random.default_rng(0), x))]
    name = f"{getattr(forward, '__name__', 'forward')} and {getattr(inverse, '__name__', 'inverse')}"
    report = Report(name)
    with one_blas_thread():
        _run_all(report, OF_FUNCTIONS, points)
        report.jacobians = _jacobians(points[0], exact=False)
    return report


class _Functions:
    """Two functions in the shape of a layer without parameters."""

    def __init__(self, forward, inverse):
        self.functions = {"forward": forward, "inverse": inverse}

    def forward(self, params, x):
        return self.functions["forward"](x)

    def inverse(self, params, z):
        return self.functions["inverse"](z)


def _batch(x):
    check_rows(x)
    if len(x) < 2:
        raise InputError(
            "expected x to have at least two rows, to see whether they influence each other, got one"
        )
    return np.array(to_host(x), np.float64)


def _mixed(rng, x):
    """Rows between rows of x, which stay in any convex domain that x lies in."""
    share = rng.uniform(0.2, 0.8, (len(x), *[1] * (x.ndim - 1)))
    return share * x[rng.permutation(len(x))] + (1 - share) * x[rng.permutation(len(x))]


def _count_layers(layer, x):
    """The number of layers that a layer is made of, 1 where it is made of none: their noise adds up."""
    met = []
    dry_run(layer, x, lambda inner, *_: met.append(inner))
    return len(met)


def _points(rng, layer, pristine, start, x):
    """Two points near the start, in parameters and data, and one far out."""
    count = _count_layers(layer, x)
    noise = 0.5 / np.sqrt(count)
    signs = min(1.0, FLIPPED / count)
    few, mixed = x[rng.permutation(len(x))[:ROWS]], _mixed(rng, x)[:ROWS]
    first = Point(layer, _moved(rng, start, noise), few, pristine)
    second = Point(layer, _moved(rng, start, noise, signs=signs), mixed, pristine)
    second = _of_the_other_sign(first, second, lambda: _moved(rng, start, noise, signs=signs))
    far = np.clip(3 * few, *domain_of(layer))
    return [first, second], [Point(layer, _moved(rng, start, 10 * noise), far, pristine)]


def _of_the_other_sign(first, second, draw, tries=12):
    """The second point, with parameters whose Jacobian's determinant has another sign than at the first.

    Where abs is forgotten under a log, half of all parameters hide it. A layer whose determinant is always
    positive, or cannot be computed, keeps the point that it has.
    """

    def sign(point):
        return np.sign(np.linalg.det(by_autograd(point.traced("forward"), point.x[:1])[0]))

    candidate = second
    try:
        for _ in range(tries):
            if sign(candidate) != sign(first):
                return candidate
            candidate = replace(candidate, params=draw())
    except Exception:  # the checks will say what is wrong
        return second
    return second


def _moved(rng, params, noise, signs=0.0):
    """Parameters away from where they are, by noise that a dense layer's output feels alike at any width.

    `signs` is the chance that a leaf has signs flipped.
    """

    def move(_, leaf):
        if not tree.is_trained(leaf):
            return np.array(leaf)
        inputs = max(1, int(np.prod(leaf.shape[:-1]))) if leaf.ndim > 1 else 1
        # A leaf far from zero was put there by the data, and the other sign would be another world.
        # Half of the signs, and at least one.
        flips = rng.permuted(np.resize([-1.0, 1.0], leaf.shape))
        flipped = signs == 1 or (signs and rng.random() < signs)
        flip = np.where(np.abs(leaf) <= 1, flips, 1.0) if flipped else 1.0
        return leaf * flip + rng.normal(0, noise / np.sqrt(inputs), leaf.shape)

    return tree.build(move, params)


def _run_all(report, checks, points):
    """Run each check at all points, and put the worst of its findings into the report."""
    for name, function, needs in checks:
        failed = [check.name for check in report.failures if check.name in needs]
        if failed:
            sentence = f"not run, because it means nothing where this failed: {', '.join(failed)}"
            report.checks.append(Check(name, np.inf, 0.0, False, sentence))
            continue
        finding = max((_run(function, point) for point in points), key=lambda finding: finding.severity)
        sentence = "" if finding.passed else finding.sentence
        report.checks.append(
            Check(name, float(finding.error), float(finding.tolerance), finding.passed, sentence)
        )


def _run(function, point):
    try:
        with np.errstate(all="ignore"):
            return function(point)
    except CannotRun as error:
        return Finding(np.inf, 0.0, str(error))
    except Exception as error:  # whatever a layer raises belongs into its report
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
