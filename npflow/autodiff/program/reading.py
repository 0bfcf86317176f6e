"""A program as text to read: each line with its place, its formula, and the value that it computes."""

import ast
import re
import sys
from typing import NamedTuple

import numpy as np

from npflow.autodiff.gpu.devices import is_array, to_host
from npflow.errors import InputError

LONG = 96  # letters: in a longer formula, what other lines compute goes by its name
SHORT = 24  # letters: under a bar, a longer expression goes by its name

SUM, PRODUCT, MATRIX, ATOM = range(4)  # how tightly an expression holds together
OPERATORS = {  # the sign, how tightly it holds, and what its operands need
    "add": ("+", SUM, SUM, SUM),
    "subtract": ("-", SUM, SUM, PRODUCT),
    "multiply": ("*", PRODUCT, PRODUCT, PRODUCT),
    "divide": ("/", PRODUCT, PRODUCT, MATRIX),
    "true_divide": ("/", PRODUCT, PRODUCT, MATRIX),
    "power": ("^", MATRIX, ATOM, ATOM),
}
COMPARISONS = {"greater": ">", "greater_equal": ">=", "less": "<", "less_equal": "<=", "equal": "=="}
SHORTER = {"maximum": "max", "minimum": "min", "absolute": "abs"}


class Line(NamedTuple):
    """A line of a program.

    Attributes
    ----------
    text : str
        The line in the source; a long one that is wrapped there is one line here.
    name : str or None
        The value that it computes or reads; None where there are several, or none.
    part : {"constants", "forward", "backward"}
    section : str
        The layer that it belongs to.
    formula : str
        In the style of the layers' docstrings: ``a * b`` is a product element by element, ``a b`` a product
        of matrices, ``bar{h}`` the gradient of the result in h. Empty where the line only reads or names.
    """

    text: str
    name: str | None
    part: str
    section: str
    formula: str = ""


def lines_of(program):
    """The lines of a program, without empty ones.

    Parameters
    ----------
    program : Program

    Returns
    -------
    list of Line

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from npflow.autodiff import record
    >>> from npflow.autodiff.program.reading import lines_of
    >>> loss = lambda params, x: np.sum(np.exp(params["scale"]) * x)
    >>> program = record(loss, {"scale": np.zeros(2)}, np.ones((3, 2)))
    >>> [line.formula for line in lines_of(program) if line.part == "forward" and line.formula]
    ['exp(scale)', 'exp(scale) * x', 'loss = sum(exp(scale) * x)']
    """
    lines, part, section, open_line = [], "constants", "", ""
    for text in program.source.splitlines():
        stripped = text.strip()
        if open_line:
            open_line += ("" if open_line.endswith("(") or stripped.startswith(")") else " ") + stripped
            if not stripped.startswith(")"):
                continue
            stripped, open_line = open_line, ""
        elif stripped.endswith("("):
            open_line = stripped
            continue
        if stripped.startswith("def "):
            part, section = stripped[4:].split("(")[0], ""
        elif stripped.startswith("# ----"):
            section = stripped.removeprefix("# ----").strip()
        elif stripped and not stripped.startswith(("#", "import ", '"""')):
            name, equals, _ = stripped.partition(" = ")
            lines.append(Line(stripped, name if equals and name.isidentifier() else None, part, section))
    formulas = Formulas(lines)
    return [line._replace(formula=formulas.of(line)) for line in lines]


def values_of(program, params, *args):
    """Run a program, and keep the value of each name in its source.

    Parameters
    ----------
    program : Program
        Recorded with ``reuse=False``, so that no value is written over.
    params : tree of ndarray
    *args : tree of ndarray
        As for ``program(params, *args)``.

    Returns
    -------
    dict
        The arrays and numbers of both passes and the constants by their names, on the host.

    Raises
    ------
    InputError
        If the program writes over values, or the arguments are not those that it was recorded for.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from npflow.autodiff import record
    >>> from npflow.autodiff.program.reading import values_of
    >>> loss = lambda params, x: np.sum(np.exp(params["scale"]) * x)
    >>> params, x = {"scale": np.zeros(2)}, np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> values_of(record(loss, params, x, reuse=False), params, x)["grad_scale"]
    array([4., 6.])
    """
    if program.peak_bytes < program.bytes_without_reuse:
        raise InputError(
            f"expected a program recorded with reuse=False, got {program!r}, which writes over values"
        )
    parameters, data = program.read(params, *args)
    with program.workspace() as workspace, np.errstate(all="ignore"):
        if program.with_gradient:
            (_, saved), found = _with_locals(program.forward, parameters, data, workspace)
            gradient = program.new_gradient().leaves
            _, more = _with_locals(program.backward, parameters, data, saved, workspace, gradient)
        else:
            (_, found), more = _with_locals(program.forward, parameters, data, workspace), {}
        constants = program.forward.__globals__
        numbers = lambda value: is_array(value) or isinstance(value, np.generic)
        return {
            name: np.array(to_host(value))
            for name, value in (constants | found | more).items()
            if numbers(value)
        }


def _with_locals(function, *args):
    """What a function returns, and its variables as it returns."""
    found, before = {}, sys.getprofile()

    def note(frame, event, _):
        if event == "return" and frame.f_code is function.__code__:
            found.update(frame.f_locals)

    sys.setprofile(note)
    try:
        return function(*args), found
    finally:
        sys.setprofile(before)


# ---------------------------------------------------------------- formulas


class Formulas:
    """Formulas of the lines of one program.

    A value that is only a step on the way to another one, such as h_dot on the way to h, is written out in
    the formula of the other.
    """

    def __init__(self, lines):
        self.made = {}  # the expression of each name, and its section
        self.constants = {line.name: line for line in lines if line.part == "constants"}
        ahead = [line for line in lines if line.part != "constants" and line.name]
        for line in ahead:
            if not _is_read(line):
                self.made.setdefault(line.name, ast.parse(line.text).body[0].value)
        self.sections = {_prefix(line.section) for line in lines if line.section} - {""}
        names = {line.part: [] for line in lines}
        for line in ahead:
            names[line.part].append(line.name)
        self.steps = {name for name in self.made if name.startswith("vjp_")}
        forward = [name for name in names.get("forward", ()) if name in self.made]
        for number, name in enumerate(forward):
            later = {other.lstrip("_") for other in forward[number:]}  # _lambda is a keyword made a name
            parents = (name[:at] for at, letter in enumerate(name) if letter == "_")
            if not later.isdisjoint(parents):
                self.steps.add(name)

    def of(self, line):
        """The formula of a line; empty where it has none."""
        if line.part == "constants" or _is_read(line):
            return ""
        expression = ast.parse(line.text).body[0]
        if not isinstance(expression, ast.Assign) or not line.name:
            return ""
        texts = []
        for whole in (True, False):
            text, _ = Writer(self, line, whole).write(expression.value)
            left = "" if line.name in self.steps else f"{Writer(self, line, whole).name(line.name)} = "
            texts.append(left + text)
        return texts[0] if len(texts[0]) <= LONG else texts[1]


class Writer:
    """Writes the expression of one line; ``whole`` with the steps on the way written out."""

    def __init__(self, formulas, line, whole):
        self.formulas, self.line, self.whole = formulas, line, whole

    def write(self, node):
        """An expression as text, and how tightly it holds together."""
        if isinstance(node, ast.Name):
            if self.whole and node.id in self.formulas.steps and node.id != self.line.name:
                return self.write(self.formulas.made[node.id])
            return self.name(node.id), ATOM
        if isinstance(node, ast.Attribute) and node.attr == "T":
            return f"{self.at(node.value, ATOM)}^T", ATOM
        if isinstance(node, ast.Tuple):
            return f"({', '.join(self.write(one)[0] for one in node.elts)})", ATOM
        if isinstance(node, ast.Subscript):
            return f"{self.at(node.value, ATOM)}[{ast.unparse(node.slice).strip('()')}]", ATOM
        if isinstance(node, ast.Call):
            return self.call(node)
        text = ast.unparse(node)
        return number(text) or text, ATOM if number(text) else SUM

    def at(self, node, least):
        """An expression, in parentheses where it would fall apart."""
        text, holds = self.write(node)
        return text if holds >= least else f"({text})"

    def call(self, node):
        """A call of NumPy's, or of a method of an array."""
        function, arguments = node.func, list(node.args)
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "call")
        if isinstance(function, ast.Attribute) and ast.unparse(function.value).split(".")[0] not in (
            "np",
            "cupy",
        ):
            arguments.insert(0, function.value)  # a method
        first, *rest = arguments
        if name in OPERATORS and len(arguments) == 2:
            sign, holds, left, right = OPERATORS[name]
            gap = "" if sign == "^" else " "
            return f"{self.at(first, left)}{gap}{sign}{gap}{self.at(rest[0], right)}", holds
        if name in COMPARISONS and len(arguments) == 2:
            return f"({self.at(first, SUM)} {COMPARISONS[name]} {self.at(rest[0], SUM)})", ATOM
        if name in ("dot", "matmul") and len(arguments) == 2:
            ones = [isinstance(one, ast.Name) and one.id.startswith("ones_") for one in arguments]
            if any(ones):  # a sum as a product, which is faster
                return f"sum({self.write(arguments[ones.index(False)] if not all(ones) else first)[0]})", ATOM
            return f"{self.at(first, MATRIX)} {self.at(rest[0], MATRIX)}", MATRIX
        if name == "negative":
            return f"-{self.at(first, PRODUCT)}", PRODUCT
        if name == "square":
            return f"{self.at(first, ATOM)}^2", ATOM
        if name in ("reshape", "astype", "broadcast_to", "array"):  # the same numbers
            return self.write(first)
        if name == "concatenate":
            return self.write(first)
        if name == "take":
            return f"{self.at(first, ATOM)}[{self.write(rest[0])[0]}]", ATOM
        if name == "where" and len(arguments) == 3:
            chosen, other = (self.at(one, PRODUCT) for one in rest)
            return f"({chosen} where {self.write(first)[0]}, else {other})", ATOM
        if name in ("sum", "mean", "prod", "max", "min"):  # over an axis, or all
            return f"{name}({self.write(first)[0]})", ATOM
        return f"{SHORTER.get(name, name)}({', '.join(self.write(one)[0] for one in arguments)})", ATOM

    def name(self, name):
        """A name as a formula has it: a constant, a gradient, or a value of the forward pass."""
        if name in self.formulas.constants:
            return self.constant(name)
        if name.startswith("grad_"):
            what = name.removeprefix("grad_")
            what = what if what in self.formulas.made else re.sub(r"_\d+$", "", what)
            if what in self.formulas.steps and self.whole:
                text, _ = self.write(self.formulas.made[what])
                if len(text) <= SHORT:
                    return f"bar{{{text}}}"
            return f"bar{{{self.plain(what)}}}"
        return self.plain(name)

    def plain(self, name):
        """A name without the layer that it is in: the line's own goes, another one is a number behind it."""
        own = _prefix(self.line.section)
        starts = {
            start: prefix for prefix in self.formulas.sections for start in (prefix, prefix.split("_")[0])
        }
        fits = [start for start in (*starts, "layer") if name.startswith(f"{start}_")]
        start = max(fits, key=len, default="")
        short = name.removeprefix(start).lstrip("_")
        short = re.sub(
            r"^(?:.*_)?(\d+)_(weight|bias)$",
            lambda found: f"{found[2][0].replace('w', 'W')}_{found[1]}",
            short,
        )
        short = re.sub(r"^([A-Za-z]+)(\d+)$", r"\1_\2", short)
        layer = starts.get(start, "").split("_")[0]
        if layer in ("", own.split("_")[0]):
            return short
        number = re.search(r"\d+$", layer)
        return f"{short}_{int(number[0])}" if number else name

    def constant(self, name):
        """A constant: its numbers where it has at most four, otherwise its name."""
        text = self.formulas.constants[name].text
        filled = re.match(r"\w+ = \w+\.(ones|zeros|full)\(\([^)]*\), ([^,)]*)", text)
        if filled:
            return {"ones": "1", "zeros": "0"}.get(filled[1]) or number(filled[2]) or name
        listed = re.match(r"\w+ = \w+\.array\(([-\d.e+, \[\]]+), [^\[\]]*\)(\.T)?$", text)
        if not listed or listed[1].count(",") > 3:
            return name
        return re.sub(r"[\d.e+-]+", lambda one: number(one[0]), listed[1]) + ("^T" if listed[2] else "")


def number(text):
    """A number to four digits, or None where the text is none."""
    try:
        return f"{float(text.strip('()')):.4g}"
    except ValueError:
        return None


def _is_read(line):
    """Whether a line only gives a name to what was handed over."""
    return bool(
        re.search(r" = (parameters|data|saved|buffers)\[[\d:]+\]$", line.text)
    ) or line.text.startswith("return")


def _prefix(section):
    """What the names of a section start with."""
    return section.split(":")[0].strip().replace(" ", "_") if section != "outside the layers" else ""
