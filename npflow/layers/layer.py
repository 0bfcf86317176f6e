"""The contract of a layer, and what layers share."""

import functools
import inspect
import math

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import concatenate_last
from npflow.description import Described
from npflow.errors import InputError, in_short


class Layer(Described):
    """An invertible map R^D -> R^D with a closed-form log-determinant.

    A layer is a frozen dataclass of hyper-parameters. It holds no arrays: they live in `params`, a tree of dicts,
    lists and tuples whose float leaves are trained and whose integer leaves are constants. All methods are pure
    functions. Which operations they perform depends on shapes and hyper-parameters alone, never on the values of
    arrays. float32 in, float32 out. They do not check their input: the methods of `npflow.Flow` do.

    Arrays have shape (n, features) or (n, height, width, channels).

    `init` works on the host. The other methods work where their arrays live, on the host or on a GPU: new arrays are
    made like the input (`np.zeros_like(x, shape=...)`), and fixed arrays are a `constant` of `npflow.autodiff.gpu`.

    A conditional layer takes one more argument in all its methods, `context` of shape (n, context features):
    ``forward(params, x, context=None)``. Other layers leave it out.

    Attributes
    ----------
    domain : tuple of float
        The open interval that each component of x must lie in; unbounded by default.
    """

    domain = (-math.inf, math.inf)

    def init(self, rng, x):
        """Return initial parameters for rows shaped like those of `x`.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        x : ndarray, shape (n, ...)
            A batch. The parameters have its dtype, and may depend on its values, as those of `ActNorm` do.

        Returns
        -------
        tree of ndarray
        """
        return {}

    def forward(self, params, x):
        """Apply the normalizing direction, x -> z.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, ...)

        Returns
        -------
        z : ndarray, shape (n, ...)
        log_det : ndarray, shape (n,)
            log|det dz/dx| in nats.
        """
        raise NotImplementedError

    def inverse(self, params, z):
        """Apply the generating direction, z -> x.

        Parameters
        ----------
        params : tree of ndarray
        z : ndarray, shape (n, ...)

        Returns
        -------
        x : ndarray, shape (n, ...)
        log_det : ndarray, shape (n,)
            log|det dx/dz| in nats.
        """
        raise NotImplementedError

    def log_det(self, params, x, context=None):
        """Return log|det dz/dx| alone, in nats, shape (n,)."""
        return self.forward(params, x, **given(self, context))[1]

    def output_shape(self, shape, direction="forward"):
        """Return the shape of one output row. Override it in a layer that rearranges a row."""
        return shape


def given(layer, context):
    """The keyword arguments that hand a layer its context; none where it takes no context, or there is none."""
    return {} if context is None or not takes_context(type(layer)) else {"context": context}


@functools.cache
def takes_context(kind):
    """Whether `forward` of a class of layers has an argument `context`."""
    return "context" in inspect.signature(kind.forward).parameters


def check_layer(layer, name="the layer"):
    """Raise unless `layer` is an object with the methods of a layer; return it."""
    methods = ("init", "forward", "inverse")
    if isinstance(layer, type) or not all(callable(getattr(layer, method, None)) for method in methods):
        raise InputError(
            f"expected {name} to be an object with init, forward and inverse, got {in_short(layer)}"
        )
    return layer


def domain_of(layer):
    """The interval that each component of a layer's x must lie in; unbounded where the layer has no `domain`."""
    return getattr(layer, "domain", Layer.domain)


def check_keeps_shape(name, x, z):
    """Raise unless z, which the layer called `name` made of x, has the shape of x."""
    if z.shape != x.shape:
        raise InputError(
            f"expected {name} to keep the shape of its input, got {z.shape} of {x.shape}; an Unsqueeze at its end "
            "undoes a Squeeze"
        )


def zeros_per_row(x):
    """The log-det of a map that keeps volume: shape (n,), in the dtype of `x`."""
    return np.zeros_like(x, shape=(len(x),))


def with_context(x, context):
    """The channels of `x` followed, at each pixel, by the context: the input of a network."""
    if context is None:
        return x
    context = np.reshape(context, (len(x), *[1] * (x.ndim - 2), -1))
    return concatenate_last(x, context * np.ones_like(x, shape=(*x.shape[:-1], 1)))


def pixels(x):
    """H W: the number of pixels in a row of `x`, 1 for rows of features."""
    return math.prod(x.shape[1:-1])


# ---------------------------------------------------------------- statistics of a batch, for `init`


def mean_and_std(x):
    """The mean and the standard deviation of each channel over rows and pixels, both in float64.

    A constant channel has no standard deviation to divide by; the largest value of the batch stands for it.
    """
    channels = x.reshape(-1, x.shape[-1]).astype(onp.float64)
    size = largest(channels)  # squares of numbers of the order of one do not overflow
    mean = size * onp.mean(channels / size, axis=0)
    std = size * onp.std(channels / size, axis=0)
    constant = std <= 10 * onp.finfo(x.dtype).eps * onp.abs(mean)
    return mean, onp.where(constant, onp.max(onp.abs(channels)) or 1.0, std)


def largest(channels):
    """The largest absolute value of each channel, 1 where it is 0."""
    size = onp.max(onp.abs(channels), axis=0)
    return onp.where(size > 0, size, 1.0)


def spread(channels):
    """The standard deviation of each channel that normal data would have, and which outliers do not move."""
    size = largest(channels)
    low, high = onp.quantile(channels, [0.1, 0.9], axis=0)
    return onp.where(high > low, (high - low) / 2.56, size * onp.std(channels / size, axis=0))
