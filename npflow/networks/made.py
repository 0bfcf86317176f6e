"""MADE: one pass of a masked network gives the conditionals of all components."""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import concatenate_last, dense, linear, permute, slice_last
from npflow.description import checked, choice, flag
from npflow.errors import InputError
from npflow.networks.mlp import ACTIVATIONS, check_widths
from npflow.networks.network import Network, check_context, check_context_of_features
from npflow.validation import check_count, check_sequence

BLOCK = 16  # components that `one_by_one` handles between two products with everything known so far


def check_order(order, name):
    """Raise `InputError` unless `order` is a valid order for `MADE`; return it, a permutation as a tuple."""
    expected = f"expected {name} to be 'natural', 'reversed' or a permutation of 0, 1, 2, ..."
    if order is None or isinstance(order, str):
        if order not in ("natural", "reversed"):
            raise InputError(f"{expected}, got {order!r}")
        return order
    places = tuple(
        check_count(place, f"each number in {name}", least=0) for place in check_sequence(order, name)
    )
    if sorted(places) != list(range(len(places))):
        raise InputError(f"{expected}, got {places!r}")
    return places


@dataclass(frozen=True)
class MADE(Network):
    r"""A masked autoencoder: the outputs for a component depend only on the components before it in an order.

    h_0 = x,    h_{k+1} = activation(h_k (W_k * M_k) + b_k),    output = h_K (W_K * M_K) + b_K

    Every unit has a degree. The degree of a component is its place in the order, 1 ... D. The degrees of
    hidden units are spread evenly over 1 ... D - 1. A hidden mask is 1 where degree_in <= degree_out, the
    last mask where degree_in < degree_out. So an output of degree d depends on components of degree below d
    alone.

    The number of outputs is a multiple of D. Outputs i, i + D, i + 2D, ... belong to component i, and the
    Jacobian of each block of D outputs is strictly triangular in the order.

    A context adds a linear term to the first layer. Some hidden units then have degree 0: they depend on the
    context alone. Weights start as in `MLP`, where the inputs of a unit are those its mask lets through.

    Parameters
    ----------
    hidden : tuple of int
        The number of units in each hidden layer.
    activation : {"leaky_relu", "relu", "softplus", "tanh"}
    order : {"natural", "reversed"} or tuple of int
        The indices of the components in the order of their degrees.
    squash_inputs : bool
        Whether h_0 = arcsinh(x), and the same for a context; see `MLP`.

    References
    ----------
    Germain, Gregor, Murray, Larochelle: MADE: Masked autoencoder for distribution estimation, 2015, section 3.
    The paper draws the degrees; here they are spread evenly, which sorts the hidden units by degree.
    https://arxiv.org/abs/1502.03509

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.networks import MADE
    >>> rng = np.random.default_rng(0)
    >>> network = MADE((16, 16))
    >>> x = rng.standard_normal((5, 3))
    >>> params = network.init(rng, x, outputs=6)  # two for each component
    >>> network.apply(params, x).shape
    (5, 6)
    """

    hidden: Sequence[int] = checked(check_widths, (64, 64))
    activation: str = choice(ACTIVATIONS, "leaky_relu")
    order: str | Sequence[int] = checked(check_order, "natural")
    squash_inputs: bool = flag(False)

    def init(self, rng, x, outputs, context=None):
        if x.ndim != 2 or outputs % x.shape[-1]:
            raise InputError(
                "expected x of shape (n, features) and a multiple of features as outputs for MADE, "
                f"got shape {x.shape} and {outputs} outputs"
            )
        params, widths = [], (x.shape[-1], *self.hidden, outputs)
        noise = [rng.standard_normal(shape) for shape in itertools.pairwise(widths)]
        for numbers, mask in zip(noise, self.masks(x.shape[-1], outputs, context is not None, x.dtype)):
            inputs = onp.maximum(onp.sum(mask, axis=0), 1)
            weight = mask * numbers * onp.sqrt(2 / inputs)
            params.append({"weight": weight.astype(x.dtype), "bias": onp.zeros(mask.shape[1], x.dtype)})
        check_context_of_features(context)
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
        """Evaluate the network while its input becomes known, component by component in the order.

        This generator yields the outputs of the next component, shape (n, outputs of a component), and is
        then sent that component, shape (n, 1). Hidden units are sorted by degree, so each is computed once,
        when the components it depends on are known. All D components together take the arithmetic of one
        pass. As in a blocked triangular solve, the components are taken in blocks, and most of the work is a
        few large products between the blocks.

        Parameters
        ----------
        params : list of dict
        like : ndarray, shape (n, features)
            Sets the number of rows, the dtype and the device.
        context : ndarray, shape (n, context features), optional

        Examples
        --------
        >>> import numpy as np
        >>> from npflow.networks import MADE
        >>> rng = np.random.default_rng(0)
        >>> network, x = MADE((8,)), rng.standard_normal((5, 3))
        >>> params = network.init(rng, x, outputs=3)
        >>> generator = network.one_by_one(params, like=x)
        >>> first = next(generator)
        >>> second = generator.send(x[:, :1])
        >>> first.shape, second.shape
        ((5, 1), (5, 1))
        """
        check_context(params[0], context)
        activation, features = ACTIVATIONS[self.activation], like.shape[-1]
        weights, biases = self.in_order(params, features, context)
        # below[k][d]: the number of units of layer k with degrees below d. Layer 0 is the components; outputs
        # of degree d + 1 are counted at d, since they depend on hidden units up to degree d.
        degrees = self.degrees(features, context is not None)
        below = [onp.searchsorted(layer, onp.arange(features + 1)).tolist() for layer in degrees]
        each = len(params[-1]["bias"]) // features
        below.append([each * d for d in range(features + 1)])
        nothing = np.zeros_like(like, shape=(len(like), 0))
        known, component = [nothing] * len(degrees), nothing

        for start in range(0, features, BLOCK):
            stop = min(start + BLOCK, features)
            recent = [nothing] * len(degrees)  # units computed in this block
            settled = [
                linear(h, weight[: h.shape[1], units[start] : units[stop]])
                + bias[..., units[start] : units[stop]]
                for h, weight, bias, units in zip(known, weights, biases, below[1:])
            ]

            def units_of(degree, layer):
                """The units of one degree in a layer, 1 or later, before the activation."""
                first, last = below[layer][degree], below[layer][degree + 1]
                offset, rows = below[layer][start], known[layer - 1].shape[1]  # noqa: B023
                h = slice_last(settled[layer - 1], first - offset, last - offset)  # noqa: B023
                seen = recent[layer - 1]  # noqa: B023
                return h + linear(seen, weights[layer - 1][rows : rows + seen.shape[1], first:last])

            for degree in range(start, stop):
                if degree:  # the first component has degree 1
                    recent[0] = concatenate_last(recent[0], self.squashed(component))
                for layer in range(1, len(degrees)):
                    if below[layer][degree] < below[layer][degree + 1]:
                        recent[layer] = concatenate_last(recent[layer], activation(units_of(degree, layer)))
                component = yield units_of(degree, len(degrees))
            known = [concatenate_last(old, new) for old, new in zip(known, recent)]

    def squashed(self, x):
        """h_0 of components or of a context."""
        return np.arcsinh(x) if self.squash_inputs else x

    def in_order(self, params, features, context):
        """Weights and biases with inputs permuted into the order, and outputs grouped by component."""
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
        """The index of each component, in the order of their degrees."""
        if isinstance(self.order, tuple) and len(self.order) != features:
            raise InputError(
                f"expected {len(self.order)} features, the length of MADE's order, got {features}"
            )
        named = {"natural": onp.arange(features), "reversed": onp.arange(features)[::-1]}
        return onp.array(self.order) if isinstance(self.order, tuple) else named[self.order]

    def degrees(self, features, conditioned):
        """The degrees of the components, ascending, and of the units of each hidden layer."""
        lowest = 0 if conditioned or features == 1 else 1
        hidden = [lowest + onp.arange(width) * (features - lowest) // width for width in self.hidden]
        return [onp.arange(1, features + 1), *hidden]

    @functools.lru_cache(maxsize=16)  # noqa: B019 (networks are small; equal ones share an entry)
    def masks(self, features, outputs, conditioned, dtype):
        """The mask of each layer's weights: zeros and ones, shape (inputs, outputs)."""
        first, *hidden = self.degrees(features, conditioned)
        components = onp.empty(features, int)
        components[self.places(features)] = first
        layers = [components, *hidden]
        masks = [inputs[:, None] <= units for inputs, units in itertools.pairwise(layers)]
        masks.append(layers[-1][:, None] < onp.tile(components, outputs // features))
        masks = tuple(mask.astype(dtype) for mask in masks)
        for mask in masks:
            mask.setflags(write=False)  # the cache returns it again
        return masks
