"""What the contract of a layer promises besides its formula: shapes, dtypes, purity, range.

Each check looks at a layer at one point and gives a `Finding`.
"""

import copy

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import Layout, tree, value_and_grad
from npflow.layers.layer import domain_of
from npflow.verify.finding import DIRECTIONS, Finding, difference, largest, yes_or_no
from npflow.verify.point import CannotRun, copy_tree

LARGE = 1e4  # how many times larger than its batch an input is that must not overflow

# ---------------------------------------------------------------- form


def shapes(point):
    """Rows and components are kept, and log-dets have shape (n,)."""
    n, width = len(point.x), point.x[0].size
    for direction in DIRECTIONS:
        y, log_det = point.call(direction, point.start(direction))
        if len(onp.shape(y)) < 2 or len(y) != n or y[0].size != width:
            return yes_or_no(
                f"{direction} of {n} rows of {width} numbers gave shape {onp.shape(y)}: "
                "a layer keeps the number of rows and of components"
            )
        if onp.shape(log_det) != (n,):
            return yes_or_no(
                f"expected log_det of {direction} to have shape ({n},), one number for each row, "
                f"got {onp.shape(log_det)}"
            )
    return yes_or_no("")


def dtype_kept(point, dtype):
    """One dtype throughout: the parameters of init, both outputs of both directions, all gradients."""
    point = point.cast(dtype)
    params = point.layer.init(onp.random.default_rng(0), point.x.copy())
    found = {f"init's {path!r}": leaf for path, leaf in tree.items(params) if tree.is_trained(leaf)}
    for direction in DIRECTIONS:
        array, log_det = point.call(direction, point.ordinary(direction))
        found |= {f"{direction}'s array": array, f"{direction}'s log_det": log_det}
        found |= {
            f"{direction}'s {name}": gradient for name, gradient in _gradients(point, direction).items()
        }
    if hasattr(point.layer, "log_det"):
        found["the method log_det's result"] = point.layer.log_det(copy_tree(point.params), point.x.copy())
    for name, array in found.items():
        if array is not None and onp.asarray(array).dtype != dtype:
            return yes_or_no(
                f"{name} is {onp.asarray(array).dtype} for {onp.dtype(dtype)} input (a NumPy scalar or array of another "
                "dtype takes part in it; or autograd's own derivative does it, as those of np.where, np.maximum, np.max "
                "and np.mean do: npflow.autodiff.primitives has a where)"
            )
    return yes_or_no("")


def output_dtype_kept(point, dtype):
    """One dtype in both outputs of both directions, for functions without parameters."""
    for direction in DIRECTIONS:
        for name, array in zip(("array", "log_det"), point.call(direction, point.ordinary(direction))):
            if onp.asarray(array).dtype != dtype:
                return yes_or_no(
                    f"{direction}'s {name} is {onp.asarray(array).dtype} for {onp.dtype(dtype)} input"
                )
    return yes_or_no("")


def float32_agrees(point):
    """In float32 both directions give what they give in float64, up to rounding."""
    single = point.cast(onp.float32)
    double = single.cast(onp.float64)
    worst = Finding(0.0, 1.0, "")
    for direction in DIRECTIONS:
        for name, a, b in zip(
            ("array", "log_det"),
            single.call(direction, single.ordinary(direction)),
            double.call(direction, double.ordinary(direction)),
        ):
            error = largest(difference(onp.asarray(a, onp.float64), b)) / (1 + largest(b))
            finding = Finding(
                error,
                100 * float(onp.finfo(onp.float32).eps) * (1 + point.condition),
                f"the {name} of {direction} differs between float32 and float64 by {error:.1e} (relative), which "
                "is more than rounding",
            )
            worst = max(worst, finding, key=lambda finding: finding.severity)
    return worst


def init_repeats(point):
    """The same generator gives the same parameters, and the batch is left as it is."""
    batches = [point.x.copy(), point.x.copy()]
    first, second = (point.layer.init(onp.random.default_rng(7), batch) for batch in batches)
    if not onp.array_equal(batches[0], point.x):
        return yes_or_no("init changed its batch in place")
    if Layout(first).difference(Layout(second)) or not all(
        onp.array_equal(a, b, equal_nan=True) for (_, a), (_, b) in zip(tree.items(first), tree.items(second))
    ):
        return yes_or_no(
            "init gave two trees for the same seed: it must draw from the rng that it is given alone"
        )
    return yes_or_no("")


def _gradients(point, direction):
    """Gradients in the input and in each parameter of the sum of everything that a direction returns."""

    def total(params, *_):
        y, log_det = getattr(point.layer, direction)(params["layer"], params["input"])
        return np.sum(y) + np.sum(log_det)

    _, gradient = value_and_grad(total)(
        {"layer": copy_tree(point.params), "input": point.ordinary(direction).copy()}
    )
    return {f"gradient in {path!r}": leaf for path, leaf in tree.items(gradient)}


def log_det_alone(point):
    """The method log_det, where there is one, gives the second half of forward."""
    method = getattr(point.layer, "log_det", None)
    if method is None:
        return yes_or_no("")
    alone, along = method(copy_tree(point.params), point.x.copy()), point.call("forward", point.x)[1]
    if onp.shape(alone) != onp.shape(along):
        return yes_or_no(f"the method log_det gave shape {onp.shape(alone)}, forward {onp.shape(along)}")
    return Finding(
        largest(difference(alone, along)) / (1 + largest(along)),
        1e-10,
        "the method log_det gave another number than the second half of forward",
    )


# ---------------------------------------------------------------- purity


def same_output_twice(point):
    """The same input gives the same output, to the bit."""
    for direction in DIRECTIONS:
        once, twice = (point.call(direction, point.start(direction)) for _ in range(2))
        if not _same(once, twice):
            return yes_or_no(
                f"{direction} gave two outputs for the same input: randomness belongs into init and sample, "
                "through rng"
            )
    return yes_or_no("")


def input_unchanged(point):
    """Neither the array nor the parameters are changed in place."""
    for direction in DIRECTIONS:
        array, params = point.start(direction).copy(), copy_tree(point.params)
        getattr(point.layer, direction)(params, array)
        if not onp.array_equal(array, point.start(direction)):
            return yes_or_no(
                f"{direction} changed its input in place (+=, *= or out= on the array passed in)"
            )
        changed = Layout(point.params).difference(Layout(params))
        if changed:
            return yes_or_no(f"{direction} changed the tree of parameters itself: {changed}")
        for (path, before), (_, after) in zip(tree.items(point.params), tree.items(params), strict=True):
            if not onp.array_equal(before, after, equal_nan=True):
                return yes_or_no(f"{direction} changed the parameter {path!r} in place")
    return yes_or_no("")


def no_memory(point):
    """What a direction returns does not depend on the batches that were seen before."""
    other = 0.75 * point.x[::-1] + 0.25 * point.x[:1]  # rows between rows: in the domain, if it is convex
    for direction, opposite in (("forward", "inverse"), ("inverse", "forward")):
        start, reached = point.start(direction), point.start(opposite)
        point.call(opposite, reached)
        fresh = point.call(direction, start)
        point.call(opposite, point.value(direction, other) if opposite == "inverse" else other)
        later = point.call(direction, start)
        if not _same(fresh, later):
            return yes_or_no(
                f"what {direction} returns depends on which batch {opposite} was called with before: "
                "something is kept between calls (a cached log_det?)"
            )
    first, second = copy.deepcopy(point.pristine), copy.deepcopy(point.pristine)
    point.call("forward", other, layer=second)
    if not _same(point.call("forward", point.x, layer=first), point.call("forward", point.x, layer=second)):
        return yes_or_no(
            "what forward returns depends on which batch it was called with first: something is kept from the "
            "first call (an initialization in forward instead of init?)"
        )
    return yes_or_no("")


def _same(pair, other):
    return all(onp.array_equal(a, b, equal_nan=True) for a, b in zip(pair, other))


def rows_independent(point, part):
    """Each row alone gives what it gives among the others; `part` is 0 for the array, 1 for the log-det."""
    name = ("array", "log_det")[part]
    worst = Finding(0.0, 1e-9, "")
    for direction in DIRECTIONS:
        start = point.start(direction)
        together = onp.asarray(point.call(direction, start)[part])
        if together.shape[:1] != (len(start),):
            raise CannotRun(f"the {name} of {direction} has shape {together.shape} for {len(start)} rows")
        for row in range(len(start)):
            alone = onp.asarray(point.call(direction, start[row : row + 1])[part]).reshape(
                together[row].shape
            )
            finding = Finding(
                largest(difference(together[row], alone)) / (1 + largest(alone)),
                1e-9,
                f"the {name} of {direction} in row {row} changes when the other rows are left out: rows "
                "influence each other (statistics of the batch, or a sum over it?)",
            )
            worst = max(worst, finding, key=lambda finding: finding.severity)
    return worst


# ---------------------------------------------------------------- range


def finite_for_large_inputs(point):
    """No overflow for inputs far outside the batch, in float64 and float32; to the ends of a bounded domain."""
    domains = {"forward": domain_of(point.layer), "inverse": (-onp.inf, onp.inf)}
    for scale in (1.0, LARGE):
        for dtype, at in ((onp.float64, point), (onp.float32, point.cast(onp.float32))):
            for direction in DIRECTIONS:
                inputs = onp.clip(scale * at.ordinary(direction), *domains[direction])
                for name, array in zip(("array", "log_det"), at.call(direction, inputs)):
                    if not onp.isfinite(array).all():
                        return yes_or_no(
                            f"the {name} of {direction} is not finite in {onp.dtype(dtype)} for ordinary inputs"
                            if scale == 1
                            else f"the {name} of {direction} is not finite in {onp.dtype(dtype)} for inputs "
                            f"{LARGE:.0e} times as large: an exp overflows; bound its argument"
                        )
    return yes_or_no("")
