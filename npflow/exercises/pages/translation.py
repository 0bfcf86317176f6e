"""Exercise translation: turn samples of A into samples of B, through z.

A and B are normal. Their flows subtract the mean, and then undo a lower triangular matrix L:

    f(x) = L_A^-1 (x - mean_A)          the flow of A
    g(y) = L_B^-1 (y - mean_B)          the flow of B

z = f(x) is standard normal if x is distributed as A, and so is g(y) if y is distributed as B. So y = g^-1(f(x)) is
distributed as B, and no pairs of an x and its y are needed.

x has shape (n, D), each mean (D,), each L (D, D). The result has shape (n, D).

Hints:

1. g^-1 undoes the two operations of g in the opposite order: it multiplies by L_B first, and then adds the mean.
2. A row of a batch is a row vector: L z is ``z @ L.T``, and L^-1 x is ``np.linalg.solve(L, x.T).T``.

Mark it: ``npflow exercise translation translation.py``. Book: demos/book/18_what_z_is_good_for.py. The library's
own: translate in npflow/latent.py.
"""

import numpy as np


def translated(x, mean_A, L_A, mean_B, L_B):
    """y = g^-1(f(x)) of each row, shape (n, D)."""
    z = ...
    y = ...
    return y
