"""Convolutions of images, channels last, as matrix products.

y[p] = sum_d x[p + d] W[d]          p a pixel, d from the middle of the kernel to each of its places

A kernel of k x k places is k^2 products of a pixel's channels with a matrix. They are one product in either of two
ways. Where the inputs are few, `unfold` first gathers for each pixel what the kernel sees of them, and one product
sums over places and inputs at once. Where the outputs are few, one product gives what each pixel contributes to
each place, and `fold` adds it up there. Both derivatives are convolutions again, so that there is no third way.

At the edge the image goes on with zeros, and the result is of its size ("same padding").
"""

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp

from npflow.autodiff.primitives import fresh, linear, transparent


@fresh
def unfold(x, height, width, out=None):
    """What a kernel sees from each pixel: shape (n, h, w, c) gives (n, h, w, height * width * c)."""
    n, h, w, c = x.shape
    y = onp.empty_like(x, shape=(n, h, w, height * width * c), order="C") if out is None else out
    places = onp.reshape(y, (n, h, w, height, width, c))
    places[...] = 0
    for i in range(height):
        here, there = shifted(h, i - height // 2)
        for j in range(width):
            here_too, there_too = shifted(w, j - width // 2)
            places[:, here, here_too, i, j] = x[:, there, there_too]
    return y


@fresh
def fold(y, height, width, out=None):
    """The sum of what was gathered, at its own pixel again: (n, h, w, height * width * c) gives (n, h, w, c).

    It is the transpose of `unfold`.
    """
    n, h, w, columns = y.shape
    places = onp.reshape(y, (n, h, w, height, width, -1))
    x = onp.empty_like(y, shape=(n, h, w, columns // (height * width)), order="C") if out is None else out
    x[...] = places[:, :, :, height // 2, width // 2]
    for i in range(height):
        here, there = shifted(h, i - height // 2)
        for j in range(width):
            here_too, there_too = shifted(w, j - width // 2)
            if (i, j) != (height // 2, width // 2):
                x[:, there, there_too] += places[:, here, here_too, i, j]
    return x


def shifted(size, by):
    """Slices of the pixels p of a line for which p + `by` lies on it too, and of the p + `by`."""
    return slice(max(0, -by), max(0, size - max(0, by))), slice(
        min(size, max(0, by)), max(0, size + min(0, by))
    )


defvjp(unfold, lambda y, x, height, width: lambda g: fold(g, height, width))
defvjp(fold, lambda x, y, height, width: lambda g: unfold(g, height, width))


@transparent
def mirrored(weight):
    """The kernel that takes a gradient back: turned by half a circle, outputs for inputs."""
    return np.transpose(weight[::-1, ::-1], (0, 1, 3, 2))


defvjp(mirrored, lambda y, weight: lambda g: mirrored(g))


@transparent
def conv2d(x, weight):
    """The convolution (no kernel is turned round) of images of shape (n, h, w, inputs): (n, h, w, outputs).

    Parameters
    ----------
    x : ndarray, shape (n, h, w, inputs)
    weight : ndarray, shape (height, width, inputs, outputs)
        The kernel; its height and width are odd.
    """
    height, width, inputs, outputs = weight.shape
    if height == width == 1:
        return linear(x, np.reshape(weight, (inputs, outputs)))
    if inputs <= outputs:
        return linear(unfold(x, height, width), np.reshape(weight, (-1, outputs)))
    # What x[p + d] contributes to p: seen from p + d, place -d.
    columns = np.reshape(np.transpose(weight[::-1, ::-1], (2, 0, 1, 3)), (inputs, -1))
    return fold(linear(x, columns), height, width)


@transparent
def conv2d_vjp_weight(x, g, height, width):
    """The gradient of sum(g * conv2d(x, weight)) in the weight: sum_p x[p + d]^T g[p] at each place d."""
    inputs, outputs = x.shape[-1], g.shape[-1]
    rows = lambda y: np.reshape(y, (-1, y.shape[-1]))
    if height == width == 1:
        return np.reshape(linear(rows(x).T, rows(g)), (1, 1, inputs, outputs))
    if inputs <= outputs:
        weight = linear(rows(unfold(x, height, width)).T, rows(g))
        return np.reshape(weight, (height, width, inputs, outputs))
    weight = linear(rows(x).T, rows(unfold(g, height, width)))
    return np.transpose(np.reshape(weight, (inputs, height, width, outputs)), (1, 2, 0, 3))[::-1, ::-1]


# Each of the three is linear in x, in the weight and in g, which stand for one another.
defvjp(
    conv2d,
    lambda y, x, weight: lambda g: conv2d(g, mirrored(weight)),
    lambda y, x, weight: lambda g: conv2d_vjp_weight(x, g, *weight.shape[:2]),
)
defvjp(
    conv2d_vjp_weight,
    lambda weight, x, g, height, width: lambda h: conv2d(g, mirrored(h)),
    lambda weight, x, g, height, width: lambda h: conv2d(x, h),
)
