"""The state of a random generator as plain data, as a checkpoint stores it."""

import numpy as np

from npflow.errors import InputError


def to_plain(state):
    """The state of a bit generator as JSON-ready data; arrays, as in MT19937 and Philox, become lists.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.training.random_state import from_plain, to_plain
    >>> rng = np.random.default_rng(0)
    >>> state = rng.bit_generator.state
    >>> from_plain(to_plain(state), rng) == state
    True
    """
    if isinstance(state, dict):
        return {key: to_plain(value) for key, value in state.items()}
    return state.tolist() if isinstance(state, (np.ndarray, np.generic)) else state


def from_plain(plain, rng):
    """The inverse of `to_plain`: a state for `rng`.

    Raises
    ------
    InputError
        If the state is that of another kind of generator than `rng`.
    """
    like = rng.bit_generator.state
    if plain.get("bit_generator") != like["bit_generator"]:
        raise InputError(
            f"expected a generator of the kind that the run began with, {plain.get('bit_generator')}, "
            f"got {like['bit_generator']}"
        )
    return _shaped(plain, like)


def _shaped(plain, like):
    if isinstance(like, dict):
        return {key: _shaped(plain[key], like[key]) for key in like}
    return np.array(plain, like.dtype) if isinstance(like, np.ndarray) else plain
