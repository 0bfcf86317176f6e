"""The affine coupling: one half of the channels is scaled and shifted by a function of the other."""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff.primitives import concatenate_last, split_last, sum_event, tanh
from npflow.errors import InputError
from npflow.layers.layer import Layer
from npflow.networks import MLP, Network
from npflow.networks.network import check_network
from npflow.validation import check_number


@dataclass(frozen=True)
class AffineCoupling(Layer):
    r"""Scale and shift one half of the channels, by a network of the other half; starts as the identity.

    x = (a, b)      z = (a, b * exp(log_scale) + shift)             log|det J| = sum(log_scale)
                    x = (a, (z_b - shift) * exp(-log_scale))        raw, shift = network(a)

    The Jacobian is triangular, whatever the network is: z_a does not depend on b, and each z_b depends on
    its own b alone, with slope exp(log_scale). log_scale = L tanh(raw / L) stays in (-L, L), so that no
    input makes exp overflow.

    Parameters
    ----------
    network : Network
        Computes raw and shift from the half that stays; `Beside` makes two networks one.
    transformed : {"second", "first"}
        Which half is transformed; a flow alternates, or mixes channels between couplings.
    log_scale_limit : float
        L.

    Source: Dinh et al. 2017, Density estimation using Real NVP, section 3.2; the tanh
    is after its section 4.1.
    """

    network: Network = MLP()  # noqa: RUF009 (frozen)
    transformed: str = "second"
    log_scale_limit: float = 2.0

    def __post_init__(self):
        if self.transformed not in ("first", "second"):
            raise InputError(
                f"expected AffineCoupling's transformed to be 'first' or 'second', got {self.transformed!r}"
            )
        check_network(self.network, "AffineCoupling's network")
        limit = check_number(self.log_scale_limit, "AffineCoupling's log_scale_limit", above=0)
        object.__setattr__(self, "log_scale_limit", limit)  # a NumPy float64 would promote float32

    def init(self, rng, x):
        kept, changed = self.halves(x)
        return self.network.init(rng, kept, outputs=2 * changed.shape[-1])

    def forward(self, params, x):
        kept, changed = self.halves(x)
        log_scale, shift = self.condition(params, kept)
        changed = changed * np.exp(log_scale) + shift
        log_det = sum_event(log_scale)
        return self.join(kept, changed), log_det

    def inverse(self, params, z):
        kept, changed = self.halves(z)
        log_scale, shift = self.condition(params, kept)
        changed = (changed - shift) * np.exp(-log_scale)
        log_det = -sum_event(log_scale)
        return self.join(kept, changed), log_det

    def condition(self, params, kept):
        """log_scale and shift, from the half that stays."""
        raw, shift = split_last(self.network.apply(params, kept), kept.shape[-1])
        log_scale = self.log_scale_limit * tanh(raw / self.log_scale_limit)
        return log_scale, shift

    def halves(self, x):
        """The half that stays, and the half that is transformed."""
        channels = x.shape[-1]
        if channels % 2:
            raise InputError(f"expected an even number of channels to take halves of, got {channels}")
        first, second = split_last(x, channels // 2)
        return (first, second) if self.transformed == "second" else (second, first)

    def join(self, kept, changed):
        """The two halves in their places again."""
        return concatenate_last(*((kept, changed) if self.transformed == "second" else (changed, kept)))
