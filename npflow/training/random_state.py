"""The state of a random generator as plain data, for a checkpoint."""

import numpy as np

from npflow.errors import InputError


def to_plain(state):
    """A bit generator's state as JSON-ready data; its arrays (MT19937, Philox) become lists."""
    if isinstance(state, dict):
        return {key: to_plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def from_plain(plain, rng):
    """The state that `to_plain` made plain, for a generator of the same kind.

    Raises
    ------
    InputError
        If `rng` is of another kind than the state's.
    """
    like = rng.bit_generator.state
    if plain.get("bit_generator") != like["bit_generator"]:
        raise InputError(
            f"expected a generator of the kind that the run was begun with, {plain.get('bit_generator')}, "
            f"got {like['bit_generator']}"
        )
    return _shaped(plain, like)


def _shaped(plain, like):
    if isinstance(like, dict):
        return {key: _shaped(plain[key], like[key]) for key in like}
    return np.array(plain, like.dtype) if isinstance(like, np.ndarray) else plain
