"""npflow: normalizing flows in NumPy, every layer explicit, every determinant formula verified."""

from npflow import autodiff, layers, models, networks, priors
from npflow.errors import InputError
from npflow.flow import Flow

__all__ = ["Flow", "InputError", "autodiff", "layers", "models", "networks", "priors"]


def __getattr__(name):
    if name == "__version__":  # looked up when it is asked for: it takes a third of the time of this import
        from importlib.metadata import version

        return version("npflow")
    raise AttributeError(f"module 'npflow' has no attribute {name!r}")
