"""The contract of a layer, and the two layers made of layers: a chain, and an inverse."""

import math
import textwrap
from dataclasses import dataclass
from typing import NamedTuple

import autograd.numpy as np

from npflow.description import Described
from npflow.errors import InputError
from npflow.validation import check_sequence


class Layer(Described):
    """An invertible map R^D -> R^D with a closed-form log-determinant.

    A layer is a frozen dataclass of hyper-parameters. It holds no arrays: they live in `params`, a tree
    of dicts, lists and tuples whose float leaves are trained and whose integer leaves are constants. All
    methods are pure functions; which operations they perform depends on shapes and hyper-parameters
    alone, never on the values of arrays. float32 in, float32 out.

    `init` works on the host. The other methods work wherever their arrays live: what they make is made like
    what they are given (`np.zeros_like(x, shape=...)`), and fixed arrays are a `constant` of
    `npflow.autodiff.devices`.

    Arrays have shape (n, features), or (n, height, width, channels).
    """

    def init(self, rng, x):
        """Parameters for batches like `x`, drawn from `rng`; the batch may be looked at."""
        return {}

    def forward(self, params, x):
        """The normalizing direction: x -> z, and log|det dz/dx| in nats, shape (n,)."""
        raise NotImplementedError

    def inverse(self, params, z):
        """The generating direction: z -> x, and log|det dx/dz| in nats, shape (n,)."""
        raise NotImplementedError

    def log_det(self, params, x):
        """log|det dz/dx| alone, in nats, shape (n,)."""
        return self.forward(params, x)[1]


def check_layer(layer, name="the layer"):
    """Raise unless `layer` is an object with the methods of a layer; return it."""
    methods = ("init", "forward", "inverse")
    if isinstance(layer, type) or not all(callable(getattr(layer, method, None)) for method in methods):
        raise InputError(f"expected {name} to be an object with init, forward and inverse, got {layer!r}")
    return layer


def zeros_per_row(x):
    """The log-det of a map that keeps volume: shape (n,), in the dtype of `x`."""
    return np.zeros_like(x, shape=(len(x),))


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

    Each layer is initialized on what the layers before it make of the batch. The parameters are a list,
    one entry for each layer. (The loops keep a layer's `index` for programs, which name values by it.)
    """

    layers: tuple

    def __post_init__(self):
        layers = check_sequence(self.layers, "the layers of a Chain")
        if not layers:
            raise InputError("expected a Chain of at least one layer, got none")
        for index, layer in enumerate(layers):
            check_layer(layer, f"a Chain's entry {index}")
        object.__setattr__(self, "layers", layers)

    def init(self, rng, x):
        params = []
        for index, layer in enumerate(self.layers):
            try:
                params.append(layer.init(rng, x))
            except InputError as error:
                raise error.inside(index, layer) from error
            x, _ = layer.forward(params[-1], x)
        return params

    def forward(self, params, x):
        total = zeros_per_row(x)
        for index, (layer, p) in enumerate(zip(self.layers, params, strict=True)):  # noqa: B007
            x, log_det = layer.forward(p, x)
            total = total + log_det
        return x, total

    def inverse(self, params, z):
        total = zeros_per_row(z)
        for index, (layer, p) in reversed(list(enumerate(zip(self.layers, params, strict=True)))):  # noqa: B007
            z, log_det = layer.inverse(p, z)
            total = total + log_det
        return z, total

    def trace(self, params, x):
        """Every step from x to z: a list of `Step`, one for each layer, in the order of the layers."""
        steps = []
        for index, (layer, p) in enumerate(zip(self.layers, params, strict=True)):
            x, log_det = layer.forward(p, x)
            steps.append(Step(name_in_chain(index, layer), x, log_det))
        return steps

    def trace_inverse(self, params, z):
        """Every step from z to x: a list of `Step`, one for each layer, the last layer first."""
        steps = []
        for index, (layer, p) in reversed(list(enumerate(zip(self.layers, params, strict=True)))):
            z, log_det = layer.inverse(p, z)
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

    def init(self, rng, x):
        return self.layer.init(rng, x)

    def forward(self, params, x):
        return self.layer.inverse(params, x)

    def inverse(self, params, z):
        return self.layer.forward(params, z)
