"""The shapes of parameters, from hyper-parameters alone: no layer is initialized, and nothing is allocated.

A file may describe an architecture of any size. Its parameters are compared with those of `init` by their shapes, so
that nothing of that size is made. The tables say what the `init` of each of npflow's own classes makes; a subclass
with an `init` of its own is `Unknown`.
"""

import itertools

import numpy as np

from npflow import layers, networks, priors
from npflow.errors import InputError, kind_of
from npflow.layers.composite import Composite
from npflow.layers.coupling import Coupling
from npflow.layers.elementwise import Elementwise
from npflow.layers.layer import Layer, takes_context
from npflow.layers.masked_convolution import PLACES
from npflow.layers.masks import CHECKERBOARDS
from npflow.networks.convnet import check_image

TRAINED, CONSTANT = np.zeros(()), np.zeros((), int)


class Unknown(Exception):
    """A class whose `init` is not npflow's: only `init` knows what it makes."""


class Blanks:
    """Makes blank parameters: arrays of the right shapes whose numbers all share one place in memory.

    Parameters
    ----------
    most : int
        The largest number of arrays.
    """

    def __init__(self, most):
        self.most = self.left = most

    def __call__(self, *shape, value=TRAINED):
        """One blank array."""
        self.take(1)
        try:
            return np.broadcast_to(value, shape)
        except (ValueError, OverflowError):
            raise InputError(
                f"expected parameters that memory can hold, got an array of shape {shape}"
            ) from None

    def take(self, count):
        """Count the arrays; raise where there are more than there may be."""
        self.left -= count
        if self.left < 0:
            raise InputError(f"expected an architecture of at most {self.most:,} arrays, got one of more")

    # ---------------------------------------------------------------- models and their parts

    def flow(self, flow):
        """The parameters of a flow."""
        shape = flow.event_shape
        params, output = self.layer(flow.layer, shape, flow.context_features)
        if output != shape:
            raise InputError(
                f"expected the layer of a Flow to keep the shape of its input, got {output} of {shape}"
            )
        return {"layer": params, "prior": self.prior(flow.prior)}

    def layer(self, layer, shape, context, direction="forward"):
        """The parameters of a layer on rows of a shape, with a number of context features, and the shape of its output."""
        kind = type(layer)
        if not isinstance(layer, Layer):
            raise Unknown(kind)
        if isinstance(layer, Composite):
            known = COMPOSITES.get((kind.init, kind.steps))
            if known is None:
                raise Unknown(kind)
            return known(self, layer, shape, context, direction)
        if kind.forward is Layer.forward:
            raise InputError(f"expected a layer that defines forward, got {kind_of(layer)}")
        if kind.forward.__module__.partition(".")[0] != "npflow":  # it may rearrange rows
            raise Unknown(kind)
        return self.leaf(layer, shape, context), layer.output_shape(shape, direction)

    def leaf(self, layer, shape, context):
        """The parameters of a layer that is made of no others."""
        context = context if takes_context(type(layer)) else 0
        return look_up(LAYERS, layer)(self, layer, shape, context)

    def network(self, network, shape, outputs, context=0):
        """The parameters of a network on inputs of a shape; its last number is that of the inputs."""
        return look_up(NETWORKS, network)(self, network, shape, outputs, context)

    def prior(self, prior):
        """The parameters of a prior."""
        return look_up(PRIORS, prior)(self, prior)

    def dense(self, inputs, outputs):
        """A matrix and a bias."""
        return {"weight": self(inputs, outputs), "bias": self(outputs)}

    def convolution(self, size, inputs, outputs):
        """The kernels of a convolution and a bias."""
        return {"weight": self(size, size, inputs, outputs), "bias": self(outputs)}


def look_up(table, part):
    """The entry of a table for the `init` of a layer, a network or a prior."""
    try:
        return table[type(part).init]
    except (KeyError, AttributeError):
        raise Unknown(type(part)) from None


def hands_context_on(layer):
    """Whether a layer or one of its inner layers takes the context that it is given."""
    if not isinstance(layer, Composite):
        return takes_context(type(layer))
    kind = type(layer).steps
    if kind is layers.Chain.steps:
        return any(map(hands_context_on, layer.layers))
    if kind in (layers.Split.steps, layers.Inverse.steps):
        return hands_context_on(layer.layer)
    if kind is layers.Given.steps:
        return False
    raise Unknown(type(layer))


# ---------------------------------------------------------------- layers made of layers


def chain(make, layer, shape, context, direction):
    """Layers in order."""
    params = {}
    numbered = list(enumerate(layer.layers))
    for index, inner in numbered if direction == "forward" else reversed(numbered):
        params[index], shape = make.layer(inner, shape, context, direction)
    return [params[index] for index, _ in numbered], shape


def split(make, layer, shape, context, direction):
    """A layer of the second half of the channels."""
    kept, changed = parts(layer.mask.transformed, shape)
    params, output = make.layer(layer.layer, (*shape[:-1], changed), context, direction)
    if output != (*shape[:-1], changed):
        raise InputError(
            f"expected the layer of Split to keep the shape of its input, got {output} of {(*shape[:-1], changed)}"
        )
    return params, (*shape[:-1], kept + changed)


def inverse(make, layer, shape, context, direction):
    """A layer turned round."""
    opposite = {"forward": "inverse", "inverse": "forward"}[direction]
    return make.layer(layer.layer, shape, context, opposite)


def given(make, layer, shape, context, direction):
    """A conditional layer at one context."""
    return make.layer(layer.layer, shape, len(layer.context), direction)


COMPOSITES = {
    (kind.init, kind.steps): shapes
    for kind, shapes in (
        (layers.Chain, chain),
        (layers.Split, split),
        (layers.Inverse, inverse),
        (layers.Given, given),
    )
}


# ---------------------------------------------------------------- layers


def parts(transformed, shape):
    """How many channels of rows of a shape stay, and how many are transformed; see `npflow.layers.masks`."""
    channels = shape[-1]
    if transformed in CHECKERBOARDS:
        if len(shape) != 3 or shape[0] * shape[1] < 2:
            raise InputError(
                f"expected images of at least two pixels for a checkerboard, got rows of shape {shape}"
            )
        return channels, channels
    if channels < 2:
        raise InputError(f"expected at least two channels to take parts of, got {channels}")
    if isinstance(transformed, tuple):
        if len(transformed) != channels:
            raise InputError(
                f"expected {len(transformed)} channels, one for each place of the mask, got {channels}"
            )
        changed = sum(transformed)
    else:
        changed = channels - channels // 2 if transformed in ("first", "even") else channels // 2
    return channels - changed, changed


def coupling(make, layer, shape, context):
    """The network of a coupling."""
    kept, changed = parts(layer.transformed, shape)
    return make.network(layer.network, (*shape[:-1], kept + context), layer.numbers * changed)


def autoregressive(make, layer, shape, context):
    """The network of a masked autoregressive layer."""
    return make.network(layer.network, shape, layer.transformer.numbers * shape[-1], context)


def per_channel(*names, value=TRAINED):
    """Arrays with one number for each channel."""
    return lambda make, layer, shape, context: {name: make(shape[-1], value=value) for name in names}


def per_component(*names):
    """Arrays with one number for each component."""
    return lambda make, layer, shape, context: {name: make(*shape) for name in names}


def conv1x1(make, layer, shape, context):
    """The factors of a matrix on the channels."""
    c = shape[-1]
    fixed = {"permutation": make(c, value=CONSTANT), "sign": make(c, value=CONSTANT)}
    return fixed | {"lower": make(c, c), "upper": make(c, c), "log_scale": make(c)}


def gaussianize(make, layer, shape, context):
    """A mixture for each component."""
    return {name: make(*shape, layer.components) for name in ("means", "log_scales", "log_weights")}


def rotation(make, layer, shape, context):
    """The vectors of the reflections."""
    channels = shape[-1]
    reflections = max(channels - 1, 1) if layer.reflections is None else layer.reflections
    if reflections > channels:
        raise InputError(f"expected at most {channels} reflections, one for each channel, got {reflections}")
    return {"vectors": make(channels, reflections)}


def convolutions(make, layer, shape, context):
    """Three masked convolutions beside the identity."""
    check_image(make_rows(shape), "MaskedConvolution")
    hidden = layer.filters * shape[-1]
    widths = [shape[-1], hidden, hidden, shape[-1]]
    return {
        "log_scale": make(*shape),
        "convolutions": [
            {"lower": make(PLACES, a, b), "diagonal": make(a, b), "bias": make(b)}
            for a, b in itertools.pairwise(widths)
        ],
    }


LAYERS = {
    Layer.init: lambda make, layer, shape, context: {},
    Elementwise.init: lambda make, layer, shape, context: {"raw": make(layer.numbers * shape[-1])},
    Coupling.init: coupling,
    layers.MaskedAutoregressive.init: autoregressive,
    layers.ActNorm.init: per_channel("bias", "log_scale"),
    layers.Affine.init: per_component("mean", "log_std"),
    layers.Scaling.init: per_component("log_scale"),
    layers.Units.init: per_channel("exponent", value=CONSTANT),
    layers.Permutation.init: per_channel("permutation", value=CONSTANT),
    layers.Conv1x1.init: conv1x1,
    layers.Gaussianize.init: gaussianize,
    layers.Rotation.init: rotation,
    layers.MaskedConvolution.init: convolutions,
}


# ---------------------------------------------------------------- networks


def make_rows(shape):
    """A blank batch of one row, for checks of its axes."""
    return np.broadcast_to(TRAINED, (1,) * (1 + len(shape)))


def mlp(make, network, shape, outputs, context):
    """Dense layers."""
    return [make.dense(a, b) for a, b in itertools.pairwise([shape[-1], *network.hidden, outputs])]


def beside(make, network, shape, outputs, context):
    """Two networks."""
    if outputs % 2:
        raise InputError(f"expected an even number of outputs for Beside, got {outputs}")
    return {
        name: make.network(getattr(network, name), shape, outputs // 2) for name in ("log_scale", "shift")
    }


def convnet(make, network, shape, outputs, context):
    """Convolutions; the last has an output scale."""
    check_image(make_rows(shape), "ConvNet")
    widths = itertools.pairwise([shape[-1], *network.hidden, outputs])
    params = [make.convolution(size, a, b) for size, (a, b) in zip(network.kernels, widths, strict=True)]
    params[-1]["log_scale"] = make(outputs)
    return params


def resnet(make, network, shape, outputs, context):
    """Residual blocks."""
    check_image(make_rows(shape), "ResNet")
    make.take(4 * network.blocks)
    channels, kernel = network.channels, network.kernel
    block = [Blanks(2).convolution(kernel, channels, channels)] * 2
    last = make.convolution(1, channels, outputs) | {"log_scale": make(outputs)}
    first = make.convolution(kernel, shape[-1], channels)
    return {"first": first, "blocks": [block] * network.blocks, "last": last}


def made(make, network, shape, outputs, context):
    """Masked dense layers."""
    features = shape[-1]
    if len(shape) != 1 or outputs % features:
        raise InputError(
            "expected x of shape (n, features) and a multiple of features as outputs for MADE, "
            f"got rows of shape {shape} and {outputs} outputs"
        )
    if isinstance(network.order, tuple) and len(network.order) != features:
        raise InputError(
            f"expected {len(network.order)} features, the length of MADE's order, got {features}"
        )
    params = mlp(make, network, shape, outputs, context)
    if context:
        params[0]["context"] = make(context, len(params[0]["bias"]))
    return params


def masked_convnet(make, network, shape, outputs, context):
    """Masked convolutions in residual blocks."""
    check_image(make_rows(shape), "MaskedConvNet")
    if outputs % shape[-1]:
        raise InputError(
            f"expected a multiple of {shape[-1]} channels as outputs for MaskedConvNet, got {outputs}"
        )

    def layer(make, kernel, inputs, outputs, takes_context=False):
        params = {"weight": make(kernel**2 // 2 + 1, inputs, outputs), "bias": make(outputs)}
        return params | ({"context": make(context, outputs)} if takes_context and context else {})

    f, widths = network.features, [2 * network.features, *network.head, outputs]
    make.take(6 * network.blocks)
    one = Blanks(7)
    block = [layer(one, 1, 2 * f, f), layer(one, 3, f, f, takes_context=True), layer(one, 1, f, 2 * f)]
    return {
        "first": layer(make, network.kernel, shape[-1], 2 * f, takes_context=True),
        "blocks": [block] * network.blocks,
        "head": [layer(make, 1, a, b) for a, b in itertools.pairwise(widths)],
    }


NETWORKS = {
    networks.MLP.init: mlp,
    networks.Beside.init: beside,
    networks.ConvNet.init: convnet,
    networks.ResNet.init: resnet,
    networks.MADE.init: made,
    networks.MaskedConvNet.init: masked_convnet,
}


# ---------------------------------------------------------------- priors


def normal(make, prior):
    """Mean and log std, where they are trained."""
    return {name: make(*prior.event_shape) for name in ("mean", "log_std")} if prior.trained else {}


def mixture(make, prior):
    """A mixture, where it is trained."""
    if not prior.trained:
        return {}
    components = len(prior.means)
    return {
        "means": make(components, *prior.event_shape),
        "log_stds": make(components),
        "log_weights": make(components),
    }


PRIORS = {
    priors.Prior.init: lambda make, prior: {},
    priors.Normal.init: normal,
    priors.GaussianMixture.init: mixture,
}
