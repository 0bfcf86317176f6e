"""npflow sample, interpolate, edit and translate: the pictures that they draw, and what they refuse."""

import numpy as np
import pytest

from npflow import datasets, latent, load
from npflow.cli import drawing, folder, main
from npflow.cli.translate import on_scale


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


def test_samples_are_the_model_s_and_the_same_for_the_same_seed(runs, drawn, tmp_path, capsys):
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


def test_translated_images_are_encoded_as_what_they_are_and_decoded_as_each_class(runs, drawn):
    run = runs / "conditional"
    assert main(["translate", str(run), "--from", "3", "--to", "8", "--to", "3", "--n", "2"]) == 0
    data, saved, one_hot = (
        datasets.image_data("digits"),
        load(run / "checkpoint.npz"),
        np.eye(10, dtype=np.float32),
    )
    picture, ax = mosaic(drawn[0]), drawn[0].axes[0]
    assert names(ax.xaxis) == ["image", "8", "3"]
    assert names(ax.yaxis) == ["3", "3"]
    order = np.random.default_rng(0).permutation(len(data.test))
    threes = data.test[order[data.test_labels[order] == 3][:2]]
    side = saved.flow, saved.params
    made = [latent.translate(threes, (*side, one_hot[3]), (*side, one_hot[to])) for to in (8, 3)]
    for column, x in enumerate([threes, *made]):
        for row in (0, 1):
            place = picture[9 * row : 9 * row + 8, 9 * column : 9 * column + 8]
            np.testing.assert_allclose(place, x[row, ..., 0] / 16)
    assert main(["translate", str(run)]) == 0
    assert names(drawn[1].axes[0].xaxis) == ["image", *"0123456789"]
    assert len(names(drawn[1].axes[0].yaxis)) == 8
    assert (run / "translate.png").exists()


def test_images_are_translated_to_the_data_of_another_run(runs, drawn):
    assert main(["translate", str(runs / "conditional"), "--onto", str(runs / "flow"), "--n", "3"]) == 0
    assert main(["translate", str(runs / "flow"), "--onto", str(runs / "flow"), "--n", "3"]) == 0
    for figure in drawn:
        assert names(figure.axes[0].xaxis) == ["image", "digits"]
    there = mosaic(drawn[1])
    np.testing.assert_allclose(there[:, :8], there[:, 9:])  # by the same flow and back


def test_images_of_other_levels_are_as_dark_beside_those_that_they_become():
    x = np.array([0, 8, 16], np.uint8)
    np.testing.assert_allclose(on_scale(x, 17, 256), [0, 127.5, 255])
    assert on_scale(x, 17, 17) is x


def test_long_names_of_columns_are_rotated_and_stay_within_the_figure():
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


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["sample", "{}/nowhere"], "expected the folder of a run of npflow train, got {}/nowhere without a valid"),
        (["sample", "{}/flow", "--n", "-1"], "expected --n to be at least 1, got -1"),
        (["sample", "{}/conditional", "--n", "0", "--label", "1"], "expected --n to be at least 1"),
        (["sample", "{}/flow", "--temperature", "-1"], "expected --temperature to be a finite number at least 0 below 1000, got -1"),
        (["sample", "{}/flow", "--temperature", "1e308"], "expected --temperature to be a finite number at least 0 below"),
        (["sample", "{}/flow", "--n", "1000000000000"], "expected --n to be at most 5000, got 1000000000000"),
        (["sample", "{}/conditional", "--label", 5000 * "9"], "expected a class of digits, one of 0"),
        (["sample", "{}/flow", "--label", "3"], "expected a run with --conditional for --label, got one without"),
        (["sample", "{}/conditional", "--label", "cat"], "expected a class of digits, one of 0, 1, 2"),
        (["interpolate", "{}/pixelcnn"], "expected a run of a flow, got one of pixelcnn"),
        (["interpolate", "{}/flow", "--pairs", "181"], "expected --pairs to be at most 180, got 181"),
        (["sample", "{}/flow", "--seed", "-1"], "expected --seed to be at least 0, got -1"),
        (["interpolate", "{}/flow", "--seed", "-1"], "expected --seed to be at least 0, got -1"),
        (["sample", "{}/flow", "--out", "{}/flow/checkpoint.npz"], "expected --out to be a file that ends in .png"),
        (["edit", "{}/flow", "--attribute", "3", "--out", "."], "expected --out to be a file that ends in .png, got ."),
        (["interpolate", "{}/flow", "--out", "{}/no/x.png"], "expected --out to be a path that can be written to, got '{}/no/x.png': No such"),
        (["edit", "{}/pixelcnn", "--attribute", "3"], "expected a run of a flow, got one of pixelcnn"),
        (["edit", "{}/conditional", "--attribute", "3"], "expected a run without --conditional, got one with it"),
        (["edit", "{}/flow", "--attribute", "3-3"], "expected an attribute of two different classes, got '3-3'"),
        (["edit", "{}/flow", "--attribute", "3-x"], "expected a class of digits"),
        (["edit", "{}/flow", "--attribute", "3", "--n", "0"], "expected --n to be at least 1, got 0"),
        (["edit", "{}/flow", "--attribute", "3-8", "--n", "499"], "expected --n to be at most "),
        (["edit", "{}/flow", "--attribute", "3-8", "--n", "1000000000000"], "expected --n to be at most 500, got"),
        (["translate", "{}/pixelcnn"], "expected a run of a flow, got one of pixelcnn"),
        (["translate", "{}/flow"], "expected a run with --conditional, or another run for --onto, got neither"),
        (["translate", "{}/flow", "--onto", "{}/pixelcnn"], "expected a run of a flow, got one of pixelcnn"),
        (["translate", "{}/flow", "--onto", "{}/flow", "--to", "3"], "expected a run with --conditional for --to, got"),
        (["translate", "{}/conditional", "--from", "x"], "expected a class of digits"),
        (["translate", "{}/conditional", "--to", "x"], "expected a class of digits"),
        (["translate", "{}/conditional", "--from", "3", "--n", "361"], "expected --n to be at most "),
        (["translate", "{}/conditional", "--seed", "-1"], "expected --seed to be at least 0, got -1"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(arguments, sentence, runs, capsys):
    assert main([argument.format(runs) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"npflow: {sentence.format(runs)}")
    assert captured.out == ""


# ---------------------------------------------------------------- fewer images than usual


@pytest.fixture
def digits(monkeypatch):
    """A function that leaves only some of the digits' training and test images."""
    data = datasets.image_data("digits")

    def leave(train, test):
        few = data._replace(
            train=data.train[train(data.train_labels)], train_labels=data.train_labels[train(data.train_labels)],
            test=data.test[test(data.test_labels)], test_labels=data.test_labels[test(data.test_labels)],
        )  # fmt: skip
        monkeypatch.setattr(folder, "load_data", lambda *_, **__: few)

    return leave


@pytest.mark.parametrize(
    ("train", "test", "attribute", "words"),
    [
        ([3, 8], [3, 8], "3-5", "5 among the training images"),
        ([3, 8], [3, 8], "5", "5 among the training images"),
        ([3], [3, 8], "3", "classes other than 3 among the training images"),
        ([3, 8], [3], "3-8", "8 among the held-out images"),
        ([3, 8], [3], "3", "classes other than 3 among the held-out images"),
    ],
)
def test_an_attribute_of_a_class_without_images_gets_a_sentence(
    train, test, attribute, words, runs, digits, capsys
):
    digits(lambda labels: np.isin(labels, train), lambda labels: np.isin(labels, test))
    assert main(["edit", str(runs / "flow"), "--attribute", attribute]) == 2
    assert capsys.readouterr().err == f"npflow: expected images of {words}, got none\n"


def test_by_default_there_are_no_more_rows_than_images(runs, digits, drawn, capsys):
    digits(lambda labels: labels >= 0, lambda labels: np.arange(len(labels)) < 4)  # 0, 8, 9, 8
    assert main(["edit", str(runs / "flow"), "--attribute", "3-8"]) == 0
    assert main(["interpolate", str(runs / "flow")]) == 0
    assert [names(figure.axes[0].yaxis) for figure in drawn] == [["8 to 3"] * 2, ["1", "2"]]
    digits(lambda labels: labels >= 0, lambda labels: np.arange(len(labels)) < 1)
    assert main(["interpolate", str(runs / "flow")]) == 2
    assert "expected two held-out images at least, got 1" in capsys.readouterr().err
