"""When a training run writes checkpoints and calls `on_checkpoint`."""

import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

from npflow.errors import CheckpointError
from npflow.training.run import copy_of


class Saver:
    """Writes the checkpoints of a run to a path, `every` number of steps or length of time.

    `settings` is what a run must share with a checkpoint in order to resume it. ``on_checkpoint(params, history)`` is
    called after each checkpoint.
    """

    def __init__(self, run, path, settings, every, on_checkpoint=None):
        self.run, self.path, self.settings = run, path, settings
        self.every, self.on_checkpoint = every, on_checkpoint
        self.step, self.time = run.step, time.monotonic()  # of the last checkpoint

    def is_due(self):
        """Whether it is time for a checkpoint."""
        if self.run.step == self.step:
            return False
        if isinstance(self.every, timedelta):
            return time.monotonic() - self.time >= self.every.total_seconds()
        return self.run.step % self.every == 0

    def save(self, last=False):
        """Write a checkpoint, and call `on_checkpoint` with a copy of the parameters, constants included.

        Where it cannot be written, as on a full disk, the checkpoint before stays. That is a warning, and for the
        `last` one a `CheckpointError`, which carries what has been learned.
        """
        run = self.run
        try:
            run.save(self.path, self.settings)
        except (OSError, MemoryError) as cause:
            error = str(cause) or "there is not enough memory"
            sentence = (
                f"expected to write the checkpoint of step {run.step} to {self.path}, got: {error}; the last checkpoint "
                "stays"
            )
            if last:
                raise CheckpointError(sentence, run.result(), run.history) from cause
            warnings.warn(f"{sentence}, and training goes on", RuntimeWarning, stacklevel=callers_level())
        else:
            if self.on_checkpoint is not None:
                self.on_checkpoint(copy_of(run.result()), run.history)
        self.step, self.time = run.step, time.monotonic()


def callers_level():
    """The `stacklevel` of a warning at the code that called npflow."""
    package, frame, level = str(Path(__file__).parents[1]), sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level
