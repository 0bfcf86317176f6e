"""The settings of a run of ``npflow train``."""

from dataclasses import dataclass

import numpy as np

from npflow.cli.catalogue import CLASSES, MODELS
from npflow.datasets import IMAGES
from npflow.description import Declared, checked, choice, count, flag, instance, number
from npflow.errors import InputError, in_short
from npflow.training.options import LONGEST, Options
from npflow.validation import check_count, check_seed


@dataclass(frozen=True, kw_only=True)
class Settings(Declared):
    """What a run was started with: enough to resume it, and for other commands to use what it learned."""

    model: str = choice(MODELS)
    sizes: dict = instance(dict)  # the model's hyper-parameters by name
    data: str = choice(IMAGES, "digits")
    path: str | None = instance(str, None)  # where CIFAR-10 is
    part: bool = flag(False)  # whether its binary batches may have fewer images than the official ones
    conditional: bool = flag(False)  # on the class
    seed: int = checked(check_seed, 0)
    # Of the whole run; the rehearsal fixes it where `minutes` is given.
    steps: int = count(Options.steps, most=LONGEST)
    minutes: float | None = number(None, above=0, below=10**6)
    batch_size: int = count(32)
    slices: int | None = count(None)  # of a batch; as its shapes say
    reversible: bool = flag(Options.reversible)  # keep nothing of the layers for the gradient
    rate: float = number(above=0, below=10**6)  # the peak of the learning rate

    def __post_init__(self):
        super().__post_init__()
        if set(self.sizes) != set(MODELS[self.model].sizes):
            raise InputError(f"expected the sizes of {self.model}, got those of another model")
        for name, size in self.sizes.items():
            check_count(size, option(name))

    def _name_of(self, field_name):
        return {"model": "the model", "sizes": "the model's sizes"}.get(field_name, option(field_name))

    @property
    def classes(self):
        """The names of the classes of the data."""
        return CLASSES[self.data]

    def context(self, labels):
        """The context of rows with these labels, one-hot, shape (n, classes); None without `conditional`."""
        if not self.conditional:
            return None
        if labels is None:
            raise InputError("expected data with labels for a conditional model, got data without")
        return np.eye(len(self.classes), dtype=np.float32)[labels]

    def label(self, text):
        """The label of a class of the data, given by its name or number."""
        for names in (self.classes, tuple(map(str, range(len(self.classes))))):
            if text in names:
                return names.index(text)
        if not self.classes:
            raise InputError(f"expected data with classes, got {self.data}")
        classes = ", ".join(self.classes)
        raise InputError(f"expected a class of {self.data}, one of {classes}, got {in_short(text)}")


def option(name):
    """The option of the command line that sets a hyper-parameter or setting."""
    return f"--{name.replace('_', '-')}"
