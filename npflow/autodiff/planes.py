"""Numbers of components as planes, and sums along them: what splines are computed on.

Where each of m components has k numbers, planes are arrays of shape (..., k, m): the first numbers of all
components lie side by side in memory, then the second. What adds up k numbers adds long rows then.
"""

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp

from npflow.autodiff.primitives import fresh, transparent


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
def steps(x, start=0.0, end=0.0, out=None):
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
def steps_vjp(g, out=None):
    """The gradient in the steps: sum_{i<j<k} g_j, where (..., k + 1, m) is the shape of g."""
    k, m = g.shape[-2] - 1, g.shape[-1]
    x = onp.empty_like(g, shape=(*g.shape[:-2], k, m), order="C") if out is None else out
    x[..., k - 1, :] = 0
    for i in range(k - 1, 0, -1):
        onp.add(x[..., i, :], g[..., i, :], out=x[..., i - 1, :])
    return x


defvjp(steps, lambda y, x, start=0.0, end=0.0: lambda g: steps_vjp(g))
defvjp(steps_vjp, lambda x, g: lambda h: steps(h))
