"""Exercise bound: what does a VAE know about log p(x), with a flow after its encoder?

For each x the encoder gives mean and log_std, of d numbers each. Each of K draws goes through a flow:

    z_0 = mean + exp(log_std) epsilon           epsilon from N(0, I)
    z = f(z_0)                                  log_det = log|det dz/dz_0|

The mean of w = p(x | z) p(z) / q(z | x) over z from q(z | x) is p(x). So this is on average a lower bound of log p(x),
the importance-weighted bound:

    log(1/K sum_k w_k)

For K = 1 it is an estimate of the ELBO. Its mean rises with K. The prior p(z) is N(0, I).

log_likelihood = log p(x | z) has shape (n, K), log_std (n, d), epsilon and z (n, K, d), log_det (n, K), all in nats. The
result has shape (n,). log w may be -1000, where exp(log w) is 0.

Hints:

1. z_0 is epsilon, scaled and shifted. `log_normal` is the density of epsilon; each of the two steps from epsilon to z
   changes it.
2. Subtract the largest log w of a row before exp, and add it afterwards.

Mark it: ``npflow exercise bound bound.py``. Book: demos/book/20_flows_beside_other_models.py. The library's own:
VAE in npflow/models/vae.py.
"""

import numpy as np


def log_normal(z):
    """log N(z; 0, I), over the last axis."""
    return -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=-1)


def bound(log_likelihood, log_std, epsilon, z, log_det):
    """The bound of each row, shape (n,), in nats."""
    log_q = ...  # log q(z | x), shape (n, K)
    log_w = ...
    largest = np.max(log_w, axis=1, keepdims=True)
    w = np.exp(log_w - largest)
    return ...
