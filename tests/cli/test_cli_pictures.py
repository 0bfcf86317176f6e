"""npflow sample, score, interpolate and edit: what they make of the folder of a run, and what they refuse."""

import json
import re
import shutil

import numpy as np
import pytest

from npflow import datasets, latent, load
from npflow.cli import drawing, main


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of small runs: of a flow, of a conditional one, and of a model that is no flow."""
    folder = tmp_path_factory.mktemp("runs")
    small = ["--steps", "3", "--blocks", "1"]
    flow = ["--couplings", "2", "--channels", "4"]
    assert main(["train", "nice", "--out", str(folder / "flow"), *small, *flow]) == 0
    assert main(["train", "nice", "--out", str(folder / "conditional"), *small, *flow, "--conditional"]) == 0
    assert main(["train", "pixelcnn", "--out", str(folder / "pixelcnn"), *small, "--features", "4"]) == 0
    return folder


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures, write = [], drawing.write_figure
    monkeypatch.setattr(
        drawing, "write_figure", lambda path, figure: (figures.append(figure), write(path, figure))
    )
    return figures


def names(axis):
    return [text.get_text() for text in axis.get_ticklabels()]


def mosaic(figure):
    return np.asarray(figure.axes[0].images[0].get_array().filled(0))


# ---------------------------------------------------------------- pictures


def test_samples_are_the_models_and_the_same_for_the_same_seed(runs, drawn, tmp_path, capsys):
    for seed, file in (("1", "a.png"), ("1", "b.png"), ("2", "c.png")):
        arguments = ["--n", "4", "--seed", seed, "--temperature", "1", "--out", str(tmp_path / file)]
        assert main(["sample", str(runs / "flow"), *arguments]) == 0
    a, b, c = map(mosaic, drawn)
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)
    saved = load(runs / "flow" / "checkpoint.npz")
    x = saved.flow.sample(saved.params, np.random.default_rng(1), 4)
    np.testing.assert_allclose(a[:8, :8], x[0, ..., 0] / 16)
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    assert capsys.readouterr().out.splitlines()[0] == str(tmp_path / "a.png")
    assert drawn[0].axes[0].get_title() == "nice on digits, samples"


def test_of_a_conditional_model_each_column_is_a_class_or_all_samples_are_of_one(runs, drawn):
    assert main(["sample", str(runs / "conditional"), "--n", "11"]) == 0
    assert main(["sample", str(runs / "conditional"), "--n", "4", "--label", "3"]) == 0
    classes, one = (figure.axes[0] for figure in drawn)
    assert names(classes.xaxis) == list("0123456789")
    assert mosaic(drawn[0]).shape == (2 * 9 - 1, 10 * 9 - 1)  # 11 samples: two rows of ten
    assert one.get_title() == "nice on digits, samples of class 3 at temperature 0.7"
    assert (runs / "conditional" / "sample.png").exists()


@pytest.mark.parametrize("run", ["flow", "conditional"])
def test_interpolations_begin_and_end_with_test_images(run, runs, drawn):
    assert main(["interpolate", str(runs / run), "--pairs", "3"]) == 0
    test = datasets.image_data("digits").test / 16
    chosen = np.random.default_rng(0).permutation(len(test))[:6]
    picture = mosaic(drawn[0])
    for row, (first, second) in enumerate(zip(chosen[:3], chosen[3:])):
        np.testing.assert_allclose(picture[9 * row : 9 * row + 8, :8], test[first, ..., 0])
        np.testing.assert_allclose(picture[9 * row : 9 * row + 8, -8:], test[second, ..., 0])
    assert names(drawn[0].axes[0].xaxis)[::4] == ["0", "0.5", "1"]
    assert (runs / run / "interpolate.png").exists()


def test_edited_images_go_from_one_class_to_another(runs, drawn):
    assert main(["edit", str(runs / "flow"), "--attribute", "3-8", "--attribute", "0", "--n", "2"]) == 0
    data, saved = datasets.image_data("digits"), load(runs / "flow" / "checkpoint.npz")
    picture, ax = mosaic(drawn[0]), drawn[0].axes[0]
    assert names(ax.yaxis) == ["8 to 3", "8 to 3", "others to 0", "others to 0"]
    assert names(ax.xaxis) == ["-0.5", "0", "0.5", "1", "1.5"]
    eights = data.test[data.test_labels == 8][:2]
    np.testing.assert_allclose(picture[:8, 9:17], eights[0, ..., 0] / 16)
    threes, others = (data.train[data.train_labels == label] for label in (3, 8))
    vector = latent.attribute_vector(saved.flow, saved.params, threes, others)
    moved = latent.add_attribute(saved.flow, saved.params, eights, vector)
    np.testing.assert_allclose(picture[9:17, 27:35], moved[1, ..., 0] / 16)
    assert (runs / "flow" / "edit.png").exists()


def test_long_names_of_columns_are_turned_and_all_is_within_the_figure():
    x, names = np.zeros((10, 4, 4, 1), int), ["automobile"] * 10
    figure = drawing.figure_of(x, 2, 10, "samples", across="class", column_names=names)
    ax = figure.axes[0]
    assert {label.get_rotation() for label in ax.get_xticklabels()} == {45.0}
    figure.draw_without_rendering()
    for text in (ax.title, ax.xaxis.label, *ax.get_xticklabels()):
        box = text.get_window_extent()
        assert figure.bbox.contains(box.x0, box.y0)
        assert figure.bbox.contains(box.x1, box.y1)
    figure = drawing.figure_of(np.zeros((2, 4, 4, 1), int), 2, 2, "", column_names=["0", "1"])
    assert {label.get_rotation() for label in figure.axes[0].get_xticklabels()} == {0.0}


# ---------------------------------------------------------------- scores


def test_a_score_is_the_mean_over_the_test_part_and_its_standard_error(runs, capsys):
    assert main(["score", str(runs / "flow"), "--draws", "2"]) == 0
    data, saved = datasets.image_data("digits"), load(runs / "flow" / "checkpoint.npz")
    bits = saved.flow.bits_per_dim(saved.params, np.random.default_rng(0), data.test, draws=2)
    error = bits.std(ddof=1) / np.sqrt(360)
    first, second = capsys.readouterr().out.splitlines()
    assert first == (f"nice on digits: {bits.mean():.3f} ± {error:.3f} bits/dim on all 360 held-out images")
    assert re.fullmatch(
        r"from z and back: 100.0000% of the numbers of 100 images are what they were, the largest error is .* levels",
        second,
    )


def test_what_is_no_flow_has_a_score_and_no_reconstruction(runs, capsys):
    assert main(["score", str(runs / "pixelcnn")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"seed": "x"}, "expected --seed to be an integer, got 'x'"),
        ({"steps": None}, "expected --steps to be an integer, got None"),
        ({"model": ["nice"]}, "expected the model, one of"),
        ({"data": 3}, "expected --data, one of"),
        ({"sizes": None}, "'NoneType' object"),
        ({"sizes": {"bogus": 1}}, "expected the sizes of nice, got those of another model"),
        ({"part": "yes"}, "expected --part of another kind, got 'yes'"),
        ({"path": 3}, "expected --path of another kind, got 3"),
        ({"rate": "fast"}, "expected --rate to be a number above 0, got 'fast'"),
        ({"minutes": -1}, "expected --minutes to be a finite number above 0"),
        ({"more": 1}, "unexpected keyword argument"),
    ],
)
def test_a_damaged_run_json_is_refused(damage, sentence, runs, tmp_path, capsys):
    shutil.copytree(runs / "flow", tmp_path / "run")
    file = tmp_path / "run" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | damage))
    assert main(["sample", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert (
        f"expected the folder of a run of npflow train, got {tmp_path / 'run'} with no such run.json" in error
    )
    assert sentence in error


def test_a_run_json_of_ten_thousand_lists_is_refused(runs, tmp_path, capsys):
    shutil.copytree(runs / "flow", tmp_path / "run")
    (tmp_path / "run" / "run.json").write_text("[" * 100_000)
    assert main(["sample", str(tmp_path / "run")]) == 2
    assert "with no such run.json" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sample", "{}/nowhere"], "expected the folder of a run of npflow train, got {}/nowhere with no such run.json"),
        (["sample", "{}/flow", "--n", "-1"], "expected the number of samples to be at least 1, got -1"),
        (["sample", "{}/conditional", "--n", "0", "--label", "1"], "expected the number of samples to be at least 1"),
        (["sample", "{}/flow", "--temperature", "-1"], "expected temperature to be a finite number at least 0, got -1"),
        (["sample", "{}/flow", "--label", "3"], "expected a run with --conditional for --label, got one without"),
        (["sample", "{}/conditional", "--label", "cat"], "expected a class of digits, one of 0, 1, 2"),
        (["score", "{}/flow", "patches"], "expected x"),
        (["score", "{}/conditional", "patches"], "expected data with labels for a conditional model"),
        (["score", "{}/pixelcnn", "--draws", "2"], "expected --draws for a flow, got one for a model that takes no"),
        (["score", "{}/flow", "--draws", "0"], "expected draws to be at least 1, got 0"),
        (["interpolate", "{}/pixelcnn"], "expected the run of a flow, got one of pixelcnn, which has no z"),
        (["interpolate", "{}/flow", "--pairs", "181"], "expected --pairs to be at most 180, got 181"),
        (["sample", "{}/flow", "--seed", "-1"], "expected --seed to be at least 0, got -1"),
        (["interpolate", "{}/flow", "--seed", "-1"], "expected --seed to be at least 0, got -1"),
        (["sample", "{}/flow", "--out", "{}/flow/checkpoint.npz"], "expected --out to be a file with the ending .png"),
        (["edit", "{}/flow", "--attribute", "3", "--out", "."], "expected --out to be a file with the ending .png, got ."),
        (["interpolate", "{}/flow", "--out", "{}/no/x.png"], "expected --out in a folder that is there, got {}/no/x.png"),
        (["edit", "{}/pixelcnn", "--attribute", "3"], "expected the run of a flow, got one of pixelcnn"),
        (["edit", "{}/conditional", "--attribute", "3"], "expected a run without --conditional, got one with it"),
        (["edit", "{}/flow", "--attribute", "3-3"], "expected an attribute of two classes, got '3-3'"),
        (["edit", "{}/flow", "--attribute", "3-x"], "expected a class of digits"),
        (["edit", "{}/flow", "--attribute", "3", "--n", "0"], "expected --n to be at least 1, got 0"),
        (["edit", "{}/flow", "--attribute", "3-8", "--n", "999"], "expected --n to be at most "),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_sentence(arguments, sentence, runs, capsys):
    assert main([argument.format(runs) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"npflow: {sentence.format(runs)}")
    assert captured.out == ""


@pytest.mark.parametrize("text", ["", "[]", '{"model": "glow"}', "{"])
def test_a_foreign_run_json_gets_a_sentence(text, tmp_path, capsys):
    (tmp_path / "run.json").write_text(text)
    assert main(["sample", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith("npflow: expected the folder of a run of npflow train, got")


def test_a_run_that_has_no_checkpoint_yet_gets_a_sentence(runs, tmp_path, capsys):
    (tmp_path / "run.json").write_bytes((runs / "flow" / "run.json").read_bytes())
    assert main(["score", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"npflow: expected a checkpoint in {tmp_path}, got none")


@pytest.mark.parametrize("command", ["sample", "score", "interpolate", "edit", "verify"])
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as raised:
        main([command, "--help"])
    assert raised.value.code == 0
    assert f"example:\n  npflow {command} " in capsys.readouterr().out
