"""The monotone rational-quadratic spline."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import fresh, softplus, tanh, transparent, where
from npflow.description import count, number
from npflow.layers.elementwise import Elementwise

LEAST = (
    1e-3  # the smallest share of a bin in width and height, and the smallest slope, as in the paper's code
)
STEEPEST = 1e4  # the largest slope at a knot
ONE = float(onp.log(onp.expm1(1 - LEAST)))  # where LEAST + softplus is 1


@dataclass(frozen=True)
class Spline(Elementwise):
    r"""A monotone rational-quadratic spline of each component; starts as the identity.

    Inside [-bound, bound], in a bin of width w and height h that begins at the knot (x0, y0), with slopes d0 and
    d1 at its two knots and s = h / w between them:

    z = y0 + h q        q = (s t^2 + d0 t u) / D        t = (x - x0) / w        u = 1 - t
                        D = s t^2 + (d0 + d1) t u + s u^2
    x = x0 + w t        t = 2 s q / (2 s q + r + a)     q = (z - y0) / h        p = 1 - q
                        a = d0 p - d1 q                 r = sqrt(a^2 + 4 s^2 q p)

    log|det J| = sum(log(s^2 (d1 t^2 + 2 s t u + d0 u^2) / D^2))

    Outside, z = x. The slopes at the outermost knots are 1, so value and slope are continuous everywhere.

    D is the paper's s + (d0 + d1 - 2 s) t u, and r^2 its discriminant b^2 - 4 a c divided by h^2. Here both are sums
    of terms that are not negative, so rounding cannot make them negative. Where a < 0, the same number is computed as
    t = (r - a) / (r - a + 2 s p), without cancellation.

    The width and the height of a bin are 2 bound (l + (1 - bins l) softmax(raw)), with l = 0.001. The slope at a knot
    is l + softplus(S tanh(raw / S) + c). The constant c makes the slope 1 at raw = 0 (the paper's code has no such
    constant). S = 10,000 bounds the slope, so that float32 can compute with it for any output of a network; it
    changes raw = 5 by less than 1e-6.

    Parameters
    ----------
    bins : int
    bound : float
        The spline acts on [-bound, bound]; below a million, as the rounding of knots grows with it.

    References
    ----------
    Durkan et al. 2019, Neural spline flows, section 3.1, after Gregory & Delbourgo 1982, Piecewise
    rational quadratic interpolation to monotonic data.

    Examples
    --------
    Whatever its numbers are, the map rises, and is the identity outside:

    >>> import numpy as np
    >>> from npflow.layers import Spline
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Spline(bins=4, bound=3.0), np.linspace(-4, 4, 17)[:, None]
    >>> z, log_det = layer.forward({"raw": rng.normal(size=layer.numbers)}, x)
    >>> bool(np.all(np.diff(z, axis=0) > 0)), bool(np.all(z[np.abs(x) > 3] == x[np.abs(x) > 3]))
    (True, True)
    """

    bins: int = count(8, least=2, most=500, because=f", as each has at least {LEAST} of the width")
    bound: float = number(5.0, above=0, below=1e6)

    @property
    def numbers(self):
        """A width and a height for each bin, and a slope for each inner knot."""
        return 3 * self.bins - 1

    def transform(self, raw, x):
        outside, x_in, (x0, x1, y0, y1), (d0, d1) = self.bin_of(raw, x, axis=0)
        w, h = x1 - x0, y1 - y0
        t, s = (x_in - x0) / w, h / w
        q, log_slope = rational_quadratic(t, s, d0, d1)
        return where(outside, x, y0 + h * q), where(outside, 0, log_slope)

    def untransform(self, raw, z):
        outside, z_in, (x0, x1, y0, y1), (d0, d1) = self.bin_of(raw, z, axis=1)
        w, h = x1 - x0, y1 - y0
        q, s = (z_in - y0) / h, h / w
        t = inverse_rational_quadratic(q, s, d0, d1)
        _, log_slope = rational_quadratic(t, s, d0, d1)
        return where(outside, z, x0 + w * t), where(outside, 0, -log_slope)

    def bin_of(self, raw, x, axis):
        """Where components lie outside; the components, those moved to -bound; x0, x1, y0, y1 and d0, d1 of their bins.

        With `axis` 0 bins are found by the x of the knots, with 1 by their y.
        """
        knots, slopes = self.knots_and_slopes(raw, x)
        ends, m = knots[axis], knots.shape[-1]
        rows = np.reshape(x, (-1, m))
        outside = np.abs(rows) > self.bound
        x_in = where(outside, -self.bound, rows)
        passed = np.less_equal(np.reshape(ends[1:-1], (-1, 1, m)), x_in)
        bins = np.sum(passed, axis=0, dtype=onp.int16).astype(onp.int64)

        place = bins * m + constant(onp.arange(m), like=x)  # of the bin's first knot, in (bins + 1, m)
        of_both = onp.array([0, m])[:, None, None]
        of_both_axes = onp.concatenate((of_both, of_both + (self.bins + 1) * m))
        knots = look_up(knots, place + constant(of_both_axes, like=x))
        slopes = slope(look_up(slopes, place + constant(of_both, like=x)))
        like_x = lambda y: np.reshape(y, (*y.shape[:-2], *x.shape))
        return like_x(outside), like_x(x_in), like_x(knots), like_x(slopes)

    def knots_and_slopes(self, raw, x):
        """The x and y of all knots, shape (2, bins + 1, m), and numbers for the slopes there, (bins + 1, m).

        m is the number of components that have numbers of their own: all of `x`, or those of one row.
        """
        if raw.ndim > 1 and raw.shape[:-1] != x.shape[:-1]:
            raw = raw * np.ones_like(raw, shape=(*x.shape[:-1], 1))
        raw = np.reshape(raw, (-1, self.numbers, x.shape[-1]))
        whole, bins = 2 * self.bound, self.bins
        widths_and_heights = np.reshape(planes(raw, 0, 2 * bins), (2, bins, -1))
        shares = softmax_planes(widths_and_heights, total=whole * (1 - bins * LEAST))
        knots = running_sums(shares + whole * LEAST, start=-self.bound, end=self.bound)
        inner = planes(raw, 2 * bins, self.numbers)
        outermost = np.zeros_like(inner, shape=(1, inner.shape[-1]))
        return knots, np.concatenate((outermost, inner, outermost), axis=0)


def slope(raw):
    """The slope at a knot, positive for any number."""
    return LEAST + softplus(STEEPEST * tanh(raw / STEEPEST) + ONE)


def rational_quadratic(t, s, d0, d1):
    """The share q of a bin's height at the share `t` of its width, and the log-slope there."""
    u = 1 - t
    tt, tu, uu = t * t, t * u, u * u
    rise = s * tt + d0 * tu
    D = rise + (d1 * tu + s * uu)
    ratio = s / D
    return rise / D, np.log(ratio * ratio * (d1 * tt + 2 * s * tu + d0 * uu))


def inverse_rational_quadratic(q, s, d0, d1):
    """The share t of a bin's width at the share `q` of its height."""
    p = 1 - q
    a = d0 * p - d1 * q
    r = np.sqrt(a * a + 4 * (s * s) * (q * p))
    t = where(a >= 0, 2 * s * q, r - a)
    u = where(a >= 0, r + a, 2 * s * p)
    return t / (t + u)


def look_up(table, places):
    """The numbers at `places` of a flattened table; shaped like `places`."""
    # With one axis of places NumPy adds up the gradient six times as fast as with several.
    return np.reshape(np.reshape(table, (-1,))[np.reshape(places, (-1,))], places.shape)


# ---------------------------------------------------------------- numbers as planes
# Where each of m components has k numbers, planes are arrays of shape (..., k, m): the first numbers of all
# components lie side by side in memory, then the second. A sum over k numbers then adds long rows.


@fresh
def planes(x, start, stop, out=None):
    """Numbers `start` to `stop` of each component as planes: shape (n, k, c) gives (stop - start, n * c)."""
    n, _, c = x.shape
    y = onp.empty_like(x, shape=(stop - start, n * c), order="C") if out is None else out
    onp.reshape(y, (-1, n, c))[...] = onp.swapaxes(x[:, start:stop], 0, 1)
    return y


@fresh
def unplanes(y, start, shape, out=None):
    """Zeros of `shape`, which is (n, k, c), with planes where `planes` takes them from."""
    (n, _, c), stop = shape, start + len(y)
    x = onp.empty_like(y, shape=shape, order="C") if out is None else out
    x[:, :start], x[:, stop:] = 0, 0
    x[:, start:stop] = onp.swapaxes(onp.reshape(y, (-1, n, c)), 0, 1)
    return x


defvjp(planes, lambda y, x, start, stop: lambda g: unplanes(g, start, x.shape))
defvjp(unplanes, lambda x, y, start, shape: lambda g: planes(g, start, start + len(y)))


@transparent
def softmax_planes(x, total=1.0):
    """total * exp(x) / sum(exp(x)), the sum over the k numbers of a component, without overflow."""
    y = np.exp(x - np.max(x, axis=-2, keepdims=True))
    return y * (total / np.sum(y, axis=-2, keepdims=True))


defvjp(
    softmax_planes,
    lambda y, x, total=1.0: lambda g: y * (g - np.sum(y * g, axis=-2, keepdims=True) / total),
)


@fresh
def running_sums(x, start=0.0, end=0.0, out=None):
    """start, start + x_0, start + x_0 + x_1, ..., end: shape (..., k, m) gives (..., k + 1, m).

    The last step, to the end, is not read. `numpy.cumsum` would go through the numbers of one component after
    the other, which takes ten times as long.
    """
    k, m = x.shape[-2:]
    y = onp.empty_like(x, shape=(*x.shape[:-2], k + 1, m), order="C") if out is None else out
    y[..., 0, :], y[..., k, :] = start, end
    for i in range(k - 1):
        onp.add(y[..., i, :], x[..., i, :], out=y[..., i + 1, :])
    return y


@fresh
def running_sums_vjp(g, out=None):
    """The gradient in the steps: sum_{i<j<k} g_j, where (..., k + 1, m) is the shape of g."""
    k, m = g.shape[-2] - 1, g.shape[-1]
    x = onp.empty_like(g, shape=(*g.shape[:-2], k, m), order="C") if out is None else out
    x[..., k - 1, :] = 0
    for i in range(k - 1, 0, -1):
        onp.add(x[..., i, :], g[..., i, :], out=x[..., i - 1, :])
    return x


defvjp(running_sums, lambda y, x, start=0.0, end=0.0: lambda g: running_sums_vjp(g))
defvjp(running_sums_vjp, lambda x, g: lambda h: running_sums(h))
