"""Which part of a flow it was: the first layer whose output is not finite, or not found; what cannot compute on a device."""

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import HOST, device_of, to_host
from npflow.errors import ConvergenceError, InputError
from npflow.layers import Chain, Given, Inverse, Split
from npflow.layers.layer import given

# What CuPy raises for arrays of NumPy's and functions that it has not; memory that runs out is nobody's mistake.
REFUSALS = (TypeError, ValueError, NotImplementedError, AttributeError)


def first_layer(is_wrong, layer, params, x, name="layer", direction="forward", context=None):
    """The name of the first layer, inside `layer`, that something is wrong with; None if nothing is.

    Parameters
    ----------
    is_wrong : callable
        `is_wrong(call) -> bool`, where `call()` gives the layer's output and its log-det.
    layer : Layer
        A chain is looked into, layer by layer, and so are an inverse and what a split goes on with.
    params : tree
        Its parameters.
    x : ndarray, shape (n, ...)
        What goes in.
    name : str
        What `layer` is called; the answer starts with it.
    direction : {"forward", "inverse"}
    context : ndarray, shape (n, context features), optional
    """
    if isinstance(layer, Given):
        return first_layer(is_wrong, layer.layer, params, x, name, direction, layer.rows(x))
    if isinstance(layer, Inverse):
        opposite = "inverse" if direction == "forward" else "forward"
        return first_layer(is_wrong, layer.layer, params, x, name, opposite, context)
    if isinstance(layer, Split):
        _, rest = layer.mask.parts(x)
        return first_layer(is_wrong, layer.layer, params, rest, name, direction, context)
    if not isinstance(layer, Chain):
        wrong = is_wrong(lambda: getattr(layer, direction)(params, x, **given(layer, context)))
        return f"{name} ({type(layer).__name__})" if wrong else None
    inner = list(enumerate(zip(layer.layers, params, strict=True)))
    for index, (part, p) in inner if direction == "forward" else reversed(inner):
        culprit = first_layer(is_wrong, part, p, x, f"{name}/{index}", direction, context)
        if culprit:
            return culprit
        x, _ = getattr(part, direction)(p, x, **given(part, context))
    return None


def first_non_finite(layer, params, x, name="layer", direction="forward", context=None):
    """The name of the first layer, inside `layer`, whose output or log-det is not finite; None if all are."""
    is_wrong = lambda call: not all(bool(np.isfinite(array).all()) for array in call())
    return first_layer(is_wrong, layer, params, x, name, direction, context)


def first_lost(layer, params, x, name="layer", direction="forward", context=None):
    """The name of the first layer, inside `layer`, whose iteration comes to no end; None if all do."""

    def is_lost(call):
        try:
            call()
        except ConvergenceError:
            return True
        return False

    return first_layer(is_lost, layer, params, x, name, direction, context)


def host_bound(error, flow, params, x, direction="forward", context=None):
    """The error that names what cannot compute on a device, where an error came; None if it is another error.

    A layer is named, or the prior, which makes arrays of NumPy's on its way or uses a function that the device has not.
    """
    there = device_of(x)
    if there is HOST or not is_refusal(error):
        return None
    try:
        arguments = to_host((params["layer"], x))
        beside = {} if context is None else given(flow.layer, to_host(context))
        z, _ = getattr(flow.layer, direction)(*arguments, **beside)
        if direction == "forward":
            flow.prior.log_prob(to_host(params["prior"]), z)
    except Exception:  # it fails on the host too: the error is its own
        return None
    met = []  # what the device said

    def is_bound(call):
        try:
            return any(device_of(array) is not there for array in call())
        except REFUSALS as error:
            met.append(error)
            return True

    place = first_layer(is_bound, flow.layer, params["layer"], x, direction=direction, context=context)
    if place is not None:
        return not_on(there, direction, place, *met)
    if direction == "forward":
        z, _ = flow.layer.forward(params["layer"], x, **given(flow.layer, context))
        if is_bound(lambda: [flow.prior.log_prob(params["prior"], z)]):
            return not_on(there, "log_prob", f"prior ({type(flow.prior).__name__})", *met)
    return None


def is_refusal(error):
    """Whether an error may be a device's word on an array or a function that is not its own."""
    return isinstance(error, REFUSALS) and not isinstance(error, InputError)


def draw(prior, params, rng, n, dtype, there, temperature=1.0):
    """`n` draws of z on a device, at a temperature; a prior that makes arrays of NumPy's instead is named."""
    place = f"prior ({type(prior).__name__})"
    try:
        z = prior.sample(params, there.generator(rng), n, dtype, temperature)
    except Exception as error:
        if there is HOST or not is_refusal(error):
            raise
        prior.sample(
            to_host(params), onp.random.default_rng(0), 1, dtype, temperature
        )  # an error of its own is raised here
        raise not_on(there, "sample", place, error) from error
    if device_of(z) is not there:
        raise not_on(there, "sample", place)
    return z


def not_on(there, method, place, error=None):
    """The error that says that a method of what is at a place in a flow does not compute on a device alone."""
    got = "an array of NumPy's back" if error is None else f"an error ({error})"
    return InputError(
        f"expected {method} to compute on {there} alone, where its input lives, got {got}: an array is made like another "
        "there, np.zeros_like(x, shape=...), or sent once, npflow.autodiff.gpu.devices.constant(values, like=x), and a "
        "function has to be one that CuPy has",
        place,
    )
