"""Elementwise maps: each component is shifted, or scaled and shifted, on its own."""

from dataclasses import dataclass

import autograd.numpy as np

from npflow.autodiff.gpu.devices import is_array
from npflow.autodiff.mistakes import is_pair
from npflow.autodiff.primitives import split_last, sum_event, tanh
from npflow.autodiff.program.frames import line_of
from npflow.description import number
from npflow.errors import InputError, in_short
from npflow.layers.layer import Layer


class Elementwise(Layer):
    r"""A monotone map of each component, which a few numbers choose; zeros choose the identity.

    z_i = f(x_i; raw_i)             log|det J| = sum(log f'(x_i; raw_i))
    x_i = f^-1(z_i; raw_i)

    A subclass writes the two directions as functions of the numbers `raw`, so that a coupling can have a network
    compute them. As a layer of its own it trains them: one set for each feature or channel.

    Attributes
    ----------
    numbers : int
        How many numbers each component needs.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from dataclasses import dataclass
    >>> from npflow.layers import Elementwise
    >>> @dataclass(frozen=True)
    ... class Scale(Elementwise):
    ...     numbers = 1
    ...
    ...     def transform(self, raw, x):
    ...         return x * np.exp(raw), raw * np.ones_like(x)
    ...
    ...     def untransform(self, raw, z):
    ...         return z * np.exp(-raw), -raw * np.ones_like(z)
    >>> z, log_det = Scale().forward({"raw": np.log([2.0, 3.0])}, np.ones((1, 2)))
    >>> z.round(4), log_det.round(4)  # log(2 * 3)
    (array([[2., 3.]]), array([1.7918]))
    """

    numbers = 0

    def transform(self, raw, x):
        """Apply the normalizing direction, x -> z.

        Parameters
        ----------
        raw : ndarray, shape (..., numbers * c)
            Any real numbers. Those of component i are entries i, i + c, i + 2c, ... of the last axis: first the
            first numbers of all components, then the second. The axes before it are those of `x`, or broadcast to
            them.
        x : ndarray, shape (..., c)

        Returns
        -------
        z, log_slope : ndarray, shape (..., c)
            log_slope is log(dz/dx) of each component.
        """
        raise NotImplementedError

    def untransform(self, raw, z):
        """Apply the generating direction, z -> x.

        Parameters
        ----------
        raw : ndarray, shape (..., numbers * c)
        z : ndarray, shape (..., c)

        Returns
        -------
        x, log_slope : ndarray, shape (..., c)
            log_slope is log(dx/dz) of each component.
        """
        raise NotImplementedError

    def init(self, rng, x):
        return {"raw": np.zeros(self.numbers * x.shape[-1], x.dtype)}

    def check_parts(self, params, x, context=None):
        check_transform(self, x)

    def forward(self, params, x):
        z, log_slope = self.transform(params["raw"], x)
        return z, sum_event(log_slope)

    def inverse(self, params, z):
        x, log_slope = self.untransform(params["raw"], z)
        return x, sum_event(log_slope)


def check_transform(elementwise, x):
    """Raise `InputError` unless an elementwise map returns two arrays like `x` in both directions. Two rows are tried."""
    few = x[:2]
    raw = np.zeros((*few.shape[:-1], elementwise.numbers * few.shape[-1]), x.dtype)
    z = few
    for direction in ("transform", "untransform"):
        method = getattr(elementwise, direction)
        result = method(raw, z)
        if not is_pair(result) or not all(is_array(one) and one.shape == few.shape for one in result):
            parts = result if is_pair(result) else (result,)
            got = " and ".join(f"shape {one.shape}" if is_array(one) else in_short(one) for one in parts)
            raise InputError(
                f"expected {direction} to return a pair, the array and its log-slopes, both of shape {few.shape}, "
                f"got {got}, at {line_of(method)}"
            )
        z = result[0]


def spread_like(value, x):
    """`value` broadcast to the shape of `x`."""
    return value if value.shape == x.shape else value * np.ones_like(x)


@dataclass(frozen=True)
class Shift(Elementwise):
    r"""Add a number to each component; starts as the identity.

    z = x + shift       log|det J| = 0
    x = z - shift

    References
    ----------
    Dinh et al. 2014, NICE, section 3.2 (the additive coupling).

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Shift
    >>> Shift().forward({"raw": np.array([1.0, -2.0])}, np.zeros((1, 2)))
    (array([[ 1., -2.]]), array([0.]))
    """

    numbers = 1

    def transform(self, raw, x):
        return x + raw, np.zeros_like(x)

    def untransform(self, raw, z):
        return z - raw, np.zeros_like(z)


@dataclass(frozen=True)
class ScaleShift(Elementwise):
    r"""Scale and shift each component; starts as the identity.

    z = x * exp(log_scale) + shift              log|det J| = sum(log_scale)
    x = (z - shift) * exp(-log_scale)           log_scale = L tanh(raw / L)

    log_scale stays in (-L, L), so that exp does not overflow for any output of a network.

    Parameters
    ----------
    log_scale_limit : float
        L, above 0.

    References
    ----------
    Dinh et al. 2017, Density estimation using Real NVP, section 3.2; the tanh is after its section 4.1.

    Examples
    --------
    However large the numbers of a network are, log_scale stays within the limit:

    >>> import numpy as np
    >>> from npflow.layers import ScaleShift
    >>> raw = np.array([0.1, 1000.0, 5.0, 6.0])  # of log_scale for both components, then of shift
    >>> z, log_det = ScaleShift(log_scale_limit=2).forward({"raw": raw}, np.zeros((1, 2)))
    >>> z, log_det.round(2)  # 0.1 and 2
    (array([[5., 6.]]), array([2.1]))
    """

    log_scale_limit: float = number(2.0, above=0)

    numbers = 2

    def transform(self, raw, x):
        log_scale, shift = self.log_scale_and_shift(raw, x)
        z = x * np.exp(log_scale) + shift
        return z, spread_like(log_scale, x)

    def untransform(self, raw, z):
        log_scale, shift = self.log_scale_and_shift(raw, z)
        x = (z - shift) * np.exp(-log_scale)
        return x, spread_like(-log_scale, z)

    def log_scale_and_shift(self, raw, x):
        """log_scale and shift of each component, from any two numbers."""
        raw, shift = split_last(raw, x.shape[-1])
        log_scale = self.log_scale_limit * tanh(raw / self.log_scale_limit)
        return log_scale, shift
