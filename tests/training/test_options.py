"""The options of training: `fit` and `distill` share them, show them, and refuse others."""

import inspect
import os
from dataclasses import fields
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from helpers import refusal, rows
from runs import data, run

from npflow import load
from npflow.models import iaf, maf
from npflow.networks import MADE
from npflow.training import Adam, distill, fit
from npflow.training.options import Options, check_path

DEFAULTS = {field.name: field.default for field in fields(Options)}


def distilled(**options):
    x, rng = rows(9, 2), np.random.default_rng(0)
    teacher, student = maf(2, 1, MADE((4,))), iaf(2, 1, MADE((4,)))
    sides = student, student.init(rng, x), teacher, teacher.init(rng, x)
    return distill(*sides, rng=rng, **{"record": False, "progress": False} | options)


TRAINERS = {"fit": lambda **options: run(data(), **options), "distill": distilled}
every_trainer = pytest.mark.parametrize("trainer", TRAINERS.values(), ids=TRAINERS)


@pytest.mark.parametrize("function", [fit, distill])
def test_a_signature_shows_the_options_and_their_defaults(function):
    shown = inspect.signature(function).parameters
    assert list(shown)[-len(DEFAULTS) :] == list(DEFAULTS)
    assert {name: shown[name].default for name in DEFAULTS} == DEFAULTS
    assert all(shown[name].kind is inspect.Parameter.KEYWORD_ONLY for name in ("rng", *DEFAULTS))
    assert shown["optimizer"].default == Adam()


@every_trainer
def test_they_are_taken_by_name(trainer, tmp_path):
    """None is the default of the optimizer too; NumPy's scalars are as good as Python's."""
    options = {"steps": np.int32(2), "batch_size": np.int64(4), "clip_norm": np.float32(3), "threads": 1}
    options |= {"average": np.float64(0.5), "optimizer": None, "device": "cpu"}
    _, history = trainer(checkpoint=str(tmp_path / "run.npz"), checkpoint_every=timedelta(hours=1), **options)
    saved = load(tmp_path / "run.npz").run
    assert history.steps == saved["step"] == 2
    assert saved["settings"]["clip_norm"] == 3.0


@every_trainer
def test_an_unknown_one_gets_a_sentence(trainer):
    sentence = refusal(trainer, step=3)
    assert "expected arguments among " in sentence
    assert ", rng, steps, batch_size, " in sentence or ", validation_context, steps, " in sentence
    assert sentence.endswith("got 'step'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, ("steps", "at least 1", "got 0")),
        ({"steps": 10**12}, ("steps", "at most 1000000000", "got 1000000000000")),
        ({"steps": 2.5}, ("steps", "integer", "got 2.5")),
        ({"batch_size": 0}, ("batch_size", "at least 1", "got 0")),
        ({"optimizer": 1e-3}, ("optimizer", "Adam", "got 0.001")),
        ({"optimizer": Adam}, ("optimizer", "Adam", "got <class")),
        ({"clip_norm": 0}, ("clip_norm", "above 0", "got 0")),
        ({"average": 1}, ("average", "below 1", "got 1")),
        ({"checkpoint": "run.pkl"}, ("checkpoint", "end in .npz", "got 'run.pkl'")),
        ({"checkpoint_every": 0}, ("checkpoint_every", "at least 1", "got 0")),
        ({"checkpoint_every": 1.5}, ("checkpoint_every", "integer", "got 1.5")),
        ({"checkpoint_every": timedelta(0)}, ("checkpoint_every", "positive length of time", "got 0:00:00")),
        ({"on_checkpoint": print}, ("a checkpoint beside on_checkpoint", "got none")),
        ({"on_checkpoint": 3, "checkpoint": "run.npz"}, ("on_checkpoint", "function", "got 3")),
        ({"device": "gpu"}, ("a device among 'cpu', 'cuda'", "got 'gpu'")),
        ({"record": 1}, ("record", "True or False", "got 1")),
        ({"threads": 0}, ("threads", "at least 1", "got 0")),
        ({"threads": "2"}, ("threads", "integer", "got '2'")),
    ],
)
def test_a_value_that_cannot_be_used_gets_a_sentence_before_any_work(options, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sentence = refusal(run, data(), **options)
    assert sentence.startswith("expected ")
    assert [word for word in words if word not in sentence] == [], sentence
    assert not list(tmp_path.iterdir())


def test_a_path_is_one_that_a_checkpoint_can_be_written_to(tmp_path):
    assert check_path(str(tmp_path / "run.npz")) == Path(tmp_path / "run.npz")
    (tmp_path / "folder.npz").mkdir()
    (tmp_path / "loop.npz").symlink_to(tmp_path / "loop.npz")
    for path, words in (
        (3, "to be a path, got 3"),
        (None, "to be a path, got None"),
        (tmp_path / "a\0.npz", "to be a path, got "),
        (tmp_path / f"{260 * 'a'}.npz", "that can be written to, got "),
        (tmp_path / "loop.npz", "that can be written to, got "),
        (tmp_path / "run.pkl", "to end in .npz"),
        (tmp_path / "folder.npz", "to be a file, got the folder"),
        (tmp_path / "nowhere" / "run.npz", "that can be written to, got "),
    ):
        assert words in refusal(check_path, path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes")
def test_a_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "pipe.npz")
    assert "to be a file, got " in refusal(check_path, tmp_path / "pipe.npz")
    assert "what is not a file" in refusal(load, tmp_path / "pipe.npz")


def test_a_path_is_the_file_that_it_leads_to(tmp_path, monkeypatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link.npz").symlink_to("disk/run")
    monkeypatch.chdir(tmp_path)
    assert check_path("run.npz") == tmp_path / "run.npz"
    assert check_path("link.npz") == tmp_path / "disk" / "run"


def test_a_relative_path_in_a_folder_that_is_gone_gets_a_sentence(tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert "got 'run.npz': No such file or directory" in refusal(check_path, "run.npz")
    assert check_path(tmp_path / "run.npz") == tmp_path / "run.npz"
