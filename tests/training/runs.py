"""Short training runs, and layers that go wrong, for the tests of `npflow.training`."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest

from npflow import Flow, NonFiniteError, fit
from npflow.layers import ActNorm, AffineCoupling, Chain, Layer
from npflow.layers.layer import zeros_per_row
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine

SMALL = MLP((8,), "tanh")
LAYER = Chain([ActNorm(), AffineCoupling(SMALL)])
EVERYTHING = {"average": 0.9, "clip_norm": 1.0, "optimizer": Adam(WarmupCosine(1e-2, 20))}


def data(dtype=np.float64):
    """50 rows of 2 features, an epoch of four steps: three of 16 rows and one of 2."""
    return np.random.default_rng(0).normal(2.0, 0.5, (50, 2)).astype(dtype)


def flow_and_params(x, layer=LAYER, prior=None):
    flow = Flow(layer, prior or Normal(x.shape[1:]))
    return flow, flow.init(np.random.default_rng(1), x)


def run(x, layer=LAYER, *, params=None, seed=0, **options):
    """Fit a flow of a layer to `x`, by default for 20 steps of 16 rows."""
    flow, start = flow_and_params(x, layer)
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    return fit(flow, start if params is None else params, x, rng=np.random.default_rng(seed), **options)


def failure(*args, **options):
    """The `NonFiniteError` of a run."""
    with pytest.raises(NonFiniteError) as caught:
        run(*args, **options)
    return caught.value


def same_history(first, second):
    """Whether two runs measured the same numbers, the clock aside."""
    measured = ("loss", "learning_rate", "gradient_norm", "validation_step", "validation_loss")
    return all(getattr(first, name) == getattr(second, name) for name in measured)


# ---------------------------------------------------------------- what goes wrong


@dataclass(frozen=True)
class Exploding(Layer):
    """The identity until its parameter has moved by 0.01; then z or the log-det is nan."""

    log_det_only: bool = False

    def init(self, rng, x):
        return {"a": np.zeros(1, x.dtype)}

    def forward(self, params, x):
        bad = 0.0 * anp.sqrt(1e-4 - params["a"] * params["a"])
        if self.log_det_only:
            return x + params["a"], zeros_per_row(x) + bad
        return x + params["a"] + bad, zeros_per_row(x)

    def inverse(self, params, z):
        return z - params["a"], zeros_per_row(z)


@dataclass(frozen=True)
class Steep(Layer):
    """A layer whose value is finite where its derivative is not."""

    def init(self, rng, x):
        return {"scale": np.ones(2, x.dtype)}

    def forward(self, params, x):
        y = x * params["scale"]
        return y, anp.sum(anp.sqrt(y - y), axis=1)

    def inverse(self, params, z):
        return z, zeros_per_row(z)


@dataclass(frozen=True)
class Long(Layer):
    """A layer whose gradient is too long to be squared in float32."""

    def init(self, rng, x):
        return {"a": np.zeros(2, x.dtype)}

    def forward(self, params, x):
        return x + params["a"] * np.float32(1e25), zeros_per_row(x)

    def inverse(self, params, z):
        return z, zeros_per_row(z)
