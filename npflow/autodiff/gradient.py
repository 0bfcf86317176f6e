"""Value and gradient of a function of a parameter tree, by autograd's reverse mode.

autograd's own `value_and_grad` takes one array. A whole tree as one container costs more than the arithmetic
of a small layer. So each trained leaf gets a box of its own here; the function runs once, and the tape is
walked back once.

While the function runs, its values are boxes: ``print(h)`` shows the numbers of a box, and ``h._value`` is
its array.
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext

from autograd.core import VJPNode, primitive_vjps, sparse_add, sparse_object_types, vspace
from autograd.extend import defvjp
from autograd.tracer import getval, isbox, new_box, notrace_primitives, toposort, trace_stack

from npflow.autodiff import tree
from npflow.errors import InputError
from npflow.validation import check_callable


def value_and_grad(fun: Callable, node: type | None = None) -> Callable:
    """A function that returns the value of `fun` and its gradient in the float leaves of its first argument.

    Parameters
    ----------
    fun : callable
        ``fun(params, *args)`` returns a scalar. It is written with `autograd.numpy` and npflow's primitives.
    node : type, optional
        The class of the tape's nodes, a subclass of `Differentiated`, the default.

    Returns
    -------
    callable
        ``(params, *args) -> (value, gradient)``. The gradient is a tree like `params`, with None for
        constants (integer or boolean leaves) and for leaves without influence on the value.

    Raises
    ------
    InputError
        If the value is not a scalar.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from npflow.autodiff import value_and_grad
    >>> loss = lambda params, x: np.sum(params["weight"] * x) ** 2
    >>> value_and_grad(loss)({"weight": np.array([1.0, 2.0])}, np.array([3.0, 1.0]))
    (np.float64(25.0), {'weight': array([30., 10.])})
    """
    check_callable(fun, "the function to differentiate")
    node = node or Differentiated

    @functools.wraps(fun)
    def value_and_gradient(params, *args):
        roots = []  # a node of the tape for each leaf, None for a constant

        def box(path, leaf):
            roots.append(node.new_root(leaf) if tree.is_trained(leaf, path) else None)
            return leaf if roots[-1] is None else new_box(leaf, trace, roots[-1])

        with trace_stack.new_trace() as trace:
            end = fun(tree.build(box, params), *args)
        depends = isbox(end) and end._trace == trace
        value = end._value if depends else end
        if isbox(value) and value._trace == trace:
            raise InputError(
                "expected the arrays of each primitive as its positional arguments, "
                "got one that it takes by name or from the code around it, whose gradient would be lost"
            )
        if getattr(value, "shape", ()) != ():
            raise InputError(f"expected a scalar to differentiate, got an array of shape {value.shape}")
        gradients = backward([(end, vspace(end._value).ones())]) if depends else {}
        nodes = iter(roots)
        return value, tree.build(lambda path, leaf: gradients.get(next(nodes)), params)

    return value_and_gradient


def backward(ends):
    """Walk the tape back from pairs of a box and the gradient in it: the gradient at each root, by the root's node."""
    gradients = {}
    start = Differentiated.of([end._node for end, _ in ends], lambda _: [gradient for _, gradient in ends])
    outgrads = {start: None}
    for node in toposort(start):
        if node not in outgrads:  # what depends on it has no influence
            continue
        gradient = outgrads.pop(node)
        if not node.parents:
            gradients[node] = gradient
        for parent, part in zip(node.parents, node.vjp(gradient)):
            if part is None:
                continue
            if type(part) in sparse_object_types:  # zeros but for one place of a container
                part = sparse_add(vspace(part), None, part)
            outgrads[parent] = parent.add(outgrads[parent], part) if parent in outgrads else part
    return gradients


DERIVATIVES = {}  # npflow's derivatives of autograd's functions


class Differentiated(VJPNode):
    """A node of the tape: its parents, and how the gradient in its value becomes gradients in theirs.

    npflow's derivatives go before autograd's, which stay as they are outside npflow.
    """

    __slots__ = []

    def __init__(self, value, fun, args, kwargs, argnums, parents):
        if fun in DERIVATIVES:
            self.parents = parents
            self.vjp = DERIVATIVES[fun](argnums, value, args, kwargs)
        else:
            super().__init__(value, fun, args, kwargs, argnums, parents)
            self.vjp = _with_dtypes(self.vjp, fun, [args[number] for number in argnums])
        if getattr(getattr(value, "dtype", None), "hasobject", False):
            raise TypeError(f"{fun.__name__} got an array of dtype object, which NumPy made of boxes")

    def initialize_root(self, value):
        super().initialize_root()

    @classmethod
    def of(cls, parents, vjp, value=None):
        """A node of these parents, whose derivative is `vjp`; None in its result is no influence."""
        node = cls.new_root(value)
        node.parents, node.vjp = parents, vjp
        return node

    @classmethod
    def apart(cls, again):
        """A context in which a function runs whose tape is not kept; `again` for its derivative."""
        return nullcontext()

    def add(self, gradient, part):
        """The gradient in this node's value so far, plus the part from another reader."""
        if isinstance(part, Parts):
            return Parts(gradient | part)
        if isinstance(getval(gradient), (tuple, list, dict)):  # the function has several results
            return vspace(gradient).add(gradient, part)
        return gradient + part


def _with_dtypes(vjp, fun, arguments):
    """A derivative of autograd's whose gradients have the dtypes of the arguments: many promote float32.

    A gradient of another shape than its argument is refused, as broadcasting would hide the mistake.
    """
    kinds = [(one.shape, one.dtype) if hasattr(one, "dtype") else None for one in arguments]

    def keep(part, kind):
        if kind is None or not hasattr(part, "dtype"):
            return part
        shape, dtype = kind
        if part.shape != shape:
            raise NotImplementedError(
                f"VJP of {fun.__name__} has shape {part.shape} for an argument of shape {shape}"
            )
        return part.astype(dtype) if part.dtype != dtype and part.dtype.kind + dtype.kind == "ff" else part

    return lambda g: tuple(map(keep, vjp(g), kinds))


notrace_primitives[Differentiated] = notrace_primitives[VJPNode]


# ---------------------------------------------------------------- a tape that is not kept


class Parts(dict):
    """The gradients in some of the results of a function, by the number of the result."""


def recomputed(fun, inputs, trace, again):
    """``fun(inputs)``, of which nothing stays on the tape: the backward pass runs `fun` once more, on ``again()``.

    Parameters
    ----------
    fun : callable
        It takes a tree of arrays, and returns a tuple of arrays.
    inputs : tree of ndarray
    trace : int
        The tape that keeps nothing, from `tape_of`.
    again : callable
        ``again()`` returns the inputs in the backward pass. They need not be kept until then.

    Returns
    -------
    tuple of ndarray
    """
    boxes = {path: leaf for path, leaf in tree.items(inputs) if is_on(leaf, trace)}
    if not boxes:
        return fun(inputs)
    kind = type(next(iter(boxes.values()))._node)
    with kind.apart(again=False):
        results = fun(off_tape(inputs, trace))

    def vjp(parts):
        roots = {}

        def box(path, leaf):
            if path not in paths:
                return leaf
            roots[path] = kind.new_root(leaf)
            return new_box(leaf, second, roots[path])

        with kind.apart(again=True):
            inputs = again()
            with trace_stack.new_trace() as second:
                results = fun(tree.build(box, inputs))
            ends = [(results[number], part) for number, part in parts.items()]
            gradients = backward([end for end in ends if is_on(end[0], second)])
        return [gradients.get(roots[path]) for path in paths]

    paths, nodes = list(boxes), [box._node for box in boxes.values()]
    joint = kind.of(nodes, vjp, results[0])
    return tuple(
        new_box(result, trace, kind.of([joint], lambda g, number=number: [Parts({number: g})], result))
        for number, result in enumerate(results)
    )


def tape_of(*values):
    """The latest trace on which one of some trees of arrays is differentiated; None if there is none."""
    boxes = (leaf for _, leaf in tree.items(values) if isbox(leaf) and isinstance(leaf._node, Differentiated))
    return max((box._trace for box in boxes), default=None)


def is_on(leaf, trace):
    """Whether a leaf is a box of a trace."""
    return isbox(leaf) and leaf._trace == trace


def off_tape(values, trace):
    """A tree of arrays without the boxes of a trace."""
    return tree.build(lambda _, leaf: leaf._value if is_on(leaf, trace) else leaf, values)


def derivative(fun, *makers):
    """Give a function of autograd another derivative within npflow; `makers` are as in autograd's `defvjp`."""
    stand_in = functools.wraps(fun)(lambda: None)  # a key of our own in autograd's table
    defvjp(stand_in, *makers)
    DERIVATIVES[fun] = primitive_vjps.pop(stand_in)
