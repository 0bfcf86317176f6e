"""An affine map whose numbers a network computes from the context alone."""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff.primitives import split_last, sum_event, tanh
from npflow.description import checked, number
from npflow.errors import InputError
from npflow.layers.layer import Layer, check_start, context_at
from npflow.networks import MLP, Network
from npflow.networks.network import check_network, check_outputs


@dataclass(frozen=True)
class AffineInjector(Layer):
    r"""Scale and shift all of x by what a network makes of the context. The layer starts as the identity.

    raw, shift = network(c)                         c is the context, at each pixel of x
    log_scale = L tanh(raw / L)                     in (-L, L), so that exp does not overflow

    z = x * exp(log_scale) + shift                  log|det J| = sum(log_scale)
    x = (z - shift) * exp(-log_scale)

    At the end of a flow it gives the prior a mean and a scale that depend on the context: with z ~ N(0, 1),

    x ~ N(-shift exp(-log_scale), exp(-log_scale)^2)

    Parameters
    ----------
    network : Network
        Computes raw and shift from the context.
    log_scale_limit : float
        The bound L on abs(log_scale), above 0.

    References
    ----------
    Lugmayr, Danelljan, Van Gool, Timofte: SRFlow: Learning the super-resolution space with normalizing flow, 2020,
    section 3.4 (the affine injector). https://arxiv.org/abs/2006.14200

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import AffineInjector
    >>> from npflow.networks import ConvNet
    >>> rng = np.random.default_rng(0)
    >>> layer, x, small = AffineInjector(ConvNet((8,), (3, 3))), np.zeros((5, 4, 4, 2)), np.ones((5, 2, 2, 1))
    >>> params = layer.init(rng, x, small)
    >>> params[-1]["bias"] += [0, 0, 1, 2]  # the log-scales of both channels, then the shifts
    >>> layer.forward(params, x, small)[0][0, 0, 0]
    array([1., 2.])
    """

    network: Network = checked(check_network, MLP())
    log_scale_limit: float = number(2.0, above=0)

    def init(self, rng, x, context=None):
        params = self.network.init(rng, self.seen(x, context), outputs=2 * x.shape[-1])
        check_start(self.network.init, params, x)
        return params

    def check_parts(self, params, x, context=None):
        check_outputs(self.network, params, self.seen(x, context), 2 * x.shape[-1])

    def forward(self, params, x, context=None):
        log_scale, shift = self.numbers(params, x, context)
        return x * np.exp(log_scale) + shift, sum_event(log_scale)

    def inverse(self, params, z, context=None):
        log_scale, shift = self.numbers(params, z, context)
        return (z - shift) * np.exp(-log_scale), -sum_event(log_scale)

    def log_det(self, params, x, context=None):
        return sum_event(self.numbers(params, x, context)[0])

    def numbers(self, params, x, context):
        """The log-scale and the shift of each component of `x`."""
        raw, shift = split_last(self.network.apply(params, self.seen(x, context)), x.shape[-1])
        return self.log_scale_limit * tanh(raw / self.log_scale_limit), shift

    def seen(self, x, context):
        """What the network sees: the context at each pixel of `x`."""
        if context is None:
            raise InputError("expected a context for AffineInjector, got none")
        return context_at(x, context)
