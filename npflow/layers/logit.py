"""The logit: numbers between 0 and 1, such as pixels, become real numbers."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import log_sigmoid, sigmoid, sum_event, where
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
    in that larger interval, the `domain`. Outside it the log-det is -inf, so that the density is zero. The inverse
    stays inside also where rounding would take it to an end.

    Parameters
    ----------
    alpha : float
        At least 0 and below 1/2.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 4.1, with p = alpha + (1 - alpha) x, which
    reaches 1; moved away from both ends as by Papamakarios et al. 2017, Masked autoregressive flow for density
    estimation.

    Examples
    --------
    A pixel at 0 or 1 stays finite:

    >>> import numpy as np
    >>> from npflow.layers import Logit
    >>> z, log_det = Logit(alpha=0.05).forward({}, np.array([[0.0, 0.5, 1.0]]))
    >>> z.round(4)
    array([[-2.9444,  0.    ,  2.9444]])
    """

    alpha: float = number(0.05, least=0, below=0.5)

    @property
    def domain(self):
        """Where 0 < p < 1."""
        beyond = self.alpha / (1 - 2 * self.alpha)
        return -beyond, 1 + beyond

    def forward(self, params, x):
        slope = 1 - 2 * self.alpha
        p = self.alpha + slope * x
        rest = self.alpha + slope * (1 - x)  # 1 - p would lose digits where p is near 1
        inside = np.minimum(p, rest) > 0
        log_p, log_rest = np.log(where(inside, p, 1)), np.log(where(inside, rest, 1))
        log_slope = where(inside, math.log(slope) - log_p - log_rest, -math.inf)
        return log_p - log_rest, sum_event(log_slope)

    def inverse(self, params, z):
        slope, floats = 1 - 2 * self.alpha, onp.finfo(z.dtype)
        low, high = float(floats.eps if self.alpha else floats.tiny), float(1 - floats.eps)
        p = sigmoid(z)
        p = where(p < low, low, where(p > high, high, p))
        x = (p - self.alpha) / slope
        return x, sum_event(log_sigmoid(z) + log_sigmoid(-z) - math.log(slope))
