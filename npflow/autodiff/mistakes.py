"""Explain an error in a user's layer, network or prior: name the mistake, its line, and the layer."""

import inspect
import os
import re
import sysconfig
import traceback
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from autograd.tracer import notrace_primitives

from npflow.autodiff import tree
from npflow.autodiff.gradient import Differentiated, value_and_grad
from npflow.autodiff.program import frames
from npflow.autodiff.program.refusals import IN_PLACE, NUMPY, READING
from npflow.errors import InputError, kind_of


class NotAPair(TypeError):
    """A `method` of a layer, forward or inverse, has not returned an array and its log-det."""

    def __init__(self, method, result):
        super().__init__(not_a_pair(method.__name__, kind_of(result), method))
        self.owner = getattr(method, "__self__", None)


# Messages of Python, NumPy and autograd, and what each says about a layer.
MISTAKES = (
    (
        r"\bout=\(|argument 'out'|read-only|item assignment|sequence\.|Cannot cast ufunc '\w+' output",
        IN_PLACE,
    ),
    (r"no callable \w+ method|dtype object|from dtype\('O'\)", NUMPY),
    (r"NotImplemented from __array_ufunc__\(<ufunc '(\w+)'", NUMPY + r": \1"),
    (r"not '?ArrayBox|'ArrayBox' object cannot be|ArrayBox doesn't define|to ArrayBox\.__format__", READING),
    (r"attribute '(?:item|tolist)'|converted to Python scalars|valid indices|truth value of an", READING),
    (
        r"'(?:numpy\.\w+|ArrayBox)' object has no attribute '(\w+)'",
        r"expected functions of autograd.numpy, got the attribute '\1' of an array",
    ),
    (
        r"VJP of (\S+) has shape (.*)",
        r"expected a derivative of \1 that has the shape of its argument, got one of shape \2",
    ),
    (
        r"(?:VJP|[Gg]radient) of (\S+)",
        r"expected functions that autograd has a derivative of, got \1: compose it of others, or define one",
    ),
    (
        r"(\w+) made (float\d+) of (float\d+)",
        r"expected \3 throughout, got \2 from \1: make new arrays like x, such as np.ones_like(x, shape=len(x)); a NumPy "
        "scalar, such as np.log(2.0), is float64 too: float() of it is not",
    ),
    (r"KeyError: (.*)", r"expected a key of the parameters that init returned, got \1"),
    (
        r"Error: (.*(?:core dimension|not aligned|be broadcast|match exactly|cannot reshape).*)",
        r"expected arrays whose shapes fit, got \1",
    ),
)
# The types of errors that are explained; not their subclasses, such as `InputError`.
KINDS = {AttributeError, IndexError, KeyError, NameError, NotImplementedError, TypeError, UnboundLocalError}
KINDS |= {ValueError, ZeroDivisionError, NotAPair}

PACKAGE = os.path.join(Path(__file__).parents[1], "")  # noqa: PTH118 (with a separator at its end)
LAYERS = os.path.join(PACKAGE, "layers", "")  # noqa: PTH118
STDLIB, INSTALLED = (os.path.join(sysconfig.get_path(name), "") for name in ("stdlib", "purelib"))  # noqa: PTH118


@contextmanager
def explaining():
    """A context that raises what `explain` returns in place of an error in the user's code."""
    try:
        yield
    except Exception as error:
        named = explain(error)
        if named is error:
            raise
        raise named from error


def explain(error, line=None):
    """The error to raise in place of one from inside a layer: it names the mistake, its line, and the layer's path.

    An error that the user's code raises itself, or that does not pass through it, is returned as it is. `line` is
    the line of a derivative, during which none of the user's code runs.
    """
    kind = type(error)
    if kind not in KINDS and not kind.__module__.startswith(("numpy._core", "numpy.exceptions")):
        return error
    trace = list(traceback.walk_tb(error.__traceback__))
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    place = frames.place_of_layer([frame for frame, _ in trace])
    if isinstance(error, NotAPair):
        owner, sentence = error.owner, str(error)
    else:
        owner, sentence = of_contract(text, trace[-1][0])
    if sentence:
        return InputError(sentence, place or place_in_flow(owner, [frame for frame, _ in trace]))
    own = [spot for spot in map(spot_of, trace) if is_users(spot[0])]
    if not own:  # a layer of npflow's cannot use what a user's method returned
        own = [spot for spot in map(spot_of, trace) if spot[0].startswith(LAYERS)]
    if own:
        line = frames.line_at(own[-1])
        if own[-1] == spot_of(trace[-1]) and re.search(r"\((.*[:;]\s*)?(raise|assert)\b", line):
            return error
    if line is None:
        return error
    for pattern, sentence in MISTAKES:
        found = re.search(pattern, text)
        if found:
            return InputError(f"{found.expand(sentence)}, at {line}", place)
    return InputError(f"expected code that runs, got {text}, at {line}", place) if own else error


class Watched(Differentiated):
    """A node of a tape on which no result may have another dtype than its arguments."""

    __slots__ = []

    def __init__(self, value, fun, args, kwargs, argnums, parents):
        super().__init__(value, fun, args, kwargs, argnums, parents)
        # np.split makes a list of arrays.
        made, given = (
            np.result_type(*(one if isinstance(one, (list, tuple)) else (one,)))
            for one in (value, args[argnums[0]])
        )
        if made != given and made.kind + given.kind == "ff":
            raise TypeError(f"{fun.__name__} made {made} of {given}")


notrace_primitives[Watched] = notrace_primitives[Differentiated]


def find_promotion(fun, params, x):
    """Raise an `InputError` with the line where ``fun(params, x)`` leaves the dtype of x, if there is one."""
    with explaining():
        value_and_grad(lambda both: [fun(*both), 0.0][1], Watched)((params, x))


def read_only(arrays):
    """A tree of read-only views of arrays: a method that changes its input in place fails, and is named."""

    def view(_, leaf):
        if type(leaf) is not np.ndarray:
            return leaf
        leaf = leaf.view()
        leaf.flags.writeable = False
        return leaf

    return tree.build(view, arrays)


def is_users(filename):
    """Whether a file is not part of npflow, autograd, NumPy, SciPy or Python's standard library."""
    if filename.startswith((PACKAGE, "<frozen")) or not frames.is_code(filename):
        return False
    return filename.startswith(INSTALLED) or not filename.startswith(STDLIB)


def spot_of(entry):
    """The file and line number of an entry of a traceback."""
    frame, line = entry
    return frame.f_code.co_filename, line


def of_contract(text, frame):
    """An object, and a sentence on its method that is missing, or takes other arguments than the contract says.

    Python's message has the name of the method alone, and the call has not begun: no frame is the method's own. So the
    object is looked for among the variables of `frame`, that of the caller, where the error was raised. Calls that
    check their arguments first would need no such search, and would stand in the way from `fit` to a layer.
    """
    if text == "NotImplementedError: " and frame.f_code.co_filename.startswith(PACKAGE):  # of a base class
        owner, name = frame.f_locals.get("self"), frame.f_code.co_name
        kind = type(owner)
        return owner, f"expected {kind.__name__} to define {name}, got none, at {frames.line_of_class(kind)}"
    called = re.search(r"TypeError: (\S+)\(\) ((?:takes|missing|got an unexpected keyword).*)", text)
    name = called[1].rpartition(".")[2] if called else None
    for owner in owners(frame) if called else ():
        method = getattr(owner, name, None)
        if getattr(method, "__qualname__", None) == called[1]:
            contract = next(vars(base)[name] for base in reversed(type(owner).__mro__) if name in vars(base))
            return owner, (
                f"expected {name}{_bare_signature(contract)}, got {called[1]}() {called[2]}, "
                f"at {frames.line_of(method, last=False)}"
            )
    return None, None


def _bare_signature(function):
    """A signature without annotations, as a reader's own layer has it."""
    signature = inspect.signature(function)
    bare = [one.replace(annotation=one.empty) for one in signature.parameters.values()]
    return signature.replace(parameters=bare, return_annotation=signature.empty)


def place_in_flow(owner, stack):
    """The place of an object that is the layer or the prior of a flow, one of whose methods is on the stack."""
    flows = [frame.f_locals.get("self") for frame in stack]
    for part in ("layer", "prior"):
        if owner is not None and any(getattr(flow, part, None) is owner for flow in flows):
            return f"{part} ({type(owner).__name__})"
    return ""


def pair_of(method, result):
    """The array and the log-det that a direction of a layer returned; `NotAPair` if it returned anything else."""
    if is_pair(result):
        return result
    raise NotAPair(method, result)


def is_pair(result):
    """Whether a result is a tuple or list of two; an array of two rows is none, although Python would unpack it."""
    return isinstance(result, (tuple, list)) and len(result) == 2


def not_a_pair(direction, got, method):
    """The sentence on a direction of a layer that does not return two arrays."""
    return f"expected {direction} to return a pair, array and log_det, got {got}, at {frames.line_of(method)}"


def owners(frame):
    """The objects in the variables of a frame, and in their fields."""
    for value in frame.f_locals.values():
        yield value
        yield from value if isinstance(value, tuple) else getattr(value, "__dict__", {}).values()
