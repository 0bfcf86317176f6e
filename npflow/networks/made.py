"""MADE: one pass of a masked network gives the conditionals of all components."""

import functools
import itertools
import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import concatenate_last, dense, linear, permute, slice_last
from npflow.errors import InputError
from npflow.networks.mlp import ACTIVATIONS, check_activation, check_widths
from npflow.networks.network import Network, check_context
from npflow.validation import check_count, check_sequence

BLOCK = 16  # components that `one_by_one` takes in between two products with all that is known


@dataclass(frozen=True)
class MADE(Network):
    r"""A perceptron whose outputs for component i see only the components before it in an order.

    h_0 = x,    h_{k+1} = activation(h_k (W_k * M_k) + b_k),    output = h_K (W_K * M_K) + b_K

    Each unit has a degree. A component's is its place in the order, 1 ... D; those of a hidden layer are spread
    evenly over 1 ... D - 1. A mask M lets a weight pass where the degree does not fall, and to the outputs where it
    rises: so the outputs of degree d are functions of the components of degrees below d, and the Jacobian of each
    block of outputs is strictly triangular in the order. There is a whole number of outputs for each component:
    those of component i are at i, i + D, i + 2 D ...

    With a context, all hidden units of the first layer see it, and some have degree 0: they see nothing else.

    Parameters
    ----------
    hidden : tuple of int
        The number of units in each hidden layer.
    activation : {"leaky_relu", "relu", "tanh", "softplus"}
    order : {"natural", "reversed"} or tuple of int
        The components in the order of their degrees.
    squash_inputs : bool
        Whether h_0 = arcsinh(x); see `MLP`.

    Source: Germain et al. 2015, MADE: Masked autoencoder for distribution estimation, section 3. The degrees are
    spread evenly here, where the paper draws them, so that hidden units lie in the order of their degrees.
    """

    hidden: tuple = (64, 64)
    activation: str = "leaky_relu"
    order: str | tuple = "natural"
    squash_inputs: bool = False

    def __post_init__(self):
        object.__setattr__(self, "hidden", check_widths(self.hidden, "MADE"))
        check_activation(self.activation, "MADE")
        if isinstance(self.order, str) and self.order in ("natural", "reversed"):
            return
        expected = (
            "expected MADE's order to be 'natural', 'reversed' or a permutation of the numbers from 0 on"
        )
        if isinstance(self.order, (str, type(None))):
            raise InputError(f"{expected}, got {self.order!r}")
        order = check_sequence(self.order, "MADE's order")
        order = tuple(check_count(place, "each number in MADE's order", least=0) for place in order)
        if sorted(order) != list(range(len(order))):
            raise InputError(f"{expected}, got {order!r}")
        object.__setattr__(self, "order", order)

    def init(self, rng, x, outputs, context=None):
        if x.ndim != 2 or outputs % x.shape[-1]:
            raise InputError(
                "expected rows of features, and a whole number of outputs for each, for MADE, "
                f"got shape {x.shape} and {outputs} outputs"
            )
        params = []
        for mask in self.masks(x.shape[-1], outputs, context is not None, x.dtype):
            inputs = onp.maximum(onp.sum(mask, axis=0), 1)  # that a unit sees
            weight = mask * rng.standard_normal(mask.shape) * onp.sqrt(2 / inputs)
            params.append({"weight": weight.astype(x.dtype), "bias": onp.zeros(mask.shape[1], x.dtype)})
        if context is not None:
            shape = context.shape[-1], params[0]["weight"].shape[1]
            params[0]["context"] = (rng.standard_normal(shape) / math.sqrt(shape[0])).astype(x.dtype)
        for name in {"weight", "context"} & set(params[-1]):
            params[-1][name][...] = 0
        return params

    def apply(self, params, x, context=None):
        check_context(params[0], context)
        activation = ACTIVATIONS[self.activation]
        masks = self.masks(x.shape[-1], len(params[-1]["bias"]), context is not None, x.dtype)
        h = self.squashed(x)
        for index, (layer, mask) in enumerate(zip(params, masks, strict=True)):
            h = activation(h) if index else h
            h = dense(h, layer["weight"] * constant(mask, like=x), layer["bias"])
            h = h + linear(self.squashed(context), layer["context"]) if "context" in layer else h
        return h

    def one_by_one(self, params, like, context=None):
        """The same outputs, one component's after the other's in their order, while the components become known.

        A generator, for rows like those of `like`: it yields the outputs of the next component, shape (n, outputs
        for each), and is sent that component, shape (n, 1). Hidden units lie in the order of their degrees: each is
        computed once all components that it sees are known, and never again, so that all D components take no
        more arithmetic than one pass. (They are taken in by blocks, between which large products do most of
        the work, as in a blocked triangular solve.)
        """
        check_context(params[0], context)
        activation, features = ACTIVATIONS[self.activation], like.shape[-1]
        weights, biases = self.in_order(params, features, context)
        # below[k][d]: how many units of layer k, the components being layer 0, have degrees below d
        degrees = self.degrees(features, context is not None)
        below = [onp.searchsorted(layer, onp.arange(features + 1)).tolist() for layer in degrees]
        each = len(params[-1]["bias"]) // features
        below.append([each * d for d in range(features + 1)])  # outputs of degree d + 1 see hidden units of d
        nothing = np.zeros_like(like, shape=(len(like), 0))
        known, component = [nothing] * len(degrees), nothing

        for start in range(0, features, BLOCK):
            stop = min(start + BLOCK, features)
            recent = [nothing] * len(degrees)  # what has become known in this block
            settled = [
                linear(h, weight[: h.shape[1], units[start] : units[stop]])
                + bias[..., units[start] : units[stop]]
                for h, weight, bias, units in zip(known, weights, biases, below[1:])
            ]

            def units_of(degree, layer):
                """The units of a layer (from 1 on) that have a degree, before their activation."""
                first, last = below[layer][degree], below[layer][degree + 1]
                offset, rows = below[layer][start], known[layer - 1].shape[1]  # noqa: B023
                h = slice_last(settled[layer - 1], first - offset, last - offset)  # noqa: B023
                seen = recent[layer - 1]  # noqa: B023
                return h + linear(seen, weights[layer - 1][rows : rows + seen.shape[1], first:last])

            for degree in range(start, stop):
                if degree:  # of which the first component has 1
                    recent[0] = concatenate_last(recent[0], self.squashed(component))
                for layer in range(1, len(degrees)):
                    if below[layer][degree] < below[layer][degree + 1]:
                        recent[layer] = concatenate_last(recent[layer], activation(units_of(degree, layer)))
                component = yield units_of(degree, len(degrees))
            known = [concatenate_last(old, new) for old, new in zip(known, recent)]

    def squashed(self, x):
        """What the first layer sees of components, and of a context."""
        return np.arcsinh(x) if self.squash_inputs else x

    def in_order(self, params, features, context):
        """The weights and biases for components in the order of their degrees, and outputs component by component."""
        weights, biases = [layer["weight"] for layer in params], [layer["bias"] for layer in params]
        if context is not None:
            biases[0] = biases[0] + linear(self.squashed(context), params[0]["context"])
        places = self.places(features)
        outputs = onp.arange(biases[-1].shape[-1]).reshape(-1, features)[:, places].T.ravel()
        weights[0] = permute(weights[0], constant(places, like=weights[0]), axis=0)
        weights[-1] = permute(weights[-1], constant(outputs, like=weights[0]))
        biases[-1] = permute(biases[-1], constant(outputs, like=weights[0]))
        return weights, biases

    def places(self, features):
        """The components' places in a row, in the order of their degrees."""
        if isinstance(self.order, tuple) and len(self.order) != features:
            raise InputError(
                f"expected {len(self.order)} features, as many as in MADE's order, got {features}"
            )
        named = {"natural": onp.arange(features), "reversed": onp.arange(features)[::-1]}
        return onp.array(self.order) if isinstance(self.order, tuple) else named[self.order]

    def degrees(self, features, conditioned):
        """The degrees of the components, in their order, and of the units of each hidden layer."""
        lowest = 0 if conditioned or features == 1 else 1
        hidden = [lowest + onp.arange(width) * (features - lowest) // width for width in self.hidden]
        return [onp.arange(1, features + 1), *hidden]

    @functools.lru_cache(maxsize=16)  # noqa: B019 (a network is small, and equal ones share an entry)
    def masks(self, features, outputs, conditioned, dtype):
        """The mask of each layer's weights, of zeros and ones, shape (inputs, outputs)."""
        first, *hidden = self.degrees(features, conditioned)
        components = onp.empty(features, int)
        components[self.places(features)] = first
        layers = [components, *hidden]
        masks = [inputs[:, None] <= units for inputs, units in itertools.pairwise(layers)]
        masks.append(layers[-1][:, None] < onp.tile(components, outputs // features))
        masks = tuple(mask.astype(dtype) for mask in masks)
        for mask in masks:
            mask.setflags(write=False)  # it is kept for the next call
        return masks
