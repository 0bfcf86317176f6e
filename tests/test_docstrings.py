"""The examples in the docstrings run and show the output they state."""

import doctest
import importlib
import pkgutil

import matplotlib.pyplot as plt
import pytest

import npflow

MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(npflow.__path__, "npflow.")
    if not module.name.endswith("__main__")
)


@pytest.mark.parametrize("name", ["npflow", *MODULES])
def test_examples_show_what_they_say(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, globs={})  # each example imports what it uses, as where it is pasted
    plt.close("all")
    assert result.failed == 0


def test_there_are_examples():
    finder = doctest.DocTestFinder()
    found = [test for name in MODULES for test in finder.find(importlib.import_module(name)) if test.examples]
    assert len(found) >= 6
