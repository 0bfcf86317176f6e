"""What the formulas promise: round trips, log-dets, derivatives.

Each check looks at a layer at one point and gives a `Finding`.
"""

from dataclasses import replace

import numpy as onp

from npflow.verify import diagnosis, jacobians
from npflow.verify.finding import DIRECTIONS, Finding, largest, yes_or_no

EPS = onp.finfo(float).eps
RESOLVED = 1e-5  # a finite-difference log-det that may be off by more, in nats, proves nothing

# ---------------------------------------------------------------- the two directions


def round_trip(point, direction):
    """There and back is where it started, up to the rounding that the Jacobian magnifies."""
    return _round_trip(point, direction, point.start(direction))


def every_z_has_an_x(point):
    """The inverse is one for any z, not just for those that forward gave: the map is onto."""
    return _round_trip(point, "inverse", 3 * onp.random.default_rng(0).standard_normal(point.z.shape))


def _round_trip(point, direction, start):
    opposite = DIRECTIONS[direction == "forward"]
    back = point.value(opposite, point.value(direction, start)).reshape(start.shape)
    error = largest(back - start) / (1 + largest(start))
    # Rounding comes back magnified by the condition of the Jacobian; an approximate inverse is no excuse.
    tolerance = min(1e-6, 1e-10 + 100 * EPS * point.condition)
    names = ("x", "inverse(forward(x))") if direction == "forward" else ("z", "forward(inverse(z))")
    return Finding(error, tolerance, diagnosis.of_round_trip(error, *names))


def log_dets_cancel(point):
    """log|det dz/dx| + log|det dx/dz| = 0."""
    forward = point.log_det("forward", point.x)
    inverse = point.log_det("inverse", point.z)
    error = largest(forward + inverse) / (1 + largest(forward))
    if not onp.isfinite(error):
        sentence = "log_det of forward or of inverse is not finite"
    elif onp.allclose(forward, inverse):
        sentence = "log_det of forward and inverse are the same: the inverse's must be negated"
    else:
        sentence = f"log_det of forward and of inverse do not add up to 0, but to {error:.3g} (relative)"
    return Finding(error, min(1e-6, 1e-9 + 1000 * EPS * point.condition), sentence)


# ---------------------------------------------------------------- the determinant


def jacobian_invertible(point):
    """The Jacobian is finite and not singular: otherwise the map is no bijection."""
    for direction in DIRECTIONS:
        for row, (matrix, errors) in enumerate(zip(*point.numerical[direction])):
            finite = onp.isfinite(matrix).all()
            # By Weyl's inequality no singular value is further off than the norm of the errors.
            smallest = onp.linalg.svd(matrix, compute_uv=False)[-1] if finite else onp.nan
            if not smallest > 10 * onp.linalg.norm(errors):
                what = "not resolved" if finite and not onp.isfinite(errors).all() else "singular"
                return yes_or_no(
                    f"the Jacobian of {direction} is {what if finite else 'not finite'} in row {row}: "
                    "the map is no bijection there, or not differentiable"
                )
    return yes_or_no("")


def log_det_by_finite_differences(point, direction):
    """The closed form is log|det J| of SciPy's Jacobian, within its own error estimate."""
    return _compare_log_det(point, direction, *point.numerical[direction])


def log_det_by_autograd(point, direction):
    """The closed form is log|det J| of autograd's Jacobian, to 1e-9."""
    return _compare_log_det(point, direction, point.exact[direction])


def log_det_far_out(point, direction):
    """The same at a point far from the start, where clipping and saturation show; rows it resolves count."""
    return _compare_log_det(point, direction, point.exact[direction], least_resolved=0.0)


def _compare_log_det(point, direction, matrices, errors=None, least_resolved=0.5):
    true, bounds = jacobians.log_abs_det(matrices, errors)
    claimed = point.log_det(direction, point.start(direction))
    scale = onp.maximum(1, onp.abs(true))
    tolerances = 1e-9 * scale + 10 * bounds
    resolved = onp.isfinite(true) & (tolerances <= RESOLVED * scale)
    if not least_resolved:
        # Far out a row may have left the domain; and rounding inside a deep chain outgrows what its Jacobian
        # tells, where the mistakes looked for are of the order of nats.
        y = point.value(direction, point.start(direction))
        resolved &= onp.isfinite(y.reshape(len(y), -1)).all(axis=1)
        tolerances = onp.maximum(tolerances, RESOLVED * scale)
    if not resolved.any() and not least_resolved:
        return Finding(0.0, RESOLVED, "")
    if onp.mean(resolved) < least_resolved:
        return Finding(
            onp.inf,
            RESOLVED,
            f"the Jacobian of {direction} could not be resolved: log|det J| is certain only up to "
            f"{onp.median(bounds):.1e} nats (a map that is singular, not finite, or not differentiable)",
        )
    claimed, true, tolerances = claimed[resolved], true[resolved], tolerances[resolved]
    off = onp.abs(claimed - true)
    off = onp.where(onp.isnan(off), onp.inf, off)
    worst = onp.argmax(off / tolerances)
    finding = Finding(float(off[worst]), float(tolerances[worst]), "")
    if finding.passed:
        return finding
    parts = {name: part[resolved] for name, part in _parts(point, direction).items()}
    return replace(finding, sentence=diagnosis.of_log_det(claimed, true, direction, point.x.shape[1:], parts))


def _parts(point, direction):
    try:
        return point.parts(direction)
    except Exception:  # a chain of another make: then there is no telling its parts apart
        return {}


# ---------------------------------------------------------------- derivatives


def jacobian_derivative(point, direction):
    """autograd's Jacobian is that of finite differences, entry by entry."""
    numerical, errors = point.numerical[direction]
    exact = point.exact[direction]
    off = onp.abs(exact - numerical)
    allowed = 1e-8 * (1 + onp.abs(numerical)) + 10 * errors
    allowed = onp.where(onp.isfinite(allowed), allowed, onp.inf)
    if onp.mean(allowed < 1e-4 * (1 + onp.abs(numerical))) < 0.5:
        return Finding(onp.inf, RESOLVED, f"finite differences did not resolve the Jacobian of {direction}")
    off = onp.where(onp.isfinite(exact), off, onp.inf)
    _, output, inp = worst = onp.unravel_index(onp.argmax(off / allowed), off.shape)
    if not exact.any():
        return Finding(
            float(off[worst]),
            float(allowed[worst]),
            f"autograd sees no way from the input of {direction} to its output: write it with `import autograd.numpy as "
            "np`, without float() and in-place assignment",
        )
    return Finding(
        float(off[worst]),
        float(allowed[worst]),
        f"autograd's derivative of output {output} of {direction} in input {inp} is {exact[worst]:.6g}, finite "
        f"differences say {numerical[worst]:.6g}: a primitive's derivative is wrong{_factor(exact, numerical)}",
    )


def _factor(exact, numerical):
    """A remark where what is wrong is a constant factor."""
    wrong = ~onp.isclose(exact, numerical, rtol=1e-6, atol=1e-6) & (onp.abs(numerical) > 1e-3)
    ratios = exact[wrong] / numerical[wrong]
    if ratios.size and onp.allclose(ratios, ratios[0], rtol=1e-5):
        return f", by a factor of {ratios[0]:.6g}"
    return ""
