"""npflow train: what it prints and writes, how a run resumes, and what goes wrong."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from helpers import Failing, vector

from npflow import datasets, load
from npflow.autodiff.gpu.device import Device
from npflow.autodiff.program import slices
from npflow.cli import main, progress
from npflow.cli.catalogue import MODELS
from npflow.cli.job import duration
from npflow.layers import masked_convolution
from npflow.training import saver
from npflow.training.run import Run

# Each model, made small.
SMALL = {
    "complete": ["--levels", "1", "--steps-per-level", "1", "--channels", "4"],
    "glow": ["--levels", "1", "--steps-per-level", "1", "--channels", "4"],
    "mintnet": ["--levels", "1", "--steps-per-level", "1", "--filters", "2"],
    "nice": ["--couplings", "2", "--channels", "4", "--blocks", "1"],
    "pixelcnn": ["--features", "4", "--blocks", "1"],
    "real_nvp": ["--levels", "1", "--channels", "4", "--blocks", "1"],
    "residual_flow": ["--levels", "1", "--steps-per-level", "1", "--channels", "4"],
    "upscale": ["--steps-per-halving", "1", "--channels", "4"],
}
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")


def train(folder, *more, model="nice", steps=6):
    """The arguments of a small run; with 20 steps of nice it is that of the fixture `runs`."""
    return ["train", model, "--out", str(folder), *SMALL[model], "--steps", str(steps), *more]


def resume(folder, *more, model="nice"):
    return ["train", model, "--out", str(folder), "--resume", *more]


def assert_same_bits(folder, other):
    """Assert that two runs have the same parameters and the same state to continue from, the clock aside."""
    a, b = (load(path / "checkpoint.npz") for path in (folder, other))
    assert np.array_equal(vector(a.params), vector(b.params))
    assert a.run == b.run
    assert a.arrays.keys() == b.arrays.keys()
    assert all(
        np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays.keys() - {"history:seconds"}
    )


@pytest.fixture(autouse=True)
def quick_pictures(monkeypatch):
    """Pictures that take no time to draw; those of the fixture `runs` are real."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(b"picture"))


@pytest.fixture
def every_step(monkeypatch):
    """A clock by which a checkpoint is due after each step."""
    seconds = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(saver.time, "monotonic", lambda: float(next(seconds)))


@pytest.fixture
def full_disk(monkeypatch):
    """The names of files for which the disk is full."""
    full, fsync = set(), os.fsync

    def flush(number):
        if any(name in str(Path(f"/proc/self/fd/{number}").readlink()) for name in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", flush)
    return full


# ---------------------------------------------------------------- what it prints and writes


def test_every_model_of_the_command_is_made_small_here():
    assert set(MODELS) == set(SMALL)


@pytest.mark.parametrize("model", SMALL)
def test_a_run_prints_size_and_score_of_the_model_and_leaves_a_whole_folder(model, tmp_path, capsys):
    conditional = ["--conditional"] * (model not in ("complete", "mintnet", "residual_flow", "upscale"))
    assert main(train(tmp_path / "run", *conditional, model=model)) == 0
    saved = load(tmp_path / "run" / "checkpoint.npz")
    size = vector(saved.params).size
    first, second, *_, last, names = capsys.readouterr().out.splitlines()
    assert first == (
        f"{model} on digits: 1,437 images of 8 x 8 x 1, 17 levels; 360 held out; {size:,} parameters"
    )
    assert second.startswith("a step takes ")
    assert " MB: 6 steps in about " in second
    files = {"samples.png", "history.png", "summary.json", "checkpoint.npz", "run.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} - {".lock"} == files
    assert names == f"{tmp_path / 'run'}: samples.png, history.png, summary.json, checkpoint.npz, run.json"

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    data = datasets.image_data("digits")
    context = np.eye(10, dtype=np.float32)[data.test_labels] if conditional else None
    noise = {"rng": np.random.default_rng(0)} if saved.flow.noisy else {}
    bits = saved.flow.bits_per_dim(saved.params, data.test, context, **noise)
    assert summary["bits_per_dim"] == pytest.approx(bits.mean(), rel=1e-6)
    assert summary["standard_error"] == pytest.approx(bits.std(ddof=1) / np.sqrt(360), rel=1e-5)
    assert (summary["parameters"], summary["steps"], summary["of"]) == (size, 6, 6)
    assert f"{bits.mean():.3f} ± {summary['standard_error']:.3f} bits/dim on 360 held-out images" in last


def test_the_pictures_of_a_run_are_samples_and_its_history(runs):
    from matplotlib.image import imread

    for name in ("samples.png", "history.png"):
        assert np.ptp(imread(runs / "flow" / name)) > 0.5


def test_a_run_of_some_minutes_fixes_its_steps_before_the_first(tmp_path):
    arguments = ["train", "nice", "--out", str(tmp_path), *SMALL["nice"], "--minutes", "0.002"]
    assert main(arguments) == 0
    settings = json.loads((tmp_path / "run.json").read_text())
    assert settings["minutes"] == 0.002
    assert load(tmp_path / "checkpoint.npz").run["step"] == settings["steps"] >= 1
    assert main(resume(tmp_path, "--minutes", "0.002")) == 0


def test_the_scores_of_a_run_are_kept_and_a_better_one_before_is_printed(
    tmp_path, every_step, monkeypatch, capsys
):
    spread = np.arange(8)
    scores = [3.0 + 0.1 * spread, 2.0 + 0.01 * spread, 3.0 + spread]
    with monkeypatch.context() as patch:
        patch.setattr(progress, "bits_per_dim", lambda *_: scores.pop(0))
        assert main(train(tmp_path, steps=3)) == 0
    out = capsys.readouterr().out
    assert "step 1: 3.350 ± 0.087 bits/dim on held-out images" in out
    assert "it was 2.035 at step 2: fewer steps generalize better" in out

    summary = tmp_path / "summary.json"
    assert main(resume(tmp_path)) == 0
    assert [entry["step"] for entry in json.loads(summary.read_text())["held_out"]] == [1, 2, 3]

    summary.write_text("{")  # costs no more than the scores before
    assert main(resume(tmp_path)) == 0
    assert "npflow: expected the scores so far in" in capsys.readouterr().err
    assert [entry["step"] for entry in json.loads(summary.read_text())["held_out"]] == [3]


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 seconds"),
        (119, "119 seconds"),
        (150, "2.5 minutes"),
        (7200, "2.0 hours"),
        (1e6, "277.8 hours"),
    ],
)
def test_a_duration_is_in_seconds_minutes_or_hours(seconds, words):
    assert duration(seconds) == words


def test_a_part_of_cifar_10_is_trained_on_and_its_last_tenth_held_out(tmp_path, rng, capsys):
    records = rng.integers(256, size=(20, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    records = records[:5]  # fewer images than a batch has by default
    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(records.tobytes())
    place = ["--path", str(tmp_path)]
    more = ["--data", "cifar10", "--part", *place]
    assert main(train(tmp_path / "run", *more, steps=1)) == 0
    assert main(resume(tmp_path / "run")) == 0  # it knows where the data is
    assert main(["score", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "nice on cifar10: 22 images of 32 x 32 x 3, 256 levels; 3 held out" in out
    score = "bits/dim on all 3 held-out images"
    assert score in out

    # A run on the whole data is scored on a part if that is asked for.
    settings = tmp_path / "run" / "run.json"
    settings.write_text(settings.read_text().replace('"part": true', '"part": false'))
    assert main(["score", str(tmp_path / "run"), *place]) == 2
    assert main(["score", str(tmp_path / "run"), "--part", *place]) == 0
    assert score in capsys.readouterr().out


# ---------------------------------------------------------------- resuming


def test_a_run_killed_at_a_random_moment_ends_with_the_bits_of_one_left_alone(runs, tmp_path):
    command = [*train(tmp_path, steps=20), "--checkpoint-minutes", "1e-6"]
    process = subprocess.Popen(
        [sys.executable, "-m", "npflow", *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert any(line.startswith("step ") for line in process.stdout)  # read until after a checkpoint
    time.sleep(random.Random(0).uniform(0.0, 0.6))
    process.kill()
    process.communicate()
    assert 0 < load(tmp_path / "checkpoint.npz").run["step"] < 20
    assert main(resume(tmp_path)) == 0
    assert_same_bits(runs / "flow", tmp_path)
    assert not list(tmp_path.glob("*.partial"))


SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


@pytest.mark.usefixtures("usual_signals")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_keeps_what_has_been_learned_and_resume_continues(
    number, runs, tmp_path, monkeypatch, capsys
):
    update = Run.update

    def interrupted(self, *arguments):
        if self.step == 3 and len(self.order) == 1437:  # not in the rehearsal
            signal.raise_signal(number)
        return update(self, *arguments)

    before = [signal.getsignal(each) for each in SIGNALS]
    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", interrupted)
        assert main(train(tmp_path, steps=20)) == 130
    assert [signal.getsignal(each) for each in SIGNALS] == before
    command = f"npflow train nice --out {tmp_path} --resume"
    assert f"interrupted after step 4 of 20; to continue: {command}" in capsys.readouterr().out
    assert main(resume(tmp_path)) == 0
    assert_same_bits(runs / "flow", tmp_path)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_is_ignored_stays_ignored(number, tmp_path, monkeypatch):
    """As SIGINT is in a background job, and SIGHUP under nohup."""
    update = Run.update
    monkeypatch.setattr(Run, "update", lambda *arguments: signal.raise_signal(number) or update(*arguments))
    before = signal.signal(number, signal.SIG_IGN)
    try:
        assert main(train(tmp_path, steps=2)) == 0
        assert signal.getsignal(number) == signal.SIG_IGN
    finally:
        signal.signal(number, before)


def test_ctrl_c_in_the_rehearsal_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Run, "update", lambda *_: signal.raise_signal(signal.SIGINT) or 0.0)
    assert main(train(tmp_path)) == 130
    assert capsys.readouterr().err.endswith("npflow: interrupted\n")
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_a_finished_run_resumes_without_a_rehearsal_and_stays_as_it_is(runs, tmp_path, capsys):
    run = shutil.copytree(runs / "flow", tmp_path / "run")
    assert main(resume(run, "--seed", "0")) == 0
    printed = capsys.readouterr().out
    assert "resumed at step 20 of 20" in printed
    assert "a step takes" not in printed
    assert_same_bits(runs / "flow", run)


def test_reversible_training_is_kept_by_a_resumed_run_and_refused_without_layers(tmp_path, capsys):
    assert main(train(tmp_path / "run", "--reversible", model="glow", steps=2)) == 0
    assert json.loads((tmp_path / "run" / "run.json").read_text())["reversible"] is True
    assert load(tmp_path / "run" / "checkpoint.npz").run["settings"]["reversible"] is True
    assert main(resume(tmp_path / "run", model="glow")) == 0
    assert main(train(tmp_path / "other", "--reversible", model="pixelcnn", steps=2)) == 2
    expected = "npflow: expected a model of invertible layers for reversible training, got a PixelCNN"
    assert capsys.readouterr().err.startswith(expected)


def test_a_new_run_does_not_replace_a_checkpoint(runs, capsys):
    before = (runs / "flow" / "checkpoint.npz").read_bytes()
    assert main(train(runs / "flow")) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"npflow: expected a folder without a checkpoint, got {runs / 'flow'}")
    assert captured.out == ""
    assert (runs / "flow" / "checkpoint.npz").read_bytes() == before


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["nice", "--resume"], "a checkpoint to resume in {}, got none"),
        (["nice", "--steps", "0"], "--steps to be at least 1, got 0"),
        (["nice", "--minutes", "0"], "--minutes to be a finite number above 0 below 1000000, got 0.0"),
        (["nice", "--seed", "-1"], "--seed to be at least 0, got -1"),
        (["nice", "--batch-size", "9999"], "--batch-size to be at most 1437, got 9999"),
        (["nice", "--channels", "0"], "--channels to be at least 1, got 0"),
        (["nice", "--rate", "0"], "--rate to be a finite number above 0 below 1000000, got 0.0"),
        (["nice", "--checkpoint-minutes", "0"], "--checkpoint-minutes to be a finite number at least 1e-06"),
        (["nice", "--checkpoint-minutes", "1e13"], "--checkpoint-minutes to be a finite number at least 1e-06 below 1000000000"),
        (["nice", "--minutes", "1e308"], "--minutes to be a finite number above 0 below 1000000, got 1e+308"),
        (["nice", "--minutes", "nan"], "--minutes to be a finite number"),
        (["nice", "--steps", "1000000000000"], "--steps to be at most 1000000000, got 1000000000000"),
        (["nice", "--rate", "1e308"], "--rate to be a finite number above 0 below 1000000, got 1e+308"),
        (["nice", "--checkpoint-minutes", "5e-324"], "--checkpoint-minutes to be a finite number at least 1e-06"),
        (["nice", "--seed", str(10**30)], "--seed to be at most "),
        (["nice", "--blocks", "10000000000"], "ResNet's blocks to be at most 1000"),
        (["pixelcnn", "--blocks", "10000000000"], "MaskedConvNet's blocks to be at most 1000"),
        (["nice", "--channels", "1000000000000"], "sizes for which there is enough memory, got --couplings 6, --channels"),
        (["glow", "--levels", "10000000000"], "height and width to be multiples of 2^10000000000, "),
        (["nice", "--path", "x"], "--path with cifar10 only, got it with digits"),
        (["nice", "--data", "patches", "--conditional"], "data with labels for a conditional model"),
        (["nice", "--data", "cifar10", "--path", "/nowhere"], "CIFAR-10 at /nowhere, got nothing there: download"),
        (["mintnet", "--conditional"], "a model that takes classes for --conditional, got mintnet, which takes none"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_used_are_refused_before_anything_is_written(
    arguments, sentence, tmp_path, capsys
):
    assert main(["train", *arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"npflow: expected {sentence.format(tmp_path)}")
    assert not list(tmp_path.iterdir())


def test_a_model_has_only_its_own_sizes(tmp_path):
    with pytest.raises(SystemExit) as raised:
        main(["train", "nice", "--out", str(tmp_path), "--steps-per-level", "2"])
    assert raised.value.code == 2


def test_a_run_that_does_not_fit_into_memory_is_refused_before_its_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slices, "LARGE", 1)
    monkeypatch.setattr(Device, "free_bytes", lambda self: 10**6)
    assert main(train(tmp_path)) == 1
    assert "GB of free memory on" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} <= {".lock"}


def test_training_goes_on_where_the_reader_of_its_output_has_gone(tmp_path, every_step, monkeypatch, capsys):
    """A pipe that is broken is no disk that is full: the pictures are written."""
    monkeypatch.setattr(sys, "stdout", Failing(errno.EPIPE))
    assert main(train(tmp_path, steps=2)) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(
        "npflow: expected to print on standard output, got: [Errno 32] Broken pipe; the run goes on"
    )
    assert (tmp_path / "samples.png").exists()
    assert load(tmp_path / "checkpoint.npz").run["step"] == 2


def test_a_loss_that_is_not_finite_ends_the_run_with_1(tmp_path, capsys):
    assert main(train(tmp_path, "--rate", "1e5", steps=40)) == 1
    error = capsys.readouterr().err
    assert "npflow: expected a finite" in error
    assert "try a lower --rate" in error


def test_samples_that_cannot_be_drawn_are_a_warning_and_the_run_continues(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(masked_convolution, "PATIENCE", 1)
    monkeypatch.setattr(np, "count_nonzero", lambda _: 0)  # nothing converges
    assert main(train(tmp_path, model="mintnet")) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"{tmp_path}: history.png, summary.json, checkpoint.npz, run.json"
    place = "layer/4 (MaskedConvolution)"  # the last of them, whose inverse comes first
    assert f"npflow: expected samples of step 6, got none: {place}: expected " in err
    assert main(["sample", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"npflow: {place}: expected ")


@needs_proc
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("checkpoint.npz", "the checkpoint of step {{}} to {}, got: {}"),
        ("history.png", "the pictures of step {{}}, got: {1}; the checkpoint is written"),
    ],
)
def test_a_full_disk_is_a_warning_and_at_the_end_an_error_that_resume_mends(
    name, sentence, tmp_path, full_disk, every_step, capsys
):
    full_disk.add(name)
    assert main(train(tmp_path / "run", steps=2)) == 1
    lines = capsys.readouterr().err.splitlines()
    file = tmp_path / "run" / name
    sentence = f"npflow: expected to write {sentence.format(file, '[Errno 28] No space left on device')}"
    assert any(line.startswith(sentence.format(1)) for line in lines)
    assert lines[-1].startswith(sentence.format(2))
    assert not list(tmp_path.rglob("*.partial"))
    full_disk.clear()
    there = (tmp_path / "run" / "checkpoint.npz").exists()
    assert main(resume(tmp_path / "run") if there else train(tmp_path / "run", steps=2)) == 0
    assert load(tmp_path / "run" / "checkpoint.npz").run["step"] == 2
    assert (tmp_path / "run" / "history.png").exists()
