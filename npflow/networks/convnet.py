"""Networks of convolutions: what the couplings of images are conditioned by."""

import itertools
import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.convolution import conv2d
from npflow.errors import InputError
from npflow.networks.mlp import ACTIVATIONS, check_activation, check_widths
from npflow.networks.network import Network
from npflow.validation import check_count, check_sequence


@dataclass(frozen=True)
class ConvNet(Network):
    r"""Convolutions with an activation between them; the coupling network of Glow.

    h_0 = x,    h_{k+1} = activation(conv(h_k, W_k) + b_k)
    output = (conv(h_K, W_K) / sqrt(inputs) + b_K) * exp(3 log_scale)

    Hidden weights start with variance 2 / inputs, all places of a kernel counted; the last layer starts at zero, and so
    does log_scale, one number an output. Adam moves every number by about the same, and in its first steps all weights
    of an output in one direction. Divided by the root of how many there are, they move it in proportion to that root,
    not to their number. The other factor lets outputs grow fast where they have to.

    Parameters
    ----------
    hidden : tuple of int
        The number of channels of each hidden layer.
    kernels : tuple of int
        The height and width of each convolution's kernel, odd numbers: one more than there are hidden layers.
    activation : {"relu", "leaky_relu", "tanh", "softplus"}
        The paper's is the first; finite differences resolve the smooth ones.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3.3, and its code for the
    learned output scale. https://arxiv.org/abs/1807.03039

    Karras, Aila, Laine, Lehtinen: Progressive growing of GANs, 2018, section 4.1 (weights divided when they are used).
    https://arxiv.org/abs/1710.10196
    """

    hidden: tuple = (512, 512)
    kernels: tuple = (3, 1, 3)
    activation: str = "relu"

    def __post_init__(self):
        check_activation(self.activation, "ConvNet")
        object.__setattr__(self, "hidden", check_widths(self.hidden, "ConvNet"))
        kernels = check_sequence(self.kernels, "ConvNet's kernels")
        kernels = tuple(check_kernel(size, "each of ConvNet's kernels") for size in kernels)
        if len(kernels) != len(self.hidden) + 1:
            raise InputError(
                f"expected {len(self.hidden) + 1} kernels, one more than hidden layers, for ConvNet, got {kernels!r}"
            )
        object.__setattr__(self, "kernels", kernels)

    def init(self, rng, x, outputs):
        check_image(x, "ConvNet")
        widths = [x.shape[-1], *self.hidden, outputs]
        shapes = zip(self.kernels, itertools.pairwise(widths), strict=True)
        params = [start(rng, size, *channels, x.dtype) for size, channels in shapes]
        params[-1]["weight"][...] = 0
        params[-1]["log_scale"] = onp.zeros(outputs, x.dtype)
        return params

    def apply(self, params, x):
        activation = ACTIVATIONS[self.activation]
        *hidden, last = params
        h = x
        for layer in hidden:
            h = activation(conv2d(h, layer["weight"]) + layer["bias"])
        return last_layer(last, h)


@dataclass(frozen=True)
class ResNet(Network):
    r"""Residual blocks of convolutions; the coupling network of RealNVP.

    h_0 = conv(x),    h_{k+1} = h_k + conv(a(conv(a(h_k)))),    output as in `ConvNet`, from a(h_K)

    a is the activation, and every convolution adds its bias. The second of each block starts at zero, so that a deep network starts as its
    first layer, and trains without a norm (the paper has batch norms there); and so does the last.

    Parameters
    ----------
    channels : int
        The number of channels of h.
    blocks : int
        K.
    kernel : int
        The height and width of all kernels but the last, which is 1 x 1; an odd number.
    activation : {"relu", "leaky_relu", "tanh", "softplus"}
        The paper's is the first; finite differences resolve the smooth ones.

    References
    ----------
    Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, 2017, section 3.7 and appendix B.
    https://arxiv.org/abs/1605.08803

    Zhang, Dauphin, Ma: Fixup initialization: Residual learning without normalization, 2019, section 3 (the start).
    """

    channels: int = 64
    blocks: int = 2
    kernel: int = 3
    activation: str = "relu"

    def __post_init__(self):
        check_activation(self.activation, "ResNet")
        for name in ("channels", "blocks"):
            object.__setattr__(self, name, check_count(getattr(self, name), f"ResNet's {name}"))
        object.__setattr__(self, "kernel", check_kernel(self.kernel, "ResNet's kernel"))

    def init(self, rng, x, outputs):
        check_image(x, "ResNet")

        def block():
            pair = [start(rng, self.kernel, self.channels, self.channels, x.dtype) for _ in range(2)]
            pair[1]["weight"][...] = 0
            return pair

        first = start(rng, self.kernel, x.shape[-1], self.channels, x.dtype)
        blocks = [block() for _ in range(self.blocks)]
        last = start(rng, 1, self.channels, outputs, x.dtype)
        last["weight"][...] = 0
        last["log_scale"] = onp.zeros(outputs, x.dtype)
        return {"first": first, "blocks": blocks, "last": last}

    def apply(self, params, x):
        activation = ACTIVATIONS[self.activation]
        conv = lambda layer, h: conv2d(h, layer["weight"]) + layer["bias"]
        h = conv(params["first"], x)
        for first, second in params["blocks"]:
            h = h + conv(second, activation(conv(first, activation(h))))
        return last_layer(params["last"], activation(h))


def last_layer(params, h):
    """The output: a convolution whose weights are in units of 1 / sqrt(inputs), and a learned scale."""
    height, width, inputs, _ = params["weight"].shape
    y = conv2d(h, params["weight"]) * (1 / math.sqrt(height * width * inputs)) + params["bias"]
    return y * np.exp(3 * params["log_scale"])


def start(rng, size, inputs, outputs, dtype):
    """What a convolution starts with: weights of variance 2 / inputs, all places counted, and no bias."""
    deviation = math.sqrt(2 / (size * size * inputs))
    weight = deviation * rng.standard_normal((size, size, inputs, outputs))
    return {"weight": weight.astype(dtype), "bias": onp.zeros(outputs, dtype)}


def check_kernel(size, name):
    """Raise unless `size` is that of a kernel with a middle; return it."""
    size = check_count(size, name)
    if size % 2 == 0:
        raise InputError(f"expected {name} to be an odd number, got {size}")
    return size


def check_image(x, name):
    """Raise unless `x` are images."""
    if x.ndim != 4:
        raise InputError(
            f"expected images of shape (n, height, width, channels) for {name}, got shape {x.shape}"
        )
