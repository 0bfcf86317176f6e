"""The logit: numbers between 0 and 1, such as pixels, become real numbers."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import log_sigmoid, sigmoid, sum_event
from npflow.description import number
from npflow.layers.layer import Layer


@dataclass(frozen=True)
class Logit(Layer):
    r"""The logit of numbers between 0 and 1, which are first moved away from both ends; nothing is trained.

    z = log p - log(1 - p)                  p = alpha + (1 - 2 alpha) x
    x = (sigmoid(z) - alpha) / (1 - 2 alpha)
    log|det J| = sum(log(1 - 2 alpha) - log p - log(1 - p))

    Behind it a flow is over real numbers and has no bounds to learn. Without alpha a pixel at 0 or 1 would go to
    infinity. With alpha, the map is finite up to alpha / (1 - 2 alpha) beyond 0 and 1, and the inverse gives numbers
    in that larger interval.

    Parameters
    ----------
    alpha : float
        At least 0 and below 1/2; with 0, x must lie inside (0, 1).

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 4.1, with p = alpha + (1 - alpha) x, which
    reaches 1; moved away from both ends as by Papamakarios et al. 2017, Masked autoregressive flow for density
    estimation.
    """

    alpha: float = number(0.05, least=0, below=0.5)

    @property
    def domain(self):
        """(0, 1); without alpha the ends themselves are excluded."""
        end = 0.0 if self.alpha else float(onp.finfo(onp.float32).eps)
        return end, 1.0 - end

    def forward(self, params, x):
        slope = 1 - 2 * self.alpha
        log_p = np.log(self.alpha + slope * x)
        log_rest = np.log(self.alpha + slope * (1 - x))  # 1 - p would lose digits where p is near 1
        return log_p - log_rest, sum_event(math.log(slope) - log_p - log_rest)

    def inverse(self, params, z):
        slope = 1 - 2 * self.alpha
        x = (sigmoid(z) - self.alpha) / slope
        return x, sum_event(log_sigmoid(z) + log_sigmoid(-z) - math.log(slope))
