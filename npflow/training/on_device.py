"""A training run on a GPU, which does not wait for the numbers of each step."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from npflow.autodiff import value_and_grad
from npflow.autodiff.program.chunks import in_chunks
from npflow.training.run import Run

EVERY = 50  # steps between two readings


@dataclass
class DeviceRun(Run):
    """A run on a device, whose losses are read every 50 steps.

    To read a number off a device is to wait until all its work is done. So losses and norms stay there for a while.
    Until they are read, `sound` says on the device whether every step so far could be made; a step that is not sound
    changes nothing.
    """

    waiting: list = field(default_factory=list)  # the batches of steps that have not been read
    numbers: object = None  # their losses and norms, on the device
    sound: object = None
    timed: int = 0  # how many steps have their time

    def note(self, batch, loss, norm, gradient):
        if self.numbers is None:
            self.numbers, self.timed = self.device.module.zeros((EVERY, 2)), len(self.history.seconds)
        self.numbers[len(self.waiting), 0] = loss
        self.numbers[len(self.waiting), 1] = norm
        self.waiting.append(batch)
        sound = np.isfinite(loss) & np.isfinite(norm) & (norm <= self.longest_gradient)
        self.sound = sound if self.sound is None else self.sound & sound
        if len(self.waiting) == EVERY:
            self.read()

    def read(self):
        if not self.waiting:
            return
        numbers = self.device.fetch(self.numbers).tolist()  # this waits
        self.history.share_out(self.timed, self.elapsed())
        self.timed = len(self.history.seconds)
        waiting, self.waiting = self.waiting, []
        for batch, (loss, norm) in zip(waiting, numbers):
            gradient = None if np.isfinite(norm) else self.gradient_of(batch)
            self.check_step(batch, loss, norm, gradient)
            self.history.loss.append(loss)
            self.history.gradient_norm.append(norm)

    def gradient_of(self, batch):
        """The gradient of a step that was not sound: the parameters are still those that it began with."""
        _, leaves = value_and_grad(self.model.loss)(self.params, *self.batches.take(batch))
        return self.layout.pack(leaves)

    def update(self, batch, gradient):
        sound, held = self.sound, self.vector.copy()
        held_average = None if self.average is None else self.average.copy()
        before = self.before.copy()
        rate = super().update(batch, gradient)
        for vector, old in ((self.vector, held), (self.before, before), (self.average, held_average)):
            if vector is not None:
                in_chunks(partial(np.copyto, where=~sound), vector, old)
        return rate
