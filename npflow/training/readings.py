"""The loss and the gradient's norm of each step, as numbers that can be looked at."""

import numpy as np

from npflow.autodiff.gpu.devices import HOST

EVERY = 50  # steps that a device makes between two readings


class Readings:
    """What the steps of a run gave: read at once on the host, and many steps at a time on a device.

    To read a number off a device is to wait until it has done all that it was told. So there the numbers are
    left where they are for a while. Nothing goes wrong meanwhile: `sound` says, on the device, whether all
    numbers so far can be stepped with, and a step that is not sound changes nothing.

    Parameters
    ----------
    run : Run
    check : callable
        `check(batch, loss, norm)`, which raises where a step cannot be made.
    longest : float
        The longest gradient that a step can be made with.
    elapsed : callable
        The seconds that the run has taken until now.

    Attributes
    ----------
    sound : ndarray, shape (), or None
        On a device: whether every step until now could be made.
    """

    def __init__(self, run, check, longest, elapsed):
        self.run, self.check, self.longest, self.elapsed = run, check, longest, elapsed
        self.batches = []  # of the steps that are not read yet
        self.numbers = None if run.device is HOST else run.device.module.zeros((EVERY, 2))
        self.sound = None
        self.timed = len(run.history.seconds)  # how many steps' times are known

    def note(self, loss, norm, batch):
        """Take down a step's loss and the norm of its gradient, before it is made."""
        if self.numbers is None:
            self._settle(batch, float(loss), norm)
            return
        self.numbers[len(self.batches), 0] = loss
        self.numbers[len(self.batches), 1] = norm
        self.batches.append(batch)
        sound = np.isfinite(loss) & np.isfinite(norm) & (norm <= self.longest)
        self.sound = sound if self.sound is None else self.sound & sound
        if len(self.batches) == EVERY:
            self.read()

    def read(self):
        """Look at the steps that have not been looked at."""
        if self.numbers is None or not self.batches:
            return
        numbers = self.run.device.fetch(self.numbers).tolist()  # which waits
        self.run.history.share_out(self.timed, self.elapsed())
        self.timed = len(self.run.history.seconds)
        batches, self.batches, made = self.batches, [], self.run.step
        for batch, (loss, norm) in zip(batches, numbers):
            self.run.step = len(self.run.history.loss)  # as it was then: a failure says which step it was
            self._settle(batch, loss, norm)
        self.run.step = made

    def _settle(self, batch, loss, norm):
        self.check(batch, loss, norm)
        self.run.history.loss.append(loss)
        self.run.history.gradient_norm.append(norm)
