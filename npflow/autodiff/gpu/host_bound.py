"""Errors that name what computes on the host although its input lives on a device."""

import numpy as np

from npflow.autodiff.gpu.devices import HOST, device_of, to_host
from npflow.errors import InputError

# CuPy raises these for NumPy's arrays and for functions that it does not have; not where memory runs out.
REFUSALS = (TypeError, ValueError, NotImplementedError, AttributeError)


def host_bound(error, visits, *arguments):
    """An error that names the layer that does not compute on a device; None if `error` has another cause.

    `error` is what a pass raised; ``visits(*arguments)`` goes through the pass again, as a sequence of
    `npflow.layers.composite.Visit`.
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
        refusal = None
        try:
            if all(device_of(array) is there for array in visit.result):
                continue
        except REFUSALS as caught:
            refusal = caught
        return computes_elsewhere(there, visit.direction, visit.name, refusal)
    return None


def is_refusal(error):
    """Whether an error may be a device's refusal of an array or a function."""
    return isinstance(error, REFUSALS) and not isinstance(error, InputError)


def draw(prior, params, rng, n, dtype, there, temperature=1.0):
    """`n` draws of z on a device; an error names a prior that makes NumPy's arrays there."""
    place = f"prior ({type(prior).__name__})"
    try:
        z = prior.sample(params, there.generator(rng), n, dtype, temperature)
    except Exception as error:
        if there is HOST or not is_refusal(error):
            raise
        # The prior's own error comes first.
        prior.sample(to_host(params), np.random.default_rng(0), 1, dtype, temperature)
        raise computes_elsewhere(there, "sample", place, error) from error
    if device_of(z) is not there:
        raise computes_elsewhere(there, "sample", place)
    return z


def computes_elsewhere(there, method, place, error=None):
    """The error that says that a method of the object at a place does not compute on a device alone."""
    got = "an array of NumPy's" if error is None else f"an error ({error})"
    return InputError(
        f"expected {method} to compute on {there} alone, where its input lives, got {got}: "
        "make new arrays like the input, np.zeros_like(x, shape=...), send fixed arrays once, "
        "npflow.autodiff.gpu.constant(values, like=x), and use functions that CuPy has",
        place,
    )
