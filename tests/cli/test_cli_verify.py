"""npflow verify: its table, its JSON, its figures, its exit status."""

import json
import re
from dataclasses import dataclass

import numpy as np
import pytest

from npflow.cli import main
from npflow.layers import Affine
from npflow.verify import cases
from npflow.verify.cases import Case


@dataclass(frozen=True)
class WrongSign(Affine):
    def log_det(self, params, x):
        return -super().log_det(params, x)


@pytest.fixture
def wrong_layer(monkeypatch):
    monkeypatch.setitem(cases.CASES, "WrongSign", Case(WrongSign(), (3,)))


def test_a_line_for_each_layer_and_exit_with_0(capsys):
    assert main(["verify", "Reverse", "Affine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == ["Reverse", "Reverse/image", "Affine", "Affine/image"]
    assert all(line.endswith("passed") for line in lines[2:])
    assert lines[-1] == "4 of 4 passed"


def test_exit_with_1_and_the_report_of_a_layer_that_fails(wrong_layer, capsys):
    assert main(["verify", "WrongSign", "Reverse"]) == 1
    out = capsys.readouterr().out
    assert "log_det of forward has the opposite sign" in out
    assert out.splitlines()[-1] == "2 of 3 passed"


def test_an_unknown_name_exits_with_2_and_a_sentence(capsys):
    assert main(["verify", "Conv2x2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("npflow: expected names of layers among Affine")
    assert captured.out == ""


def test_a_folder_for_figures_that_cannot_be_made_exits_with_2_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["verify", "Affine", "--figures", str(tmp_path / "file")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("npflow: expected a folder for the figures, got ")
    assert captured.out == ""


def test_json_is_strict_and_has_every_check(wrong_layer, capsys):
    def refuse(constant):
        raise AssertionError(constant)

    assert main(["verify", "Affine", "WrongSign", "--json"]) == 1
    reports = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [report["subject"] for report in reports] == ["Affine", "Affine/image", "WrongSign"]
    assert [report["passed"] for report in reports] == [True, True, False]
    assert len(reports[0]["checks"]) > 15


def test_a_figure_for_each_case(tmp_path):
    assert main(["verify", "Reverse", "--figures", str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["Reverse.png", "Reverse_image.png"]
    from matplotlib.image import imread

    assert np.ptp(imread(tmp_path / "new" / "Reverse.png")) > 0.5


OWN = """
from dataclasses import dataclass
from npflow import Flow, priors
from npflow.layers import Affine, Squeeze

@dataclass(frozen=True)
class Wrong(Affine):
    def log_det(self, params, x):
        return -super().log_det(params, x)

flow = Flow(Affine(), priors.Normal(2))
made = lambda: Squeeze()
needy = lambda number: Affine()
number = 3
"""


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(OWN)
    return path


@pytest.mark.parametrize(("name", "code"), [("flow", 0), ("made", 0), ("Wrong", 1)])
def test_a_layer_of_the_readers_is_checked(name, code, own, capsys):
    assert main(["verify", f"{own}:{name}"]) == code
    out = capsys.readouterr().out
    assert f"{own}:{name}" in out
    assert ("opposite sign" in out) == (name == "Wrong")


def test_a_shape_may_be_given(own, capsys):
    assert main(["verify", f"{own}:made", "--shape", "3", "3", "1", "--json"]) == 1
    assert "even height and width" in json.loads(capsys.readouterr().out)[0]["cause"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine.py:nothing", "expected a name in .* among .*Wrong.*; got 'nothing'"),
        ("mine.py:number", "an object with init, forward and inverse, got 3"),
        ("mine.py:needy", "to make a layer without arguments, got TypeError"),
        ("none.py:Layer", "expected a Python file"),
        ("broken.py:Layer", "to run, got ZeroDivisionError"),
    ],
)
def test_what_is_no_layer_exits_with_2_and_a_sentence(name, words, own, capsys):
    (own.parent / "broken.py").write_text("1 / 0")
    assert main(["verify", str(own.parent / name)]) == 2
    assert re.search(words, capsys.readouterr().err)
