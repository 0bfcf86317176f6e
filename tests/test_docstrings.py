"""The examples in the docstrings run and show the output they state; docstrings have the form of numpydoc."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re

import matplotlib.pyplot as plt
import pytest

import npflow
from npflow.docstrings import SECTIONS, documented, formulas_of

# Rooms for a library that may not be there.
ROOMS = {"npflow.verify.torch": "torch", "npflow.verify.jax": "jax"}
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages(npflow.__path__, "npflow.")
    if not module.name.endswith("__main__")
    and (module.name not in ROOMS or importlib.util.find_spec(ROOMS[module.name]))
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


@pytest.mark.parametrize("name", ["npflow", *MODULES])
def test_headings_and_their_rules_have_lines_of_their_own(name):
    found = doctest.DocTestFinder(exclude_empty=False).find(importlib.import_module(name))
    assert not [test.name for test in found if re.search(r"\w -{5,}", test.docstring)]


def test_what_functions_share_is_added_unless_they_say_it_themselves():
    section = lambda function, title: inspect.getdoc(function).split(f"{title}\n{'-' * len(title)}\n")[1]
    assert section(npflow.models.maf, "Returns").startswith("Flow\n\nRaises\n------\nInputError\n")
    shared = "prior : Prior, optional\n    By default the standard normal.\ncontext_features : int\n"
    assert shared in section(npflow.models.glow, "Parameters")
    assert "\nprior : Prior, optional\n    By default the logistic" in section(
        npflow.models.nice, "Parameters"
    )
    assert "context_features" not in section(npflow.models.gaussianization, "Parameters")


def test_python_without_docstrings_has_none_to_complete():
    plain = lambda x: x
    assert documented("Returns\n-------\nfloat")(plain) is plain
    assert plain.__doc__ is None


@pytest.mark.parametrize("name", MODULES)
def test_functions_describe_all_their_parameters_in_order(name):
    module = importlib.import_module(name)
    own = lambda value: inspect.isfunction(value) and value.__module__ == name
    for _, function in inspect.getmembers(module, own):
        docstring = inspect.getdoc(function) or ""
        titles = re.findall(r"^(\w+)\n---+$", docstring, re.MULTILINE)
        assert titles == [title for title in SECTIONS if title in titles], function
        section = re.search(r"^Parameters\n-+\n(.*?)(\n\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
        if section and "**options" not in section[1]:  # of `distill`: those of `fit`
            entries = re.findall(r"^\**(\w[\w, ]*?)(?= :|$)", section[1], re.MULTILINE)
            described = [parameter for entry in entries for parameter in entry.split(", ")]
            assert described == [*inspect.signature(function).parameters], function


def test_the_formulas_of_a_layer_are_those_of_its_docstring():
    class Sentence:
        """A layer = a map.

        Outside, z = x. The slopes = 1
        Inside = is where x is.
        """

    assert formulas_of(Sentence) == ""
    assert formulas_of(npflow.layers.AdditiveCoupling).splitlines()[2:] == [
        "z_b = b + network(a)                            log|det J| = 0",
        "b = z_b - network(a)",
    ]
    layers = [thing for thing in vars(npflow.layers).values() if isinstance(thing, type)]
    without = {layer.__name__ for layer in layers if not formulas_of(layer)}
    assert without == {"Composite", "Given", "Layer", "Step"}


def test_a_class_without_a_docstring_has_no_formulas():
    assert formulas_of(type("Plain", (), {})) == ""
