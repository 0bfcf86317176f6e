"""From the numbers of a failed check to a sentence: what is likely wrong with the layer."""

import math

import numpy as np


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
        For a chain, each layer's own log-det, shape (n,).
    """
    if not np.all(np.isfinite(claimed)):
        row = int(np.argmin(np.isfinite(claimed)))
        return (
            f"log_det of {direction} is {claimed[row]} in row {row}, where log|det J| is {true[row]:.6g}: "
            "abs is missing under the log, or an exp overflows"
        )

    def explains(guess):
        return np.allclose(guess, true, rtol=1e-6, atol=1e-7) and not np.allclose(
            guess, claimed, rtol=1e-6, atol=1e-7
        )

    pixels = math.prod(event[:-1])
    if explains(-claimed):
        negated = " (the inverse's is minus the forward's)" if direction == "inverse" else ""
        return f"log_det of {direction} has the opposite sign{negated}"
    if explains(claimed * pixels):
        return f"log_det of {direction} lacks the factor H W = {pixels}: each pixel stretches the volume"
    if explains(claimed * math.prod(event)):
        return f"log_det of {direction} is the mean over the {math.prod(event)} components, not their sum"
    for wrong, name in ((np.sum, "summed"), (np.mean, "averaged")):
        if np.allclose(claimed, wrong(true), rtol=1e-6, atol=1e-7) and np.ptp(true) > 1e-6:
            return f"log_det of {direction} is {name} over the batch: it must be one number for each row"
    for name, part in parts.items():
        if explains(claimed + part):
            return f"log_det of {direction} leaves out that of layer {name}"
        if explains(claimed - part):
            return f"log_det of {direction} counts that of layer {name} twice"
        if explains(claimed + 2 * part):
            return f"log_det of {direction} takes that of layer {name} with the opposite sign"
    off = claimed - true
    if np.allclose(off, off[0], rtol=1e-6, atol=1e-9):
        return (
            f"log_det of {direction} is off by {off[0]:.6g} nats in every row: a term that depends on the "
            "parameters alone is wrong or missing"
        )
    return (
        f"log_det of {direction} is off by {off.min():.3g} to {off.max():.3g} nats, differently in each row: "
        "it is taken from the wrong values (the half that is not transformed?), or a term is missing"
    )


def of_round_trip(error, start, back):
    """What is likely wrong with an inverse; `start` and `back` name the two arrays in words."""
    if not np.isfinite(error):
        return f"{back} is not finite: the map leaves its domain, or overflows"
    if error < 1e-2:
        return (
            f"{back} is {start} only up to {error:.1e}: the inverse is approximate; solve it to the precision "
            "of float64"
        )
    return (
        f"{back} is not {start}, off by up to {error:.3g}: the two directions are not each other's inverse "
        "(are halves taken and joined in the same way in both?)"
    )
