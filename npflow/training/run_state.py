"""The state of a training run as a checkpoint stores it: whether its parts are whole and fit each other."""

import json

import numpy as np

from npflow.errors import InputError
from npflow.training.history import History
from npflow.validation import check_count, check_instance, check_number, check_seed

NEEDED = {"settings", "step", "position", "best_loss", "epoch_rng"}
PLACES = {
    "pos": 624,
    "buffer_pos": 4,
}  # the largest indices into a generator's buffers; NumPy does not check them
PER_STEP = ("loss", "learning_rate", "gradient_norm", "seconds")


def check_run(run, arrays, params):
    """Raise `InputError` unless the state of a run is whole, and its parts fit each other and the parameters.

    Parameters
    ----------
    run : dict
        Plain data.
    arrays : dict of ndarray
    params : ndarray, shape (d,)
        The parameters as one vector.
    """
    missing = sorted(NEEDED - run.keys())
    if missing:
        raise InputError(
            f"expected the state of a run, with {', '.join(sorted(NEEDED))}, got none of {missing}"
        )
    settings = check_instance(run["settings"], dict, "the settings of the run")
    step = check_count(run["step"], "the step of the run", least=0)
    check_count(run["position"], "the position in the epoch", least=0)
    check_seed(run.get("noise_seed", 0), "the seed of the noise")
    if run["best_loss"] is not None:
        check_number(run["best_loss"], "the best validation loss")
    check_random_state(run["epoch_rng"])

    vectors = {name for name in arrays if name in ("vector", "average", "best") or name.startswith("moment:")}
    wanted = {
        "vector": True,
        "average": settings.get("average") is not None,
        "best": run["best_loss"] is not None,
    }
    for name, there in wanted.items():
        if (name in vectors) != there:
            raise InputError(
                f"expected {'an' if there else 'no'} entry 'run:{name}', got {'none' if there else 'one'}"
            )
    series = {f"history:{name}" for name in History.SERIES}
    odd = sorted((arrays.keys() - vectors) ^ series)
    if odd:
        raise InputError(
            f"expected the vectors and the history of a run, got 'run:{odd[0]}' missing or unknown"
        )
    for name in vectors:
        check_kind(arrays[name], params.shape, params.dtype, name)
    validations = len(np.atleast_1d(arrays["history:validation_step"]))
    for name in History.SERIES:
        length = step if name in PER_STEP else validations
        check_kind(arrays[f"history:{name}"], (length,), np.float64, f"history:{name}")
    steps = arrays["history:validation_step"]
    if not np.isin(steps, np.arange(1, step + 1)).all() or np.any(np.diff(steps) < 0):
        raise InputError(f"expected validations after steps 1 to {step}, one after the other, got others")


def check_kind(array, shape, dtype, name):
    """Raise `InputError` unless an array of a run's state has a shape and a dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"expected {np.dtype(dtype)} of shape {shape} in 'run:{name}', got {array.dtype} of shape {array.shape}"
        )


def check_random_state(state):
    """Raise `InputError` unless a state is one that NumPy's generator of its kind can have.

    Other libraries' generators are not known here.
    """
    expected = "expected the state of a random generator"
    check_instance(state, dict, "the state of the random generator")
    kind = getattr(np.random, check_instance(state.get("bit_generator"), str, "the kind of generator"), None)
    if not isinstance(kind, type) or not issubclass(kind, np.random.BitGenerator):
        return
    generator = kind(0)
    try:
        generator.state = state
        plain = json.loads(json.dumps(generator.state, default=lambda array: array.tolist()))
    except Exception as error:  # NumPy's own, which differ from kind to kind
        raise InputError(
            f"{expected} {kind.__name__}, got one that it refuses: {type(error).__name__}"
        ) from None
    inner = state["state"] if isinstance(state["state"], dict) else {}
    places = {name: value for name, value in (state | inner).items() if name in PLACES}
    if plain != state or any(not 0 <= place <= PLACES[name] for name, place in places.items()):
        raise InputError(f"{expected} {kind.__name__}, got one that it cannot be in")
