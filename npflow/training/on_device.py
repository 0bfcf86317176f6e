"""A training run on a GPU, which does not wait for the numbers of each step."""

from dataclasses import dataclass, field
from functools import partial

import numpy as np

from npflow.autodiff import value_and_grad
from npflow.autodiff.gpu.devices import device_of, to_device
from npflow.autodiff.program.chunks import in_chunks
from npflow.training.data import Batches, rows_at
from npflow.training.run import Run

EVERY = 50  # steps between two readings
SHARE = 0.5  # the share of a device's free memory that a data set may take


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
        _, leaves = value_and_grad(self.model.loss)(self.params, *self.take(batch))
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

    def batches_of(self, arrays):
        return DeviceBatches([Data(array, self.device) for array in arrays])


class DeviceBatches(Batches):
    """Batches of `Data`, which is sent to a device at once or batch by batch."""

    def take(self, batch, noise, part=None):
        return (*(data.take(batch, part) for data in self.arrays), *noise(batch.size, batch.number))

    def chunks(self, noise):
        """Yield all rows in order, in chunks that fit on the device."""
        count, rows = len(self.arrays[0]), min(data.rows_at_once() for data in self.arrays)
        noise = noise(count, 0)
        for start in range(0, count, rows):
            stop = min(start + rows, count)
            yield (
                *(data.chunk(start, stop) for data in self.arrays),
                *(array[start:stop] for array in noise),
            )


class Data:
    """An array whose rows are used on a device.

    An array that takes at most half of the free memory is sent once. A larger one stays where it is, and each batch
    is sent when it is taken.
    """

    def __init__(self, x, device):
        fits = device_of(x) is device or x.nbytes <= SHARE * device.free_bytes()
        self.x = to_device(x, device.name) if fits else x
        self.device, self.is_there = device, fits
        self.order = self.places = None  # the last order, and its copy on the device

    def __len__(self):
        return len(self.x)

    def take(self, batch, part=None):
        """The rows of a batch, on the device; only a `part` of them is sent where the data does not fit there."""
        order, rows = batch.order, batch.rows
        if not self.is_there:
            return to_device(rows_at(self.x, order[rows], part), self.device.name)
        if order is not self.order:
            self.order, self.places = order, to_device(order, self.device.name)
        return self.x[self.places[rows]]

    def rows_at_once(self):
        """The number of rows in a chunk: as many as fit, or all where the array is on the device."""
        if self.is_there:
            return len(self.x)
        return max(1, int(0.5 * SHARE * self.device.free_bytes() / self.x[0].nbytes))

    def chunk(self, start, stop):
        """Rows `start` to `stop`, on the device."""
        return to_device(self.x if stop - start == len(self.x) else self.x[start:stop], self.device.name)
