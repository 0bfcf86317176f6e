"""Residual flows, with log-determinants that are exact, or estimated without bias."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator

from npflow.description import count, instance, number
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import ActNorm, Composite, Residual, Units
from npflow.layers.composite import follow
from npflow.model import Model
from npflow.models.recipe import check_depth, flow_of, recipe
from npflow.priors import Prior
from npflow.validation import check_count, check_rng


@recipe
def residual_flow(
    features: int,
    steps: int = 8,
    hidden: Sequence[int] = (64, 64),
    lipschitz: float = 0.9,
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
    if not 0 < survival < 1:
        raise InputError(f"expected survival between 0 and 1, got {survival}")
    more = rng.geometric(1 - survival) - 1
    return np.concatenate([np.ones(exact), survival ** -np.arange(1.0, more + 1)])


@dataclass(frozen=True)
class EstimatedLogDet(Model):
    r"""The negative log-likelihood of a flow of `Residual` layers, with log-dets that are estimated.

    The loss of a row is -log prior(z) - sum of the log-dets, those of `Residual` layers by `Residual.forward_estimate`.
    Its mean over the noise is the exact loss, if the number of terms is random (`terms` None), and near it otherwise.
    The noise is v, standard normal, for each row and `Residual` layer, and the coefficients of the series. The number
    of terms is drawn for a batch. It is a shape, so `fit` records a program for each number that it meets.

    Evaluate the trained flow itself: its `log_prob` is exact.

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

    flow: Flow = instance(Flow)
    terms: int | None = count(None)
    exact: int = count(4)
    survival: float = number(0.5, above=0, below=1)

    noisy = True

    def __post_init__(self):
        super().__post_init__()
        if self.flow.context_features:
            raise InputError(
                f"expected a flow without a context, got context_features={self.flow.context_features}"
            )

    def check(self, params):
        return self.flow.check(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        return self.flow.check_batch(x, context, dtype, name)

    def noise(self, rng, rows, dtype):
        """v, shape (rows, Residual layers, D), and the coefficients of the series, shape (rows, terms)."""
        v = rng.standard_normal((rows, residuals_in(self.flow.layer), *self.flow.event_shape), dtype)
        terms = np.ones(self.terms) if self.terms else roulette(rng, self.exact, self.survival)
        return v, np.tile(terms.astype(dtype), (rows, 1))

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
        x, v, coefficients = batch
        noise = iter(range(v.shape[1]))
        z, log_det = estimated(self.flow.layer, params["layer"], x, lambda: v[:, next(noise)], coefficients)
        return -(self.flow.prior.log_prob(params["prior"], z) + log_det)

    def visits(self, params, *batch):
        """Each layer of the flow, with exact log-dets, and its prior."""
        return self.flow.visits(params, batch[0])

    @property
    def learned(self):
        """The flow."""
        return self.flow


def estimated(layer, params, x, draw, coefficients):
    """z, and the log-det with those of `Residual` layers estimated; ``draw()`` returns v for the next one."""
    if isinstance(layer, Residual):
        return layer.forward_estimate(params, x, draw(), coefficients)
    if not isinstance(layer, Composite):
        return layer.forward(params, x)
    log_dets = []

    def take(step):
        if step.direction == "forward":
            z, log_det = estimated(step.layer, step.params(params), step.x, draw, coefficients)
        else:
            z, log_det = step.apply(step.params(params))
        log_dets.append(log_det)
        return z

    z = follow(layer, x, "forward", None, take)
    return z, sum(log_dets[1:], log_dets[0])


def residuals_in(layer):
    """How many `Residual` layers a layer applies."""
    if isinstance(layer, Residual):
        return 1
    return sum(map(residuals_in, getattr(layer, "layers", ())))
