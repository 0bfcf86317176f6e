"""Two ranks of MPI: the bits of one process, and an end for all where one fails. Skipped without mpi4py."""

import json
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import on_ranks
import pytest
from helpers import refusal

from npflow import InputError, fit, load
from npflow.training import together
from npflow.training.together import check_communicator, end_all

MPIEXEC = shutil.which("mpiexec", path=Path(sys.executable).parent) or shutil.which("mpiexec")


@pytest.fixture(scope="module")
def mpiexec():
    """Run a command on two ranks."""
    pytest.importorskip("mpi4py", reason="mpi4py is not installed: pip install 'npflow[mpi]'")
    if MPIEXEC is None:
        pytest.skip("there is no mpiexec: pip install mpich")

    def run(*command):
        return subprocess.run(
            [MPIEXEC, "-n", "2", sys.executable, *command], capture_output=True, text=True, timeout=100
        )

    return run


@pytest.fixture(scope="module")
def found(mpiexec, tmp_path_factory):
    """What the cases print that come back."""
    folder = tmp_path_factory.mktemp("ranks")
    result = mpiexec("-m", "mpi4py", on_ranks.__file__, "several", folder)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout) | {"folder": folder}


@pytest.mark.usefixtures("uncovered")
def test_two_ranks_give_the_bits_of_one_process_with_two_threads(found):
    for name, make in on_ranks.MODELS.items():
        params, history = on_ranks.trained(*make(), threads=2)
        expected = [on_ranks.bits(params), history.loss, history.validation_loss]
        assert found["same_bits"][name] == expected


def test_ranks_that_differ_are_refused_before_the_first_step(found):
    assert set(found["differing"]) == {"data", "flow", "steps", "order of the rows", "slices", "libraries"}
    for name, sentence in found["differing"].items():
        assert sentence.startswith(f"expected rank 1 to have the {name} of rank 0, got another (")
    assert "hidden/0: 16 there, 8 here" in found["differing"]["flow"]
    assert "'0.0.1' here" in found["differing"]["libraries"]


def test_an_error_of_all_ranks_is_raised_on_all(found):
    sentence, steps = found["common_errors"]
    assert sentence.startswith("expected a finite loss, got ")
    assert steps == [0, 0]


def test_ctrl_c_on_one_rank_ends_the_run_on_all_and_rank_0_alone_saves(found):
    assert found["interrupted"] == [[3, True, [2, 3]], [3, True, []]]
    assert load(found["folder"] / "interrupted.npz").run["step"] == 3


def test_an_error_of_one_rank_ends_all_with_its_sentence(mpiexec, tmp_path):
    result = mpiexec("-m", "mpi4py", on_ranks.__file__, "alone", tmp_path)
    assert result.returncode == 1
    (sentence,) = (line for line in result.stderr.splitlines() if line.startswith("npflow:"))
    assert (
        sentence
        == "npflow: rank 1 of 2 ends the run on all: expected x to be finite, got nan in row 7, at index (0,)"
    )
    assert "Traceback" not in result.stderr


@pytest.mark.usefixtures("uncovered")
def test_a_run_whose_rank_was_killed_is_resumed_on_one_process_to_the_same_bits(mpiexec, tmp_path):
    assert mpiexec("-m", "mpi4py", on_ranks.__file__, "killed", tmp_path).returncode != 0
    path = tmp_path / "killed.npz"
    assert load(path).run["step"] == 4
    model, x = on_ranks.maf_on_a_table()
    resumed, history = on_ranks.trained(model, x, checkpoint=path)
    alone, _ = on_ranks.trained(model, x)
    assert history.steps == 6
    assert on_ranks.bits(resumed) == on_ranks.bits(alone)


def test_the_command_trains_on_ranks_and_rank_0_alone_speaks(mpiexec, tmp_path):
    sizes = ["--levels", "1", "--steps-per-level", "1", "--channels", "4", "--slices", "2", "--steps", "3"]
    command = ["-m", "npflow", "train", "glow", *sizes, "--out", str(tmp_path / "run")]
    result = mpiexec(*command)
    assert result.returncode == 0, result.stderr
    first, _, last, _ = result.stdout.splitlines()  # each once
    assert first.startswith("glow on digits: ")
    assert last.startswith("3 steps in ")
    assert load(tmp_path / "run" / "checkpoint.npz").run["step"] == 3


# ---------------------------------------------------------------- the page of the guide


def test_the_call_that_the_guide_shows_runs_on_ranks(found):
    assert found["shown"].startswith("History(2 steps, the last loss ")
    assert load(found["folder"] / "moons.npz").run["step"] == 2


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What the page's script of many fits prints; its part for Dask runs where there is Dask."""
    functions, loky, dask = on_ranks.blocks()[1:]
    script = tmp_path_factory.mktemp("search") / "search.py"
    script.write_text(functions + loky + (dask if find_spec("distributed") else ""))
    result = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=100)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_many_fits_run_on_the_cores_by_joblib(searched):
    assert re.fullmatch(r"\([0-3], \d\.\d+\)", searched[0])


def test_the_same_code_gives_the_same_bits_on_a_dask_cluster(searched):
    if not find_spec("distributed"):
        pytest.skip("Dask is not installed: pip install 'npflow[dask]'")
    assert searched[1:] == ["the same: True"]


# ---------------------------------------------------------------- without MPI


def test_a_communicator_is_one_of_mpi4py():
    for value in (object(), 3, "MPI.COMM_WORLD"):
        assert "expected communicator to be one of mpi4py, such as MPI.COMM_WORLD, got " in refusal(
            check_communicator, value, "communicator"
        )
        assert "one of mpi4py" in refusal(
            fit, None, None, None, rng=np.random.default_rng(0), communicator=value
        )


class Communicator:
    """A rank whose end is only written down."""

    rank, size, status = 1, 3, None

    def Abort(self, status):
        self.status = status


@pytest.mark.parametrize(
    ("error", "sentence", "status"),
    [
        (KeyboardInterrupt(), "interrupted", 130),
        (MemoryError(), "MemoryError", 1),
        (InputError("expected this, got that"), "expected this, got that", 1),
    ],
)
def test_what_a_rank_says_before_it_ends_all(error, sentence, status, monkeypatch, capsys):
    communicator = Communicator()
    monkeypatch.setattr(together.sys, "__stderr__", sys.stderr)
    end_all(communicator, error)
    assert capsys.readouterr().err == f"npflow: rank 1 of 3 ends the run on all: {sentence}\n"
    assert communicator.status == status


def test_a_mistake_in_a_program_shows_its_line_too(monkeypatch, capsys):
    monkeypatch.setattr(together.sys, "__stderr__", sys.stderr)
    try:
        {}["key"]
    except KeyError as error:
        end_all(Communicator(), error)
    shown = capsys.readouterr().err
    assert '{}["key"]' in shown
    assert shown.endswith("ends the run on all: KeyError: 'key'\n")


def test_versions_are_those_of_the_libraries():
    assert together.versions()["numpy"] == np.__version__
