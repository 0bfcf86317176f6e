"""The contract of a layer, and what layers share."""

import functools
import inspect
import math

import autograd.numpy as np
import numpy as onp
from numpy import ndarray
from numpy.random import Generator

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import is_array
from npflow.autodiff.mistakes import find_promotion, is_pair, not_a_pair, read_only
from npflow.autodiff.primitives import concatenate_last
from npflow.autodiff.program.frames import line_of
from npflow.description import Described
from npflow.errors import InputError, in_short, kind_of
from npflow.typing import Params


class Layer(Described):
    """An invertible map R^D -> R^D with a closed-form log-determinant.

    A layer is a frozen dataclass of hyper-parameters. It holds no arrays: they live in `params`, a tree of dicts,
    lists and tuples whose float leaves are trained and whose integer leaves are constants. All methods are pure
    functions. Which operations they perform depends on shapes and hyper-parameters alone, never on the values of
    arrays. float32 in, float32 out. They do not check their input: the methods of `npflow.Flow` do.

    Arrays have shape (n, features) or (n, height, width, channels).

    `init` works on the host. The other methods work where their arrays live, on the host or on a GPU: new arrays are
    made like the input (`np.zeros_like(x, shape=...)`), and fixed arrays are a `constant` of `npflow.autodiff.gpu`.

    A conditional layer takes one more argument in all its methods, `context` of shape (n, context features), or (n,
    height, width, channels) where it is an image: ``forward(params, x, context=None)``. Other layers leave it out.

    Attributes
    ----------
    domain : tuple of float
        The open interval that each component of x must lie in; unbounded by default.
    keeps_input : bool
        Whether `Reversible` keeps the x of `forward`, as `inverse` would be slow: an iteration, or one pass for each
        component. False by default.

    Examples
    --------
    A layer of one's own, which moves outliers nearer, held against its numerical Jacobian:

    >>> import autograd.numpy as np
    >>> import npflow
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class ArcSinh(npflow.layers.Layer):
    ...     def forward(self, params, x):
    ...         z = np.arcsinh(x)
    ...         return z, -np.sum(np.log(np.cosh(z)), axis=-1)
    ...
    ...     def inverse(self, params, z):
    ...         return np.sinh(z), np.sum(np.log(np.cosh(z)), axis=-1)
    >>> ArcSinh().forward({}, np.array([[0.0, 1000.0]]))[0].round(2)
    array([[0. , 7.6]])
    >>> npflow.verify.check(ArcSinh(), np.random.default_rng(0).normal(size=(4, 2))).verdict
    'passed'
    """

    domain = (-math.inf, math.inf)
    keeps_input = False

    def init(self, rng: Generator, x: ndarray) -> Params:
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

    def forward(self, params: Params, x: ndarray) -> tuple[ndarray, ndarray]:
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

    def inverse(self, params: Params, z: ndarray) -> tuple[ndarray, ndarray]:
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

    def check_parts(self, params, x, context=None):
        """Raise `InputError` unless the networks and maps in a layer return arrays of the right shapes for a batch `x`.

        It is called once, after `init`, and not where parameters are only looked at. The base class checks nothing.
        """

    def log_det(self, params: Params, x: ndarray, context: ndarray | None = None) -> ndarray:
        """Compute the log-det of `forward` alone. Override it where the closed form needs no z.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, ...)
        context : ndarray, shape (n, context features), optional

        Returns
        -------
        ndarray, shape (n,)
            log|det dz/dx| in nats.
        """
        return self.forward(params, x, **given(self, context))[1]

    def output_shape(self, shape, direction="forward"):
        """Return the shape of one output row. Override it in a layer that rearranges a row.

        Parameters
        ----------
        shape : tuple of int
            That of one input row.
        direction : {"forward", "inverse"}

        Returns
        -------
        tuple of int
        """
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


def init_layer(layer, rng, x, context=None):
    """The parameters that `init` of a layer gives for the batch `x`; they and the parts of the layer are checked."""
    params = layer.init(rng, x, **given(layer, context))
    check_start(layer.init, params, x)
    if isinstance(layer, Layer):
        layer.check_parts(params, x, context)
    return params


def start_layer(layer, rng, x, context=None, direction="forward", params=None):
    """The parameters of a layer, from `init` unless they are given, and its output for the batch `x`.

    Both are checked against the contract of `Layer`; an `InputError` names the line.
    """
    x, beside, method = read_only(x), given(layer, context), getattr(layer, direction)
    if params is None:
        params = init_layer(layer, rng, x, context)
    held = read_only(params)
    before = dict(tree.items(held))
    result = check_pair(method, method(held, x, **beside), params, x, **beside)
    for path, leaf in tree.items(held):
        if before.get(path) is not leaf:
            raise InputError(
                f"expected {direction} to leave its parameters as they are, got another {path!r}, "
                f"at {line_of(method, last=False)}"
            )
    return params, result[0]


def check_start(init, params, x):
    """Raise unless `params`, which the method `init` made for `x`, are a tree of arrays in the dtype of x."""
    for path, leaf in tree.items(params):
        at = f" at {path!r}" if path else ""  # a tree of one array has no names
        if not (is_array(leaf) or isinstance(leaf, onp.generic)):
            raise InputError(
                f"expected init to return a tree of arrays, got {kind_of(leaf)}{at}: np.array(value, x.dtype) is "
                f"trained, and integers are constants, at {line_of(init)}"
            )
        if tree.is_trained(leaf) and leaf.dtype != x.dtype:
            raise InputError(
                f"expected init to give parameters in the dtype of x, {x.dtype}, got {leaf.dtype}{at}: "
                f"make them with dtype=x.dtype, at {line_of(init)}"
            )


def check_pair(method, result, params, x, **context):
    """Raise unless `result`, which a layer's `method` made of `x`, is an array and a log-det; return it."""
    if not is_pair(result):
        raise InputError(not_a_pair(method.__name__, kind_of(result), method))
    check_results(method, {"array": result[0], "log_det": result[1]}, params, x, **context)
    if np.size(result[0]) != np.size(x) or len(result[0]) != len(x):
        raise InputError(
            f"expected {method.__name__} to keep the number of rows and of components, got shape "
            f"{np.shape(result[0])} of {x.shape}, at {line_of(method)}"
        )
    return result


def check_results(method, results, params, x, **context):
    """Raise unless the named results of a `method` have the dtype of `x`, and all but "array" one number for each row."""
    for name, numbers in results.items():
        if not (is_array(numbers) or isinstance(numbers, onp.generic)):
            raise InputError(
                f"expected the {name} of {method.__name__} as an array of numbers, got {in_short(numbers)}, "
                f"at {line_of(method)}"
            )
        if name != "array" and numbers.shape != (len(x),):
            raise InputError(
                f"expected the {name} of {method.__name__} to have shape ({len(x)},), one number for each row, got "
                f"{numbers.shape}, at {line_of(method)}"
            )
        if numbers.dtype != x.dtype:
            find_promotion(lambda *both: method(*both, **context), params, x)
            raise InputError(
                f"expected the {name} of {method.__name__} in the dtype of x, {x.dtype}, got {numbers.dtype}: np.full, "
                f"np.zeros and NumPy's scalars, such as np.log(2.0), are float64 unless they are told the dtype, "
                f"at {line_of(method)}"
            )


def zeros_per_row(x):
    """The log-det of a map that keeps volume: shape (n,), in the dtype of `x`."""
    return np.zeros_like(x, shape=(len(x),))


def check_features(x, name):
    """Raise `InputError` unless `x` are rows of features, shape (n, features); `name` is that of the layer."""
    if x.ndim != 2:
        raise InputError(f"expected rows of shape (n, features) for {name}, got shape {x.shape}")


def with_context(x, context):
    """The channels of `x` followed, at each pixel, by the context: the input of a network."""
    return x if context is None else concatenate_last(x, context_at(x, context))


def context_at(x, context):
    """The context at each pixel of `x`, shape (*x.shape[:-1], channels).

    A row of features is the same at all pixels. An image of the size of `x` stays as it is. Where `x` is larger, each
    pixel of the context is repeated over a block of pixels of `x`. Where `x` is smaller, as behind a `Squeeze`, the
    pixels of a block of the context become channels of one pixel, in the order of `Squeeze`.
    """
    if context.ndim != 4:
        context = np.reshape(context, (len(x), *[1] * (x.ndim - 2), -1))
        return context * np.ones_like(x, shape=(*x.shape[:-1], 1))
    n, h, w, channels = context.shape
    height, width = check_context_size(x, context)
    if h < height:
        times = height // h
        blocks = np.reshape(context, (n, h, 1, w, 1, channels)) * np.ones_like(x, shape=(times, 1, times, 1))
        return np.reshape(blocks, (n, height, width, channels))
    if h > height:
        times = h // height
        blocks = np.reshape(context, (n, height, times, width, times, channels))
        return np.reshape(np.transpose(blocks, (0, 1, 3, 5, 2, 4)), (n, height, width, -1))
    return context


def check_context_size(x, context):
    """The height and width of images `x`; raise unless a context of images can be brought to their size."""
    if x.ndim != 4:
        raise InputError(f"expected images beside a context of images, got rows of {x.shape[1]} features")
    (height, width), (h, w) = x.shape[1:3], context.shape[1:3]
    small, large = sorted([(height, width), (h, w)])
    if large[0] % small[0] or large[1] % small[1] or large[0] // small[0] != large[1] // small[1]:
        raise InputError(
            f"expected a context of images as large as x, or a whole number of times larger or smaller, got {h} x {w} "
            f"pixels beside {height} x {width}"
        )
    return height, width


def pixels(x):
    """H W: the number of pixels in a row of `x`, 1 for rows of features."""
    return math.prod(x.shape[1:-1])


# ---------------------------------------------------------------- statistics of a batch, for `init`


def mean_and_std(x):
    """The mean and the standard deviation of each channel over rows and pixels, both in float64.

    A constant channel has no standard deviation to divide by; the largest value of the batch stands for it. Its mean is
    given as 0, so that the channel keeps its size: near zero, a next layer would take its rounding for its spread.
    """
    channels = x.reshape(-1, x.shape[-1]).astype(onp.float64)
    size = largest(channels)  # squares of numbers of the order of one do not overflow
    mean = size * onp.mean(channels / size, axis=0)
    std = size * onp.std(channels / size, axis=0)
    constant = std <= 10 * onp.finfo(x.dtype).eps * onp.abs(mean)
    largest_of_all = onp.max(onp.abs(channels)) or 1.0
    return onp.where(constant, 0.0, mean), onp.where(constant, largest_of_all, std)


def largest(channels):
    """The largest absolute value of each channel, 1 where it is 0."""
    size = onp.max(onp.abs(channels), axis=0)
    return onp.where(size > 0, size, 1.0)


def spread(channels):
    """The standard deviation of each channel that normal data would have, and which outliers do not move."""
    size = largest(channels)
    low, high = onp.quantile(channels, [0.1, 0.9], axis=0)
    return onp.where(high > low, (high - low) / 2.56, size * onp.std(channels / size, axis=0))
