"""A layer with parameters and a batch: what every check looks at."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.mistakes import not_a_pair
from npflow.errors import kind_of
from npflow.layers.composite import Composite, walk
from npflow.layers.layer import domain_of
from npflow.verify import jacobians
from npflow.verify.finding import DIRECTIONS, OPPOSITE, CannotRun

ROWS = 8  # that a Jacobian is computed at: each takes D^2 numbers and some 20 D calls
SCREENED = 8192  # calls of a row to choose those at
QUICK = 1e-5  # to which log-dets and quick differences must agree before an exact Jacobian settles the rest
TINY = 1e-3
APPROXIMATE = 1e-6  # in units of the spread: what does not come back more closely is no inverse


class PerDirection(dict):
    """A result for each direction, computed when it is asked for."""

    def __init__(self, compute):
        super().__init__()
        self.compute = compute

    def __missing__(self, direction):
        self[direction] = result = self.compute(direction)
        return result


@dataclass(frozen=True)
class Point:
    """A layer, its parameters, and a batch.

    Every call gets copies, so that only the check for it notices a layer that changes its input.

    Attributes
    ----------
    layer : object
        A layer, or `Functions`.
    params : tree of ndarray
    x : ndarray, shape (n, ...)
        In float64, unless `cast` made the point.
    pristine : object, optional
        A copy of the layer from before its first call.
    context : ndarray, shape (n, ...), optional
        A further argument of functions.
    whole : Point, optional
        The point that the rows are some of; its spread is the unit.
    rows : ndarray of int, optional
        Which rows of the user's x those of the point are; None where they are others.
    """

    layer: object
    params: object
    x: np.ndarray
    pristine: object = None
    context: np.ndarray | None = None
    whole: object = None
    rows: np.ndarray | None = None

    # ------------------------------------------------------------ calls

    def call(self, direction, array, layer=None):
        """The array and the log-det that `direction`, "forward" or "inverse", returns.

        `array` has the rows of the point, or several copies of each, one beside the other.
        """
        context = {}
        if self.context is not None:
            context = {"context": np.repeat(self.context, len(array) // len(self.context), axis=0)}
        with np.errstate(all="ignore"):
            result = getattr(layer or self.layer, direction)(copy_tree(self.params), array.copy(), **context)
        if not isinstance(result, tuple) or len(result) != 2:
            method = getattr(self.layer, "functions", {}).get(direction) or getattr(self.layer, direction)
            raise CannotRun(not_a_pair(direction, kind_of(result), method))
        return result

    @property
    def directions(self):
        """Forward and inverse, or forward alone where functions have no inverse."""
        return DIRECTIONS if self.has_inverse else DIRECTIONS[:1]

    @property
    def has_inverse(self):
        """Whether there is an inverse; functions need not have one."""
        return getattr(self.layer, "has_inverse", True)

    def outputs(self, inputs=None):
        """Yield each array and log-det with its name; ``inputs(direction)`` is the input of a direction, by default its start."""
        for direction in self.directions:
            pair = self.call(direction, inputs(direction)) if inputs else self.pairs[direction]
            for name, output in zip(("array", "log_det"), pair):
                yield f"the {name} of {direction}", np.asarray(output)

    def traced(self, direction):
        """A direction as a function of the array alone, for autograd to differentiate."""
        return lambda array: getattr(self.layer, direction)(copy_tree(self.params), array)[0]

    def value(self, direction, array):
        """The array that a direction returns."""
        return self.call(direction, array)[0]

    def log_det(self, direction):
        """The log-det that a direction returns at its start, shape (n,).

        A scalar counts for every row, and (n, 1) as (n,): another check judges the shape, and the number is
        judged too.
        """
        log_det, n = np.asarray(self.pairs[direction][1]), len(self.x)
        if log_det.size not in (1, n):
            raise CannotRun(f"log_det of {direction} has shape {log_det.shape} for {n} rows")
        return np.broadcast_to(log_det.reshape(-1), n)

    @cached_property
    def pairs(self):
        """The array and the log-det of each direction, at its start."""
        return PerDirection(lambda direction: self.call(direction, self.start(direction)))

    @property
    def z(self):
        """The array that forward makes of x."""
        return self.pairs["forward"][0]

    def start(self, direction):
        """The input of a direction: x for forward, z for inverse."""
        return self.x if direction == "forward" else self.z

    @property
    def same_size(self):
        """Whether x and z have equally many components: otherwise forward leads onto a surface."""
        return self.z[0].size == self.x[0].size

    @cached_property
    def trips(self):
        """For each direction what the other makes of its result, in the shape of its input."""

        def trip(direction):
            start, found = self.start(direction), self.pairs[direction][0]
            # What forward makes of x is where inverse starts.
            back = self.pairs["inverse"][0] if direction == "forward" else self.value("forward", found)
            return back.reshape(start.shape)

        return PerDirection(trip)

    @cached_property
    def apart(self):
        """For each direction what groups of rows give among all and alone: (point, rows, pair, pair) each.

        All rows are called in two halves, and some of the user's, or of few rows, one by one.
        """

        def calls(direction):
            few, n = self.few, len(self.x)
            groups = [(self, np.arange(n)[half::2]) for half in (0, 1)] if n > len(few.x) else []
            singles = len(few.x) if self.rows is not None else 0 if groups else 2
            groups = [(few, np.array([row])) for row in range(singles)] + groups
            return [
                (
                    whole,
                    rows,
                    whole.pairs[direction],
                    whole.at(rows).call(direction, whole.start(direction)[rows]),
                )
                for whole, rows in groups
            ]

        return PerDirection(calls)

    def visits(self, direction):
        """A list of `Visit`: the calls on the way through a layer that is made of layers; otherwise empty."""
        if not isinstance(self.layer, Composite):
            return []
        return list(walk(self.layer, copy_tree(self.params), self.start(direction).copy(), direction))

    # ------------------------------------------------------------ other rows

    def at(self, rows):
        """The point at some of its rows."""
        return replace(
            self,
            x=self.x[rows],
            context=None if self.context is None else self.context[rows],
            rows=None if self.rows is None else self.rows[rows],
            whole=self.whole or self,
        )

    def cast(self, dtype):
        """The same point in another dtype."""
        return replace(self, params=cast_tree(self.params, dtype), x=self.x.astype(dtype))

    def row(self, index):
        """What a row is called in a sentence."""
        return "a row between those of x" if self.rows is None else f"row {self.rows[index]}"

    @cached_property
    def few(self):
        """The point at the rows that Jacobians are computed at.

        They are those where a log-det is furthest from that of quick differences, the ends of z and of log-det, and
        random ones.
        """
        n = len(self.x)
        if n <= ROWS:
            return self
        suspects = [
            self.screened[np.argsort(-self.looked.suspicion[direction])[:2]] for direction in self.directions
        ]
        random = np.random.default_rng(n + 1).permutation(n)
        return self.at(_first([*np.concatenate(suspects), *self.extreme[:3], *random], ROWS))

    @cached_property
    def extreme(self):
        """The rows at the ends of log-det, of the size of z, and of each component of z and x."""
        n, z, x = len(self.x), self.z.reshape(len(self.x), -1), self.x.reshape(len(self.x), -1)
        try:
            log_det = self.log_det("forward")
        except CannotRun:  # a log-det of another shape
            log_det = np.zeros(n)
        columns = np.column_stack([log_det, np.sum(np.abs(z) / self.units[1], axis=1), z, np.abs(x), x])
        columns = np.where(np.isfinite(columns), columns, 0.0)
        return np.stack([np.argmax(columns, axis=0), np.argmin(columns, axis=0)], axis=1).reshape(-1)

    @cached_property
    def screened(self):
        """The rows that quick differences are taken at: all, or those that are extreme, and random ones."""
        n, width = len(self.x), max(self.x[0].size, self.z[0].size)
        most = max(ROWS, SCREENED // (2 * width))
        if n <= most:
            return np.arange(n)
        return _first([*self.extreme, *np.random.default_rng(n).permutation(n)], most)

    @cached_property
    def looked(self):
        """The point at those rows."""
        return self if len(self.screened) == len(self.x) else self.at(self.screened)

    @cached_property
    def suspicion(self):
        """How far each log-det is from that of quick differences; nan where that is not known."""

        def off(direction):
            unknown = np.full(len(self.x), np.nan)
            if direction == "inverse" and not self.same_size:
                return unknown
            try:
                claimed, matrices = self.log_det(direction), self.quick(direction)
            except CannotRun:
                return unknown
            with np.errstate(all="ignore"):
                if self.same_size:
                    true = np.linalg.slogdet(matrices)[1]
                else:
                    true = np.linalg.slogdet(np.swapaxes(matrices, 1, 2) @ matrices)[1] / 2
                off = np.where(np.isfinite(claimed), np.abs(claimed - true), np.inf)
                return np.where(np.isfinite(true), off, np.nan)

        return PerDirection(off)

    def quick(self, direction):
        """Jacobians of a direction by one small difference for each entry, shape (n, E, D)."""
        value = lambda rows: self.value(direction, rows)
        return jacobians.by_small_differences(value, self.start(direction), self.ends(direction)[0])

    @cached_property
    def settled(self):
        """How far log-dets are from those of quick differences, relative, where these and an exact Jacobian decide.

        None where they do not: without an exact Jacobian, where quick differences say another thing, and for forward
        at the rows of x, where the exact Jacobian itself is held against differences.
        """

        def relative(direction):
            layer = self.layer
            if getattr(layer, "jacobian", None) is None or not self.same_size:
                return None
            if direction == "forward" and self.rows is not None and not layer.trusted:
                return None
            looked = (self.whole or self).looked
            off = np.max(looked.suspicion[direction] / np.maximum(1, np.abs(looked.log_det(direction))))
            return off if off <= QUICK and np.isfinite(self.exact[direction]).all() else None

        return PerDirection(relative)

    # ------------------------------------------------------------ units and noise

    @cached_property
    def units(self):
        """The spread of the components of x, shape (D,), and of z, shape (E,)."""
        return self.whole.units if self.whole else (jacobians.spread(self.x), jacobians.spread(self.z))

    def ends(self, direction):
        """The spread of the components of what a direction takes, and of what it returns."""
        return self.units if direction == "forward" else self.units[::-1]

    def unit(self, direction):
        """The spread of the input of a direction, in the shape of a row."""
        shape = self.start(direction).shape[1:]
        return self.ends(direction)[0].reshape(shape)

    @property
    def eps(self):
        """The rounding of the dtype that is computed in."""
        return getattr(self.layer, "eps", jacobians.EPS)

    @property
    def approximate(self):
        """What must come back more closely than this, in units of its spread."""
        return max(APPROXIMATE, 1e4 * self.eps, self.own)

    @property
    def own(self):
        """The tolerance that functions were handed over with, otherwise 0."""
        return getattr(self.layer, "tolerance", None) or 0.0

    def lost(self, direction, least=1.0):
        """How far rounding may move what comes back where a layer computes with numbers of the order of one.

        It is in units of the spread: a layer that adds 0.5 to x of the order of 1e-12 keeps four digits.
        """
        size = max(least, *(np.max(np.abs(a), initial=0.0, where=np.isfinite(a)) for a in (self.x, self.z)))
        return 1e3 * self.eps * size / np.min(self.unit(direction), initial=np.inf)

    @cached_property
    def noise(self):
        """How far the values of each direction may be off, in units of their spread: as round trips show it."""

        def measured(direction):
            opposite = OPPOSITE[direction]
            rounding = self.lost(opposite, least=0.0) / 1e3
            if opposite not in self.directions:
                return rounding
            start = self.start(opposite)
            with np.errstate(all="ignore"):
                off = np.abs(self.trips[opposite] - start) / self.unit(opposite)
                off = np.max(off, initial=rounding, where=np.isfinite(off))
            return float(off) if off <= max(self.approximate, self.lost(opposite)) else rounding

        return PerDirection(measured)

    # ------------------------------------------------------------ Jacobians

    @cached_property
    def numerical(self):
        """Jacobians of each direction by finite differences and their errors, shape (n, E, D) each."""
        return PerDirection(self.differences)

    def differences(self, direction, steps=jacobians.STEPS):
        """Jacobians of a direction by finite differences with some first steps, and their errors."""
        value = lambda array: self.value(direction, array)
        start, y = self.start(direction), self.pairs[direction][0]
        return jacobians.by_finite_differences(
            value, start, self.noise[direction], self.ends(direction), steps, y
        )

    @cached_property
    def matrices(self):
        """Jacobians of each direction and their errors: exact ones where they settle it, otherwise `numerical`."""

        def found(direction):
            if self.settled[direction] is None:
                return self.numerical[direction]
            return self.exact[direction], self.rounding(direction)

        return PerDirection(found)

    def rounding(self, direction):
        """That of exact Jacobians: where terms cancel, it is that of the terms, of the order of the spread."""
        inputs, outputs = self.ends(direction)
        return jacobians.EPS * (np.abs(self.exact[direction]) + outputs[:, None] / inputs)

    @cached_property
    def exact(self):
        """Jacobians of each direction, shape (n, E, D): by autograd, or as functions hand them over."""
        own = getattr(self.layer, "jacobian", None)
        if own is None:
            trace = lambda direction: jacobians.by_autograd(self.traced(direction), self.start(direction))
            return PerDirection(trace)
        matrices = own(self.x, self.context)
        return {"forward": matrices, "inverse": jacobians.inverted(matrices)}

    @cached_property
    def conditions(self):
        """How much a round trip from each direction magnifies rounding, in units of the spread, for each row."""
        n = len(self.x)
        ends = zip((self.x, self.z), self.units)
        with np.errstate(all="ignore"):
            sizes = [np.max(np.abs(end.reshape(n, -1)) / unit, axis=1, initial=1.0) for end, unit in ends]

        def numbers(direction):
            inputs, outputs = self.ends(direction)
            scaled = self.matrices[direction][0] * inputs / outputs[:, None]
            found, finite = np.full(n, np.inf), np.isfinite(scaled).all(axis=(1, 2))
            found[finite] = np.linalg.cond(scaled[finite])
            return np.nan_to_num(np.maximum(*sizes), nan=np.inf) * found

        return PerDirection(numbers)

    @cached_property
    def condition(self):
        """The largest of them, forward."""
        return float(np.max(self.conditions["forward"]))


def _first(candidates, count):
    """The first different ones of some rows."""
    return np.array(list(dict.fromkeys(candidates))[:count])


def cast_tree(params, dtype):
    """A parameter tree with its trained leaves in a dtype."""
    return tree.build(lambda _, leaf: np.asarray(leaf, dtype) if tree.is_trained(leaf) else leaf, params)


def copy_tree(params):
    """A deep copy of a parameter tree."""
    return tree.build(lambda _, leaf: np.array(leaf), params)


def unit_of(leaf):
    """The unit that a parameter is moved in: 1, or the size of numbers so small that they are in that of the data."""
    size = float(np.max(np.abs(leaf), initial=0.0))
    return size if 0 < size < TINY else 1.0


def within(layer, x):
    """`x` clipped to the inside of the domain of a layer."""
    low, high = domain_of(layer)
    margin = lambda end: 1e-6 * max(1.0, abs(end)) if np.isfinite(end) else 0.0
    return np.clip(x, low + margin(low), high - margin(high))
