"""A parameter tree as plain data: its structure and shapes, beside one vector of all that is trained."""

import numpy as np

from npflow.autodiff import Layout, tree
from npflow.errors import InputError


def skeleton_of(params):
    """The structure of a tree as JSON: dicts, lists and tuples, and the shape of each leaf."""
    if isinstance(params, dict):
        return {"dict": {key: skeleton_of(branch) for key, branch in params.items()}}
    if isinstance(params, (list, tuple)):
        return {type(params).__name__: [skeleton_of(branch) for branch in params]}
    return {"shape": list(np.shape(params)), "trained": bool(tree.is_trained(params))}


def fill(skeleton, vector, constants):
    """The tree of a skeleton: its trained leaves are views of `vector`, shape (d,), the others are `constants` by path.

    Raises
    ------
    InputError
        If the vector is of another dtype or length, or a constant is missing, of another shape, or too many.
    """
    if vector.dtype not in (np.float32, np.float64):
        raise InputError(f"expected parameters in float32 or float64, got {vector.dtype}")
    constants = dict(constants)

    def leaf(path, blank):
        if tree.is_trained(blank):
            return blank
        constant = constants.pop(path, None)
        if constant is None:
            raise InputError(f"expected an entry for the constant {path!r}, got none")
        if constant.shape != blank.shape or constant.dtype.kind not in "iub":
            raise InputError(
                f"expected integers of shape {blank.shape} at {path!r}, got {constant.dtype} of shape {constant.shape}"
            )
        return constant

    params = tree.build(leaf, _blank(skeleton, vector.dtype))
    params = Layout(params).unpack(vector, params)
    if constants:
        raise InputError(f"expected entries for constants of the architecture, got {min(constants)!r}")
    return params


def _blank(part, dtype):
    (kind, branches), *_ = part.items()
    if kind == "dict":
        return {key: _blank(branch, dtype) for key, branch in branches.items()}
    if kind in ("list", "tuple"):
        return {"list": list, "tuple": tuple}[kind](_blank(branch, dtype) for branch in branches)
    # A view of one number: a shape in a file takes no memory, however large it is.
    return np.broadcast_to(np.zeros((), dtype if part["trained"] else int), branches)


def check_permutations(params):
    """Raise unless all leaves called permutation are permutations; layers use them without a check."""
    for path, leaf in tree.items(params):
        if path.endswith("permutation") and not tree.is_trained(leaf):
            numbers = np.arange(leaf.shape[-1])
            if not np.can_cast(leaf.dtype, numbers.dtype) or np.any(np.sort(leaf) != numbers):
                raise InputError(f"expected each number below {len(numbers)} once at {path!r}, got others")
