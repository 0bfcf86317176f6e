"""Names tell where a value comes from; each is an identifier, and no two values have one name."""

import keyword
import re

import autograd.numpy as anp
import numpy as np
import pytest
from tapes import call, entry, tape_of

from npflow import Flow
from npflow.autodiff.program import record
from npflow.autodiff.program.naming import identifier, input_name, name_values, operation
from npflow.autodiff.program.tape import Place
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Inverse, Layer
from npflow.models import glow
from npflow.networks import MLP, Beside
from npflow.priors import Normal

ROW = np.array([0.3, -1.7, 2.9])
X = np.random.default_rng(0).standard_normal((6, 2))
SMALL = MLP((4, 4))


def source_of(flow, x=X):
    params = flow.init(np.random.default_rng(1), x)
    return record(lambda params, x: -anp.mean(flow.log_prob(params, x)), params, x).source


def names_of(source):
    """Every name that a line of the source gives, in order."""
    return re.findall(r"^    (\w+) = (?!\w+\[[0-9:]+\]$)", source, re.MULTILINE)


@pytest.fixture(scope="module")
def glow_source():
    return source_of(glow(2, steps=2, network=SMALL))


@pytest.mark.parametrize(
    "name",
    [
        "layer01_norm_z",
        "layer02_coupling_h1",
        "layer02_coupling_h2",
        "layer02_coupling_log_scale",
        "layer05_coupling_shift",
        "layer03_conv1x1_weight",
        "layer06_conv1x1_total",
        "grad_layer02_coupling_h1",
        "grad_layer05_coupling_h2",
        "grad_layer02_0_weight",
        "grad_layer01_bias",
        "prior_log_prob",
    ],
)
def test_a_value_of_glow_is_named_by_its_layer_and_variable(glow_source, name):
    assert re.search(rf"\b{name}\b = ", glow_source) or re.search(rf"\b{name}\b.* = ", glow_source)


def test_the_values_of_one_statement_add_what_made_them(glow_source):
    names = names_of(glow_source)
    start = names.index("layer02_coupling_h1_dot")
    assert names[start : start + 4] == [
        f"layer02_coupling_h1{what}" for what in ("_dot", "_add", "_multiply", "")
    ]


@pytest.mark.parametrize("part", [0, 1])
def test_no_two_values_have_one_name_and_all_are_identifiers(glow_source, part):
    names = names_of(glow_source.split("def backward")[part])
    assert len(names) == len(set(names)) > 40
    assert all(name.isidentifier() for name in names)


@pytest.mark.parametrize("networks", [Beside(SMALL, SMALL), Beside(SMALL, MLP((3, 3)))])
def test_two_networks_side_by_side_are_told_apart(networks):
    source = source_of(Flow(Chain([ActNorm(), AffineCoupling(networks)]), Normal(2)))
    for network in ("log_scale", "shift"):
        for number in (1, 2):
            assert f"    layer01_coupling_{network}_h{number} = " in source
            assert f"    grad_layer01_coupling_{network}_h{number} = " in source


def test_a_chain_in_a_chain_has_both_numbers():
    source = source_of(Flow(Chain([ActNorm(), Chain([ActNorm(), AffineCoupling(SMALL)])]), Normal(2)))
    assert "    layer01_chain_layer01_coupling_h1 = " in source
    assert "    # ---- layer01 chain layer00 norm: ActNorm()" in source


def test_a_layer_turned_round_is_named_after_what_it_turns():
    source = source_of(Flow(Chain([Inverse(AffineCoupling(SMALL)), Inverse(Conv1x1())]), Normal(2)))
    assert "    layer00_inverse_coupling_h1 = " in source
    assert "    layer01_inverse_conv1x1_s = " in source


def test_a_flow_of_one_layer_has_no_numbers():
    source = source_of(Flow(AffineCoupling(SMALL), Normal(2)))
    assert "    coupling_h1 = " in source
    assert "    grad_coupling_h1 = " in source


def test_a_function_without_layers_is_named_by_its_variables():
    def loss(params, x):
        scaled = anp.exp(params["w"]) * x
        total = anp.sum(scaled)
        return total / 6

    source = record(loss, {"w": np.ones(2)}, X).source
    assert names_of(source.split("def backward")[0]) == ["scaled_exp", "scaled", "total", "loss"]
    assert "# ---- outside the layers" in source
    assert "grad_w" in source


def test_statements_of_a_loop_are_numbered():
    def loss(params, x):
        h = x
        for _ in range(3):
            h = anp.tanh(h) * params["w"]
        return anp.sum(h)

    tape = tape_of(loss, {"w": np.ones(2)}, X)
    ahead = [one.name for one in tape.calls if not one.place.backward]
    assert ahead == ["h1_tanh", "h1", "h2_tanh", "h2", "h3_tanh", "h3", "loss"]


def test_a_statement_that_assigns_two_variables_names_both():
    def loss(params, x):
        first, second = anp.exp(params["w"]), anp.sin(x)
        return anp.sum(first * second)

    tape = tape_of(loss, {"w": np.ones(2)}, X)
    assert [one.name for one in tape.calls[:2]] == ["first", "second"]


RESERVED = ["np", "slice", "parameters", "data", "saved", "buffers", "gradient", "class", "lambda", "forward"]


@pytest.mark.parametrize("name", RESERVED)
def test_a_name_that_the_text_uses_already_harms_nothing(name):
    # An argument of that name went by it in the text, in the place of what is meant there.
    namespace = {"anp": anp}
    argument = f"_{name}" if name in ("class", "lambda") else name
    exec(
        f"def loss(params, {argument}, y):\n"
        f"    h = anp.exp(params[{name!r}] * {argument})[:, ::2]\n"
        f"    return anp.sum(h) + anp.sum(y * params['z'])",
        namespace,
    )
    params = {name: np.ones(2), "z": np.ones(2)}
    program = record(namespace["loss"], params, X, X)
    value, gradient = program(params, X, X)
    assert value == namespace["loss"](params, X, X)
    np.testing.assert_allclose(gradient[-2:], X.sum(axis=0))


@pytest.mark.parametrize(
    ("path", "prefix", "name"),
    [
        ("layer/3/0/weight", "layer03_coupling", "layer03_0_weight"),
        ("layer/3/0/weight", "", "layer_3_0_weight"),
        ("layer/12/bias", "layer12_norm", "layer12_bias"),
        ("x", "", "x"),
        ("weight", "layer00", "weight"),
        ("2nd/a-b", "", "_2nd_a_b"),
        ("", "", "_"),
    ],
)
def test_an_input_is_named_after_its_path(path, prefix, name):
    assert input_name(path, prefix) == name


@pytest.mark.parametrize(
    "text", ["", "a b", "1st", "é", "a²", "½", "class", "None", "\n", "x'", "a__", "\u0301"]
)
def test_any_text_becomes_an_identifier(text):
    name = identifier(text)
    assert name.isidentifier() and not keyword.iskeyword(name)


def test_inputs_of_one_name_are_numbered():
    inputs = [entry(ROW, "a/b"), entry(ROW, "a_b"), entry(ROW, "a/b")]
    name_values(inputs, [], {})
    assert [value.name for value in inputs] == ["a_b", "a_b_2", "a_b_3"]


def test_a_gradient_is_called_after_what_it_is_the_gradient_of():
    x = entry(ROW, "x")
    y = call(np.exp, x)
    y.place = Place("layer", variables=("y",), statement=1)
    on_the_way, gradient = call(np.negative, y), call(np.multiply, y, y)
    on_the_way.place = gradient.place = Place("layer", backward=True, statement=y)
    name_values([x], [y, on_the_way, gradient], {gradient: x})
    assert [one.name for one in (y, on_the_way, gradient)] == ["layer_y", "vjp_layer_y_negative", "grad_x"]


@pytest.mark.parametrize(
    ("fun", "name"),
    [
        (lambda x: x[0], "part"),
        (lambda x: anp.concatenate((x, x)), "concatenate"),
        (lambda x: anp.array([x[0], x[1]]), "array"),
        (lambda x: x.astype(np.float32), "astype"),
        (anp.exp, "exp"),
    ],
)
def test_an_operation_is_called_by_the_name_that_users_know(fun, name):
    assert operation(tape_of(lambda params, x: fun(x), {}, ROW, gradient=False).calls[-1]) == name


def total(log_slope):
    return anp.sum(log_slope, axis=1)


def doubled(x):
    return 2.0 * x


class Sinh(Layer):
    """Its forward returns two expressions, in two lines; its inverse two with variables of their own."""

    def forward(self, params, x):
        return (
            doubled(x) + anp.sinh(x) * 2.0 - doubled(x),
            total(anp.log(anp.cosh(x) * 2.0)),
        )

    def inverse(self, params, z):
        x = anp.arcsinh(z / 2.0)
        return x, -self.forward(params, x)[1]


def test_what_a_layer_returns_is_called_what_the_contract_calls_it():
    layer, x = Chain([Sinh()]), np.ones((3, 2))
    for direction, expected in (
        # `total` gives the log_det as it is, `doubled` only a part of z.
        ("forward", ["doubled1", "z_sinh", "z", "log_det1_cosh", "log_det1", "log_det2"]),
        ("inverse", ["x_divide", "x", "log_det2", "log_det3"]),  # forward's, and its negative
    ):

        def both(params, x, way=direction):
            array, log_det = getattr(layer, way)(params, x)
            return anp.sum(array) + anp.sum(log_det)

        source = record(both, [{}], x, gradient=False).source
        for name in expected:
            assert f"    layer00_sinh_{name} = " in source
