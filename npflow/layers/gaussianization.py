"""Gaussianization, component by component: through a learned distribution function, and the normal quantiles."""

from dataclasses import dataclass

import numpy as np

from npflow.autodiff.primitives import sum_event
from npflow.autodiff.quantiles import (
    log_normal_slope,
    logistic_mixture,
    logit_of_normal,
    mixture_quantile,
    normal_of_logit,
)
from npflow.layers.layer import Layer
from npflow.layers.logistics import fit_logistics
from npflow.validation import check_count


@dataclass(frozen=True)
class Gaussianize(Layer):
    r"""Each component through its distribution function F, and then through the normal quantile function Phi^-1.

    z = Phi^-1(F(x))        F(x) = sum_k w_k sigmoid((x - mean_k) / scale_k)
    x = F^-1(Phi(z))        log|det J| = sum(log F'(x) - log Phi'(z))

    F is a mixture of logistics, one for each component of an event. Where it is the distribution of x, F(x) is
    uniform and z standard normal: so it starts, fitted to the first batch without gradients.

    It has no bounds. All is computed from the logits of probabilities, which neither tail rounds away. Beyond three
    standard deviations Phi goes on as a logistic would, straight in its logit, as F does far out: what is far out
    moves in proportion, both ways, in each of many layers. (With a normal's own tail, one layer's inverse squares
    it; of a chain of fifteen some draws are not finite.)

    Parameters
    ----------
    components : int
        How many logistics a mixture has.

    References
    ----------
    Chen, Gopinath: Gaussianization, 2000, section 3.

    Meng, Song, Song, Ermon: Gaussianization flows, 2020, section 3.1.
    https://arxiv.org/abs/2003.01941
    """

    components: int = 8

    def __post_init__(self):
        check_count(self.components, "Gaussianize's components")

    def init(self, rng, x):
        columns = x.reshape(len(x), -1).T.astype(np.float64)
        fits = [fit_logistics(column, self.components) for column in columns]
        return {
            name: np.array(rows, x.dtype).reshape(*x.shape[1:], self.components)
            for name, rows in zip(("means", "log_scales", "log_weights"), zip(*fits))
        }

    def forward(self, params, x):
        logit, log_slope = logistic_mixture(x, **params)
        z = normal_of_logit(logit)
        return z, sum_event(log_slope + log_normal_slope(z, logit))

    def inverse(self, params, z):
        logit = logit_of_normal(z)
        x = mixture_quantile(logit, **params)
        _, log_slope = logistic_mixture(x, **params)
        return x, -sum_event(log_slope + log_normal_slope(z, logit))
