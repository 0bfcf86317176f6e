"""The lab runs with NPFLOW_QUICK, as one set of cells in two languages; the glossary names what is there."""

import inspect
import re
from pathlib import Path

import numpy as np
import pytest

DOCS = Path(__file__).parent.parent / "docs"


def cells(page):
    """The cells of code of a page that the site executes, without their options."""
    return re.findall(r"```\{code-cell\}\n((?:.|\n)*?)```", (DOCS / page).read_text())


def shown(page):
    """What a page says beside its cells: tables, headings, formulas, other code, by kind."""
    text = re.sub(r"```\{code-cell\}(.|\n)*?```", "", (DOCS / page).read_text())
    return {
        "headings": [len(hashes) for hashes in re.findall(r"^(#+) ", text, flags=re.MULTILINE)],
        "rows": len(re.findall(r"^\|", text, flags=re.MULTILINE)),
        "formulas": re.findall(r"\$\$.*?\$\$", text, flags=re.DOTALL),
        "commands": re.findall(r"```sh\n.*?```", text, flags=re.DOTALL),
        "names": sorted(set(re.findall(r"`[^`\n]+`", text))),
    }


def test_the_page_in_chinese_has_the_same_cells_formulas_and_commands():
    assert cells("lab_zh.md") == cells("lab.md")  # so the site runs them once, for both
    assert shown("lab_zh.md") == shown("lab.md")


@pytest.mark.usefixtures("uncovered")
def test_the_lab_runs_and_draws_what_it_is_asked_for(tmp_path, monkeypatch, capsys):
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NPFLOW_QUICK", "1")
    scope = {"__name__": "lab"}
    pyplot.close("all")
    for cell in cells("lab.md"):
        lines = [line for line in cell.splitlines() if not line.startswith((":tags:", "%"))]
        exec(compile("\n".join(lines), "lab.md", "exec"), scope)
    figures = [pyplot.figure(number) for number in pyplot.get_fignums()]
    titles = [ax.get_title() for figure in figures for ax in figure.axes]
    pyplot.close("all")
    assert len(figures) == 8
    for title in ("loss", "after step 10", "Squeeze, 4 x 4 pixels", "samples, T = 0.7"):
        assert title in titles
    printed = capsys.readouterr().out
    assert "ExpAffine: passed" in printed
    assert "log_det of inverse has the opposite sign" in printed
    assert "as Chain does it: True\ncheck: True" in printed
    learned, exact = (
        np.array(re.search(rf"{name} +s = (\S+)  t = (\S+)", printed).groups(), float)
        for name in ("learned", "closed form")
    )
    np.testing.assert_allclose(learned, exact, atol=1e-4)
    errors = re.findall(r"passed True, log\|det J\| \S+, off by (\S+)", printed)
    assert len(errors) == 2
    assert max(map(float, errors)) < 1e-9
    assert not list(tmp_path.iterdir())


def test_the_names_of_the_glossary_are_those_of_the_library():
    import npflow

    text = (DOCS / "glossary.md").read_text()
    names = set(re.findall(r"`(\w+(?:\.\w+)*)`", "\n".join(line.split("|")[3] for line in table(text))))
    modules = (
        "layers",
        "models",
        "networks",
        "priors",
        "training",
        "verify",
        "autodiff",
        "datasets",
        "latent",
    )
    places = [npflow, npflow.Flow, npflow.layers.Layer, *(getattr(npflow, name) for name in modules)]
    words = {"x", "z", "temperature", "context", *inspect.signature(npflow.fit).parameters}
    missing = sorted(name for name in names - words if not any(has(place, name) for place in places))
    assert missing == []


def table(text):
    """The rows of the tables of the glossary, four columns each."""
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    assert len(rows) > 40
    assert {line.count("|") for line in rows} == {5}
    return [line for line in rows if "| 中文" not in line]


def has(place, name):
    """Whether a dotted name can be reached."""
    for part in name.split("."):
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


def test_every_word_of_the_glossary_has_both_languages():
    words = [
        [cell.strip() for cell in line.split("|")[1:-1]] for line in table((DOCS / "glossary.md").read_text())
    ]
    for english, chinese, *_ in words:
        assert re.search(r"[a-z]", english), english
        assert re.search(r"[\u4e00-\u9fff]", chinese), english
    firsts = [english.lower() for english, *_ in words]
    assert len(set(firsts)) == len(firsts)
