"""The memory that a program writes to."""

import itertools
import math


class Workspace:
    """The memory for the intermediate results of one run of a program; later runs use it again.

    Attributes
    ----------
    buffers : tuple of ndarray
        The places of the results.
    """

    def __init__(self, device, slots, size):
        memory = device.memory(size)
        self.buffers = tuple(slot.array(memory, device) for slot in slots)


class Gradient:
    """The memory for the gradient of a program: one vector.

    Attributes
    ----------
    vector : ndarray
    leaves : tuple of ndarray
        Its views, one for each parameter.
    """

    def __init__(self, device, shapes, dtype):
        sizes = [math.prod(shape) for shape in shapes]
        self.vector = device.module.zeros(sum(sizes), dtype)
        ends = itertools.accumulate(sizes)
        self.leaves = tuple(
            self.vector[end - size : end].reshape(shape) for end, size, shape in zip(ends, sizes, shapes)
        )
