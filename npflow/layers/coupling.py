"""Couplings: one part of the input is transformed, by a map that a network of the other part chooses."""

from dataclasses import dataclass
from functools import cached_property

from npflow.errors import InputError
from npflow.layers.elementwise import ScaleShift, Shift
from npflow.layers.layer import Layer, with_context
from npflow.layers.masks import check_transformed, mask_of
from npflow.layers.spline import Spline
from npflow.networks import MADE, MLP, Network
from npflow.networks.network import check_network
from npflow.validation import check_number


@dataclass(frozen=True)
class Coupling(Layer):
    r"""What couplings have in common: a part a that stays, and a part b, transformed by what a network says of a.

    x = (a, b)      z = (a, t(b; network(a)))           log|det J| = sum(log dt/db)
                    x = (a, t^-1(z_b; network(a)))

    The Jacobian is triangular, whatever the network is: z_a does not depend on b, and each z_b depends on its own b
    alone. What t is, the `transformer`, an `Elementwise` map, says. With a context, the network sees (a, context).

    On a checkerboard the parts are pixels. With m = 1 where they stay and 0 where they are transformed, the network
    sees the whole image m x, with zeros in the places of b:

    z = m x + (1 - m) t(x; network(m x))                log|det J| = sum((1 - m) log dt/dx)

    Parameters
    ----------
    network : Network
        Computes the numbers from the part that stays.
    transformed : str or tuple of bool
        Which part is transformed. Of the channels: the "second" or the "first" half (the first is the larger by one
        where their number is odd), those at "odd" or "even" places, counted from 0, or those where a mask is true.
        Of the pixels: those where row + column is odd, "checkerboard-odd", or even, "checkerboard-even".
        A flow alternates, or mixes channels between couplings.

    Source: Dinh et al. 2017, Density estimation using Real NVP, sections 3.2 and 3.4.
    """

    network: Network = MLP()  # noqa: RUF009 (frozen)
    transformed: str | tuple = "second"

    def __post_init__(self):
        name = type(self).__name__
        check_network(self.network, f"{name}'s network")
        if isinstance(self.network, MADE):
            raise InputError(
                f"expected {name}'s network to see all of its input for each output, got {self.network!r}"
            )
        object.__setattr__(self, "transformed", check_transformed(self.transformed, name))

    @property
    def mask(self):
        """What takes the two parts apart, and puts them together."""
        return mask_of(self.transformed)

    def init(self, rng, x, context=None):
        kept, changed = self.mask.parts(x)
        return self.network.init(
            rng, with_context(kept, context), outputs=self.transformer.numbers * changed.shape[-1]
        )

    def forward(self, params, x, context=None):
        kept, changed = self.mask.parts(x)
        raw = self.network.apply(params, with_context(kept, context))
        changed, log_slope = self.transformer.transform(raw, changed)
        log_det = self.mask.log_det(log_slope)
        return self.mask.join(kept, changed), log_det

    def inverse(self, params, z, context=None):
        kept, changed = self.mask.parts(z)
        raw = self.network.apply(params, with_context(kept, context))
        changed, log_slope = self.transformer.untransform(raw, changed)
        log_det = self.mask.log_det(log_slope)
        return self.mask.join(kept, changed), log_det


@dataclass(frozen=True)
class AdditiveCoupling(Coupling):
    r"""Shift one part of the input by a network of the other: volume stays as it is.

    x = (a, b)      z = (a, b + network(a))             log|det J| = 0
                    x = (a, z_b - network(a))

    The Jacobian is triangular with ones on its diagonal. Starts as the identity.

    Source: Dinh et al. 2014, NICE, section 3.2.
    """

    transformer = Shift()


@dataclass(frozen=True)
class AffineCoupling(Coupling):
    r"""Scale and shift one part of the input, by a network of the other; starts as the identity.

    x = (a, b)      z = (a, b * exp(log_scale) + shift)             log|det J| = sum(log_scale)
                    x = (a, (z_b - shift) * exp(-log_scale))        raw, shift = network(a)

    log_scale = L tanh(raw / L) stays in (-L, L), so that no input makes exp overflow.

    Parameters
    ----------
    network : Network
        Computes raw and shift from the part that stays; `Beside` makes two networks one.
    transformed : str or tuple of bool
        Which part is transformed; see `Coupling`.
    log_scale_limit : float
        L.

    Source: Dinh et al. 2017, Density estimation using Real NVP, section 3.2; the tanh
    is after its section 4.1.
    """

    log_scale_limit: float = 2.0

    def __post_init__(self):
        super().__post_init__()
        limit = check_number(self.log_scale_limit, "AffineCoupling's log_scale_limit", above=0)
        object.__setattr__(self, "log_scale_limit", limit)

    @cached_property
    def transformer(self):
        """The scale and shift of each channel."""
        return ScaleShift(self.log_scale_limit)


@dataclass(frozen=True)
class SplineCoupling(Coupling):
    r"""Transform one part of the input by splines, which a network of the other chooses; starts as the identity.

    x = (a, b)      z = (a, spline(b; network(a)))              log|det J| = sum(log spline'(b))
                    x = (a, spline^-1(z_b; network(a)))

    Parameters
    ----------
    network : Network
        Computes the splines' widths, heights and slopes from the part that stays.
    transformed : str or tuple of bool
        Which part is transformed; see `Coupling`.
    transformer : Spline

    Source: Durkan et al. 2019, Neural spline flows, section 3.
    """

    transformer: Spline = Spline()  # noqa: RUF009 (frozen)

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.transformer, Spline):
            raise InputError(
                f"expected SplineCoupling's transformer to be a Spline, got {self.transformer!r}"
            )
