"""What the contract of a layer promises besides its formula: shapes, dtypes, purity, range.

Each check looks at a layer at one point. It returns a `Finding`; or, where an error has no size, the
complaint as a string, and None where there is none.
"""

import copy
from dataclasses import replace

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import Layout, tree, value_and_grad
from npflow.autodiff.mistakes import explain, read_only
from npflow.autodiff.program.frames import line_of
from npflow.autodiff.program.recorder import make_tape
from npflow.layers.layer import check_pair, check_start
from npflow.verify import jacobians
from npflow.verify.finding import OPPOSITE, CannotRun, Finding, NotDecided, difference, in_words, worst
from npflow.verify.point import copy_tree, within

LARGE = 1e4  # a layer must not overflow for inputs this many times larger than its batch
PROMOTED = " (a NumPy scalar or array of another dtype takes part in it)"

# ---------------------------------------------------------------- form


def shapes(point):
    """Rows and components are kept, and log-dets have shape (n,)."""
    n, width, may_change = len(point.x), point.x[0].size, hasattr(point.layer, "chart")
    for direction in point.directions:
        start = point.start(direction)
        y, log_det = point.pairs[direction]
        shape = onp.shape(y)
        kept = shape[:1] == (n,) and (len(shape) > 1 or start.ndim == 1)
        if kept and direction == "forward" and may_change:
            kept = y[0].size >= width
        elif kept:
            kept = y[0].size == width
        if not kept:
            return (
                f"{direction} of {n} rows of {start[0].size} numbers gave shape {shape}: "
                f"a layer keeps the number of rows and of components{at_line(point, direction)}"
            )
        if onp.shape(log_det) != (n,):
            one_each = onp.shape(log_det) in ((n, 1), onp.shape(start), shape)
            each = '; log_det="sum" adds them up over a row' if may_change and one_each else ""
            return (
                f"expected log_det of {direction} to have shape ({n},), one number for each row, "
                f"got {onp.shape(log_det)}{each}{at_line(point, direction)}"
            )
    return None


def at_line(point, direction):
    """The line where a method of a layer returns, for the end of a sentence; none for two functions."""
    if hasattr(point.layer, "chart"):
        return ""
    return f", at {line_of(getattr(point.layer, direction))}"


def finite(point):
    """Both directions give numbers: forward at x, inverse at what forward gave."""
    for direction in point.directions:
        array = onp.asarray(point.pairs[direction][0])
        rows = onp.isfinite(array.reshape(len(array), -1)).all(axis=1)
        if not rows.all():
            error = getattr(point.layer, "raised", {}).get(direction)
            said = f" (it raised {in_words(error)})" if error else ""
            value = array.reshape(len(array), -1)[onp.argmin(rows)]
            value = value[onp.argmin(onp.isfinite(value))]
            back = "" if direction == "forward" else " of what forward made of x"
            return (
                f"the array of {direction} is {value} in {point.row(int(onp.argmin(rows)))}{back}, and not finite "
                f"in {onp.sum(~rows)} of {len(rows)} rows{said}"
            )
    return None


def log_det_alone(point):
    """The method log_det, where there is one, returns the second half of forward."""
    method = getattr(point.layer, "log_det", None)
    if method is None:
        return None
    point = point.few
    alone, along = method(copy_tree(point.params), point.x.copy()), point.pairs["forward"][1]
    if onp.shape(alone) != onp.shape(along):
        return f"the method log_det gave shape {onp.shape(alone)}, forward {onp.shape(along)}"
    sentence = "the method log_det gave another number than the second half of forward"
    return Finding(difference(alone, along), 1e-10, sentence)


# ---------------------------------------------------------------- dtypes


def dtype_kept(point, dtype):
    """One dtype throughout: the parameters of init, both outputs of both directions, all gradients.

    It does not depend on the numbers: one point is enough to see it.
    """
    if point.rows is None:
        return None
    _fits(point.few, dtype)
    point = point.few.cast(dtype)
    params = point.layer.init(onp.random.default_rng(0), point.x.copy())
    check_start(point.layer.init, params, point.x)
    found = {f"init's {path!r}": leaf for path, leaf in tree.items(params) if tree.is_trained(leaf)}
    found |= dict(point.outputs())
    for direction in point.directions:
        start = point.start(direction).astype(dtype)
        check_pair(getattr(point.layer, direction), point.pairs[direction], copy_tree(point.params), start)

        def total(params, *_, direction=direction):
            y, log_det = getattr(point.layer, direction)(params["layer"], params["input"])
            return np.sum(y) + np.sum(log_det)

        everything = {"layer": copy_tree(point.params), "input": start}
        tape = make_tape(total, everything)[1]  # as `fit` does: no number is read off an array
        names = [path for path, leaf in tree.items(everything) if tree.is_trained(leaf)]
        leaves = [getattr(leaf, "example", leaf) for leaf in tape.gradients]
        found |= {f"{direction}'s gradient in {path!r}": leaf for path, leaf in zip(names, leaves)}
    if hasattr(point.layer, "log_det"):
        found["the method log_det's result"] = point.layer.log_det(copy_tree(point.params), point.x.copy())
    return _of_another_dtype(found, dtype, PROMOTED)


def float64_kept(point):
    """Functions give float64 for float64."""
    return _of_another_dtype(_but_constants(dict(point.few.outputs())), onp.float64)


def _but_constants(found):
    """Without log-dets that are one number for all rows: the dtype of such a constant is judged elsewhere."""
    return {
        name: array
        for name, array in found.items()
        if not (name.startswith("the log_det") and onp.ptp(onp.asarray(array, onp.float64)) == 0)
    }


def float32_kept(point):
    """Functions give float32 for float32 in all that they return.

    Where x came in float64 the functions may hold float64 constants. Then only a part of the results in float64 is a
    failure, and a log-det that is one number for all rows is none.
    """
    few = point.few
    try:
        found = dict(few.outputs(lambda direction: few.start(direction).astype(onp.float32)))
    except Exception as error:
        raise NotDecided(f"float32 is not taken: {in_words(error)}") from error
    if not point.layer.strict:
        found = _but_constants(found)
        if all(onp.asarray(array).dtype == onp.float64 for array in found.values()):
            raise NotDecided(
                "all results are float64 for float32 input, as with constants in float64: hand over x in float32 to "
                "make that a failure"
            )
    return _of_another_dtype(found, onp.float32, PROMOTED)


def _fits(point, dtype):
    """Nothing is decided in a dtype that x or z, or their squares, overflow in."""
    size = max(onp.max(onp.abs(point.start(direction)), initial=0.0) for direction in point.directions)
    if size > onp.sqrt(onp.finfo(dtype).max):
        raise NotDecided(f"x or z is so large that its square overflows in {onp.dtype(dtype)}: standardize x")


def _of_another_dtype(found, dtype, reason=""):
    """The complaint about the first array that has not the dtype of the input."""
    for name, array in found.items():
        if array is not None and onp.asarray(array).dtype != dtype:
            return f"{name} is {onp.asarray(array).dtype} for {onp.dtype(dtype)} input{reason}"
    return None


def float32_agrees(point):
    """In float32 both directions return what they return in float64, up to rounding."""
    single = point.few.cast(onp.float32)
    double = single.cast(onp.float64)
    _fits(point.few, onp.float32)
    start = lambda direction: point.few.start(direction).astype(onp.float32)
    tolerance = 100 * float(onp.finfo(onp.float32).eps) * (1 + point.few.condition)
    findings = []
    outputs = zip(single.outputs(start), double.outputs(lambda d: start(d).astype(onp.float64)))
    for (name, a), (_, b) in outputs:
        error = difference(a.astype(onp.float64), b)
        sentence = f"{name} differs between float32 and float64 by {error:.1e} (relative): more than rounding"
        lost = ~onp.isfinite(a) & onp.isfinite(b)
        if lost.any():
            sentence = f"{name} is {a[lost][0]} in float32, and {b[lost][0]:.6g} in float64, in row {onp.argwhere(lost)[0, 0]}"
        if error > 1e-2 and error <= tolerance:
            raise NotDecided(
                "rounding takes so many digits of float32 that nothing can be compared: standardize x"
            )
        findings.append(Finding(error, min(tolerance, 1e-2), sentence))
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
    for direction in point.directions:
        # One call right after the other: what other calls leave behind is another check's matter.
        once, twice = (point.call(direction, point.start(direction)) for _ in range(2))
        if not _same_leaves(once, twice):
            return (
                f"{direction} gave two outputs for the same input: randomness belongs into init and sample, "
                "through rng"
            )
    return None


def input_unchanged(point):
    """Neither the array nor the parameters are changed in place."""
    for direction in point.directions:
        array, params = point.start(direction).copy(), copy_tree(point.params)
        context = {} if point.context is None else {"context": point.context.copy()}
        method = getattr(point.layer, direction)
        method(params, array, **context)
        if not onp.array_equal(array, point.start(direction), equal_nan=True):
            line = where_written(method, copy_tree(point.params), read_only(array), **context)
            where = "" if hasattr(point.layer, "chart") else f", at {line}"
            return f"{direction} changed its input in place (+=, *= or out= on the array passed in){where}"
        changed = Layout(point.params).difference(Layout(params))
        if changed:
            return f"{direction} changed the tree of parameters itself: {changed}"
        for (path, before), (_, after) in zip(tree.items(point.params), tree.items(params), strict=True):
            if not onp.array_equal(before, after, equal_nan=True):
                line = where_written(getattr(point.layer, direction), read_only(params), array)
                return f"{direction} changed the parameter {path!r} in place, at {line}"
    return None


def where_written(method, *arguments, **context):
    """The line where a method writes to arrays that cannot be written to."""
    try:
        method(*arguments, **context)
    except Exception as error:
        return str(explain(error)).rpartition(", at ")[2]
    return line_of(method, last=False)


def no_memory(point):
    """What a direction returns does not depend on the batches that came before; one point is enough to see it."""
    if point.rows is None:
        return None
    order = onp.arange(len(point.x))[::-1]
    other = point.at(order)
    if point.context is None:  # rows between rows: inside the domain, if it is convex
        other = replace(point, x=0.75 * point.x[::-1] + 0.25 * point.x[:1])
    if not onp.isfinite(other.z).all():
        other = point.at(order)
    for direction in point.directions:
        opposite = OPPOSITE[direction] if point.has_inverse else direction
        start = point.start(direction)
        point.call(opposite, point.start(opposite))
        fresh = point.call(direction, start)
        other.call(opposite, other.start(opposite))
        if not _same_leaves(fresh, point.call(direction, start)):
            return (
                f"what {direction} returns depends on which batch {opposite} was called with before: "
                "something is kept between calls (a cached log_det?)"
            )
    first, second = copy.deepcopy(point.pristine), copy.deepcopy(point.pristine)
    other.call("forward", other.x, layer=second)
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
    for direction in point.directions:
        opposite = OPPOSITE[direction] if point.has_inverse else direction
        unit = 1.0 if part else (point.unit(opposite) if point.has_inverse else None)
        for whole, rows, together, alone in point.apart[direction]:
            among, alone = onp.asarray(together[part]), onp.asarray(alone[part])
            if among.shape[:1] != (len(whole.x),):
                raise CannotRun(f"the {name} of {direction} has shape {among.shape} for {len(whole.x)} rows")
            among = among[rows]
            alone = alone.reshape(among.shape)
            tolerance = 1e-9 + 1e4 * point.eps + point.own
            if not part:
                tolerance += 10 * point.noise[direction]
            if unit is not None:
                size = onp.max(onp.abs(among), initial=0.0, where=onp.isfinite(among))
                error = difference(among, alone, unit + size)
            else:
                error = difference(among, alone)
            if tolerance < error <= point.lost(opposite):
                raise NotDecided("rounding takes these units away: standardize x")
            sentence = (
                f"the {name} of {direction} in {whole.row(int(rows[0]))} changes when the other rows are left out: "
                "rows influence each other (statistics of the batch, or a sum over it?)"
            )
            findings.append(Finding(error, tolerance, sentence))
    return worst(findings)


# ---------------------------------------------------------------- where parameters start


def start(point):
    """At the parameters that init gives outputs and gradients are finite, and the Jacobian is not singular."""
    few = point.few
    for direction in point.directions:

        def total(everything, direction=direction):
            y, log_det = getattr(few.layer, direction)(everything["layer"], everything["input"])
            return np.sum(y) + np.sum(log_det)

        everything = {"layer": copy_tree(few.params), "input": few.start(direction).copy()}
        for path, leaf in tree.items(value_and_grad(total)(everything)[1]):
            if leaf is not None and not onp.isfinite(leaf).all():
                name = "its input" if path == "input" else f"the parameter {path.removeprefix('layer/')!r}"
                return (
                    f"the gradient of {direction} in {name} is not finite at the parameters that init gives: "
                    "a derivative that is infinite at 0 (of norm, sqrt, abs, log)?"
                )
    values, bounds = jacobians.log_abs_det(few.exact["forward"])
    if onp.mean(onp.isfinite(values + bounds)) < 0.5 and few.exact["forward"].any():
        return "the Jacobian of forward is singular at the parameters that init gives"
    return None


# ---------------------------------------------------------------- range


def finite_for_large_inputs(point):
    """No overflow far outside the batch, or at the ends of a bounded domain, in float64 and float32.

    The inverse is given what forward makes of such rows, as a z that no x reaches proves nothing, and the numbers of
    the batch.
    """
    point = point.few
    for scale, inputs, reason in (
        (1.0, "ordinary inputs", ""),
        (LARGE, f"inputs {LARGE:.0e} times as large", ": an exp overflows; bound its argument"),
    ):
        for dtype in (onp.float64, onp.float32):
            at = point.cast(dtype)
            with onp.errstate(all="ignore"):
                x = (scale * point.x).astype(dtype)
            if not onp.abs(x).max() < onp.sqrt(onp.finfo(dtype).max) / LARGE:
                raise NotDecided("x is so large that its square overflows: standardize x")
            at = replace(at, x=within(at.layer, x))
            for name, array in at.outputs():
                if not onp.isfinite(array).all():
                    return f"{name} is not finite in {onp.dtype(dtype)} for {inputs}{reason}"
    return None
