"""Programs: a function and its gradient, recorded once and replayed as straight-line NumPy."""

from npflow.autodiff.program.program import Program
from npflow.autodiff.program.recorder import record

__all__ = ["Program", "record"]
