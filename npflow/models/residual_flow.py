"""Residual flows, with log-determinants that are exact, or estimated without bias."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain, pairwise

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.description import checked, count, number
from npflow.flow import Flow, check_unconditional, estimates_of
from npflow.layers import ActNorm, Logit, Residual, Units
from npflow.layers.composite import Substituted, Visit, dry_run, name_of, walk
from npflow.layers.layer import zeros_per_row
from npflow.layers.residual import invert_residual, residual
from npflow.model import Model
from npflow.models.recipe import check_depth, check_image_shape, flow_of, multi_scale, recipe
from npflow.priors import Prior
from npflow.typing import Params
from npflow.validation import check_count, check_number, check_rng


@recipe
def residual_flow(
    features: int,
    steps: int = 8,
    hidden: Sequence[int] = (64, 64),
    lipschitz: float = 0.97,
    prior: Prior | None = None,
) -> Flow:
    """Residual flow: Units, then steps of [ActNorm, Residual].

    Every component of z depends on every component of x in each step, and no network is masked. The log-det is that of
    the D x D Jacobian. `EstimatedLogDet` trains the same flow with an estimate, for large D.

    Parameters
    ----------
    features : int
    steps : int
    hidden : tuple of int
        The number of units in each hidden layer of a step's network.
    lipschitz : float
        A bound, below 1, of how much a network stretches distances.

    References
    ----------
    Behrmann et al.: Invertible residual networks, 2019. https://arxiv.org/abs/1811.00995

    Examples
    --------
    >>> from npflow.models import residual_flow
    >>> len(residual_flow(features=2, steps=4).layer.layers)
    9
    """
    features, steps = check_count(features, "features"), check_depth(steps, "steps")
    return flow_of([Units(), *([ActNorm(), Residual(hidden, lipschitz)] * steps)], features, prior)


@recipe
def image_residual_flow(
    shape: tuple[int, int, int],
    levels: int = 3,
    steps: int = 4,
    hidden: Sequence[int] = (64, 64),
    lipschitz: float = 0.97,
    prior: Prior | None = None,
) -> Flow:
    """Residual flow on images: Logit, Units, then levels of [Squeeze, steps of [ActNorm, Residual], Split].

    After each level but the last, half of the channels are split off, with a learned prior; see `Split`. The paper
    has no splits, and steps before the first Squeeze too, which take most of the time. Pixels are numbers in [0, 1],
    as `Dequantized` makes them; `Logit` maps them to real numbers.

    The exact log-det of a step takes O(D^3) for each image. `EstimatedLogDet` trains and scores images of more than some
    hundred numbers.

    Parameters
    ----------
    shape : tuple of int
        (height, width, channels); height and width are multiples of 2^levels.
    levels : int
    steps : int
        The steps of each level; the paper has 16.
    hidden : tuple of int
        The channels in each hidden layer of a step's network; the paper has (512, 512).
    lipschitz : float
        A bound, below 1, of how much a network stretches distances; the paper has 0.98.

    References
    ----------
    Chen, Behrmann, Duvenaud, Jacobsen: Residual flows for invertible generative modeling, 2019, section 5 and appendix E.
    https://arxiv.org/abs/1906.02735

    Examples
    --------
    >>> from npflow import Dequantized
    >>> from npflow.models import EstimatedLogDet, image_residual_flow
    >>> model = Dequantized(EstimatedLogDet(image_residual_flow((8, 8, 1), levels=2, steps=1)), levels=17)
    >>> model.event_shape
    (8, 8, 1)
    """
    levels, steps = check_count(levels, "levels"), check_depth(steps, "steps")
    shape = check_image_shape(shape, halvings=levels)
    step = [ActNorm(), Residual(hidden, lipschitz)]
    layers = [Logit(), Units(), *multi_scale([step * steps] * levels).layers]
    return flow_of(layers, shape, prior)


def roulette(rng: Generator, exact: int = 4, survival: float = 0.5) -> ndarray:
    """Draw the coefficients of a series that is cut off at random, so that its expectation is the whole series.

    N = exact + a geometric number        c_k = 1 / P(N >= k) for k <= N

    A term k is there with the probability P(N >= k), and is divided by it: its expectation is the term.

    Parameters
    ----------
    rng : numpy.random.Generator
    exact : int
        How many terms are always there, with a coefficient of 1.
    survival : float
        The probability that one more term follows, between 0 and 1.

    Returns
    -------
    ndarray, shape (N,)

    References
    ----------
    Chen et al.: Residual flows for invertible generative modeling, 2019, section 3.1 and appendix E.
    https://arxiv.org/abs/1906.02735

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.models.residual_flow import roulette
    >>> roulette(np.random.default_rng(1), exact=2, survival=0.5)
    array([1., 1., 2.])
    """
    check_rng(rng)
    exact = check_count(exact, "exact")
    survival = check_number(survival, "survival", above=0, below=1)
    more = rng.geometric(1 - survival) - 1
    return np.concatenate([np.ones(exact), survival ** -np.arange(1.0, more + 1)])


@dataclass(frozen=True)
class EstimatedLogDet(Model):
    r"""A flow of `Residual` layers, with log-dets that are estimated.

    The loss of a row is -log prior(z) - sum of the log-dets, those of `Residual` layers by `Residual.forward_estimate`.
    Its mean over the noise is the exact loss, if the number of terms is random (`terms` None), and near it otherwise.
    The noise is v, standard normal, for each row and `Residual` layer, and the coefficients of the series. The number
    of terms is drawn for a batch. It is a shape, so `fit` records a program for each number that it meets. Layers of
    other kinds keep their exact log-dets: for a flow without `Residual` layers nothing changes.

    The exact log-det takes O(D^3) for each row. Where that is little, evaluate the trained flow itself. Images of
    3072 numbers need `log_prob` of this model, which takes at least 10 terms, and a number of further terms that is
    drawn for each row. `sample`, `encode` and `decode` compute no log-det.

    Parameters
    ----------
    flow : Flow
        Without a context.
    terms : int, optional
        How many terms of the series; by default a random number without bias, see `roulette`.
    exact, survival : int, float
        As for `roulette`.

    References
    ----------
    Chen et al.: Residual flows for invertible generative modeling, 2019, section 3.
    https://arxiv.org/abs/1906.02735

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.models import EstimatedLogDet, residual_flow
    >>> rng = np.random.default_rng(0)
    >>> flow, x = residual_flow(2, steps=2, hidden=(8,)), npflow.datasets.moons(300, rng=rng)
    >>> params = flow.init(rng, x)
    >>> params, _ = npflow.fit(EstimatedLogDet(flow, terms=4), params, x, rng=rng, steps=5, progress=False)
    >>> flow.log_prob(params, x).shape
    (300,)
    """

    flow: Flow = checked(check_unconditional)
    terms: int | None = count(None)
    exact: int = count(4)
    survival: float = number(0.5, above=0, below=1)

    noisy = True
    invertible = True
    context_features = 0

    @property
    def domain(self):
        """That of the flow."""
        return self.flow.domain

    @property
    def event_shape(self):
        """The shape of a row of x, and of z."""
        return self.flow.event_shape

    @property
    def prior(self):
        """The prior of the flow."""
        return self.flow.prior

    def init(self, rng: Generator, x: ArrayLike, context: None = None) -> Params:
        """Draw parameters of the flow; see `Flow.init`.

        Parameters
        ----------
        rng : numpy.random.Generator
        x : array_like, shape (n, *event)
        context : None

        Returns
        -------
        tree of ndarray

        Raises
        ------
        InputError
            As `Flow.init` raises it.
        """
        return self.without_log_dets.init(rng, x, context)

    @property
    def without_log_dets(self):
        """The flow with layers that compute no log-det."""
        return replace(self.flow, layer=WithoutLogDets(self.flow.layer))

    def check(self, params):
        return self.flow.check(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        return self.flow.check_batch(x, context, dtype, name)

    def check_context(self, context, rows, dtype, name="context"):
        """Raise `InputError` unless there is no context."""
        return self.flow.check_context(context, rows, dtype, name)

    def noise(self, rng, rows, dtype):
        """v of all `Residual` layers, shape (rows, their numbers), and the coefficients, shape (rows, terms)."""
        terms = np.ones(self.terms) if self.terms else roulette(rng, self.exact, self.survival)
        return self.draw_v(rng, rows, dtype), np.tile(terms.astype(dtype), (rows, 1))

    def scoring_noise(self, rng, rows, dtype):
        """The same with at least 10 terms, and a number of further ones for each row."""
        if self.terms:
            return self.noise(rng, rows, dtype)
        drawn = [roulette(rng, max(self.exact, 10), self.survival) for _ in range(rows)]
        coefficients = np.zeros((rows, max(map(len, drawn))), dtype)
        for row, terms in zip(coefficients, drawn):
            row[: len(terms)] = terms
        return self.draw_v(rng, rows, dtype), coefficients

    def draw_v(self, rng, rows, dtype):
        """Standard normal numbers, as many as the `Residual` layers take."""
        return rng.standard_normal((rows, numbers_in_residuals(self.flow.layer, self.event_shape)), dtype)

    def losses(self, params, *batch):
        """Estimate -log p(x) of each row.

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            x, v and the coefficients.

        Returns
        -------
        ndarray, shape (n,)
            In nats. It is pure arithmetic and checks nothing.
        """
        # The result of a layer is computed on the way to the next visit, where a program can tell the layer's name.
        visits = chain(self.visits(params, *batch), [None])
        first, *rest = (visit.result[-1] for visit, _ in pairwise(visits))
        return -sum(rest, first)

    def visits(self, params, *batch):
        """Each layer of the flow, with estimated log-dets, and its prior."""
        x, v, coefficients = batch
        visits, used, prior = walk(self.flow.layer, params["layer"], x), 0, self.flow.prior
        while True:
            try:
                visit = next(visits)
            except StopIteration as end:
                z = end.value
                break
            layer = getattr(visit.method, "__self__", None)
            if isinstance(layer, Residual) and visit.direction == "forward":
                shape = visit.arguments[1].shape
                start, used = used, used + math.prod(shape[1:])
                noise = np.reshape(v[:, start:used], shape)
                visit.method, visit.arguments = (
                    layer.forward_estimate,
                    (*visit.arguments, noise, coefficients),
                )
            yield visit
        yield Visit(name_of("prior", prior), prior.log_prob, (params["prior"], z))

    def log_prob(
        self, params: Params, x: ArrayLike, context: None = None, *, rng: Generator, draws: int = 1
    ) -> ndarray:
        """Estimate log p(x) of each row, without bias where `terms` is None.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, *event)
        context : None
        rng : numpy.random.Generator
        draws : int
            The number of estimates whose mean it is.

        Returns
        -------
        ndarray, shape (n,)
            In nats. It is -inf outside the `domain`, and where a row is so far out that the layers overflow.

        Raises
        ------
        InputError
            If an argument cannot be used, or does not fit the flow.
        """
        check_count(draws, "draws")
        check_rng(rng)
        estimates = estimates_of(self, params, x, context, rng, draws)
        return np.concatenate([sum(found) / draws for found in estimates])

    def sample(
        self, params: Params, rng: Generator, n: int, context: None = None, temperature: float = 1.0
    ) -> ndarray:
        """Draw rows of x; see `Flow.sample`.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
        context : None
        temperature : float

        Returns
        -------
        ndarray, shape (n, *event)

        Raises
        ------
        InputError, ConvergenceError
            As `Flow.sample` raises them.
        """
        return self.without_log_dets.sample(params, rng, n, context, temperature)

    def encode(self, params: Params, x: ArrayLike, context: None = None) -> ndarray:
        """Map x to z.

        Parameters
        ----------
        params : tree of ndarray
        x : array_like, shape (n, *event)
        context : None

        Returns
        -------
        ndarray, shape (n, *event)

        Raises
        ------
        InputError
            If an argument does not fit the flow.
        """
        return self.without_log_dets.encode(params, x, context)

    def decode(self, params: Params, z: ArrayLike, context: None = None) -> ndarray:
        """Map z to x, the inverse of `encode`.

        Parameters
        ----------
        params : tree of ndarray
        z : array_like, shape (n, *event)
        context : None

        Returns
        -------
        ndarray, shape (n, *event)

        Raises
        ------
        InputError, ConvergenceError
            As `Flow.decode` raises them.
        """
        return self.without_log_dets.decode(params, z, context)


class WithoutLogDet(Residual):
    """A `Residual` layer whose log-det is left out, and given as 0."""

    def forward(self, params, x):
        arrays = self.arrays(params)
        return x + residual(x, *arrays)[0], zeros_per_row(x)

    def inverse(self, params, z):
        return invert_residual(z, self.lipschitz, *self.arrays(params)), zeros_per_row(z)


class WithoutLogDets(Substituted):
    """A layer with `WithoutLogDet` for the `Residual` layers in it."""

    def instead(self, layer):
        if not isinstance(layer, Residual):
            return layer
        return WithoutLogDet(layer.hidden, layer.lipschitz, layer.kernel)


@lru_cache(maxsize=64)
def numbers_in_residuals(layer, event_shape):
    """How many numbers of a row the `Residual` layers see, all together."""
    sizes = []

    def note(inner, x, context, direction):
        if isinstance(inner, Residual) and direction == "forward":
            sizes.append(x[0].size)

    dry_run(layer, np.zeros((1, *event_shape)), note)
    return sum(sizes)
