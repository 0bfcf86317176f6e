"""Learning-rate schedules: the rate as a function of the step."""

import math
from dataclasses import dataclass

from npflow.description import Described, count, number
from npflow.errors import InputError


@dataclass(frozen=True)
class Constant(Described):
    """The same learning rate at every step.

    Examples
    --------
    >>> from npflow.training import Constant
    >>> Constant(1e-3)(step=1)
    0.001
    """

    rate: float = number(above=0)

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
        The largest learning rate.
    steps : int
        The step at which the rate reaches zero. It stays zero after that.
    warmup : int
        The number of warm-up steps, less than `steps`.

    References
    ----------
    Loshchilov, Hutter: SGDR: Stochastic gradient descent with warm restarts, 2017, section 3 (the cosine).
    https://arxiv.org/abs/1608.03983

    Goyal et al.: Accurate, large minibatch SGD, 2017, section 2.2 (the warm-up).
    https://arxiv.org/abs/1706.02677

    Examples
    --------
    >>> from npflow.training import WarmupCosine
    >>> schedule = WarmupCosine(peak=0.01, steps=100, warmup=20)
    >>> schedule(10), schedule(20), schedule(60), schedule(100)
    (0.005, 0.01, 0.005, 0.0)
    """

    peak: float = number(above=0)
    steps: int = count()
    warmup: int = count(0, least=0)

    def __post_init__(self):
        super().__post_init__()
        if self.warmup >= self.steps:
            raise InputError(
                f"expected WarmupCosine's warmup to be less than its {self.steps} steps, got {self.warmup}"
            )

    def __call__(self, step):
        """The learning rate of step 1, 2, ..."""
        if step <= self.warmup:
            return self.peak * step / self.warmup
        progress = min(1.0, (step - self.warmup) / (self.steps - self.warmup))
        return 0.5 * self.peak * (1 + math.cos(math.pi * progress))
