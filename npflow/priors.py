"""Priors: densities of z with a log-probability and a sampler.

A prior follows the pattern of a layer: a frozen dataclass of hyper-parameters with `init`, and its trained
arrays in `params`. A fixed prior has no parameters.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp
from numpy import ndarray
from numpy.random import Generator
from numpy.typing import ArrayLike, DTypeLike

from npflow.autodiff.gpu.devices import constant, is_array
from npflow.autodiff.primitives import logsumexp_last, softplus, sum_event
from npflow.autodiff.program.frames import line_of
from npflow.description import Described, checked, flag
from npflow.errors import InputError, in_short
from npflow.typing import Params
from npflow.validation import cast, check_count, check_number, check_sequence

__all__ = ["GaussianMixture", "Logistic", "Normal", "Prior"]

LOG_2PI = math.log(2 * math.pi)


class Prior(Described):
    """A density of z with a log-probability and a sampler.

    Attributes
    ----------
    event_shape : tuple of int
        The shape of one row of z.

    Examples
    --------
    A prior of one's own:

    >>> import autograd.numpy as np
    >>> import math
    >>> import npflow
    >>> from dataclasses import dataclass
    >>> @dataclass(frozen=True)
    ... class Laplace(npflow.priors.Prior):
    ...     event_shape: tuple
    ...
    ...     def log_prob(self, params, z):
    ...         return -np.sum(np.abs(z) + math.log(2), axis=-1)
    ...
    ...     def sample(self, params, rng, n, dtype=float, temperature=1.0):
    ...         return (temperature * rng.laplace(size=(n, *self.event_shape))).astype(dtype)
    >>> flow, x = npflow.Flow(npflow.layers.Affine(), Laplace((2,))), np.zeros((1, 2))
    >>> flow.log_prob(flow.init(np.random.default_rng(0), x), x).round(4)  # -2 log 2
    array([-1.3863])
    """

    event_shape: int | Sequence[int]

    def init(self, rng: Generator, z: ndarray) -> Params:
        """Return the initial parameters.

        Parameters
        ----------
        rng : numpy.random.Generator
            The only source of randomness.
        z : ndarray, shape (n, *event_shape)
            A batch. The parameters have its dtype.

        Returns
        -------
        tree of ndarray
            An empty dict if the prior is fixed.
        """
        return {}

    def log_prob(self, params: Params, z: ndarray) -> ndarray:
        """Compute log p(z) of each row.

        Parameters
        ----------
        params : tree of ndarray
        z : ndarray, shape (n, *event_shape)

        Returns
        -------
        ndarray, shape (n,)
            In nats, in the dtype of `z`.
        """
        raise NotImplementedError

    def sample(
        self, params: Params, rng: Generator, n: int, dtype: DTypeLike = onp.float64, temperature: float = 1.0
    ) -> ndarray:
        """Draw rows of z.

        Parameters
        ----------
        params : tree of ndarray
        rng : numpy.random.Generator
        n : int
            The number of rows.
        dtype : dtype
        temperature : float
            Multiplies the distance of a draw from its mean. For a normal density p this samples from the density
            proportional to p^(1 / temperature^2).

        Returns
        -------
        ndarray, shape (n, *event_shape)
            In `dtype`.
        """
        raise NotImplementedError


def check_drawn(prior, z, shape, dtype):
    """Raise `InputError` unless z, which the method `sample` of a prior returned, has a shape and a dtype."""
    if not is_array(z) or (z.shape, z.dtype) != (shape, dtype):
        got = f"{z.dtype} of shape {z.shape}" if is_array(z) else in_short(z)
        raise InputError(
            f"expected sample to return {dtype} of shape {shape}, got {got}, at {line_of(prior.sample)}",
            f"prior ({type(prior).__name__})",
        )


def check_event_shape(event_shape, name):
    """Raise `InputError` unless `event_shape` is a positive integer or several; return a tuple of int."""
    shape = event_shape if isinstance(event_shape, (tuple, list)) else (event_shape,)
    shape = tuple(check_count(size, f"each number in {name}") for size in shape)
    if not shape:
        raise InputError(f"expected {name} to have at least one axis, got ()")
    return shape


@dataclass(frozen=True)
class Normal(Prior):
    r"""Independent normal components: a Gaussian with a diagonal covariance.

    log p(z) = -1/2 sum_i [((z_i - mean_i) / std_i)^2 + 2 log std_i + log 2 pi]

    Parameters
    ----------
    event_shape : int or tuple of int
        The shape of one row: the number of features, or (height, width, channels).
    trained : bool
        Whether the mean and the log of the standard deviation of every component are learned, starting at 0.
        Otherwise they stay 0: the standard normal.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.priors import Normal
    >>> rng = np.random.default_rng(0)
    >>> prior = Normal(2)
    >>> prior.log_prob({}, np.zeros((1, 2))).round(4)  # -log 2 pi
    array([-1.8379])
    >>> prior.sample({}, rng, 5).shape
    (5, 2)
    """

    event_shape: int | Sequence[int] = checked(check_event_shape)
    trained: bool = flag(False)

    def init(self, rng, z):
        if not self.trained:
            return {}
        return {"mean": onp.zeros(self.event_shape, z.dtype), "log_std": onp.zeros(self.event_shape, z.dtype)}

    def log_prob(self, params, z):
        log_normalizer = 0.5 * LOG_2PI * math.prod(self.event_shape)
        if self.trained:
            z = (z - params["mean"]) * np.exp(-params["log_std"])
            log_normalizer = log_normalizer + np.sum(params["log_std"])
        return -0.5 * sum_event(z * z) - log_normalizer

    def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
        z = temperature * rng.standard_normal((n, *self.event_shape), dtype)
        return z * onp.exp(params["log_std"]) + params["mean"] if self.trained else z


@dataclass(frozen=True)
class Logistic(Prior):
    r"""Independent standard logistic components, with heavier tails than the normal's.

    log p(z) = -sum_i [z_i + 2 log(1 + exp(-z_i))]

    Each component has variance pi^2 / 3. The derivative of log p is at most 1 in absolute value everywhere.

    Parameters
    ----------
    event_shape : int or tuple of int
        The shape of one row: the number of features, or (height, width, channels).

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, section 3.4.
    https://arxiv.org/abs/1410.8516

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.priors import Logistic
    >>> Logistic(2).log_prob({}, np.zeros((1, 2))).round(4)  # -4 log 2
    array([-2.7726])
    """

    event_shape: int | Sequence[int] = checked(check_event_shape)

    def log_prob(self, params, z):
        return -sum_event(z + 2 * softplus(-z))

    def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
        u = rng.random((n, *self.event_shape), dtype)
        u = onp.maximum(u, onp.finfo(dtype).epsneg / 2)  # the quantile of 0 is minus infinity
        return temperature * (onp.log(u) - onp.log1p(-u))


def check_means(means, name):
    """Raise `InputError` unless `means` are rows of one length; return them as tuples of float."""
    rows = [check_sequence(row, f"each row in {name}") for row in check_sequence(means, name)]
    rows = tuple(tuple(check_number(mean, f"each number in {name}") for mean in row) for row in rows)
    if len({len(row) for row in rows}) != 1 or not rows[0]:
        raise InputError(f"expected {name} to be rows of one length, at least one, got {means!r}")
    return rows


def check_positive(values, name):
    """Raise `InputError` unless `values` are positive numbers; return them as a tuple of float."""
    values = check_sequence(values, name)
    return tuple(check_number(value, f"each number in {name}", above=0) for value in values)


@dataclass(frozen=True)
class GaussianMixture(Prior):
    r"""A mixture of isotropic Gaussians over rows of features.

    p(z) = sum_k w_k N(z; mean_k, std_k^2 I)

    A temperature scales each component about its own mean and does not change the weights, so that draws
    still come from all components. At 0 every draw is a mean.

    Parameters
    ----------
    means : sequence of sequences of float, shape (components, features)
    stds : sequence of float, shape (components,)
        Standard deviations, positive.
    weights : sequence of float, shape (components,), optional
        Positive weights, which are divided by their sum. By default all are equal.
    trained : bool
        Whether means, log-stds and log-weights are learned, starting at the values given.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.priors import GaussianMixture
    >>> prior = GaussianMixture(means=[[-2, 0], [2, 0]], stds=[0.5, 1], weights=[1, 3])
    >>> prior.log_prob({}, np.zeros((4, 2))).shape, prior.event_shape
    ((4,), (2,))
    """

    means: ArrayLike = checked(check_means)
    stds: ArrayLike = checked(check_positive)
    weights: ArrayLike | None = checked(check_positive, None)
    trained: bool = flag(False)

    def __post_init__(self):
        super().__post_init__()
        if self.weights is None:
            self._store("weights", (1.0,) * len(self.means))
        if not len(self.means) == len(self.stds) == len(self.weights):
            raise InputError(
                "expected one std and one weight for each of GaussianMixture's means, "
                f"got {len(self.means)} means, {len(self.stds)} stds and {len(self.weights)} weights"
            )

    @property
    def event_shape(self):
        """The shape of one row of z."""
        return (len(self.means[0]),)

    def init(self, rng, z):
        return self.start(z.dtype) if self.trained else {}

    def start(self, dtype):
        """The hyper-parameters as arrays: means (k, d), log_stds (k,) and log_weights (k,)."""
        log_weights = onp.log(self.weights)
        log_weights = log_weights - onp.logaddexp.reduce(log_weights)  # sums of weights could overflow
        return {
            "means": cast(self.means, dtype, "expected GaussianMixture's means"),
            "log_stds": onp.log(self.stds).astype(dtype),  # float32 holds the log of any std
            "log_weights": log_weights.astype(dtype),
        }

    def fixed(self, like):
        """The arrays of `start` in the dtype and on the device of `like`."""
        return {name: constant(values, like) for name, values in self.start(like.dtype).items()}

    def log_prob(self, params, z):
        mixture = params if self.trained else self.fixed(z)
        log_stds, log_weights = mixture["log_stds"], mixture["log_weights"]
        features = z.shape[-1]
        offsets = (z[:, None, :] - mixture["means"]) * np.exp(-log_stds)[:, None]
        log_normals = -0.5 * np.sum(offsets * offsets, axis=-1) - features * (log_stds + 0.5 * LOG_2PI)
        # The weights of a trained mixture need not sum to one; dividing by their sum normalizes them.
        return logsumexp_last(log_normals + log_weights) - logsumexp_last(log_weights)

    def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
        share = rng.random(n)
        noise = temperature * rng.standard_normal((n, *self.event_shape), dtype)
        mixture = params if self.trained else self.fixed(noise)
        log_weights = mixture["log_weights"].astype(onp.float64)
        weights = onp.exp(log_weights - log_weights.max())
        # Component k owns the k-th interval of [0, 1], whose length is its weight.
        ends = onp.cumsum(weights / weights.sum())
        component = onp.searchsorted(ends / ends[-1], share, side="right")
        return mixture["means"][component] + onp.exp(mixture["log_stds"])[component, None] * noise
