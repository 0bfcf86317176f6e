"""Data in its own units, so that training does not depend on those it was measured in."""

from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.primitives import spread_rows
from npflow.layers.layer import Layer, pixels, spread

FAR = 16  # spreads: numbers this far from zero lie within a factor of two, and their differences are exact


@dataclass(frozen=True)
class Units(Layer):
    r"""Bring each channel of the first batch near zero and to the order of one; nothing is trained.

    z = x * 2^-e - c        log|det J| = -H W sum(e) log 2
    x = (z + c) * 2^e

    Adam moves all parameters by steps of about one size. For the mean of a column in millionths such a step is too
    large; in millions it is too small. Where a column is far from zero, as years are, a step of its scale moves all of
    it.

    The exponents e and the centers c are integers, and so constants. A power of two rounds nothing. A center rounds
    nothing either: it is 0 unless the channel is at least `FAR` spreads from zero. H W is the number of pixels, 1 for
    rows of features.

    Examples
    --------
    A year and a length in metres become numbers of the order of one, and come back to the last bit:

    >>> import numpy as np
    >>> from npflow.layers import Units
    >>> rng = np.random.default_rng(0)
    >>> layer, x = Units(), np.stack([rng.normal(2000, 5, 100), rng.normal(0, 2e-6, 100)], axis=1)
    >>> params = layer.init(rng, x)
    >>> z, log_det = layer.forward(params, x)
    >>> bool(np.abs(z).max() < 5), bool(np.all(layer.inverse(params, z)[0] == x))
    (True, True)
    """

    def init(self, rng, x):
        channels = x.reshape(-1, x.shape[-1]).astype(onp.float64)
        kind, size, std = onp.finfo(x.dtype), onp.max(onp.abs(channels), axis=0), spread(channels)
        constant = std <= 2 * kind.eps * size
        unit = onp.max(onp.where(constant, 0, std)) or onp.max(size) or 1.0
        std = onp.where(constant, onp.maximum(size, unit), std)
        # Relative to one channel: rounded by themselves, two exponents could differ by one more in other units.
        exponent = onp.round(onp.log2(unit)) + onp.round(onp.log2(std) - onp.log2(unit))
        exponent = onp.clip(exponent, 4 - kind.maxexp, kind.maxexp - 4).astype(onp.int16)
        center = onp.rint(onp.ldexp(onp.median(channels, axis=0), -exponent))
        center = onp.where(onp.abs(center) < FAR, 0, center)
        return {"exponent": exponent, "center": center.astype(onp.int64)}

    def forward(self, params, x):
        return x * self.scale(params, x) - params["center"].astype(x.dtype), self.log_det(params, x)

    def inverse(self, params, z):
        return (z + params["center"].astype(z.dtype)) / self.scale(params, z), -self.log_det(params, z)

    def log_det(self, params, x):
        return spread_rows(pixels(x) * np.sum(np.log(self.scale(params, x))), len(x))

    def scale(self, params, x):
        """2^-e of each channel, exactly, in the dtype of `x`."""
        exponent = params["exponent"]
        return onp.ldexp(np.ones_like(x, shape=exponent.shape), -exponent)


def context_units(context):
    """The constants of `Units` for rows of context, shape (n, features), or images of it, for each channel.

    A column of zeros and ones, such as one of a one-hot class, stays as it is: what is rare does not become large.
    """
    plain = onp.all((context == 0) | (context == 1), axis=tuple(range(context.ndim - 1)))
    return {
        name: onp.where(plain, onp.zeros_like(leaf), leaf)
        for name, leaf in Units().init(None, context).items()
    }


def in_units(params, context):
    """A context, shape (n, features) or that of images, in the units of ``params["context"]``; None for None.

    The layers of a conditional model see it so: numbers of the order of one, whatever they were measured in.
    """
    return None if context is None else Units().forward(params["context"], context)[0]
