"""Architectures as plain data: what a checkpoint stores instead of a pickle.

Layers, networks, priors, flows and optimizers are frozen dataclasses of hyper-parameters. `describe`
turns one into dicts, lists, strings and numbers (JSON), `rebuild` turns that back into an equal object.
Rebuilding looks names up among the classes that are defined already; it imports nothing and runs no
code from the file.
"""

from dataclasses import fields, is_dataclass
from typing import ClassVar

import numpy as np

from npflow.errors import InputError


class Described:
    """Base of every class that can be described: a subclass is known by its name once it is defined.

    npflow's own classes go by their bare name, yours by module and name, so that an `ActNorm` of your
    own never stands in for npflow's.
    """

    known: ClassVar[dict] = {}

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Described.known[class_name(cls)] = cls


def class_name(cls):
    """The name a class is described by."""
    own = cls.__module__.split(".")[0] == "npflow"
    return cls.__qualname__ if own else f"{cls.__module__}.{cls.__qualname__}"


def describe(value, name="a value"):
    """The hyper-parameters of a frozen dataclass (or a plain value) as JSON-ready data.

    Raises
    ------
    InputError
        If a hyper-parameter is neither a number, a string, None, a sequence nor another described object.
    """
    if isinstance(value, Described) and is_dataclass(value):
        return {"class": class_name(type(value))} | {
            field.name: describe(getattr(value, field.name), f"{field.name} of {type(value).__name__}")
            for field in fields(value)
        }
    if isinstance(value, (tuple, list)):
        return [describe(item, name) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise InputError(
        "expected hyper-parameters that are numbers, strings, None, tuples or npflow objects, "
        f"got a {type(value).__name__} as {name}: {value!r}"
    )


def rebuild(description):
    """The object that `describe` described; lists come back as tuples.

    Raises
    ------
    InputError
        If the description names a class that is not defined, or hyper-parameters that it does not have.
    """
    if isinstance(description, list):
        return tuple(rebuild(item) for item in description)
    if not isinstance(description, dict):
        return description
    values = {name: rebuild(value) for name, value in description.items() if name != "class"}
    name = description.get("class")
    if not isinstance(name, str) or name not in Described.known:
        raise InputError(
            f"expected the name of a class that is defined, got {name!r}: "
            "a class of your own is found once the module that defines it has been imported"
        )
    try:
        return Described.known[name](**values)
    except TypeError as error:
        raise InputError(f"expected the hyper-parameters of {name}, got {sorted(values)}: {error}") from error
