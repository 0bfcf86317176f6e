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
from npflow.verify.finding import DIRECTIONS


class CannotRun(Exception):
    """A check has no meaning for this layer as it is; the message says why."""


@dataclass(frozen=True)
class Point:
    """A layer, its parameters, and a batch.

    Every call gets copies, so that only the check for it notices a layer that changes its input.

    Attributes
    ----------
    layer : object
    params : tree of ndarray
    x : ndarray, shape (n, ...), n >= 2
        In float64, unless `cast` made the point.
    pristine : object, optional
        A copy of the layer from before its first call.
    """

    layer: object
    params: object
    x: np.ndarray
    pristine: object = None

    def call(self, direction, array, layer=None):
        """The array and the log-det that `direction`, "forward" or "inverse", returns."""
        with np.errstate(all="ignore"):
            result = getattr(layer or self.layer, direction)(copy_tree(self.params), array.copy())
        if not isinstance(result, tuple) or len(result) != 2:
            method = getattr(self.layer, "functions", {}).get(direction) or getattr(self.layer, direction)
            raise CannotRun(not_a_pair(direction, kind_of(result), method))
        return result

    def outputs(self, inputs):
        """Yield each array and log-det with its name; ``inputs(direction)`` is the input of a direction."""
        for direction in DIRECTIONS:
            for name, output in zip(("array", "log_det"), self.call(direction, inputs(direction))):
                yield f"the {name} of {direction}", np.asarray(output)

    def traced(self, direction):
        """A direction as a function of the array alone, for autograd to differentiate."""
        return lambda array: getattr(self.layer, direction)(copy_tree(self.params), array)[0]

    def value(self, direction, array):
        """The array that a direction returns."""
        return self.call(direction, array)[0]

    def log_det(self, direction, array):
        """The log-det that a direction returns, shape (n,).

        A scalar counts for every row, and (n, 1) as (n,): another check judges the shape, and the number is
        judged too.
        """
        log_det = np.asarray(self.call(direction, array)[1])
        if log_det.size not in (1, len(array)):
            raise CannotRun(f"log_det of {direction} has shape {log_det.shape} for {len(array)} rows")
        return np.broadcast_to(log_det.reshape(-1), len(array))

    @cached_property
    def z(self):
        """The array that forward makes of x."""
        return self.value("forward", self.x)

    def start(self, direction):
        """The input of a direction: x for forward, z for inverse."""
        return self.x if direction == "forward" else self.z

    def ordinary(self, direction):
        """The numbers of x in the shape of a direction's input."""
        return self.x if direction == "forward" else self.x.reshape(self.z.shape)

    @cached_property
    def numerical(self):
        """Jacobians of each direction by finite differences and their errors, shape (n, D, D) each."""
        return {
            direction: jacobians.by_finite_differences(
                lambda a, direction=direction: self.value(direction, a), self.start(direction)
            )
            for direction in DIRECTIONS
        }

    @cached_property
    def exact(self):
        """Jacobians of each direction by autograd, shape (n, D, D)."""
        return {
            direction: jacobians.by_autograd(self.traced(direction), self.start(direction))
            for direction in DIRECTIONS
        }

    @cached_property
    def condition(self):
        """The largest condition number of a row's Jacobian: how much a round trip magnifies rounding."""
        matrices, _ = self.numerical["forward"]
        return max(np.linalg.cond(matrix) if np.isfinite(matrix).all() else np.inf for matrix in matrices)

    def visits(self, direction):
        """A list of `Visit`: the calls on the way through a layer that is made of layers; otherwise empty."""
        if not isinstance(self.layer, Composite):
            return []
        return list(walk(self.layer, copy_tree(self.params), self.start(direction).copy(), direction))

    def cast(self, dtype):
        """The same point in another dtype."""
        return replace(self, params=cast_tree(self.params, dtype), x=self.x.astype(dtype))


def cast_tree(params, dtype):
    """A parameter tree with its trained leaves in a dtype."""
    return tree.build(lambda _, leaf: np.asarray(leaf, dtype) if tree.is_trained(leaf) else leaf, params)


def copy_tree(params):
    """A deep copy of a parameter tree."""
    return tree.build(lambda _, leaf: np.array(leaf), params)


def within(layer, x):
    """`x` clipped to the inside of the domain of a layer."""
    low, high = domain_of(layer)
    margin = lambda end: 1e-6 * max(1.0, abs(end)) if np.isfinite(end) else 0.0
    return np.clip(x, low + margin(low), high - margin(high))
