"""The parameter tree and its flat vector, the gradient over it, primitives, and recorded programs."""

from npflow.autodiff import derivatives, gpu, primitives, tree
from npflow.autodiff.gradient import value_and_grad
from npflow.autodiff.program import Program, record
from npflow.autodiff.tree import Layout

__all__ = ["Layout", "Program", "derivatives", "gpu", "primitives", "record", "tree", "value_and_grad"]
