"""The options of training, declared once: `fit`, `distill` and the command line share them."""

import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from datetime import timedelta
from pathlib import Path

from npflow.autodiff.gpu.devices import find_device
from npflow.description import Declared, checked, count, flag, instance, number
from npflow.errors import InputError, in_short
from npflow.files import check_target
from npflow.training.adam import Adam
from npflow.training.together import check_communicator
from npflow.typing import Function
from npflow.validation import check_callable, check_count

LONGEST = 10**9  # steps


def check_path(path, name="the path of a checkpoint"):
    """Raise unless a checkpoint can be written to `path`; return it as a `Path`.

    The result is the file itself, whatever links lead to it, and whatever folder the process works in later.
    """
    if not isinstance(path, (str, os.PathLike)) or "\0" in str(path):
        raise InputError(f"expected {name} to be a path, got {in_short(path)}")
    if Path(path).suffix != ".npz":
        raise InputError(f"expected {name} to end in .npz, got {str(path)!r}")
    return check_target(path, name)


def check_interval(every, name):
    """Raise unless `every` is a number of steps or a length of time; return it."""
    if not isinstance(every, timedelta):
        return check_count(every, name)
    if every <= timedelta(0):
        raise InputError(f"expected {name} to be a positive length of time, got {every}")
    return every


@dataclass(frozen=True)
class Options(Declared):
    """The options that `fit` and `distill` share; `fit` says what each one does."""

    steps: int = count(1000, most=LONGEST)
    batch_size: int | None = count(None)
    optimizer: Adam = instance(Adam, Adam())
    clip_norm: float | None = number(None, above=0)
    average: float | None = number(None, least=0, below=1)
    patience: int | None = count(None)
    checkpoint: str | os.PathLike | None = checked(check_path, None)
    checkpoint_every: int | timedelta = checked(check_interval, 100)
    on_checkpoint: Callable | None = checked(check_callable, None)
    device: str | None = checked(lambda name, _: find_device(name), None)
    record: bool = flag(True)
    reversible: bool = flag(False)
    threads: int | None = count(None)
    slices: int | None = count(None)
    communicator: object = checked(check_communicator, None)
    progress: bool = flag(True)

    def __post_init__(self):
        super().__post_init__()
        if self.on_checkpoint is not None and self.checkpoint is None:
            raise InputError("expected a checkpoint beside on_checkpoint, got none")
        if self.communicator is not None and self.communicator.size > 1 and not self.record:
            raise InputError(
                "expected record=True on several ranks, which work on slices of a batch, got False"
            )

    def _name_of(self, field_name):
        return field_name

    @classmethod
    def of(cls, options, function):
        """The options given to a function as keywords; None is the default of `optimizer`."""
        known = inspect.signature(function).parameters
        unknown = [name for name in options if name not in known]
        if unknown:
            raise InputError(f"expected arguments among {', '.join(known)}, got {unknown[0]!r}")
        if options.get("optimizer", 0) is None:
            options = {name: value for name, value in options.items() if name != "optimizer"}
        return cls(**options)


def takes_options(function: Function) -> Function:
    """Show the options in the signature of a function that takes them as ``**options``."""
    signature = inspect.signature(function)
    *own, _ = signature.parameters.values()
    shared = [
        inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.type
        )
        for field in fields(Options)
        if field.default is not MISSING
    ]
    function.__signature__ = signature.replace(parameters=[*own, *shared])
    return function
