"""The distribution of an image given a part of it: its block means, or one of its halves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import autograd.numpy as np
import numpy as onp
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike, DTypeLike

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of, to_device, to_host
from npflow.dequantization import OfLevels
from npflow.description import checked, count, instance
from npflow.errors import InputError, kind_of
from npflow.flow import Flow, estimates_of
from npflow.layers import BlockMeans, Logit
from npflow.layers.parting import Parting
from npflow.typing import Params
from npflow.validation import (
    check_count,
    check_domain,
    check_dtype,
    check_instance,
    check_integers,
    check_rng,
    check_rows,
    check_sequence,
)

LOGIT = Logit(alpha=0)


def check_flows(flows, name):
    """Raise unless `flows` is a sequence of at least one flow; return it as a tuple."""
    flows = check_sequence(flows, name)
    if not flows:
        raise InputError(f"expected {name} to be at least one flow, got none")
    return tuple(check_instance(flow, Flow, f"each of {name}") for flow in flows)


@dataclass(frozen=True)
class Completion(OfLevels):
    r"""A distribution of images of integers 0 ... levels - 1 given a part of each: super-resolution and inpainting.

    y = (x + u) / levels,   (known, rest) = parting(logit(y)),      rest ~ flow, with known as its context

    It learns from whole images x. The noise u is uniform in [0, 1), as for `Dequantized`. With `Fold` the known part is
    a half. With `BlockMeans` it is an image of half the height and width, and the answers shrink to it exactly. It may be
    taken apart again, with one more flow each time: two flows make four times the height and width.

    -log P(x | known integers) <= E_u[-log p(rest | known) - log|det|] + D_rest log levels + D_known h

    The known integers are a half of x, or the sums of its blocks. |det| is that of y -> (m, rest), where m is the known
    part between 0 and 1: means of blocks, or pixels. The noise of a known number is the mean of u over its block, and h
    is the entropy of that mean, at most 0. D = D_rest + D_known is the number of pixel values of the image; bits/dim are
    bits for each of them, so that they compare with those of x without a known part.

    Answers are real numbers y between 0 and 1, as rounding them to integers would change the means of blocks by up to
    half a level.

    Parameters
    ----------
    flows : sequence of Flow
        Each is a flow of a rest, real numbers, whose `context_features` are the shape of the known part; the smallest
        images first. One flow with `Fold`.
    parting : BlockMeans or Fold
    levels : int
        The number of integers, at most 65536: 256 for images of 8 bits.

    References
    ----------
    Lugmayr, Danelljan, Van Gool, Timofte: SRFlow: Learning the super-resolution space with normalizing flow, 2020.
    https://arxiv.org/abs/2006.14200

    Yu, Derpanis, Brubaker: Wavelet Flow: Fast training of high resolution normalizing flows, 2020, section 3.
    https://arxiv.org/abs/2010.13821

    Examples
    --------
    Eight answers to one question, an image of 2 x 2 pixels:

    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import super_resolution
    >>> from npflow.networks import ConvNet
    >>> rng = np.random.default_rng(0)
    >>> x = rng.integers(17, size=(50, 4, 4, 1))
    >>> model = super_resolution((4, 4, 1), levels=17, steps=2, network=ConvNet((8, 8)))
    >>> params = model.init(rng, x)
    >>> params, history = npflow.fit(model, params, x, rng=rng, steps=5, progress=False)
    >>> small = np.repeat(model.known(x[:1]), 8, axis=0)
    >>> y = model.answers(params, rng, small)
    >>> y.shape, bool(np.allclose(y.reshape(8, 2, 2, 2, 2, 1).mean(axis=(2, 4)), small, atol=1e-6))
    ((8, 4, 4, 1), True)
    """

    flows: Sequence[Flow] = checked(check_flows)
    parting: Parting = instance(Parting, BlockMeans())
    levels: int = count(256, least=2, most=2**16)

    def __post_init__(self):
        super().__post_init__()
        shape = self.known_shape
        for flow in self.flows:
            rest, known = flow.event_shape, flow.context_features
            fits = known == shape and isinstance(known, tuple)
            if not fits or rest != (*known[:2], (self.parting.parts - 1) * known[2]):
                given = f"images of shape {shape}" if isinstance(shape, tuple) else "images"
                raise InputError(
                    f"expected flows of images given {given}, with {self.parting.parts - 1} channels for "
                    f"each of the context, got event_shape={rest} and context_features={known}"
                )
            shape = self.image_shape(flow)
        if self.parting.averaged == 1 and len(self.flows) > 1:
            raise InputError(f"expected one flow for {self.parting!r}, got {len(self.flows)}")

    def reversible(self):
        return replace(self, flows=tuple(flow.reversible() for flow in self.flows))

    def image_shape(self, flow):
        """The shape of the images that a flow completes."""
        height, width, rest = flow.event_shape
        return self.parting.output_shape((height, width, rest + flow.context_features[2]), "inverse")

    @property
    def event_shape(self):
        """The shape of an image."""
        return self.image_shape(self.flows[-1])

    @property
    def known_shape(self):
        """The shape of the known part."""
        return self.flows[0].context_features

    def init(
        self, rng: Generator, x: ArrayLike, context: None = None, dtype: DTypeLike = onp.float32
    ) -> Params:
        """Draw parameters of the flow, and start them on a batch of images.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        x : array_like of int, shape (n, *event)
            A batch like the training data.
        context : None
            There is none beside the known part.
        dtype : dtype
            That of the parameters, float32 or float64.

        Returns
        -------
        tree of ndarray
            A list with those of each flow. They are computed on the host and live where `x` lives.

        Raises
        ------
        InputError
            If `x` are not integers from 0 to levels - 1, or as `Flow.init` raises it.
        """
        check_rng(rng)
        dtype = check_dtype(dtype)
        x, _ = self.check_batch(x, context)
        _, parts, _ = self.parts_of(to_host(x), *self.noise(rng, len(x), dtype))
        params = [flow.init(rng, rest, known) for flow, (known, rest) in zip(self.flows, parts)]
        return to_device(params, device_of(x).name)

    def check(self, params):
        if not isinstance(params, (list, tuple)) or len(params) != len(self.flows):
            got = f"{len(params)} in a list" if isinstance(params, (list, tuple)) else kind_of(params)
            raise InputError(
                f"expected a list with the parameters of each flow, {len(self.flows)}, got {got}"
            )
        for flow, part in zip(self.flows, params):
            flow.check(part)
        layout = Layout(params)
        check_dtype(layout.dtype)
        return layout

    def check_batch(self, x, context=None, dtype=None, name="x"):
        if context is not None:
            raise InputError("expected no context for a Completion beside the known part of x, got one")
        return check_integers(x, self.levels, self.event_shape, name), None

    def noise(self, rng, rows, dtype):
        """u, shape (rows, *event); 1/2 in a known half, whose integers are given."""
        (u,) = super().noise(rng, rows, dtype)
        if self.parting.averaged > 1:
            return (u,)
        known, rest = self.parting.split(self.parting.forward({}, u)[0])
        return (self.parting.inverse({}, self.parting.join(np.full_like(known, 0.5), rest))[0],)

    def parts_of(self, x, u):
        """Take integers with noise apart.

        It returns the known part, (known, rest) for each flow, and log|det| of (x + u) / levels -> (m, all rests).
        """
        known, log_det = LOGIT.forward({}, self.dequantize(x, u))
        parts = []
        for _ in self.flows:
            z, more = self.parting.forward({}, known)
            known, rest = self.parting.split(z)
            parts.insert(0, (known, rest))
            log_det = log_det + more
        _, of_known = LOGIT.inverse({}, known)
        return known, parts, log_det + of_known

    def losses(self, params, *batch):
        """Compute the bound on -log P(x | known integers) of each row for one u.

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            x and u.

        Returns
        -------
        ndarray, shape (n,)
            In nats. It is pure arithmetic and checks nothing.
        """
        _, parts, log_det = self.parts_of(*batch)
        known_dims, averaged = math.prod(self.known_shape), self.parting.averaged ** len(self.flows)
        nats = (self.dims - known_dims) * math.log(self.levels) + known_dims * entropy_of_mean(averaged)
        for flow, flow_params, (known, rest) in zip(self.flows, params, parts):
            nats = nats + flow.losses(flow_params, rest, known)
        return nats - log_det

    def visits(self, params, *batch):
        """Each layer of each flow, and its prior."""
        _, parts, _ = self.parts_of(*batch)
        for place, (flow, flow_params, (known, rest)) in enumerate(zip(self.flows, params, parts)):
            yield from flow.visits(flow_params, rest, known, path=f"flows/{place}/")

    def log_prob(
        self, params: Params, x: ArrayLike, context: None = None, *, rng: Generator, draws: int = 1
    ) -> ndarray:
        """Compute the lower bound on log P(x | known integers) of each row, as a mean over draws of u.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like of int, shape (n, *event)
        context : None
        rng : numpy.random.Generator
            Draws u.
        draws : int

        Returns
        -------
        ndarray, shape (n,)
            In nats.

        Raises
        ------
        InputError
            If an argument cannot be used, or does not fit the model.
        """
        check_count(draws, "draws")
        check_rng(rng)
        estimates = estimates_of(self, params, x, context, rng, draws)
        return np.concatenate([sum(found) / draws for found in estimates])

    # ---------------------------------------------------------------- answers

    def known(self, x: ArrayLike) -> ndarray:
        """The known part of images: that of the middles of their cells.

        Parameters
        ----------
        x : array_like of int, shape (n, *event)

        Returns
        -------
        ndarray, shape (n, *known_shape)
            Between 0 and 1, float64: the means of blocks of (x + 1/2) / levels, or a half of it.

        Raises
        ------
        InputError
            If `x` does not fit the model.
        """
        x, _ = self.check_batch(x)
        known, *_ = self.parts_of(x, np.full_like(x, 0.5, dtype=onp.float64))
        return LOGIT.inverse({}, known)[0]

    def answers(self, params: Params, rng: Generator, known: ArrayLike, temperature: float = 1.0) -> ndarray:
        """Draw an image for each known part.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        known : array_like, shape (n, *known_shape)
            Above 0 and below 1: the means of blocks of (x + 1/2) / levels, or a half of it, as `known` returns it.
        temperature : float
            As `Flow.sample` takes it.

        Returns
        -------
        ndarray, shape (n, *event)
            y between 0 and 1.

        Raises
        ------
        InputError, ConvergenceError
            As `Flow.sample`.
        """
        dtype = self.check(params).dtype
        known = to_host(check_rows(known, self.known_shape, name="known")).astype(dtype)
        known = to_device(check_domain(known, (0, 1), "known"), device_of(params).name)
        logits, _ = LOGIT.forward({}, known)
        for flow, flow_params in zip(self.flows, params):
            rest = flow.sample(flow_params, rng, len(logits), logits, temperature)
            logits, _ = self.parting.inverse({}, self.parting.join(logits, rest))
        return LOGIT.inverse({}, logits)[0]

    def complete(self, params: Params, rng: Generator, x: ArrayLike, temperature: float = 1.0) -> ndarray:
        """Keep the known part of images, and draw the rest.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        x : array_like of int, shape (n, *event)
            Of which the known part alone is used.
        temperature : float

        Returns
        -------
        ndarray, shape (n, *event)
            levels y - 1/2, real numbers on the scale of the integers, where y are those of `answers`.

        Raises
        ------
        InputError, ConvergenceError
            If `x` does not fit the model, or as `Flow.sample`.
        """
        return self.levels * self.answers(params, rng, self.known(x), temperature) - 0.5


@lru_cache
def entropy_of_mean(n):
    """The entropy in nats of the mean of n uniform numbers in [0, 1): 0 for one, and less for more."""
    from scipy.interpolate import BSpline

    if n == 1:
        return 0.0
    if n > 16:  # within 1e-4 nats
        return 0.5 * math.log(2 * math.pi * math.e / (12 * n))
    at = (onp.arange(200 * n) + 0.5) / 200
    density = BSpline.basis_element(onp.arange(n + 1))(at)  # of the sum
    return -float(onp.mean(density * onp.log(density)) * n) - math.log(n)
