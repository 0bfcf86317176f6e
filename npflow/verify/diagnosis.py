"""From the numbers of a failed check to a sentence: what is likely wrong with the layer."""

import math

import numpy as np

from npflow.verify import jacobians

OFF = 1e-5  # relative, in nats: an inner layer's log-det that is off by more is wrong, not rounded


def of_log_det(claimed, true, direction, event, parts):
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
    """
    subject = f"log_det of {direction}"
    if not np.all(np.isfinite(claimed)):
        row = int(np.argmin(np.isfinite(claimed)))
        return (
            f"{subject} is {claimed[row]} in row {row}, where log|det J| is {true[row]:.6g}: "
            "abs is missing under the log, or an exp overflows"
        )

    close = lambda a, b: np.allclose(a, b, rtol=1e-6, atol=1e-7)
    explains = lambda guess: close(guess, true) and not close(guess, claimed)
    pixels, components = math.prod(event[:-1]), math.prod(event)
    if explains(-claimed):
        negated = " (the inverse's is minus the forward's)" if direction == "inverse" else ""
        return f"{subject} has the opposite sign{negated}"
    if explains(claimed * pixels):
        return f"{subject} lacks the factor H W = {pixels}: each pixel stretches the volume"
    if explains(claimed * components):
        return f"{subject} is the mean over the {components} components, not their sum"
    for wrong, name in ((np.sum, "summed"), (np.mean, "averaged")):
        if close(claimed, wrong(true)) and np.ptp(true) > 1e-6:
            return f"{subject} is {name} over the batch: it must be one number for each row"
    mistakes = {1: "leaves out {}", -1: "counts {} twice", 2: "takes {} with the opposite sign"}
    for name, part in parts.items():
        for times, mistake in mistakes.items():
            if explains(claimed + times * part):
                return f"{subject} {mistake.format(f'that of layer {name}')}"
    off = claimed - true
    if np.allclose(off, off[0], rtol=1e-6, atol=1e-9):
        return (
            f"{subject} is off by {off[0]:.6g} nats in every row: a term that depends on the parameters "
            "alone is wrong or missing"
        )
    return (
        f"{subject} is off by {off.min():.3g} to {off.max():.3g} nats, differently in each row: it is "
        "taken from the wrong values (the half that is not transformed?), or a term is missing"
    )


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
            guess = of_log_det(claimed[judged], true[judged], visit.direction, x.shape[1:], {})
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


def of_round_trip(error, start, back):
    """What is likely wrong with an inverse; `start` and `back` name the two arrays in words."""
    if not np.isfinite(error):
        return f"{back} is not finite: the map leaves its domain, or overflows"
    if error < 1e-2:
        return (
            f"{back} is {start} only up to {error:.1e}: the inverse is approximate; solve it to the "
            "precision of float64"
        )
    return (
        f"{back} is not {start}, off by up to {error:.3g}: the two directions are not each other's inverse "
        "(are halves taken and joined in the same way in both?)"
    )
