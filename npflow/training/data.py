"""The mini-batches of a run."""

from typing import NamedTuple

import numpy as np


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

    @property
    def size(self):
        """The number of rows."""
        return self.rows.stop - self.rows.start


class Batches:
    """The arrays of a run, none where a model learns from noise alone.

    ``noise(rows, number)`` returns what the model takes beside them at step `number`, a tuple of arrays.
    """

    def __init__(self, arrays):
        self.arrays = arrays

    def take(self, batch, noise, part=None):
        """The arrays of a batch and its noise. Where only a `part` of its rows is read, the other rows are zeros."""
        rows = batch.order[batch.rows]
        return (*(rows_at(array, rows, part) for array in self.arrays), *noise(len(rows), batch.number))

    def chunks(self, noise):
        """Yield all rows in order: here in one chunk."""
        yield (*self.arrays, *noise(len(self.arrays[0]), 0))


def rows_at(array, rows, part=None):
    """The rows of an array at some indices; where only a `part` of the indices is read, the other rows are zeros."""
    if part is None:
        return array[rows]
    taken = np.zeros((len(rows), *array.shape[1:]), array.dtype)  # memory that is not touched takes no time
    taken[part] = array[rows[part]]
    return taken
