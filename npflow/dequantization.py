"""A flow over integers, such as pixels: the probability of an integer is that of its cell under the density."""

import math
from dataclasses import dataclass, replace
from functools import reduce

import autograd.numpy as np
import numpy as onp
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike, DTypeLike

from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.description import checked, count
from npflow.errors import ConvergenceError, InputError
from npflow.flow import Flow, estimates_of
from npflow.model import Model
from npflow.typing import Params
from npflow.validation import (
    check_count,
    check_dtype,
    check_instance,
    check_integers,
    check_rng,
    context_name,
)


class OfLevels(Model):
    """The base of models of integers 0 ... levels - 1, such as pixels, which noise makes real numbers.

    A subclass has the attributes `levels` and `event_shape`.
    """

    noisy = True

    @property
    def dims(self):
        """D: the number of integers in a row."""
        return math.prod(self.event_shape)

    def dequantize(self, x: ArrayLike, u: ArrayLike) -> ndarray:
        """Map integers to points in their cells, (x + u) / levels.

        Parameters
        ----------
        x : ndarray of int, shape (n, *event)
        u : ndarray, shape (n, *event)
            In [0, 1).

        Returns
        -------
        ndarray, shape (n, *event)
            In the dtype of `u`. The sum is kept below x + 1, to which it may be rounded.
        """
        x = x.astype(u.dtype)
        below_next = (x + 1) * (1 - float(onp.finfo(u.dtype).eps))
        return np.minimum(x + u, below_next) / self.levels

    def quantize(self, y: ArrayLike) -> ndarray:
        """Map numbers to the integers whose cells they are in.

        Parameters
        ----------
        y : ndarray, shape (n, *event)

        Returns
        -------
        ndarray of uint8 or uint16, shape (n, *event)
            The nearest integer for numbers outside [0, 1].
        """
        x = np.clip(np.floor(self.levels * y), 0, self.levels - 1)
        return x.astype(onp.uint8 if self.levels <= 2**8 else onp.uint16)

    def noise(self, rng, rows, dtype):
        """u, shape (rows, *event): above 0, where a `Logit(0)` has no value."""
        u = rng.random((rows, *self.event_shape), dtype)
        return (np.maximum(u, float(onp.finfo(dtype).eps) / 4),)

    def format_loss(self, loss):
        """A mean loss in nats as the progress bar shows it, in bits/dim."""
        return f"{loss / (self.dims * math.log(2)):.4f} bits/dim"

    def bits_per_dim(
        self,
        params: Params,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        rng: Generator,
        draws: int = 1,
    ) -> ndarray:
        """Estimate -log P(x) / (D log 2) of each row, as `log_prob` estimates log P(x).

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *event)
        context : array_like, shape (n, context features), optional
        rng : numpy.random.Generator
        draws : int

        Returns
        -------
        ndarray, shape (n,)
            In bits/dim.
        """
        return self.log_prob(params, x, context, rng=rng, draws=draws) / (-self.dims * math.log(2))


def check_flow(flow, name):
    """Raise `InputError` unless `flow` is a `Flow`, or a model of the same numbers; return it."""
    of_numbers = isinstance(flow, Model) and flow.invertible and not isinstance(flow, OfLevels)
    return flow if of_numbers else check_instance(flow, Flow, name)


@dataclass(frozen=True)
class Dequantized(OfLevels):
    r"""A distribution of integers 0 ... levels - 1, from a flow over [0, 1]^D and uniform noise u in [0, 1)^D.

    P(x) = integral of levels^-D p((x + u) / levels) du
    log P(x) >= E_u[log p((x + u) / levels)] - D log levels

    P(x) is the probability of the cell of x under the density p of the flow. So it compares with any other model of
    the same integers, and -log P(x) / (D log 2) are the bits/dim of a code for them. Training maximizes the bound, with
    a new u for each row and step. Without noise the likelihood would be unbounded: a density can grow without limit at
    the few values that occur.

    The data stay integers. A batch becomes an array of the dtype of the parameters when u is added. The parameters are
    those of the flow.

    Parameters
    ----------
    flow : Flow
        A flow over numbers in [0, 1], such as one whose first layer is `Logit`; or an
        `npflow.models.EstimatedLogDet`.
    levels : int
        The number of integers, at most 65536: 256 for images of 8 bits.

    References
    ----------
    Uria, Murray, Larochelle: RNADE: The real-valued neural autoregressive density-estimator, 2013.

    Theis, van den Oord, Bethge: A note on the evaluation of generative models, 2016, section 3.1.
    https://arxiv.org/abs/1511.01844

    Burda, Grosse, Salakhutdinov: Importance weighted autoencoders, 2016, section 3 (the mean over draws inside the
    logarithm). https://arxiv.org/abs/1509.00519

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow import Dequantized, Flow
    >>> from npflow.layers import ActNorm, Chain, Logit
    >>> from npflow.priors import Normal
    >>> rng = np.random.default_rng(0)
    >>> x = rng.integers(256, size=(50, 4, 4, 3), dtype=np.uint8)
    >>> model = Dequantized(Flow(Chain([Logit(), ActNorm()]), Normal((4, 4, 3))))
    >>> params = model.init(rng, x)
    >>> params, history = npflow.fit(model, params, x, rng=rng, steps=5, progress=False)
    >>> model.bits_per_dim(params, x, rng=rng).shape, model.sample(params, rng, 7).dtype
    ((50,), dtype('uint8'))
    """

    flow: Flow = checked(check_flow)
    levels: int = count(256, least=2, most=2**16)

    invertible = True

    def reversible(self):
        return replace(self, flow=self.flow.reversible())

    @property
    def prior(self):
        """The prior of the flow."""
        return self.flow.prior

    @property
    def event_shape(self):
        """The shape of a row of x."""
        return self.flow.event_shape

    def init(
        self, rng: Generator, x: ArrayLike, context: ArrayLike | None = None, dtype: DTypeLike = onp.float32
    ) -> Params:
        """Draw parameters of the flow, and start them on a batch of integers.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        x : array_like of int, shape (n, *event)
            A batch like the training data.
        context : array_like, shape (n, context features), optional
            For a conditional flow.
        dtype : dtype
            That of the parameters, float32 or float64.

        Returns
        -------
        tree of ndarray
            They are computed on the host and live where `x` lives.

        Raises
        ------
        InputError
            If `x` are not integers from 0 to levels - 1, or as `Flow.init` raises it.
        """
        check_rng(rng)
        dtype = check_dtype(dtype)
        x = check_integers(x, self.levels, self.event_shape)
        there = device_of(x)
        x, context = to_host(x), None if context is None else to_host(context)
        y = self.dequantize(x, *super().noise(rng, len(x), dtype))
        return to_device(self.flow.init(rng, y, context), there.name)

    def check(self, params):
        return self.flow.check(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        x = check_integers(x, self.levels, self.event_shape, name)
        return x, self.flow.check_context(context, len(x), dtype, context_name(name))

    def noise(self, rng, rows, dtype):
        """u, and the noise of the flow, which in most cases takes none."""
        return *super().noise(rng, rows, dtype), *self.flow.noise(rng, rows, dtype)

    def scoring_noise(self, rng, rows, dtype):
        return *super().noise(rng, rows, dtype), *self.flow.scoring_noise(rng, rows, dtype)

    def losses(self, params, *batch):
        """Compute D log levels - log p((x + u) / levels) of each row; its mean over u is a bound on -log P(x).

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            x and u, or x, context and u where the flow is conditional; then the noise of the flow, where it takes some.

        Returns
        -------
        ndarray, shape (n,)
            In nats. It is pure arithmetic and checks nothing.
        """
        return self.flow.losses(params, *self._dequantized(batch)) + self.dims * math.log(self.levels)

    def visits(self, params, *batch):
        """Each layer of the flow, and its prior."""
        return self.flow.visits(params, *self._dequantized(batch))

    def log_prob(
        self,
        params: Params,
        x: ArrayLike,
        context: ArrayLike | None = None,
        *,
        rng: Generator,
        draws: int = 1,
    ) -> ndarray:
        """Estimate log P(x) of each row from K draws of u.

        log P(x) ~ log 1/K sum_k p((x + u_k) / levels) - D log levels

        Its expectation lies between the bound, at K = 1, and log P(x), and grows with K.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *event)
        context : array_like, shape (n, context features), optional
        rng : numpy.random.Generator
            Draws u.
        draws : int
            K.

        Returns
        -------
        ndarray, shape (n,)
            In nats.

        Raises
        ------
        InputError
            If an argument cannot be used, or does not fit the flow; or if there are several draws of an estimate.
        """
        check_count(draws, "draws")
        check_rng(rng)
        if draws > 1 and self.flow.noisy:
            raise InputError(
                f"expected draws=1 of a flow whose log-probability is an estimate, as the mean of exp(estimate) is above "
                f"the probability, got {draws}"
            )
        estimates = estimates_of(self, params, x, context, rng, draws)
        return np.concatenate([reduce(np.logaddexp, found) - math.log(draws) for found in estimates])

    def sample(
        self,
        params: Params,
        rng: Generator,
        n: int,
        context: ArrayLike | None = None,
        temperature: float = 1.0,
    ) -> ndarray:
        """Draw rows of integers: a draw of the flow, taken to the integer of its cell.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
            The number of rows.
        context : array_like, shape (n, context features), optional
        temperature : float
            As `Flow.sample` takes it.

        Returns
        -------
        ndarray of uint8, shape (n, *event)
            Of uint16 for more than 256 levels.

        Raises
        ------
        InputError, ConvergenceError
            As `Flow.sample`; `ConvergenceError` also where the inverse of the flow gives nan.
        """
        return self.quantize(check_solved(self.flow.sample(params, rng, n, context, temperature)))

    def encode(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Map integers to z: that of the middle of the cell, where u is 1/2.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *event)
        context : array_like, shape (n, context features), optional

        Returns
        -------
        ndarray, shape (n, *event)
            In the dtype of the parameters.

        Raises
        ------
        InputError
            If `params`, `x` or `context` does not fit the flow.
        """
        layout, x, context = self.checked(params, x, context)
        middle = self.dequantize(x, np.full_like(x, 0.5, dtype=layout.dtype))
        return self.flow.encode(params, middle, context)

    def decode(self, params: Params, z: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Map z to integers.

        Parameters
        ----------
        params : tree of ndarray
        z : array_like, shape (n, *event)
        context : array_like, shape (n, context features), optional

        Returns
        -------
        ndarray of uint8 or uint16, shape (n, *event)

        Raises
        ------
        InputError, ConvergenceError
            As `Flow.decode`; `ConvergenceError` also where the inverse of the flow gives nan.
        """
        return self.quantize(check_solved(self.flow.decode(params, z, context)))

    def reconstruction_error(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> float:
        """Compute how far `encode` and the inverse of the flow move each integer.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *event)
        context : array_like, shape (n, context features), optional

        Returns
        -------
        ndarray, shape (n, *event)
            In levels. Below 1/2 the integer decodes to itself.
        """
        _, x, context = self.checked(params, x, context)
        y = self.flow.decode(params, self.encode(params, x, context), context)
        return np.abs(self.levels * y - 0.5 - x.astype(y.dtype))

    def _dequantized(self, batch):
        """A batch of the flow: numbers in [0, 1], the context where there is one, and the noise of the flow."""
        at = 2 if self.flow.context_features else 1
        return self.dequantize(batch[0], batch[at]), *batch[1:at], *batch[at + 1 :]


def check_solved(y):
    """Raise `ConvergenceError` where the inverse of a flow gave nan; return y."""
    lost = np.isnan(y)
    if lost.any():
        row = int(np.argmax(lost.reshape(len(y), -1).any(axis=1)))
        raise ConvergenceError(f"expected numbers from the inverse of the flow, got nan in row {row}")
    return y
