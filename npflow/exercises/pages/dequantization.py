"""Exercise dequantization: how good is a density as a code for pixels?

A pixel is an integer 0 ... levels - 1, and a flow has a density. Noise u in [0, 1) spreads each integer over
its cell:

    y = (x + u) / levels                    between 0 and 1
    log P(x) = log p(y) - D log(levels)     for one draw of u, a bound in the mean

The second term is the change of variables: D numbers are divided by `levels`. A code needs -log P(x) nats for
a row, and a nat is 1 / log(2) bits. Return bits/dim, the bits for each of the D pixels.

x holds integers of shape (n, D), u numbers of the same shape. ``log_prob(y)`` gives log p(y) in nats for rows
of y, shape (n,). The result has shape (n,).

Hints:

1. ``x.shape[1]`` is D.
2. -log P(x) is in nats for the whole row: divide by D log(2).

Mark it: ``npflow exercise dequantization dequantization.py``. Book: demos/book/19_dequantization.py. The
library's own: Dequantized in npflow/dequantization.py.
"""

import numpy as np


def bits_per_dim(log_prob, x, u, levels):
    """-log P(x) / (D log 2) of each row, shape (n,)."""
    y = ...
    log_P = ...  # in nats, shape (n,)
    return ...
