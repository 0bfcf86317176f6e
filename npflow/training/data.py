"""The rows of a data set, on the device of a run."""

from typing import NamedTuple

import numpy as np

from npflow.autodiff.gpu.devices import device_of, to_device

SHARE = 0.5  # the share of a device's free memory that a data set may take


class Batch(NamedTuple):
    """Which rows a mini-batch has: ``order[rows]``.

    Attributes
    ----------
    order : ndarray of int, shape (n,)
        A permutation of all rows.
    rows : slice
    number : int
        The number of the step, from 1 on; it seeds the noise of the step.
    """

    order: np.ndarray
    rows: slice
    number: int = 0


class Data:
    """An array whose rows are used on a device.

    An array that takes at most half of the free memory is sent once. A larger one stays where it is, and each batch
    is sent when it is taken.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
    device : npflow.autodiff.gpu.device.Device
    """

    def __init__(self, x, device):
        fits = device_of(x) is device or x.nbytes <= SHARE * device.free_bytes()
        self.x = to_device(x, device.name) if fits else x
        self.device, self.is_there = device, fits
        self.order = self.places = None  # the last order, and its copy on the device

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
        """The number of rows in a chunk: as many as fit, or all where the array is on the device."""
        if self.is_there:
            return len(self.x)
        return max(1, int(0.5 * SHARE * self.device.free_bytes() / self.x[0].nbytes))

    def chunk(self, start, stop):
        """Rows `start` to `stop`, on the device."""
        return to_device(self.x if stop - start == len(self.x) else self.x[start:stop], self.device.name)


class Batches:
    """The arrays of a run, and the noise that its model takes beside them.

    Parameters
    ----------
    arrays : tuple of ndarray
        All with n rows; none where a model learns from noise alone.
    device : npflow.autodiff.gpu.device.Device
    noise : callable
        ``noise(rows, number)`` returns the noise of step `number`, a tuple of arrays.
    """

    def __init__(self, arrays, device, noise):
        self.data, self.noise = [Data(array, device) for array in arrays], noise

    def take(self, batch):
        """The arrays of a batch and its noise, on the device."""
        rows = batch.rows.stop - batch.rows.start
        return (*(data.take(batch) for data in self.data), *self.noise(rows, batch.number))

    def chunks(self):
        """Yield all rows in order, in chunks that fit on the device."""
        rows = min(data.rows_at_once() for data in self.data)
        noise = self.noise(len(self.data[0]), 0)
        for start in range(0, len(self.data[0]), rows):
            stop = min(start + rows, len(self.data[0]))
            yield (*(data.chunk(start, stop) for data in self.data), *(array[start:stop] for array in noise))
