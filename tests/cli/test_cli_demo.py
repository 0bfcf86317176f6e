"""The options of every demo."""

import argparse
import runpy
import sys
from pathlib import Path

import pytest

from npflow.cli.demo import demo_options


@pytest.fixture
def arguments(tmp_path, monkeypatch):
    """Set the arguments of a script that is run in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NPFLOW_QUICK", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", "demo.py", raising=False)  # a worker has none
    return lambda *texts: monkeypatch.setattr(sys, "argv", ["demo.py", *texts])


def test_the_folder_is_made(arguments):
    arguments()
    assert demo_options("moons", "A demo.") == argparse.Namespace(out=Path("out/moons"), quick=False)
    arguments("--out", "here/there", "--quick", "--n", "3")
    options = demo_options("moons", "A demo.", {"--n": {"type": int}})
    assert options == argparse.Namespace(out=Path("here/there"), quick=True, n=3)
    assert Path("out/moons").is_dir()
    assert Path("here/there").is_dir()


@pytest.mark.parametrize(("value", "quick"), [("1", True), ("", False)])
def test_the_environment_asks_for_the_quick_form(arguments, monkeypatch, value, quick):
    arguments()
    monkeypatch.setenv("NPFLOW_QUICK", value)
    assert demo_options("moons", "A demo.").quick is quick


def test_a_notebook_reads_the_environment_and_not_the_arguments_of_its_kernel(arguments, monkeypatch):
    arguments("-f", "kernel.json")
    with pytest.raises(SystemExit):
        demo_options("moons", "A demo.")
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    monkeypatch.setenv("NPFLOW_QUICK", "1")
    assert demo_options("moons", "A demo.").quick is True


def test_a_script_run_by_another_reads_its_arguments(arguments, monkeypatch):
    monkeypatch.delattr(sys.modules["__main__"], "__file__")
    Path("demo.py").write_text(
        "from npflow.cli.demo import demo_options\nmade = demo_options('a', 'A demo.')"
    )
    arguments("--quick")
    assert runpy.run_path("demo.py", run_name="__main__")["made"].quick is True
