"""Importance sampling: samples of a flow, weighted so that they stand for a density known up to a constant."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import to_host
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.typing import Params
from npflow.validation import check_callable, check_count, check_instance, check_rng


@dataclass(frozen=True, eq=False)
class ImportanceSample:
    r"""Samples of a flow with their weights under another density p = p~ / Z, as `importance_sample` makes them.

    w_i = p~(x_i) / q(x_i),     x_i drawn from q

    All estimates are consistent: they hold for large n where q is positive wherever p is. Where q misses a part of p,
    such as one of several modes, no sample comes from there, and no number here shows it. `log_z` is then too low by
    about log(1 / share), with a small error and a large effective sample size.

    Attributes
    ----------
    x : ndarray, shape (n, *event)
        The samples, on the host.
    log_weights : ndarray of float64, shape (n,)
        log p~(x) - log q(x), in nats.

    Examples
    --------
    Half of the weight lies on the last of three samples:

    >>> import numpy as np
    >>> from npflow.training import ImportanceSample
    >>> sample = ImportanceSample(np.array([[0.0], [1.0], [2.0]]), np.log([1.0, 1.0, 2.0]))
    >>> sample.weights
    array([0.25, 0.25, 0.5 ])
    >>> mean, error = sample.mean(lambda x: x[:, 0])
    >>> mean, round(sample.effective_sample_size, 4), round(np.exp(sample.log_z), 4)
    (np.float64(1.25), 0.8889, np.float64(1.3333))
    """

    x: ndarray
    log_weights: ndarray

    @property
    def weights(self) -> ndarray:
        """The weights, normalized to a sum of 1; shape (n,)."""
        weights = np.exp(self.log_weights - np.max(self.log_weights))
        return weights / np.sum(weights)

    @property
    def effective_sample_size(self) -> float:
        r"""(sum w)^2 / (n sum w^2), between 1 / n and 1: the share of samples of p that would do as well.

        It is Kish's estimate: 1 where all weights are equal, so where q is p.
        """
        return float(1 / (len(self.log_weights) * np.sum(self.weights**2)))

    @property
    def log_z(self) -> float:
        """log of the mean weight, an estimate of log Z in nats; 0 for a density with its constant."""
        top = np.max(self.log_weights)
        return float(top + np.log(np.mean(np.exp(self.log_weights - top))))

    @property
    def log_z_error(self) -> float:
        """The standard error of `log_z`: that of the mean weight, divided by the mean weight."""
        return math.sqrt(max(1 / self.effective_sample_size - 1, 0.0) / (len(self.log_weights) - 1))

    def mean(self, function: Callable) -> tuple[ndarray, ndarray]:
        """Estimate the mean of a function under p, with the weights normalized.

        Parameters
        ----------
        function : callable
            ``function(x)`` has one row for each row of x: shape (n,) or (n, k).

        Returns
        -------
        mean : ndarray
            sum_i w_i f(x_i) / sum_i w_i, shape () or (k,).
        standard_error : ndarray
            Of the mean, in the same shape: sqrt(sum_i w_i^2 (f(x_i) - mean)^2) / sum_i w_i.

        Raises
        ------
        InputError
            If the result has another number of rows.
        """
        values = np.asarray(function(self.x))
        if values.shape[:1] != self.log_weights.shape:
            raise InputError(
                f"expected a function that returns {len(self.log_weights)} rows, got the shape {values.shape}"
            )
        weights = self.weights
        mean = weights @ values
        return mean, np.sqrt(weights**2 @ (values - mean) ** 2)

    def resample(self, rng: Generator, n: int) -> ndarray:
        """Draw rows of x by their weights, with replacement: about samples of p, some of them several times.

        Parameters
        ----------
        rng : numpy.random.Generator
        n : int

        Returns
        -------
        ndarray, shape (n, *event)

        Raises
        ------
        InputError
            If an argument cannot be used.
        """
        check_rng(rng)
        n = check_count(n, "the number of rows")
        return self.x[rng.choice(len(self.x), n, p=self.weights)]


def importance_sample(
    flow: Flow,
    params: Params,
    log_density: Callable,
    rng: Generator,
    n: int,
    context: ArrayLike | None = None,
) -> ImportanceSample:
    r"""Draw samples of a flow q and weight them by p~(x) / q(x), where p~ is a density known up to a constant.

    The weights correct what the flow has not learned, and tell how much that is: see `ImportanceSample`. log q(x) comes
    with the samples (`Flow.sample_and_log_prob`).

    The reverse KL leaves the edges of a density thin, where weights are then large. Rows drawn by their weights are data:
    ``fit(flow, params, sample.resample(rng, n), rng=rng, steps=...)`` minimizes the divergence in the other direction,
    which raises the effective sample size. Repeat it a few times.

    Parameters
    ----------
    flow : Flow
    params : tree of ndarray
    log_density : callable
        ``log_density(x)`` is log p~ of each row in nats, shape (n,); a plain NumPy function will do. For a conditional
        flow ``log_density(x, context)``.
    rng : numpy.random.Generator
    n : int
        The number of samples, at least two.
    context : array_like, shape (1, context features), optional
        For a conditional flow, one context for all samples, as weights at several have no common mean.

    Returns
    -------
    ImportanceSample

    Raises
    ------
    InputError
        If an argument cannot be used, log p~ is nan or +inf, or it is -inf at each sample.

    References
    ----------
    Müller et al.: Neural importance sampling, 2019. https://arxiv.org/abs/1808.03856

    Cappé et al.: Adaptive importance sampling in general mixture classes, 2008, for the fit to weighted samples.
    https://arxiv.org/abs/0710.4242

    Kish: Survey sampling, 1965, for the effective sample size.

    Examples
    --------
    A normal density twice as wide as the target exp(-x^2 / 2), whose Z is sqrt(2 pi):

    >>> import npflow
    >>> import numpy as np
    >>> from npflow.training import importance_sample
    >>> flow = npflow.Flow(npflow.layers.Affine(), npflow.priors.Normal(1))
    >>> params = {"layer": {"mean": np.zeros(1), "log_std": np.full(1, np.log(2.0))}, "prior": {}}
    >>> rng = np.random.default_rng(0)
    >>> sample = importance_sample(flow, params, lambda x: -0.5 * x[:, 0] ** 2, rng, 10_000)
    >>> abs(sample.log_z - 0.5 * np.log(2 * np.pi)) < 3 * sample.log_z_error < 0.05
    True
    >>> variance, error = sample.mean(lambda x: x[:, 0] ** 2)
    >>> bool(abs(variance - 1) < 3 * error)
    True
    """
    check_instance(flow, Flow, "flow")
    check_callable(log_density, "log_density")
    n = check_count(n, "the number of samples", least=2)
    if context is not None and np.ndim(context) > 0 and len(context) != 1:
        raise InputError(f"expected one context for all samples, got {len(context)}")
    x, log_q = to_host(flow.sample_and_log_prob(params, rng, n, context))
    where = (x,)
    if context is not None:
        where = (x, to_host(flow.check_context(context, n, x.dtype)))
    log_p = np.asarray(to_host(log_density(*where)), np.float64)
    if log_p.shape != (n,):
        raise InputError(f"expected log_density to return an array of shape {(n,)}, got {log_p.shape}")
    log_weights = log_p - log_q.astype(np.float64)
    wrong = np.flatnonzero(np.isnan(log_weights) | (log_weights == np.inf))
    if len(wrong):
        raise InputError(
            f"expected log_density to be finite or -inf, got {log_p[wrong[0]]} in row {wrong[0]}"
        )
    if np.max(log_weights) == -np.inf:
        raise InputError("expected a density that is positive at some of the samples, got -inf at each")
    return ImportanceSample(x, log_weights)
