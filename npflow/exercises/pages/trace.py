"""Exercise trace: what is the log-determinant of a flow along a velocity field?

Points move along a velocity field, dx/dt = f(t, x), from t = 0 to 1. With F = df/dx the log-determinant of this map is
the integral of the trace:

    log|det J| = integral of tr F dt            E[v^T F v] = tr F for random signs v

Take `steps` steps of Euler's method, of length h = 1 / steps. A step adds to x and to log_det h times their rate of
change, at the x before the step. For x the rate is f. For log_det it is Hutchinson's estimate v^T F v, with the same v
in all steps.

velocity(t, x) is f, shape (n, D). product(t, x, v) is F v of each row, shape (n, D). x and v have shape (n, D).

Hints:

1. v^T F v of a row is the dot product of v and F v.
2. Compute the estimate before x moves.

Mark it: ``npflow exercise trace trace.py``. Book: demos/book/16_continuous_flows.py. The library's
own: Continuous.forward_estimate in npflow/layers/continuous.py.
"""

import numpy as np


def follow(velocity, product, x, v, steps):
    """The x at t = 1 and the estimated log-det, shape (n,), side by side: shape (n, D + 1)."""
    log_det, h = np.zeros(len(x)), 1 / steps
    for k in range(steps):
        t = k * h
        trace = ...  # the estimate of tr F at t and x, for each row
        log_det = ...
        x = ...
    return np.concatenate([x, log_det[:, None]], axis=1)
