"""Where in the code a value is made: the layers that are running, the statement, and the user's line.

Names in a program come from the code that was recorded: `h = activation(dense(h, ...))`, run by the network of the
coupling that is layer 3 of a chain, makes ``layer03_coupling_h1``. The statement is read off Python's stack. So is the
layer: a function that `follows_steps` of a composite layer has the step that it applies in its variable `step`.
"""

import ast
import functools
import importlib.util
import itertools
import linecache
import re
import sys
from pathlib import Path

import autograd

from npflow.autodiff.gpu.devices import DEVICES
from npflow.autodiff.program.tape import Place

# The machinery's own files: npflow/autodiff, autograd, and what may call back from below.
HIDDEN = (
    Path(__file__).parents[1],
    Path(autograd.__file__).parent,
    *(Path(importlib.util.find_spec(name).origin).parent for name in ("numpy", "scipy")),
)

FOLLOWERS = set()  # the code of functions that apply the steps of composite layers
RETURNED = {"forward": ("z", "log_det"), "inverse": ("x", "log_det")}  # by a layer's methods


def follows_steps(function):
    """Mark a function that applies the steps of a composite layer: its variable `step` is the one it is at."""
    FOLLOWERS.add(function.__code__)
    return function


@functools.cache
def is_code(filename):
    """Whether a file holds code that is recorded, not what records it or computes."""
    hidden = [Path(path).as_posix() + "/" for path in HIDDEN]
    hidden += [start for device in tuple(DEVICES.values()) for start in device.files]
    return not Path(filename).as_posix().startswith(tuple(hidden))


def frames_of_code(last):
    """The running frames outside the machinery, the innermost first, as far as the code object `last`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not last:
        if is_code(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def spot_of(frames):
    """The file and the number of the line that the innermost of the frames is at, if there is one."""
    return next(((frame.f_code.co_filename, frame.f_lineno) for frame in frames), None)


def line_at(spot):
    """A line as text: file, number and code."""
    if spot is None:
        return "an unknown line"
    filename, line = spot
    return f"{filename}:{line} ({linecache.getline(filename, line).strip()})"


def place_of(frames, visits):
    """The Place of a value that is made in the innermost of the frames, a list.

    `visits` is a dict that a recording keeps: it holds where each frame was, so that a statement that is
    reached again, in a loop, is known from one that goes on.
    """
    if not frames:
        return Place()
    inner = frames[0]
    prefix, title = _owner(frames)
    line = inner.f_lineno
    first, names, parts = _statements(inner.f_code.co_filename).get(line, (line, (), ()))
    names = names or (_returned(inner, parts) or inner.f_code.co_name.strip("_<>"),)
    statement, instruction, count = visits.get(inner, (first, -1, 0))
    if statement != first or inner.f_lasti < instruction:
        count += 1
    visits[inner] = (first, inner.f_lasti, count)
    return Place(prefix, title, names, (prefix, id(inner), first, count, names))


def _returned(frame, parts):
    """What is returned in the part of a `return` that a frame is at, by the contract of a layer; or None."""
    words = RETURNED.get(frame.f_code.co_name, ())
    line, _, column, _ = _positions(frame.f_code)[frame.f_lasti // 2]
    if len(words) != len(parts) or line is None or column is None:
        return None
    return next((word for word, (start, end) in zip(words, parts) if start <= (line, column) < end), None)


@functools.lru_cache(maxsize=1024)
def _positions(code):
    """For each instruction, where in the source it is: line, last line, column, last column."""
    return list(code.co_positions())


def _owner(frames):
    """The start of a name, and the layer as text: the steps that are being applied, and who computes inside them."""
    path, layer, parent, parent_locals = [], None, None, {}
    outward = list(reversed(frames))
    for frame, inner in itertools.zip_longest(outward, outward[1:]):
        variables = frame.f_locals
        if frame.f_code in FOLLOWERS:
            step = variables.get("step")
            if step is not None and not (inner and inner.f_code.co_name == "steps"):  # the composite itself
                path += _words(step.name, step.layer)
                layer = (path.copy(), step.layer)
                parent, parent_locals = step.layer, {}
        elif frame.f_code.co_argcount and frame.f_code.co_varnames[0] == "self":
            owner = variables["self"]
            if owner is not parent:
                path += _label(parent, parent_locals, owner, variables)
                if (hasattr(owner, "log_prob") and parent is not None) or (
                    hasattr(owner, "inverse") and getattr(parent, "transformer", None) is not owner
                ):  # a prior
                    layer = (path.copy(), owner)
            parent, parent_locals = owner, variables
    if layer is None:
        return "_".join(path), ""
    words, code = " ".join(layer[0]), " ".join(repr(layer[1]).split())
    return "_".join(path), f"{words}: {code}" if words else code


def _words(name, layer):
    """What the step of a composite layer adds to the names."""
    if name is None:
        return [] if hasattr(layer, "steps") else [_word(layer)]
    return [f"layer{name:02d}", _word(layer)] if isinstance(name, int) else [str(name)]


def _label(parent, variables, child, child_variables):
    """What an object that computes for another adds to the names: the name of its field, where it says more."""
    fields = [field for field, value in getattr(parent, "__dict__", {}).items() if value is child]
    if len(fields) > 1:  # one network in two fields: the one whose parameters it has
        params, mine = variables.get("params"), child_variables.get("params")
        named = isinstance(params, dict) and mine is not None
        fields = [field for field in fields if named and params.get(field) is mine] or fields
    if not fields or fields[0] in ("network", "transformer"):
        return []
    return _words(None, child) if fields[0] == "layer" else [fields[0]]


def _word(owner):
    """The last word of a class's name: AffineCoupling is a coupling."""
    return re.findall(r"[A-Z]?[^A-Z]+|[A-Z]+", type(owner).__name__)[-1].lower()


@functools.lru_cache(maxsize=256)
def _statements(filename):
    """For each line of a file, of its innermost statement: its first line, the variables that it assigns, and
    where the parts of the tuple that it returns start and end.
    """
    try:
        module = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return {}
    lines = {}
    for node in ast.walk(module):  # outer statements come before inner ones
        if isinstance(node, ast.stmt):
            names, tuple_ = tuple(_targets(node)), getattr(node, "value", None)
            returns = isinstance(node, ast.Return) and isinstance(tuple_, ast.Tuple)
            parts = [
                ((part.lineno, part.col_offset), (part.end_lineno, part.end_col_offset))
                for part in (tuple_.elts if returns else ())
            ]
            for line in range(node.lineno, node.end_lineno + 1):
                lines[line] = (node.lineno, names, parts)
    return lines


def _targets(statement):
    """The variables that a statement assigns, in order."""
    targets = getattr(statement, "targets", [getattr(statement, "target", None)])
    if not isinstance(statement, (ast.Assign, ast.AugAssign, ast.AnnAssign)) or len(targets) != 1:
        return
    parts = targets[0].elts if isinstance(targets[0], (ast.Tuple, ast.List)) else targets
    for part in parts:
        if isinstance(part, ast.Name):
            yield part.id
        elif isinstance(part, ast.Attribute):
            yield part.attr
