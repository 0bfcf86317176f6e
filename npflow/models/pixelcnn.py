"""PixelCNN: images of integers, each number given those before it; an autoregressive model beside the flows."""

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import autograd.numpy as np
import numpy as onp

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of, to_device
from npflow.autodiff.primitives import log_softmax_at, sum_event
from npflow.autodiff.program.chunks import map_rows
from npflow.autodiff.program.threads import one_blas_thread
from npflow.errors import InputError
from npflow.model import Model
from npflow.networks import MaskedConvNet
from npflow.validation import (
    check_context,
    check_count,
    check_dtype,
    check_integers,
    check_number,
    check_rng,
    check_sequence,
)


@dataclass(frozen=True)
class PixelCNN(Model):
    r"""A distribution of images of integers: each number, given those before it, is one of `levels` by a softmax.

    p(x) = prod_i p(x_i | x_1 ... x_{i-1})          p(x_i = l | x_1 ... x_{i-1}) = softmax(logits_i)_l

    The numbers come in the order of reading, pixel by pixel, and within a pixel channel by channel. One pass of a network
    of masked convolutions, which sees levels as numbers from -1 to 1, gives the logits of all. It is no flow: there
    is no z, and p(x) is a probability, not a density. So images are taken as they are, with no noise added.

    A conditional PixelCNN has a distribution for each context, p(x | context), such as a class as a one-hot vector.

    Parameters
    ----------
    shape : tuple of int
        The height, width and channels of an image.
    levels : int
        How many values a number may have: 0 ... levels - 1.
    network : MaskedConvNet
    context_features : int
        How many numbers a row of context has. By default there is none; where there is, every method takes one
        beside its images: `context`, shape (n, context_features), in the dtype of the parameters.

    References
    ----------
    van den Oord, Kalchbrenner, Kavukcuoglu: Pixel recurrent neural networks, 2016, sections 2 and 3.
    https://arxiv.org/abs/1601.06759

    van den Oord et al.: Conditional image generation with PixelCNN decoders, 2016, section 2.3 (the context).
    https://arxiv.org/abs/1606.05328

    Examples
    --------
    >>> x = rng.integers(4, size=(100, 5, 5, 1), dtype=np.uint8)
    >>> model = PixelCNN(shape=(5, 5, 1), levels=4, network=MaskedConvNet(8, blocks=1, kernel=3, head=(8,)))
    >>> params = model.init(rng, x)
    >>> params, history = npflow.fit(model, params, x, rng=rng, steps=20, progress=False)
    >>> model.log_prob(params, x).shape, model.sample(params, rng, 7).shape
    ((100,), (7, 5, 5, 1))
    """

    shape: tuple
    levels: int = 256
    network: MaskedConvNet = MaskedConvNet()  # noqa: RUF009 (frozen)
    context_features: int = 0

    def __post_init__(self):
        shape = check_sequence(self.shape, "a PixelCNN's shape")
        if len(shape) != 3:
            raise InputError(
                f"expected a PixelCNN's shape to be (height, width, channels), got {self.shape!r}"
            )
        shape = tuple(check_count(size, "each size of a PixelCNN's shape") for size in shape)
        object.__setattr__(self, "shape", shape)
        for name, least in (("levels", 2), ("context_features", 0)):
            count = check_count(getattr(self, name), f"a PixelCNN's {name}", least=least)
            object.__setattr__(self, name, count)
        if not isinstance(self.network, MaskedConvNet):
            raise InputError(f"expected a PixelCNN's network to be a MaskedConvNet, got {self.network!r}")

    def init(self, rng, x, context=None, dtype=onp.float32):
        """Parameters in a dtype, float32 or float64, drawn from `rng`, for images like `x`, shape (n, *shape).

        They are worked out on the host, and live where `x` lives.
        """
        check_rng(rng)
        check_dtype(dtype)
        check_integers(x, self.levels, self.shape)
        self.check_context(context, len(x), dtype)
        return to_device(self._init(rng, dtype), device_of(x).name)

    def _init(self, rng, dtype):
        x, context = onp.zeros((1, *self.shape), dtype), onp.zeros((1, self.context_features), dtype)
        outputs = self.shape[-1] * self.levels
        return self.network.init(rng, x, outputs, context if self.context_features else None)

    def check(self, params, x=None, name="x", context=None):
        """The layout of `params`.

        Raises
        ------
        InputError
            Unless they are this model's, `x`, called `name`, images of its shape and levels, and `context` a row for
            each, in the dtype of the parameters.
        """
        layout = Layout(params)
        difference = expected_layout(self).difference(layout)
        if difference:
            raise InputError(
                f"expected the parameters of this PixelCNN, got another architecture's: {difference}"
            )
        if x is not None:
            check_integers(x, self.levels, self.shape, name)
            self.check_context(context, len(x), layout.dtype)
        return layout

    def check_context(self, context, rows, dtype):
        """Raise `InputError` unless there is a row of context for each image, where this model takes one."""
        check_context(context, self.context_features, rows, dtype, "a PixelCNN")

    @property
    def dims(self):
        """How many numbers an image has."""
        return math.prod(self.shape)

    def loss_in_words(self, loss):
        """A mean loss, in nats, as the progress bar shows it: in bits/dim."""
        return f"{loss / (self.dims * math.log(2)):.4f} bits/dim"

    def log_prob(self, params, x, context=None):
        """log p(x) in nats, shape (n,), for images of shape (n, *shape)."""
        return -self._map_rows(self.row_losses, params, x, context)

    def bits_per_dim(self, params, x, context=None):
        """-log2 p(x) for each number of an image, shape (n,); log2(levels) where nothing is known of it."""
        return -self.log_prob(params, x, context) / (math.log(2) * self.dims)

    def logits(self, params, x, context=None):
        """The logits of each number given those before it, shape (n, *shape, levels)."""
        return self._map_rows(self._logits, params, x, context)

    def row_losses(self, params, x, context=None):
        """-log p(x) of each image, in nats, shape (n,); unlike `log_prob` it checks nothing."""
        return -sum_event(log_softmax_at(self._logits(params, x, context), x))

    def _logits(self, params, x, context=None):
        outputs = self.network.apply(params, self._scaled(params, x), context)
        return np.reshape(outputs, (*x.shape, self.levels))

    def _scaled(self, params, x):
        """Levels as numbers from -1 to 1, in the dtype of the parameters: what the network sees."""
        return x.astype(params["first"]["weight"].dtype) * (2 / (self.levels - 1)) - 1

    def _map_rows(self, method, params, x, context):
        self.check(params, x, context=context)
        device_of({"params": params, "x": x, "context": context})  # one, or its sentence
        return map_rows(method, params, *(x,) if context is None else (x, context))

    def sample(self, params, rng, n, context=None, temperature=1.0):
        """`n` draws of x, shape (n, *shape), in the smallest unsigned integers that hold the levels.

        They are drawn number by number, all `n` side by side. Each pixel takes the arithmetic of one pixel of one pass.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
        context : ndarray, shape (n, context_features), optional
        temperature : float
            What the logits are divided by: below 1 what is likely becomes likelier; at 0 it is always the likeliest.
        """
        check_count(n, "the number of samples")
        blank = onp.zeros((n, *self.shape), onp.min_scalar_type(self.levels - 1))
        blank = to_device(blank, device_of(params).name)
        return self.complete(params, rng, blank, 0, context, temperature)

    def complete(self, params, rng, x, rows, context=None, temperature=1.0):
        """Images like `x`, shape (n, *shape), in their first `rows` rows, the others drawn as in `sample`."""
        check_rng(rng)
        self.check(params, x, context=context)
        device_of({"params": params, "x": x, "context": context})  # one, or its sentence
        check_count(rows, "the number of rows that are kept", least=0, most=self.shape[0])
        temperature = check_number(temperature, "temperature", least=0)
        there, x, known = device_of(params).generator(rng), x.copy(), None
        numbers = self.network.one_by_one(params, self._scaled(params, x), context)
        with one_blas_thread():
            for i, j, k in itertools.product(*map(range, self.shape)):
                logits = numbers.send(known)
                if i >= rows:
                    # The largest of logits with Gumbel noise, -log(-log(u)), is a draw from their softmax.
                    u = onp.maximum(there.random(logits.shape), onp.finfo(float).tiny)
                    x[:, i, j, k] = onp.argmax(logits - temperature * onp.log(-onp.log(u)), axis=-1)
                known = self._scaled(params, x[:, i, j, k : k + 1])
        return x


@lru_cache(maxsize=64)
def expected_layout(model):
    """The layout of a PixelCNN's parameters."""
    return Layout(model._init(onp.random.default_rng(0), onp.float32))
