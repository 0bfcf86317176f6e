"""What the formulas promise: round trips, log-dets, derivatives.

Each check looks at a layer at one point. It returns a `Finding`; or, where an error has no size, the
complaint as a string, and None where there is none.
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from npflow.errors import ConvergenceError
from npflow.verify import diagnosis, jacobians
from npflow.verify.finding import DIRECTIONS, Finding, largest, undecided
from npflow.verify.point import QUICK, ROWS

RESOLVED = 1e-5  # a log-det in nats whose relative error may be larger proves nothing
QUIET = 1e-9  # noise beyond which small steps show nothing
STANDARDIZE = "rounding takes {} of these units away: standardize x"

# ---------------------------------------------------------------- the two directions


def round_trip(point, direction):
    """There and back ends where it started, up to the rounding that the Jacobian magnifies."""
    names = ("x", "inverse(forward(x))") if direction == "forward" else ("z", "forward(inverse(z))")
    return _comes_back(point, direction, point.start(direction), point.trips[direction], names)


def _comes_back(point, direction, start, back, names):
    n = len(start)
    with np.errstate(all="ignore"):
        off = np.abs(back - start).reshape(n, -1) / point.unit(direction).reshape(-1)
    off = np.max(np.where(np.isfinite(off), off, np.inf), axis=1, initial=0.0)
    allowed = np.full(n, max(1e-10, 1e3 * point.eps, point.own))
    excess = np.argsort(-off)[:ROWS]
    excess = excess[off[excess] > allowed[excess]]
    rounding = allowed.copy()
    if len(excess):
        # The condition of the Jacobian magnifies rounding; it excuses no approximate inverse.
        few = point.at(excess)
        condition = 100 * point.eps * few.conditions[point.of_full_rank(direction)]
        allowed[excess] = np.minimum(point.approximate, allowed[excess] + condition)
        rounding[excess] += np.where(condition < 1e-2, condition, 0.0)
        rounding[excess] = np.maximum(rounding[excess], point.lost(direction))
        judged = excess  # the errors of all other rows are smaller
    else:
        judged = np.arange(n)
    worst = int(judged[np.argmax((off / allowed)[judged])])
    if allowed[worst] < off[worst] <= rounding[worst]:
        return undecided(STANDARDIZE.format(f"{off[worst]:.1e}"))
    sentence = diagnosis.of_round_trip(point, off[worst], names, (start, back))
    return Finding(float(off[worst]), float(allowed[worst]), sentence, rows=n)


def every_z_has_an_x(point):
    """The inverse is one for any z, not only for those that forward gave: the map is onto."""
    drawn = getattr(point.layer, "any_z", _any_z)(point)
    if drawn.reason:
        return undecided(drawn.reason)
    at = point.at(np.arange(len(drawn.z)) % len(point.x))
    x = at.value("inverse", drawn.z)
    with np.errstate(all="ignore"):
        back = at.value("forward", x).reshape(drawn.z.shape)
    at = replace(at, x=x.reshape(len(x), *point.x.shape[1:]), whole=point.whole or point, rows=None)
    if drawn.known:
        return _comes_back(at, "inverse", drawn.z, back, ("z", "forward(inverse(z))"))
    with np.errstate(all="ignore"):
        off = np.abs(back - drawn.z).reshape(len(x), -1) / point.unit("inverse").reshape(-1)
        good = np.max(np.where(np.isfinite(off), off, np.inf), axis=1) <= point.approximate
    if not good.any():
        return undecided(
            "no z beside those of x comes back: they may lie outside the codomain; say codomain="
        )
    note = ""
    if not good.all():
        note = (
            f"not decided for {np.sum(~good)} of {len(good)} z beside those of x: they may lie outside the codomain; "
            "say codomain= to decide them"
        )
    return Finding(float(np.max(off[good])), point.approximate, note=note, rows=int(np.sum(good)))


class AnyZ(NamedTuple):
    """Rows to give to an inverse, and whether they must come back; or the reason why there are none."""

    z: np.ndarray | None = None
    known: bool = True
    reason: str = ""


def _any_z(point):
    """For a layer, any z: normal, three times as wide as the batch is."""
    z = point.z
    wide = 3 * point.unit("inverse") * np.random.default_rng(0).standard_normal(z.shape)
    return AnyZ(np.median(z, axis=0) + wide)


def log_dets_cancel(point):
    """log|det dz/dx| + log|det dx/dz| = 0."""
    forward, inverse = (point.log_det(direction) for direction in DIRECTIONS)
    error = largest(forward + inverse) / (1 + largest(forward))
    if not np.isfinite(error):
        sentence = "log_det of forward or of inverse is not finite"
    elif np.allclose(forward, inverse):
        sentence = "log_det of forward and inverse are the same: the inverse's must be negated"
    else:
        sentence = f"log_det of forward and of inverse do not add up to 0, but to {error:.3g} (relative)"
    noise = max(point.noise[direction] for direction in DIRECTIONS)
    cap = max(point.approximate, 10 * point.own)
    allowed = 1e-9 + 1e3 * point.eps + point.own
    if error > allowed and np.isfinite(error):
        # What is lost on the way changes the log-det as it changes the row.
        excess = np.argsort(-np.abs(forward + inverse))[:ROWS]
        condition = point.at(excess).condition
        allowed = min(cap, allowed + 1000 * (point.eps * condition + noise))
        if allowed < error <= 1000 * max(point.lost("forward"), point.lost("inverse")):
            return undecided(STANDARDIZE.format(f"{error:.1e}"))
    return Finding(error, allowed, sentence, rows=len(forward))


# ---------------------------------------------------------------- the determinant


def jacobian_invertible(point):
    """The Jacobian is finite and not singular: otherwise the map is no bijection."""
    point = point.few
    unresolved = 0
    known = getattr(point.layer, "jacobian", True) is not None
    for direction in point.directions if point.same_size else ("forward",):
        wrong = []
        for row, (matrix, errors) in enumerate(zip(*point.matrices[direction])):
            if not np.isfinite(matrix).all():
                if known and not np.isfinite(point.exact[direction][row]).all():
                    wrong.append((row, "not finite"))
                else:  # a step led out of the domain
                    unresolved += not known
                continue
            resolved = np.isfinite(errors).all()
            if resolved:
                # By Weyl's inequality no singular value is further off than the norm of the errors.
                (matrix,), (errors,), _ = jacobians.balanced(matrix[None], errors[None])
                smallest = np.linalg.svd(matrix, compute_uv=False)[-1]
                if smallest > 10 * np.linalg.norm(errors):
                    continue
                resolved = np.linalg.norm(errors) < 1e-6 and not _flat(point, direction, row)
            if resolved:
                wrong.append((row, "singular"))
            else:
                unresolved += 1
        if wrong and len(wrong) >= max(1, len(point.x) / 4):
            row, what = wrong[0]
            return (
                f"the Jacobian of {direction} is {what} in {point.row(row)}: "
                "the map is no bijection there, or not differentiable"
            )
    rows = len(point.x) - unresolved
    if rows < len(point.x) / 2:
        return undecided(_unresolved("forward", np.inf, point))
    return Finding(0.0, 0.0, rows=rows)


def _flat(point, direction, row):
    """Whether the log-det says that the map is too flat at a row for differences, as tanh is at 20."""
    inputs, outputs = point.ends(direction)
    log_det = point.pairs[direction][1][row] - np.sum(np.log(outputs)) + np.sum(np.log(inputs))
    return -np.inf < log_det < np.log(point.eps)


def log_det_by_finite_differences(point, direction):
    """The closed form is log|det J| of SciPy's Jacobian, within its own error estimate.

    Where quick differences, at all rows, and an exact Jacobian settle it, those of SciPy are not taken.
    """
    point = point.few
    if point.settled[direction] is not None:
        return Finding(point.settled[direction], QUICK)
    finding = _compare_log_det(point, direction, *_differences(point, direction))
    if finding.failed and np.isfinite(finding.error) and point.noise[direction] < QUIET:
        # Estimates can lie where a map is rough at the scale of a step: smaller ones have to say the same.
        again = _compare_log_det(point, direction, *_differences(point, direction, jacobians.SMALL_STEPS))
        if again.passed:
            return again
        if not again.failed:
            return finding if finding.error > 1e-2 and not _rough(point, direction) else again
    return finding


def _differences(point, direction, steps=jacobians.STEPS):
    """Jacobians and their errors."""
    direction = point.of_full_rank(direction)
    return point.numerical[direction] if steps is jacobians.STEPS else point.differences(direction, steps)


def _rough(point, direction):
    """Whether differences of other steps give another Jacobian."""
    (once, errors), (again, others) = (
        _differences(point, direction, steps) for steps in (jacobians.STEPS, jacobians.SMALL_STEPS)
    )
    known = np.isfinite(once + again + errors + others)
    return bool(np.any(np.abs(once - again)[known] > 10 * (errors + others)[known]))


def log_det_by_exact_jacobian(point, direction, far=False):
    """The closed form is log|det J| of autograd's Jacobian, or of one that is handed over, to 1e-9.

    `far` from the start, where clipping and saturation show, only rows that are resolved count. An inverse whose
    iteration raises there, and not near the start, does not say that the log-det is wrong.
    """
    point, known = point.few, point.of_full_rank(direction)
    try:
        return _compare_log_det(point, direction, point.exact[known], point.rounding(known), far)
    except ConvergenceError as error:
        if not far:
            raise
        return undecided(f"far out the inverse does not converge: {error}")


def _compare_log_det(point, direction, matrices, errors, far=False):
    conventions, note = [jacobians.log_abs_det(matrices, errors)], ""
    claimed = point.log_det(direction)
    if not point.same_size:
        conventions = _on_a_surface(point, matrices, errors)
        if direction == "inverse":
            conventions = {name: (-true, bounds) for name, (true, bounds) in conventions.items()}
        off = {name: np.abs(claimed - true) for name, (true, _) in conventions.items()}
        fits = {name: np.median(np.nan_to_num(error, nan=np.inf)) for name, error in off.items()}
        name = min(fits, key=fits.get)
        conventions, note = [conventions[name]], f"log_det of {direction} is that {name}"
    true, bounds = conventions[0]
    scale = np.maximum(1, np.abs(true))
    noise = max(point.noise[direction] for direction in point.directions)
    tolerances = 1e-9 * scale + 10 * bounds + 10 * point.own + 1e3 * point.eps
    if noise > 1e-12:  # an iterative inverse: the claim is for a row as far off as this
        tolerances = tolerances + 100 * noise
    certain = max(RESOLVED, 1e5 * point.eps if point.eps > jacobians.EPS else 0.0, 20 * point.own)
    resolved = np.isfinite(true) & (tolerances <= certain * scale)
    if far:
        # A row may have left the domain. And rounding inside a deep chain outgrows what its Jacobian tells,
        # while the mistakes to find here are of the order of nats.
        y = point.pairs[direction][0]
        resolved &= np.isfinite(y.reshape(len(y), -1)).all(axis=1)
        tolerances = np.maximum(tolerances, RESOLVED * scale)
        if not resolved.any():
            return undecided("no row far out could be resolved")
    elif np.mean(resolved) < 0.5:
        off = np.abs(claimed - true)
        blatant = np.isfinite(true) & np.isfinite(bounds) & ~(off <= 1e-2 * scale + 100 * tolerances)
        if np.mean(blatant) >= 0.5:  # not resolved to the last digit, but wrong in the first
            resolved = blatant
        else:
            return undecided(_unresolved(direction, float(np.median(bounds)), point))
    index = np.flatnonzero(resolved)
    claimed, true, tolerances = claimed[resolved], true[resolved], tolerances[resolved]
    off = np.abs(claimed - true)
    off = np.where(np.isnan(off), np.inf, off)
    worst = np.argmax(off / tolerances)
    finding = Finding(float(off[worst]), float(tolerances[worst]), note=note, rows=len(true))
    if finding.passed:
        return finding
    return replace(finding, sentence=_explain(point.at(index), direction, claimed, true))


def _unresolved(direction, bound, point):
    small = point.lost("forward") > 1e-9 or point.lost("inverse") > 1e-9
    advice = (
        ": standardize x" if small else " (a map that is singular, not finite, noisy, or not differentiable)"
    )
    return (
        f"the Jacobian of {direction} could not be resolved: log|det J| is certain only up to "
        f"{bound:.1e} nats{advice}"
    )


def _on_a_surface(point, matrices, errors):
    """log|det| by convention, with its bounds, where forward leads onto a surface of more components."""
    chart = getattr(point.layer, "chart", None)
    if chart is not None:
        at = point.z
        units = (point.units[1], jacobians.spread(np.asarray(chart(at)).reshape(len(at), -1)))
        turn, _ = jacobians.by_finite_differences(lambda z: np.asarray(chart(z)), at, units=units)
        turned = jacobians.log_abs_det(turn @ matrices, np.abs(turn) @ errors)
        return {"in the chart that is handed over": turned}
    found = {"on the surface, log det(J'J) / 2": jacobians.log_abs_det(matrices, errors)}
    finite = [matrix for matrix in matrices if np.isfinite(matrix).all()]
    if finite:
        inputs, outputs = point.units
        first = jacobians.coordinates(finite[0] * inputs / outputs[:, None])
        if len(first) == matrices.shape[2]:
            square = jacobians.log_abs_det(matrices[:, first], errors[:, first])
            found[f"in the chart of the components {', '.join(map(str, first))} of z"] = square
    return found


def _explain(point, direction, claimed, true):
    """What is likely wrong with a log-det: that of an inner layer, or how it follows from theirs."""
    try:
        visits = point.visits(direction)
        of_inner = diagnosis.of_inner_layers(visits)
        parts = diagnosis.parts_of(visits)
    except Exception:  # a container whose steps do not run
        of_inner, parts = "", {}
    return of_inner or diagnosis.of_log_det(claimed, true, direction, point.x.shape[1:], parts, point=point)


# ---------------------------------------------------------------- derivatives


def jacobian_derivative(point, direction):
    """autograd's Jacobian is that of finite differences, entry by entry, in units of the spread."""
    point = point.few
    if point.settled[direction] is not None:
        return undecided("looked at in the rows of x alone")
    finding = _compare_jacobians(point, direction, *point.numerical[direction])
    if finding.failed and point.noise[direction] < QUIET:
        again = _compare_jacobians(point, direction, *point.differences(direction, jacobians.SMALL_STEPS))
        return again if not again.failed else finding
    return finding


def _compare_jacobians(point, direction, numerical, errors):
    inputs, outputs = point.ends(direction)
    units = inputs / outputs[:, None]
    numerical, errors, exact = numerical * units, errors * units, point.exact[direction] * units
    allowed = 1e-8 * (1 + np.abs(numerical)) + 10 * errors
    allowed = np.where(np.isfinite(allowed), allowed, np.inf)
    if np.mean(allowed < 1e-4 * (1 + np.abs(numerical))) < 0.5:
        return undecided(f"finite differences did not resolve the Jacobian of {direction}")
    allowed = allowed + point.own * (1 + np.abs(numerical))
    off = np.where(np.isfinite(exact), np.abs(exact - numerical), np.inf)
    off = np.where(np.isfinite(numerical), off, 0.0)  # a step led out of the domain
    _, output, inp = worst = np.unravel_index(np.argmax(off / allowed), off.shape)
    if exact.any():
        raw = exact[worst] / units[output, inp], numerical[worst] / units[output, inp]
        by, why = "autograd's", "a primitive's derivative is wrong"
        if getattr(point.layer, "jacobian", None):
            by, why = "the exact Jacobian's", "it is not the Jacobian of this map"
        sentence = (
            f"{by} derivative of output {output} of {direction} in input {inp} is {raw[0]:.6g}, "
            f"finite differences say {raw[1]:.6g}: {why}{_factor(exact, numerical)}"
        )
    else:
        sentence = (
            f"autograd sees no way from the input of {direction} to its output: write it with `import "
            "autograd.numpy as np`, without float() and in-place assignment"
        )
    return Finding(float(off[worst]), float(allowed[worst]), sentence)


def _factor(exact, numerical):
    """A remark where a constant factor is wrong."""
    wrong = ~np.isclose(exact, numerical, rtol=1e-6, atol=1e-6) & (np.abs(numerical) > 1e-3)
    ratios = exact[wrong] / numerical[wrong]
    if ratios.size and np.allclose(ratios, ratios[0], rtol=1e-5):
        return f", by a factor of {ratios[0]:.6g}"
    return ""
