"""The lines of a program with their formulas, and the value of each."""

import ast

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow import Flow
from npflow.autodiff import record, value_and_grad
from npflow.autodiff.program import reading
from npflow.autodiff.program.reading import lines_of, values_of
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1
from npflow.networks import MLP
from npflow.priors import Normal


def formulas(program):
    return {line.name: line.formula for line in lines_of(program) if line.formula}


@pytest.fixture(scope="module")
def coupling():
    """A flow of one coupling, its parameters, a batch, and its program."""
    flow, x = Flow(AffineCoupling(MLP((3,), "tanh")), Normal(2)), rows(5, 2)
    params = perturbed(flow, x)
    return flow, params, x, record(flow.loss, params, x, reuse=False)


def test_every_line_of_the_source_is_there_once_in_its_part_and_section(coupling):
    program = coupling[-1]
    lines = lines_of(program)
    joined = "".join(line.text for line in lines).replace(" ", "")
    for line in program.source.splitlines():
        if line.strip() and not line.strip().startswith(("#", "def ", '"""', "import ")):
            assert line.replace(" ", "") in joined
    assert [line.part for line in lines] == sorted(
        (line.part for line in lines), key=["constants", "forward", "backward"].index
    )
    assert all(ast.parse(line.text) for line in lines if not line.text.startswith("return"))
    sections = {line.section.split(":")[0] for line in lines if line.part == "forward"}
    assert sections >= {"coupling", "prior", "outside the layers"}


def test_formulas_are_those_of_the_layer_with_steps_on_the_way_written_out(coupling):
    found = formulas(coupling[-1])
    assert found["coupling_h"] == "h = tanh(kept W_0 + b_0)"
    assert found["coupling_h_dot"] == "kept W_0"
    assert found["coupling_z_b"] == "z_b = changed * exp(log_scale) + shift"
    assert found["coupling_log_scale"] == "log_scale = 2 * tanh(raw / 2)"
    assert found["prior_log_prob"] == "log_prob = -0.5 * sum(coupling_joined * coupling_joined) - 1.838"
    assert found["log_prob"] == "log_prob = prior_log_prob + coupling_log_det"


def test_a_bar_is_a_gradient(coupling):
    found = formulas(coupling[-1])
    assert found["grad_coupling_h"] == "bar{h} = bar{apply} W_1^T"
    assert found["grad_layer_1_weight"] == "bar{W_1} = h^T bar{apply}"
    assert found["grad_layer_1_bias"] == "bar{b_1} = sum(bar{apply})"
    assert found["grad_coupling_h_add"] == "bar{kept W_0 + b_0} = (1 - h * h) * bar{h}"


def test_a_name_of_another_layer_has_its_number():
    flow, x = Flow(Chain([ActNorm(), Conv1x1()]), Normal(2)), rows(5, 2)
    found = formulas(record(flow.loss, perturbed(flow, x), x))
    assert found["layer00_norm_z"] == "z = x * exp(log_scale) + bias"
    assert found["layer01_conv1x1_z"] == "z = z_0 weight"


@pytest.mark.parametrize(
    ("function", "formula"),
    [
        (lambda p, x: anp.sum(x - (p["a"] - x)), "x - (a - x)"),
        (lambda p, x: anp.sum((x - p["a"]) * x), "(x - a) * x"),
        (lambda p, x: anp.sum(x / (p["a"] * x)), "x / (a * x)"),
        (lambda p, x: anp.sum(-(x + p["a"])), "-(x + a)"),
        (lambda p, x: anp.sum(anp.where(x > 0, x, p["a"])), "(x where (x > 0), else a)"),
        (lambda p, x: anp.sum(anp.log1p(p["a"] + x) ** 2), "log1p(a + x)^2"),
        (lambda p, x: anp.sum(anp.dot((x + p["a"]), (x * x).T)), "(x + a) (x * x)^T"),
        (lambda p, x: anp.sum(anp.maximum(p["a"], x)[:, 1:]), "max(a, x)[:, 1:]"),
    ],
)
def test_an_expression_has_the_parentheses_that_it_needs(function, formula):
    program = record(function, {"a": np.full(2, 3.0)}, np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert any(formula in line.formula for line in lines_of(program)), formulas(program)


def test_a_long_formula_goes_by_names(monkeypatch):
    def loss(params, x):
        y = anp.sin(x + params["a"]) * anp.cos(x)
        return anp.sum(y)

    program = record(loss, {"a": np.zeros(2)}, rows(3, 2))
    assert formulas(program)["y"] == "y = sin(x + a) * cos(x)"
    monkeypatch.setattr(reading, "LONG", 20)
    assert formulas(program)["y"] == "y = y_sin * y_cos"


def test_the_value_of_each_name_is_what_autograd_computes(coupling):
    flow, params, x, program = coupling
    values = values_of(program, params, x)
    layer = params["layer"]
    h = np.tanh(x[:, :1] @ layer[0]["weight"] + layer[0]["bias"])
    np.testing.assert_allclose(values["coupling_h"], h, rtol=1e-13)
    z, log_det = flow.layer.forward(layer, x)
    np.testing.assert_array_equal(values["coupling_joined"], z)
    np.testing.assert_array_equal(values["coupling_log_det"], log_det)
    _, gradient = value_and_grad(flow.loss)(params, x)
    np.testing.assert_array_equal(values["grad_layer_1_weight"], gradient["layer"][1]["weight"])
    again = values_of(program, params, 2 * x)  # the arrays are the caller's, and not written over
    np.testing.assert_array_equal(values["coupling_joined"], z)
    assert not np.array_equal(again["coupling_joined"], z)


def test_a_program_without_a_gradient_has_values_too():
    scaled = lambda p, x: anp.exp(p["a"]) * x
    program = record(scaled, {"a": np.zeros(2)}, rows(3, 2), gradient=False, reuse=False)
    values = values_of(program, {"a": np.ones(2)}, rows(3, 2))
    np.testing.assert_array_equal(values["scaled_exp"], np.exp(np.ones(2)))


def test_a_program_that_writes_over_values_and_other_arguments_are_refused(coupling):
    flow, params, x, program = coupling
    assert "expected a program recorded with reuse=False" in refusal(
        values_of, record(flow.loss, params, x), params, x
    )
    assert "got float64 of shape (4, 2)" in refusal(values_of, program, params, x[:4])
