"""The folder of a run: its settings, its checkpoint, its pictures."""

import json
import warnings
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from npflow.cli.catalogue import load_data
from npflow.cli.settings import Settings
from npflow.description import check_names
from npflow.errors import InputError, kind_of
from npflow.files import clear_leftovers, written_aside
from npflow.model import Model
from npflow.training import load
from npflow.training.checkpoint import load_run
from npflow.validation import check_count, check_instance, check_number

FILES = ("samples.png", "history.png", "summary.json", "checkpoint.npz", "run.json")  # of a whole run


class Trained(NamedTuple):
    """What a run has learned so far."""

    settings: Settings
    model: Model
    params: dict

    def data(self, name=None, **place):
        """The data set of a name, by default the run's own, read from where the run read it.

        `place` may have another `path`, and `part`.
        """
        settings = self.settings
        if name in (None, settings.data):
            name, place = settings.data, {"path": settings.path, "part": settings.part} | place
        return load_data(name, seed=settings.seed, **place)

    def check_flow(self):
        """Raise `InputError` unless the model has a z."""
        if not self.model.invertible:
            raise InputError(
                f"expected a run of a flow, got one of {self.settings.model}, which has no z of an image"
            )

    def check_samples(self):
        """Raise `InputError` unless the model draws images from nothing."""
        if not hasattr(self.model, "sample"):
            raise InputError(
                f"expected a run of a model that draws whole images, got one of {self.settings.model}: "
                f"use npflow {self.settings.model}"
            )


class Folder:
    """The folder of a run, with the `FILES`, and an empty file ``.lock`` that keeps a second run out."""

    def __init__(self, path):
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.npz"
        self.run, self.summary = self.path / "run.json", self.path / "summary.json"

    def lock(self):
        """The lock of the folder, which is not held yet; raise `InputError` if filelock is not installed."""
        try:
            from filelock import FileLock
        except ImportError as error:
            raise InputError(
                f"expected filelock, to keep a second run out of {self.path}, got none ({error}): "
                "pip install filelock"
            ) from error
        return FileLock(self.path / ".lock")

    @contextmanager
    def held(self):
        """Hold the folder for one run; raise `InputError` if another run holds it.

        A process that is killed lets go of it. On a file system without locks nothing is held.
        """
        lock = self.lock()
        try:
            lock.acquire(timeout=0)
        except TimeoutError:
            raise InputError(
                f"expected a folder that no run is using, got {self.path}, where one holds .lock"
            ) from None
        except (OSError, NotImplementedError):  # a file system without locks
            pass
        try:
            yield
        finally:
            lock.release()

    def clear(self):
        """Remove files that killed runs left half written."""
        for name in FILES:
            clear_leftovers(self.path / name)

    def check_new(self):
        """Raise `InputError` if there is a checkpoint already."""
        if self.checkpoint.exists():
            raise InputError(
                f"expected a folder without a checkpoint, got {self.path} with one: continue its run with "
                "--resume, or start a new one with another --out"
            )

    def write_settings(self, settings):
        """Write the settings of the run."""
        write_json(self.run, asdict(settings))

    def settings(self):
        """The settings of the run."""
        try:
            stored = check_instance(json.loads(self.run.read_text("utf-8")), dict, "the settings")
            check_names(stored, Settings, "the settings")
            return Settings(**stored)
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(
                f"expected the folder of a run of npflow train, got {self.path} without a valid run.json: "
                f"{error}"
            ) from error

    def scores(self):
        """The step and bits/dim of each checkpoint so far; none, with a warning, if they cannot be read."""
        try:
            summary = check_instance(json.loads(self.summary.read_text("utf-8")), dict, "the summary")
            entries = check_instance(summary.get("held_out"), list, "held_out")
            return [scores_of(entry) for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, RecursionError) as error:
            warnings.warn(f"expected the scores so far in {self.summary}, got none: {error}", stacklevel=2)
            return []

    def trained(self):
        """What the run has learned so far."""
        settings = self.settings()
        if not self.checkpoint.exists():
            raise InputError(
                f"expected a checkpoint in {self.path}, got none: the run has not written its first one yet"
            )
        saved = load(self.checkpoint)
        if not hasattr(saved.flow, "levels"):  # those of the pixels
            raise InputError(f"expected a model of images at {self.checkpoint}, got {kind_of(saved.flow)}")
        return Trained(settings, saved.flow, saved.params)

    def step(self):
        """The number of steps that the checkpoint has made."""
        return load_run(self.checkpoint).run["step"]


def scores_of(entry):
    """The step and bits/dim of a checkpoint, from the summary."""
    entry = check_instance(entry, dict, "each entry of held_out")
    return {
        "step": check_count(entry.get("step"), "step"),
        "bits_per_dim": check_number(entry.get("bits_per_dim"), "bits_per_dim"),
    }


def write_json(path, value):
    """Write plain data as JSON, whole or not at all."""
    with written_aside(path) as file:
        file.write(f"{json.dumps(value, indent=2)}\n".encode())
