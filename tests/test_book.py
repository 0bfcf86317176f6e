"""Every chapter of the book has its parts, and its code runs with NPFLOW_QUICK; how well it learns is not tested."""

import contextlib
import io
import re
import runpy
from pathlib import Path

import numpy as np
import pytest

CHAPTERS = sorted((Path(__file__).parent.parent / "demos" / "book").glob("*.py"))
NAMES = [chapter.stem for chapter in CHAPTERS]

PARTS = {
    "a title with the chapter's number": r"\A# %% \[markdown\]\n# # \d+\. ",
    "a question in bold": r"\*\*[^*]+\?\*\*",
    "a derivation": r"# \$\$",
    "a picture": r"plt\.subplots\(|plots\.",
    "the layer's own source": r"inspect\.getsource\(",
    "its Jacobian": r"plots\.jacobian\(",
    "what can go wrong": r"# ## .*[Ww]hat can go wrong",
    "what check says": r"check(_functions)?\(",
    "exercises": r"# ## Exercises\n#\n# 1\. ",
}


def test_chapters_are_numbered_in_reading_order():
    assert NAMES
    for chapter in CHAPTERS:
        title = re.search(PARTS["a title with the chapter's number"], chapter.read_text())
        assert int(title[0].split()[-1].rstrip(".")) == int(chapter.stem.split("_")[0])


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("chapter", CHAPTERS, ids=NAMES)
def test_a_chapter_has_its_parts(chapter, part):
    assert re.search(PARTS[part], chapter.read_text()), f"expected {part} in {chapter.name}"


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("chapter", CHAPTERS, ids=NAMES)
def test_a_chapter_runs_draws_and_names_a_mistake(chapter, tmp_path, monkeypatch):
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPFLOW_QUICK", "1")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        runpy.run_path(str(chapter), run_name="__main__")
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    try:
        assert len(figures) >= 2
        for figure in figures:
            figure.set_layout_engine("none")  # layout and pixels take most of the time, and nobody looks
            figure.set_dpi(30)
            figure.canvas.draw()
            assert np.ptp(np.asarray(figure.canvas.buffer_rgba())[..., :3]) > 128
    finally:
        pyplot.close("all")
    assert re.search(
        r"log_det of|inverse\(forward\(x\)\)|passed: False|expected functions of", printed.getvalue()
    )
    # Where a chapter prints a log-determinant beside its numerical one, the two agree.
    pairs = re.findall(r"by differences ([+-][\d.]+), by the formula ([+-][\d.]+)", printed.getvalue())
    for numerical, formula in pairs:
        assert float(numerical) == pytest.approx(float(formula), abs=1e-8)
    assert not list(tmp_path.iterdir())
