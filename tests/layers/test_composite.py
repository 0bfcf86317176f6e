"""Which part of a flow it was: what is not finite, and what cannot compute on a device."""

import re
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest

from npflow import Flow, InputError, fit, to_device
from npflow.autodiff.gpu import devices
from npflow.layers import ActNorm, Affine, Chain, Inverse, Layer, Reverse, Split
from npflow.layers.composite import first_non_finite
from npflow.priors import Normal

# ---------------------------------------------------------------- the first layer that is not finite


@dataclass(frozen=True)
class ConstantScale(Layer):
    """A layer of the reader's own that gives what it is told to give."""

    value: float = 1.0
    log_scale: float = 0.0

    def forward(self, params, x):
        return x * self.value, np.full(len(x), self.log_scale, x.dtype)

    def inverse(self, params, z):
        return z / self.value, np.full(len(z), -self.log_scale, z.dtype)


NESTED = Chain(
    [
        ActNorm(),
        Chain([Affine(), Reverse(), Affine()]),
        Inverse(Affine()),
        Split(Chain([Reverse(), Affine()])),
    ]
)


def nested_params(**ruined):
    """Parameters of `NESTED`; `ruined` has leaves set to nan, by the places of their layers."""
    params = NESTED.init(np.random.default_rng(0), np.random.default_rng(1).standard_normal((5, 2)))
    layers = {"first": params[0], "inner": params[1][0], "last_inner": params[1][2], "inverse": params[2]}
    layers["split"] = params[3][1]
    for place, leaf in ruined.items():
        layers[place][leaf][0] = np.nan
    return params


@pytest.mark.parametrize(
    ("ruined", "name"),
    [
        ({}, None),
        ({"first": "bias"}, "layer/0 (ActNorm)"),
        ({"inner": "mean"}, "layer/1/0 (Affine)"),
        ({"last_inner": "log_std"}, "layer/1/2 (Affine)"),
        ({"inverse": "log_std"}, "layer/2 (Affine)"),
        ({"split": "mean"}, "layer/3/1 (Affine)"),
        ({"last_inner": "mean", "inverse": "mean"}, "layer/1/2 (Affine)"),
    ],
)
def test_first_non_finite_names_the_first_layer_that_gives_a_value_that_is_not_finite(ruined, name):
    x = np.random.default_rng(1).standard_normal((5, 2))
    assert first_non_finite(NESTED, nested_params(**ruined), x) == name


def test_first_non_finite_looks_at_outputs_and_log_dets():
    x = np.ones((3, 2))
    for layer in (ConstantScale(value=np.inf), ConstantScale(log_scale=np.nan)):
        chain = Chain([Reverse(), layer])
        assert first_non_finite(chain, [{}, {}], x, "flow") == "flow/1 (ConstantScale)"
        assert first_non_finite(layer, {}, x) == "layer (ConstantScale)"


# ---------------------------------------------------------------- what cannot compute on a device


@dataclass(frozen=True)
class HostBoundPrior(Normal):
    """What no prior may do."""

    def log_prob(self, params, z):
        return np.zeros(len(z)) - 0.5 * anp.sum(z * z, axis=1)

    def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
        return rng.standard_normal((n, *self.event_shape), dtype) * np.ones(self.event_shape)


@dataclass(frozen=True)
class HostSampler(Normal):
    def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
        return np.zeros((n, *self.event_shape), dtype)


def test_a_prior_that_makes_numpy_arrays_is_named(device):
    x = np.random.default_rng(0).standard_normal((6, 2))
    for prior, methods in ((HostBoundPrior(2), ("log_prob", "sample")), (HostSampler(2), ("sample",))):
        flow = Flow(Affine(), prior)
        params, x_there = to_device((flow.init(np.random.default_rng(0), x), x), device.name)
        calls = {"log_prob": (x_there,), "sample": (np.random.default_rng(0), 3)}
        for method in methods:
            sentence = f"prior \\({type(prior).__name__}\\): expected {method} to compute on {device} alone"
            with pytest.raises(InputError, match=sentence):
                getattr(flow, method)(params, *calls[method])


def test_a_function_that_the_device_has_not_is_told(device):
    @dataclass(frozen=True)
    class Exotic(Affine):
        def forward(self, params, x):
            return x, np.nanmedian(x, axis=1)

    flow = Flow(Exotic(), Normal(2))
    x = np.random.default_rng(0).standard_normal((6, 2))
    params, x = to_device((flow.init(np.random.default_rng(0), x), x), device.name)
    if device.exact:  # a GPU may have it
        with pytest.raises(
            InputError, match=r"layer \(Exotic\): .*nanmedian.*a function has to be one that CuPy has"
        ):
            flow.log_prob(params, x)


@dataclass(frozen=True)
class HostBound(Layer):
    """What no layer may do: it makes an array on the host on its way, or for its log-det alone."""

    on_the_way: bool

    def forward(self, params, x):
        log_det = np.zeros(len(x), x.dtype)
        return (x + np.zeros(x.shape, x.dtype) if self.on_the_way else x), log_det

    inverse = forward


@pytest.mark.parametrize("on_the_way", [True, False])
@pytest.mark.parametrize(
    ("layer", "place"),
    [
        (lambda bound: bound, "layer"),
        (lambda bound: Chain([Affine(), bound, Affine()]), "layer/1"),
        (lambda bound: Chain([Affine(), Chain([Affine(), Inverse(bound)])]), "layer/1/1"),
        (lambda bound: Chain([Affine(), Split(Chain([Affine(), bound]))]), "layer/1/1"),
    ],
    ids=["alone", "in a chain", "turned round, in a chain in a chain", "behind a split"],
)
def test_a_layer_that_makes_numpy_arrays_is_named(layer, place, on_the_way, device):
    flow = Flow(layer(HostBound(on_the_way)), Normal(2))
    x = np.random.default_rng(0).standard_normal((6, 2))
    params, x = to_device((flow.init(np.random.default_rng(0), x), x), device.name)
    start = re.escape(f"{place} (HostBound): expected ")
    with pytest.raises(
        InputError, match=start + f"forward to compute on {device} alone, where its input lives"
    ):
        flow.log_prob(params, x)
    if place != "layer":
        with pytest.raises(InputError, match=start + "inverse to compute"):
            flow.decode(params, x)


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
    x = np.random.default_rng(0).standard_normal((6, 2))
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


def test_an_error_of_a_priors_own_stays_itself_on_a_device(device):
    class Refusing(Normal):
        def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
            raise self.error("of its own")

    x = np.random.default_rng(0).standard_normal((6, 2))
    for error in (TypeError, InputError):
        Refusing.error = error
        flow = Flow(Affine(), Refusing(2))
        params = to_device(flow.init(np.random.default_rng(0), x), device.name)
        with pytest.raises(error, match=r"^of its own$"):
            flow.sample(params, np.random.default_rng(0), 3)


def test_what_the_device_said_is_the_cause_of_the_sentence(device):
    flow = Flow(HostBound(on_the_way=True), Normal(2))
    params, x = to_device(({"layer": {}, "prior": {}}, np.ones((3, 2))), device.name)
    with pytest.raises(InputError) as caught:
        flow.log_prob(params, x)
    assert isinstance(caught.value.__cause__, TypeError)


def test_an_error_of_a_layers_own_stays_itself_on_a_device(device):
    class Broken(Affine):
        def forward(self, params, x):
            raise TypeError("of its own")

    flow = Flow(Affine(), Normal(2))
    x = np.random.default_rng(0).standard_normal((6, 2))
    params = flow.init(np.random.default_rng(0), x)
    with pytest.raises(TypeError, match="of its own"):
        Flow(Broken(), Normal(2)).log_prob(params, x)
    with pytest.raises(TypeError, match="of its own"):
        Flow(Broken(), Normal(2)).log_prob(*to_device((params, x), device.name))
