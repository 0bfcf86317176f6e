"""The memory that a program writes to."""

import itertools
import math

import numpy as np

from npflow.autodiff.program.buffers import ALIGNMENT


class Workspace:
    """The memory that one run of a program writes to.

    Attributes
    ----------
    buffers : tuple of ndarray
        The places of intermediate results.
    gradient : ndarray
        The gradient, one vector.
    leaves : tuple of ndarray
        Its views, one for each parameter.
    """

    def __init__(self, slots, size, shapes, dtype):
        memory = np.empty(size + ALIGNMENT, np.uint8)
        memory = memory[-memory.ctypes.data % ALIGNMENT :]
        self.buffers = tuple(slot.array(memory) for slot in slots)
        sizes = [math.prod(shape) for shape in shapes]
        self.gradient = np.zeros(sum(sizes), dtype)
        ends = itertools.accumulate(sizes)
        self.leaves = tuple(
            self.gradient[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes)
        )
