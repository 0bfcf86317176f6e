"""Errors that name what computes on the host although its input lives on a device."""

import autograd.numpy as anp
import numpy as np
import pytest

from npflow.autodiff.gpu.devices import find_device, to_device
from npflow.autodiff.gpu.host_bound import draw, host_bound
from npflow.errors import InputError
from npflow.layers.composite import Visit
from npflow.priors import Normal

X = np.ones((3, 2))


def good(x):
    return 2 * x, anp.sum(x, axis=1)


def refused(x):
    return x + np.ones(2)


def host_made(x):
    return x, np.zeros(len(x))


def lost(x):
    raise ValueError("lost")


def explained(error, *methods, device="strict"):
    """The sentence of `host_bound` for calls of methods one after the other, or None."""
    visits = lambda x: (Visit(f"layer/{number}", method, (x,)) for number, method in enumerate(methods))
    named = host_bound(error, visits, to_device(X, device))
    return named and str(named)


def test_the_first_that_is_refused_or_returns_an_array_of_the_host_is_named():
    error = TypeError("Unsupported type")
    sentence = explained(error, good, refused, host_made)
    assert "layer/1" in sentence
    assert "expected refused to compute on strict alone" in sentence
    assert "got an error (Unsupported type" in sentence
    sentence = explained(error, good, host_made, refused)
    assert "layer/1" in sentence
    assert "got an array of NumPy's" in sentence


@pytest.mark.parametrize(
    ("error", "methods", "device"),
    [
        (TypeError(), (refused,), "cpu"),
        (MemoryError(), (refused,), "strict"),
        (InputError("expected"), (refused,), "strict"),
        (ValueError("lost"), (lost,), "strict"),  # it fails on the host too
        (TypeError(), (good,), "strict"),
    ],
)
def test_an_error_with_another_cause_is_not_explained(error, methods, device):
    assert explained(error, *methods, device=device) is None


class HostNormal(Normal):
    def sample(self, params, rng, n, dtype, temperature=1.0):
        return np.zeros((n, *self.event_shape), dtype)


class MixingNormal(Normal):
    def sample(self, params, rng, n, dtype, temperature=1.0):
        return rng.standard_normal((n, *self.event_shape), dtype) + np.zeros(self.event_shape)


class LostNormal(Normal):
    def sample(self, params, rng, n, dtype, temperature=1.0):
        raise ValueError("lost")


def test_a_prior_draws_on_the_device_or_is_named(rng):
    there = find_device("strict")
    drawn = lambda prior, there=there: draw(prior, {}, rng, 3, np.dtype(float), there)
    assert isinstance(drawn(Normal(2)), there.array_type)
    for prior, got in ((HostNormal(2), "an array of NumPy's"), (MixingNormal(2), "an error")):
        with pytest.raises(
            InputError, match=rf"prior \({type(prior).__name__}\).*expected sample .*got {got}"
        ):
            drawn(prior)
    for device in ("cpu", "strict"):
        with pytest.raises(ValueError, match="lost"):
            drawn(LostNormal(2), find_device(device))
