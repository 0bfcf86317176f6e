"""Where in the code a value is made: the layer, the statement, and the line.

Names in a program come from the code that was recorded: ``h = activation(dense(h, ...))``, run by the network
of the coupling that is layer 3 of a chain, makes ``layer03_coupling_h1``. Python's stack tells the statement.
It tells the layer too: functions marked with `follows_steps` apply the steps of a composite layer, and have
the step in their variable `step`.
"""

import ast
import functools
import importlib.util
import inspect
import itertools
import linecache
import re
import sys
from pathlib import Path

import autograd

from npflow.autodiff.gpu.devices import DEVICES
from npflow.autodiff.program.tape import Place

# The folders of npflow/autodiff, autograd, NumPy and SciPy: values are not named after their code.
HIDDEN = (
    Path(__file__).parents[1],
    Path(autograd.__file__).parent,
    *(Path(importlib.util.find_spec(name).origin).parent for name in ("numpy", "scipy")),
)

FOLLOWERS = set()  # the code of functions that apply the steps of composite layers
RETURNED = {"forward": ("z", "log_det"), "inverse": ("x", "log_det")}  # what a layer's methods return


def follows_steps(function):
    """Mark a function that applies the steps of a composite layer; its variable `step` is the current one."""
    FOLLOWERS.add(function.__code__)
    return function


@functools.cache
def is_code(filename):
    """Whether values may be named after the code of a file."""
    hidden = [Path(path).as_posix() + "/" for path in HIDDEN]
    hidden += [folder for device in tuple(DEVICES.values()) for folder in device.files]
    return not Path(filename).as_posix().startswith(tuple(hidden))


def frames_of_code(last):
    """The running frames of code that is recorded, the innermost first, up to the one that runs `last`."""
    frame = sys._getframe(1)
    while frame is not None and frame.f_code is not last:
        if is_code(frame.f_code.co_filename):
            yield frame
        frame = frame.f_back


def spot_of(frames):
    """The file and line number of the innermost of the frames; None if there is none."""
    return next(((frame.f_code.co_filename, frame.f_lineno) for frame in frames), None)


def line_at(spot):
    """A line as text: file, number and code."""
    if spot is None:
        return "an unknown line"
    filename, line = spot
    return f"{filename}:{line} ({linecache.getline(filename, line).strip()})"


def line_of(method, last=True):
    """The last line of a method as text, where it returns its result; or its first."""
    code = getattr(inspect.unwrap(getattr(method, "__func__", method)), "__code__", None)
    if code is None:
        return "an unknown line"
    line = max(line for _, _, line in code.co_lines() if line is not None) if last else code.co_firstlineno
    while linecache.getline(code.co_filename, line).lstrip().startswith("@"):  # a decorator
        line += 1
    return line_at((code.co_filename, _statements(code.co_filename).get(line, (line,))[0]))


def line_of_class(kind):
    """The first line of a class, as text."""
    try:
        return line_at((inspect.getsourcefile(kind), inspect.findsource(kind)[1] + 1))
    except (OSError, TypeError):
        return "an unknown line"


def place_of_layer(frames):
    """The path of the innermost layer or prior that runs in `frames`, the outermost first, and its class."""
    path, owner, flow = [], None, None
    for frame, inner in itertools.zip_longest(frames, frames[1:]):
        variables, code = frame.f_locals, frame.f_code
        step = variables.get("step") if code in FOLLOWERS else None
        mine = variables.get(code.co_varnames[0]) if code.co_argcount else None
        if step is not None and not (inner and inner.f_code.co_name == "steps"):
            path += [str(step.name)] * (step.name is not None)
            owner = step.layer
        elif hasattr(mine, "layer") and hasattr(mine, "prior"):
            flow = mine
        elif flow is not None and not path and (mine is flow.layer or mine is flow.prior):
            path, owner = ["layer" if mine is flow.layer else "prior"], mine
    return f"{'/'.join(path)} ({type(owner).__name__})" if path else ""


def place_of(frames, visits):
    """The Place of a value that is made in the innermost of the frames, a list.

    `visits` is a dict that a recording keeps. It holds the last position of each frame, and tells a statement
    that runs again, in a loop, from one that continues.
    """
    if not frames:
        return Place()
    inner = frames[0]
    prefix, title = _owner(frames)
    first, names, _ = _statement(inner)
    names = names or (_returned(frames) or inner.f_code.co_name.strip("_<>"),)
    statement, instruction, count = visits.get(inner, (first, -1, 0))
    if statement != first or inner.f_lasti < instruction:
        count += 1
    visits[inner] = (first, inner.f_lasti, count)
    return Place(prefix, title, names, (prefix, id(inner), first, count, names))


def _returned(frames):
    """What a layer's method returns at this point, such as ``log_det``; None if it is in no such `return`.

    If the method is at ``return z, total(log_scale)``, the value may be made in the `return` of ``total``.
    """
    for frame in frames:
        words, (_, _, parts) = RETURNED.get(frame.f_code.co_name, ()), _statement(frame)
        start, end = _positions(frame.f_code)[frame.f_lasti // 2]
        part = next((one for one in parts if one[0] <= start and end <= one[1]), None)
        as_it_is = frame is frames[0] or part == (start, end)  # the result of the call is what is returned
        if part is None or not as_it_is or len(parts) not in (1, len(words)):
            return None
        if len(parts) == len(words):
            return words[parts.index(part)]
    return None


def _statement(frame):
    """The statement that a frame is at; see `_statements`."""
    return _statements(frame.f_code.co_filename).get(frame.f_lineno, (frame.f_lineno, (), ()))


@functools.lru_cache(maxsize=1024)
def _positions(code):
    """Where in the source each instruction starts and ends: pairs of line and column, 0 where unknown."""
    positions = ([number or 0 for number in numbers] for numbers in code.co_positions())
    return [((line, column), (end_line, end_column)) for line, end_line, column, end_column in positions]


def _owner(frames):
    """The prefix of a value's name, and its layer as text, from the steps and the objects that run."""
    path, title, parent, parent_locals = [], "", None, {}
    inward = list(reversed(frames))
    for frame, inner in itertools.zip_longest(inward, inward[1:]):
        variables = frame.f_locals
        if frame.f_code in FOLLOWERS:
            step, in_steps = variables.get("step"), inner and inner.f_code.co_name == "steps"
            if step is not None and not in_steps:  # `steps` computes for the composite itself
                path += _words(step.name, step.layer)
                title, parent, parent_locals = _title(path, step.layer), step.layer, {}
        elif frame.f_code.co_argcount and frame.f_code.co_varnames[0] == "self":
            owner = variables["self"]
            if owner is not parent:
                path += _label(parent, parent_locals, owner, variables)
                is_prior = hasattr(owner, "log_prob") and parent is not None
                is_layer = hasattr(owner, "inverse") and getattr(parent, "transformer", None) is not owner
                title = _title(path, owner) if is_prior or is_layer else title
            parent, parent_locals = owner, variables
    return "_".join(path), title


def _title(path, owner):
    """A layer or a prior as text: its words and its code."""
    code = " ".join(repr(owner).split())
    return f"{' '.join(path)}: {code}" if path else code


def _words(name, layer):
    """The words that a step of a composite layer adds to names."""
    if name is None:
        return [] if hasattr(layer, "steps") else [_word(layer)]
    return [f"layer{name:02d}", _word(layer)] if isinstance(name, int) else [str(name)]


def _label(parent, variables, child, child_variables):
    """The words that an object in a field of another adds to names: the field, if it says more."""
    fields = [field for field, value in getattr(parent, "__dict__", {}).items() if value is child]
    if len(fields) > 1:  # one network in two fields: its parameters tell which
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
    """The statement at each line of a file: its first line, its variables, the spans of what it returns."""
    try:
        module = ast.parse("".join(linecache.getlines(filename)))
    except SyntaxError:
        return {}
    lines = {}
    for node in ast.walk(module):  # outer statements come before inner ones
        if isinstance(node, ast.stmt):
            returned = node.value if isinstance(node, ast.Return) else None
            parts = returned.elts if isinstance(returned, ast.Tuple) else [returned] if returned else []
            spans = [((one.lineno, one.col_offset), (one.end_lineno, one.end_col_offset)) for one in parts]
            statement = (node.lineno, tuple(_targets(node)), spans)
            lines.update(dict.fromkeys(range(node.lineno, node.end_lineno + 1), statement))
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
