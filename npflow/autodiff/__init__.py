"""What differentiates: the parameter tree and its flat vector, the gradient over it, the primitives."""

from npflow.autodiff import primitives, tree
from npflow.autodiff.gradient import value_and_grad
from npflow.autodiff.tree import Layout

__all__ = ["Layout", "primitives", "tree", "value_and_grad"]
