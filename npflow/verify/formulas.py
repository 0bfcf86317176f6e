"""What the formulas promise: round trips, log-dets, derivatives.

Each check looks at a layer at one point. It returns a `Finding`; or, where an error has no size, the
complaint as a string, and None where there is none.
"""

from dataclasses import replace

import numpy as np

from npflow.verify import diagnosis, jacobians
from npflow.verify.finding import DIRECTIONS, Finding, largest

RESOLVED = 1e-5  # a log-det in nats whose relative error may be larger proves nothing

# ---------------------------------------------------------------- the two directions


def round_trip(point, direction, start=None):
    """There and back ends where it started, up to the rounding that the Jacobian magnifies."""
    start = point.start(direction) if start is None else start
    opposite = DIRECTIONS[direction == "forward"]
    back = point.value(opposite, point.value(direction, start)).reshape(start.shape)
    error = largest(back - start) / (1 + largest(start))
    # The condition of the Jacobian magnifies rounding; it excuses no approximate inverse.
    tolerance = min(1e-6, 1e-10 + 100 * jacobians.EPS * point.condition)
    names = ("x", "inverse(forward(x))") if direction == "forward" else ("z", "forward(inverse(z))")
    return Finding(error, tolerance, diagnosis.of_round_trip(error, *names))


def every_z_has_an_x(point):
    """The inverse is one for any z, not only for those that forward gave: the map is onto."""
    return round_trip(point, "inverse", 3 * np.random.default_rng(0).standard_normal(point.z.shape))


def log_dets_cancel(point):
    """log|det dz/dx| + log|det dx/dz| = 0."""
    forward, inverse = (point.log_det(direction, point.start(direction)) for direction in DIRECTIONS)
    error = largest(forward + inverse) / (1 + largest(forward))
    if not np.isfinite(error):
        sentence = "log_det of forward or of inverse is not finite"
    elif np.allclose(forward, inverse):
        sentence = "log_det of forward and inverse are the same: the inverse's must be negated"
    else:
        sentence = f"log_det of forward and of inverse do not add up to 0, but to {error:.3g} (relative)"
    return Finding(error, min(1e-6, 1e-9 + 1000 * jacobians.EPS * point.condition), sentence)


# ---------------------------------------------------------------- the determinant


def jacobian_invertible(point):
    """The Jacobian is finite and not singular: otherwise the map is no bijection."""
    for direction in DIRECTIONS:
        for row, (matrix, errors) in enumerate(zip(*point.numerical[direction])):
            finite = np.isfinite(matrix).all()
            # By Weyl's inequality no singular value is further off than the norm of the errors.
            smallest = np.linalg.svd(matrix, compute_uv=False)[-1] if finite else np.nan
            if not smallest > 10 * np.linalg.norm(errors):
                what = "not resolved" if finite and not np.isfinite(errors).all() else "singular"
                return (
                    f"the Jacobian of {direction} is {what if finite else 'not finite'} in row {row}: "
                    "the map is no bijection there, or not differentiable"
                )
    return None


def log_det_by_finite_differences(point, direction):
    """The closed form is log|det J| of SciPy's Jacobian, within its own error estimate."""
    return _compare_log_det(point, direction, *point.numerical[direction])


def log_det_by_autograd(point, direction):
    """The closed form is log|det J| of autograd's Jacobian, to 1e-9."""
    return _compare_log_det(point, direction, point.exact[direction])


def log_det_far_out(point, direction):
    """The same far from the start, where clipping and saturation show; only rows that are resolved count."""
    return _compare_log_det(point, direction, point.exact[direction], far=True)


def _compare_log_det(point, direction, matrices, errors=None, far=False):
    true, bounds = jacobians.log_abs_det(matrices, errors)
    claimed = point.log_det(direction, point.start(direction))
    scale = np.maximum(1, np.abs(true))
    tolerances = 1e-9 * scale + 10 * bounds
    resolved = np.isfinite(true) & (tolerances <= RESOLVED * scale)
    if far:
        # A row may have left the domain. And rounding inside a deep chain outgrows what its Jacobian tells,
        # while the mistakes to find here are of the order of nats.
        y = point.value(direction, point.start(direction))
        resolved &= np.isfinite(y.reshape(len(y), -1)).all(axis=1)
        tolerances = np.maximum(tolerances, RESOLVED * scale)
        if not resolved.any():
            return None
    elif np.mean(resolved) < 0.5:
        return Finding(
            np.inf,
            RESOLVED,
            f"the Jacobian of {direction} could not be resolved: log|det J| is certain only up to "
            f"{np.median(bounds):.1e} nats (a map that is singular, not finite, or not differentiable)",
        )
    claimed, true, tolerances = claimed[resolved], true[resolved], tolerances[resolved]
    off = np.abs(claimed - true)
    off = np.where(np.isnan(off), np.inf, off)
    worst = np.argmax(off / tolerances)
    finding = Finding(float(off[worst]), float(tolerances[worst]))
    return (
        finding
        if finding.passed
        else replace(finding, sentence=_explain(point, direction, claimed, true, resolved))
    )


def _explain(point, direction, claimed, true, resolved):
    """What is likely wrong with a log-det: that of an inner layer, or how it follows from theirs."""
    try:
        visits = point.visits(direction)
        of_inner = diagnosis.of_inner_layers(visits)
        parts = {name: part[resolved] for name, part in diagnosis.parts_of(visits).items()}
    except Exception:  # a container whose steps do not run
        of_inner, parts = "", {}
    return of_inner or diagnosis.of_log_det(claimed, true, direction, point.x.shape[1:], parts)


# ---------------------------------------------------------------- derivatives


def jacobian_derivative(point, direction):
    """autograd's Jacobian is that of finite differences, entry by entry."""
    numerical, errors = point.numerical[direction]
    exact = point.exact[direction]
    allowed = 1e-8 * (1 + np.abs(numerical)) + 10 * errors
    allowed = np.where(np.isfinite(allowed), allowed, np.inf)
    if np.mean(allowed < 1e-4 * (1 + np.abs(numerical))) < 0.5:
        return Finding(np.inf, RESOLVED, f"finite differences did not resolve the Jacobian of {direction}")
    off = np.where(np.isfinite(exact), np.abs(exact - numerical), np.inf)
    _, output, inp = worst = np.unravel_index(np.argmax(off / allowed), off.shape)
    if exact.any():
        sentence = (
            f"autograd's derivative of output {output} of {direction} in input {inp} is {exact[worst]:.6g}, "
            f"finite differences say {numerical[worst]:.6g}: a primitive's derivative is wrong"
            f"{_factor(exact, numerical)}"
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
