"""PixelCNN: an autoregressive model of images of integers, beside the flows and trained by the same loop."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import autograd.numpy as np
import numpy as onp
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike, DTypeLike

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.autodiff.primitives import log_softmax_at, sum_event
from npflow.autodiff.program.chunks import map_rows
from npflow.autodiff.program.threads import one_blas_thread
from npflow.description import checked, count, instance
from npflow.errors import InputError
from npflow.layers.units import context_units, in_units
from npflow.model import Model
from npflow.models.recipe import check_image_shape
from npflow.networks import MaskedConvNet
from npflow.rations import SMALL, Rationed, ration_for
from npflow.typing import Params
from npflow.validation import (
    check_context,
    check_count,
    check_dtype,
    check_integers,
    check_number,
    check_rng,
    context_name,
)


@dataclass(frozen=True)
class PixelCNN(Model):
    r"""A distribution of images of integers: each number is categorical, given those before it.

    p(x) = prod_i p(x_i | x_1 ... x_{i-1})          p(x_i = l | x_1 ... x_{i-1}) = softmax(logits_i)_l

    Numbers are in raster order: pixel by pixel, and within a pixel channel by channel. One pass of a network
    of masked convolutions gives the logits of all numbers; it sees levels as numbers from -1 to 1. A PixelCNN
    is not a flow: it has no z, and p(x) is a probability, not a density. So images are used as they are,
    without dequantization.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels).
    levels : int
        The number of levels, at least 2: numbers are 0 ... levels - 1.
    network : MaskedConvNet
    context_features : int
        The number of context features; 0 for none. A conditional PixelCNN models p(x | context), such as the
        images of a class. Every method then takes a `context`, shape (n, context_features), or one row for all.
        Integers of shape (n,), or a single one, are classes: their context is one-hot.

    References
    ----------
    van den Oord, Kalchbrenner, Kavukcuoglu: Pixel recurrent neural networks, 2016, sections 2 and 3.
    https://arxiv.org/abs/1601.06759

    van den Oord et al.: Conditional image generation with PixelCNN decoders, 2016, section 2.3 (the context).
    https://arxiv.org/abs/1606.05328

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import PixelCNN
    >>> from npflow.networks import MaskedConvNet
    >>> rng = np.random.default_rng(0)
    >>> x = rng.integers(4, size=(100, 5, 5, 1), dtype=np.uint8)
    >>> model = PixelCNN(shape=(5, 5, 1), levels=4, network=MaskedConvNet(8, blocks=1, kernel=3, head=(8,)))
    >>> params = model.init(rng, x)
    >>> params, history = npflow.fit(model, params, x, rng=rng, steps=20, progress=False)
    >>> model.log_prob(params, x).shape, model.sample(params, rng, 7).shape
    ((100,), (7, 5, 5, 1))
    """

    shape: Sequence[int] = checked(check_image_shape)
    levels: int = count(256, least=2)
    network: MaskedConvNet = instance(MaskedConvNet, MaskedConvNet())
    context_features: int = count(0, least=0)

    def init(
        self, rng: Generator, x: ArrayLike, context: ArrayLike | None = None, dtype: DTypeLike = onp.float32
    ) -> Params:
        """Draw parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        x : array_like of int, shape (n, *shape)
            A batch like the training data.
        context : array_like, shape (n, context_features), optional
        dtype : dtype
            That of the parameters, float32 or float64.

        Returns
        -------
        tree of ndarray
            On the device of `x`.

        Raises
        ------
        InputError
            If `x` are not integers from 0 to levels - 1, or the context does not fit the model.
        """
        check_rng(rng)
        check_dtype(dtype)
        x, context = self.check_batch(x, context, dtype)
        host = None if context is None else to_host(context)
        return to_device(self._init(rng, dtype, host), device_of(x).name)

    def _init(self, rng, dtype, context=None):
        x, outputs = onp.zeros((1, *self.shape), dtype), self.shape[-1] * self.levels
        if self.context_features == 0:
            return self.network.init(rng, x, outputs)
        if context is None:  # only the layout is asked for
            context = onp.zeros((1, self.context_features), dtype)
        return {"context": context_units(context), **self.network.init(rng, x, outputs, context)}

    def check(self, params):
        layout = Layout(params)
        check_dtype(layout.dtype)
        difference = expected_layout(self, ration_for(self, layout)).difference(layout)
        if difference:
            raise InputError(
                f"expected the parameters of this PixelCNN, got another architecture's: {difference}"
            )
        return layout

    def check_batch(self, x, context=None, dtype=None, name="x"):
        x = check_integers(x, self.levels, self.shape, name)
        name = context_name(name)
        return x, check_context(context, self.context_features, len(x), dtype, "a PixelCNN", name)

    @property
    def dims(self):
        """The number of numbers in an image."""
        return math.prod(self.shape)

    def format_loss(self, loss):
        """Format a mean loss in nats as bits/dim, for the progress bar."""
        return f"{loss / (self.dims * math.log(2)):.4f} bits/dim"

    def log_prob(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Compute log p(x) of each image.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *shape)
        context : array_like, shape (n, context_features), optional

        Returns
        -------
        ndarray, shape (n,)
            In nats.

        Raises
        ------
        InputError
            If `params`, `x` or `context` does not fit the model.
        """
        return -self._map_rows(self.losses, params, x, context)

    def bits_per_dim(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Compute -log2 p(x) / dims of each image; it is log2(levels) for the uniform distribution.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *shape)
        context : array_like, shape (n, context_features), optional

        Returns
        -------
        ndarray, shape (n,)
            In bits/dim.
        """
        return -self.log_prob(params, x, context) / (math.log(2) * self.dims)

    def logits(self, params: Params, x: ArrayLike, context: ArrayLike | None = None) -> ndarray:
        """Compute the logits of each number given those before it.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *shape)
        context : array_like, shape (n, context_features), optional

        Returns
        -------
        ndarray, shape (n, *shape, levels)
        """
        return self._map_rows(self._logits, params, x, context)

    def losses(self, params, x, context=None):
        """Compute -log p(x) of each image, without the checks of `log_prob`.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray of int, shape (n, *shape)
        context : ndarray, shape (n, context_features), optional

        Returns
        -------
        ndarray, shape (n,)
            In nats.
        """
        return -sum_event(log_softmax_at(self._logits(params, x, context), x))

    def _logits(self, params, x, context=None):
        outputs = self.network.apply(params, self._scaled(params, x), in_units(params, context))
        return np.reshape(outputs, (*x.shape, self.levels))

    def _scaled(self, params, x):
        """The network's input: levels as numbers from -1 to 1, in the dtype of the parameters."""
        return x.astype(params["first"]["weight"].dtype) * (2 / (self.levels - 1)) - 1

    def _map_rows(self, method, params, x, context):
        _, x, context = self.checked(params, x, context)
        device_of({"params": params, "x": x, "context": context})  # raises unless it is one
        return map_rows(method, params, *(x,) if context is None else (x, context))

    def sample(
        self,
        params: Params,
        rng: Generator,
        n: int,
        context: ArrayLike | None = None,
        temperature: float = 1.0,
    ) -> ndarray:
        """Draw `n` images number by number, all `n` at once; together they take the arithmetic of one pass.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
        context : ndarray, shape (n, context_features), optional
        temperature : float
            Divides the logits, at least 0. Below 1 likely levels become likelier; 0 draws the likeliest.

        Returns
        -------
        x : ndarray, shape (n, *shape)
            In the smallest unsigned integer dtype that holds the levels.
        """
        n = check_count(n, "the number of samples")
        blank = onp.zeros((n, *self.shape), onp.min_scalar_type(self.levels - 1))
        blank = to_device(blank, device_of(params).name)
        return self.complete(params, rng, blank, 0, context, temperature)

    def complete(
        self,
        params: Params,
        rng: Generator,
        x: ArrayLike,
        rows: int | None = None,
        context: ArrayLike | None = None,
        temperature: float = 1.0,
    ) -> ndarray:
        """Keep the first rows of pixels of images, and draw the others as `sample` does.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        x : array_like of int, shape (n, *shape)
        rows : int, optional
            How many rows of pixels are kept, from the top; half of them by default.
        context : array_like, shape (n, context_features), optional
        temperature : float
            As in `sample`.

        Returns
        -------
        ndarray of int, shape (n, *shape)
            In the dtype of `x`.

        Raises
        ------
        InputError
            If an argument cannot be used, or does not fit the model.
        """
        check_rng(rng)
        _, x, context = self.checked(params, x, context)
        device_of({"params": params, "x": x, "context": context})  # raises unless it is one
        rows = self.shape[0] // 2 if rows is None else rows
        rows = check_count(rows, "rows", least=0, most=self.shape[0])
        temperature = check_number(temperature, "temperature", least=0)
        there, x, known = device_of(params).generator(rng), x.copy(), None
        numbers = self.network.one_by_one(params, self._scaled(params, x), in_units(params, context))
        with one_blas_thread():
            for i, j, k in itertools.product(*map(range, self.shape)):
                logits = numbers.send(known)
                if i >= rows:
                    # With Gumbel noise -log(-log(u)) the argmax is a draw from softmax(logits / temperature).
                    u = onp.maximum(there.random(logits.shape), onp.finfo(float).tiny)
                    x[:, i, j, k] = onp.argmax(logits - temperature * onp.log(-onp.log(u)), axis=-1)
                known = self._scaled(params, x[:, i, j, k : k + 1])
        return x


@lru_cache(maxsize=64)
def expected_layout(model, ration=SMALL):
    """The layout of a PixelCNN's parameters."""
    return Layout(model._init(Rationed(ration), onp.float32))
