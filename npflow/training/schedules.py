"""The learning rate as a function of the step."""

import math
from dataclasses import dataclass

from npflow.description import Described
from npflow.errors import InputError
from npflow.validation import check_count, check_number


@dataclass(frozen=True)
class Constant(Described):
    """The same rate at every step."""

    rate: float

    def __post_init__(self):
        object.__setattr__(self, "rate", check_number(self.rate, "the learning rate", above=0))

    def __call__(self, step):
        """The learning rate of step 1, 2, ..."""
        return self.rate


@dataclass(frozen=True)
class WarmupCosine(Described):
    r"""Linear warm-up to the peak, then half a cosine down to zero.

    rate(k) = peak * k / warmup                                                 for k <= warmup
    rate(k) = peak / 2 * (1 + cos(pi * (k - warmup) / (steps - warmup)))        for warmup < k <= steps

    Parameters
    ----------
    peak : float
    steps : int
        The step that reaches zero; the rate stays zero after it.
    warmup : int
        How many steps the warm-up takes, fewer than `steps`.

    Source: Loshchilov & Hutter 2017, SGDR, section 3 (the cosine); Goyal et al. 2017, section 2.2 (warm-up).
    """

    peak: float
    steps: int
    warmup: int = 0

    def __post_init__(self):
        object.__setattr__(self, "peak", check_number(self.peak, "the peak learning rate", above=0))
        object.__setattr__(self, "steps", check_count(self.steps, "the steps of WarmupCosine"))
        object.__setattr__(self, "warmup", check_count(self.warmup, "the warm-up", least=0))
        if self.warmup >= self.steps:
            raise InputError(
                f"expected a warm-up of fewer steps than WarmupCosine's {self.steps}, got {self.warmup}"
            )

    def __call__(self, step):
        """The learning rate of step 1, 2, ..."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        progress = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return 0.5 * self.peak * (1 + math.cos(math.pi * progress))
