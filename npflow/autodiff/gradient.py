"""Value and gradient of a function of a parameter tree, by autograd's reverse mode.

autograd's `value_and_grad` takes one array. Sending a whole tree through autograd as one container costs more than the
arithmetic of a small layer. So here each trained leaf gets a box of its own, the function runs once, and the tape is
walked back once.

While it runs, values are boxes of autograd's: ``print(h)`` shows the numbers of a box, and ``h._value`` is its array.
"""

import functools

from autograd.core import VJPNode, primitive_vjps, sparse_add, sparse_object_types, vspace
from autograd.extend import defvjp
from autograd.tracer import getval, isbox, new_box, notrace_primitives, toposort, trace_stack

from npflow.autodiff import tree
from npflow.errors import InputError


def value_and_grad(fun, node=None):
    """A function that returns the value of `fun` and its gradient in the float leaves of its first argument.

    Parameters
    ----------
    fun : callable
        `fun(params, *args) -> scalar`, written with `autograd.numpy` and npflow's primitives.
    node : type, optional
        The kind of node that the tape is made of; a subclass of `Differentiated`, which is the default.

    Returns
    -------
    callable
        `(params, *args) -> (value, gradient)`. The gradient is a tree like `params`, with None for a leaf that is a
        constant (integer or boolean) or does not influence the value.

    Raises
    ------
    InputError
        If the value is not a scalar.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> loss = lambda params, x: np.sum(params["weight"] * x) ** 2
    >>> value_and_grad(loss)({"weight": np.array([1.0, 2.0])}, np.array([3.0, 1.0]))
    (np.float64(25.0), {'weight': array([30., 10.])})
    """
    node = node or Differentiated

    @functools.wraps(fun)
    def value_and_gradient(params, *args):
        roots = []  # a node of the tape for each leaf, None for a constant

        def box(path, leaf):
            roots.append(node.new_root(leaf) if tree.is_trained(leaf) else None)
            return leaf if roots[-1] is None else new_box(leaf, trace, roots[-1])

        with trace_stack.new_trace() as trace:
            end = fun(tree.build(box, params), *args)
        depends = isbox(end) and end._trace == trace
        value = end._value if depends else end
        if getattr(value, "shape", ()) != ():
            raise InputError(f"expected a scalar to differentiate, got an array of shape {value.shape}")
        gradients, nodes = backward(end) if depends else {}, iter(roots)
        return value, tree.build(lambda path, leaf: gradients.get(next(nodes)), params)

    return value_and_gradient


def backward(end):
    """Walk the tape back from the box of a scalar: the gradient at each root, keyed by the root's node."""
    gradients = {}
    outgrads = {end._node: vspace(end._value).ones()}
    for node in toposort(end._node):
        gradient = outgrads.pop(node)
        if not node.parents:
            gradients[node] = gradient
        for parent, part in zip(node.parents, node.vjp(gradient)):
            if type(part) in sparse_object_types:  # zeros but for one place of a container
                part = sparse_add(vspace(part), None, part)
            outgrads[parent] = parent.add(outgrads[parent], part) if parent in outgrads else part
    return gradients


DERIVATIVES = {}  # npflow's own, for functions of autograd


class Differentiated(VJPNode):
    """A node of the tape: its parents, and how a gradient in its value becomes gradients in theirs.

    npflow's own derivatives, where there is one, go before autograd's, which stay as they are for others.
    """

    __slots__ = []

    def __init__(self, value, fun, args, kwargs, argnums, parents):
        if fun in DERIVATIVES:
            self.parents = parents
            self.vjp = DERIVATIVES[fun](argnums, value, args, kwargs)
        else:
            super().__init__(value, fun, args, kwargs, argnums, parents)

    def initialize_root(self, value):
        super().initialize_root()

    def add(self, gradient, part):
        """The gradient in this node's value so far, and one more part of it, from another reader."""
        if isinstance(getval(gradient), (tuple, list, dict)):  # of a function of several results
            return vspace(gradient).add(gradient, part)
        return gradient + part


notrace_primitives[Differentiated] = notrace_primitives[VJPNode]


def derivative(fun, *makers):
    """Give a function of autograd another derivative, as `autograd.extend.defvjp` does, within npflow."""
    stand_in = functools.wraps(fun)(lambda: None)  # autograd's own table goes by function: a key of our own
    defvjp(stand_in, *makers)
    DERIVATIVES[fun] = primitive_vjps.pop(stand_in)
