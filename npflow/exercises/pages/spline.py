"""Exercise spline: a monotone curve of rational-quadratic pieces (neural spline flows).

A component x inside [-bound, bound] lies in a bin between two knots, (x0, y0) and (x1, y1), where the curve
has the slopes d0 and d1. With

    w = x1 - x0         h = y1 - y0         s = h / w
    t = (x - x0) / w    u = 1 - t           the shares of the bin's width on the left and on the right of x
    D = s + (d0 + d1 - 2 s) t u

the curve and its slope are

    z = y0 + h (s t^2 + d0 t u) / D
    dz/dx = s^2 (d1 t^2 + 2 s t u + d0 u^2) / D^2

For the inverse let y = z - y0. Then t is a root of A t^2 + B t + C = 0, with

    A = h (s - d0) + y (d0 + d1 - 2 s)
    B = h d0 - y (d0 + d1 - 2 s)
    C = -s y
    t = 2 C / (-B - sqrt(B^2 - 4 A C))      this form stays exact where A is near 0

Then x = x0 + t w. Work out the log-slope of the inverse: use the slope of the curve at this t.

``raw`` are unconstrained numbers, from which ``self.bin_of`` makes the knots and slopes: the parameters of the
layer. ``self.bin_of(raw, x, axis=0)`` finds the bin of each component by x, and with ``axis=1`` by y, for the
inverse. It returns where components lie outside of [-bound, bound], the components with harmless numbers in
these places, and the knots and slopes of their bins. All are like x. Outside the curve is z = x. The class
adds up log-slopes over a row: return the log-slope of each component.

Hints:

1. ``np.where(outside, x, z)`` takes x where the component lies outside. The log-slope there is 0.
2. ``inside`` are the components to compute with: in place of x, and of z in `untransform`.
3. In `untransform`, write the slope with the t that you have found. The inverse has the slope 1 / (dz/dx).

Mark it: ``npflow exercise spline spline.py``. Book: demos/book/13_splines.py. The library's own: Spline in
npflow/layers/spline.py.
"""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.layers import Spline


@dataclass(frozen=True)
class MySpline(Spline):
    """A spline of each component; its bins are found by the base class."""

    def transform(self, raw, x):
        """x -> z, and log(dz/dx) of each component, both like x."""
        outside, inside, (x0, x1, y0, y1), (d0, d1) = self.bin_of(raw, x, axis=0)
        z = ...
        log_slope = ...
        return z, log_slope

    def untransform(self, raw, z):
        """z -> x, and log(dx/dz) of each component, both like z."""
        outside, inside, (x0, x1, y0, y1), (d0, d1) = self.bin_of(raw, z, axis=1)
        x = ...
        log_slope = ...
        return x, log_slope
