"""Names for types in signatures."""

from collections.abc import Callable
from typing import Any, TypeVar

Params = Any  # a tree of dicts, lists and tuples, whose leaves are arrays
Limits = tuple[tuple[float, float], tuple[float, float]]  # the least and the largest x, then y
Function = TypeVar("Function", bound=Callable)  # what a decorator takes and returns
