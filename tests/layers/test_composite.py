"""Layers made of layers: what follows from `steps`, for npflow's containers and for the reader's own."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import perturbed, refusal, rows, same_bits

from npflow import Flow, fit
from npflow.autodiff import Layout, record
from npflow.errors import ConvergenceError, InputError, NonFiniteError
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Composite,
    Conv1x1,
    Inverse,
    Layer,
    MaskedConvolution,
    Reverse,
    Split,
    Squeeze,
    Step,
    Unsqueeze,
)
from npflow.layers.composite import dry_run, first_non_finite, name_of, uses_context, walk
from npflow.layers.layer import given, zeros_per_row
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.verify import check
from npflow.verify.cases import CASES

SMALL = MLP((4,), "tanh")


@dataclass(frozen=True)
class Both(Composite):
    """A container of the reader's own, with `steps` alone: `first`, then `second` on reversed channels."""

    first: Layer
    second: Layer

    def steps(self, x, direction, context=None):
        if direction == "forward":
            x = yield Step("first", self.first, x, direction, context)
            return (yield Step("second", self.second, x[..., ::-1], direction, context))
        x = yield Step("second", self.second, x, direction, context)
        return (yield Step("first", self.first, x[..., ::-1], direction, context))


@dataclass(frozen=True)
class Constant(Layer):
    """z = value x, with a log-det that is told."""

    value: float = 1.0
    log_scale: float = 0.0

    def forward(self, params, x):
        return x * self.value, zeros_per_row(x) + self.log_scale

    def inverse(self, params, z):
        return z / self.value, zeros_per_row(z) - self.log_scale


def own():
    """The reader's container, its parameters, and rows."""
    layer, x = Both(ActNorm(), AffineCoupling(SMALL)), rows(5, 4)
    return layer, perturbed(layer, x), x


# ---------------------------------------------------------------- a container of the reader's own


def test_init_starts_each_inner_layer_on_what_those_before_it_make_of_the_batch(rng):
    params = Both(ActNorm(), ActNorm()).init(rng, x := 3 * rows(50, 4) + 1)
    assert list(params) == ["first", "second"]
    np.testing.assert_allclose(params["first"]["bias"], -x.mean(axis=0) / x.std(axis=0))
    np.testing.assert_allclose(params["second"]["bias"], 0, atol=1e-12)


def test_forward_and_inverse_are_those_of_the_steps_and_log_dets_add_up():
    layer, params, x = own()
    y, first = layer.first.forward(params["first"], x)
    z, second = layer.second.forward(params["second"], y[..., ::-1])
    assert same_bits(layer.forward(params, x), (z, first + second))
    np.testing.assert_array_equal(layer.log_det(params, x), first + second)
    back, log_det = layer.inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, -first - second, rtol=1e-12)


def test_a_container_that_applies_no_layer_keeps_volume():
    class Empty(Composite):
        def steps(self, x, direction, context=None):
            return x
            yield

    x = rows(5, 4, dtype=np.float32)
    assert Empty().init(np.random.default_rng(0), x) == []
    assert same_bits(Empty().forward([], x), (x, np.zeros(5, np.float32)))


class NoSteps(Composite):
    """Forgets the method."""


class NoYield(Composite):
    def steps(self, x, direction, context=None):
        return x


class NoReturn(Composite):
    def steps(self, x, direction, context=None):
        yield Step("first", ActNorm(), x, direction)


class NoStep(Composite):
    def steps(self, x, direction, context=None):
        return (yield ActNorm())


class OneNameTwice(Composite):
    def steps(self, x, direction, context=None):
        for layer in (ActNorm(), Affine()):
            x = yield Step("same", layer, x, direction)
        return x


class SomeWithoutName(Composite):
    def steps(self, x, direction, context=None):
        for name in ("first", None):
            x = yield Step(name, ActNorm(), x, direction)
        return x


@pytest.mark.parametrize(
    ("container", "sentence"),
    [
        (NoSteps, "expected NoSteps to define steps(self, x, direction, context=None)"),
        (NoYield, "expected NoYield.steps to yield a Step for each inner layer, got an ndarray"),
        (NoReturn, "expected NoReturn.steps to return its output, got None"),
        (NoStep, "expected NoStep.steps to yield a Step(name, layer, x, direction), got ActNorm()"),
        (OneNameTwice, "expected a name of its own for each inner layer, got 'same' for Affine()"),
        (SomeWithoutName, "expected a name of its own for each inner layer, got None for ActNorm()"),
    ],
)
def test_what_is_wrong_with_the_steps_is_told(container, sentence, rng):
    assert sentence in refusal(container().init, rng, rows(5, 4))


@dataclass(frozen=True)
class Shared(Composite):
    """One coupling, applied twice with a Reverse between."""

    def steps(self, x, direction, context=None):
        for name, layer in (
            ("coupling", AffineCoupling(MLP((4,)))),
            ("turn", Reverse()),
            ("coupling", AffineCoupling(MLP((4,)))),
        ):
            x = yield Step(name, layer, x, direction, context)
        return x


def test_a_name_that_comes_twice_has_one_set_of_parameters(rng):
    layer, x = Shared(), rows(8, 2)
    params = layer.init(np.random.default_rng(0), x)
    once = AffineCoupling(MLP((4,))).init(np.random.default_rng(0), x)
    assert same_bits(params["coupling"], once)
    assert check(layer, x).passed


@dataclass(frozen=True)
class Scaled(Composite):
    """Hands on a context that it has changed."""

    layer: Layer
    needs_it: bool = False

    def steps(self, x, direction, context=None):
        if context is not None or self.needs_it:
            context = 2 * context
        return (yield Step(None, self.layer, x, direction, context))


@pytest.mark.parametrize("needs_it", [False, True])
def test_a_changed_context_is_a_context(needs_it, rng):
    x, context = rows(8, 2), rows(8, 1)
    flow = Flow(Scaled(AffineCoupling(MLP((4,))), needs_it), Normal(2), context_features=1)
    plain = Flow(AffineCoupling(MLP((4,))), Normal(2), context_features=1)
    params = flow.init(rng, x, context)
    np.testing.assert_array_equal(flow.log_prob(params, x, context), plain.log_prob(params, x, 2 * context))
    with pytest.raises(InputError, match="expected a layer that takes a context"):
        Flow(Scaled(ActNorm()), Normal(2), context_features=1)


class OwnSqueeze(Squeeze):
    """Rearranges, and does not say to which shape."""

    output_shape = Layer.output_shape


class OwnUnsqueeze(Unsqueeze):
    output_shape = Layer.output_shape


def test_check_takes_a_layer_that_rearranges_without_saying_so():
    assert check(Chain([OwnSqueeze(), Split(Conv1x1()), OwnUnsqueeze()]), rows(8, 4, 4, 1)).passed


def test_parameters_without_those_of_a_step_are_refused():
    layer, params, x = own()
    del params["second"]
    expected = "expected parameters for the step 'second', got those of ['first']"
    assert expected in refusal(layer.forward, params, x)
    assert "for the step 'first', got a NoneType" in refusal(layer.forward, None, x)


def test_a_trace_has_each_step_of_both_directions():
    layer, params, x = own()
    z, log_det = layer.forward(params, x)
    trace = layer.trace(params, x)
    assert [step.name for step in trace] == ["first (ActNorm)", "second (AffineCoupling)"]
    assert same_bits(trace[0][1:], layer.first.forward(params["first"], x))
    np.testing.assert_array_equal(trace[1].output, z)
    np.testing.assert_allclose(sum(step.log_det for step in trace), log_det, rtol=1e-12)
    back = layer.trace_inverse(params, z)
    assert [step.name for step in back] == ["second (AffineCoupling)", "first (ActNorm)"]
    np.testing.assert_allclose(sum(step.log_det for step in back), -log_det, rtol=1e-12)


def test_a_context_reaches_the_inner_layers_that_take_one():
    layer, x, context = own()[0], rows(5, 4), rows(5, 2, seed=2)
    params = perturbed(layer, x, context)
    z, log_det = layer.forward(params, x, context)
    np.testing.assert_allclose(layer.inverse(params, z, context)[0], x, rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(layer.log_det(params, x, context), log_det)
    np.testing.assert_array_equal(layer.trace(params, x, context)[-1].output, z)
    assert (layer.forward(params, x, -context)[0] != z).any()
    assert uses_context(layer, (4,))
    assert not uses_context(Both(ActNorm(), Reverse()), (4,))


def test_an_error_of_init_names_the_inner_layer(rng):
    sentence = refusal(Chain([Reverse(), Both(ActNorm(), AffineCoupling())]).init, rng, rows(5, 1))
    assert sentence.startswith("1/second (AffineCoupling): expected at least two channels")


def test_check_passes_it_and_names_the_inner_layer_whose_log_det_is_wrong_or_left_out():
    check(own()[0], rows(8, 4)).raise_if_failed()

    class Wrong(Conv1x1):
        def forward(self, params, x):
            z, log_det = super().forward(params, x)
            return z, 3 * log_det

    class LeavesOut(Both):
        def forward(self, params, x, context=None):
            (z, log_det), first = super().forward(params, x, context), self.first.log_det(params["first"], x)
            return z, log_det - first

    for layer, words in (
        (Both(Conv1x1(), Wrong()), "in layer second (Wrong), log_det of forward"),
        (Both(Affine(), Chain([Reverse(), Wrong()])), "in layer second/1 (Wrong), log_det of forward"),
        (LeavesOut(Conv1x1(), Conv1x1()), "leaves out that of layer first (Conv1x1)"),
    ):
        assert words in check(layer, rows(8, 4))["log-det forward, finite differences"].sentence


def test_fit_names_the_inner_layer_that_gives_nan(rng):
    @dataclass(frozen=True)
    class Overflows(Affine):
        def forward(self, params, x):
            return x * anp.exp(1e3 - params["log_std"]), zeros_per_row(x)

    flow, x = Flow(Both(ActNorm(), Overflows()), Normal(4)), rows(20, 4)
    with np.errstate(over="ignore"):
        params = flow.init(rng, x)
    for recorded in (True, False):
        with pytest.raises(NonFiniteError, match=r"that of layer/second \(Overflows\)"):
            fit(flow, params, x, rng=rng, steps=2, record=recorded, progress=False)


def test_sampling_names_the_inner_layer_whose_inverse_does_not_converge():
    flow, x = (
        Flow(Both(Affine(), MaskedConvolution(4)), Normal((16, 16, 3))),
        rows(3, 16, 16, 3, dtype=np.float32),
    )
    params = perturbed(flow, x, by=5.0)
    with pytest.raises(ConvergenceError, match=r"^layer/second \(MaskedConvolution\): expected the inverse"):
        flow.sample(params, np.random.default_rng(0), 3)


@pytest.mark.parametrize(
    "inner", [AffineCoupling(SMALL), Chain([Reverse(), AffineCoupling(SMALL)])], ids=["layer", "chain"]
)
def test_inner_layers_name_the_lines_of_a_program(inner):
    flow, x = Flow(Both(ActNorm(), inner), Normal(4)), rows(5, 4)
    source = record(flow.loss, perturbed(flow, x), x).source
    path = "second" if isinstance(inner, AffineCoupling) else "second_layer01_coupling"
    for name in ("first_z", f"{path}_h", f"{path}_z_b", f"grad_{path}_h"):
        assert f"    {name} = " in source
    assert "# ---- first: ActNorm()" in source
    assert f"# ---- {path.replace('_', ' ')}: AffineCoupling(" in source
    assert "# ---- Both(" in source  # its own arithmetic


def test_a_flow_refuses_parameters_of_another_tree(rng):
    flow, x = Flow(own()[0], Normal(4)), rows(5, 4)
    params = flow.init(rng, x)
    assert flow.check(params).leaves == Layout(params).leaves
    first, second = params["layer"]["first"], params["layer"]["second"]
    for layer in ({"first": first}, {"first": second, "second": first}, [first, second]):
        assert "another architecture's" in refusal(flow.check, params | {"layer": layer})


# ---------------------------------------------------------------- all containers: visits and shapes

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
    params = NESTED.init(np.random.default_rng(0), rows(5, 2))
    layers = {"first": params[0], "inner": params[1][0], "last_inner": params[1][2], "inverse": params[2]}
    layers["split"] = params[3][1]
    for place, leaf in ruined.items():
        layers[place][leaf][0] = np.nan
    return params


def test_a_walk_visits_the_innermost_layers_in_the_order_of_the_pass():
    x, params = rows(5, 2), perturbed(NESTED, rows(5, 2))
    names = [
        "0 (ActNorm)",
        "1/0 (Affine)",
        "1/1 (Reverse)",
        "1/2 (Affine)",
        "2 (Affine)",
        "3/0 (Reverse)",
        "3/1 (Affine)",
    ]
    z, log_det = NESTED.forward(params, x)
    for direction, start, order in (("forward", x, 1), ("inverse", z, -1)):
        visits = list(walk(NESTED, params, start, direction, path="flow"))
        assert [visit.name for visit in visits] == [f"flow/{name}" for name in names][::order]
        np.testing.assert_allclose(sum(visit.result[1] for visit in visits), order * log_det, rtol=1e-12)
    assert [visit.name for visit in walk(Affine(), params[2], x)] == ["layer (Affine)"]


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
    assert first_non_finite(walk(NESTED, nested_params(**ruined), rows(5, 2))) == name


def test_first_non_finite_looks_at_outputs_and_log_dets():
    for layer in (Constant(value=np.inf), Constant(log_scale=np.nan)):
        visits = walk(Chain([Reverse(), layer]), [{}, {}], np.ones((3, 2)), path="flow")
        assert first_non_finite(visits) == "flow/1 (Constant)"


def layout_by_dry_run(layer, x):
    """The layout of a layer's parameters, and the shape of its output, without applying a layer."""
    rng = np.random.default_rng(0)
    init = lambda inner, x, context, _: inner.init(rng, x, **given(inner, context))
    params, output = dry_run(layer, x, init)
    return Layout(params).leaves, output.shape


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_gives_the_layout_of_init_and_the_shape_of_the_output(name):
    """The registry has every layer and every recipe."""
    layer, rng = CASES[name].layer, np.random.default_rng(0)
    x = CASES[name].batch(rng, 4)
    params = layer.init(rng, x)
    assert layout_by_dry_run(layer, x) == (Layout(params).leaves, layer.forward(params, x)[0].shape)


def test_a_dry_run_of_a_container_of_the_readers_own_applies_no_layer(monkeypatch):
    layer, params, x = own()
    for kind in (ActNorm, AffineCoupling):
        monkeypatch.setattr(kind, "forward", lambda self, params, x, context=None: 1 / 0)
    assert layout_by_dry_run(layer, x) == (Layout(params).leaves, x.shape)


def test_a_dry_run_goes_the_way_of_a_direction():
    x, seen = rows(2, 4, 4, 3), []
    chain = Chain([Squeeze(), Inverse(Unsqueeze()), Split(Affine())])
    visit = lambda layer, x, *_: seen.append((type(layer).__name__, x.shape[1:]))
    _, z = dry_run(chain, x, visit)
    _, back = dry_run(chain, z, visit, "inverse")
    assert seen[:3] == [("Squeeze", (4, 4, 3)), ("Unsqueeze", (2, 2, 12)), ("Affine", (1, 1, 24))]
    assert [name for name, _ in seen[3:]] == ["Affine", "Unsqueeze", "Squeeze"]
    assert (z.shape, back.shape) == ((2, 1, 1, 48), x.shape)


def test_whether_a_context_is_used_is_yes_where_a_shape_is_refused():
    assert uses_context(Chain([Squeeze(), AffineCoupling()]), (3, 3, 1))  # `init` refuses it
    assert not uses_context(ActNorm(), (3,))


def test_names_of_layers():
    assert name_of("layer/1", AffineCoupling()) == "layer/1 (AffineCoupling)"
