"""Docstrings of functions that share parameters, returns or errors: what they share is written once."""

import inspect
import re

SECTIONS = (
    "Parameters",
    "Returns",
    "Yields",
    "Raises",
    "Notes",
    "References",
    "Examples",
)  # numpydoc's order


def documented(shared):
    """Make a decorator that completes the docstring of a function; the function itself stays as it is.

    Parameters
    ----------
    shared : str
        Sections of a numpydoc docstring. Of its Parameters, those are added that the function has, in the
        order of its signature. What the function's own docstring describes, it describes instead.
    """
    _, shared = _split(shared)

    def decorate(function):
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


def _split(docstring):
    """The text before the first section, and the sections by title."""
    text, *parts = re.split(r"^(\w+)\n---+\n", inspect.cleandoc(docstring), flags=re.MULTILINE)
    return text.strip(), {title: body.strip() for title, body in zip(parts[::2], parts[1::2])}


def _entries(sections):
    """The entries of the Parameters; one of several parameters goes by the first one's name."""
    entries = re.split(r"\n(?=\S)", sections.get("Parameters", ""))
    return {re.match(r"\**(\w*)", entry)[1]: entry for entry in entries}
