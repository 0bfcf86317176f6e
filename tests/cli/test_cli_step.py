"""npflow step: the page that it writes, and what it refuses."""

import json
import re

import numpy as np
import pytest
from helpers import perturbed, rows

from npflow import Flow, datasets, load, save
from npflow.cli import main
from npflow.layers import ActNorm
from npflow.models import glow
from npflow.networks import MLP
from npflow.priors import Normal


def data_of(path):
    return json.loads(re.search(r'id="data">(.*?)</script>', path.read_text("utf-8"))[1])


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The checkpoint of a flow on rows of two features."""
    flow, x = glow(2, steps=1, network=MLP((4,))), rows(20, 2)
    path = tmp_path_factory.mktemp("checkpoint") / "moons.npz"
    save(path, flow, perturbed(flow, x))
    return path


def test_a_run_of_images_shows_held_out_ones_at_the_middle_of_their_cells(runs, capsys):
    assert main(["step", str(runs / "flow"), "--n", "6"]) == 0
    path = runs / "flow" / "step.html"
    assert capsys.readouterr().out == f"{path}\n"
    data = data_of(path)
    assert data["title"] == "flow, step by step"
    levels = 17 * np.reshape(data["x"], (6, 64)) - 0.5
    np.testing.assert_allclose(levels, np.round(levels), atol=1e-4)
    test = datasets.image_data("digits").test.reshape(-1, 64)
    assert all((np.round(row) == test).all(axis=1).any() for row in levels)
    assert path.stat().st_size < 3e6


def test_a_conditional_run_has_the_class_of_each_image_as_context(runs, tmp_path):
    assert main(["step", str(runs / "conditional"), "--n", "3", "--out", str(tmp_path / "page.html")]) == 0
    context = data_of(tmp_path / "page.html")["context"]
    assert [len(row) for row in context] == [10, 10, 10]
    assert [sum(row) for row in context] == [1, 1, 1]


def test_a_checkpoint_shows_samples_of_the_flow_or_the_rows_of_a_file(checkpoint, tmp_path, capsys):
    assert main(["step", str(checkpoint), "--n", "5", "--seed", "1"]) == 0
    path = checkpoint.parent / "step.html"
    assert capsys.readouterr().out == f"{path}\n"
    saved = load(checkpoint)
    drawn = saved.flow.sample(saved.params, np.random.default_rng(1), 5)
    np.testing.assert_allclose(data_of(path)["x"], drawn.ravel(), rtol=1e-5)
    np.save(tmp_path / "rows.npy", rows(4, 2))
    page = tmp_path / "page.html"
    assert main(["step", str(checkpoint), "--data", str(tmp_path / "rows.npy"), "--out", str(page)]) == 0
    np.testing.assert_allclose(data_of(page)["x"], rows(4, 2).ravel(), rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{runs}/pixelcnn"], "expected a run of a flow, got one of pixelcnn, which has no z"),
        (
            ["{runs}/nothing"],
            "expected the folder of a run, or a checkpoint, got {runs}/nothing, which does not",
        ),
        (["{runs}"], "expected the folder of a run of npflow train, got {runs} without"),
        (["{checkpoint}", "--data", "{checkpoint}"], "an array that numpy.save wrote, got:"),
        (
            ["{runs}/flow", "--data", "x.npy"],
            "expected --data with a checkpoint, got it with the folder of a run",
        ),
        (
            ["{checkpoint}", "--out", "page.png"],
            "expected --out to be a file that ends in .html, got page.png",
        ),
        (["{checkpoint}", "--n", "0"], "expected --n to be at least 1, got 0"),
        (["{checkpoint}", "--data", "{runs}/flow/run.json"], "an array that numpy.save wrote, got:"),
        (["{checkpoint}", "--data", "{checkpoint}.none"], "an array that numpy.save wrote, got:"),
        (
            ["{runs}/flow/checkpoint.npz"],
            "expected a Flow without a context at {runs}/flow/checkpoint.npz, got a Dequantized",
        ),
    ],
)
def test_what_cannot_be_shown_is_refused_in_a_sentence(runs, checkpoint, capsys, arguments, sentence):
    filled = [argument.format(runs=runs, checkpoint=checkpoint) for argument in arguments]
    assert main(["step", *filled]) == 2
    assert sentence.format(runs=runs) in capsys.readouterr().err


def test_a_checkpoint_of_a_flow_with_a_context_needs_rows_and_so_python(tmp_path, capsys):
    flow, x = glow(2, steps=1, network=MLP((4,)), context_features=2), rows(10, 2)
    save(tmp_path / "flow.npz", flow, perturbed(flow, x, rows(10, 2)))
    assert main(["step", str(tmp_path / "flow.npz")]) == 2
    assert "got a conditional one: call npflow.plots.step_page" in capsys.readouterr().err


def test_rows_that_are_too_wide_are_refused(tmp_path, capsys):
    flow, x = Flow(ActNorm(), Normal(70)), rows(10, 70)
    save(tmp_path / "flow.npz", flow, perturbed(flow, x))
    assert main(["step", str(tmp_path / "flow.npz")]) == 2
    assert "rows of at most 64 numbers" in capsys.readouterr().err
