"""The rows of a data set, where a run needs them."""

from typing import NamedTuple

import numpy as np

from npflow.autodiff.gpu.devices import device_of, to_device

SHARE = 0.5  # of a device's free memory that a data set may take


class Batch(NamedTuple):
    """The rows of a mini-batch: those at `rows`, a slice, of `order`, a permutation of all.

    `number` is that of its step, from 1 on; the noise of the step is drawn from it.
    """

    order: np.ndarray
    rows: slice
    number: int = 0


class Data:
    """An array whose rows are used on a device.

    It is sent there once where it takes at most half of the free memory. A larger one stays where it is, and the rows
    that are asked for are sent each time.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
    device : npflow.autodiff.gpu.device.Device
    """

    def __init__(self, x, device):
        fits = device_of(x) is device or x.nbytes <= SHARE * device.free_bytes()
        self.x = to_device(x, device.name) if fits else x
        self.device, self.is_there = device, fits
        self.order = self.places = None  # the order used last, and the same on the device

    def __len__(self):
        return len(self.x)

    def take(self, batch):
        """The rows of a batch, on the device."""
        order, rows = batch.order, batch.rows
        if not self.is_there:
            return to_device(self.x[order[rows]], self.device.name)
        if order is not self.order:
            self.order, self.places = order, to_device(order, self.device.name)
        return self.x[self.places[rows]]

    def rows_at_once(self):
        """How many rows fit at a time; all where they are there."""
        if self.is_there:
            return len(self.x)
        return max(1, int(0.5 * SHARE * self.device.free_bytes() / self.x[0].nbytes))

    def chunk(self, start, stop):
        """The rows from `start` to `stop`, on the device."""
        return to_device(self.x if stop - start == len(self.x) else self.x[start:stop], self.device.name)


class Batches:
    """The arrays of a run, row by row, and the noise that its model takes beside them.

    Parameters
    ----------
    arrays : tuple of ndarray
        As many rows in each; none where a model is trained on noise alone.
    device : npflow.autodiff.gpu.device.Device
    noise : callable
        ``noise(rows, number)`` is the noise of step `number`, a tuple of arrays.
    """

    def __init__(self, arrays, device, noise):
        self.data, self.noise = [Data(array, device) for array in arrays], noise

    def take(self, batch):
        """The arrays of a batch, on the device."""
        rows = batch.rows.stop - batch.rows.start
        return (*(data.take(batch) for data in self.data), *self.noise(rows, batch.number))

    def chunks(self):
        """All rows in order, in chunks that fit on the device."""
        rows = min(data.rows_at_once() for data in self.data)
        noise = self.noise(len(self.data[0]), 0)
        for start in range(0, len(self.data[0]), rows):
            stop = min(start + rows, len(self.data[0]))
            yield (*(data.chunk(start, stop) for data in self.data), *(array[start:stop] for array in noise))
