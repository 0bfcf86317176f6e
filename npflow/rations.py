"""A limit on the random numbers that the `init` of an architecture may draw.

A file of a few bytes may describe an architecture of any size. The limit stops `init` before it makes parameters that
are far larger than those in the file, or, where sizes come from the command line, than memory.
"""

import math
from functools import lru_cache

import numpy as np

from npflow.description import describe
from npflow.errors import InputError

SMALL = 2**22  # arrays of as many numbers may always be made
COUNT = 2**16  # hyper-parameters up to this are never too large
CALL = 2**6  # the least that a call takes of a ration, so that many small ones use it up too


class TooLarge(InputError):
    """An architecture has far more parameters than the tree that it is compared with."""


class Rationed(np.random.Generator):
    """``np.random.default_rng(seed)`` for an `init`: raises `TooLarge` once more than `ration` numbers are drawn."""

    def __init__(self, ration, seed=0):
        super().__init__(np.random.PCG64(seed))
        self.left = ration

    def standard_normal(self, size=None, *args, **options):
        self.take(size)
        return super().standard_normal(size, *args, **options)

    def normal(self, loc=0.0, scale=1.0, size=None):
        self.take(size)
        return super().normal(loc, scale, size)

    def uniform(self, low=0.0, high=1.0, size=None):
        self.take(size)
        return super().uniform(low, high, size)

    def random(self, size=None, *args, **options):
        self.take(size)
        return super().random(size, *args, **options)

    def permutation(self, x, axis=0):
        self.take(np.size(x) if np.ndim(x) else x)
        return super().permutation(x, axis)

    def take(self, size):
        """Take the numbers of an array from the ration."""
        sizes = () if size is None else size if np.iterable(size) else (size,)
        self.left -= max(math.prod(map(int, sizes)), CALL)  # Python's integers do not overflow
        if self.left < 0:
            raise TooLarge(
                "expected the parameters of a smaller architecture, got many fewer than this one has"
            )


def ration_for(model, layout):
    """The ration for the `init` of a model whose parameters should have a layout.

    It is a power of two, so that layouts of about one size share what is cached for a ration. A count among the
    hyper-parameters, such as of features, layers, bins or components, has at least as many parameters, so one far above
    the size of the layout is refused.
    """
    most, got = max(COUNT, layout.size), largest_count(model)
    if got > most:
        raise TooLarge(
            f"expected hyper-parameters up to {most:,} for {layout.size:,} parameters, got {got:,}"
        )
    return 1 << (16 * layout.size + SMALL).bit_length()


@lru_cache(maxsize=64)
def largest_count(model):
    """The largest integer among the hyper-parameters of a model; 0 where they are not plain data."""
    try:
        return max(integers(describe(model)), default=0)
    except InputError:
        return 0


def integers(description):
    """The integers in a description."""
    if isinstance(description, dict):
        description = list(description.values())
    if isinstance(description, list):
        for one in description:
            yield from integers(one)
    elif isinstance(description, int):
        yield description
