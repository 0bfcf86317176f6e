"""The masked autoregressive layer: each component is transformed as a network says that sees those before it."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import permute, slice_last, sum_event
from npflow.errors import InputError
from npflow.layers.elementwise import Elementwise, ScaleShift
from npflow.layers.layer import Layer
from npflow.networks import MADE


@dataclass(frozen=True)
class MaskedAutoregressive(Layer):
    r"""Transform each component by a map that the components before it choose; starts as the identity.

    z_i = t(x_i; network_i(x_1 ... x_{i-1}))            log|det J| = sum(log dt/dx_i)
    x_i = t^-1(z_i; network_i(x_1 ... x_{i-1}))         one i after the other

    The Jacobian is triangular in the network's order, as z_i depends on no x_j after its own. `forward` is one pass
    of the network. In `inverse` the network is needed for x_i before x_i is known: it goes component by component,
    each time computing of the network only what has become known. `Inverse` of it is the layer of an inverse
    autoregressive flow, whose sampling is the one pass.

    Parameters
    ----------
    network : MADE
        Computes the numbers of all components at once.
    transformer : Elementwise
        What t is: by default z = x exp(log_scale) + shift, `ScaleShift`; or a `Spline`.

    Source: Papamakarios et al. 2017, Masked autoregressive flow for density estimation, section 3.1; Kingma
    et al. 2016, Improved variational inference with inverse autoregressive flow, section 3.
    """

    network: MADE = MADE()  # noqa: RUF009 (frozen)
    transformer: Elementwise = ScaleShift()  # noqa: RUF009 (frozen)

    def __post_init__(self):
        if not isinstance(self.network, MADE):
            raise InputError(f"expected MaskedAutoregressive's network to be a MADE, got {self.network!r}")
        if not isinstance(self.transformer, Elementwise) or not self.transformer.numbers:
            raise InputError(
                "expected MaskedAutoregressive's transformer to be an elementwise map such as ScaleShift(), "
                f"got {self.transformer!r}"
            )

    def init(self, rng, x, context=None):
        return self.network.init(rng, x, self.transformer.numbers * x.shape[-1], context)

    def forward(self, params, x, context=None):
        raw = self.network.apply(params, x, context)
        z, log_slope = self.transformer.transform(raw, x)
        return z, sum_event(log_slope)

    def inverse(self, params, z, context=None):
        places = self.network.places(z.shape[-1])
        network = self.network.one_by_one(params, z, context)
        found, log_slopes, x = [], [], None
        for place in places.tolist():
            raw = network.send(x)
            x, log_slope = self.transformer.untransform(raw, slice_last(z, place, place + 1))
            found.append(x)
            log_slopes.append(log_slope)
        x = permute(np.concatenate(found, axis=-1), constant(onp.argsort(places), like=z))
        return x, sum_event(np.concatenate(log_slopes, axis=-1))
