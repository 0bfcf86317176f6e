"""The folder of a run: what it was started with, its checkpoint, its pictures."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npflow.cli.catalogue import CLASSES, MODELS, load_data
from npflow.dequantization import Dequantized
from npflow.errors import InputError
from npflow.files import written_aside
from npflow.model import Model
from npflow.training import load


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
    part: bool = False
    conditional: bool = False
    seed: int = 0
    steps: int = 1000
    minutes: float | None = None
    batch_size: int = 32
    rate: float = 1e-2

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
        classes = ", ".join(self.classes) or "none"
        raise InputError(f"expected a class of {self.data}, one of {classes}, got {text!r}")


class Trained(NamedTuple):
    """What a run has learned so far."""

    settings: Settings
    model: Model
    params: dict

    def data(self, path=None, name=None, part=False):
        """The data set of a name, by default the run's own; in part where that is asked for, or was for the run."""
        settings = self.settings
        name = settings.data if name is None else name
        return load_data(name, path, part or settings.part and name == settings.data, settings.seed)

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

    def clear(self):
        """Remove what a killed run left half written."""
        for partial in self.path.glob("*.partial"):
            partial.unlink()

    def write_settings(self, settings):
        """Write down what the run is started with."""
        write_json(self.run, asdict(settings))

    def settings(self):
        """What the run was started with."""
        names = {field.name for field in fields(Settings)}
        try:
            found = json.loads(self.run.read_text("utf-8"))
            if set(found) != names or found["model"] not in MODELS or found["data"] not in CLASSES:
                raise ValueError("other entries")
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"expected the folder of a run of npflow train, got {self.path} with no such run.json: {error}"
            ) from error
        return Settings(**found)

    def trained(self):
        """What the run has learned so far."""
        settings = self.settings()
        if not self.checkpoint.exists():
            raise InputError(
                f"expected a checkpoint in {self.path}, got none: the run has not come to its first"
            )
        saved = load(self.checkpoint)
        return Trained(settings, saved.flow, saved.params)


def write_json(path, value):
    """Write plain data as JSON, whole or not at all."""
    with written_aside(path) as file:
        file.write(f"{json.dumps(value, indent=2)}\n".encode())
