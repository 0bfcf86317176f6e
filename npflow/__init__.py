"""npflow: normalizing flows in NumPy, every layer explicit, every determinant formula verified.

>>> import numpy as np
>>> import npflow
>>> rng = np.random.default_rng(0)
>>> x = npflow.datasets.moons(1000, rng=rng)
>>> flow = npflow.models.glow(features=2, steps=2)
>>> params = flow.init(rng, x)
>>> params, history = npflow.fit(flow, params, x, rng=rng, steps=20, progress=False)
>>> flow.sample(params, rng, 5).shape
(5, 2)
"""

import importlib

from npflow import autodiff, layers, models, networks, priors, training
from npflow.autodiff.gpu.devices import to_device, to_host
from npflow.completion import Completion
from npflow.dequantization import Dequantized
from npflow.errors import (
    CheckpointError,
    ConvergenceError,
    InputError,
    MissingDataError,
    NonFiniteError,
    VerificationError,
)
from npflow.flow import Flow
from npflow.summary import summary
from npflow.training import fit, load, save

__all__ = [
    "CheckpointError",
    "Completion",
    "ConvergenceError",
    "Dequantized",
    "Flow",
    "InputError",
    "MissingDataError",
    "NonFiniteError",
    "VerificationError",
    "autodiff",
    "datasets",
    "estimators",
    "exercises",
    "fit",
    "latent",
    "layers",
    "load",
    "models",
    "networks",
    "plots",
    "priors",
    "save",
    "summary",
    "to_device",
    "to_host",
    "training",
    "verify",
]


LAZY = (
    "datasets",
    "estimators",
    "exercises",
    "latent",
    "plots",
    "verify",
)  # loaded when they are first used, so that the import is quick


def __getattr__(name):
    if name in LAZY:
        return importlib.import_module(f"npflow.{name}")
    if name == "__version__":
        from importlib.metadata import version

        return version("npflow")
    raise AttributeError(f"module 'npflow' has no attribute {name!r}")


def __dir__():
    return sorted([*__all__, "__version__"])
