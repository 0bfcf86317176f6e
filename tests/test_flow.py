"""A flow: a layer and a prior, together a density."""

from dataclasses import dataclass
from functools import partial

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, rows, same_bits

from npflow.autodiff import Layout, tree, value_and_grad
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.errors import ConvergenceError, InputError
from npflow.flow import Flow, layout_of_init, layout_without_a_pass
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Inverse,
    Layer,
    Permutation,
    Reverse,
    Squeeze,
    Units,  # noqa: F401 (in a repr)
)
from npflow.models import glow, real_nvp
from npflow.networks import MLP, Beside
from npflow.priors import GaussianMixture, Normal
from npflow.training import fit, save

SMALL = MLP((6,), "tanh")
STEP = [ActNorm(), AffineCoupling(SMALL), Conv1x1()]
FLOWS = {
    "glow": glow(2, steps=2, network=SMALL),
    "trained prior": Flow(Chain(STEP), Normal(2, trained=True)),
    "mixture": Flow(Chain(STEP), GaussianMixture([[-1, 0], [1, 0]], [0.5, 0.5], trained=True)),
    "images": Flow(Chain([ActNorm(), AffineCoupling(SMALL, "first"), Reverse()]), Normal((2, 3, 2))),
    "one layer": Flow(Affine(), Normal(2)),
    "no parameters": Flow(Chain([Reverse(), Permutation()]), Normal(2)),
}
every_flow = pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS.keys())
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@dataclass(frozen=True)
class Unhashable(Layer):
    """A layer of the reader's own whose hyper-parameters are a list."""

    factors: list


@dataclass
class Thawed(Layer):
    """A layer of the reader's own that is not frozen."""


def batch(flow, n=8, dtype=np.float64, seed=1):
    return (0.5 + 1.5 * rows(n, *flow.event_shape, seed=seed)).astype(dtype)


def perturbed(flow, dtype=np.float64, seed=0):
    """Parameters as training leaves them, away from their start."""
    rng = np.random.default_rng(seed)
    return moved(flow.init(rng, batch(flow, 50, dtype)), rng)


# ---------------------------------------------------------------- what a flow computes


@every_flow
@every_dtype
def test_shapes_and_dtypes_are_those_of_the_batch_and_the_parameters(flow, dtype):
    x, params = batch(flow, dtype=dtype), perturbed(flow, dtype)
    trained = Layout(params).size > 0
    log_prob = flow.log_prob(params, x)
    assert (log_prob.shape, log_prob.dtype) == ((8,), dtype)
    for values in (flow.encode(params, x), flow.decode(params, x)):
        assert (values.shape, values.dtype) == (x.shape, dtype)
    samples = flow.sample(params, np.random.default_rng(0), 5)
    assert (samples.shape, samples.dtype) == ((5, *x.shape[1:]), dtype if trained else np.float64)
    assert flow.check(params).dtype == (dtype if trained else np.float64)
    assert flow.loss(params, x).dtype == dtype


@every_flow
def test_init_gives_the_parameters_of_the_layer_and_of_the_prior(flow):
    x = batch(flow)
    params = flow.init(np.random.default_rng(4), x)
    assert sorted(params) == ["layer", "prior"]
    assert same_bits(params["layer"], flow.layer.init(np.random.default_rng(4), x))


@every_flow
def test_log_prob_is_that_of_the_prior_at_z_plus_the_log_det(flow):
    x, params = batch(flow), perturbed(flow)
    z, log_det = flow.layer.forward(params["layer"], x)
    expected = flow.prior.log_prob(params["prior"], z) + log_det
    np.testing.assert_array_equal(flow.log_prob(params, x), expected)


@every_flow
def test_decode_undoes_encode(flow):
    x, params = batch(flow, 100), perturbed(flow)
    np.testing.assert_allclose(flow.decode(params, flow.encode(params, x)), x, rtol=1e-7, atol=1e-7)
    np.testing.assert_allclose(flow.encode(params, flow.decode(params, x)), x, rtol=1e-7, atol=1e-7)


def test_the_log_prob_of_an_affine_flow_has_its_closed_form():
    flow, x = FLOWS["one layer"], batch(FLOWS["one layer"])
    params = {"layer": {"mean": np.array([1.0, -2.0]), "log_std": np.log([0.5, 3.0])}, "prior": {}}
    z = (x - [1, -2]) / [0.5, 3]
    expected = -0.5 * (z * z).sum(1) - np.log(2 * np.pi) - np.log(0.5 * 3)
    np.testing.assert_allclose(flow.log_prob(params, x), expected)


@pytest.mark.parametrize("name", ["glow", "trained prior", "mixture", "one layer"])
def test_the_density_integrates_to_one(name):
    flow = FLOWS[name]
    side, step = np.linspace(-25, 25, 401, retstep=True)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(flow.log_prob(perturbed(flow, seed=3), grid))
    np.testing.assert_allclose(density.sum() * step**2, 1, rtol=1e-3)


@every_flow
@every_dtype
def test_the_negative_log_likelihood_is_minus_the_mean_log_prob(flow, dtype):
    x, params = batch(flow, dtype=dtype), perturbed(flow, dtype)
    np.testing.assert_allclose(flow.loss(params, x), -flow.log_prob(params, x).mean(), rtol=1e-6)


def test_the_negative_log_likelihood_checks_nothing():
    flow = FLOWS["one layer"]
    x = batch(flow)
    x[0, 0] = np.nan
    assert np.isnan(flow.loss(perturbed(flow), x))


@every_flow
def test_the_same_generator_state_gives_the_same_samples(flow):
    params = perturbed(flow)
    first, second, other = (flow.sample(params, np.random.default_rng(seed), 4) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


@every_flow
@every_dtype
def test_samples_are_the_priors_at_a_temperature_through_the_inverse(flow, dtype):
    params = perturbed(flow, dtype)
    for temperature in (0, 0.7, np.float64(1)):
        samples = flow.sample(params, np.random.default_rng(7), 4, temperature=temperature)
        z = flow.prior.sample(
            params["prior"], np.random.default_rng(7), 4, flow.check(params).dtype, float(temperature)
        )
        np.testing.assert_array_equal(samples, flow.decode(params, z), strict=True)


@every_flow
def test_samples_come_with_their_log_prob(flow):
    params = perturbed(flow)
    x, log_prob = flow.sample_and_log_prob(params, np.random.default_rng(7), 4)
    np.testing.assert_allclose(x, flow.sample(params, np.random.default_rng(7), 4), rtol=1e-9)
    np.testing.assert_allclose(log_prob, flow.log_prob(params, x), rtol=1e-7)


def test_at_temperature_zero_all_samples_are_the_x_of_zero():
    flow = FLOWS["images"]
    params = perturbed(flow)
    samples = flow.sample(params, np.random.default_rng(0), 3, temperature=0)
    np.testing.assert_array_equal(samples, flow.decode(params, np.zeros((3, 2, 3, 2))))


def test_the_share_of_samples_in_a_region_is_its_probability():
    flow = FLOWS["glow"]
    params = perturbed(flow)
    side, step = np.linspace(-25, 25, 401, retstep=True)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    inside = lambda x: (x[:, 0] > 0.5) & (x[:, 1] > 0)
    probability = np.exp(flow.log_prob(params, grid))[inside(grid)].sum() * step**2
    share = inside(flow.sample(params, np.random.default_rng(0), 10_000)).mean()
    assert 0.05 < probability < 0.95
    np.testing.assert_allclose(share, probability, atol=0.03)


@every_flow
def test_the_parameters_and_the_batch_are_left_as_they_were(flow):
    x, params = batch(flow), perturbed(flow)
    before, vector = x.copy(), Layout(params).pack(params)
    flow.log_prob(params, x), flow.encode(params, x), flow.decode(params, x)
    flow.sample(params, np.random.default_rng(0), 2)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(Layout(params).pack(params), vector)


# ---------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", ["glow", "trained prior", "mixture", "images", "one layer"])
def test_log_prob_is_differentiable_in_the_parameters(name):
    flow = FLOWS[name]
    x, params = batch(flow, 4), perturbed(flow)
    layout = Layout(params)
    total = lambda params: anp.sum(flow.log_prob(params, x))
    _, gradient = value_and_grad(total)(params)
    direction = np.random.default_rng(2).standard_normal(layout.size)
    high, low = (
        total(layout.unpack(layout.pack(params) + step * direction, params)) for step in (1e-5, -1e-5)
    )
    np.testing.assert_allclose(layout.pack(gradient) @ direction, (high - low) / 2e-5, rtol=1e-5, atol=1e-7)


def test_log_prob_is_differentiable_in_the_data():
    flow = FLOWS["glow"]
    x, params = batch(flow), perturbed(flow)
    _, gradient = value_and_grad(lambda x: anp.sum(flow.log_prob(params, x)))(x)
    for column, step in enumerate(1e-6 * np.eye(2)):
        slope = (flow.log_prob(params, x + step) - flow.log_prob(params, x - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, column], slope, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["glow", "trained prior", "mixture", "images", "one layer"])
def test_every_parameter_has_a_gradient_of_the_loss_in_its_own_dtype(name):
    flow = FLOWS[name]
    x, params = batch(flow, dtype=np.float32), perturbed(flow, np.float32)
    value, gradient = value_and_grad(flow.loss)(params, x)
    assert value.dtype == np.float32
    for (path, leaf), (_, slope) in zip(tree.items(params), tree.items(gradient), strict=True):
        if tree.is_trained(leaf):
            assert (slope.dtype, slope.shape) == (np.float32, leaf.shape), path
        else:
            assert slope is None, path


# ---------------------------------------------------------------- what a flow reads as


def test_the_repr_of_a_flow_reads_as_its_architecture():
    flow = Flow(Chain([ActNorm(), AffineCoupling(MLP((8,)), "first")]), Normal(2))
    assert repr(flow) == (
        "Flow(\n"
        "    layer=Chain([\n"
        "        ActNorm(),\n"
        "        AffineCoupling(network=MLP(hidden=(8,), activation='leaky_relu', squash_inputs=False), "
        "transformed='first', log_scale_limit=2.0),\n"
        "    ]),\n"
        "    prior=Normal(event_shape=(2,), trained=False),\n"
        ")"
    )


@pytest.mark.parametrize(
    "flow",
    [*FLOWS.values(), Flow(Inverse(AffineCoupling(Beside(SMALL, MLP()))), Normal(4))],
    ids=[*FLOWS.keys(), "inverse"],
)
def test_the_repr_of_a_flow_evaluates_to_an_equal_flow(flow):
    assert eval(repr(flow)) == flow
    assert hash(eval(repr(flow))) == hash(flow)


# ---------------------------------------------------------------- inside a flow


def test_visits_lead_through_the_layers_and_the_prior_and_back():
    flow = FLOWS["images"]
    x, params = batch(flow), perturbed(flow)
    visits = list(flow.visits(params, x))
    names = ["layer/0 (ActNorm)", "layer/1 (AffineCoupling)", "layer/2 (Reverse)"]
    assert [visit.name for visit in visits] == [*names, "prior (Normal)"]
    z = flow.encode(params, x)
    np.testing.assert_array_equal(visits[2].result[0], z)
    assert [visit.name for visit in flow.visits(params, z, direction="inverse")] == names[::-1]


def test_an_iteration_that_does_not_converge_is_named(rng):
    @dataclass(frozen=True)
    class Lost(Affine):
        def inverse(self, params, z):
            raise ConvergenceError("expected convergence, got a residual of 1")

    flow = Flow(Chain([Affine(), Lost()]), Normal(2))
    with pytest.raises(ConvergenceError, match=r"^layer/1 \(Lost\): expected convergence"):
        flow.sample(flow.init(rng, batch(flow)), rng, 3)


# ---------------------------------------------------------------- what a flow refuses


@pytest.mark.parametrize(
    ("layer", "prior", "words"),
    [
        (3, Normal(2), "layer to be an object with init, forward and inverse, got 3"),
        (SMALL, Normal(2), "layer to be an object with init, forward and inverse, got MLP"),
        (Reverse(), None, "prior to be an instance of Prior, got None"),
        (Reverse(), Normal, "prior to be an instance of Prior, got <class"),
        (Unhashable([1.0]), Normal(2), "of numbers, strings and tuples, got unhashable"),
        (Chain([Reverse(), Thawed()]), Normal(2), "got unhashable type: 'Thawed'"),
    ],
    ids=["number", "network", "none", "class", "list", "not frozen"],
)
def test_a_flow_of_what_is_not_a_layer_and_a_prior_is_refused(layer, prior, words):
    assert words in refusal(Flow, layer, prior)


def test_a_context_that_no_layer_takes_is_refused():
    assert "a layer that takes a context" in refusal(Flow, Chain([Reverse()]), Normal(2), 3)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((4, 3)), "{} with rows of 2 features, got rows of 3"),
        (np.zeros(2), "a single one is a batch of one: {}[None]"),
        (
            np.where(np.arange(8).reshape(4, 2) == 5, np.nan, 0),
            "{} to be finite, got nan in row 2, at index (1,)",
        ),
        (np.zeros((4, 2), complex), "{} in float32 or float64, got complex128"),
        ([[0.0, 0.0], [0.0]], "{} as an array of numbers, got a list"),
        (None, "{} as an array of numbers, got a NoneType"),
    ],
    ids=["features", "one row", "nan", "complex", "list", "none"],
)
def test_rows_that_cannot_be_used_are_refused_by_every_method(x, words, rng):
    flow = FLOWS["glow"]
    params = perturbed(flow)
    assert words.format("x") in refusal(flow.init, rng, x)
    assert words.format("x") in refusal(flow.log_prob, params, x)
    assert words.format("x") in refusal(flow.encode, params, x)
    assert words.format("z") in refusal(flow.decode, params, x)


@pytest.mark.parametrize(("own", "other"), [("float32", "float64"), ("float64", "float32")])
def test_rows_of_another_dtype_than_the_parameters_are_refused(own, other):
    flow = FLOWS["glow"]
    words = refusal(flow.log_prob, perturbed(flow, own), batch(flow, dtype=other))
    assert f"x in {own}, the dtype of the parameters, got {other}" in words


def test_arguments_of_sample_that_cannot_be_used_are_refused(rng):
    flow = FLOWS["one layer"]
    sample = partial(flow.sample, perturbed(flow))
    for n, words in ((0, "at least 1, got 0"), (2.0, "an integer, got 2.0")):
        assert f"the number of samples to be {words}" in refusal(sample, rng, n)
    for temperature in (-0.5, "hot", np.inf):
        assert (
            f"temperature to be a {'number' if temperature == 'hot' else 'finite number'} at least 0"
            in refusal(sample, rng, 3, temperature=temperature)
        )
    in32 = flow.init(rng, batch(flow).astype(np.float32))
    assert "temperature in the range of float32, got 1e+300" in refusal(
        flow.sample, in32, rng, 3, temperature=1e300
    )
    for call in (partial(sample, 0, 3), partial(flow.init, 0, batch(flow))):
        assert "rng to be a numpy.random.Generator, got an int" in refusal(call)


def test_a_feature_that_a_coupling_cannot_split_is_refused_with_the_layer(rng):
    flow = Flow(Chain([ActNorm(), AffineCoupling(), Conv1x1()]), Normal(1))
    assert refusal(flow.init, rng, batch(flow)).startswith(
        "layer/1 (AffineCoupling): expected at least two channels"
    )


# ---------------------------------------------------------------- parameters of another architecture


@pytest.mark.parametrize("method", ["log_prob", "encode", "decode"])
@pytest.mark.parametrize(
    ("other", "words"),
    [
        (glow(2, steps=2, network=MLP((7,), "tanh")), "shape (6,) at 'layer/2/0/bias', got shape (7,)"),
        (glow(2, steps=1, network=SMALL), "an array of shape (2,) at 'layer/4/bias', got none"),
        (glow(2, steps=3, network=SMALL), "no array at 'layer/7/bias', got one of shape (2,)"),
        (FLOWS["trained prior"], "at 'layer/0/center', got none"),
    ],
    ids=["wider", "shorter", "longer", "other layers"],
)
def test_they_are_refused_with_the_first_difference(other, words, method):
    flow = FLOWS["glow"]
    sentence = refusal(getattr(flow, method), perturbed(other), batch(flow))
    assert sentence.startswith("expected the parameters of this flow, got another architecture's: expected ")
    assert words in sentence


def test_sampling_refuses_them_too(rng):
    assert "another architecture's" in refusal(FLOWS["one layer"].sample, perturbed(FLOWS["glow"]), rng, 3)


def test_parameters_of_two_float_dtypes_are_refused():
    flow = FLOWS["one layer"]
    params = perturbed(flow)
    params["layer"]["mean"] = params["layer"]["mean"].astype(np.float32)
    words = refusal(flow.log_prob, params, batch(flow))
    assert "in one dtype, got float64 at 'layer/log_std', float32 at 'layer/mean'" in words


@pytest.mark.parametrize(
    ("params", "got"),
    [
        ([], "a list"),
        (None, "a NoneType"),
        ({}, "one of []"),
        ({"layer": [], "prior": {}, "step": 3}, "one of ['layer', 'prior', 'step']"),
    ],
)
def test_parameters_that_are_not_a_dict_of_layer_and_prior_are_refused(params, got, rng):
    for flow in (FLOWS["glow"], FLOWS["no parameters"]):
        for call in (partial(flow.log_prob, params, batch(flow)), partial(flow.sample, params, rng, 3)):
            assert refusal(call).endswith(f"a dict of 'layer' and 'prior', got {got}")


def test_parameters_of_a_flow_with_other_layers_that_hold_no_arrays_are_refused():
    flow, other = (Flow(Chain([Affine(), *[Reverse()] * n]), Normal(2)) for n in (1, 2))
    words = refusal(flow.log_prob, perturbed(other), batch(flow))
    assert "the same dicts, lists and tuples around the arrays" in words


def test_a_flow_without_parameters_takes_both_dtypes():
    flow = FLOWS["no parameters"]
    params = perturbed(flow)
    for dtype in (np.float32, np.float64):
        assert flow.log_prob(params, batch(flow, dtype=dtype)).dtype == dtype


def test_the_expected_layout_is_found_once_for_equal_flows():
    first, second = (Flow(Chain([Affine(), Reverse()]), Normal(3)) for _ in range(2))
    assert layout_without_a_pass(first) is layout_without_a_pass(second)


@pytest.mark.parametrize("flow", FLOWS.values(), ids=FLOWS)
def test_the_layout_without_a_pass_is_that_of_init(flow):
    assert layout_without_a_pass(flow).difference(layout_of_init(flow)) is None


# ---------------------------------------------------------------- on a device


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", FLOWS)
def test_on_a_device_every_method_gives_what_it_gives_on_the_host(name, dtype, device):
    flow, rng = FLOWS[name], np.random.default_rng
    params, x = perturbed(flow, dtype), batch(flow, dtype=dtype)
    there, x_there = to_device((params, x), device.name)
    assert_agrees(device, flow.log_prob(there, x_there), flow.log_prob(params, x))
    z = flow.encode(params, x)
    assert_agrees(device, flow.encode(there, x_there), z)
    assert_agrees(device, flow.decode(there, device.send(z)), flow.decode(params, z))
    once, again, other = (flow.sample(there, rng(seed), 7) for seed in (0, 0, 1))
    assert device_of(once) is device
    assert np.array_equal(to_host(once), to_host(again))
    assert not np.array_equal(to_host(once), to_host(other))
    if device.exact:  # the stand-in's numbers are the host's
        assert_agrees(device, once, flow.sample(params, rng(0), 7))
        cool, expected = (flow.sample(p, rng(0), 7, temperature=0.5) for p in (there, params))
        assert_agrees(device, cool, expected)


@pytest.mark.parametrize("name", FLOWS)
def test_parameters_live_where_the_batch_lives_that_they_are_started_on(name, device):
    flow = FLOWS[name]
    x = batch(flow)
    there = flow.init(np.random.default_rng(0), device.send(x))
    assert_agrees(device, there, flow.init(np.random.default_rng(0), x))


def test_data_and_parameters_on_two_devices_are_refused_by_name(device):
    flow = FLOWS["one layer"]
    params, x = perturbed(flow), batch(flow)
    for method in (flow.log_prob, flow.encode):
        with pytest.raises(
            InputError, match=f"expected all arrays on one device, got {device} at 'params/.*cpu at 'x'"
        ):
            method(to_device(params, device.name), x)
    with pytest.raises(InputError, match=f"got cpu at 'params/.*{device} at 'z'; see npflow.to_device"):
        flow.decode(params, device.send(x))


@dataclass(frozen=True)
class HostBound(Layer):
    """A layer that makes an array on the host."""

    def forward(self, params, x):
        return x + np.zeros(x.shape, x.dtype), np.zeros(len(x), x.dtype)

    inverse = forward


def test_a_layer_that_does_not_compute_on_a_device_is_named(device, rng):
    flow = Flow(Chain([Affine(), HostBound()]), Normal(2))
    params, x = to_device((flow.init(rng, batch(flow)), batch(flow)), device.name)
    for call in (partial(flow.log_prob, params, x), partial(flow.sample, params, rng, 3)):
        assert refusal(call).startswith("layer/1 (HostBound): expected ")


def test_any_other_error_of_a_layer_stays_as_it_is(rng):
    @dataclass(frozen=True)
    class Broken(Affine):
        def inverse(self, params, z):
            raise ZeroDivisionError("by the reader")

    flow = Flow(Broken(), Normal(2))
    with pytest.raises(ZeroDivisionError, match=r"^by the reader$"):
        flow.sample(flow.init(rng, batch(flow)), rng, 3)


# ---------------------------------------------------------------- the reader's own layers


@dataclass(frozen=True)
class Bounded(Layer):
    """A layer that refuses what is not in (0, 1), as a logit does."""

    def init(self, rng, x):
        if np.min(x) <= 0 or np.max(x) >= 1:
            raise InputError("expected x inside (0, 1)")
        return {"a": np.zeros(x.shape[1:], x.dtype)}

    def forward(self, params, x):
        return x + params["a"], np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        return z - params["a"], np.zeros(len(z), z.dtype)


@dataclass(frozen=True)
class Knots(Bounded):
    """A layer with as many parameters as it is initialized on rows."""

    def init(self, rng, x):
        return {"a": np.zeros(x.shape[1:], x.dtype), "knots": np.array(x)}


@pytest.mark.parametrize("layer", [Bounded(), Knots()])
def test_a_layer_that_noise_tells_nothing_about_is_used_unchecked(layer):
    flow = Flow(layer, Normal(2))
    x = np.random.default_rng(0).uniform(0.1, 0.9, (7, 2))
    params = flow.init(np.random.default_rng(0), x)
    assert flow.log_prob(params, x).shape == (7,)
    assert flow.sample(params, np.random.default_rng(0), 3).shape == (3, 2)


def test_parameters_of_another_dtype_than_the_batch_are_refused_at_init():
    class Float64(Bounded):
        def init(self, rng, x):
            return {"a": np.zeros(x.shape[1:])}

    x = np.full((3, 2), 0.5, np.float32)
    words = refusal(Flow(Float64(), Normal(2)).init, np.random.default_rng(0), x)
    assert "the dtype of x, float32, got float64 at 'a'" in words


def test_a_layer_that_does_not_keep_the_shape_of_a_row_is_refused_at_init():
    flow = Flow(Squeeze(), Normal((2, 2, 1)))
    words = refusal(flow.init, np.random.default_rng(0), np.ones((3, 2, 2, 1)))
    assert words.startswith("layer (Squeeze): expected ")
    assert "keep the shape of its input, got (3, 1, 1, 4) of (3, 2, 2, 1)" in words


def test_a_log_det_of_another_shape_is_refused_at_init():
    class Column(Bounded):
        def forward(self, params, x):
            return x, np.zeros((len(x), 1), x.dtype)

    words = refusal(Flow(Column(), Normal(2)).init, np.random.default_rng(0), np.full((3, 2), 0.5))
    assert "log_det of forward to have shape (3,), one number for each row, got (3, 1)" in words


def test_parameters_in_half_precision_are_refused_by_every_method(rng, tmp_path):
    flow, x = FLOWS["glow"], rows(4, 2, dtype=np.float32)
    half = tree.build(
        lambda _, leaf: leaf.astype(np.float16) if tree.is_trained(leaf) else leaf, perturbed(flow)
    )
    for call in (flow.log_prob, flow.encode, flow.decode):
        assert "dtype to be float32 or float64, got dtype('float16')" in refusal(call, half, x)
    assert "dtype to be float32 or float64" in refusal(flow.sample, half, rng, 3)
    assert "dtype to be float32 or float64" in refusal(save, tmp_path / "half.npz", flow, half)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_lists_and_integers_give_what_arrays_of_the_parameters_dtype_give(dtype, rng):
    flow, whole = real_nvp(2, 2), rng.integers(-3, 4, (6, 2))
    x = whole.astype(dtype)
    params = flow.init(rng, x)
    for given in (whole, whole.tolist(), x.tolist(), tuple(map(tuple, whole))):
        for method in (flow.log_prob, flow.encode, flow.decode):
            found = method(params, given)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, method(params, x))
    fitted = [
        fit(flow, params, given, rng=np.random.default_rng(0), steps=2, progress=False)[0]
        for given in (whole, x)
    ]
    assert same_bits(*fitted)
    assert flow.check(flow.init(rng, whole)).dtype == np.float64


def test_the_parameters_of_a_conditional_flow_have_the_units_of_its_context():
    flow, x = real_nvp(2, 2, context_features=2), rows(20, 2)
    params = flow.init(np.random.default_rng(0), x, x)
    words = "expected the parameters of a flow, a dict of 'layer', 'prior' and 'context', got one of"
    assert words in refusal(flow.check, {name: params[name] for name in ("layer", "prior")})
    wide = {**params, "context": {name: np.zeros(3, leaf.dtype) for name, leaf in params["context"].items()}}
    assert "(2,) at 'context/center', got shape (3,)" in refusal(flow.check, wide)


def test_the_units_of_a_context_change_nothing(rng):
    flow, x, found = real_nvp(2, 2, context_features=2), rows(20, 2), []
    numbers = rng.normal(2000, 10, (20, 2))
    for unit in (1.0, 2.0**-40):
        context = unit * numbers
        params = moved(flow.init(np.random.default_rng(0), x, context))
        drawn, log_prob = flow.sample_and_log_prob(params, np.random.default_rng(1), 20, context)
        np.testing.assert_allclose(log_prob, flow.log_prob(params, drawn, context), rtol=1e-9)
        z = flow.encode(params, x, context)
        np.testing.assert_allclose(flow.decode(params, z, context), x, rtol=1e-9)
        *_, prior = flow.visits(params, x, context)
        assert same_bits(prior.arguments[-1], z)
        found.append((drawn, log_prob, z, flow.sample(params, np.random.default_rng(1), 20, context)))
    assert same_bits(*found)
    assert not np.allclose(z, flow.encode(params, x, context[::-1]))  # the context matters


def test_one_context_for_all_and_classes_give_what_rows_of_context_give(rng):
    flow, x, classes = real_nvp(2, 2, context_features=3), rows(5, 2), np.array([0, 2, 1, 1, 0])
    one_hot = np.eye(3)[classes]
    params = flow.init(rng, x, one_hot)
    assert same_bits(
        flow.init(np.random.default_rng(1), x, classes), flow.init(np.random.default_rng(1), x, one_hot)
    )
    params = moved(params, rng)
    np.testing.assert_array_equal(flow.log_prob(params, x, classes), flow.log_prob(params, x, one_hot))
    for method in (
        lambda c: flow.sample(params, np.random.default_rng(1), 5, c),
        lambda c: flow.sample_and_log_prob(params, np.random.default_rng(1), 5, c)[1],
        lambda c: flow.encode(params, x, c),
    ):
        for given in (2, [0.0, 0.0, 1.0], np.eye(3)[2:], [2] * 5):
            np.testing.assert_array_equal(method(given), method(np.repeat(np.eye(3)[2:], 5, axis=0)))
    options = {"steps": 3, "batch_size": 2, "progress": False, "validation": x[:3]}
    fitted = [
        fit(flow, params, x, given, validation_context=given[:3], rng=np.random.default_rng(0), **options)[0]
        for given in (classes, classes.tolist(), one_hot)
    ]
    assert same_bits(fitted[0], fitted[1])
    assert same_bits(fitted[0], fitted[2])
