"""Gradients in the input and in the parameters, held against finite differences along random directions."""

from functools import partial

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import tree, value_and_grad
from npflow.verify import jacobians
from npflow.verify.finding import Finding, undecided, worst
from npflow.verify.point import unit_of

GROUPS = 4  # leaves of large models share a random direction: each takes some forty evaluations
WANTED = 1e-8  # the error at which differences stop: a wrong derivative is further off
RESOLVED = 1e-4  # a numerical derivative whose relative error may be larger proves nothing


def gradients(point, direction):
    """Gradients of random projections of the array and of the log-det, in the input and in each parameter."""
    point = point.few
    start, rng = point.start(direction), onp.random.default_rng(1)
    everything = {"input": start, "layer": point.params}
    pair = point.pairs[direction]
    of_array = rng.standard_normal(start.shape).reshape(len(start), -1) / point.ends(direction)[1]
    weights = [of_array.reshape(start.shape), rng.standard_normal(len(start))]
    # Among the rows between those of x all parameters share one direction.
    ways = _ways(everything, point.unit(direction), 1 if point.rows is None else GROUPS)
    noise = max(_rounding(pair, weights), point.noise[direction])

    def projections(everything):
        """One of the array and one of the log-det, or one for each copy of the rows in a first axis of the input."""
        copies, rows = everything["input"].shape[: -start.ndim], (-1, *start.shape[1:])
        pair = getattr(point.layer, direction)(everything["layer"], np.reshape(everything["input"], rows))
        return [
            np.sum(np.reshape(half, (*copies, -1)) * np.reshape(weight, -1), axis=-1)
            for half, weight in zip(pair, weights)
        ]

    def moved(way, step):
        move = lambda path, leaf: leaf + step * way[path] if path in way else onp.array(leaf)
        return tree.build(move, everything)

    def along(way, steps):  # SciPy's points on a line: (1, ...) gives (2, ...)
        if "input" in way:  # rows do not influence each other: one call for all steps
            rows = start + steps.reshape(-1, *[1] * start.ndim) * way["input"]
            values = onp.array(projections({**everything, "input": rows}))
        else:
            values = onp.array([projections(moved(way, step)) for step in steps.reshape(-1)]).T
        return values.reshape(2, *steps.shape[1:])

    exact, shapes = [], {path: onp.shape(leaf) for path, leaf in tree.items(everything)}
    for half in (0, 1):
        _, gradient = value_and_grad(lambda everything, half=half: projections(everything)[half])(everything)
        exact.append({path: leaf for path, leaf in tree.items(gradient) if leaf is not None})
        for path, leaf in exact[half].items():
            if leaf.shape != shapes[path]:
                return (
                    f"the gradient of {direction} in {path.removeprefix('layer/')!r} has shape "
                    f"{leaf.shape} where the array has {shapes[path]}: a primitive's derivative does not sum "
                    "over axes that were broadcast"
                )
    findings = []
    for way in ways:
        fun = partial(along, way)
        numerical, errors = jacobians.differentiate(fun, onp.zeros(1), noise, wanted=WANTED)
        for half, (other, error) in enumerate(zip(numerical[:, 0], errors[:, 0])):
            one = sum(onp.sum(exact[half][path] * way[path]) for path in way if path in exact[half])
            what = f"the gradient of {direction}'s {('array', 'log_det')[half]} in {_name(way)}"
            if not onp.isfinite(one):
                return f"{what} is not finite"
            if 10 * error <= RESOLVED * (1 + abs(other)):
                sentence = (
                    f"{what} is {one:.6g} along a random direction, finite differences say {other:.6g}: "
                    "a primitive's derivative is wrong"
                )
                found = Finding(abs(one - other), 1e-8 * (1 + abs(other)) + 10 * error, sentence)
                if found.passed or _confirmed(fun, half, one, other, noise):
                    findings.append(found)
    if len(findings) <= len(ways) and not any(finding.failed for finding in findings):  # half of them
        return undecided(f"finite differences did not resolve most gradients of {direction}")
    return worst(findings)


def _confirmed(fun, half, one, other, noise):
    """Whether differences of smaller steps say `other` too: estimates can lie where a map is rough."""
    apart = abs(one - other)
    for step in (1e-3, 1e-5, 1e-7):
        again, errors = jacobians.differentiate(fun, onp.zeros(1), noise, (step,))
        error = errors[half, 0] + noise / step
        if 10 * error < apart and not abs(again[half, 0] - other) < apart / 2:
            return False
    return True


def _rounding(pair, weights):
    """How far rounding may move a projection: large terms leave their rounding in a small sum."""
    terms = (onp.reshape(half, -1) * weight.reshape(-1) for half, weight in zip(pair, weights))
    return jacobians.EPS * max(1.0, *(onp.sum(onp.abs(term)) for term in terms))


def _ways(everything, unit, groups):
    """Random directions, each a dict of an array for each path that moves; the first is in the input.

    A direction has a length of about one, in the units of the parameters and of the input's spread.
    """
    rng = onp.random.default_rng(2)
    draws = {
        path: rng.standard_normal(onp.shape(leaf)) * (1.0 if path == "input" else unit_of(leaf))
        for path, leaf in tree.items(everything)
        if tree.is_trained(leaf)
    }
    paths = [path for path in draws if path != "input"]
    chunks = onp.array_split(onp.arange(len(paths)), min(groups, len(paths))) if paths else []
    ways = []
    for names in [["input"], *([paths[index] for index in chunk] for chunk in chunks)]:
        length = onp.sqrt(sum(onp.size(draws[name]) for name in names))
        ways.append({name: draws[name] / length for name in names})
    ways[0]["input"] = ways[0]["input"] * unit
    return ways


def _name(way):
    names = [path.removeprefix("layer/") for path in way]
    if names == ["input"]:
        return "its input"
    if len(names) == 1:
        return f"the parameter {names[0]!r}"
    return f"the parameters {names[0]!r} to {names[-1]!r}"
