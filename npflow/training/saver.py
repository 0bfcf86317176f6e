"""When a training run writes its checkpoints, and what is called then."""

import time
import warnings
from datetime import timedelta

from npflow.errors import InputError
from npflow.training.run import copy_constants
from npflow.validation import check_count


class Saver:
    """Writes the checkpoints of a run to a path.

    Parameters
    ----------
    run : Run
    path : Path
    settings : dict
        What a run has to share with the checkpoint to go on from it, as plain data.
    every : int or timedelta
        How many steps, or how much time, from one checkpoint to the next.
    on_checkpoint : callable, optional
        `on_checkpoint(params, history)`, called after each was written.
    """

    def __init__(self, run, path, settings, every, on_checkpoint=None):
        self.run, self.path, self.settings = run, path, settings
        self.every, self.on_checkpoint = every, on_checkpoint
        self.last = time.monotonic()

    def is_due(self):
        """Whether a checkpoint is to be written after this step."""
        if isinstance(self.every, timedelta):
            return time.monotonic() - self.last >= self.every.total_seconds()
        return self.run.step % self.every == 0

    def save(self):
        """Write a checkpoint, and call.

        Raises
        ------
        OSError
            Where it cannot be written, as on a full disk: the one before stays.
        """
        self.write()
        self.call()

    def try_to_save(self):
        """The same, but where it cannot be written, say so."""
        try:
            self.write()
        except OSError as error:
            warnings.warn(f"{error}, and training goes on", RuntimeWarning, stacklevel=4)  # the call of fit
        else:
            self.call()
        self.last = time.monotonic()

    def write(self):
        """Write a checkpoint; where that cannot be, the error says which, and that the one before stays."""
        try:
            self.run.save(self.path, self.settings)
        except OSError as error:
            raise OSError(
                f"expected to write the checkpoint of step {self.run.step} to {self.path}, got: {error}; what was there "
                "stays"
            ) from error

    def call(self):
        """Call `on_checkpoint`, with parameters that are its own, constants too."""
        if self.on_checkpoint is not None:
            self.on_checkpoint(copy_constants(self.run.result()), self.run.history)


def check_interval(every):
    """Raise unless `every` is a number of steps or a length of time; return it."""
    if not isinstance(every, timedelta):
        return check_count(every, "checkpoint_every")
    if every <= timedelta(0):
        raise InputError(f"expected checkpoint_every to be longer than no time, got {every}")
    return every
