"""`check_functions`: two plain functions, and what is known of them, held against their numerical Jacobians."""

import copy
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import to_host
from npflow.autodiff.mistakes import is_pair
from npflow.autodiff.program.threads import one_blas_thread
from npflow.errors import InputError, in_short
from npflow.validation import check_callable, check_choice, check_dtype, check_number
from npflow.verify import contract, formulas
from npflow.verify.check import (
    FORM,
    JACOBIAN,
    LOG_DETS,
    MIXED,
    ONTO,
    ROUND_TRIPS,
    VALUES,
    batch_of,
    both,
    check_names,
    jacobians_of,
    mixed,
    run_all,
)
from npflow.verify.finding import ENOUGH, CannotRun
from npflow.verify.formulas import AnyZ
from npflow.verify.jacobians import EPS
from npflow.verify.point import Point
from npflow.verify.report import Report

OWN = "exact Jacobian of forward"
EXACT = (
    (OWN, partial(formulas.jacobian_derivative, direction="forward"), JACOBIAN),
    *both("log-det {}, exact Jacobian", formulas.log_det_by_exact_jacobian, (*JACOBIAN, OWN)),
)
OF_FUNCTIONS = (
    *FORM,
    ("float64 kept", contract.float64_kept, ()),
    *ROUND_TRIPS,
    *LOG_DETS,
    *EXACT,
    *ONTO,
    ("float32 kept", contract.float32_kept, VALUES),
    ("float32 agrees with float64", contract.float32_agrees, ("float32 kept", *JACOBIAN)),
)
DECIDED = (
    ("x -> z -> x",),
    ("log-det forward, finite differences", "log-det forward, exact Jacobian"),
    ("log-det inverse, finite differences", "log-det inverse, exact Jacobian", "log-dets cancel"),
)


def check_functions(
    forward: Callable,
    inverse: Callable | None,
    x: ArrayLike,
    *,
    z: ArrayLike | None = None,
    context: ArrayLike | None = None,
    skip: Sequence[str] = (),
    domain: tuple | Callable | None = None,
    codomain: tuple | Callable | None = None,
    tolerance: float | None = None,
    jacobian: Callable | None = None,
    chart: Callable | None = None,
    log_det: str = "rows",
    dtypes: str | Sequence[str] = ("float32", "float64"),
    name: str | None = None,
) -> Report:
    """Hold two plain functions against their numerical Jacobians, such as another library's transform.

    Parameters
    ----------
    forward, inverse : callable
        Each takes an array, shape (n, ...), and returns an array and its log-det, shape (n,), in the dtype of the
        array. Without an inverse (None) the forward half is checked. A row that raises is one without a value: where
        a batch raises, its rows are called one at a time.
    x : ndarray, shape (n, ...), n >= 2
        Rows for `forward`, of any number of axes. All of them are looked at by what is cheap, and some, the extreme
        ones among them, by Jacobians.
    z : ndarray, shape (m, ...), optional
        Rows that `inverse` must bring back, besides those that `forward` makes of `x`.
    context : ndarray, shape (n, ...), optional
        A second argument of both functions, a row for each row of `x`.
    skip : sequence of str, optional
        Names of checks that the functions need not pass.
    domain, codomain : pair of float or ndarray, or callable, optional
        The open interval that x, or z, lies in: two ends, which may be arrays; or ``inside(rows)``, an array of bool.
        Any z of the codomain must come back. Without it, what is not finite or does not come back near the z of `x`
        is not decided.
    tolerance : float, optional
        The largest error to allow: in log-dets in nats, in round trips in units of the spread of the rows. By default
        it follows from rounding, and from the noise that round trips show.
    jacobian : callable, optional
        The exact Jacobian of `forward`: ``jacobian(x)`` of shape (n, components of z, components of x), called with
        the context too where there is one. It is preferred to finite differences.
    chart : callable, optional
        Where the number of components changes: the coordinates of z that log-dets refer to, ``chart(z)`` of shape
        (n, components of x). By default either the volume element, log det(J'J) / 2, or the first independent
        components of z, and the report says which.
    log_det : {"rows", "sum"}
        "sum": log-dets may also be of shape (n, 1) or one for each element, and are summed over a row.
    dtypes : sequence of str
        What the functions are made for. Those of float32 alone are called in float32, and their noise is measured. A
        function of both that turns some of its results from float32 into float64 fails; where all are float64 its
        constants may be, and only an `x` in float32 makes that a failure. An iteration that ends in float64 alone
        needs ``dtypes="float64"``.
    name : str, optional
        What the report calls the functions.

    Returns
    -------
    Report
        The checks of `check` that need neither parameters nor autograd.

    Raises
    ------
    InputError
        If `x` is not an array of at least two finite rows, a row of it lies outside `domain`, or an option is none of
        those above.

    Notes
    -----
    Rows are chosen as by `check`: all rows of `x`, as many between them, and z beside theirs; Jacobians are computed at
    about eight of each.

    An exact Jacobian is held against finite differences at rows of `x`. Where log-dets agree with quick differences to
    1e-5, at all rows that these are taken at, it decides the rest of their digits.

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
    subject = Functions(
        forward, inverse, x, context, z, domain, codomain, tolerance, jacobian, chart, log_det, dtypes
    )
    checks = [one for one in OF_FUNCTIONS if subject.asks(one[0])]
    skip = check_names(skip, OF_FUNCTIONS)
    subject.trusted, subject.remembers = OWN in skip, "no memory between calls" not in skip
    essential = [names for names in DECIDED if any(subject.asks(one) for one in names)]
    report = Report(name or subject.name, skipped=skip, essential=tuple(essential))
    with one_blas_thread(), np.errstate(all="ignore"):
        points = subject.points()
        run_all(report, checks, points)
        report.jacobians = jacobians_of(points[0])
    report.notes = tuple(subject.notes)
    return report


class Functions:
    """Two functions as a layer without parameters, and what is known of them."""

    def __init__(
        self, forward, inverse, x, context, z, domain, codomain, tolerance, jacobian, chart, log_det, dtypes
    ):
        for what, function in {"inverse": inverse, "jacobian": jacobian, "chart": chart}.items():
            if function is not None:
                check_callable(function, what)
        self.functions = {"forward": check_callable(forward, "forward"), "inverse": inverse}
        self.has_inverse = inverse is not None
        self.strict = getattr(x, "dtype", None) == np.float32
        self.x = x = batch_of(x, any_shape=True)
        self.context, self.chart = None if context is None else _context(context, len(x)), chart
        self.z = None if z is None else batch_of(z, "z", least=1, any_shape=True)
        self.domain, self.codomain = check_inside(domain, "domain"), check_inside(codomain, "codomain")
        outside = ~inside(self.domain, x)
        if outside.any():
            raise InputError(f"expected x inside the domain, got row {int(np.argmax(outside))} outside")
        self.tolerance = None if tolerance is None else check_number(tolerance, "tolerance", above=0)
        self.exact = jacobian
        self.sums = check_choice(log_det, ("rows", "sum"), "log_det") == "sum"
        dtypes = [dtypes] if isinstance(dtypes, str) else dtypes
        self.dtypes = {check_dtype(dtype, "each of dtypes") for dtype in dtypes}
        if not self.dtypes:
            raise InputError("expected dtypes among float32 and float64, got none")
        self.notes, self.raised, self.widths = [], {}, {}
        self.trusted, self.remembers = False, True
        self.cast = None if np.dtype("float64") in self.dtypes else np.dtype("float32")
        self.eps = EPS if self.cast is None else float(np.finfo(np.float32).eps)

    @property
    def name(self):
        """The functions' names."""
        functions = [function for function in self.functions.values() if function is not None]
        return " and ".join(getattr(function, "__name__", type(function).__name__) for function in functions)

    def asks(self, check):
        """Whether a check of some name is one of these functions."""
        if not self.has_inverse and ("inverse" in check or "->" in check or "cancel" in check):
            return False
        if "exact Jacobian" in check and self.exact is None:
            return False
        if "float32" in check:
            return self.cast is None and np.dtype("float32") in self.dtypes
        return not (check == "float64 kept" and self.cast is not None)

    @property
    def jacobian(self):
        """The exact Jacobian as a function of rows and their context; None where there is none."""
        if self.exact is None:
            return None

        def matrices(x, context):
            found = np.asarray(self.exact(x.copy()) if context is None else self.exact(x.copy(), context))
            if found.ndim < 3 or len(found) != len(x) or found.size % x.size:
                raise CannotRun(
                    f"expected jacobian to return (n, components of z, components of x), got {found.shape}"
                )
            return found.reshape(len(x), -1, x[0].size).astype(np.float64)

        return matrices

    # ------------------------------------------------------------ calls

    def forward(self, params, x, context=None):
        return self._call("forward", x, context)

    def inverse(self, params, z, context=None):
        return self._call("inverse", z, context)

    def _call(self, direction, rows, context):
        """What a function returns. A row that raises is one without a value, nan."""
        if self.cast is None:
            return self._rows(direction, rows, context)
        result = self._rows(direction, rows.astype(self.cast), context)
        return tuple(np.asarray(part, np.float64) for part in result) if is_pair(result) else result

    def _rows(self, direction, rows, context):
        parts = self._parts(direction, rows, context)
        raised = [isinstance(part, Exception) for part in parts]
        if all(raised) and direction not in self.widths:
            raise self.raised[direction]
        if raised == [False]:
            return parts[0]
        shapes = ((1, *self.widths[direction]), (1,))
        nothing = [np.full(shape, np.nan, rows.dtype) for shape in shapes]
        return tuple(
            np.concatenate(halves)
            for halves in zip(*(nothing if lost else part for lost, part in zip(raised, parts)))
        )

    def _parts(self, direction, rows, context):
        """What a function returns for all rows; where it raises, for those of each half. A single row gives the error."""
        try:
            result = self.functions[direction](*((rows,) if context is None else (rows, context)))
        except Exception as error:
            self.raised.setdefault(direction, error)
            if len(rows) == 1:
                return [error]
            middle = len(rows) // 2
            halves = (
                self._parts(direction, rows[half], None if context is None else context[half])
                for half in (slice(middle), slice(middle, None))
            )
            return [part for half in halves for part in half]
        if not is_pair(result):
            return [result]
        array, log_det = result
        if np.ndim(array) and len(array) == len(rows):
            self.widths[direction] = np.shape(array)[1:]
        if self.sums and np.shape(log_det) != (len(rows),):
            log_det = self._summed(direction, np.asarray(log_det), len(rows))
        return [(array, log_det)]

    def _summed(self, direction, log_det, n):
        """A log-det for each row, of one for each element, of shape (n, 1), or of one number."""
        shape = log_det.shape
        if shape[:1] == (n,):
            log_det = log_det.reshape(n, -1)
            log_det = log_det[:, 0] if log_det.shape[1] == 1 else np.sum(log_det, axis=1, dtype=log_det.dtype)
            what = "one for each element, and is summed over a row"
        elif log_det.size == 1:
            log_det, what = np.full(n, log_det.reshape(())), "one number, and is taken for each row"
        else:
            return log_det
        shown = "(n)" if not shape else f"(n, {', '.join(map(str, shape[1:]))})"
        what = f"log_det of {direction} has shape {shown if log_det.size != 1 and shape else shape}: {what}"
        if not any(note.startswith(f"log_det of {direction} has shape") for note in self.notes):
            self.notes.append(what)
        return log_det

    # ------------------------------------------------------------ where to look

    def points(self):
        """The rows of x, rows between them, and rows that the inverse makes of z beside theirs."""
        rng = np.random.default_rng(0)
        pristine = self._copy() if self.remembers else self
        first = Point(self, {}, self.x, pristine, self.context, rows=np.arange(len(self.x)))
        between = self._valid(mixed(rng, self.x, max(8, min(len(self.x), MIXED))))
        return [point for point in (first, between, self._beside(first)) if point is not None]

    def _beside(self, point):
        """A point of rows that the inverse makes of z beside those of another point; None where it makes too few."""
        try:
            if not self.has_inverse or (z := self.any_z(point).z) is None:
                return None
            at = point.at(np.arange(len(z)) % len(self.x))
            x = at.value("inverse", z).reshape(len(z), *self.x.shape[1:])
            back = at.value("forward", x)
            off = np.abs(back.reshape(len(x), -1) - z.reshape(len(x), -1)) / point.units[1]
            return self._valid(x, np.max(off, axis=1) <= point.approximate)
        except Exception:  # the checks will say what is wrong
            return None

    def _copy(self):
        """A copy from before the first call, where the functions are methods of objects with a state."""
        try:
            return copy.deepcopy(self)
        except Exception:
            return self

    def _valid(self, x, good=True):
        """A point of those rows that lie in the domain and have a value; None where they are too few."""
        context = None if self.context is None else np.resize(self.context, (len(x), *self.context.shape[1:]))
        of = lambda rows: Point(self, {}, x[rows], self, None if context is None else context[rows])
        finite = lambda array, n: np.isfinite(np.reshape(array, (n, -1))).all(axis=1)
        try:
            rows = np.flatnonzero(good & inside(self.domain, x) & finite(x, len(x)))
            if len(rows) < ENOUGH:
                return None
            point = of(rows)
            valued = np.logical_and(*(finite(part, len(rows)) for part in point.pairs["forward"]))
        except Exception:  # the checks will say what is wrong
            return None
        if valued.all():
            return point  # which keeps its results
        return of(rows[valued]) if np.sum(valued) >= ENOUGH else None

    def any_z(self, point):
        """Rows that the inverse must bring back: those handed over, or of the codomain, or beside the z of x.

        The last need not: it is not known whether they lie in the codomain.
        """
        if self.z is not None:
            return AnyZ(self.z)
        if not point.same_size:
            return AnyZ(reason="x and z have different sizes: hand over z= to look beside the z of x")
        rng = np.random.default_rng(0)
        z = np.resize(point.z, (max(16, min(len(point.z), MIXED)), *point.z.shape[1:]))
        noise, unit = rng.standard_normal(z.shape), point.unit("inverse")
        if self.codomain is None:
            return AnyZ(z + 0.5 * unit * noise, known=False)
        wide = z + 2 * unit * noise
        if not callable(self.codomain):
            low, high = (np.broadcast_to(end, z.shape) for end in self.codomain)
            with np.errstate(all="ignore"):
                bounded = low + (high - low) * rng.uniform(0.01, 0.99, z.shape)
            wide = np.where(np.isfinite(bounded), bounded, np.where((wide > low) & (wide < high), wide, z))
        wide = wide[inside(self.codomain, wide)]
        return AnyZ(wide) if len(wide) else AnyZ(reason="no z beside those of x lies in the codomain")


def check_inside(space, name):
    """Raise unless a set of rows is None, a function, or two ends; return it."""
    if space is None or callable(space):
        return space
    try:
        low, high = (np.asarray(end, np.float64) for end in space)
        if not np.all(low < high):
            raise ValueError
    except (TypeError, ValueError):
        raise InputError(
            f"expected {name} as a pair (low, high) with low < high, or a function of rows, got {in_short(space)}"
        ) from None
    return low, high


def inside(space, rows):
    """Which rows lie in a set; all where there is none."""
    if space is None:
        return np.ones(len(rows), bool)
    found = space(rows.copy()) if callable(space) else (rows > space[0]) & (rows < space[1])
    found = np.asarray(found, bool)
    return found.reshape(len(rows), -1).all(axis=1)


def _context(context, n):
    context = np.asarray(to_host(context))
    if context.shape[:1] != (n,):
        raise InputError(f"expected a row of context for each of {n} rows, got shape {context.shape}")
    return context
