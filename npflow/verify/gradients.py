"""Gradients in the input and in the parameters, against finite differences along random directions."""

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import tree, value_and_grad
from npflow.verify import jacobians
from npflow.verify.finding import Finding, yes_or_no

GROUPS = 8  # leaves of large models share directions, each of which costs some forty evaluations
RESOLVED = 1e-4  # a derivative that finite differences know less well proves nothing


def gradients(point, direction):
    """The gradient of a random projection of the array, and one of the log-det, in the input and each leaf."""
    start = point.start(direction)
    everything = {"input": start, "layer": point.params}
    weights = _weights(start)

    def projections(everything):
        pair = getattr(point.layer, direction)(everything["layer"], everything["input"])
        return [np.sum(np.reshape(half, weight.shape) * weight) for half, weight in zip(pair, weights)]

    groups = _groups(everything)
    ways = _ways(everything, groups, start)

    def moved(steps):
        def move(path, leaf):
            if path not in groups:
                return leaf
            step = steps[groups[path]]  # most are zero: SciPy moves along one direction at a time
            return onp.array(leaf) + step * ways[path] if step else onp.array(leaf)

        return tree.build(move, everything)

    def along(steps):  # SciPy's points: (groups, ...) gives (2, ...)
        columns = steps.reshape(len(steps), -1).T
        values = onp.array([projections(moved(column)) for column in columns])
        return values.T.reshape(2, *steps.shape[1:])

    numerical, errors = jacobians.differentiate(along, onp.zeros(1 + max(groups.values())))
    exact = onp.zeros(numerical.shape)
    for part in (0, 1):
        _, gradient = value_and_grad(lambda tree, part=part: projections(tree)[part])(everything)
        for path, leaf in tree.items(gradient):
            if leaf is not None and leaf.shape != ways[path].shape:
                return yes_or_no(
                    f"the gradient of {direction} in {path.removeprefix('layer/')!r} has shape {leaf.shape} where the "
                    f"array has {ways[path].shape}: a primitive's derivative does not sum over axes that were "
                    "broadcast (autograd's np.where does not, npflow.autodiff.primitives.where does)"
                )
            if leaf is not None:
                exact[part, groups[path]] += onp.sum(leaf * ways[path])
    return _judge(direction, groups, exact, numerical, errors)


def _judge(direction, groups, exact, numerical, errors):
    """The worst of all derivatives, where finite differences resolve most of them."""
    findings = []
    for (part, group), other in onp.ndenumerate(numerical):
        one, error = exact[part, group], errors[part, group]
        what = f"the gradient of {direction}'s {('array', 'log_det')[part]} in {_name(groups, group)}"
        if not onp.isfinite(one):
            return yes_or_no(f"{what} is not finite")
        if 10 * error <= RESOLVED * (1 + abs(other)):
            sentence = (
                f"{what} is {one:.6g} along a random direction, finite differences say {other:.6g}: "
                "a primitive's derivative is wrong"
            )
            findings.append(Finding(abs(one - other), 1e-8 * (1 + abs(other)) + 10 * error, sentence))
    if 2 * len(findings) <= numerical.size:
        return Finding(onp.inf, RESOLVED, f"finite differences did not resolve most gradients of {direction}")
    return max(findings, key=lambda finding: finding.severity)


def _weights(start):
    rng = onp.random.default_rng(1)
    return rng.standard_normal(start.shape), rng.standard_normal(len(start))


def _groups(everything):
    """For the path of each trained leaf, the number of the direction that it takes part in."""
    paths = [path for path, leaf in tree.items(everything) if tree.is_trained(leaf) and path != "input"]
    chunks = onp.array_split(onp.arange(len(paths)), min(GROUPS, max(1, len(paths))))
    groups = {paths[index]: number for number, chunk in enumerate(chunks, start=1) for index in chunk}
    return {"input": 0} | groups


def _ways(everything, groups, start):
    """For each path a random direction, of length one within its group; the input's in units of its spread."""
    rng = onp.random.default_rng(2)
    leaves = {path: onp.asarray(leaf) for path, leaf in tree.items(everything) if path in groups}
    ways = {path: rng.standard_normal(leaf.shape) for path, leaf in leaves.items()}
    squares = onp.zeros(1 + max(groups.values()))
    for path, way in ways.items():
        squares[groups[path]] += onp.sum(way**2)
    ways = {path: way / onp.sqrt(squares[groups[path]]) for path, way in ways.items()}
    return ways | {"input": ways["input"] * jacobians.spread(start).reshape(start.shape[1:])}


def _name(groups, group):
    names = [path.removeprefix("layer/") for path in groups if groups[path] == group]
    if names == ["input"]:
        return "its input"
    return (
        f"the parameter {names[0]!r}" if len(names) == 1 else f"the parameters {names[0]!r} to {names[-1]!r}"
    )
