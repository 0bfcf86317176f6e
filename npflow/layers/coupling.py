"""Couplings: a network of one part of the input says how the other part is transformed."""

from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff.primitives import split_last, tanh
from npflow.description import checked, instance, number
from npflow.errors import InputError
from npflow.layers.elementwise import Elementwise, ScaleShift, check_transform
from npflow.layers.layer import Layer, check_start, with_context, zeros_per_row
from npflow.layers.masks import check_transformed, mask_of
from npflow.layers.spline import Spline
from npflow.networks import MADE, MLP, Network
from npflow.networks.network import check_network, check_outputs


def check_coupling_network(network, name):
    """Raise unless `network` is one that sees all of its input for each output; return it."""
    check_network(network, name)
    if isinstance(network, MADE):
        raise InputError(f"expected {name} to see all of its input for each output, got {network!r}")
    return network


@dataclass(frozen=True)
class Coupling(Layer):
    r"""The base of couplings: one part of x is unchanged, the other is transformed.

    x = (a, b), z = (a, z_b)                        a is unchanged

    z_b = t(b; network(a))                          log|det J| = sum(log dt/db)
    b = t^-1(z_b; network(a))

    The Jacobian is triangular whatever the network is: a does not depend on b, and each component of z_b depends on
    no other component of b. With a context, the network sees (a, context).

    On a checkerboard the parts are pixels. With m = 1 where they are unchanged and 0 where they are transformed, the
    network sees the image m x, which has zeros in the places of b:

    z = m x + (1 - m) t(x; network(m x))                log|det J| = sum((1 - m) log dt/dx)

    Parameters
    ----------
    network : Network
        Computes the numbers of t from the unchanged part.
    transformed : str or tuple of bool
        The part that is transformed. A flow alternates the parts, or mixes channels between couplings.

        - "second", "first": a half of the channels. The first half is larger by one where their number is odd.
        - "odd", "even": the channels at these places, counted from 0.
        - a mask: the channels where it is true.
        - "checkerboard-odd", "checkerboard-even": the pixels where row + column is odd, or even.

    Attributes
    ----------
    numbers : int
        How many numbers t takes for each transformed component.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, sections 3.2 and 3.4.
    """

    network: Network = checked(check_coupling_network, MLP())
    transformed: str | Sequence[bool] = checked(check_transformed, "second")

    numbers = 0

    @property
    def mask(self):
        """Takes the two parts apart and puts them together."""
        return mask_of(self.transformed)

    def init(self, rng, x, context=None):
        a, b = self.mask.parts(x)
        params = self.network.init(rng, with_context(a, context), outputs=self.numbers * b.shape[-1])
        check_start(self.network.init, params, x)
        return params

    def check_parts(self, params, x, context=None):
        a, b = self.mask.parts(x)
        check_outputs(self.network, params, with_context(a, context), self.numbers * b.shape[-1])


@dataclass(frozen=True)
class AdditiveCoupling(Coupling):
    r"""Shift one part of the input. The layer starts as the identity.

    x = (a, b), z = (a, z_b)                        a is unchanged

    z_b = b + network(a)                            log|det J| = 0
    b = z_b - network(a)

    The Jacobian is triangular with ones on its diagonal, so the map keeps volume.

    Parameters
    ----------
    network : Network
        Computes the shift from the unchanged part.
    transformed : str or tuple of bool
        The part that is transformed: "second" or "first", a half of the channels; "odd" or "even" channels;
        "checkerboard-odd" or "checkerboard-even" pixels; or a mask. See `npflow.layers.coupling.Coupling`.

    References
    ----------
    Dinh et al. 2014, NICE, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import AdditiveCoupling
    >>> rng = np.random.default_rng(0)
    >>> layer, x = AdditiveCoupling(), rng.normal(size=(5, 4))
    >>> z, log_det = layer.forward(layer.init(rng, x), x)
    >>> bool(np.all(log_det == 0))
    True
    """

    numbers = 1

    def forward(self, params, x, context=None):
        a, b = self.mask.parts(x)
        z_b = b + self.network.apply(params, with_context(a, context))
        return self.mask.join(a, z_b), self.log_det(params, x)

    def inverse(self, params, z, context=None):
        a, z_b = self.mask.parts(z)
        b = z_b - self.network.apply(params, with_context(a, context))
        return self.mask.join(a, b), self.log_det(params, z)

    def log_det(self, params, x, context=None):
        return zeros_per_row(x)


@dataclass(frozen=True)
class AffineCoupling(Coupling):
    r"""Scale and shift one part of the input. The layer starts as the identity.

    x = (a, b), z = (a, z_b)                        a is unchanged
    raw, shift = network(a)
    log_scale = L tanh(raw / L)                     in (-L, L), so that exp does not overflow

    z_b = b * exp(log_scale) + shift                log|det J| = sum(log_scale)
    b = (z_b - shift) * exp(-log_scale)

    Parameters
    ----------
    network : Network
        Computes raw and shift from the unchanged part. `npflow.networks.Beside` makes one network of two.
    transformed : str or tuple of bool
        The part that is transformed: "second" or "first", a half of the channels; "odd" or "even" channels;
        "checkerboard-odd" or "checkerboard-even" pixels; or a mask. See `npflow.layers.coupling.Coupling`.
    log_scale_limit : float
        The bound L on abs(log_scale), above 0.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 3.2; the tanh is after its section 4.1.

    Examples
    --------
    `ElementwiseCoupling` with `ScaleShift` is the same map, written for any elementwise map:

    >>> import numpy as np
    >>> from npflow.layers import AffineCoupling, ElementwiseCoupling, ScaleShift
    >>> rng = np.random.default_rng(0)
    >>> layer, x = AffineCoupling(), rng.normal(size=(5, 4))
    >>> params = layer.init(rng, x)
    >>> z, log_det = layer.forward(params, x)
    >>> bool(np.all(z == ElementwiseCoupling(transformer=ScaleShift()).forward(params, x)[0]))
    True
    """

    log_scale_limit: float = number(2.0, above=0)

    numbers = 2

    def forward(self, params, x, context=None):
        a, b = self.mask.parts(x)
        raw, shift = split_last(self.network.apply(params, with_context(a, context)), b.shape[-1])
        log_scale = self.log_scale_limit * tanh(raw / self.log_scale_limit)
        z_b = b * np.exp(log_scale) + shift
        return self.mask.join(a, z_b), self.mask.log_det(log_scale)

    def inverse(self, params, z, context=None):
        a, z_b = self.mask.parts(z)
        raw, shift = split_last(self.network.apply(params, with_context(a, context)), z_b.shape[-1])
        log_scale = self.log_scale_limit * tanh(raw / self.log_scale_limit)
        b = (z_b - shift) * np.exp(-log_scale)
        return self.mask.join(a, b), self.mask.log_det(-log_scale)

    def log_det(self, params, x, context=None):
        a, b = self.mask.parts(x)
        raw, _ = split_last(self.network.apply(params, with_context(a, context)), b.shape[-1])
        return self.mask.log_det(self.log_scale_limit * tanh(raw / self.log_scale_limit))


@dataclass(frozen=True)
class ElementwiseCoupling(Coupling):
    r"""Transform one part of the input by any elementwise map t.

    x = (a, b), z = (a, z_b)                        a is unchanged

    z_b = t(b; network(a))                          log|det J| = sum(log dt/db)
    b = t^-1(z_b; network(a))

    Parameters
    ----------
    network : Network
        Computes the numbers of t from the unchanged part.
    transformed : str or tuple of bool
        The part that is transformed: "second" or "first", a half of the channels; "odd" or "even" channels;
        "checkerboard-odd" or "checkerboard-even" pixels; or a mask. See `npflow.layers.coupling.Coupling`.
    transformer : Elementwise
        t, such as `ScaleShift` or `Spline`.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 3.2.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import ElementwiseCoupling, Spline
    >>> rng = np.random.default_rng(0)
    >>> layer, x = ElementwiseCoupling(transformed="odd", transformer=Spline(bins=4)), rng.normal(size=(5, 4))
    >>> params = layer.init(rng, x)
    >>> params[-1]["bias"] += 1.0  # no longer the identity
    >>> z, _ = layer.forward(params, x)
    >>> np.all(z == x, axis=0)
    array([ True, False,  True, False])
    """

    transformer: Elementwise = instance(Elementwise, ScaleShift())

    @property
    def numbers(self):
        """How many numbers t takes for each component."""
        return self.transformer.numbers

    def check_parts(self, params, x, context=None):
        check_transform(self.transformer, x)
        super().check_parts(params, x, context)

    def forward(self, params, x, context=None):
        a, b = self.mask.parts(x)
        raw = self.network.apply(params, with_context(a, context))
        z_b, log_slope = self.transformer.transform(raw, b)
        return self.mask.join(a, z_b), self.mask.log_det(log_slope)

    def inverse(self, params, z, context=None):
        a, z_b = self.mask.parts(z)
        raw = self.network.apply(params, with_context(a, context))
        b, log_slope = self.transformer.untransform(raw, z_b)
        return self.mask.join(a, b), self.mask.log_det(log_slope)


@dataclass(frozen=True)
class SplineCoupling(ElementwiseCoupling):
    r"""Transform one part of the input by splines. The layer starts as the identity.

    x = (a, b), z = (a, z_b)                        a is unchanged

    z_b = spline(b; network(a))                     log|det J| = sum(log spline'(b))
    b = spline^-1(z_b; network(a))

    Parameters
    ----------
    network : Network
        Computes the widths, heights and slopes of the splines from the unchanged part.
    transformed : str or tuple of bool
        The part that is transformed: "second" or "first", a half of the channels; "odd" or "even" channels;
        "checkerboard-odd" or "checkerboard-even" pixels; or a mask. See `npflow.layers.coupling.Coupling`.
    transformer : Spline

    References
    ----------
    Durkan et al. 2019, Neural spline flows, section 3.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Spline, SplineCoupling
    >>> rng = np.random.default_rng(0)
    >>> layer, x = SplineCoupling(transformer=Spline(bins=4)), rng.normal(size=(5, 4))
    >>> layer.init(rng, x)[-1]["bias"].shape  # 3 bins - 1 numbers for each of two components
    (22,)
    """

    transformer: Spline = instance(Spline, Spline())
