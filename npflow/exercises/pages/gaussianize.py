"""Exercise gaussianize: make each component normal.

If F is the distribution function of x, then F(x) is uniform, and Phi^-1(F(x)) is standard normal, where Phi
is the distribution function of the standard normal.

    z = Phi^-1(F(x))                F(x) = sum_k w_k sigmoid((x - mean_k) / scale_k)

A probability p is kept as its logit, log p - log(1 - p), which is exact also where p is near 0 or 1. Four
functions are given. All but the mixture's slope take and return arrays like x, shape (n, D):

    logit, log_slope = logistic_mixture(x, **params)        the logit of F(x), and log(d logit / dx)
    x = mixture_quantile(logit, **params)                   the x where F has this logit
    z = normal_of_logit(logit)                              Phi^-1 of the probability with this logit
    logit = logit_of_normal(z)                              the logit of Phi(z)
    log_normal_slope(z, logit)                              log(dz / d logit)

Work out the log-det: z_i depends on x_i alone, through logit_i. Use the chain rule.

Hints:

1. dz/dx = (dz / d logit) (d logit / dx). Its logarithm is a sum.
2. Sum the log-slopes of the components of a row: axis 1.
3. For the inverse find x first. Then take the log-slopes there, with the other sign.

Mark it: ``npflow exercise gaussianize gaussianize.py``. Book: demos/book/12_gaussianization.py. The library's
own: Gaussianize in npflow/layers/gaussianization.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Gaussianize, Layer
from npflow.layers.gaussianization import (
    log_normal_slope,
    logistic_mixture,
    logit_of_normal,
    mixture_quantile,
    normal_of_logit,
)


@dataclass(frozen=True)
class MyGaussianize(Layer):
    """A distribution function for each component, and then the normal quantile function."""

    components: int = 3

    def init(self, rng, x):
        """Means, log-scales and log-weights of each mixture, fitted to the batch."""
        return Gaussianize(self.components).init(rng, x)

    def forward(self, params, x):
        """x -> z, and log|det dz/dx| of each row."""
        z = ...
        log_det = ...
        return z, log_det

    def inverse(self, params, z):
        """z -> x, and log|det dx/dz| of each row."""
        x = ...
        log_det = ...
        return x, log_det
