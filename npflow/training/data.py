"""The rows of a data set, where a run needs them."""

from typing import NamedTuple

import numpy as np

from npflow.autodiff.gpu.devices import device_of, to_device

SHARE = 0.5  # of a device's free memory that a data set may take


class Batch(NamedTuple):
    """Which rows a mini-batch has: those at `rows`, a slice, of `order`, a permutation of all.

    `number` is the step's that it is for, which its noise is drawn by.
    """

    order: np.ndarray
    rows: slice
    number: int = 0


class Data:
    """A data set whose rows are used on a device.

    It is sent there once where it fits, at most half of what is free; a larger one stays where it is, and
    what is asked for is sent each time.

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
        """How many rows fit at a time: all where they are there."""
        if self.is_there:
            return len(self.x)
        return max(1, int(0.5 * SHARE * self.device.free_bytes() / self.x[0].nbytes))

    def piece(self, start, stop):
        """The rows from one number to another, on the device."""
        return to_device(self.x if stop - start == len(self.x) else self.x[start:stop], self.device.name)


class Batches:
    """What a run is made on: rows of one or several arrays, and beside them the noise that its model takes.

    Parameters
    ----------
    run : Run
    arrays : tuple of ndarray
        As many rows in each; none where a model is trained on noise alone.
    """

    def __init__(self, run, arrays):
        self.run, self.data = run, [Data(array, run.device) for array in arrays]

    def take(self, batch):
        """The arrays of a batch, on the device."""
        rows = batch.rows.stop - batch.rows.start
        return (*(data.take(batch) for data in self.data), *self.run.noise(rows, batch.number))

    def pieces(self):
        """All rows in order: in one piece where they are there, else in pieces that fit."""
        rows = min(data.rows_at_once() for data in self.data)
        noise = self.run.noise(len(self.data[0]), 0)
        for start in range(0, len(self.data[0]), rows):
            stop = min(start + rows, len(self.data[0]))
            yield (*(data.piece(start, stop) for data in self.data), *(array[start:stop] for array in noise))
