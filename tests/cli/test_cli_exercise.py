"""npflow exercise: the list, the page, the mark, and the exit status."""

import re

import pytest

from npflow import exercises
from npflow.cli import main

ANSWER = """
import numpy as np

def log_volume(A):
    return np.log({})
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_line_for_each_exercise(capsys):
    assert main(["exercise"]) == 0
    *lines, _, how = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(exercises.EXERCISES)
    assert all(len(line) < 110 for line in lines)
    assert how.startswith("npflow exercise NAME writes NAME.py")


def test_a_page_is_written_and_not_over_another_file(folder, capsys):
    assert main(["exercise", "coupling"]) == 0
    page = (folder / "coupling.py").read_text("utf-8")
    assert page == exercises.page("coupling")
    assert capsys.readouterr().out.splitlines()[-1] == "  npflow exercise coupling coupling.py"

    (folder / "coupling.py").write_text("mine")
    assert main(["exercise", "coupling"]) == 2
    assert (folder / "coupling.py").read_text() == "mine"
    assert "expected no file coupling.py yet, got one" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("determinant", "status", "words"),
    [
        (
            "np.abs(np.linalg.det(A))",
            0,
            "volume: right. The library's own: log_abs_det in npflow/verify/jacobians.py.",
        ),
        ("np.linalg.det(A)", 1, r"volume: not yet. log_volume gives .*\.\nHint: Half of all"),
        ("...", 1, r"volume: not yet. log_volume still has \.\.\. in line 5"),
        ("A.T[..., 0]", 1, "volume: not yet. expected an array"),
        ("B", 1, r"volume: not yet. expected code that runs, got NameError: .*, at my\.py:5 \(return"),
    ],
)
def test_an_answer_is_marked(determinant, status, words, folder, capsys):
    (folder / "my.py").write_text(ANSWER.format(determinant))
    assert main(["exercise", "volume", "my.py"]) == status
    assert re.match(words, capsys.readouterr().out)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def log_volume(A:", r"expected my.py to run, got SyntaxError: .*\(my.py, line 1\)"),
        ("\nx = nothing", "expected my.py to run, got NameError: .*, at line 2"),
        ("def volume(A): pass", "expected my.py to define log_volume, as the page of volume does, got none"),
    ],
)
def test_a_file_without_an_answer_exits_with_2_and_a_sentence(text, words, folder, capsys):
    (folder / "my.py").write_text(text)
    assert main(["exercise", "volume", "my.py"]) == 2
    assert re.search(words, capsys.readouterr().err)


def test_an_unknown_name_and_a_missing_file_exit_with_2(capsys):
    assert main(["exercise", "nothing"]) == 2
    assert main(["exercise", "volume", "none.py"]) == 2
    assert capsys.readouterr().err.count("expected") == 2


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("answer.txt", "", "expected a Python file, whose name ends in .py, got 'answer.txt'"),
        ("answer.py", "import sys\n\nsys.exit(3)", "expected answer.py to run, got SystemExit: 3, at line 3"),
        ("answer.py", "def (", "expected answer.py to run, got SyntaxError"),
    ],
)
def test_a_file_that_is_no_answer_is_refused(name, text, sentence, folder, capsys):
    (folder / name).write_text(text)
    assert main(["exercise", "volume", name]) == 2
    assert sentence in capsys.readouterr().err
