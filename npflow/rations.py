"""How much the `init` of an architecture may make.

A file of a few bytes may describe an architecture of any size. Its parameters are compared with those that `init`
makes, and so that nothing of that size is made, `init` gets a ration. So it does where sizes come from the command line.
"""

from functools import lru_cache

import numpy as np

from npflow.description import describe
from npflow.errors import InputError

SMALL = 2**22  # numbers that are made without a second thought
COUNT = 2**16  # a hyper-parameter up to which none is too large
CALL = 2**6  # what a call takes of a ration at least, so that calls are counted too


class TooLarge(InputError):
    """An architecture has many more parameters than it is compared with."""


class Rationed(np.random.Generator):
    """A generator for `init` that draws some numbers, those of ``np.random.default_rng(seed)``, and then raises `TooLarge`."""

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
        sizes = size if isinstance(size, tuple) else (size or 1,)
        numbers = 1
        for one in sizes:  # Python's integers do not overflow
            numbers *= int(one)
        self.left -= max(numbers, CALL)
        if self.left < 0:
            raise TooLarge(
                "expected the parameters of a smaller architecture, got many fewer than this one has"
            )


def ration_for(model, layout):
    """The ration of the `init` of a model whose parameters should have a layout: a power of two, as results are cached.

    Each count among the hyper-parameters, such as of features, layers, bins or components, has as many parameters at
    least, so none is far above the size of the layout.
    """
    if largest_count(model) > max(COUNT, layout.size):
        raise TooLarge(
            f"expected hyper-parameters up to {max(COUNT, layout.size):,} for {layout.size:,} parameters, "
            f"got {largest_count(model):,}"
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
