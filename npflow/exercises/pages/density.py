"""Exercise density: if z is normal and x = exp(z), how is x distributed?

The change of variables for z = f(x):

    log p(x) = log prior(z) + log|det J|            J = df/dx

Here each component of z is standard normal, and x_i = exp(z_i). So f is the logarithm of each component.

    log prior(z) = sum_i (-z_i^2 / 2 - log(2 pi) / 2)

x has shape (n, D) with positive numbers, the result has shape (n,), one log-density for each row.

Hints:

1. The Jacobian of z_i = log(x_i) is diagonal. Its entries are the derivatives of log.
2. The determinant of a diagonal matrix is the product of the diagonal. Its logarithm is a sum.

Mark it: ``npflow exercise density density.py``. Book: demos/book/02_change_of_variables.py. The library's
own: Flow.log_prob in npflow/flow.py.
"""

import numpy as np


def log_prob(x):
    """log p(x) of each row in nats, shape (n,)."""
    z = ...  # f(x)
    log_prior = ...  # log prior(z) of each row
    log_det = ...  # log|det df/dx| of each row
    return log_prior + log_det
