"""Architectures as plain data: hyper-parameters are declared once, checked, described as JSON and rebuilt.

Layers, networks, priors, models and optimizers are frozen dataclasses of hyper-parameters. A field says what
it accepts where it stands::

    log_scale_limit: float = number(2.0, above=0)

and `Declared` applies all such checks when an object is made. `describe` turns an object into dicts, lists, strings
and numbers, which a checkpoint stores instead of a pickle. `rebuild` turns them back into an equal object. It looks
names up among the classes that are defined already; it imports nothing and runs no code from the file.
"""

import zlib
from dataclasses import MISSING, field, fields, is_dataclass
from functools import partial

import numpy as np

from npflow.autodiff.gpu.devices import fetch
from npflow.errors import InputError, in_short, kind_of
from npflow.validation import check_choice, check_count, check_flag, check_instance, check_number

KNOWN = {}  # the classes that can be described, by the name that a description has


class Declared:
    """Base of dataclasses with declared fields: a new object checks each field."""

    def __post_init__(self):
        for declared in fields(self):
            check, value = declared.metadata.get("check"), getattr(self, declared.name)
            if check is not None and not (value is None and declared.default is None):
                self._store(declared.name, check(value, self._name_of(declared.name)))

    def _store(self, name, value):
        """Set a field of a new object, frozen or not; for `__post_init__` alone."""
        object.__setattr__(self, name, value)

    def _name_of(self, field_name):
        """What an error calls a field."""
        return f"{type(self).__name__}'s {field_name}"


class Described(Declared):
    """Base of every class that can be described; a subclass is known by its name once it is defined.

    npflow's own classes are known by their bare name, yours by module and name, so that an `ActNorm` of your
    own never stands in for npflow's.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        KNOWN[class_name(cls)] = cls


# ---------------------------------------------------------------- declarations of hyper-parameters


def checked(check, default=MISSING):
    """A dataclass field that is checked when an object is made.

    Parameters
    ----------
    check : callable
        `check(value, name)` returns the value to store, or raises `InputError` with a sentence on `name`.
    default : object, optional
        Without one the field is required. Where it is None, None is accepted too.
    """
    return field(default=default, metadata={"check": check})


def number(default=MISSING, **bounds):
    """A field for a finite number, stored as a float; `bounds` are those of `validation.check_number`."""
    return checked(partial(check_number, **bounds), default)


def count(default=MISSING, **bounds):
    """A field for an integer, at least 1 by default; `bounds` are those of `validation.check_count`."""
    return checked(partial(check_count, **bounds), default)


def flag(default=MISSING):
    """A field for True or False."""
    return checked(check_flag, default)


def choice(choices, default=MISSING):
    """A field for one of several strings."""
    return checked(lambda value, name: check_choice(value, choices, name), default)


def instance(kind, default=MISSING):
    """A field for an object of a class."""
    return checked(lambda value, name: check_instance(value, kind, name), default)


# ---------------------------------------------------------------- plain data, there and back


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
        f"got {kind_of(value)} as {name}: {in_short(value)}; a layer of your own is a class with @dataclass(frozen=True)"
    )


def rebuild(description):
    """The object that `describe` described; lists come back as tuples.

    Raises
    ------
    InputError
        If the description names a class that is not defined or a base class, or hyper-parameters that it does not have.
    """
    if isinstance(description, list):
        return tuple(rebuild(item) for item in description)
    if not isinstance(description, dict):
        return description
    values = {name: rebuild(value) for name, value in description.items() if name != "class"}
    name = description.get("class")
    if not isinstance(name, str) or not is_dataclass(KNOWN.get(name)):  # bases are none
        raise InputError(
            f"expected the name of a class that is defined, got {name!r}: "
            "a class of your own is found once the module that defines it has been imported"
        )
    check_names(values, KNOWN[name], f"the hyper-parameters of {name}")
    try:
        return KNOWN[name](**values)
    except (InputError, RecursionError):
        raise
    except Exception as error:  # of a hyper-parameter of another kind
        raise InputError(f"expected the hyper-parameters of {name}, got {sorted(values)}: {error}") from error


def difference(there, here, path=""):
    """The first place where two descriptions differ, as text: ``layer/layers/3/class: ActNorm there, Affine here``."""
    if isinstance(there, dict) and isinstance(here, dict):
        there, here = ([*one.items()] for one in (there, here))
    elif isinstance(there, list) and isinstance(here, list):
        there, here = ([*enumerate(one)] for one in (there, here))
    else:
        there, here = (
            one.get("class", "a dict") if isinstance(one, dict) else in_short(one) for one in (there, here)
        )
        return f"{path}{': ' if path else ''}{there} there, {here} here"
    for (name, one), (_, other) in zip(there, here):
        if one != other:
            return difference(one, other, f"{path}/{name}" if path else str(name))
    return f"{path}{': ' if path else ''}{len(there)} entries there, {len(here)} here"


def check_names(values, kind, name):
    """Raise unless `values`, a dict, has a value for each field of a dataclass that needs one, and no others.

    Raises
    ------
    InputError
        It calls the values `name`.
    """
    known = {field.name: field for field in fields(kind) if field.init}
    missing = [field for field, one in known.items() if one.default is MISSING and field not in values]
    unknown = [field for field in values if field not in known]
    if missing or unknown:
        got = f"{unknown[0]!r}, which is none of them" if unknown else f"none for {missing[0]!r}"
        raise InputError(f"expected {name}: {', '.join(known)}, got {got}")


def fingerprint(array):
    """Shape, dtype and checksum of an array as text, by which other data is noticed."""
    array = fetch(array)
    return f"{array.shape} {array.dtype} {zlib.crc32(np.ascontiguousarray(array)):08x}"
