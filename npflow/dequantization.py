"""A flow over integers, such as pixels: each is a cell of the line, with the probability that the density has there."""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.errors import ConvergenceError, InputError
from npflow.flow import Flow
from npflow.model import Model
from npflow.validation import check_count, check_dtype, check_integers, check_rng

AT_ONCE = 2**24  # numbers of u that are drawn at a time


@dataclass(frozen=True)
class Dequantized(Model):
    r"""Integers 0 ... levels - 1 with the density p of a flow over [0, 1]^D, by uniform noise u in [0, 1)^D.

    P(x) = integral of levels^-D p((x + u) / levels) du
    log P(x) >= E_u[log p((x + u) / levels)] - D log levels

    P(x) is the probability that p has in the cell of x, so that it compares with any other model's of the same
    integers, and -log P(x) / (D log 2) are the bits/dim that they can be coded with. Training makes the bound large,
    with another u for each row and step. Trained on the integers themselves a density has no bound: it puts ever more
    on the few values that occur.

    The data stay integers: a batch becomes an array of the parameters' dtype when u is added.
    The parameters are the flow's.

    Parameters
    ----------
    flow : Flow
        Over numbers in [0, 1], such as one whose first layer is `Logit`.
    levels : int
        How many integers there are, at most 65536: 256 for images of 8 bits.

    References
    ----------
    Uria, Murray, Larochelle: RNADE: The real-valued neural autoregressive density-estimator, 2013.

    Theis, van den Oord, Bethge: A note on the evaluation of generative models, 2016, section 3.1.
    https://arxiv.org/abs/1511.01844

    Burda, Grosse, Salakhutdinov: Importance weighted autoencoders, 2016, section 3 (the mean over draws inside the
    logarithm). https://arxiv.org/abs/1509.00519

    Examples
    --------
    >>> from npflow.layers import ActNorm, Chain, Logit
    >>> from npflow.priors import Normal
    >>> x = rng.integers(256, size=(50, 4, 4, 3), dtype=np.uint8)
    >>> model = Dequantized(Flow(Chain([Logit(), ActNorm()]), Normal((4, 4, 3))))
    >>> params = model.init(rng, x)
    >>> params, history = npflow.fit(model, params, x, rng=rng, steps=5, progress=False)
    >>> model.bits_per_dim(params, rng, x).shape, model.sample(params, rng, 7).dtype
    ((50,), dtype('uint8'))
    """

    flow: Flow
    levels: int = 256

    noisy = True

    def __post_init__(self):
        if not isinstance(self.flow, Flow):
            raise InputError(f"expected a Flow to be Dequantized, got {self.flow!r}")
        levels = check_count(self.levels, "Dequantized's levels", least=2, most=2**16)
        object.__setattr__(self, "levels", levels)

    @property
    def event_shape(self):
        """The shape of a row of x."""
        return self.flow.prior.event_shape

    @property
    def dims(self):
        """D: how many numbers a row has."""
        return math.prod(self.event_shape)

    def dequantize(self, x, u):
        """(x + u) / levels, in the dtype of `u`: where in its cell of [0, 1] each integer is.

        The sum is kept below x + 1, to which it may be rounded.
        """
        x = x.astype(u.dtype)
        below_next = (x + 1) * (1 - float(onp.finfo(u.dtype).eps))
        return np.minimum(x + u, below_next) / self.levels

    def quantize(self, y):
        """The integer in whose cell of [0, 1] each number is; of what lies outside, the nearest."""
        x = np.clip(np.floor(self.levels * y), 0, self.levels - 1)
        return x.astype(onp.uint8 if self.levels <= 2**8 else onp.uint16)

    def init(self, rng, x, context=None, dtype=onp.float32):
        """Parameters in a dtype, drawn from `rng`, started on the batch `x`, integers of shape (n, *event).

        They are worked out on the host, and live where `x` lives.
        """
        check_rng(rng)
        check_dtype(dtype)
        check_integers(x, self.levels, self.event_shape)
        there = device_of(x)
        x, context = to_host(x), None if context is None else to_host(context)
        y = self.dequantize(x, *self.noise(rng, len(x), onp.dtype(dtype)))
        return to_device(self.flow.init(rng, y, context), there.name)

    def check(self, params, x=None, name="x", context=None):
        """The layout of `params`.

        Raises
        ------
        InputError
            Unless they are the flow's, `x` rows of integers from 0 to levels - 1, and `context` rows of the dtype of
            the parameters.
        """
        layout = self.flow.check(params)
        if x is not None:
            check_integers(x, self.levels, self.event_shape, name)
            self.flow.check_context(context, len(x), layout.dtype)
        return layout

    def noise(self, rng, rows, dtype):
        """u of so many rows, shape (rows, *event)."""
        return (rng.random((rows, *self.event_shape), dtype),)

    def row_losses(self, params, *batch):
        """D log levels - log p((x + u) / levels) of each row, in nats, shape (n,): on average over u, a bound on -log P(x).

        A batch is (x, u), or (x, context, u) where the flow is conditional.
        """
        return self.flow.row_losses(params, *self._parts(batch)) + self.dims * math.log(self.levels)

    def loss_in_words(self, loss):
        """A mean loss, in nats, as the progress bar shows it: in bits/dim."""
        return f"{loss / (self.dims * math.log(2)):.4f} bits/dim"

    def log_prob(self, params, rng, x, context=None, draws=1):
        r"""log P(x) in nats, shape (n,), estimated by `draws` draws of u from `rng` for each row.

        log P(x) ~ log 1/K sum_k p((x + u_k) / levels) - D log levels

        On average it lies between the bound, where K is 1, and log P(x), the closer to it the more draws there are.
        """
        check_count(draws, "draws")
        check_rng(rng)
        dtype = self.check(params, x, context=context).dtype
        there = device_of({"params": params, "x": x, "context": context}).generator(rng)
        arrays = (x,) if context is None else (x, context)
        rows = max(1, AT_ONCE // self.dims)
        parts = []
        for start in range(0, len(x), rows):
            part = [array[start : start + rows] for array in arrays]
            total = -math.inf
            for _ in range(draws):
                losses = self.losses(params, *part, *self.noise(there, len(part[0]), dtype))
                total = np.logaddexp(total, -losses)
            parts.append(total - math.log(draws))
        return np.concatenate(parts)

    def bits_per_dim(self, params, rng, x, context=None, draws=1):
        """-log P(x) / (D log 2), shape (n,), with log P(x) as `log_prob` estimates it."""
        return self.log_prob(params, rng, x, context, draws) / (-self.dims * math.log(2))

    def sample(self, params, rng, n, context=None, temperature=1.0):
        """`n` draws of x, integers of shape (n, *event); a number of the flow's outside [0, 1] is the nearest of them.

        `context` and `temperature` are those of `Flow.sample`. The integers are uint8, or uint16 where there are more
        than 256 levels.
        """
        return self.quantize(found(self.flow.sample(params, rng, n, context, temperature)))

    def encode(self, params, x, context=None):
        """z of the middle of the cell of x, where u is 1/2; both of shape (n, *event)."""
        dtype = self.check(params, x, context=context).dtype
        middle = self.dequantize(x, np.full_like(x, 0.5, dtype=dtype))
        return self.flow.encode(params, middle, context)

    def decode(self, params, z, context=None):
        """x of z, both of shape (n, *event), as integers."""
        return self.quantize(found(self.flow.decode(params, z, context)))

    def reconstruction_error(self, params, x, context=None):
        """How far each number is from where it was, in levels, after `encode` and the flow's inverse: shape (n, *event).

        Below 1/2 it decodes to what it was.
        """
        y = self.flow.decode(params, self.encode(params, x, context), context)
        return np.abs(self.levels * y - 0.5 - x.astype(y.dtype))

    def explain(self, params, *batch):
        """What is the first to be not finite where a loss is not, as the end of a sentence."""
        return self.flow.explain(params, *self._parts(batch))

    def host_bound(self, error, params, *batch):
        """The error that names what cannot compute on a device, where an error came; None if it is another."""
        return self.flow.host_bound(error, params, *self._parts(batch))

    def _parts(self, batch):
        """What the flow takes of a batch: numbers in [0, 1], and their context where there is one."""
        x, *context, u = batch
        return self.dequantize(x, u), *context


def found(y):
    """y, as the inverse of a flow gave it; raise `ConvergenceError` where one of its numbers is nan: no integer is."""
    lost = np.isnan(y)
    if lost.any():
        row = int(np.argmax(lost.reshape(len(y), -1).any(axis=1)))
        raise ConvergenceError(f"expected numbers from the inverse of the flow, got nan in row {row}")
    return y
