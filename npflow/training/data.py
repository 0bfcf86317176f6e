"""The rows of a data set, where a run needs them."""

from typing import NamedTuple

import numpy as np

from npflow.autodiff.devices import device_of, to_device

SHARE = 0.5  # of a device's free memory that a data set may take


class Batch(NamedTuple):
    """Which rows a mini-batch has: those at `rows`, a slice, of `order`, a permutation of all."""

    order: np.ndarray
    rows: slice


class Data:
    """A data set whose rows are used on a device.

    It is sent there once where it fits, at most half of what is free; a larger one stays where it is, and
    what is asked for is sent each time.

    Parameters
    ----------
    x : ndarray, shape (n, *event)
    device : npflow.autodiff.device.Device
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
        order, rows = batch
        if not self.is_there:
            return to_device(self.x[order[rows]], self.device.name)
        if order is not self.order:
            self.order, self.places = order, to_device(order, self.device.name)
        return self.x[self.places[rows]]

    def pieces(self):
        """All rows in order: in one piece where they are there, else in pieces that fit."""
        if self.is_there:
            yield self.x
            return
        rows = max(1, int(0.5 * SHARE * self.device.free_bytes() / self.x[0].nbytes))
        for start in range(0, len(self.x), rows):
            yield to_device(self.x[start : start + rows], self.device.name)
