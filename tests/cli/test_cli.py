"""The npflow command: usage, help, exit status."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import Failing

from npflow.cli import main
from npflow.cli.catalogue import MODELS


def test_python_m_npflow_is_the_command():
    result = subprocess.run(
        [sys.executable, "-m", "npflow", "verify", "Reverse"], capture_output=True, text=True, check=True
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


@pytest.mark.parametrize(
    "command",
    [
        "sample",
        "score",
        "interpolate",
        "edit",
        "translate",
        "verify",
        "exercise",
        "train",
        *(f"train {model}" for model in MODELS),
    ],
)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as raised:
        main([*command.split(), "--help"])
    assert raised.value.code == 0
    assert f"example:\n  npflow {command} " in capsys.readouterr().out


# ---------------------------------------------------------------- what it prints


def test_where_the_reader_has_gone_it_ends_as_other_tools_do():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "npflow", "--version"]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=buffered, check=False)
    os.close(writer)
    assert (result.returncode, result.stderr) == (141, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [["train"], ["score", "nowhere"]])
def test_a_full_stderr_does_not_change_the_exit_status(arguments):
    command = [sys.executable, "-m", "npflow", *arguments]
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path("/dev/full").open("w") as full:
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=full, env=buffered, check=False)
    assert (result.returncode, result.stdout) == (2, b"")


def test_an_output_that_is_full_gets_a_sentence(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdout", Failing(errno.ENOSPC))
    assert main(["verify", "Reverse"]) == 1
    assert sys.stdout is None
    assert capsys.readouterr().err.startswith("npflow: expected to print on standard output, got: [Errno 28]")


def test_a_terminal_of_another_encoding_gets_what_it_can_show(runs, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "ascii"))
    assert main(["score", str(runs / "flow")]) == 0
    assert b" \\xb1 0." in sys.stdout.buffer.getvalue()


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_a_stream_that_was_closed_before_python_began_is_done_without(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, name, None)
    assert main(["verify", "Reverse"]) == 0
    assert main(["score", "nowhere"]) == 2
    captured = capsys.readouterr()
    assert (captured.out == "") == (name == "stdout")
    assert (captured.err == "") == (name == "stderr")
