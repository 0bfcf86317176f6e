"""The npflow command: usage, help, exit status."""

import subprocess
import sys

import pytest

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
    ["sample", "score", "interpolate", "edit", "verify", "train", *(f"train {model}" for model in MODELS)],
)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as raised:
        main([*command.split(), "--help"])
    assert raised.value.code == 0
    assert f"example:\n  npflow {command} " in capsys.readouterr().out
