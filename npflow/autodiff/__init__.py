"""What differentiates: the parameter tree and its flat vector, the gradient over it, the primitives, programs."""

from npflow.autodiff import derivatives, devices, primitives, tree
from npflow.autodiff.gradient import value_and_grad
from npflow.autodiff.program import Program, record
from npflow.autodiff.tree import Layout

__all__ = ["Layout", "Program", "derivatives", "devices", "primitives", "record", "tree", "value_and_grad"]
