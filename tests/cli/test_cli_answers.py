"""npflow upscale and npflow complete: questions, answers, pictures as questions, and what is refused."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from npflow import datasets, load
from npflow.cli import drawing, main

TEST = datasets.image_data("digits").test


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are written."""
    figures, write = [], drawing.write_figure
    monkeypatch.setattr(
        drawing, "write_figure", lambda path, figure: (figures.append(figure), write(path, figure))
    )
    return figures


def table(figure, columns):
    """The images of a picture, shape (rows, columns, 8, 8), on the scale of their levels."""
    picture = 16 * np.asarray(figure.axes[0].images[0].get_array().filled(0))
    cells = np.pad(picture, (0, 1)).reshape(-1, 9, columns, 9).swapaxes(1, 2)
    return cells[:, :, :8, :8]


def names(figure):
    return [text.get_text() for text in figure.axes[0].get_xticklabels()]


def test_each_row_has_a_small_image_answers_that_shrink_to_it_and_the_original(runs, drawn):
    arguments = ["--rows", "3", "5", "--answers", "2", "--temperature", "0.5"]
    assert main(["upscale", str(runs / "upscale"), *arguments]) == 0
    cells = table(drawn[0], 4)
    assert names(drawn[0]) == ["given", "1", "2", "image"]
    np.testing.assert_allclose(cells[:, 3], TEST[[3, 5], ..., 0], atol=1e-6)
    saved = load(runs / "upscale" / "checkpoint.npz")
    small = 17 * saved.flow.known(TEST[[3, 5]])[..., 0] - 0.5
    np.testing.assert_allclose(cells[:, 0], small.repeat(2, 1).repeat(2, 2), atol=1e-6)
    y = saved.flow.complete(saved.params, np.random.default_rng(0), TEST[[3, 3, 5, 5]], temperature=0.5)
    np.testing.assert_allclose(cells[:, 1:3].reshape(4, 8, 8), np.clip(y[..., 0], 0, 16), atol=1e-4)
    assert drawn[0].axes[0].get_title() == "upscale on digits, 2 answers to each question at\ntemperature 0.5"
    assert (runs / "upscale" / "upscale.png").exists()


@pytest.mark.parametrize("run", ["complete", "pixelcnn"])
def test_each_row_has_an_upper_half_and_answers_that_keep_it(run, runs, drawn):
    assert main(["complete", str(runs / run), "--n", "2", "--answers", "3"]) == 0
    cells = table(drawn[0], 5)
    chosen = TEST[np.random.default_rng(0).permutation(len(TEST))[:2], ..., 0]
    np.testing.assert_allclose(cells[:, :, :4], np.repeat(chosen[:, None, :4], 5, axis=1), atol=1e-4)
    assert (cells[:, 0, 4:] == 8).all()  # grey
    assert np.std(cells[:, 1:4, 4:], axis=1).max() > 0.1


@pytest.mark.parametrize("kind", ["gray", "colour", "transparent"])
def test_a_picture_is_ink_on_paper_and_one_of_a_large_image_is_shrunk(kind, runs, drawn, tmp_path):
    x = TEST[7, ..., 0]
    paper = np.rint(255 * (1 - x / 16)).astype(np.uint8)
    layers = {"gray": 3 * [paper], "colour": 3 * [paper], "transparent": 3 * [0 * paper] + [255 - paper]}[
        kind
    ]
    image = paper if kind == "gray" else np.stack(layers, axis=-1)
    plt.imsave(tmp_path / "large.png", image, cmap="gray", vmin=0, vmax=255)
    assert main(["upscale", str(runs / "upscale"), "--input", str(tmp_path / "large.png")]) == 0
    assert main(["complete", str(runs / "complete"), "--input", str(tmp_path / "large.png")]) == 0
    np.testing.assert_allclose(table(drawn[0], 10)[0, 9], x, atol=1e-6)
    np.testing.assert_allclose(table(drawn[1], 10)[0, 9], x, atol=1e-6)


def test_a_picture_may_be_the_small_image_itself(runs, drawn, tmp_path):
    small = np.linspace(0, 255, 16).reshape(4, 4).astype(np.uint8)
    plt.imsave(tmp_path / "small.png", small, cmap="gray", vmin=0, vmax=255)
    assert main(["upscale", str(runs / "upscale"), "--input", str(tmp_path / "small.png")]) == 0
    cells = table(drawn[0], 9)
    np.testing.assert_allclose(cells[0, 0, ::2, ::2], 16 * (1 - small / 255), atol=1e-6)
    assert names(drawn[0])[-1] == "8"  # no original


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["upscale", "{}/complete"], "expected a run of npflow train upscale, got one of complete"),
        (["complete", "{}/upscale"], "expected a run of npflow train complete or pixelcnn, got one of upscale"),
        (["upscale", "{}/upscale", "--rows", "360"], "expected each of --rows to be at most 359, got 360"),
        (["upscale", "{}/upscale", "--n", "0"], "expected --n to be at least 1, got 0"),
        (["upscale", "{}/upscale", "--answers", "21"], "expected --answers to be at most 20, got 21"),
        (["complete", "{}/complete", "--temperature", "-1"], "expected --temperature to be a finite number at least 0"),
        (["complete", "{}/complete", "--input", "{}/complete/run.json"], "expected a picture in {}/complete/run.json, got: "),
        (["complete", "{}/complete", "--input", "{}/no.png"], "expected a picture in {}/no.png, got: "),
        (["upscale", "{}/upscale", "--input", "{}/flow/samples.png"], "expected a picture of 4 x 4 or 8 x 8 pixels, height by"),
        (["complete", "{}/complete", "--input", "{}/flow/samples.png"], "expected a picture of 8 x 8 pixels, height by width"),
        (["sample", "{}/upscale"], "expected a run of a model that draws whole images, got one of upscale: use npflow upscale"),
        (["interpolate", "{}/complete"], "expected a run of a flow, got one of complete, which has no z of an image"),
        (["train", "upscale", "--conditional", "--out", "{}/new"], "expected a model that takes classes for --conditional, got"),
        (["train", "upscale", "--halvings", "4", "--out", "{}/new"], "expected height and width to be multiples of 2^4"),
    ],
)  # fmt: skip
def test_what_has_no_answer_is_refused(arguments, sentence, runs, capsys):
    assert main([argument.format(runs) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"npflow: {sentence.format(runs)}")


@pytest.mark.parametrize(("columns", "rows"), [(1, 1), (10, 1), (4, 30), (10, 500)])
def test_pictures_fit_a_page_unless_their_images_would_be_too_small(columns, rows):
    title = "a title of many words that is wider than a picture of one or of a few images, and so has several lines"
    figure = drawing.figure_of(np.zeros((columns * rows, 4, 4, 1), int), 2, columns, title)
    width, height = figure.get_size_inches()
    assert width <= 7.5
    assert height <= 10 or rows == 500
    figure.draw_without_rendering()
    box = figure.axes[0].title.get_window_extent()
    assert figure.bbox.x0 <= box.x0
    assert box.x1 <= figure.bbox.x1
    assert box.y1 <= figure.bbox.y1
