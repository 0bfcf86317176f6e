"""From the numbers of a failed check to a sentence: what is likely wrong with the layer."""

import math

import numpy as np

from npflow.verify import jacobians
from npflow.verify.finding import DIRECTIONS, OPPOSITE

OFF = 1e-5  # relative, in nats: an inner layer's log-det that is off by more is wrong, not rounded


def of_log_det(claimed, true, direction, event, parts, point=None, rows=None):
    """What is likely wrong with a log-det.

    Parameters
    ----------
    claimed, true : ndarray, shape (n,)
        What the layer returned, and log|det J| of its Jacobian.
    direction : {"forward", "inverse"}
    event : tuple of int
        The shape of one row.
    parts : dict of str to ndarray
        The log-dets of the inner layers by name, shape (n,); see `parts_of`.
    point : Point, optional
        The layer at these rows, for what needs more calls.
    rows : int, optional
        How many rows were in the call; by default n.
    """
    subject, rows = f"log_det of {direction}", rows or len(claimed)
    if not np.all(np.isfinite(claimed)):
        row = int(np.argmin(np.isfinite(claimed)))
        name = f"row {row}" if point is None else point.row(row)
        return (
            f"{subject} is {claimed[row]} in {name}, where log|det J| is {true[row]:.6g}: "
            "abs is missing under the log, or an exp overflows"
        )

    close = lambda a, b: np.allclose(a, b, rtol=1e-6, atol=1e-6)
    explains = lambda guess: close(guess, true) and not close(guess, claimed)
    if not claimed.any() and np.min(np.abs(true)) > 1e-6:
        return f"{subject} is 0 in every row: it is left out, or was meant for a map that keeps volume"
    if explains(-claimed):
        negated = " (the inverse's is minus the forward's)" if direction == "inverse" else ""
        return f"{subject} has the opposite sign{negated}"
    for wrong, name in ((np.sum, "summed"), (np.mean, "averaged")):
        if close(claimed, wrong(true)) and np.ptp(true) > 1e-5:
            return f"{subject} is {name} over the batch: it must be one number for each row"
    for factor, mistake in _factors(event, rows):
        if factor != 1 and explains(claimed * factor):
            return f"{subject} {mistake}"
    parts = {f"that of layer {name}": part for name, part in parts.items()}
    if mistake := _of_parts(claimed, parts, explains):
        return f"{subject} {mistake}"
    if np.ptp(true) > 1e-5:
        if close(np.sort(claimed), np.sort(true)) and not close(claimed, true):
            return f"{subject} has the rows in another order"
        ratios = claimed[np.abs(true) > 1e-3] / true[np.abs(true) > 1e-3]
        if len(ratios) > 2 and np.allclose(ratios, ratios[0], rtol=1e-5) and abs(ratios[0] - 1) > 1e-5:
            return f"{subject} is {ratios[0]:.6g} times log|det J| in every row: a factor is wrong"
        with np.errstate(over="ignore"):
            if close(claimed, np.exp(true)) or close(-claimed, np.exp(true)):
                return f"{subject} is |det J| itself: the logarithm is missing"
    if point is not None:
        try:
            sentence = _of_components(claimed, direction, point, explains) or _elsewhere(
                claimed, direction, point, close
            )
        except Exception:  # the calls that it takes are those of a wrong layer
            sentence = ""
        if sentence:
            return f"{subject} {sentence}"
    off = claimed - true
    if point is not None and (where := _in_some_rows(off, direction, point)):
        return f"{subject} {where}"
    if np.allclose(off, off[0], rtol=1e-6, atol=1e-7):
        return (
            f"{subject} is off by {off[0]:.6g} nats in every row{_named(off[0], math.prod(event))}: a term that depends "
            "on the parameters alone, not on x, is wrong or missing"
        )
    half = " (the half that is not transformed?)" if point is None or keeps_some(point) else ""
    return (
        f"{subject} is off by {off.min():.3g} to {off.max():.3g} nats, differently in each row: it is "
        f"taken from the wrong values{half}, or a term is missing"
    )


def _factors(event, rows):
    """Factors that a log-det may lack, with what that means."""
    pixels, components = math.prod(event[:-1]), math.prod(event)
    return (
        (pixels, f"lacks the factor H W = {pixels}: each pixel stretches the volume"),
        (components, f"is the mean over the {components} components, not their sum"),
        (event[-1] if event else 1, f"is the mean over the last axis, of {event[-1:]}, not the sum"),
        (2, "is half of log|det J|"),
        (0.5, "is twice log|det J|"),
        (-2, "is minus half of log|det J|"),
        (-0.5, "is minus twice log|det J|"),
        (rows, f"is divided by the number of rows, {rows}"),
        (1 / rows, f"is multiplied by the number of rows, {rows}"),
        (1 / components, f"is {components} times log|det J|: a sum over the components is taken twice"),
        (1 / pixels, f"has the factor H W = {pixels} once too often"),
        (math.log(2), "is in bits, not in nats: take the natural logarithm"),
        (math.log(10), "is a logarithm to the base of 10: take the natural logarithm"),
    )


def _named(off, components):
    """A constant in words, where it is a known one."""
    for name, value in (("log 2", math.log(2)), ("log(2 pi) / 2", math.log(2 * math.pi) / 2)):
        for times, words in ((1, name), (components, f"{components} {name}")):
            if math.isclose(abs(off), times * value, rel_tol=1e-6):
                return f" ({'-' if off < 0 else ''}{words})"
    return ""


def _of_parts(claimed, parts, explains):
    """Which of the parts that a log-det is the sum of is left out, counted twice or has the opposite sign."""
    mistakes = {1: "leaves out {}", -1: "counts {} twice", 2: "takes {} with the opposite sign"}
    for name, part in parts.items():
        for times, mistake in mistakes.items():
            if explains(claimed + times * part):
                return mistake.format(name)
    return ""


def _of_components(claimed, direction, point, explains):
    """Which components' terms are wrong, where the Jacobian is triangular: its determinant is that of its diagonal."""
    matrices, _ = point.matrices[direction]
    diagonal = np.log(np.abs(np.diagonal(matrices, axis1=1, axis2=2)))
    if not np.isfinite(diagonal).all() or diagonal.shape[1] < 2:
        return ""
    width = diagonal.shape[1]
    groups = {f"component {index}": [index] for index in range(width)} if width <= 64 else {}
    half = width // 2
    groups |= {
        "the first half": slice(half),
        "the second half": slice(half, None),
        "the even components": slice(0, None, 2),
        "the odd components": slice(1, None, 2),
    }
    parts = {name: np.sum(diagonal[:, places], axis=1) for name, places in groups.items()}
    return _of_parts(claimed, parts, explains)


def _elsewhere(claimed, direction, point, close):
    """Whether the log-det is the right one of another array: the output, or what the other direction was given."""
    start = point.start(direction)
    if not point.same_size or len(point.x) < 2:
        return ""
    output = point.pairs[direction][0].reshape(start.shape)
    found = {"its output, not its input": output}
    if "inverse" in point.directions:
        other = OPPOSITE[direction]
        found["what the other direction makes of its input"] = point.value(other, start).reshape(start.shape)
    for name, array in found.items():
        if np.allclose(array, start):
            continue
        value = lambda rows: point.value(direction, rows)
        matrices, errors = jacobians.by_finite_differences(value, array, units=point.ends(direction))
        true, bounds = jacobians.log_abs_det(matrices, errors)
        for sign, words in ((1, ""), (-1, ", with the opposite sign")):
            if np.all(bounds < 1e-4) and close(sign * claimed, true):
                return f"is taken at {name}{words}"
    return ""


def _in_some_rows(off, direction, point):
    """Where a log-det is wrong in some rows and right in the others."""
    whole = point.whole or point
    size = float(np.max(np.abs(off)))
    if len(whole.x) > len(point.x) and len(whole.x) * whole.x[0].size <= 65536:
        off = np.nan_to_num(whole.suspicion[direction])
    else:
        whole = point
    wrong, right = np.abs(off) > max(1e-5, 0.02 * size), np.abs(off) < max(1e-6, 1e-3 * size)
    if not 0 < np.sum(wrong) <= 0.7 * len(wrong) or np.mean(~wrong & ~right) > 0.02:
        return ""
    amount = np.abs(off)[wrong]
    span = f"{amount.min():.3g} to {amount.max():.3g}" if np.ptp(amount) > 1e-3 * size else f"{size:.3g}"
    return (
        f"is right in {np.sum(~wrong)} of {len(wrong)} rows, and off by {span} nats in the "
        f"others{_where(wrong, whole)}: a branch for some values is wrong, or a tail"
    )


def _where(wrong, point):
    """What separates some rows from the others: a component of x or z, its size, or that of a row."""
    n, found = len(wrong), []
    for name, array in (("x", point.x), ("z", point.z)):
        flat = np.asarray(array).reshape(n, -1)
        found += [(f"{name}_{index}", column) for index, column in enumerate(flat.T)]
        found += [(f"|{name}_{index}|", np.abs(column)) for index, column in enumerate(flat.T)]
        found += [
            (f"max |{name}|", np.max(np.abs(flat), axis=1)),
            (f"|{name}|", np.linalg.norm(flat, axis=1)),
        ]
    for name, column in found:
        if np.min(column[wrong]) > np.max(column[~wrong]):
            return f", those where {name} is above {np.max(column[~wrong]):.3g}"
        if np.max(column[wrong]) < np.min(column[~wrong]):
            return f", those where {name} is below {np.min(column[~wrong]):.3g}"
    return ""


def keeps_some(point):
    """Whether some components, not all, leave forward as they came, as half of them do in a coupling."""
    x, z = (np.asarray(array).reshape(len(point.x), -1) for array in (point.x, point.z))
    if x.shape[1] > 256:
        return True
    kept = [any(np.array_equal(out, one) for one in x.T) for out in z.T]
    return any(kept) and not all(kept)


def of_inner_layers(visits):
    """What is likely wrong with the first inner layer whose own log-det is off; empty where all are right.

    Parameters
    ----------
    visits : list of Visit
        The calls on the way through a layer that is made of layers.
    """
    for visit in visits:
        *before, x = visit.arguments
        run = lambda x, visit=visit, before=before: visit.method(*before, x, **visit.options)[0]
        true, bounds = jacobians.log_abs_det(jacobians.by_autograd(run, x))
        claimed = np.broadcast_to(visit.result[1], len(x))
        judged = np.isfinite(true + bounds)
        wrong = ~(np.abs(claimed - true) <= OFF * np.maximum(1, np.abs(true)) + 10 * bounds)
        if np.any(wrong & judged):
            guess = of_log_det(claimed[judged], true[judged], visit.direction, x.shape[1:], {}, rows=len(x))
            return f"in layer {_without_root(visit.name)}, {guess}"
    return ""


def parts_of(visits):
    """The log-dets of inner layers by name, shape (n,): of those visited, and of those that contain them."""
    parts = {}
    for visit in visits:
        name = _without_root(visit.name)
        parts[name] = parts.get(name, 0) + visit.result[1]
        while "/" in name:
            name = name.rpartition("/")[0]
            parts[name] = parts.get(name, 0) + visit.result[1]
    return parts


def _without_root(name):
    return name.removeprefix("layer").lstrip("/ ")


def of_round_trip(point, error, names, arrays):
    """What is likely wrong with an inverse.

    Parameters
    ----------
    point : Point
    error : float
        The largest, in units of the spread.
    names : pair of str
        What the start of the round trip is called, and what came back.
    arrays : pair of ndarray, shape (n, ...)
    """
    start, back = names
    if not np.isfinite(error):
        return f"{back} is not finite: the map leaves its domain, or overflows"
    first, second = (np.asarray(array).reshape(len(array), -1) for array in arrays)
    off = second - first
    shifted = len(off) > 2 and np.allclose(off, off[:1], rtol=1e-6, atol=1e-6 * np.max(np.abs(off)))
    if error < 1e-2 and not shifted:
        return (
            f"{back} is {start} only up to {error:.1e}: the inverse is approximate; solve it to the "
            "precision of float64"
        )
    said = f"{back} is not {start}, off by up to {error:.3g}"
    halves = "are halves taken and joined in the same way in both?" if keeps_some(point) else ""
    alike = lambda a, b: np.isclose(a, b, rtol=1e-6, atol=1e-9 * (1 + np.max(np.abs(first))))
    if alike(first, -second).all():
        return f"{said}: it is minus {start}"
    if first.shape[1] > 1 and alike(np.sort(first, axis=1), np.sort(second, axis=1)).all():
        why = halves or "is a permutation or transpose undone?"
        return f"{said}: it has the components in another order ({why})"
    wrong = ~alike(first, second)
    rows, components = wrong.any(axis=1), np.flatnonzero(wrong.any(axis=0))
    if 0 < np.sum(rows) <= 0.7 * len(rows):
        return (
            f"{said}, in {np.sum(rows)} of {len(rows)} rows{_where(rows, point)}: the two directions are not each "
            "other's inverse there"
        )
    if shifted:
        return (
            f"{said}, by the same number in every row: a shift is not taken back, or taken back with the wrong "
            "sign or scale"
        )
    if len(components) < first.shape[1]:
        said += f", in {'component' if len(components) == 1 else 'components'} {', '.join(map(str, components[:8]))}"
    if _transposed(point):
        return f"{said}: the matrix of one of them is transposed"
    return f"{said}: the two directions are not each other's inverse{f' ({halves})' if halves else ''}"


def _transposed(point):
    """Whether the Jacobian of inverse is that of the right inverse transposed, and the same in every row."""
    try:
        forward, inverse = (point.few.matrices[direction][0] for direction in DIRECTIONS)
        right = np.linalg.inv(forward)
    except Exception:  # not square, singular, or calls that a wrong layer does not stand
        return False
    close = lambda a, b: np.allclose(a, b, rtol=1e-5, atol=1e-6 * np.max(np.abs(a)))
    return (
        close(forward, forward[:1]) and close(inverse, np.swapaxes(right, 1, 2)) and not close(inverse, right)
    )
