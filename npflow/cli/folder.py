"""The folder of a run: what it was started with, its checkpoint, its pictures."""

import json
import os
import warnings
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npflow.cli.catalogue import CLASSES, MODELS, load_data
from npflow.cli.parsing import option
from npflow.datasets import IMAGES
from npflow.dequantization import Dequantized
from npflow.errors import InputError
from npflow.files import written_aside
from npflow.model import Model
from npflow.models import PixelCNN
from npflow.training import load
from npflow.training.checkpoint import load_run
from npflow.validation import check_choice, check_count, check_number

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

FILES = ("samples.png", "history.png", "summary.json", "checkpoint.npz", "run.json")  # of a whole run


@dataclass(frozen=True)
class Settings:
    """What a run was started with: all that it has to know to be resumed, and other commands to use what it learned.

    Attributes
    ----------
    model : str
        One of `MODELS`.
    sizes : dict
        The model's hyper-parameters by name.
    data : str
        One of `npflow.datasets.IMAGES`.
    path : str, optional
        Where CIFAR-10 is.
    part : bool
        Whether the batches of CIFAR-10 may have fewer images than the official ones.
    conditional : bool
        Whether the model is conditioned by the class.
    seed : int
    steps : int
        How many steps the whole run has; of a run that was given minutes, what they were found to be enough for.
    minutes : float, optional
    batch_size : int
    rate : float
        The peak of the learning rate.
    """

    model: str
    sizes: dict
    data: str = "digits"
    path: str | None = None
    part: bool = False
    conditional: bool = False
    seed: int = 0
    steps: int = 1000
    minutes: float | None = None
    batch_size: int = 32
    rate: float = 1e-2

    def __post_init__(self):
        check_choice(self.model, MODELS, "the model")
        check_choice(self.data, IMAGES, "--data")
        if set(self.sizes) != set(MODELS[self.model].sizes):
            raise InputError(f"expected the sizes of {self.model}, got those of another model")
        for name, size in self.sizes.items():
            check_count(size, option(name))
        check_count(self.seed, "--seed", least=0)
        check_count(self.steps, "--steps")
        check_count(self.batch_size, "--batch-size")
        check_number(self.rate, "--rate", above=0)
        if self.minutes is not None:
            check_number(self.minutes, "--minutes", above=0)
        for name, kinds in {"path": (str, type(None)), "part": bool, "conditional": bool}.items():
            if not isinstance(getattr(self, name), kinds):
                raise InputError(f"expected {option(name)} of another kind, got {getattr(self, name)!r}")

    @property
    def classes(self):
        """The names of the classes of the data."""
        return CLASSES[self.data]

    def context(self, labels):
        """The context of rows with these labels, one-hot, shape (n, classes): None where the model takes none."""
        if not self.conditional:
            return None
        if labels is None:
            raise InputError("expected data with labels for a conditional model, got one that has none")
        return np.eye(len(self.classes), dtype=np.float32)[labels]

    def label(self, text):
        """The label of a class of the data, by its name or number."""
        if text in self.classes:
            return self.classes.index(text)
        if text.isdecimal() and int(text) < len(self.classes):
            return int(text)
        if not self.classes:
            raise InputError(f"expected data that has classes, got {self.data}")
        classes = ", ".join(self.classes)
        raise InputError(f"expected a class of {self.data}, one of {classes}, got {text!r}")


class Trained(NamedTuple):
    """What a run has learned so far."""

    settings: Settings
    model: Model
    params: dict

    def data(self, name=None, place=None):
        """The data set of a name, by default the run's own, from where the run had it.

        `place` may have another `path`, and `part`.
        """
        settings = self.settings
        if name in (None, settings.data):
            name, place = settings.data, {"path": settings.path, "part": settings.part, **(place or {})}
        return load_data(name, seed=settings.seed, **(place or {}))

    def check_flow(self):
        """Raise `InputError` unless the model is a flow, which has a z."""
        if not isinstance(self.model, Dequantized):
            raise InputError(f"expected the run of a flow, got one of {self.settings.model}, which has no z")


class Folder:
    """The folder of a run.

    Parameters
    ----------
    path : str or path
    """

    def __init__(self, path):
        self.path = Path(path)
        self.checkpoint = self.path / "checkpoint.npz"
        self.run, self.summary = self.path / "run.json", self.path / "summary.json"

    @contextmanager
    def held(self):
        """The folder, held by one run: another one that comes in the meantime is refused. A kill lets go of it.

        Raises
        ------
        InputError
            Where another run holds it.
        """
        if fcntl is None:
            yield
            return
        handle = os.open(self.path, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"expected a folder that no run is in, got {self.path}, where one is going on"
                ) from None
            except OSError:  # a file system without locks
                pass
            yield
        finally:
            os.close(handle)

    def clear(self):
        """Remove what a killed run left half written."""
        for name in FILES:
            for partial in self.path.glob(f"{name}.*.partial"):
                partial.unlink()

    def check_new(self):
        """Raise `InputError` where there is a checkpoint already."""
        if self.checkpoint.exists():
            raise InputError(
                f"expected a folder without a checkpoint, got {self.path} with one: --resume goes on from it, "
                "another --out begins another run"
            )

    def write_settings(self, settings):
        """Write down what the run is started with."""
        write_json(self.run, asdict(settings))

    def settings(self):
        """What the run was started with."""
        try:
            return Settings(**json.loads(self.run.read_text("utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"expected the folder of a run of npflow train, got {self.path} with no such run.json: {error}"
            ) from error

    def course(self):
        """The step and bits/dim of each time that held-out images were looked at: none where that cannot be read."""
        try:
            entries = json.loads(self.summary.read_text("utf-8"))["held_out"]
            names = {"step": check_count, "bits_per_dim": check_number}
            return [{name: check(entry[name], name) for name, check in names.items()} for entry in entries]
        except FileNotFoundError:
            return []
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            warnings.warn(
                f"expected the course of the run in {self.summary}, got none: {error}", stacklevel=2
            )
            return []

    def trained(self):
        """What the run has learned so far."""
        settings = self.settings()
        if not self.checkpoint.exists():
            raise InputError(
                f"expected a checkpoint in {self.path}, got none: the run has not come to its first"
            )
        saved = load(self.checkpoint)
        if not isinstance(saved.flow, (Dequantized, PixelCNN)):
            raise InputError(
                f"expected a model of images at {self.checkpoint}, got a {type(saved.flow).__name__}"
            )
        return Trained(settings, saved.flow, saved.params)

    def step(self):
        """The step after which the checkpoint was written."""
        return load_run(self.checkpoint).run["step"]


def write_json(path, value):
    """Write plain data as JSON, whole or not at all."""
    with written_aside(path) as file:
        file.write(f"{json.dumps(value, indent=2)}\n".encode())
