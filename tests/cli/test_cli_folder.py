"""The folder of a run and its settings: what is read back, what is refused, who holds it."""

import errno
import json
import os
import shutil
import sys

import numpy as np
import pytest
from helpers import refusal

import npflow
from npflow import Flow
from npflow.cli import main
from npflow.cli.catalogue import MODELS
from npflow.cli.folder import FILES, Folder
from npflow.cli.settings import Settings
from npflow.cli.train import new_settings, resumed_settings
from npflow.layers import Affine
from npflow.priors import Normal

NICE = {"couplings": 2, "channels": 4, "blocks": 1}


@pytest.fixture
def copied(runs, tmp_path):
    """A copy of the folder of a run."""
    return Folder(shutil.copytree(runs / "flow", tmp_path / "run"))


# ---------------------------------------------------------------- settings


def test_a_run_json_of_before_gives_the_same_settings(tmp_path):
    text = (
        '{"model": "glow", "sizes": {"levels": 2, "steps_per_level": 8, "channels": 64}, "data": "digits", '
        '"path": null, "part": false, "conditional": true, "seed": 3, "steps": 60, "minutes": null, '
        '"batch_size": 32, "rate": 0.01}'
    )
    (tmp_path / "run.json").write_text(text)
    settings = Folder(tmp_path).settings()
    assert settings == Settings(
        model="glow", sizes=settings.sizes, conditional=True, seed=3, steps=60, rate=0.01
    )
    Folder(tmp_path).write_settings(settings)
    written = json.loads((tmp_path / "run.json").read_text())
    assert written == json.loads(text) | {
        "slices": None,
        "reversible": False,
    }  # later options, at their defaults


def test_each_model_has_sizes_and_a_rate_of_its_own(tmp_path):
    settings = new_settings(Folder(tmp_path), {"model": "mintnet", "filters": 2, "out": None})
    assert settings.rate == MODELS["mintnet"].rate == 3e-3
    assert settings.sizes == {"levels": 2, "steps_per_level": 2, "filters": 2}
    assert new_settings(Folder(tmp_path), {"model": "mintnet", "rate": 0.5}).rate == 0.5


def test_a_relative_path_to_the_data_is_stored_as_an_absolute_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert new_settings(Folder("run"), {"model": "nice", "path": "data"}).path == str(tmp_path / "data")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        ({"seed": "x"}, "--seed to be an integer, got 'x'"),
        ({"steps": None}, "--steps to be an integer, got None"),
        ({"model": ["nice"]}, "the model to be one of 'glow'"),
        ({"data": 3}, "--data to be one of 'digits'"),
        ({"sizes": None}, "the model's sizes to be an instance of dict"),
        ({"sizes": {"bogus": 1}}, "the sizes of nice, got those of another model"),
        ({"sizes": NICE | {"blocks": 0}}, "--blocks to be at least 1, got 0"),
        ({"part": "yes"}, "--part to be True or False, got 'yes'"),
        ({"path": 3}, "--path to be an instance of str, got 3"),
        ({"batch_size": 1.5}, "--batch-size to be an integer, got 1.5"),
        ({"rate": "fast"}, "--rate to be a number above 0 below 1000000, got 'fast'"),
        ({"minutes": -1}, "--minutes to be a finite number above 0"),
        ({"minutes": 1e308}, "--minutes to be a finite number above 0 below 1000000, got 1e+308"),
        ({"steps": 10**30}, "--steps to be at most 1000000000"),
        ({"seed": 10**400}, "--seed to be at most "),
        ({"more": 1}, "the settings: model, sizes, data, path, "),
        ({"more": 1}, ", got 'more', which is none of them"),
    ],
)
def test_a_damaged_run_json_is_refused(damage, sentence, runs, tmp_path):
    settings = json.loads((runs / "flow" / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(settings | damage))
    said = refusal(Folder(tmp_path).settings)
    assert f"expected the folder of a run of npflow train, got {tmp_path} without a valid run.json" in said
    assert sentence in said


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[]", "expected the settings to be an instance of dict, got []"),
        ("null", "expected the settings to be an instance of dict, got None"),
        ('{"model": "glow"}', "got none for 'sizes'"),
        ("[" * 100_000, "recursion"),
        (b"\xff", "can't decode"),
    ],
    ids=["empty", "{", "[]", "null", "{}", "deep", "bytes"],
)
def test_a_foreign_run_json_is_refused(text, words, tmp_path, capsys):
    (tmp_path / "run.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert main(["sample", str(tmp_path)]) == 2
    start = f"npflow: expected the folder of a run of npflow train, got {tmp_path} without a valid run.json: "
    said = capsys.readouterr().err
    assert said.startswith(start)
    assert words in said
    assert "__init__" not in said
    assert "\n" not in said.strip()


def test_a_class_is_given_by_its_name_or_number():
    settings = Settings(model="nice", sizes=NICE, data="cifar10", rate=1.0)
    assert settings.label("frog") == settings.label("6") == 6
    assert "a class of cifar10, one of airplane" in refusal(settings.label, "10")
    patches = Settings(model="nice", sizes=NICE, data="patches", rate=1.0)
    assert "data with classes, got patches" in refusal(patches.label, "0")


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"batch_size": 64}, "expected --batch-size 32, with which the run in {} was started, got 64"),
        ({"channels": 8}, "expected --channels 4, with which the run in {} was started, got 8"),
        ({"model": "glow"}, "expected the model nice, with which the run in {} was started, got glow"),
    ],
)
def test_resume_with_other_settings_is_refused(given, sentence, runs):
    folder = Folder(runs / "flow")
    assert resumed_settings(folder, {"model": "nice", "path": "/elsewhere"}) == folder.settings()
    assert refusal(resumed_settings, folder, given).startswith(sentence.format(folder.path))


# ---------------------------------------------------------------- files


def test_a_run_without_a_checkpoint_has_learned_nothing(copied):
    copied.checkpoint.unlink()
    assert refusal(copied.trained).startswith(f"expected a checkpoint in {copied.path}, got none")


def test_a_checkpoint_of_something_else_is_refused(copied, rng):
    flow, x = Flow(Affine(), Normal(2)), np.zeros((4, 2), np.float32)
    npflow.save(copied.checkpoint, flow, flow.init(rng, x))
    assert "the checkpoint of a training run at" in refusal(copied.step)
    assert "a model of images at" in refusal(copied.trained)


def test_what_a_killed_run_left_is_removed_and_nothing_else(copied):
    ours, stranger = (copied.path / name for name in ("checkpoint.npz.0123abcd.partial", "film.mkv.partial"))
    ours.touch()
    stranger.touch()
    copied.clear()
    assert (ours.exists(), stranger.exists()) == (False, True)
    assert all((copied.path / name).exists() for name in FILES)


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        ("{", "Expecting property name"),
        ("[]", "the summary to be an instance of dict"),
        ("{}", "held_out to be an instance of list, got None"),
        ('{"held_out": null}', "held_out to be an instance of list, got None"),
        ('{"held_out": [3]}', "each entry of held_out to be an instance of dict, got 3"),
        ('{"held_out": [{}]}', "step to be an integer, got None"),
        ('{"held_out": [{"step": "x", "bits_per_dim": 1}]}', "step to be an integer, got 'x'"),
    ],
)
def test_a_damaged_summary_has_no_scores(summary, words, tmp_path):
    assert Folder(tmp_path).scores() == []
    (tmp_path / "summary.json").write_text(summary)
    with pytest.warns(UserWarning, match=f"expected the scores so far in .*: expected {words}|: {words}"):
        assert Folder(tmp_path).scores() == []


# ---------------------------------------------------------------- the lock


def test_a_folder_holds_one_run_at_a_time(runs, tmp_path, capsys):
    resume = ["train", "nice", "--out", str(runs / "flow"), "--resume"]
    with Folder(runs / "flow").held():
        assert main(resume) == 2
    assert capsys.readouterr().err.startswith(
        f"npflow: expected a folder that no run is using, got {runs / 'flow'}"
    )
    with Folder(tmp_path).held():
        assert main(["train", "nice", "--out", str(tmp_path)]) == 2
    with Folder(tmp_path).held():  # it was let go of
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]


def test_a_file_system_without_locks_holds_nothing(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def no_locks(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    entered = []
    with Folder(tmp_path).held():
        entered.append("first")
        with Folder(tmp_path).held():  # no lock keeps it out
            entered.append("second")
    assert entered == ["first", "second"]


def test_train_without_filelock_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "filelock", None)
    assert main(["train", "nice", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("npflow: expected filelock")
    assert error.endswith("pip install filelock\n")
    assert not (tmp_path / "run").exists()
