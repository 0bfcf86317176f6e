"""Convolutions of images, channels last, as matrix products.

y[p] = sum_d x[p + d] W[d]          p a pixel, d the offset of a place of the kernel from its middle

A kernel of k x k places takes k^2 products of a pixel's channels with a matrix. They become one product in
two ways. If there are fewer inputs, `unfold` gathers what the kernel sees from each pixel, and one product
sums over places and inputs. If there are fewer outputs, one product gives what each pixel contributes to each
place, and `fold` adds up the contributions. The derivatives use the same two functions.

The image is padded with zeros, and the result has its size ("same padding").
"""

import autograd.numpy as np
import numpy as onp
from autograd.extend import defvjp

from npflow.autodiff.primitives import fresh, linear, transparent


@fresh
def unfold(x, height, width, turned=False, places=None, out=None):
    """What a kernel sees from each pixel p: shape (n, h, w, c) gives (n, h, w, height * width * c).

    That is x[p + d] for each place d of the kernel; x[p - d] if the kernel is `turned` by half a circle.
    `places` limits it to the first places, row by row, which must include the middle: shape (n, h, w, places
    * c).
    """
    n, h, w, c = x.shape
    places = height * width if places is None else places
    y = onp.empty_like(x, shape=(n, h, w, places * c), order="C") if out is None else out
    seen = onp.reshape(y, (n, h, w, places, c))
    seen[...] = 0
    for place, (here, there), (here_too, there_too) in shifts(x.shape, height, width, turned, places):
        seen[:, here, here_too, place] = x[:, there, there_too]
    return y


@fresh
def fold(y, height, width, turned=False, places=None, out=None):
    """The transpose of `unfold`: shape (n, h, w, height * width * c) gives (n, h, w, c).

    Each pixel gets the sum of the numbers that stand for it.
    """
    n, h, w, columns = y.shape
    places = height * width if places is None else places
    middle = height * width // 2
    seen = onp.reshape(y, (n, h, w, places, -1))
    x = onp.empty_like(y, shape=(n, h, w, columns // places), order="C") if out is None else out
    x[...] = seen[:, :, :, middle]
    for place, (here, there), (here_too, there_too) in shifts(x.shape, height, width, turned, places):
        if place != middle:
            x[:, there, there_too] += seen[:, here, here_too, place]
    return x


def shifts(shape, height, width, turned, places):
    """For each place of a kernel, row by row: its number, and pairs of Python slices for rows and columns.

    The pair selects the pixels p for which p + d (p - d if `turned`) is inside the image, and these p + d.
    """
    _, h, w, _ = shape
    sign = -1 if turned else 1
    for place in range(places):
        i, j = divmod(place, width)
        yield place, shifted(h, sign * (i - height // 2)), shifted(w, sign * (j - width // 2))


def shifted(size, by):
    """Python slices of the pixels p for which p + `by` is one of `size` pixels, and of these p + `by`."""
    return slice(max(0, -by), max(0, size - max(0, by))), slice(
        min(size, max(0, by)), max(0, size + min(0, by))
    )


defvjp(
    unfold,
    lambda y, x, height, width, turned=False, places=None: lambda g: fold(g, height, width, turned, places),
)
defvjp(
    fold,
    lambda x, y, height, width, turned=False, places=None: lambda g: unfold(g, height, width, turned, places),
)


@transparent
def half_turn(x):
    """Images turned by half a circle, channels reversed: all numbers of a row in reverse order."""
    return x[:, ::-1, ::-1, ::-1]


defvjp(half_turn, lambda y, x: lambda g: half_turn(g))


@transparent
def conv2d(x, weight):
    """The convolution of images of shape (n, h, w, inputs) with a kernel: shape (n, h, w, outputs).

    The kernel has the shape (height, width, inputs, outputs); its height and width are odd.
    """
    height, width, inputs, outputs = weight.shape
    if height == width == 1:
        return linear(x, unfold_matrix(weight))
    if inputs <= outputs:
        return linear(unfold(x, height, width), unfold_matrix(weight))
    return fold(linear(x, fold_matrix(weight)), height, width, turned=True)


@transparent
def conv2d_vjp_x(g, weight):
    """The gradient of sum(g * conv2d(x, weight)) in x: sum_d W[d] g[p - d] at each pixel p."""
    height, width, inputs, outputs = weight.shape
    if height == width == 1:
        return linear(g, unfold_matrix(weight).T)
    if inputs <= outputs:
        return fold(linear(g, unfold_matrix(weight).T), height, width)
    return linear(unfold(g, height, width, turned=True), fold_matrix(weight).T)


@transparent
def conv2d_vjp_weight(g, x, height, width):
    """The gradient of sum(g * conv2d(x, weight)) in the weight: sum_p x[p + d]^T g[p] at each place d."""
    inputs, outputs = x.shape[-1], g.shape[-1]
    rows = lambda y: np.reshape(y, (-1, y.shape[-1]))
    if height == width == 1 or inputs <= outputs:
        seen = x if height == width == 1 else unfold(x, height, width)
        matrix = linear(rows(seen).T, rows(g))
        return np.reshape(matrix, (height, width, inputs, outputs))
    matrix = linear(rows(x).T, rows(unfold(g, height, width, turned=True)))
    kernel = np.transpose(np.reshape(matrix, (inputs, height, width, outputs)), (1, 2, 0, 3))
    return np.copy(kernel, order="C")  # contiguous, so that a program can add two in place


def unfold_matrix(weight):
    """A kernel as the matrix for what `unfold` gives: shape (height * width * inputs, outputs)."""
    return np.reshape(weight, (-1, weight.shape[-1]))


def fold_matrix(weight):
    """A kernel as the matrix that gives what `fold` takes: shape (inputs, height * width * outputs)."""
    return np.reshape(np.transpose(weight, (2, 0, 1, 3)), (weight.shape[2], -1))


# Each of the three is linear in both of its arguments, so the three are each other's derivatives.
defvjp(
    conv2d,
    lambda y, x, weight: lambda g: conv2d_vjp_x(g, weight),
    lambda y, x, weight: lambda g: conv2d_vjp_weight(g, x, *weight.shape[:2]),
)
defvjp(
    conv2d_vjp_x,
    lambda _, g, weight: lambda h: conv2d(h, weight),
    lambda _, g, weight: lambda h: conv2d_vjp_weight(g, h, *weight.shape[:2]),
)
defvjp(
    conv2d_vjp_weight,
    lambda _, g, x, height, width: lambda h: conv2d(x, h),
    lambda _, g, x, height, width: lambda h: conv2d_vjp_x(g, h),
)
