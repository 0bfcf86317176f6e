"""The parameter tree and its one flat vector.

A tree is made of dicts, lists and tuples, with arrays at its leaves. Float leaves are trained; integer and
boolean leaves are constants. `Layout` lays all trained leaves out in one contiguous vector, and the tree's
arrays are views of it. An optimizer is then a few in-place lines on a vector, a checkpoint is one array, and
clipping a gradient is one norm.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from autograd.tracer import getval
from numpy import ndarray

from npflow.errors import InputError, kind_of
from npflow.typing import Params


def items(tree, path=""):
    """The leaves of a tree in order, as pairs of path and leaf; dicts in the order of their keys."""
    if isinstance(tree, dict):
        if not all(isinstance(key, str) and key and "/" not in key for key in tree):
            raise InputError(
                "expected the keys of a parameter dict to be strings, not empty and without a slash, "
                f"got {list(tree)} at {path!r}"
            )
        for key in sorted(tree):
            yield from items(tree[key], _join(path, key))
    elif isinstance(tree, (list, tuple)):
        for index, branch in enumerate(tree):
            yield from items(branch, _join(path, index))
    else:
        yield path, tree


# The kinds that `flattened` has met, by what they stand for.
KINDS, NEW_KIND, MOST_KINDS = {}, itertools.count(), 1000
LARGEST_CONSTANT = 2**16  # bytes


def flattened(tree):
    """The kind of a tree of NumPy's arrays, and its leaves in order, in a fraction of the time of `items`.

    The kind is a number, the same for all trees with the same keys, nesting, shapes, dtypes and values of constants:
    what a check or a program depends on. It is None where a leaf is anything else than an array of NumPy's, or a large
    constant.
    """
    found, leaves = [], []

    try:
        _enter([tree], list, found, leaves)
    except TypeError:  # also of keys that cannot be sorted
        return None, leaves
    if len(KINDS) >= MOST_KINDS:
        KINDS.clear()
    return KINDS.setdefault(tuple(found), next(NEW_KIND)), leaves


def _enter(branch, kind, found, leaves):
    # Not inside `flattened`: a nested function that calls itself is a reference cycle, and would keep the leaves until the
    # garbage collector runs.
    if kind is dict:
        keys = sorted(branch)
        found.extend(keys)
        branch = [branch[key] for key in keys]
    elif kind is not list and kind is not tuple:
        raise TypeError
    found.append(kind)
    for part in branch:
        kind = type(part)
        if kind is np.ndarray:
            dtype = part.dtype
            found.append(part.shape)
            if dtype.kind != "f" and part.nbytes > LARGEST_CONSTANT:
                raise TypeError
            found.append(dtype if dtype.kind == "f" else (dtype, part.tobytes()))
            leaves.append(part)
        else:
            _enter(part, kind, found, leaves)
    found.append(None)


def build(fun, tree, path=""):
    """A tree of the same dicts, lists and tuples, with ``fun(path, leaf)`` in the place of each leaf."""
    if isinstance(tree, dict):
        return {key: build(fun, tree[key], _join(path, key)) for key in sorted(tree)}
    if isinstance(tree, (list, tuple)):
        branches = [build(fun, branch, _join(path, index)) for index, branch in enumerate(tree)]
        return type(tree)(*branches) if hasattr(tree, "_fields") else type(tree)(branches)
    return fun(path, tree)


def is_trained(leaf, path=""):
    """Whether a leaf is trained: float leaves are, integer and boolean leaves are constants."""
    dtype = _array(leaf).dtype
    if dtype.kind not in "fiub":
        raise InputError(
            f"expected arrays of numbers in the parameter tree, got {kind_of(leaf)} of dtype {dtype} at {path!r}"
        )
    return dtype.kind == "f"


def _array(leaf):
    """The leaf itself if it is an array of any kind or a box of autograd's, otherwise NumPy's array of it."""
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _join(path, key):
    return f"{path}/{key}" if path else str(key)


@dataclass(frozen=True)
class Leaf:
    """One leaf: its path, shape and dtype, and where it starts in the vector; -1 for a constant."""

    path: str
    shape: tuple
    dtype: str
    offset: int = -1

    @property
    def size(self):
        return math.prod(self.shape)

    def view(self, vector):
        """The leaf's place in the vector."""
        return vector[self.offset : self.offset + self.size].reshape(self.shape)


class Layout:
    """How the trained leaves of a tree lie in one vector.

    Parameters
    ----------
    tree : tree of ndarray
        All its float leaves have one dtype.

    Attributes
    ----------
    size : int
        The number of trained numbers.
    dtype : dtype
        Their dtype; float64 if there are none.
    leaves : tuple of Leaf
        All leaves in the order of `items`, constants included.
    nesting : tree
        The dicts, lists and tuples, with None at the leaves.

    Raises
    ------
    InputError
        If a leaf is not an array of numbers, or if float leaves have several dtypes.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.autodiff import Layout
    >>> params = {"shift": np.zeros(2), "scale": np.ones(2)}
    >>> layout = Layout(params)
    >>> vector = layout.pack(params)
    >>> vector
    array([1., 1., 0., 0.])
    >>> views = layout.unpack(vector, params)
    >>> vector += 1
    >>> views["shift"]
    array([1., 1.])
    """

    def __init__(self, tree):
        leaves, offset, dtypes, last = [], 0, {}, 0.0
        for path, leaf in items(tree):
            array = last = _array(leaf)
            trained = is_trained(leaf, path)
            leaves.append(Leaf(path, array.shape, str(array.dtype), offset if trained else -1))
            if trained:
                offset += array.size
                dtypes.setdefault(array.dtype, path)
        if len(dtypes) > 1:
            found = ", ".join(f"{dtype} at {path!r}" for dtype, path in dtypes.items())
            raise InputError(f"expected the float leaves of the parameter tree in one dtype, got {found}")
        self.leaves, self.size = tuple(leaves), offset
        self.nesting = build(lambda path, leaf: None, tree)
        self.dtype = next(iter(dtypes), np.dtype(np.float64))
        # An empty vector on the device of the tree's arrays: `pack` makes its vector like it.
        self.blank = np.empty_like(getval(last), self.dtype, shape=(0,))

    def pack(self, tree: Params, out: ndarray | None = None) -> ndarray:
        """Write the trained leaves of a tree of this layout into one vector.

        Parameters
        ----------
        tree : tree of ndarray
            None counts as zeros, so that a gradient may have None for a leaf without influence.
        out : ndarray, shape (size,), optional
            Where to write them; by default a new vector.

        Returns
        -------
        ndarray, shape (size,)

        Raises
        ------
        InputError
            If a leaf has another shape.
        """
        vector = np.empty_like(self.blank, shape=(self.size,)) if out is None else out
        for leaf, (_, value) in zip(self.leaves, items(tree), strict=True):
            if leaf.offset >= 0:
                if value is not None and np.shape(value) != leaf.shape:
                    raise InputError(
                        f"expected an array of shape {leaf.shape} at {leaf.path!r}, "
                        f"got shape {np.shape(value)}"
                    )
                leaf.view(vector)[...] = 0 if value is None else value
        return vector

    def unpack(self, vector: ndarray, tree: Params) -> Params:
        """Take a vector apart.

        Parameters
        ----------
        vector : ndarray, shape (size,)
        tree : tree of ndarray
            Its constants are taken.

        Returns
        -------
        tree of ndarray
            Like `tree`; its trained leaves are views of `vector`.

        Raises
        ------
        InputError
            If the vector has another size.
        """
        if vector.shape != (self.size,):
            raise InputError(f"expected a vector of {self.size} numbers, got shape {vector.shape}")
        leaves = iter(self.leaves)

        def view(path, value):
            leaf = next(leaves)
            return value if leaf.offset < 0 else leaf.view(vector)

        return build(view, tree)

    def locate(self, index):
        """Return the path of the leaf that holds a number of the vector.

        Parameters
        ----------
        index : int

        Returns
        -------
        str
        """
        trained = (leaf for leaf in self.leaves if leaf.offset >= 0)
        return next(leaf.path for leaf in trained if leaf.offset <= index < leaf.offset + leaf.size)

    def difference(self, other):
        """A sentence on the first place where `other` differs from this layout, or None; not on dtypes."""
        mine, theirs = ({leaf.path: leaf for leaf in layout.leaves} for layout in (self, other))
        for path, leaf in mine.items():
            if path not in theirs:
                return f"expected an array of shape {leaf.shape} at {path!r}, got none"
            if theirs[path].shape != leaf.shape:
                return f"expected an array of shape {leaf.shape} at {path!r}, got shape {theirs[path].shape}"
            if (theirs[path].offset < 0) != (leaf.offset < 0):
                return f"expected {leaf.dtype} at {path!r}, got {theirs[path].dtype}"
        extra = next((path for path in theirs if path not in mine), None)
        if extra is not None:
            return f"expected no array at {extra!r}, got one of shape {theirs[extra].shape}"
        if self.nesting != other.nesting:
            return "expected the same dicts, lists and tuples around the arrays, got others"
        return None
