"""npflow train: what it prints and writes, how it goes on, and what it refuses."""

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

import npflow
from npflow import Dequantized, Flow, datasets, load
from npflow.autodiff import Layout
from npflow.autodiff.gpu.device import Host
from npflow.autodiff.program import slices
from npflow.cli import main, report
from npflow.cli.catalogue import MODELS
from npflow.cli.folder import Folder
from npflow.cli.parsing import duration
from npflow.layers import Affine
from npflow.layers import masked_convolution as triangular
from npflow.priors import Normal
from npflow.training import saver
from npflow.training.run import Run

# Each model, made small.
SMALL = {
    "glow": ["--levels", "1", "--steps-per-level", "1", "--channels", "4"],
    "mintnet": ["--levels", "1", "--steps-per-level", "1", "--filters", "2"],
    "nice": ["--couplings", "2", "--channels", "4", "--blocks", "1"],
    "pixelcnn": ["--features", "4", "--blocks", "1"],
    "real_nvp": ["--levels", "1", "--channels", "4", "--blocks", "1"],
}


def train(folder, *more, model="nice", steps=6):
    """The arguments of a small run."""
    return ["train", model, "--out", str(folder), *SMALL[model], "--steps", str(steps), *more]


def resume(folder, *more, model="nice"):
    return ["train", model, "--out", str(folder), "--resume", *more]


def result(folder):
    """The parameters of a run and the state that it would go on from, the clock aside."""
    saved = load(folder / "checkpoint.npz")
    arrays = {name: array for name, array in saved.arrays.items() if name != "history:seconds"}
    return Layout(saved.params).pack(saved.params), arrays, saved.run


def assert_same_bits(a, b):
    (params, arrays, run), (other_params, other_arrays, other_run) = result(a), result(b)
    assert np.array_equal(params, other_params)
    assert run == other_run
    assert arrays.keys() == other_arrays.keys()
    assert all(np.array_equal(arrays[name], other_arrays[name]) for name in arrays)


@pytest.fixture
def every_step(monkeypatch):
    """A clock by which a checkpoint is due after each step."""
    seconds = iter(range(0, 10**9, 1000))
    monkeypatch.setattr(saver.time, "monotonic", lambda: float(next(seconds)))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The folder of a run that has come to its end."""
    folder = tmp_path_factory.mktemp("finished")
    assert main(train(folder, "--batch-size", "32", "--seed", "3")) == 0
    return folder


# ---------------------------------------------------------------- what it does


def test_every_model_of_the_command_is_made_small_here():
    assert set(MODELS) == set(SMALL)


@pytest.mark.parametrize("model", SMALL)
def test_it_says_how_large_and_how_good_the_model_is_and_leaves_a_whole_folder(model, tmp_path, capsys):
    conditional = ["--conditional"] * (model != "mintnet")
    assert main(train(tmp_path / "run", *conditional, model=model)) == 0
    saved = load(tmp_path / "run" / "checkpoint.npz")
    size = Layout(saved.params).size
    first, second, *_, last, names = capsys.readouterr().out.splitlines()
    assert first == (
        f"{model} on digits: 1,437 images of 8 x 8 x 1, 17 levels; 360 held out; {size:,} parameters"
    )
    assert second.startswith("a step takes ")
    assert " MB: 6 steps in some 0 seconds" in second
    files = {"samples.png", "history.png", "summary.json", "checkpoint.npz", "run.json"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == files
    assert names == f"{tmp_path / 'run'}: samples.png, history.png, summary.json, checkpoint.npz, run.json"

    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    data = datasets.image_data("digits")
    context = np.eye(10, dtype=np.float32)[data.test_labels] if conditional else None
    noise = (np.random.default_rng(0),) if isinstance(saved.flow, Dequantized) else ()
    bits = saved.flow.bits_per_dim(saved.params, *noise, data.test, context)
    assert summary["bits_per_dim"] == pytest.approx(bits.mean(), rel=1e-6)
    assert summary["standard_error"] == pytest.approx(bits.std(ddof=1) / np.sqrt(360), rel=1e-5)
    assert (summary["parameters"], summary["steps"], summary["of"]) == (size, 6, 6)
    assert f"{bits.mean():.3f} ± {summary['standard_error']:.3f} bits/dim on 360 held-out images" in last


def test_a_run_that_is_given_minutes_fixes_its_steps_before_the_first(tmp_path, capsys):
    arguments = ["train", "nice", "--out", str(tmp_path), *SMALL["nice"], "--minutes", "0.002"]
    assert main(arguments) == 0
    settings = json.loads((tmp_path / "run.json").read_text())
    assert settings["minutes"] == 0.002
    assert load(tmp_path / "checkpoint.npz").run["step"] == settings["steps"] >= 1
    assert main(resume(tmp_path, "--minutes", "0.002")) == 0


def test_the_course_of_held_out_images_is_kept_over_a_resumption(tmp_path, every_step):
    assert main(train(tmp_path, steps=3)) == 0
    assert main(resume(tmp_path)) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [entry["step"] for entry in summary["held_out"]] == [1, 2, 3]


def test_a_run_that_was_better_before_says_so(tmp_path, every_step, monkeypatch, capsys):
    scores = iter(
        [np.full(8, 3.0) + 0.1 * np.arange(8), np.full(8, 2.0) + 0.01 * np.arange(8), np.arange(3.0, 11.0)]
    )
    monkeypatch.setattr(report, "bits_per_dim", lambda *_: next(scores))
    assert main(train(tmp_path, steps=3)) == 0
    assert (
        "it was 2.035 at step 2: fewer steps do better on images that it has not seen"
        in capsys.readouterr().out
    )


def test_each_model_has_a_rate_of_its_own(tmp_path):
    assert main(train(tmp_path, model="mintnet", steps=1)) == 0
    assert Folder(tmp_path).settings().rate == MODELS["mintnet"].rate == 3e-3
    assert main(train(tmp_path / "other", "--rate", "0.5", model="mintnet", steps=1)) == 0
    assert Folder(tmp_path / "other").settings().rate == 0.5


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
def test_a_duration_has_the_unit_that_it_is_read_in(seconds, words):
    assert duration(seconds) == words


def test_a_part_of_cifar_10_is_trained_on_and_its_last_tenth_held_out(tmp_path, capsys):
    records = np.random.default_rng(0).integers(256, size=(20, 3073), dtype=np.uint8)
    records[:, 0] %= 10
    for number in range(1, 6):
        (tmp_path / f"data_batch_{number}.bin").write_bytes(records.tobytes())
    place = ["--path", str(tmp_path)]
    more = ["--data", "cifar10", "--part", "--batch-size", "8", *place]
    assert main(train(tmp_path / "run", *more, steps=1)) == 0
    assert main(resume(tmp_path / "run", "--part", *place)) == 0
    assert main(resume(tmp_path / "run")) == 0  # it knows where the data is
    assert main(["score", str(tmp_path / "run")]) == 0
    out = capsys.readouterr().out
    assert "nice on cifar10: 90 images of 32 x 32 x 3, 256 levels; 10 held out" in out
    score = "bits/dim on all 10 held-out images"
    assert score in out

    # A run on the whole is scored on a part where that is asked for.
    settings = tmp_path / "run" / "run.json"
    settings.write_text(settings.read_text().replace('"part": true', '"part": false'))
    assert main(["score", str(tmp_path / "run"), *place]) == 2
    assert main(["score", str(tmp_path / "run"), "--part", *place]) == 0
    assert score in capsys.readouterr().out


# ---------------------------------------------------------------- going on


def test_a_run_killed_at_random_moments_ends_with_the_bits_of_one_left_alone(tmp_path):
    alone, killed, moments = tmp_path / "alone", tmp_path / "killed", random.Random(0)
    steps = 20
    assert main(train(alone, steps=steps)) == 0
    reached = []
    for line in ("step ", "nice on digits"):  # after a checkpoint, and from the start
        there = (killed / "checkpoint.npz").exists()
        arguments = resume(killed) if there else train(killed, steps=steps)
        command = [sys.executable, "-m", "npflow", *arguments, "--checkpoint-minutes", "1e-6"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert any(read.startswith(line) for read in process.stdout)  # which are read until then
        time.sleep(moments.uniform(0.0, 0.6))
        process.kill()
        process.communicate()
        reached.append(load(killed / "checkpoint.npz").run["step"])
    assert 0 < reached[0] <= reached[1] < steps
    assert main(resume(killed)) == 0
    assert_same_bits(alone, killed)
    assert not list(killed.glob("*.partial"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_what_has_been_learned_and_resume_goes_on(
    number, finished, tmp_path, monkeypatch, capsys
):
    update = Run.update

    def interrupted(self, *arguments):
        if self.step == 3 and len(self.order) == 1437:  # not in the rehearsal
            signal.raise_signal(number)
        return update(self, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "update", interrupted)
        assert main(train(tmp_path, "--batch-size", "32", "--seed", "3")) == 130
    command = f"npflow train nice --out {tmp_path} --resume"
    assert f"interrupted after step 4 of 6: {command} goes on" in capsys.readouterr().out
    assert main(resume(tmp_path)) == 0
    assert_same_bits(finished, tmp_path)


def test_ctrl_c_in_the_rehearsal_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Run, "update", lambda *_: signal.raise_signal(signal.SIGINT) or 0.0)
    assert main(train(tmp_path)) == 130
    assert capsys.readouterr().err.endswith("npflow: interrupted\n")
    assert not list(tmp_path.iterdir())


def test_resume_goes_on_with_what_the_run_was_started_with(finished, capsys):
    before = result(finished)
    assert main(resume(finished, "--seed", "3")) == 0
    printed = capsys.readouterr().out
    assert "resumed at step 6 of 6" in printed
    assert "a step takes" not in printed  # nothing is left to rehearse for
    assert np.array_equal(before[0], result(finished)[0])


@pytest.mark.parametrize(
    ("more", "model", "sentence"),
    [
        (["--batch-size", "64"], "nice", "expected the --batch-size that the run in {} was started with, 32, got 64"),
        (["--channels", "8"], "nice", "expected the --channels that the run in {} was started with, 4, got 8"),
        ([], "glow", "expected the model that the run in {} was started with, nice, got glow"),
    ],
)  # fmt: skip
def test_resume_with_other_settings_is_refused(more, model, sentence, finished, capsys):
    assert main(resume(finished, *more, model=model)) == 2
    assert capsys.readouterr().err.startswith(f"npflow: {sentence.format(finished)}: another --out begins")


def test_a_folder_holds_one_run_at_a_time(finished, tmp_path, capsys):
    with Folder(finished).held():
        assert main(resume(finished)) == 2
    assert capsys.readouterr().err == (
        f"npflow: expected a folder that no run is in, got {finished}, where one is going on\n"
    )
    with Folder(tmp_path).held():
        assert main(train(tmp_path)) == 2
    assert not list(tmp_path.iterdir())
    assert main(resume(finished)) == 0


def test_what_a_killed_run_left_is_removed_and_nothing_else(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    ours, stranger = (tmp_path / "run" / name for name in ("checkpoint.npz.1-2.partial", "film.mkv.partial"))
    ours.touch()
    stranger.touch()
    assert main(resume(tmp_path / "run")) == 0
    assert (ours.exists(), stranger.exists()) == (False, True)


@pytest.mark.parametrize(
    "summary",
    [
        "{",
        "{}",
        '{"held_out": null}',
        '{"held_out": [{}]}',
        '{"held_out": [{"step": "x", "bits_per_dim": 1}]}',
    ],
)
def test_a_damaged_summary_costs_no_more_than_the_course_in_the_picture(summary, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "summary.json").write_text(summary)
    assert main(resume(tmp_path / "run")) == 0
    assert "npflow: expected the course of the run in" in capsys.readouterr().err
    (entry,) = json.loads((tmp_path / "run" / "summary.json").read_text())["held_out"]
    assert entry["step"] == 6


def test_a_checkpoint_that_is_not_of_a_run_is_refused(finished, tmp_path, capsys):
    flow, x = Flow(Affine(), Normal(2)), np.zeros((4, 2), np.float32)
    shutil.copytree(finished, tmp_path / "run")
    npflow.save(tmp_path / "run" / "checkpoint.npz", flow, flow.init(np.random.default_rng(0), x))
    assert main(resume(tmp_path / "run")) == 2
    assert "expected the checkpoint of a training run at" in capsys.readouterr().err
    assert main(["sample", str(tmp_path / "run")]) == 2
    assert "expected a model of images at" in capsys.readouterr().err


def test_nothing_that_is_there_is_lost(finished, capsys):
    before = (finished / "checkpoint.npz").read_bytes()
    assert main(train(finished)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"npflow: expected a folder without a checkpoint, got {finished} with one")
    assert captured.out == ""
    assert (finished / "checkpoint.npz").read_bytes() == before


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--resume"], "expected a checkpoint in {} to resume, got none: without --resume a run begins"),
        (["--steps", "0"], "expected --steps to be at least 1, got 0"),
        (["--minutes", "0"], "expected --minutes to be a finite number above 0, got 0.0"),
        (["--seed", "-1"], "expected --seed to be at least 0, got -1"),
        (["--batch-size", "9999"], "expected --batch-size to be at most 1437, got 9999"),
        (["--channels", "0"], "expected --channels to be at least 1, got 0"),
        (["--rate", "0"], "expected --rate to be a finite number above 0, got 0.0"),
        (["--checkpoint-minutes", "0"], "expected --checkpoint-minutes to be a finite number above 0 below 1000000000, got 0.0"),
        (["--checkpoint-minutes", "1e13"], "expected --checkpoint-minutes to be a finite number above 0 below 1000000000"),
        (["--path", "x"], "expected --path, --part and --download for cifar10 alone, got one for digits"),
        (["--data", "patches", "--conditional"], "expected data with labels for a conditional model"),
        (["--data", "cifar10", "--path", "/nowhere"], "expected CIFAR-10 at /nowhere, got nothing there: download"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_a_sentence(arguments, sentence, tmp_path, capsys):
    assert main(["train", "nice", "--out", str(tmp_path), *arguments]) == 2
    assert capsys.readouterr().err.startswith(f"npflow: {sentence.format(tmp_path)}")
    assert not list(tmp_path.iterdir())


def test_a_model_that_takes_no_class_says_so(tmp_path, capsys):
    assert main(["train", "mintnet", "--out", str(tmp_path), "--conditional"]) == 2
    assert "expected a model that takes a class with --conditional, got mintnet" in capsys.readouterr().err


def test_a_model_has_no_sizes_but_its_own(tmp_path, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["train", "nice", "--out", str(tmp_path), "--steps-per-level", "2"])
    assert raised.value.code == 2


def test_a_run_that_does_not_fit_says_so_before_its_first_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(slices, "LARGE", 1)
    monkeypatch.setattr(Host, "free_bytes", lambda self: 1000)
    assert main(train(tmp_path)) == 1
    assert "GB of free memory on" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_finite_ends_the_run_with_1(tmp_path, capsys):
    assert main(train(tmp_path, "--rate", "1e30", steps=40)) == 1
    assert "npflow: expected a finite" in capsys.readouterr().err


def test_samples_that_cannot_be_drawn_are_said_and_the_run_goes_on(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(triangular, "PATIENCE", 1)
    monkeypatch.setattr(np, "count_nonzero", lambda _: 0)  # nothing settles
    assert main(train(tmp_path, model="mintnet")) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"{tmp_path}: history.png, summary.json, checkpoint.npz, run.json"
    place = "layer/3 (MaskedConvolution)"  # the last of them, which is undone first
    sentence = f"{place}: expected the inverse of a triangular map to settle, got a residual of"
    assert f"npflow: expected samples of step 6, got none: {sentence}" in err
    assert main(["sample", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith(f"npflow: {sentence}")


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full whenever its file is one of these names."""
    full, fsync = set(), os.fsync

    def flush(number):
        if any(name in str(Path(f"/proc/self/fd/{number}").readlink()) for name in full):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", flush)
    return full


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc")


@needs_proc
@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("checkpoint.npz", "the checkpoint of step {{}} to {}, got: {}; what was there stays"),
        ("history.png", "the pictures of step {{}}, got: {1}; the checkpoint is written"),
    ],
)
def test_a_full_disk_is_said_and_at_the_end_it_is_an_error_that_resume_mends(
    name, sentence, tmp_path, full_disk, every_step, capsys
):
    full_disk.add(name)
    assert main(train(tmp_path / "run", steps=2)) == 1
    lines = capsys.readouterr().err.splitlines()
    file = tmp_path / "run" / name
    sentence = f"npflow: expected to write {sentence.format(file, '[Errno 28] No space left on device')}"
    assert any(line.startswith(sentence.format(1)) for line in lines)
    assert lines[-1] == sentence.format(2)
    assert not list(tmp_path.rglob("*.partial"))
    full_disk.clear()
    there = (tmp_path / "run" / "checkpoint.npz").exists()
    assert main(resume(tmp_path / "run") if there else train(tmp_path / "run", steps=2)) == 0
    assert load(tmp_path / "run" / "checkpoint.npz").run["step"] == 2
    assert (tmp_path / "run" / "history.png").exists()


@pytest.mark.parametrize("command", [[], *([name] for name in MODELS)], ids=str)
def test_help_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as raised:
        main(["train", *command, "--help"])
    assert raised.value.code == 0
    assert "example:\n  npflow train " in capsys.readouterr().out
