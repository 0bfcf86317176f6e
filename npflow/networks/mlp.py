"""The multi-layer perceptron."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import dense, leaky_relu, relu, softplus, tanh
from npflow.description import checked, choice, flag
from npflow.networks.network import Network
from npflow.validation import check_count, check_sequence

ACTIVATIONS = {"leaky_relu": leaky_relu, "relu": relu, "softplus": softplus, "tanh": tanh}


def check_widths(hidden, name):
    """Raise `InputError` unless `hidden` is a sequence of positive integers; return a tuple of int."""
    return tuple(check_count(width, f"each number in {name}") for width in check_sequence(hidden, name))


@dataclass(frozen=True)
class MLP(Network):
    r"""A multi-layer perceptron: dense layers on the last axis, with an activation between them.

    h_0 = x,    h_{k+1} = activation(h_k W_k + b_k),    output = h_K W_K + b_K

    Hidden weights start with variance 2 / inputs, which keeps the size of the activations from layer to layer
    if they are (leaky) ReLUs. The last layer starts at zero. On images an MLP is a network of 1x1
    convolutions.

    Parameters
    ----------
    hidden : tuple of int
        The number of units in each hidden layer.
    activation : {"leaky_relu", "relu", "softplus", "tanh"}
    squash_inputs : bool
        Whether h_0 = arcsinh(x), which is about x for small x and grows as log |x| for large x. The network's
        response to an outlier then has the size of its response to other rows, and a deep flow does not
        amplify the outlier from layer to layer.

    References
    ----------
    He, Zhang, Ren, Sun: Delving deep into rectifiers, 2015, section 2.2 (the initial variance).
    https://arxiv.org/abs/1502.01852

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.networks import MLP
    >>> rng = np.random.default_rng(0)
    >>> network = MLP((16, 16), "tanh")
    >>> x = rng.standard_normal((5, 3))
    >>> network.apply(network.init(rng, x, outputs=4), x).shape
    (5, 4)
    """

    hidden: Sequence[int] = checked(check_widths, (64, 64, 64))
    activation: str = choice(ACTIVATIONS, "leaky_relu")
    squash_inputs: bool = flag(False)

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
