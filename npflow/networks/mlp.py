"""The multi-layer perceptron."""

import itertools
import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import dense, leaky_relu, relu, softplus, tanh
from npflow.errors import InputError
from npflow.networks.network import Network
from npflow.validation import check_count, check_sequence

ACTIVATIONS = {"leaky_relu": leaky_relu, "relu": relu, "softplus": softplus, "tanh": tanh}


def check_widths(hidden, name):
    """Raise unless `hidden` are the widths of a network's hidden layers; return them as a tuple of int."""
    hidden = check_sequence(hidden, f"the hidden widths of {name}")
    return tuple(check_count(width, f"each hidden width of {name}") for width in hidden)


def check_activation(activation, name):
    """Raise unless `activation` is the name of one."""
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise InputError(
            f"expected {name}'s activation to be one of {sorted(ACTIVATIONS)}, got {activation!r}"
        )


@dataclass(frozen=True)
class MLP(Network):
    r"""Dense layers with an activation between them, on the last axis.

    h_0 = x,    h_{k+1} = activation(h_k W_k + b_k),    output = h_K W_K + b_K

    Hidden weights start with variance 2 / inputs, which keeps the size of the activations from layer to
    layer where they are (leaky) ReLUs; the last layer starts at zero. On images it is a 1x1 convolution
    network.

    Parameters
    ----------
    hidden : tuple of int
        The number of units in each hidden layer.
    activation : {"leaky_relu", "relu", "tanh", "softplus"}
    squash_inputs : bool
        Whether h_0 = arcsinh(x): about x where it is small, and about its logarithm where it is large. What the
        network says of an outlier is then of the size of what it says of other rows, and a flow of many layers
        does not throw it further out at each.

    Source: He et al. 2015, Delving deep into rectifiers, section 2.2 (the starting variance).
    """

    hidden: tuple = (64, 64, 64)
    activation: str = "leaky_relu"
    squash_inputs: bool = False

    def __post_init__(self):
        object.__setattr__(self, "hidden", check_widths(self.hidden, "MLP"))
        check_activation(self.activation, "MLP")

    def init(self, rng, x, outputs):
        widths = [x.shape[-1], *self.hidden, outputs]
        params = [
            {
                "weight": (rng.standard_normal((a, b)) * math.sqrt(2 / a)).astype(x.dtype),
                "bias": onp.zeros(b, x.dtype),
            }
            for a, b in itertools.pairwise(widths)
        ]
        params[-1]["weight"][...] = 0
        return params

    def apply(self, params, x):
        activation = ACTIVATIONS[self.activation]
        *hidden, last = params
        h = np.arcsinh(x) if self.squash_inputs else x
        for layer in hidden:
            h = activation(dense(h, layer["weight"], layer["bias"]))
        return dense(h, last["weight"], last["bias"])
