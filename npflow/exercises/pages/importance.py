"""Exercise importance: what do samples of a flow say about another density?

A flow q is to stand for a density p, of which only p~ = Z p is known. A sample of q is x = g(z) with z from the prior,
and log|det dx/dz| comes with it. Its weight is

    w = p~(x) / q(x)            log q(x) = log prior(z) - log|det dx/dz|

From n weights follow the estimate of log Z, and the effective sample size as a share of n:

    log Z = log(mean of w)      ESS = (sum of w)^2 / (n (sum of w^2))

All arguments have shape (n,), in nats. The result is an array of two numbers, log Z and ESS. log w may be
1000 or -1000, where exp(log w) is inf or 0.

Hints:

1. The log of a ratio is a difference.
2. Subtract the largest log w before exp, and add it to log Z afterwards. ESS does not change when all weights are
   multiplied by a number.

Mark it: ``npflow exercise importance importance.py``. Book: demos/book/02_change_of_variables.py. The library's
own: importance_sample in npflow/training/importance.py.
"""

import numpy as np


def estimates(log_density, log_prior, log_det):
    """log Z in nats and the effective sample size, shape (2,), from log p~(x), log prior(z) and log|det dx/dz|."""
    log_w = ...  # of each sample
    largest = np.max(log_w)
    w = np.exp(log_w - largest)
    log_z = ...
    share = ...  # ESS
    return np.array([log_z, share])
