"""A layer at one point of its parameters and on one batch: what every check looks at."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from npflow.autodiff import tree
from npflow.layers.composite import Composite, walk
from npflow.verify import jacobians
from npflow.verify.finding import DIRECTIONS


class CannotRun(Exception):
    """A check has no meaning for this layer as it is; the message says why."""


@dataclass(frozen=True)
class Point:
    """A layer, parameters, and a batch `x` in float64, at least two rows.

    Every call gets copies, so that a layer that changes its input spoils nothing but the check for it.
    """

    layer: object
    params: object
    x: np.ndarray
    pristine: object = None  # a copy of the layer from before its first call

    def call(self, direction, array, layer=None):
        """The pair that `direction` ("forward" or "inverse") returns."""
        with np.errstate(all="ignore"):
            result = getattr(layer or self.layer, direction)(copy_tree(self.params), array.copy())
        if not isinstance(result, tuple) or len(result) != 2:
            raise CannotRun(
                f"expected {direction} to return a pair of array and log_det, got a {type(result).__name__}"
            )
        return result

    def traced(self, direction):
        """A direction as a function of the array alone, for autograd to see through."""
        return lambda array: getattr(self.layer, direction)(copy_tree(self.params), array)[0]

    def value(self, direction, array):
        """The array that a direction gives."""
        return self.call(direction, array)[0]

    def log_det(self, direction, array):
        """The log-det that a direction gives, as one number a row even where its shape is wrong.

        Its shape has a check of its own; here a scalar counts for all rows and (n, 1) as (n,), so that
        the number itself is judged too.
        """
        log_det = np.asarray(self.call(direction, array)[1])
        if log_det.size not in (1, len(array)):
            raise CannotRun(f"log_det of {direction} has shape {log_det.shape} for {len(array)} rows")
        return np.broadcast_to(log_det.reshape(-1), len(array))

    @cached_property
    def z(self):
        return self.value("forward", self.x)

    def start(self, direction):
        """Where a direction starts: x for forward, z for inverse."""
        return self.x if direction == "forward" else self.z

    def ordinary(self, direction):
        """Numbers such as those of x for either direction, in the shape that it takes."""
        return self.x if direction == "forward" else self.x.reshape(self.z.shape)

    @cached_property
    def numerical(self):
        """For each direction, Jacobians by finite differences and their errors, (n, D, D) each."""
        return {
            direction: jacobians.by_finite_differences(
                lambda a, direction=direction: self.value(direction, a), self.start(direction)
            )
            for direction in DIRECTIONS
        }

    @cached_property
    def exact(self):
        """For each direction, Jacobians by autograd, (n, D, D)."""
        return {
            direction: jacobians.by_autograd(self.traced(direction), self.start(direction))
            for direction in DIRECTIONS
        }

    @cached_property
    def condition(self):
        """The largest condition number of the Jacobian over the rows: how much a round trip magnifies."""
        matrices, _ = self.numerical["forward"]
        return max(np.linalg.cond(matrix) if np.isfinite(matrix).all() else np.inf for matrix in matrices)

    def parts(self, direction):
        """For a layer that is made of layers, the log-det of each on the way; otherwise nothing."""
        if not isinstance(self.layer, Composite):
            return {}
        visits = walk(self.layer, self.params, self.start(direction), direction)
        return {visit.name.removeprefix("layer/"): visit.result[1] for visit in visits}

    def cast(self, dtype):
        """The same point in another dtype."""
        return replace(self, params=cast_tree(self.params, dtype), x=self.x.astype(dtype))


def cast_tree(params, dtype):
    """A parameter tree with its trained leaves in a dtype."""
    return tree.build(lambda _, leaf: np.asarray(leaf, dtype) if tree.is_trained(leaf) else leaf, params)


def copy_tree(params):
    """A deep copy of a parameter tree."""
    return tree.build(lambda _, leaf: np.array(leaf), params)
