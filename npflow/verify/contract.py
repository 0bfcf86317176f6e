"""What the contract of a layer promises besides its formula: shapes, dtypes, purity, range.

Each check looks at a layer at one point. It returns a `Finding`; or, where an error has no size, the
complaint as a string, and None where there is none.
"""

import copy

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import Layout, tree
from npflow.autodiff.mistakes import explained, read_only
from npflow.autodiff.program.frames import line_of
from npflow.autodiff.program.recorder import recorded
from npflow.layers.layer import check_pair, check_start
from npflow.verify.finding import DIRECTIONS, Finding, relative_difference, worst
from npflow.verify.point import CannotRun, copy_tree, within

LARGE = 1e4  # a layer must not overflow for inputs this many times larger than its batch

# ---------------------------------------------------------------- form


def shapes(point):
    """Rows and components are kept, and log-dets have shape (n,)."""
    n, width = len(point.x), point.x[0].size
    for direction in DIRECTIONS:
        y, log_det = point.call(direction, point.start(direction))
        if len(onp.shape(y)) < 2 or len(y) != n or y[0].size != width:
            return (
                f"{direction} of {n} rows of {width} numbers gave shape {onp.shape(y)}: "
                f"a layer keeps the number of rows and of components, at {line_of(getattr(point.layer, direction))}"
            )
        if onp.shape(log_det) != (n,):
            return (
                f"expected log_det of {direction} to have shape ({n},), one number for each row, "
                f"got {onp.shape(log_det)}, at {line_of(getattr(point.layer, direction))}"
            )
    return None


def log_det_alone(point):
    """The method log_det, where there is one, returns the second half of forward."""
    method = getattr(point.layer, "log_det", None)
    if method is None:
        return None
    alone, along = method(copy_tree(point.params), point.x.copy()), point.call("forward", point.x)[1]
    if onp.shape(alone) != onp.shape(along):
        return f"the method log_det gave shape {onp.shape(alone)}, forward {onp.shape(along)}"
    sentence = "the method log_det gave another number than the second half of forward"
    return Finding(relative_difference(alone, along), 1e-10, sentence)


# ---------------------------------------------------------------- dtypes


def dtype_kept(point, dtype):
    """One dtype throughout: the parameters of init, both outputs of both directions, all gradients."""
    point = point.cast(dtype)
    params = point.layer.init(onp.random.default_rng(0), point.x.copy())
    check_start(point.layer.init, params, point.x)
    found = {}
    for direction in DIRECTIONS:
        x = point.ordinary(direction)
        check_pair(getattr(point.layer, direction), point.call(direction, x), copy_tree(point.params), x)

        def total(params, *_, direction=direction):
            y, log_det = getattr(point.layer, direction)(params["layer"], params["input"])
            return np.sum(y) + np.sum(log_det)

        everything = {"layer": copy_tree(point.params), "input": point.ordinary(direction).copy()}
        tape = recorded(total, everything)[1]  # as `fit` does: no number is read off an array
        names = [path for path, leaf in tree.items(everything) if tree.is_trained(leaf)]
        leaves = [getattr(leaf, "example", leaf) for leaf in tape.gradients]
        found |= {f"{direction}'s gradient in {path!r}": leaf for path, leaf in zip(names, leaves)}
    if hasattr(point.layer, "log_det"):
        found["the method log_det's result"] = point.layer.log_det(copy_tree(point.params), point.x.copy())
    return _of_another_dtype(
        found,
        dtype,
        " (a NumPy scalar or array of another dtype takes part in it)",
    )


def output_dtype_kept(point, dtype):
    """One dtype in both outputs of both directions, for functions without parameters."""
    return _of_another_dtype(dict(point.outputs(point.ordinary)), dtype)


def _of_another_dtype(found, dtype, reason=""):
    """The complaint about the first array that has not the dtype of the input."""
    for name, array in found.items():
        if array is not None and onp.asarray(array).dtype != dtype:
            return f"{name} is {onp.asarray(array).dtype} for {onp.dtype(dtype)} input{reason}"
    return None


def float32_agrees(point):
    """In float32 both directions return what they return in float64, up to rounding."""
    single = point.cast(onp.float32)
    double = single.cast(onp.float64)
    tolerance = 100 * float(onp.finfo(onp.float32).eps) * (1 + point.condition)
    findings = []
    for (name, a), (_, b) in zip(single.outputs(single.ordinary), double.outputs(double.ordinary)):
        error = relative_difference(a.astype(onp.float64), b)
        sentence = f"{name} differs between float32 and float64 by {error:.1e} (relative): more than rounding"
        findings.append(Finding(error, tolerance, sentence))
    return worst(findings)


# ---------------------------------------------------------------- purity


def init_repeats(point):
    """The same generator gives the same parameters, and init leaves its batch alone."""
    batches = [point.x.copy(), point.x.copy()]
    first, second = (point.layer.init(onp.random.default_rng(7), batch) for batch in batches)
    if not onp.array_equal(batches[0], point.x):
        line = where_written(point.layer.init, onp.random.default_rng(7), read_only(point.x))
        return f"init changed its batch in place, at {line}"
    if Layout(first).difference(Layout(second)) or not _same_leaves(first, second):
        return "init gave two trees for the same seed: it must draw from the rng that it is given alone"
    return None


def same_output_twice(point):
    """The same input gives the same output, to the bit."""
    for direction in DIRECTIONS:
        once, twice = (point.call(direction, point.start(direction)) for _ in range(2))
        if not _same_leaves(once, twice):
            return (
                f"{direction} gave two outputs for the same input: randomness belongs into init and sample, "
                "through rng"
            )
    return None


def input_unchanged(point):
    """Neither the array nor the parameters are changed in place."""
    for direction in DIRECTIONS:
        array, params = point.start(direction).copy(), copy_tree(point.params)
        getattr(point.layer, direction)(params, array)
        if not onp.array_equal(array, point.start(direction)):
            line = where_written(getattr(point.layer, direction), copy_tree(point.params), read_only(array))
            return (
                f"{direction} changed its input in place (+=, *= or out= on the array passed in), at {line}"
            )
        changed = Layout(point.params).difference(Layout(params))
        if changed:
            return f"{direction} changed the tree of parameters itself: {changed}"
        for (path, before), (_, after) in zip(tree.items(point.params), tree.items(params), strict=True):
            if not onp.array_equal(before, after, equal_nan=True):
                line = where_written(getattr(point.layer, direction), read_only(params), array)
                return f"{direction} changed the parameter {path!r} in place, at {line}"
    return None


def where_written(method, *arguments):
    """The line where a method writes to arrays that cannot be written to."""
    try:
        method(*arguments)
    except Exception as error:
        return str(explained(error)).rpartition(", at ")[2]
    return line_of(method, last=False)


def no_memory(point):
    """What a direction returns does not depend on the batches that came before."""
    other = 0.75 * point.x[::-1] + 0.25 * point.x[:1]  # rows between rows: inside the domain, if it is convex
    for direction, opposite in (("forward", "inverse"), ("inverse", "forward")):
        start, reached = point.start(direction), point.start(opposite)
        point.call(opposite, reached)
        fresh = point.call(direction, start)
        point.call(opposite, point.value(direction, other) if opposite == "inverse" else other)
        if not _same_leaves(fresh, point.call(direction, start)):
            return (
                f"what {direction} returns depends on which batch {opposite} was called with before: "
                "something is kept between calls (a cached log_det?)"
            )
    first, second = copy.deepcopy(point.pristine), copy.deepcopy(point.pristine)
    point.call("forward", other, layer=second)
    if not _same_leaves(*(point.call("forward", point.x, layer=layer) for layer in (first, second))):
        return (
            "what forward returns depends on which batch it was called with first: something is kept from "
            "the first call (an initialization in forward instead of init?)"
        )
    return None


def _same_leaves(first, second):
    """Whether two trees of one layout hold the same numbers; nan equals nan."""
    pairs = zip(tree.items(first), tree.items(second))
    return all(onp.array_equal(a, b, equal_nan=True) for (_, a), (_, b) in pairs)


def rows_independent(point, part):
    """Each row alone gives what it gives among the others; `part` is 0 for the array, 1 for the log-det."""
    name, findings = ("array", "log_det")[part], []
    for direction in DIRECTIONS:
        start = point.start(direction)
        together = onp.asarray(point.call(direction, start)[part])
        if together.shape[:1] != (len(start),):
            raise CannotRun(f"the {name} of {direction} has shape {together.shape} for {len(start)} rows")
        for row, among in enumerate(together):
            alone = onp.asarray(point.call(direction, start[row : row + 1])[part]).reshape(among.shape)
            sentence = (
                f"the {name} of {direction} in row {row} changes when the other rows are left out: rows "
                "influence each other (statistics of the batch, or a sum over it?)"
            )
            findings.append(Finding(relative_difference(among, alone), 1e-9, sentence))
    return worst(findings)


# ---------------------------------------------------------------- range


def finite_for_large_inputs(point):
    """No overflow far outside the batch, or at the ends of a bounded domain, in float64 and float32."""
    for scale, inputs, reason in (
        (1.0, "ordinary inputs", ""),
        (LARGE, f"inputs {LARGE:.0e} times as large", ": an exp overflows; bound its argument"),
    ):
        for dtype in (onp.float64, onp.float32):
            at = point.cast(dtype)

            def large(direction, at=at, scale=scale):
                x = scale * at.ordinary(direction)
                return within(at.layer, x) if direction == "forward" else x

            for name, array in at.outputs(large):
                if not onp.isfinite(array).all():
                    return f"{name} is not finite in {onp.dtype(dtype)} for {inputs}{reason}"
    return None
