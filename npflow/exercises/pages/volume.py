"""Exercise volume: by which factor does a matrix change volumes?

A linear map z = A x takes the unit cube to a parallelepiped of volume |det A|. Return the logarithm of this
factor for each of n matrices: a flow adds such logarithms.

    log_volume(A) = log|det A|

A has shape (n, D, D), the result has shape (n,).

Hints:

1. np.linalg.det takes all n matrices at once.
2. Half of all matrices turn space over, as a mirror does. What is their volume?

Mark it: ``npflow exercise volume volume.py``. Book: demos/book/01_volumes.py. The library's own: log_abs_det
in npflow/verify/jacobians.py.
"""

import numpy as np


def log_volume(A):
    """log|det A| of each matrix, shape (n,)."""
    return ...
