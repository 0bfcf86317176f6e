"""The npflow command."""

import json
import subprocess
import sys
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


def test_verify_prints_a_line_for_each_layer_and_exits_with_0(capsys):
    assert main(["verify", "Reverse", "Affine"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[2:-1]] == ["Reverse", "Reverse/image", "Affine", "Affine/image"]
    assert all(line.endswith("passed") for line in lines[2:])
    assert lines[-1] == "4 of 4 passed"


def test_verify_exits_with_1_and_shows_the_report_where_a_layer_fails(wrong_layer, capsys):
    assert main(["verify", "WrongSign", "Reverse"]) == 1
    out = capsys.readouterr().out
    assert "log_det of forward has the opposite sign" in out
    assert out.splitlines()[-1] == "2 of 3 passed"


def test_an_unknown_name_exits_with_2_and_a_sentence(capsys):
    assert main(["verify", "Conv2x2"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("npflow: expected names of layers among Affine")
    assert captured.out == ""


def test_figures_that_have_nowhere_to_go_exit_with_2_before_any_work(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["verify", "Affine", "--figures", str(tmp_path / "file")]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("npflow: expected a folder for the figures, got ")
    assert captured.out == ""


def test_json_is_strict_and_holds_every_check(wrong_layer, capsys):
    def refuse(constant):
        raise AssertionError(constant)

    assert main(["verify", "Affine", "WrongSign", "--json"]) == 1
    reports = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert [report["subject"] for report in reports] == ["Affine", "Affine/image", "WrongSign"]
    assert [report["passed"] for report in reports] == [True, True, False]
    assert len(reports[0]["checks"]) > 15


def test_figures_are_drawn_one_for_each_case(tmp_path, capsys):
    assert main(["verify", "Conv1x1", "--figures", str(tmp_path / "new")]) == 0
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["Conv1x1.png", "Conv1x1_image.png"]
    from matplotlib.image import imread

    picture = imread(tmp_path / "new" / "Conv1x1.png")
    assert np.ptp(picture) > 0.5


def test_python_m_npflow_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "npflow", "verify", "Affine"], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "2 of 2 passed"


@pytest.mark.parametrize(
    ("arguments", "status"), [(["--version"], 0), ([], 2), (["train"], 2), (["--help"], 0)]
)
def test_help_version_and_usage(arguments, status, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == status
    captured = capsys.readouterr()
    assert captured.out or captured.err
