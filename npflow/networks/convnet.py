"""Networks of convolutions, which condition the couplings of images."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.convolution import conv2d
from npflow.description import checked, choice, count
from npflow.errors import InputError
from npflow.networks.mlp import ACTIVATIONS, check_widths
from npflow.networks.network import DEEPEST, Network
from npflow.validation import check_count, check_sequence


def check_kernel(size, name):
    """Raise `InputError` unless `size` is an odd integer, at least 1; return it as an int."""
    size = check_count(size, name)
    if size % 2 == 0:
        raise InputError(f"expected {name} to be an odd number, got {size}")
    return size


def check_kernels(kernels, name):
    """Raise `InputError` unless `kernels` is a sequence of odd numbers; return them as a tuple of int."""
    return tuple(check_kernel(size, f"each number in {name}") for size in check_sequence(kernels, name))


def check_image(x, name):
    """Raise `InputError` unless `x` has the axes of a batch of images."""
    if x.ndim != 4:
        raise InputError(
            f"expected images of shape (n, height, width, channels) for {name}, got shape {x.shape}"
        )


@dataclass(frozen=True)
class ConvNet(Network):
    r"""Convolutions with an activation between them: the coupling network of Glow.

    h_0 = x,    h_{k+1} = activation(conv(h_k, W_k) + b_k)
    output = (conv(h_K, W_K) / sqrt(inputs) + b_K) * exp(3 log_scale)

    `inputs` is height * width * channels of a kernel. Hidden weights start with variance 2 / inputs. The last
    layer starts at zero, as does log_scale, which has one number for each output channel.

    Adam's first steps move all weights of an output by about the same amount and in the same direction, so an
    output moves in proportion to `inputs`. Dividing by sqrt(inputs) makes that sqrt(inputs). The factor exp(3
    log_scale) lets outputs grow fast where they need to.

    Parameters
    ----------
    hidden : tuple of int
        The number of channels of each hidden layer.
    kernels : tuple of int
        The height and width of each convolution's kernel, odd numbers: one more than hidden layers.
    activation : {"relu", "leaky_relu", "softplus", "tanh"}
        The paper uses ReLUs. Finite differences are more accurate with the smooth ones, softplus and tanh.

    References
    ----------
    Kingma, Dhariwal: Glow: Generative flow with invertible 1x1 convolutions, 2018, section 3.3, and its code
    for the learned output scale.
    https://arxiv.org/abs/1807.03039

    Karras, Aila, Laine, Lehtinen: Progressive growing of GANs, 2018, section 4.1 (weights divided when they
    are used).
    https://arxiv.org/abs/1710.10196

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.networks import ConvNet
    >>> rng = np.random.default_rng(0)
    >>> network = ConvNet((16, 16), kernels=(3, 1, 3))
    >>> x = rng.standard_normal((5, 8, 8, 3))
    >>> network.apply(network.init(rng, x, outputs=6), x).shape
    (5, 8, 8, 6)
    """

    hidden: Sequence[int] = checked(check_widths, (512, 512))
    kernels: Sequence[int] = checked(check_kernels, (3, 1, 3))
    activation: str = choice(ACTIVATIONS, "relu")

    def __post_init__(self):
        super().__post_init__()
        if len(self.kernels) != len(self.hidden) + 1:
            raise InputError(
                f"expected ConvNet to have {len(self.hidden) + 1} kernels, one more than hidden layers, "
                f"got {self.kernels!r}"
            )

    def init(self, rng, x, outputs):
        check_image(x, "ConvNet")
        widths = [x.shape[-1], *self.hidden, outputs]
        shapes = zip(self.kernels, itertools.pairwise(widths), strict=True)
        params = [init_convolution(rng, size, *channels, x.dtype) for size, channels in shapes]
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
    r"""Residual blocks of convolutions: the coupling network of RealNVP.

    h_0 = conv(x),    h_{k+1} = h_k + conv(a(conv(a(h_k)))),    output as in `ConvNet`, from a(h_K)

    a is the activation, and every convolution adds its bias. The second convolution of each block starts at
    zero, so that a deep network starts as its first layer and trains without the paper's batch norms. The
    last layer starts at zero too.

    Parameters
    ----------
    channels : int
        The number of channels of h.
    blocks : int
        K.
    kernel : int
        The height and width of all kernels but the last, which is 1 x 1; an odd number.
    activation : {"relu", "leaky_relu", "softplus", "tanh"}
        The paper uses ReLUs. Finite differences are more accurate with the smooth ones, softplus and tanh.

    References
    ----------
    Dinh, Sohl-Dickstein, Bengio: Density estimation using Real NVP, 2017, section 3.7 and appendix B.
    https://arxiv.org/abs/1605.08803

    Zhang, Dauphin, Ma: Fixup initialization: Residual learning without normalization, 2019, section 3 (the
    zeros).
    https://arxiv.org/abs/1901.09321

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.networks import ResNet
    >>> rng = np.random.default_rng(0)
    >>> network = ResNet(channels=16, blocks=1)
    >>> x = rng.standard_normal((5, 8, 8, 3))
    >>> network.apply(network.init(rng, x, outputs=6), x).shape
    (5, 8, 8, 6)
    """

    channels: int = count(64)
    blocks: int = count(2, most=DEEPEST)
    kernel: int = checked(check_kernel, 3)
    activation: str = choice(ACTIVATIONS, "relu")

    def init(self, rng, x, outputs):
        check_image(x, "ResNet")

        def block():
            pair = [
                init_convolution(rng, self.kernel, self.channels, self.channels, x.dtype) for _ in range(2)
            ]
            pair[1]["weight"][...] = 0
            return pair

        first = init_convolution(rng, self.kernel, x.shape[-1], self.channels, x.dtype)
        blocks = [block() for _ in range(self.blocks)]
        last = init_convolution(rng, 1, self.channels, outputs, x.dtype)
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
    """The outputs of a `ConvNet` or `ResNet`: (conv(h, W) / sqrt(inputs) + b) * exp(3 log_scale)."""
    height, width, inputs, _ = params["weight"].shape
    y = conv2d(h, params["weight"]) * (1 / math.sqrt(height * width * inputs)) + params["bias"]
    return y * np.exp(3 * params["log_scale"])


def init_convolution(rng, size, inputs, outputs, dtype):
    """Draw a weight of shape (size, size, inputs, outputs) and variance 2 / (size^2 inputs); zero bias."""
    deviation = math.sqrt(2 / (size * size * inputs))
    weight = deviation * rng.standard_normal((size, size, inputs, outputs))
    return {"weight": weight.astype(dtype), "bias": onp.zeros(outputs, dtype)}
