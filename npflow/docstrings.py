"""Docstrings of functions that share parameters, returns or errors: what they share is written once."""

import inspect
import re
from collections.abc import Callable

from npflow.typing import Function

SECTIONS = (
    "Parameters",
    "Returns",
    "Yields",
    "Raises",
    "Notes",
    "References",
    "Examples",
)  # numpydoc's order


def documented(shared: str) -> Callable[[Function], Function]:
    """Make a decorator that completes the docstring of a function; the function itself stays as it is.

    Parameters
    ----------
    shared : str
        Sections of a numpydoc docstring. Of its Parameters, those are added that the function has, in the
        order of its signature. What the function's own docstring describes, it describes instead.
    """
    _, shared = _split(shared)

    def decorate(function: Function) -> Function:
        if function.__doc__:  # python -OO removes it
            text, own = _split(function.__doc__)
            entries = _entries(shared) | _entries(own)
            names = [name for name in inspect.signature(function).parameters if name in entries]
            sections = shared | own | {"Parameters": "\n".join(entries[name] for name in names)}
            parts = [
                f"{title}\n{'-' * len(title)}\n{sections[title]}" for title in SECTIONS if title in sections
            ]
            function.__doc__ = "\n\n".join([text, *parts])
        return function

    return decorate


def formulas_of(thing):
    """The formulas in the docstring of a class: its paragraphs in which every line has an equation.

    Returns
    -------
    str
        One or more paragraphs, as they stand; empty where there is none.

    Examples
    --------
    >>> from npflow.docstrings import formulas_of
    >>> from npflow.layers import Shift
    >>> print(formulas_of(Shift))
    z = x + shift       log|det J| = 0
    x = z - shift
    """
    text, _ = _split(thing.__doc__ or "")
    found = []
    for paragraph in re.split(r"\n\s*\n", text)[1:]:
        lines = paragraph.strip("\n").splitlines()
        columns = any("   " in line.strip() for line in lines) or all(map(_starts_with_equation, lines))
        if columns and all(" = " in line for line in lines):
            found.append("\n".join(lines))
    return "\n\n".join(found)


def _starts_with_equation(line):
    """Whether a line is an equation, and no sentence with one in it."""
    return len(line.split(" = ")[0].split()) <= 3 and not line.rstrip().endswith((".", ":"))


def _split(docstring):
    """The text before the first section, and the sections by title."""
    text, *parts = re.split(r"^(\w+)\n---+\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return text.strip(), {title: body.strip() for title, body in zip(parts[::2], parts[1::2])}


def _entries(sections):
    """The entries of the Parameters; one of several parameters goes by the first one's name."""
    entries = re.split(r"\n(?=\S)", sections.get("Parameters", ""))
    return {re.match(r"\**(\w*)", entry)[1]: entry for entry in entries}
