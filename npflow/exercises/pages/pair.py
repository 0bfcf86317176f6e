"""Exercise pair: find two pixels from their mean and the difference of their logits.

Two pixels between 0 and 1 have the logits a and b. Given are l, the logit of their mean, and v, the difference of the
logits:

    sigmoid(a) + sigmoid(b) = 2 sigmoid(l)          a - b = v

For each l and v there is exactly one pair. So a flow of v given l keeps the pixels between 0 and 1, and their mean:

    w = l / 2 + arcsinh(sinh(l / 2) cosh(v / 2))
    a = w + v / 2
    b = w - v / 2

    log|det| = log(slope(a) + slope(b)) - log(2 slope(l))       slope(l) = sigmoid(l) sigmoid(-l)

log|det| is that of (a, b) -> (l, v): dl/da = slope(a) / (2 slope(l)) and dv/da = 1. It is the same for b, but
dv/db = -1.

l and v have shape (n,). The result has shape (n, 3), with a, b and log|det| of each row.

Hints:

1. NumPy has ``np.arcsinh``, ``np.sinh`` and ``np.cosh``; `slope` is given below.
2. The halves matter: with v = 0 both pixels have the mean, a = b = l.

Mark it: ``npflow exercise pair pair.py``. Book: demos/book/17_conditioning.py. The library's own: to_pair in
npflow/layers/parting.py.
"""

import numpy as np


def slope(l):
    """The derivative of sigmoid at l."""
    return np.exp(-np.abs(l)) / (1 + np.exp(-np.abs(l))) ** 2


def pair(l, v):
    """a, b and log|det| of each row, shape (n, 3)."""
    w = ...
    a = ...
    b = ...
    log_det = ...
    return np.stack([a, b, log_det], axis=1)
