"""npflow score: what it prints of a flow and of another model, and what it refuses."""

import re

import numpy as np
import pytest

from npflow import datasets, load
from npflow.cli import main
from npflow.cli.score import Score


def test_a_score_is_the_mean_over_the_test_part_and_its_standard_error(runs, rng, capsys):
    assert main(["score", str(runs / "flow"), "--draws", "2"]) == 0
    data, saved = datasets.image_data("digits"), load(runs / "flow" / "checkpoint.npz")
    bits = saved.flow.bits_per_dim(saved.params, data.test, rng=rng, draws=2)
    error = bits.std(ddof=1) / np.sqrt(360)
    first, second = capsys.readouterr().out.splitlines()
    assert first == f"nice on digits: {bits.mean():.3f} ± {error:.3f} bits/dim on all 360 held-out images"
    assert re.fullmatch(
        r"encoded and decoded: 100.0000% of the pixel values of 100 images are unchanged, the largest error is .* levels",
        second,
    )


def test_a_model_that_is_not_a_flow_has_a_score_and_no_reconstruction(runs, capsys):
    assert main(["score", str(runs / "pixelcnn")]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("pixelcnn on digits: ")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["flow", "patches"], "expected x"),
        (["conditional", "patches"], "expected data with labels for a conditional model"),
        (["pixelcnn", "--draws", "2"], "expected --draws for a model with noise only"),
        (["flow", "--draws", "0"], "expected --draws to be at least 1, got 0"),
        (["flow", "--draws", "1000000000000"], "expected --draws to be at most 10000, got 1000000000000"),
    ],
)
def test_what_cannot_be_scored_is_refused(arguments, sentence, runs, capsys):
    run, *more = arguments
    assert main(["score", str(runs / run), *more]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"npflow: {sentence}")
    assert captured.out == ""


def test_a_single_image_has_no_standard_error():
    assert str(Score(np.array([2.5]))) == "2.500 bits/dim"
    assert Score(np.array([2.5])).standard_error is None
