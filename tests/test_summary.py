"""The table of a flow: all layers, their shapes, the numbers that are trained, and the formulas of log-dets."""

from dataclasses import dataclass

import numpy as np
import pytest

import npflow
from npflow import InputError, models
from npflow.autodiff import Layout
from npflow.layers import ActNorm, Chain, Inverse, Layer, Logit, Squeeze, Units
from npflow.networks import MLP
from npflow.verify.cases import CASES


def test_the_table_of_a_small_glow(rng):
    flow = models.glow(features=2, steps=1, network=MLP((4,)))
    text = str(npflow.summary(flow, flow.init(rng, rng.normal(size=(9, 2)))))
    assert text.splitlines() == [
        "Flow of rows of shape (2,), 32 parameters",
        "layer                     output  parameters  log|det J|",
        "layer/0 (Units)           (2,)             0  -H W sum(e) log 2",
        "layer/1 (ActNorm)         (2,)             4  H W sum(log_scale)",
        "layer/2 (AffineCoupling)  (2,)            18  sum(log_scale)",
        "layer/3 (Conv1x1)         (2,)            10  H W sum(log|s|)",
        "prior (Normal)                             0",
    ]


def test_shapes_are_those_of_the_outputs_on_several_scales():
    flow = models.image_glow((4, 4, 1), levels=2, steps=1)
    shapes = {row[0]: row[1] for row in npflow.summary(flow).rows}
    assert shapes["layer/2 (Squeeze)"] == "(2, 2, 4)"
    assert shapes["layer/7/0 (Squeeze)"] == "(1, 1, 8)"
    assert shapes["layer/8 (Unsqueeze)"] == "(4, 4, 1)"


def test_a_layer_that_is_turned_round_says_so_and_has_minus_the_log_det():
    layer = Chain([Squeeze(), Inverse(Chain([ActNorm(), Units(), Logit(0.05), Squeeze()]))])
    rows = npflow.summary(npflow.Flow(layer, npflow.priors.Normal((4, 4, 1)))).rows
    assert rows[:-1] == (
        ("layer/0 (Squeeze)", "(2, 2, 4)", "0"),
        ("layer/1/3 (Squeeze, inverse)", "(4, 4, 1)", "0"),
        ("layer/1/2 (Logit, inverse)", "(4, 4, 1)", "-sum(log(1 - 2 alpha) - log p - log(1 - p))"),
        ("layer/1/1 (Units, inverse)", "(4, 4, 1)", "H W sum(e) log 2"),
        ("layer/1/0 (ActNorm, inverse)", "(4, 4, 1)", "-H W sum(log_scale)"),
    )


@pytest.mark.parametrize("name", CASES)
def test_every_layer_has_a_formula_and_all_numbers_are_counted(name, rng):
    case = CASES[name]
    keeps_shape = case.layer.output_shape(case.event_shape) == case.event_shape
    back = [] if keeps_shape else [Inverse(case.layer)]  # no flow ends in another shape
    flow = npflow.Flow(Chain([case.layer, *back]), npflow.priors.Normal(case.event_shape))
    params = flow.init(rng, case.batch(rng))
    table = npflow.summary(flow, params)
    assert sum(row[2] for row in table.rows) == Layout(params).size
    assert all(row[3] for row in table.rows[:-1]), table


def test_a_context_reaches_the_layers_that_take_one(rng):
    flow = models.maf(3, steps=1, context_features=2)
    params = flow.init(rng, rng.normal(size=(9, 3)), rng.normal(size=(9, 2)))
    assert sum(row[2] for row in npflow.summary(flow, params).rows) == Layout(params).size


@dataclass(frozen=True)
class Untold(Layer):
    def init(self, rng, x):
        return {}

    def forward(self, params, x):
        return x, np.zeros(len(x), x.dtype)

    inverse = forward


def test_a_layer_without_a_formula_has_an_empty_place():
    flow = npflow.Flow(Untold(), npflow.priors.Normal(2))
    assert [row[-1] for row in npflow.summary(flow).rows] == ["", ""]


def test_what_is_no_flow_and_parameters_of_another_are_refused(rng):
    with pytest.raises(InputError, match="expected a Flow to summarize, got"):
        npflow.summary(ActNorm())
    flow, other = models.glow(features=2, steps=1), models.glow(features=2, steps=2)
    with pytest.raises(InputError, match="another architecture's"):
        npflow.summary(flow, other.init(rng, rng.normal(size=(9, 2))))


def test_notebooks_show_flows_reports_and_programs_as_html(rng):
    flow, x = models.glow(features=2, steps=1, network=MLP((4,))), rng.normal(size=(8, 2))
    params = flow.init(rng, x)
    assert "layer/1 (ActNorm)" in flow._repr_html_()
    report = npflow.verify.check(ActNorm(), x)
    assert "<caption" in report._repr_html_() and report._repr_html_().count("<tr>") == 1 + len(report.checks)
    html = npflow.autodiff.record(flow.loss, params, x)._repr_html_()
    assert html.startswith("<pre>") and "def backward(" in html and "&gt;" not in html.split("<details>")[0]
