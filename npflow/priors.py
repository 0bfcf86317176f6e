"""Where z comes from: densities with a log-probability and a sampler.

A prior follows the layers' pattern: a frozen dataclass of hyper-parameters with `init`, its trained
arrays in `params`. A fixed prior has no parameters at all.
"""

import math
from dataclasses import dataclass

import autograd.numpy as np
import numpy as onp

from npflow.autodiff.gpu.devices import constant
from npflow.autodiff.primitives import logsumexp_last, softplus, sum_event
from npflow.description import Described
from npflow.errors import InputError
from npflow.validation import check_count, check_number, check_sequence

LOG_2PI = math.log(2 * math.pi)


class Prior(Described):
    """A density of z with a log-probability and a sampler; `event_shape` is the shape of one row."""

    event_shape: tuple

    def init(self, rng, z):
        """Parameters; none where the prior is fixed."""
        return {}

    def log_prob(self, params, z):
        """log p(z) in nats: shape (n, *event_shape) gives (n,)."""
        raise NotImplementedError

    def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
        """`n` draws, shape (n, *event_shape), each `temperature` times as far from its mean as it would be.

        For a normal density p that is a draw of p^(1 / temperature^2), made to integrate to one.
        """
        raise NotImplementedError


def check_event_shape(event_shape, name):
    """Raise unless `event_shape` is the shape of a row, or its number of features; return it as a tuple."""
    shape = event_shape if isinstance(event_shape, (tuple, list)) else (event_shape,)
    shape = tuple(check_count(size, f"each size of {name}'s event_shape") for size in shape)
    if not shape:
        raise InputError(f"expected {name}'s event_shape to have at least one axis, got ()")
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
        Whether the mean and the log of the standard deviation are learned, a number of each for every
        component, starting at 0. Otherwise they stay there: the standard normal.
    """

    event_shape: tuple
    trained: bool = False

    def __post_init__(self):
        object.__setattr__(self, "event_shape", check_event_shape(self.event_shape, "Normal"))

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
    r"""Independent standard logistic components, whose tails are heavier than the normal's.

    log p(z) = -sum_i [z_i + 2 log(1 + exp(-z_i))]

    Each has variance pi^2 / 3, and a gradient of at most one, however far out z lies.

    Parameters
    ----------
    event_shape : int or tuple of int
        The shape of one row: the number of features, or (height, width, channels).

    Source: Dinh et al. 2014, NICE, section 3.4.
    """

    event_shape: tuple

    def __post_init__(self):
        object.__setattr__(self, "event_shape", check_event_shape(self.event_shape, "Logistic"))

    def log_prob(self, params, z):
        return -sum_event(z + 2 * softplus(-z))

    def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
        u = rng.random((n, *self.event_shape), dtype)
        u = onp.maximum(u, onp.finfo(dtype).epsneg / 2)  # 0 would be minus infinity
        return temperature * (onp.log(u) - onp.log1p(-u))


@dataclass(frozen=True)
class GaussianMixture(Prior):
    r"""A mixture of round Gaussians over rows of features.

    p(z) = sum_k w_k N(z; mean_k, std_k^2 I)

    A temperature below 1 narrows each component about its own mean and leaves the weights, so that draws come from all
    of them still; at 0 they are the means.

    Parameters
    ----------
    means : tuple of tuples of float
        A mean for each component.
    stds : tuple of float
        A standard deviation for each component.
    weights : tuple of float, optional
        A weight for each component, positive; they are divided by their sum. By default all are equal.
    trained : bool
        Whether means, log-stds and log-weights are learned, starting at the values given.
    """

    means: tuple
    stds: tuple
    weights: tuple | None = None
    trained: bool = False

    def __post_init__(self):
        means = tuple(
            tuple(check_number(value, "each number in GaussianMixture's means") for value in mean)
            for mean in (
                check_sequence(row, "each of GaussianMixture's means") for row in self._rows("means")
            )
        )
        stds = tuple(
            check_number(std, "each of GaussianMixture's stds", above=0) for std in self._rows("stds")
        )
        weights = [1.0] * len(means) if self.weights is None else self._rows("weights")
        weights = tuple(
            check_number(weight, "each of GaussianMixture's weights", above=0) for weight in weights
        )
        if not means or len({len(mean) for mean in means}) != 1 or not means[0]:
            raise InputError(
                f"expected GaussianMixture's means to be rows of one length, at least one, got {self.means!r}"
            )
        if not len(means) == len(stds) == len(weights):
            raise InputError(
                "expected one std and one weight for each of GaussianMixture's means, "
                f"got {len(means)} means, {len(stds)} stds and {len(weights)} weights"
            )
        for name, value in (("means", means), ("stds", stds), ("weights", weights)):
            object.__setattr__(self, name, value)

    def _rows(self, name):
        return check_sequence(getattr(self, name), f"GaussianMixture's {name}")

    @property
    def event_shape(self):
        """The shape of one row of z."""
        return (len(self.means[0]),)

    def init(self, rng, z):
        return self.start(z.dtype) if self.trained else {}

    def start(self, dtype):
        """The hyper-parameters as arrays: means (k, d), log_stds (k,) and log_weights (k,)."""
        weights = onp.array(self.weights, dtype)
        return {
            "means": onp.array(self.means, dtype),
            "log_stds": onp.log(onp.array(self.stds, dtype)),
            "log_weights": onp.log(weights / onp.sum(weights)),
        }

    def fixed(self, like):
        """What `start` gives, where `like` lives and in its dtype."""
        return {name: constant(values, like) for name, values in self.start(like.dtype).items()}

    def log_prob(self, params, z):
        mixture = params if self.trained else self.fixed(z)
        log_stds, log_weights = mixture["log_stds"], mixture["log_weights"]
        features = z.shape[-1]
        offsets = (z[:, None, :] - mixture["means"]) * np.exp(-log_stds)[:, None]
        log_normals = -0.5 * np.sum(offsets * offsets, axis=-1) - features * (log_stds + 0.5 * LOG_2PI)
        # A trained mixture's weights need not sum to one: they are divided by their sum here.
        return logsumexp_last(log_normals + log_weights) - logsumexp_last(log_weights)

    def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
        share = rng.random(n)
        noise = temperature * rng.standard_normal((n, *self.event_shape), dtype)
        mixture = params if self.trained else self.fixed(noise)
        log_weights = mixture["log_weights"].astype(onp.float64)
        weights = onp.exp(log_weights - log_weights.max())
        # The component in whose share of the weights, side by side from 0 to 1, the number falls.
        ends = onp.cumsum(weights / weights.sum())
        component = onp.searchsorted(ends / ends[-1], share, side="right")
        return mixture["means"][component] + onp.exp(mixture["log_stds"])[component, None] * noise
