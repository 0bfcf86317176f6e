"""The memory that a program writes to."""

import itertools
import math


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

    def __init__(self, device, slots, size, shapes, dtype):
        memory = device.memory(size)
        self.buffers = tuple(slot.array(memory, device) for slot in slots)
        sizes = [math.prod(shape) for shape in shapes]
        self.gradient = device.module.zeros(sum(sizes), dtype)
        ends = itertools.accumulate(sizes)
        self.leaves = tuple(
            self.gradient[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes)
        )
