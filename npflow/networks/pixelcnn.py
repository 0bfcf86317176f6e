"""The network of PixelCNN: masked convolutions, where each number of an image depends on those before it."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import linear, relu
from npflow.description import checked, count
from npflow.errors import InputError
from npflow.networks.convnet import check_image, check_kernel
from npflow.networks.masked import causal_mask, masked, masked_convolution, side_of, slices_of
from npflow.networks.mlp import check_widths
from npflow.networks.network import DEEPEST, Network, check_context


@dataclass(frozen=True)
class MaskedConvNet(Network):
    r"""Masked convolutions: outputs for a channel of a pixel depend on the pixels and channels before it.

    The order is raster order: pixels row by row from the left; within a pixel, channel by channel (red, then
    green given red, then blue given both). The features of each layer are divided into as many groups as x
    has channels. Group k depends on all groups of the pixels before its own, and at its own pixel on

    mask A: groups 0 ... k - 1            in the first convolution, whose input is x
    mask B: groups 0 ... k                in all others; their group k has not seen channel k

    h = A(x)                              kernel x kernel, to 2 features
    h = h + B(relu(B(relu(B(relu(h))))))  each block: 1 x 1, 3 x 3, to features each; 1 x 1 to 2 features
    h = B(relu(h))                        1 x 1, for each width of the head
    output = B(relu(h))                   1 x 1; all outputs of channel 0 first, then those of channel 1, ...

    A kernel keeps its places, row by row, up to its middle: a weight has shape (places, inputs, outputs), and
    its last place, the middle, is masked by groups. Weights start with variance 2 / inputs, where masked
    inputs do not count; those of the last layer start at zero.

    A context adds V^T context, the same at all pixels, to the first convolution and to each 3 x 3 one.

    Parameters
    ----------
    features : int
        The features of a 3 x 3 convolution; there are twice as many between blocks.
    blocks : int
        The number of residual blocks. Each lets an output see one pixel further.
    kernel : int
        The side of the first kernel, odd.
    head : tuple of int
        The features of each 1 x 1 convolution after the blocks.

    References
    ----------
    van den Oord, Kalchbrenner, Kavukcuoglu: Pixel recurrent neural networks, 2016, sections 3.3 to 3.5 and
    table 1.
    https://arxiv.org/abs/1601.06759

    van den Oord et al.: Conditional image generation with PixelCNN decoders, 2016, section 2.3 (the context).
    https://arxiv.org/abs/1606.05328

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.networks import MaskedConvNet
    >>> rng = np.random.default_rng(0)
    >>> network = MaskedConvNet(8, blocks=1, kernel=3, head=(8,))
    >>> x = rng.standard_normal((5, 6, 6, 3))
    >>> network.apply(network.init(rng, x, outputs=12), x).shape
    (5, 6, 6, 12)
    """

    features: int = count(32)
    blocks: int = count(5, least=0, most=DEEPEST)
    kernel: int = checked(check_kernel, 7)
    head: Sequence[int] = checked(check_widths, (64,))

    def init(self, rng, x, outputs, context=None):
        check_image(x, "MaskedConvNet")
        channels = x.shape[-1]
        if outputs % channels:
            raise InputError(
                f"expected a multiple of {channels} channels as outputs for MaskedConvNet, got {outputs}"
            )

        def layer(kernel, inputs, outputs, kind="B", takes_context=False, scale=1.0):
            shape = kernel**2 // 2 + 1, inputs, outputs
            numbers, mask = rng.standard_normal(shape), causal_mask(kind, shape, channels, x.dtype)
            seen = onp.maximum(onp.sum(mask, axis=(0, 1)), 1)
            weight = mask * numbers * onp.sqrt(2 / seen) * scale
            params = {"weight": weight.astype(x.dtype), "bias": onp.zeros(outputs, x.dtype)}
            if takes_context and context is not None:
                shape = context.shape[-1], outputs
                params["context"] = (rng.standard_normal(shape) / math.sqrt(shape[0])).astype(x.dtype)
            return params

        f, widths = self.features, [2 * self.features, *self.head, outputs]
        share = 1 / math.sqrt(max(self.blocks, 1))  # all blocks together add the variance of h
        block = lambda: [
            layer(1, 2 * f, f),
            layer(3, f, f, takes_context=True),
            layer(1, f, 2 * f, scale=share),
        ]
        first = layer(self.kernel, channels, 2 * f, kind="A", takes_context=True)
        blocks = [block() for _ in range(self.blocks)]
        head = [layer(1, a, b) for a, b in itertools.pairwise(widths)]
        head[-1]["weight"][...] = 0
        return {"first": first, "blocks": blocks, "head": head}

    def apply(self, params, x, context=None):
        check_context(params["first"], context)

        def convolve(layer, h, kind):
            h = masked_convolution(h, layer["weight"], layer["bias"], kind, channels=x.shape[-1])
            if "context" in layer:
                h = h + np.reshape(linear(context, layer["context"]), (len(x), 1, 1, -1))
            return h

        h = convolve(params["first"], x, "A")
        return self.compose(params, h, lambda layer, h: convolve(layer, relu(h), "B"))

    def compose(self, layers, h, convolve):
        """The output, given the first convolution's h; `convolve(layer, h)` computes B(relu(h))."""
        for block in layers["blocks"]:
            inner = h
            for layer in block:
                inner = convolve(layer, inner)
            h = h + inner
        for layer in layers["head"]:
            h = convolve(layer, h)
        return h

    def one_by_one(self, params, like, context=None):
        """Evaluate the network while the image becomes known, number by number in raster order.

        This generator yields the outputs of the next channel, shape (n, outputs of a channel), and is then
        sent that channel, shape (n, 1). Each layer stores the part of its input that it still needs. A step
        computes one group of features at one pixel, and nothing is computed twice: all steps together take
        the arithmetic of one pass.

        Parameters
        ----------
        params : dict
        like : ndarray, shape (n, height, width, channels)
            Sets the shape, the dtype and the device.
        context : ndarray, shape (n, context features), optional
        """
        check_context(params["first"], context)
        _, height, width, channels = like.shape
        seen = lambda layer, kind="B": Seen(layer, kind, like, context)
        first, head = seen(params["first"], "A"), list(map(seen, params["head"]))
        blocks = [list(map(seen, block)) for block in params["blocks"]]
        layers = {"blocks": blocks, "head": head}
        for _ in range(height):
            for layer in itertools.chain([first], *blocks, head):
                layer.begin_row()
            for place in itertools.product(range(width), range(channels)):
                convolve = functools.partial(Seen.step, place=place)
                value = yield self.compose(layers, first.output(place), convolve)
                first.put(value, place)


class Seen:
    """A masked convolution evaluated in raster order.

    It stores the rows of its input that the kernel still reaches. A `place` is (column, group) in the row
    that is being filled, the last one stored.
    """

    def __init__(self, layer, kind, like, context):
        n, _, width, channels = like.shape
        places, inputs, outputs = layer["weight"].shape
        self.reach = side_of(places) // 2  # pixels to each side of the middle
        self.rows = onp.zeros_like(like, shape=(n, self.reach + 1, width + 2 * self.reach, inputs))
        self.inputs, outputs = slices_of(inputs, channels), slices_of(outputs, channels)
        weight, bias = masked(layer["weight"], kind, channels), layer["bias"]
        if "context" in layer:
            bias = bias + linear(context, layer["context"])
        self.weights = [weight[:, group] for group in outputs]
        self.biases = [bias[..., group] for group in outputs]

    def begin_row(self):
        """Start the next row of the image."""
        self.rows = onp.concatenate([self.rows[:, 1:], onp.zeros_like(self.rows[:, :1])], axis=1)

    def put(self, h, place):
        """Store the input of a group at a place."""
        column, group = place
        self.rows[:, -1, column + self.reach, self.inputs[group]] = h

    def output(self, place):
        """Compute the output of a group at a place, shape (n, features of the group)."""
        column, group = place
        window = self.rows[:, :, column : column + 2 * self.reach + 1]
        weight = self.weights[group]
        with onp.errstate(invalid="ignore"):  # see primitives._dot
            return onp.dot(window.reshape(len(window), -1)[:, : len(weight)], weight) + self.biases[group]

    def step(self, h, place):
        """Store relu(h) as the input of a group at a place; return the output of that group."""
        self.put(onp.maximum(h, 0), place)
        return self.output(place)
