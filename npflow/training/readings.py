"""The loss and the gradient's norm of each step, as numbers that can be looked at."""

import numpy as np

from npflow.autodiff.devices import HOST

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
        `check(rows, loss, norm)`, which raises where a step cannot be made.
    longest : float
        The longest gradient that a step can be made with.

    Attributes
    ----------
    sound : ndarray, shape (), or None
        On a device: whether every step until now could be made.
    """

    def __init__(self, run, check, longest):
        self.run, self.check, self.longest = run, check, longest
        self.rows = []  # of the steps that are not read yet
        self.on_host, self.sound = run.device is HOST, None
        self.numbers = None if self.on_host else run.device.module.zeros((EVERY, 2))

    def note(self, loss, norm, rows):
        """Take down a step's loss and the norm of its gradient, before it is made."""
        if self.on_host:
            self._settle(rows, float(loss), norm)
            return
        self.numbers[len(self.rows), 0] = loss
        self.numbers[len(self.rows), 1] = norm
        self.rows.append(rows)
        sound = np.isfinite(loss) & np.isfinite(norm) & (norm <= self.longest)
        self.sound = sound if self.sound is None else self.sound & sound
        if len(self.rows) == EVERY:
            self.read()

    def read(self):
        """Look at the steps that have not been looked at."""
        if not self.rows:
            return
        rows, self.rows = self.rows, []
        numbers = self.run.device.fetch(self.numbers).tolist()
        made = self.run.step
        for taken, (loss, norm) in zip(rows, numbers):
            self.run.step = len(self.run.history.loss)  # as it was then: a failure says which step it was
            self._settle(taken, loss, norm)
        self.run.step = made

    def _settle(self, rows, loss, norm):
        self.check(rows, loss, norm)
        self.run.history.loss.append(loss)
        self.run.history.gradient_norm.append(norm)
