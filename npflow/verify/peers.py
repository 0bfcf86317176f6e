"""Transforms of other libraries as functions of NumPy arrays: what `check_torch` and `check_jax` share.

How a library hands out a map, its inverse and their log-dets is recognized by methods. What differs between PyTorch and
JAX is in the subclasses of `Peer`.
"""

import contextlib
import copy
import functools
import inspect
import types
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from npflow.docstrings import documented
from npflow.errors import InputError, in_short, kind_of
from npflow.verify.finding import in_words
from npflow.verify.functions import OF_FUNCTIONS, OWN, check_functions
from npflow.verify.report import Check, Report

BACKWARDS = {"rev": True, "reverse": True, "inverse": True, "invert": True, "mode": "inverse"}
INVERSES = ("inverse", "backward", "reverse")
UNAVAILABLE = ("NotImplementedError", "InverseNotAvailable")
RANK = {"failed": 0, "not decided": 1, "passed": 2, "not run": 3}
START = "where parameters start"
AWAY = "with parameters moved from where they are"
# Noise, and whether signs are flipped; the first at which the check decides.
MOVES = ((0.5, True), (0.2, False), (0.05, False))
# What the numbers of the parameters decide; the rest is looked at with moved parameters alone.
OF_NUMBERS = ("finite", "->", "Jacobian", "log-det forward", "log-det inverse", "log-dets")
COARSE = 1e-4  # what formulas for float32, and arrays that were computed in it, may be off
DTYPES = (np.dtype("float64"), np.dtype("float32"))

checker = documented(
    """
    Parameters
    ----------
    x : ndarray, or an array of the library, shape (n, ...), n >= 2
        Rows for the transform.
    inverse : callable, optional
        The inverse as a function that returns an array and its log-det. By default that of `transform`; without any,
        the forward half is checked.
    context : ndarray, or an array of the library, shape (n, ...), optional
        A row of context for each row of `x`.
    name : str, optional
        What the report calls the transform.
    **known
        Further keywords of `check_functions`: ``z``, ``skip``, ``domain``, ``codomain``, ``tolerance``, ``chart``. The
        domain and codomain that a transform of torch.distributions or numpyro tells are known.

    Returns
    -------
    Report
        The checks of `check_functions`, and "where parameters start": outputs and gradients are finite there.

    Raises
    ------
    InputError
        If the transform follows no convention, or an argument of `check_functions` is wrong.
    """
)


# ---------------------------------------------------------------- conventions


class Convention(NamedTuple):
    """Two functions of (x, context), the sets that x and y lie in, and the words for what was recognized.

    Each function returns an array and its log-det; the inverse is None where a library has none.
    """

    words: str
    forward: object
    inverse: object = None
    domain: object = None
    codomain: object = None


def convention_of(transform, fresh=lambda array: array):
    """The convention that an object follows.

    Parameters
    ----------
    transform : object
    fresh : callable
        Returns a new array of equal numbers, so that no cache knows the array.

    Raises
    ------
    InputError
        If it follows none.
    """
    has = lambda *names: all(callable(getattr(transform, name, None)) for name in names)
    parents = {parent.__name__ for parent in type(transform).__mro__}
    if has("log_abs_det_jacobian"):
        return Convention(
            "log_abs_det_jacobian(x, y)",
            lambda x, context: _transformed(transform, x, fresh),
            lambda y, context: _transformed(transform.inv, y, fresh),
            *(
                None if _composed(transform) else getattr(transform, name, None)
                for name in ("domain", "codomain")
            ),
        )
    if has("condition") or parents & {"LazyTransform", "LazyDistribution"}:
        given = transform.condition if has("condition") else transform
        of = lambda context: _inner(given() if context is None else given(context))
        return Convention(
            "a transform for each context, with log_abs_det_jacobian(x, y)",
            lambda x, context: _transformed(of(context), x, fresh),
            lambda y, context: _transformed(of(context).inv, y, fresh),
        )
    for name in ("transform_and_log_det", "forward_and_log_det"):
        if has(name, "inverse_and_log_det"):
            return _pair(f"{name} and inverse_and_log_det", transform, name, "inverse_and_log_det")
    if has("forward", "inverse", "forward_log_det_jacobian"):
        # The number of axes of an event is that of the rows less one: a log-det is then one number a row.
        return Convention(
            "forward_log_det_jacobian and inverse_log_det_jacobian",
            lambda x, context: (
                transform.forward(x),
                transform.forward_log_det_jacobian(fresh(x), _event(transform, x, "forward")),
            ),
            lambda y, context: (
                transform.inverse(y),
                transform.inverse_log_det_jacobian(fresh(y), _event(transform, y, "inverse")),
            ),
        )
    if has("forward") or callable(transform):
        return _called(transform, has)
    raise InputError(
        "expected a transform with forward and inverse that return an array and its log-det, with "
        "log_abs_det_jacobian(x, y), inverse_and_log_det or forward_log_det_jacobian, or a function, got "
        f"{kind_of(transform)}"
    )


def _transformed(transform, x, fresh):
    y = transform(x)
    log_det = transform.log_abs_det_jacobian(fresh(x), fresh(y))
    axes = getattr(getattr(transform, "domain", None), "event_dim", None)
    shape = () if axes is None else tuple(x.shape[: x.ndim - axes])
    given = tuple(getattr(log_det, "shape", ()))
    # A constant has no rows: it is given to each.
    if axes is not None and given != shape and _broadcasts(given, shape):
        log_det = log_det + fresh(x).reshape(*shape, -1)[..., 0] * 0
    return y, log_det


def _broadcasts(shape, to):
    return len(shape) <= len(to) and all(a in (1, b) for a, b in zip(tuple(shape)[::-1], to[::-1]))


def _composed(transform, depth=5):
    """Whether a transform is composed: its domain is then that of a part, and not what the parts share."""
    inner = [getattr(transform, name, None) for name in ("_inv", "base_transform", "base")]
    if hasattr(transform, "parts") or hasattr(transform, "transforms"):
        return True
    return depth > 0 and any(one is not None and _composed(one, depth - 1) for one in inner)


def _inner(made):
    """A transform, or that of a distribution."""
    return made if hasattr(made, "log_abs_det_jacobian") else made.transform


def _event(transform, x, direction):
    return max(x.ndim - 1, getattr(transform, f"{direction}_min_event_ndims", 0))


def _pair(words, transform, forward, inverse):
    forward, inverse = getattr(transform, forward), getattr(transform, inverse, None)
    call = lambda function: lambda x, context: function(x) if context is None else function(x, context)
    return Convention(words, call(forward), None if inverse is None else call(inverse))


def _called(transform, has):
    """A module or function that returns an array and its log-det."""
    function = transform.forward if has("forward") else transform
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        parameters = {}
    if has("inverse") or not parameters.keys() & BACKWARDS.keys():
        inverse = next((name for name in INVERSES if has(name)), "none")
        forward = "forward" if has("forward") else "__call__"
        return _pair(f"{forward} and {inverse} return an array and its log-det", transform, forward, inverse)
    name = next(name for name in BACKWARDS if name in parameters)
    # FrEIA's modules take and return tuples, its containers tensors.
    tuples = hasattr(transform, "dims_in") and not hasattr(transform, "module_list")

    def call(x, context, **options):
        given = () if context is None else ([context],) if hasattr(transform, "dims_in") else (context,)
        y, log_det = transform((x,) if tuples else x, *given, **options)
        return (y[0] if tuples and isinstance(y, (tuple, list)) and len(y) == 1 else y), log_det

    return Convention(
        f"forward(x, {name}={BACKWARDS[name]!r}) is the inverse",
        call,
        lambda y, context: call(y, context, **{name: BACKWARDS[name]}),
    )


def unavailable(error):
    """Whether an exception says that there is no inverse, rather than that it failed."""
    names = {parent.__name__ for parent in type(error).__mro__}
    return bool(names & set(UNAVAILABLE)) or (isinstance(error, KeyError) and "cache" in str(error))


# ---------------------------------------------------------------- domains


def inside_of(constraint, array):
    """A set as `check_functions` knows it, or None: the ends of an interval, or a function of rows.

    Parameters
    ----------
    constraint : object
        Such as ``transform.domain`` of torch.distributions or numpyro.
    array : callable
        Makes an array of the library from NumPy's.
    """
    try:
        while hasattr(constraint, "base_constraint"):
            constraint = constraint.base_constraint
        kind = type(constraint).__name__
        if constraint is None or "Dependent" in kind or "dependent" in kind:
            return None
        if kind in ("_Real", "Real"):
            return None  # what many say without looking
        ends = [getattr(constraint, f"{end}_bound", None) for end in ("lower", "upper")]
        if ends != [None, None] and "Integer" not in kind:
            low, high = (
                far if end is None else np.asarray(end, float) for end, far in zip(ends, (-np.inf, np.inf))
            )
            return low, high
        holds = getattr(constraint, "check", constraint)
        return (lambda rows: np.asarray(holds(array(rows)), bool)) if callable(holds) else None
    except Exception:  # a set that cannot be told is one that is not known
        return None


# ---------------------------------------------------------------- a transform


class Peer:
    """A transform of another library, its copies by dtype, and what is understood of it.

    A subclass says what arrays of its library are, how a transform is copied, and how its exact Jacobian is computed.
    """

    kind = ()  # the types of arrays
    pure = False  # whether a call can change no state

    def __init__(self, transform, inverse, x, context):
        self.given, self.x, self.context = (transform, inverse), x, context
        self.notes, self.versions, reasons = [], {}, []
        self.domain = self.codomain = None
        self.has_inverse, self.swapped = True, False
        for dtype in DTYPES:
            try:
                version = self.remade(self.versions.get(DTYPES[0], self.given), self.cast_to(dtype))
                if not self.versions:
                    self.first_call(version, dtype)
                y = self._understand(version, dtype)  # calls a copy: a module may keep what it computed
                self.versions[dtype] = version
            except InputError:
                raise
            except Exception as error:
                reasons.append(f"in {dtype}: {in_words(error)}")
        if not self.versions:
            raise InputError(f"expected a transform that can be called with x, got {reasons[0]}")
        if reasons:
            self.notes.append(f"checked in {next(iter(self.versions))} alone; {reasons[0]}")
        if self.has_inverse and y[0].size < x[0].size:
            # From a surface into fewer components: the inverse has a Jacobian, of the volume element or of a chart.
            self.x = self._calls(self.versions).forward(x.astype(y.dtype), context)[0].astype(x.dtype)
            self.domain, self.codomain, self.swapped = self.codomain, self.domain, True
            self.notes.append(
                "forward leads to fewer components: the inverse is checked as forward, and the other way round"
            )
        self.trained = self.trains(self.given)
        self.coarse = x.dtype == np.float32 or any(
            "float32" in str(array.dtype) for array in self.arrays(self.given)
        )
        self.differentiable = self._differentiable()

    # ------------------------------------------------------------ of a library

    def array(self, array):
        """An array of the library."""
        raise NotImplementedError

    def numpy(self, value):
        """An array of NumPy."""
        return np.asarray(value)

    def fresh(self, array):
        """A new array of equal numbers, so that no cache knows it."""
        raise NotImplementedError

    def calling(self, dtype):
        """The context in which a transform is called."""
        return contextlib.nullcontext()

    def cast_to(self, dtype):
        """A function of path and array that returns a copy, in a dtype where it has floats."""
        raise NotImplementedError

    def remade(self, value, of):
        """A deep copy in which each array is replaced by ``of(path, array)``."""
        return copied(value, self.kind, of)

    def arrays(self, value):
        """The arrays that a transform holds."""
        return [array for _, array in arrays_in(value, self.kind)]

    def trains(self, value):
        """The paths of the arrays that are trained."""
        return ()

    def conventions(self, version):
        """The convention of a transform, with the inverse that was handed over."""
        transform, inverse = version
        found = convention_of(transform, self.fresh)
        return (
            found if inverse is None else found._replace(inverse=convention_of(inverse, self.fresh).forward)
        )

    def first_call(self, version, dtype):
        """Call a module as it comes: what this changes, a copy starts with."""

    def exact(self, function, rows):
        """The Jacobian of a function of rows, shape (n, E, D), by the library."""
        raise NotImplementedError

    def gradients(self, version, dtype):
        """Yield the name and the gradient of each trained array, of the sum of what forward returns."""
        return ()

    # ------------------------------------------------------------ what is understood

    def batch(self, dtype, rows=slice(None)):
        """Some rows of x and of the context, which may be None, in a dtype; arrays of NumPy."""
        return [None if array is None else array[rows].astype(dtype) for array in (self.x, self.context)]

    def _understand(self, version, dtype):
        """Whether the results are pairs in that dtype, and there is an inverse."""
        calls = self._calls({dtype: version})
        x, context = self.batch(dtype, slice(2))
        y, _ = calls.forward(x, context)
        if y.dtype != dtype:
            raise TypeError(f"forward returned {y.dtype}")
        convention = calls.conventions[dtype]
        self.domain, self.codomain = (
            inside_of(one, self.array) for one in (convention.domain, convention.codomain)
        )
        reason = "no inverse" if convention.inverse is None else ""
        if not reason:
            try:
                calls.inverse(y, context)
            except Exception as error:
                reason = f"no inverse ({type(error).__name__})" if unavailable(error) else ""
        self.has_inverse = not reason
        notes = [
            f"understood: {convention.words}",
            *([f"{reason}: the forward half is checked"] if reason else []),
        ]
        self.notes += [note for note in notes if note not in self.notes]
        return y

    def _differentiable(self):
        """Whether the library has a Jacobian of forward."""
        try:
            matrices = self._calls(self.versions).jacobian(*self.batch(next(iter(self.versions)), slice(2)))
            if np.isfinite(matrices).all():
                return True
            reason = "it is not finite"
        except Exception as error:
            reason = in_words(error)
        self.notes.append(f"without an exact Jacobian of the library: {reason}")
        return False

    # ------------------------------------------------------------ the check

    def check(self, name, move, skip=(), **known):
        """The report of the transform as it is, and with its parameters moved."""
        known = {"domain": self.domain, "codomain": self.codomain} | known
        moves = MOVES if move and self.trained else ()
        reports, words = [], []
        for noise, signs in moves:
            further = self._run(self._calls(self._moved(noise, signs)), name, skip, known)
            reports, words = [further], [AWAY]
            if further.verdict != "not decided":
                break
        rest = []
        if reports:
            rest = [one for one, *_ in OF_FUNCTIONS if not any(part in one for part in OF_NUMBERS)]
            if self.differentiable and OWN not in skip and reports[-1][OWN].passed:
                rest.append(OWN)
        reports.append(self._run(self._calls(self.versions), name, (*skip, *rest), known))
        words.append("")
        report = joined(reports, words)
        report.skipped = tuple(skip)
        report.notes = (*self.notes, *report.notes)
        if self.trained:
            report.checks.append(self._start())
        return report

    def _calls(self, versions):
        """Calls of copies, so that a module whose parameters are moved keeps nothing that it computed before."""
        return copy.deepcopy(Calls(self, versions))

    def _run(self, calls, name, skip, known):
        report = self._functions(calls, name, skip, known)
        errors = [check.error for check in report.failures]
        if known.get("tolerance") is None and self.coarse and errors and max(errors) < COARSE:
            # A formula for float32 may add 1e-8 to be safe, and an inverse computed in float32 is one up to that alone.
            again = self._functions(calls, name, skip, known | {"tolerance": COARSE})
            again.notes = (
                *again.notes,
                f"exact as float32 is, not float64: errors up to {COARSE:.0e} are allowed",
            )
            return again
        return report

    def _functions(self, calls, name, skip, known):
        return check_functions(
            calls.forward,
            calls.inverse if self.has_inverse else None,
            self.x,
            context=self.context,
            skip=tuple(dict.fromkeys(skip)),
            jacobian=calls.jacobian if self.differentiable else None,
            log_det="sum",
            dtypes=tuple(map(str, self.versions)),
            name=name,
            **known,
        )

    def _moved(self, noise, signs):
        """Copies whose parameters are moved."""
        base, rng = next(iter(self.versions.values())), np.random.default_rng(0)

        def move(path, leaf):
            if path not in self.trained:
                return leaf
            return self.like(leaf, moved(rng, self.numpy(leaf).astype(np.float64), noise, signs))

        away = self.remade(base, move)
        return {dtype: self.remade(away, self.cast_to(dtype)) for dtype in self.versions}

    def like(self, leaf, array):
        """A parameter of the library like another one, with the numbers of an array."""
        return self.array(array)

    def _start(self):
        """The check of outputs and gradients where parameters start."""
        dtype, version = next(iter(self.versions.items()))
        try:
            array, log_det = Calls(self, {dtype: version}).forward(*self.batch(dtype))
            found = [("the array of forward", array), ("the log_det of forward", log_det)]
            found += [(f"the gradient in {name}", array) for name, array in self.gradients(version, dtype)]
            for what, array in found:
                if not np.isfinite(array).all():
                    return Check(START, 1.0, 0.0, "failed", f"{what} is not finite where parameters start")
        except Exception as error:
            return Check(START, np.nan, np.nan, "not decided", f"no gradient: {in_words(error)}")
        return Check(START, 0.0, 0.0, "passed")


class Calls:
    """Copies of a transform, by dtype, as functions of NumPy arrays."""

    def __init__(self, peer, versions):
        self.peer, self.versions = peer, versions

    def __deepcopy__(self, memo):
        # Without the conventions: their functions know the transforms that were not copied.
        if self.peer.pure:
            return self
        return Calls(
            self.peer, {d: self.peer.remade(v, self.peer.cast_to(d)) for d, v in self.versions.items()}
        )

    @functools.cached_property
    def conventions(self):
        """The convention of each copy."""
        found = {dtype: self.peer.conventions(version) for dtype, version in self.versions.items()}
        if self.peer.swapped:
            return {d: one._replace(forward=one.inverse, inverse=one.forward) for d, one in found.items()}
        return found

    def forward(self, x, context=None):
        return self._call("forward", x, context)

    def inverse(self, z, context=None):
        return self._call("inverse", z, context)

    def _call(self, direction, rows, context):
        peer, dtype = self.peer, rows.dtype
        with peer.calling(dtype):
            context = None if context is None else peer.array(context.astype(dtype))
            result = getattr(self.conventions[dtype], direction)(peer.array(rows), context)
            if not isinstance(result, (tuple, list)) or len(result) != 2:
                raise InputError(
                    f"expected {direction} to return an array and its log-det, got {in_short(result)}"
                )
            # Python's numbers have no dtype of their own.
            return tuple(
                np.asarray(part, dtype) if isinstance(part, (int, float)) else peer.numpy(part)
                for part in result
            )

    def jacobian(self, x, context=None):
        """The library's own Jacobian of forward."""
        peer = self.peer
        dtype = x.dtype if x.dtype in self.versions else next(iter(self.versions))
        with peer.calling(dtype):
            context = None if context is None else peer.array(context.astype(dtype))
            forward = self.conventions[dtype].forward
            return peer.numpy(peer.exact(lambda rows: forward(rows, context)[0], peer.array(x.astype(dtype))))


# ---------------------------------------------------------------- copies


def arrays_in(value, kind, path="", seen=None):
    """Yield the path and each array of some type that can be reached from an object by its attributes."""
    seen = {} if seen is None else seen
    if id(value) in seen:
        return
    seen[id(value)] = value
    if isinstance(value, kind):
        yield path, value
        return
    if isinstance(value, dict):
        children = value.items()
    elif isinstance(value, (list, tuple)):
        children = enumerate(value)
    elif isinstance(value, functools.partial):
        children = (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif isinstance(value, types.MethodType):
        children = (("__self__", value.__self__),)
    elif hasattr(value, "__dict__") and not isinstance(value, (type, types.ModuleType, types.FunctionType)):
        children = vars(value).items()
    else:
        return
    for name, child in children:
        private = name in ("_parameters", "_buffers", "_modules")  # of PyTorch's modules
        yield from arrays_in(child, kind, path if private else f"{path}.{name}" if path else str(name), seen)


def copied(value, kind, of):
    """A deep copy of an object in which each array is replaced by ``of(path, array)``.

    An object that cannot be copied is returned as it is.
    """
    found, objects = {}, {}
    for path, array in arrays_in(value, kind, seen=objects):
        found[id(array)] = of(path, array)
    try:
        for one in reversed(list(objects.values())):
            # A copy of torch.distributions' own would have nothing to invert.
            if type(one).__name__ == "_InverseTransform":
                found[id(one)] = copy.deepcopy(one.inv, found).inv
        return copy.deepcopy(value, found)
    except Exception:
        return value


# ---------------------------------------------------------------- parameters


def moved(rng, leaf, noise, signs):
    """A parameter moved by noise that is scaled as `check` scales it; half of its signs flipped where `signs` says so."""
    inputs = max(1, int(np.prod(leaf.shape[1:]))) if leaf.ndim > 1 else 1
    if signs:
        flips = rng.permuted(np.resize([-1.0, 1.0], leaf.size)).reshape(leaf.shape)
        leaf = leaf * np.where(np.abs(leaf) <= 1, flips, 1.0)
    return leaf + rng.normal(0, noise / np.sqrt(inputs), leaf.shape)


# ---------------------------------------------------------------- reports


def joined(reports, words):
    """One report of several: of each check the worst outcome, with the words for where it was found."""
    first = reports[0]
    checks = []
    for name in (check.name for check in first.checks):
        found = [
            (check, said) for one, said in zip(reports, words) for check in one.checks if check.name == name
        ]
        worst, said = min(found, key=lambda pair: RANK[pair[0].status])
        if said and worst.status in ("failed", "not decided"):
            worst = replace(worst, sentence=f"{worst.sentence} ({said})" if worst.sentence else said)
        checks.append(worst)
    notes = tuple(dict.fromkeys(note for report in reports for note in report.notes))
    return Report(first.subject, checks, first.jacobians, first.skipped, notes, first.essential)
