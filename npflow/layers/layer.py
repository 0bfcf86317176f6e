"""The contract of a layer, and the layers made of layers: a chain, an inverse, a layer at one context."""

import functools
import inspect
import math
import textwrap
from dataclasses import dataclass
from typing import NamedTuple

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import concatenate_last, spread_over_rows
from npflow.description import Described
from npflow.errors import InputError
from npflow.validation import check_number, check_sequence


class Layer(Described):
    """An invertible map R^D -> R^D with a closed-form log-determinant.

    A layer is a frozen dataclass of hyper-parameters. It holds no arrays: they live in `params`, a tree
    of dicts, lists and tuples whose float leaves are trained and whose integer leaves are constants. All
    methods are pure functions; which operations they perform depends on shapes and hyper-parameters
    alone, never on the values of arrays. float32 in, float32 out.

    `init` works on the host. The other methods work wherever their arrays live: what they make is made like
    what they are given (`np.zeros_like(x, shape=...)`), and fixed arrays are a `constant` of
    `npflow.autodiff.gpu.devices`.

    Arrays have shape (n, features), or (n, height, width, channels).

    A layer that is conditioned by more than its input has one more argument, `context` of shape (n, context
    features), in all its methods: ``forward(params, x, context=None)``. Other layers say nothing of it; `given`
    hands it to those that have it.

    Attributes
    ----------
    domain : tuple of float
        Between which two numbers each component of x is meant to lie; for most layers, any.
    """

    domain = (-math.inf, math.inf)

    def init(self, rng, x):
        """Parameters for batches like `x`, drawn from `rng`; the batch may be looked at."""
        return {}

    def forward(self, params, x):
        """The normalizing direction: x -> z, and log|det dz/dx| in nats, shape (n,)."""
        raise NotImplementedError

    def inverse(self, params, z):
        """The generating direction: z -> x, and log|det dx/dz| in nats, shape (n,)."""
        raise NotImplementedError

    def log_det(self, params, x, context=None):
        """log|det dz/dx| alone, in nats, shape (n,)."""
        return self.forward(params, x, **given(self, context))[1]


def given(layer, context):
    """What to hand a layer beside its input: the context, where there is one and the layer has a use for it."""
    return {} if context is None or not takes_context(type(layer)) else {"context": context}


@functools.cache
def takes_context(kind):
    """Whether the layers of a class have a context among the arguments of `forward`."""
    return "context" in inspect.signature(kind.forward).parameters


def inner_layers(layer):
    """The layers that a layer is made of: a chain's, the one that is turned round; none for most."""
    inner = getattr(layer, "layers", None)
    inner = inner if isinstance(inner, (list, tuple)) else (getattr(layer, "layer", None),)
    return tuple(one for one in inner if callable(getattr(one, "forward", None)))


def uses_context(layer):
    """Whether a context makes a difference to a layer: to one of those that it is made of, if it is."""
    inner = inner_layers(layer)
    return takes_context(type(layer)) and (not inner or any(map(uses_context, inner)))


def check_layer(layer, name="the layer"):
    """Raise unless `layer` is an object with the methods of a layer; return it."""
    methods = ("init", "forward", "inverse")
    if isinstance(layer, type) or not all(callable(getattr(layer, method, None)) for method in methods):
        raise InputError(f"expected {name} to be an object with init, forward and inverse, got {layer!r}")
    return layer


def domain_of(layer):
    """Between which two numbers each component of a layer's x is meant to lie; any, where it says nothing of it."""
    return getattr(layer, "domain", Layer.domain)


def check_keeps_shape(name, x, z):
    """Raise unless a layer called `name`, which made z of x, keeps the shape of its input."""
    if z.shape != x.shape:
        raise InputError(
            f"expected {name} to keep the shape of its input, got {z.shape} of {x.shape}; an Unsqueeze at its end "
            "undoes a Squeeze"
        )


def zeros_per_row(x):
    """The log-det of a map that keeps volume: shape (n,), in the dtype of `x`."""
    return np.zeros_like(x, shape=(len(x),))


def with_context(x, context):
    """What a network is given: the channels of `x`, and after them, at each pixel, the context, if there is one."""
    if context is None:
        return x
    context = np.reshape(context, (len(x), *[1] * (x.ndim - 2), -1))
    return concatenate_last(x, context * np.ones_like(x, shape=(*x.shape[:-1], 1)))


def pixels(x):
    """H W: how many pixels a row of `x` has, 1 for rows of features."""
    return math.prod(x.shape[1:-1])


class Step(NamedTuple):
    """What one layer of a chain did: its name in the chain, its output, and its log-det, shape (n,)."""

    name: str
    output: np.ndarray
    log_det: np.ndarray


@dataclass(frozen=True)
class Chain(Layer):
    r"""Layers in order.

    z = f_K(... f_2(f_1(x)))                log|det J| = sum_k log|det J_k|
    x = f_1^-1(f_2^-1(... f_K^-1(z)))       log|det J^-1| = -log|det J|

    Each layer is initialized on what the layers before it make of the batch; a context is handed to those
    that take one. The parameters are a list, one entry for each layer. (The loops keep a layer's `index` for
    programs, which name values by it.)
    """

    layers: tuple

    def __post_init__(self):
        layers = check_sequence(self.layers, "the layers of a Chain")
        if not layers:
            raise InputError("expected a Chain of at least one layer, got none")
        for index, layer in enumerate(layers):
            check_layer(layer, f"a Chain's entry {index}")
        object.__setattr__(self, "layers", layers)

    @property
    def domain(self):
        """The first layer's."""
        return domain_of(self.layers[0])

    def init(self, rng, x, context=None):
        params = []
        for index, layer in enumerate(self.layers):
            try:
                params.append(layer.init(rng, x, **given(layer, context)))
                x, _ = layer.forward(params[-1], x, **given(layer, context))
            except InputError as error:
                raise error.inside(index, layer) from error
        return params

    def forward(self, params, x, context=None):
        total = zeros_per_row(x)
        for index, (layer, p) in enumerate(zip(self.layers, params, strict=True)):  # noqa: B007
            x, log_det = layer.forward(p, x, **given(layer, context))
            total = total + log_det
        return x, total

    def inverse(self, params, z, context=None):
        total = zeros_per_row(z)
        for index, (layer, p) in reversed(list(enumerate(zip(self.layers, params, strict=True)))):  # noqa: B007
            z, log_det = layer.inverse(p, z, **given(layer, context))
            total = total + log_det
        return z, total

    def trace(self, params, x, context=None):
        """Every step from x to z: a list of `Step`, one for each layer, in the order of the layers."""
        steps = []
        for index, (layer, p) in enumerate(zip(self.layers, params, strict=True)):
            x, log_det = layer.forward(p, x, **given(layer, context))
            steps.append(Step(name_in_chain(index, layer), x, log_det))
        return steps

    def trace_inverse(self, params, z, context=None):
        """Every step from z to x: a list of `Step`, one for each layer, the last layer first."""
        steps = []
        for index, (layer, p) in reversed(list(enumerate(zip(self.layers, params, strict=True)))):
            z, log_det = layer.inverse(p, z, **given(layer, context))
            steps.append(Step(name_in_chain(index, layer), z, log_det))
        return steps

    def __repr__(self):
        lines = ",\n".join(repr(layer) for layer in self.layers)
        return f"Chain([\n{textwrap.indent(lines, '    ')},\n])"


def name_in_chain(index, layer):
    """What a layer of a chain is called in errors and traces: its place, the path of its parameters."""
    return f"{index} ({type(layer).__name__})"


@dataclass(frozen=True)
class Inverse(Layer):
    """A layer turned round: its forward is the other's inverse.

    `init` hands the batch to the inner layer as it is. An inner layer whose start depends on data (ActNorm)
    would normalize it; turned round, it does the opposite: it gives noise the batch's mean and variance.
    """

    layer: Layer

    def __post_init__(self):
        check_layer(self.layer, "the layer of Inverse")

    def init(self, rng, x, context=None):
        return self.layer.init(rng, x, **given(self.layer, context))

    def forward(self, params, x, context=None):
        return self.layer.inverse(params, x, **given(self.layer, context))

    def inverse(self, params, z, context=None):
        return self.layer.forward(params, z, **given(self.layer, context))


@dataclass(frozen=True)
class Given(Layer):
    """A conditioned layer at one context, the same for every row: a layer like any other.

    Parameters
    ----------
    layer : Layer
    context : tuple of float
    """

    layer: Layer
    context: tuple

    def __post_init__(self):
        check_layer(self.layer, "the layer of Given")
        numbers = check_sequence(self.context, "the context of Given")
        numbers = tuple(check_number(number, "each number in Given's context") for number in numbers)
        if not numbers or not uses_context(self.layer):
            raise InputError(
                f"expected a layer that takes a context, and at least one number of it, for Given, got {self.layer!r} "
                f"and {numbers!r}"
            )
        object.__setattr__(self, "context", numbers)

    def init(self, rng, x):
        return self.layer.init(rng, x, **given(self.layer, self.rows(x)))

    def forward(self, params, x):
        return self.layer.forward(params, x, **given(self.layer, self.rows(x)))

    def inverse(self, params, z):
        return self.layer.inverse(params, z, **given(self.layer, self.rows(z)))

    def rows(self, x):
        """The context once for each row of `x`, in its dtype."""
        context = constant(onp.array(self.context, x.dtype), like=x)
        return spread_over_rows(context, (len(x), len(self.context)))
