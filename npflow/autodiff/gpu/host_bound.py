"""What computes on the host although its input lives on a device: it is named in an error."""

import numpy as np

from npflow.autodiff.gpu.devices import HOST, device_of, to_host
from npflow.errors import InputError

# What CuPy raises for NumPy's arrays and for functions that it lacks. Memory that runs out is not among them.
REFUSALS = (TypeError, ValueError, NotImplementedError, AttributeError)


def host_bound(error, visits, *arguments):
    """The error that names what does not compute on the device of the arguments; None if `error` has another cause.

    Parameters
    ----------
    error : Exception
        What a pass raised.
    visits : callable
        ``visits(*arguments)`` goes through the pass again, one `npflow.layers.composite.Visit` after the other.
    *arguments : tree of ndarray
    """
    there = device_of(arguments)
    if there is HOST or not is_refusal(error):
        return None
    try:
        for visit in visits(*to_host(arguments)):
            visit.result  # noqa: B018 (it computes)
    except Exception:  # it fails on the host too
        return None
    for visit in visits(*arguments):
        try:
            if any(device_of(array) is not there for array in visit.result):
                return not_on(there, visit)
        except REFUSALS as refusal:
            return not_on(there, visit, refusal)
    return None


def is_refusal(error):
    """Whether an error may be a device's refusal of an array or a function."""
    return isinstance(error, REFUSALS) and not isinstance(error, InputError)


def draw(prior, params, rng, n, dtype, there, temperature=1.0):
    """`n` draws of z on a device; a prior that makes NumPy's arrays there is named in an error."""
    place = f"prior ({type(prior).__name__})"
    try:
        z = prior.sample(params, there.generator(rng), n, dtype, temperature)
    except Exception as error:
        if there is HOST or not is_refusal(error):
            raise
        prior.sample(
            to_host(params), np.random.default_rng(0), 1, dtype, temperature
        )  # raises an error of its own
        raise computes_elsewhere(there, "sample", place, error) from error
    if device_of(z) is not there:
        raise computes_elsewhere(there, "sample", place)
    return z


def not_on(there, visit, error=None):
    """The error that says that a visit does not compute on a device alone."""
    return computes_elsewhere(there, visit.direction, visit.name, error)


def computes_elsewhere(there, method, place, error=None):
    """The error that says that the method of the object at a place does not compute on a device alone."""
    got = "an array of NumPy's back" if error is None else f"an error ({error})"
    return InputError(
        f"expected {method} to compute on {there} alone, where its input lives, got {got}: make new arrays like the "
        "input, np.zeros_like(x, shape=...), send fixed ones once, npflow.autodiff.gpu.constant(values, like=x), and "
        "use functions that CuPy has",
        place,
    )
