"""The page to step through a flow: what it stores is what npflow computes, to six digits."""

import json
import re
from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow import Dequantized, Flow, datasets, to_device
from npflow.autodiff import value_and_grad
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Inverse, Layer, Logit, Split, Units
from npflow.models import glow, image_glow
from npflow.networks import MLP, ConvNet
from npflow.plots import page, step_page
from npflow.priors import Normal
from npflow.verify.jacobians import by_finite_differences

NETWORK = MLP((4,), "tanh")


def small(dims=2, dtype=np.float64, n=20, **options):
    """A flow, parameters away from their start, and rows."""
    flow, x = glow(dims, steps=2, network=NETWORK, **options), rows(n, dims, dtype=dtype)
    return flow, x


def six(array):
    """Numbers as they are printed, to six digits."""
    return [float(f"{value:.6g}") for value in np.ravel(array).tolist()]


def data_of(path):
    """What a page stores."""
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text("utf-8"))[1]
    return json.loads(text)


def values(data, name, point=0):
    """The value of a name in the program, at a marked point."""
    found = [line[4] for line in data["program"]["lines"] if line[1].startswith(f"{name} = ") and line[4]]
    return found[0][point if len(found[0]) > 1 else 0]


# ---------------------------------------------------------------- the layers


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_layers_are_those_of_a_trace_to_six_digits(tmp_path, dtype):
    flow, x = small(dtype=dtype)
    params = perturbed(flow, x)
    data = data_of(step_page(flow, params, x, tmp_path / "page.html"))
    traced = flow.layer.trace(params["layer"], x)
    assert data["dtype"] == np.dtype(dtype).name
    assert data["x"] == six(x)
    assert [layer["out"] for layer in data["layers"]] == [six(step.output) for step in traced]
    assert [layer["log_det"] for layer in data["layers"]] == [six(step.log_det) for step in traced]
    totals = np.cumsum([step.log_det for step in traced], axis=0, dtype=dtype)
    assert [layer["total"] for layer in data["layers"]] == [six(total) for total in totals]
    assert data["prior"]["log_prob"] == six(flow.prior.log_prob({}, traced[-1].output))
    assert data["log_prob"] == six(flow.log_prob(params, x))
    np.testing.assert_allclose(totals[-1] + data["prior"]["log_prob"], data["log_prob"], rtol=1e-4, atol=1e-4)
    assert [layer["name"] for layer in data["layers"][:4]] == [
        "0 Units",
        "1 ActNorm",
        "2 AffineCoupling",
        "3 Conv1x1",
    ]


def test_the_jacobians_are_those_of_finite_differences_and_their_log_det_is_the_layer_s():
    flow, x = small()
    params = perturbed(flow, x)
    data = page.contents(flow, params, x)
    inputs = [x, *(step.output for step in flow.layer.trace(params["layer"], x))]
    assert data["everywhere"]
    for index, (layer, stored) in enumerate(zip(flow.layer.layers, data["layers"])):
        matrices = np.reshape(stored["jacobian"], (len(x), 2, 2))
        forward = lambda x, layer=layer, index=index: layer.forward(params["layer"][index], x)[0]
        numerical, _ = by_finite_differences(forward, inputs[index])
        np.testing.assert_allclose(matrices, numerical, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(np.linalg.slogdet(matrices)[1], stored["log_det"], atol=1e-4)
    structures = [layer["structure"] for layer in data["layers"][:4]]
    assert structures == ["diagonal", "diagonal", "lower triangular", "not triangular"]


def test_formulas_are_those_of_the_docstrings():
    flow, x = small()
    norm = page.contents(flow, perturbed(flow, x), x)["layers"][1]
    assert norm["formula"].startswith("z = x * exp(log_scale) + bias")
    assert norm["summary"].startswith("A scale and a shift for each channel; init chooses them")


def test_a_composite_of_layers_in_a_row_is_taken_apart_and_any_other_is_one_layer():
    inner = Chain([Conv1x1(), AffineCoupling(NETWORK)])
    flow = Flow(Chain([inner, Inverse(Chain([Conv1x1(), AffineCoupling(NETWORK)])), Split(inner)]), Normal(4))
    x = rows(6, 4)
    params = perturbed(flow, x)
    data = page.contents(flow, params, x)
    names = [layer["name"] for layer in data["layers"]]
    turned = ["1/1 AffineCoupling, inverse", "1/0 Conv1x1, inverse"]
    assert names == ["0/0 Conv1x1", "0/1 AffineCoupling", *turned, "2 Split"]
    assert data["layers"][-1]["out"] == six(flow.encode(params, x))
    stages = [
        stage for part, title, stage in data["program"]["sections"] if part == "forward" and "layer" in title
    ]
    assert [stage for stage in dict.fromkeys(stages) if stage] == [1, 2, 3, 4, 5]


def test_a_flow_of_one_layer_and_one_dimension():
    flow, x = Flow(ActNorm(), Normal(1)), rows(5, 1)
    data = page.contents(flow, flow.init(np.random.default_rng(0), x), x)
    assert [layer["name"] for layer in data["layers"]] == ["ActNorm"]
    assert data["axes"] == [0, 0]
    assert {stage for part, _, stage in data["program"]["sections"] if part != "constants"} >= {1, 2}


# ---------------------------------------------------------------- the grid, the colours, the marked points


def test_the_grid_is_square_at_x_and_goes_through_the_layers():
    flow, x = small()
    params = perturbed(flow, x)
    grid = page.contents(flow, params, x)["grid"]
    first, last = (np.reshape(grid["stages"][place], (2, page.LINES, page.POINTS, 2)) for place in (0, -1))
    assert np.ptp(first[0, :, :, 1], axis=1).max() == 0  # a horizontal
    assert np.ptp(first[1, :, :, 0], axis=1).max() == 0  # a vertical
    assert (first.min(axis=(0, 1, 2)) < x.min(axis=0)).all()
    assert (first.max(axis=(0, 1, 2)) > x.max(axis=0)).all()
    np.testing.assert_allclose(last, flow.encode(params, first.reshape(-1, 2)).reshape(last.shape), atol=2e-2)


def test_an_image_of_two_numbers_has_a_grid_too():
    flow, x = Flow(ActNorm(), Normal((1, 2, 1))), rows(6, 1, 2, 1)
    grid = page.contents(flow, flow.init(np.random.default_rng(0), x), x)["grid"]
    assert len(grid["stages"][1]) == 2 * page.LINES * page.POINTS * 2


def test_the_grid_stays_in_the_domain():
    flow, x = Flow(Chain([Logit(), Units()]), Normal(2)), np.random.default_rng(0).random((30, 2))
    grid = page.contents(flow, flow.init(np.random.default_rng(0), x), x)["grid"]
    assert all(isinstance(number, (int, float)) for stage in grid["stages"] for number in stage)
    assert "expected x" in refusal(page.contents, flow, flow.init(np.random.default_rng(0), x), x + 1)


def test_colours_are_the_order_along_the_first_component_of_z():
    z = np.array([[3.0, 0], [1, 0], [2, 0], [1, 0]])
    assert page.shades(z) == [24, 0, 16, 8]
    colors = page.colors()
    assert {theme: len(shades) for theme, shades in colors.items()} == {"light": 32, "dark": 32}


def test_marked_rows_are_spread_or_given():
    flow, x = small(n=100)
    params = perturbed(flow, x)
    assert page.contents(flow, params, x)["marked"] == [9 * number for number in range(12)]
    assert page.contents(flow, params, x, marked=[5, 3])["marked"] == [5, 3]
    assert "expected a marked row to be at most 99, got 100" in refusal(
        page.contents, flow, params, x, marked=[100]
    )
    assert "the number of marked rows" in refusal(page.contents, flow, params, x, marked=range(13))
    assert "expected marked to be the numbers of rows, got 3" in refusal(
        page.contents, flow, params, x, marked=3
    )


# ---------------------------------------------------------------- the program


def test_the_values_of_the_program_are_those_of_each_marked_row_alone():
    flow, x = small()
    params = perturbed(flow, x)
    data = page.contents(flow, params, x, marked=[2, 7])
    gradients = [value_and_grad(flow.loss)(params, x[row : row + 1])[1] for row in (2, 7)]
    for point, gradient in enumerate(gradients):
        bias = gradient["layer"][1]["bias"]
        assert values(data, "grad_layer01_bias", point) == six(bias)
        weight = gradient["layer"][2][1]["weight"].ravel()
        shown = values(data, "grad_layer02_1_weight", point)
        assert shown == six(weight)  # eight numbers
        assert len(shown) == page.ENDS
    lines = data["program"]["lines"]
    (line,) = [line for line in lines if line[1].startswith("layer02_coupling_z_b = ")]
    assert line[2] == "z_b = changed * exp(log_scale) + shift"
    assert line[3] == "1 x 1"


def test_a_long_array_is_its_first_eight_its_least_and_its_largest():
    assert page.summary(np.array([3.0, 1])) == [3, 1]
    assert page.summary(np.arange(10.0)[::-1]) == [9, 8, 7, 6, 5, 4, 3, 2, 0, 9]
    assert page.summary(np.array(True)) == [1]


@dataclass(frozen=True)
class Branching(Layer):
    """A map that looks at the values, so that it has no program."""

    def forward(self, params, x):
        return (x, anp.zeros(len(x))) if anp.sum(x) > 0 else (x * 1, anp.zeros(len(x)))

    def inverse(self, params, z):
        return z, anp.zeros(len(z))


def test_a_flow_without_a_program_has_a_page_that_says_why():
    flow, x = Flow(Branching(), Normal(2)), rows(5, 2)
    data = page.contents(flow, flow.init(np.random.default_rng(0), x), x)
    assert "at" in data["program"]["refused"]
    assert data["layers"][0]["formula"] == ""


# ---------------------------------------------------------------- other flows


def test_five_dimensions_and_a_context():
    flow, x = small(5, context_features=3)
    context = np.arange(len(x)) % 3
    params = perturbed(flow, x, context)
    data = page.contents(flow, params, x, context)
    assert data["grid"] is None
    assert data["dims"] == 5
    assert data["context"][1] == [0, 1, 0]
    assert data["log_prob"] == six(flow.log_prob(params, x, context))
    assert len(data["layers"][0]["jacobian"]) == 25 * len(x)
    first = value_and_grad(flow.loss)(params, x[:1], np.eye(3)[:1])[1]
    assert values(data, "grad_layer01_bias") == six(first["layer"][1]["bias"])


def test_where_all_jacobians_would_be_too_many_only_those_of_marked_rows_are_stored(monkeypatch):
    monkeypatch.setattr(page, "ENTRIES", 25 * 7 * 3)
    flow, x = small(5)
    params = perturbed(flow, x)
    data = page.contents(flow, params, x)
    assert not data["everywhere"]
    assert data["marked"] == [0, 9, 19]
    monkeypatch.undo()
    everywhere = page.contents(flow, params, x)
    for few, all_rows in zip(data["layers"], everywhere["layers"]):
        stored = np.reshape(all_rows["jacobian"], (len(x), 25))[data["marked"]]
        assert few["jacobian"] == stored.ravel().tolist()


def test_images_are_shown_as_their_numbers():
    x = np.random.default_rng(0).integers(17, size=(5, 4, 4, 1), dtype=np.uint8)
    model = Dequantized(image_glow((4, 4, 1), levels=1, steps=1, network=ConvNet((3, 3))), 17)
    params = model.init(np.random.default_rng(0), x)
    y = model.dequantize(x, np.full(x.shape, 0.5, np.float32))
    data = page.contents(model.flow, params, y)
    assert data["dims"] == 16
    assert [layer["shape"] for layer in data["layers"][:3]] == [[4, 4, 1], [4, 4, 1], [2, 2, 4]]
    assert len(set(data["axes"])) == 2


def test_arrays_on_a_device_give_the_page_of_those_on_the_host(device):
    flow, x = small()
    params = perturbed(flow, x)
    here, there = page.contents(flow, params, x), page.contents(flow, *to_device((params, x), device.name))
    assert there == here


# ---------------------------------------------------------------- the file


def test_a_page_of_a_ten_step_glow_and_500_points_is_small(tmp_path):
    x = datasets.moons(500, rng=np.random.default_rng(0))
    flow = glow(2, steps=10)
    path = step_page(flow, perturbed(flow, x, by=0.05), x, tmp_path / "page.html")
    assert path.stat().st_size < 3e6
    text = path.read_text("utf-8")
    assert not re.search(r"(src|href)=[\"']?(https?:)?//|@import|fetch\(|XMLHttpRequest", text)  # no network


def test_numbers_that_are_not_finite_are_text_and_the_title_is_no_markup(tmp_path):
    flow, x = Flow(ActNorm(), Normal(2)), rows(4, 2)
    params = {"layer": {"bias": np.zeros(2), "log_scale": np.array([400.0, 0.0])}, "prior": {}}
    path = step_page(flow, params, 1e200 * x, str(tmp_path / "page.html"), title="</script><b>")
    assert path == tmp_path / "page.html"
    data = data_of(path)
    assert data["title"] == "</script><b>"
    assert "inf" in data["layers"][0]["out"] or "-inf" in data["layers"][0]["out"]
    assert data["log_prob"] == ["-inf"] * 4


def test_what_is_no_flow_too_large_or_cannot_be_written_is_refused(tmp_path):
    flow, x = small()
    params, path = perturbed(flow, x), tmp_path / "page.html"
    assert "expected a Flow to step through, got a str" in refusal(step_page, "flow", params, x, path)
    wide = Flow(ActNorm(), Normal(65))
    start = wide.init(np.random.default_rng(0), rows(3, 65))
    assert "rows of at most 64 numbers, whose Jacobians can be drawn, got 65" in refusal(
        step_page, wide, start, rows(3, 65), path
    )
    assert "expected x" in refusal(step_page, flow, params, x[:, :1], path)
    assert "expected title to be a string or None, got 3" in refusal(
        step_page, flow, params, x, path, title=3
    )
    assert "expected the path of the page" in refusal(
        step_page, flow, params, x, tmp_path / "none" / "page.html"
    )
    assert not path.exists()
