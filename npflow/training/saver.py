"""When a training run writes checkpoints and calls `on_checkpoint`."""

import sys
import time
import warnings
from datetime import timedelta
from pathlib import Path

from npflow.autodiff.program.ranks import Ranks
from npflow.description import fingerprint
from npflow.errors import CheckpointError
from npflow.training.run import copy_of
from npflow.training.together import check_alike


class Saver:
    """Writes the checkpoints of a run to a path, `every` number of steps or length of time.

    `settings` is what a run must share with a checkpoint in order to resume it. ``on_checkpoint(params, history)`` is
    called after each checkpoint. Of several `ranks` the first alone writes and calls; the others wait for it.
    """

    def __init__(self, run, path, settings, every, on_checkpoint=None, ranks=None):
        self.run, self.path, self.settings, self.ranks = run, path, settings, ranks or Ranks()
        self.every, self.on_checkpoint = every, on_checkpoint
        self.step, self.time = run.step, time.monotonic()  # of the last checkpoint

    def is_due(self):
        """Whether it is time for a checkpoint."""
        if self.run.step == self.step:
            return False
        if isinstance(self.every, timedelta):
            return self.ranks.first(time.monotonic() - self.time >= self.every.total_seconds())
        return self.run.step % self.every == 0

    def save(self, last=False):
        """Write a checkpoint, and call `on_checkpoint` with a copy of the parameters, constants included.

        Where it cannot be written, as on a full disk, the checkpoint before stays. That is a warning, and for the
        `last` one a `CheckpointError`, which carries what has been learned.
        """
        run, cause = self.run, None
        if self.ranks.size > 1:
            check_alike(self.ranks, {"parameters": fingerprint(run.vector)})
        if self.ranks.is_first:
            try:
                run.save(self.path, self.settings)
            except (OSError, MemoryError) as error:
                cause = error
        cause = self.ranks.first(cause)
        if cause is not None:
            error = str(cause) or "there is not enough memory"
            sentence = (
                f"expected to write the checkpoint of step {run.step} to {self.path}, got: {error}; the last checkpoint "
                "stays"
            )
            if last:
                raise CheckpointError(sentence, run.result(), run.history) from cause
            if self.ranks.is_first:
                warnings.warn(f"{sentence}, and training goes on", RuntimeWarning, stacklevel=callers_level())
        elif self.on_checkpoint is not None and self.ranks.is_first:
            self.on_checkpoint(copy_of(run.result()), run.history)
        self.step, self.time = run.step, time.monotonic()


def callers_level():
    """The `stacklevel` of a warning at the code that called npflow."""
    package, frame, level = str(Path(__file__).parents[1]), sys._getframe(1), 1
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        frame, level = frame.f_back, level + 1
    return level
