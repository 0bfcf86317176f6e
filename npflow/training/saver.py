"""When a training run writes checkpoints and calls `on_checkpoint`."""

import time
import warnings
from datetime import timedelta

from npflow.training.run import copy_constants


class Saver:
    """Writes the checkpoints of a run to a path.

    Parameters
    ----------
    run : Run
        At its first step, or resumed.
    path : Path
    settings : dict
        What a run must share with a checkpoint in order to resume it, as plain data.
    every : int or timedelta
        The number of steps, or the time, between checkpoints.
    on_checkpoint : callable, optional
        ``on_checkpoint(params, history)`` is called after each checkpoint.
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

    def save(self):
        """Write a checkpoint, and call `on_checkpoint`.

        Raises
        ------
        OSError
            If it cannot be written, as on a full disk. The last checkpoint stays.
        """
        self.write()
        self.call()

    def try_to_save(self):
        """Write a checkpoint, and call `on_checkpoint`; warn if it cannot be written."""
        try:
            self.write()
        except OSError as error:
            # Level 3 is the call of `fit`.
            warnings.warn(f"{error}, and training goes on", RuntimeWarning, stacklevel=3)
        else:
            self.call()
        self.step, self.time = self.run.step, time.monotonic()

    def write(self):
        """Write a checkpoint; an error says which, and that the last one stays."""
        try:
            self.run.save(self.path, self.settings)
        except OSError as error:
            raise OSError(
                f"expected to write the checkpoint of step {self.run.step} to {self.path}, got: {error}; the last "
                "checkpoint stays"
            ) from error

    def call(self):
        """Call `on_checkpoint` with a copy of the parameters, constants included."""
        if self.on_checkpoint is not None:
            self.on_checkpoint(copy_constants(self.run.result()), self.run.history)
