"""What computes on the host although its input lives on a device."""

import re
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import rows

from npflow import Flow, InputError, fit, to_device
from npflow.autodiff.gpu import devices
from npflow.layers import Affine, Chain, Inverse, Layer, Split
from npflow.priors import Normal


@dataclass(frozen=True)
class HostBoundPrior(Normal):
    """A prior that makes NumPy's arrays in its density and in its draws."""

    def log_prob(self, params, z):
        return np.zeros(len(z)) - 0.5 * anp.sum(z * z, axis=1)

    def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
        return rng.standard_normal((n, *self.event_shape), dtype) * np.ones(self.event_shape)


@dataclass(frozen=True)
class HostSampler(Normal):
    """A prior that makes NumPy's arrays in its draws."""

    def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
        return np.zeros((n, *self.event_shape), dtype)


def test_a_prior_that_makes_numpy_arrays_is_named(device):
    x = rows(6, 2)
    for prior, methods in ((HostBoundPrior(2), ("log_prob", "sample")), (HostSampler(2), ("sample",))):
        flow = Flow(Affine(), prior)
        params, x_there = to_device((flow.init(np.random.default_rng(0), x), x), device.name)
        calls = {"log_prob": (x_there,), "sample": (np.random.default_rng(0), 3)}
        for method in methods:
            sentence = f"prior \\({type(prior).__name__}\\): expected {method} to compute on {device} alone"
            with pytest.raises(InputError, match=sentence):
                getattr(flow, method)(params, *calls[method])


def test_a_function_that_the_device_lacks_is_named(device):
    @dataclass(frozen=True)
    class Exotic(Affine):
        def forward(self, params, x):
            return x, np.nanmedian(x, axis=1)

    flow = Flow(Exotic(), Normal(2))
    x = rows(6, 2)
    params, x = to_device((flow.init(np.random.default_rng(0), x), x), device.name)
    if device.exact:  # a GPU may have it
        with pytest.raises(InputError, match=r"layer \(Exotic\): .*nanmedian.*use functions that CuPy has"):
            flow.log_prob(params, x)


@dataclass(frozen=True)
class HostBound(Layer):
    """A layer that makes NumPy's arrays: on the way to z, or for its log-det alone."""

    on_the_way: bool

    def forward(self, params, x):
        log_det = np.zeros(len(x), x.dtype)
        return (x + np.zeros(x.shape, x.dtype) if self.on_the_way else x), log_det

    inverse = forward


CONTAINERS = {
    "alone": (lambda bound: bound, "layer"),
    "in a chain": (lambda bound: Chain([Affine(), bound, Affine()]), "layer/1"),
    "turned round": (lambda bound: Chain([Affine(), Chain([Affine(), Inverse(bound)])]), "layer/1/1"),
    "behind a split": (lambda bound: Chain([Affine(), Split(Chain([Affine(), bound]))]), "layer/1/1"),
}


@pytest.mark.parametrize("on_the_way", [True, False])
@pytest.mark.parametrize("container", CONTAINERS)
def test_a_layer_that_makes_numpy_arrays_is_named(container, on_the_way, device):
    contain, place = CONTAINERS[container]
    flow, x = Flow(contain(HostBound(on_the_way)), Normal(2)), rows(6, 2)
    params, x = to_device((flow.init(np.random.default_rng(0), x), x), device.name)
    calls = {"forward": flow.log_prob, "inverse": flow.decode}
    if container == "turned round":
        calls = {"inverse": flow.log_prob, "forward": flow.decode}
    elif container == "alone" and not on_the_way:
        del calls["inverse"]  # decode does not use the log-det
    for direction, call in calls.items():
        sentence = (
            f"{place} (HostBound): expected {direction} to compute on {device} alone, where its input lives"
        )
        with pytest.raises(InputError, match=re.escape(sentence)):
            call(params, x)


@pytest.mark.parametrize("error", [MemoryError, RuntimeError])
def test_a_device_that_fails_blames_no_layer_and_no_prior(error, device):
    @dataclass(frozen=True)
    class Large(Affine):
        def forward(self, params, x):
            if devices.device_of(x) is not devices.HOST:
                raise error("the device's")
            return super().forward(params, x)

    @dataclass(frozen=True)
    class Wide(Normal):
        def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
            if not isinstance(rng, np.random.Generator):
                raise error("the device's")
            return super().sample(params, rng, n, dtype, temperature)

    flow = Flow(Large(), Wide(2))
    x = rows(6, 2)
    params = flow.init(np.random.default_rng(0), x)
    there = to_device((params, x), device.name)
    options = {"rng": np.random.default_rng(0), "steps": 1, "progress": False, "record": False}
    for call in (
        lambda: flow.log_prob(*there),
        lambda: flow.sample(there[0], np.random.default_rng(0), 3),
        lambda: fit(flow, *there, **options),
    ):
        with pytest.raises(error, match="the device's"):
            call()


def test_an_error_that_a_prior_raises_itself_is_not_changed(device):
    class Refusing(Normal):
        def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
            raise self.error("of its own")

    x = rows(6, 2)
    for error in (TypeError, InputError):
        Refusing.error = error
        flow = Flow(Affine(), Refusing(2))
        params = to_device(flow.init(np.random.default_rng(0), x), device.name)
        with pytest.raises(error, match=r"^of its own$"):
            flow.sample(params, np.random.default_rng(0), 3)


def test_the_error_of_the_device_is_the_cause(device):
    flow = Flow(HostBound(on_the_way=True), Normal(2))
    params, x = to_device(({"layer": {}, "prior": {}}, np.ones((3, 2))), device.name)
    with pytest.raises(InputError) as caught:
        flow.log_prob(params, x)
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_error_that_a_layer_raises_itself_is_not_changed(device):
    class Broken(Affine):
        def forward(self, params, x):
            raise TypeError("of its own")

    flow = Flow(Affine(), Normal(2))
    x = rows(6, 2)
    params = flow.init(np.random.default_rng(0), x)
    with pytest.raises(TypeError, match="of its own"):
        Flow(Broken(), Normal(2)).log_prob(params, x)
    with pytest.raises(TypeError, match="of its own"):
        Flow(Broken(), Normal(2)).log_prob(*to_device((params, x), device.name))
