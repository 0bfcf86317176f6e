"""The masked autoregressive layer: a network of the components before it says how each is transformed."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import permute, slice_last, sum_event
from npflow.description import checked, instance
from npflow.errors import InputError
from npflow.layers.elementwise import Elementwise, ScaleShift, check_transform
from npflow.layers.layer import Layer
from npflow.networks import MADE
from npflow.networks.network import check_outputs


def check_transformer(transformer, name):
    """Raise unless `transformer` is an elementwise map that takes numbers; return it."""
    if not isinstance(transformer, Elementwise) or not transformer.numbers:
        raise InputError(
            f"expected {name} to be an elementwise map such as ScaleShift(), got {transformer!r}"
        )
    return transformer


@dataclass(frozen=True)
class MaskedAutoregressive(Layer):
    r"""Scale and shift each component by a network of the components before it. It starts as the identity.

    z_i = x_i exp(log_scale_i) + shift_i                log|det J| = sum(log_scale)
    x_i = (z_i - shift_i) exp(-log_scale_i)             one i after the other
    log_scale_i, shift_i = network_i(x_1 ... x_{i-1})

    With another elementwise map t as its `transformer`, such as a spline,

    z_i = t(x_i; network_i(x_1 ... x_{i-1}))            log|det J| = sum(log dt/dx_i)
    x_i = t^-1(z_i; network_i(x_1 ... x_{i-1}))         one i after the other

    z_i does not depend on any x_j with j > i, so the Jacobian is triangular in the network's order. `forward` is one
    pass of the network. `inverse` computes one component at a time, because network_i needs x_1 ... x_{i-1}. Each step
    computes only the new part of the network. `Inverse` of this layer is the layer of an inverse autoregressive flow,
    which samples in one pass. With a context, network_i sees it too.

    Parameters
    ----------
    network : MADE
        Computes log_scale and shift, or the numbers of t, of all components at once.
    transformer : Elementwise
        By default `ScaleShift`, which bounds log_scale. Or another map, such as `Spline`.

    References
    ----------
    Papamakarios et al. 2017, Masked autoregressive flow for density estimation, section 3.1; Kingma et al.
    2016, Improved variational inference with inverse autoregressive flow, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import MaskedAutoregressive
    >>> rng = np.random.default_rng(0)
    >>> layer, x = MaskedAutoregressive(), rng.normal(size=(5, 3))
    >>> params = layer.init(rng, x)
    >>> z, log_det = layer.forward(params, x)
    >>> bool(np.allclose(layer.inverse(params, z)[0], x))
    True
    """

    network: MADE = instance(MADE, MADE())
    transformer: Elementwise = checked(check_transformer, ScaleShift())

    keeps_input = True  # `inverse` takes a pass for each component

    def init(self, rng, x, context=None):
        return self.network.init(rng, x, self.transformer.numbers * x.shape[-1], context)

    def check_parts(self, params, x, context=None):
        check_transform(self.transformer, x)
        check_outputs(self.network, params, x, self.transformer.numbers * x.shape[-1], context)

    def forward(self, params, x, context=None):
        raw = self.network.apply(params, x, context)
        if type(self.transformer) is not ScaleShift:
            z, log_slope = self.transformer.transform(raw, x)
            return z, sum_event(log_slope)
        log_scale, shift = self.transformer.log_scale_and_shift(raw, x)
        z = x * np.exp(log_scale) + shift
        return z, sum_event(log_scale)

    def inverse(self, params, z, context=None):
        places = self.network.places(z.shape[-1])
        network = self.network.one_by_one(params, z, context)
        found, log_slopes, x_i = [], [], None
        for i in places.tolist():
            raw, z_i = network.send(x_i), slice_last(z, i, i + 1)
            if type(self.transformer) is ScaleShift:
                log_scale, shift = self.transformer.log_scale_and_shift(raw, z_i)
                x_i, log_slope = (z_i - shift) * np.exp(-log_scale), -log_scale
            else:
                x_i, log_slope = self.transformer.untransform(raw, z_i)
            found.append(x_i)
            log_slopes.append(log_slope)
        x = permute(np.concatenate(found, axis=-1), constant(onp.argsort(places), like=z))
        return x, sum_event(np.concatenate(log_slopes, axis=-1))
