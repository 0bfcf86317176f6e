"""The multi-layer perceptron."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from npflow.autodiff.primitives import dense, leaky_relu, relu, softplus, tanh
from npflow.errors import InputError
from npflow.networks.network import Network
from npflow.validation import check_count, check_sequence

ACTIVATIONS = {"leaky_relu": leaky_relu, "relu": relu, "softplus": softplus, "tanh": tanh}


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

    Source: He et al. 2015, Delving deep into rectifiers, section 2.2 (the starting variance).
    """

    hidden: tuple = (64, 64, 64)
    activation: str = "leaky_relu"

    def __post_init__(self):
        hidden = check_sequence(self.hidden, "the hidden widths of MLP")
        hidden = tuple(check_count(width, "each hidden width of MLP") for width in hidden)
        object.__setattr__(self, "hidden", hidden)
        if not isinstance(self.activation, str) or self.activation not in ACTIVATIONS:
            raise InputError(
                f"expected MLP's activation to be one of {sorted(ACTIVATIONS)}, got {self.activation!r}"
            )

    def init(self, rng, x, outputs):
        widths = [x.shape[-1], *self.hidden, outputs]
        params = [
            {
                "weight": (rng.standard_normal((a, b)) * math.sqrt(2 / a)).astype(x.dtype),
                "bias": np.zeros(b, x.dtype),
            }
            for a, b in itertools.pairwise(widths)
        ]
        params[-1]["weight"][...] = 0
        return params

    def apply(self, params, x):
        activation = ACTIVATIONS[self.activation]
        *hidden, last = params
        h = x
        for layer in hidden:
            h = activation(dense(h, layer["weight"], layer["bias"]))
        return dense(h, last["weight"], last["bias"])
