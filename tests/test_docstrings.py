"""The examples in the docstrings run and show the output they state; docstrings have the form of numpydoc."""

import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
from pathlib import Path
from types import FunctionType

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

PUBLIC = [
    "npflow", "npflow.autodiff", "npflow.datasets", "npflow.estimators", "npflow.exercises", "npflow.latent",
    "npflow.layers", "npflow.models", "npflow.networks", "npflow.plots", "npflow.priors", "npflow.training",
    "npflow.verify",
]  # fmt: skip
# What users call on objects, or write in classes of their own.
METHODS = {
    "apply", "bits_per_dim", "complete", "decode", "decode_with_log_prob", "elbo", "encode", "fit", "forward", "init",
    "inverse", "inverse_transform", "log_det", "log_prob", "logits", "loss", "losses", "pack", "predict",
    "predict_log_proba", "predict_proba", "read", "run", "sample", "sample_and_log_prob", "score", "score_samples",
    "trace", "trace_inverse", "transform", "unpack", "untransform", "update",
}  # fmt: skip


def things_of(name):
    """The classes and functions that a public module names."""
    module = importlib.import_module(name)
    things = {thing: getattr(module, thing) for thing in module.__all__}
    return {thing: value for thing, value in things.items() if isinstance(value, (type, FunctionType))}


def titles_of(thing):
    return re.findall(r"^(\w+)\n---+$", inspect.getdoc(thing) or "", re.MULTILINE)


@pytest.mark.parametrize("name", ["npflow", *MODULES])
def test_examples_show_what_they_say(name):
    module = importlib.import_module(name)
    result = doctest.testmod(module, globs={})  # each example imports what it uses, as where it is pasted
    plt.close("all")
    assert result.failed == 0


@pytest.mark.parametrize("name", PUBLIC)
def test_a_public_module_shows_only_what_is_its_own(name):
    """What `help` and ``import *`` show is what `__all__` names, and nothing of another library."""
    module = importlib.import_module(name)
    shown = {}
    exec(f"from {name} import *", shown)
    assert shown.keys() - {"__builtins__"} == set(module.__all__)
    origins = {getattr(thing, "__module__", name) for thing in things_of(name).values()}
    assert {origin.partition(".")[0] for origin in origins} == {"npflow"}


def test_the_reference_lists_every_public_module():
    page = Path(npflow.__path__[0]).parent / "docs" / "reference.md"
    assert set(PUBLIC) <= set(re.findall(r"(?m)^reference/(.*)$", page.read_text("utf-8")))


@pytest.mark.parametrize("name", PUBLIC)
def test_everything_public_has_an_example(name):
    assert [thing for thing, value in things_of(name).items() if ">>>" not in inspect.getdoc(value)] == []


@pytest.mark.parametrize("name", PUBLIC)
def test_public_functions_describe_their_parameters_and_returns(name):
    functions = {thing: value for thing, value in things_of(name).items() if inspect.isfunction(value)}
    for thing, function in functions.items():
        titles = titles_of(function)
        assert "Parameters" in titles, thing
        assert "Returns" in titles or "Yields" in titles or thing == "save", thing


@pytest.mark.parametrize("name", PUBLIC)
def test_public_methods_have_docstrings(name):
    """Those that users call describe their parameters and returns; an override may inherit the description."""
    for kind in [thing for thing in things_of(name).values() if isinstance(thing, type)]:
        bases = [base for base in kind.__mro__ if base.__module__.startswith("npflow")]
        own = {
            method
            for base in bases
            for method, value in vars(base).items()
            if isinstance(value, (FunctionType, classmethod, property)) and not method.startswith("_")
        }
        assert [method for method in own if not inspect.getdoc(getattr(kind, method))] == [], kind
        for method in own & METHODS:
            assert {"Parameters", "Returns"} <= set(titles_of(getattr(kind, method))), (kind, method)


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
    own = lambda value: getattr(value, "__module__", "") == name
    functions = [value for _, value in inspect.getmembers(module, inspect.isfunction) if own(value)]
    for _, kind in inspect.getmembers(module, inspect.isclass):
        functions += [value for value in vars(kind).values() if inspect.isfunction(value) and own(kind)]
    for function in functions:
        docstring = inspect.cleandoc(function.__doc__ or "")
        titles = re.findall(r"^(\w+)\n---+$", docstring, re.MULTILINE)
        assert titles == [title for title in SECTIONS if title in titles], function
        section = re.search(r"^Parameters\n-+\n(.*?)(\n\n|\Z)", docstring, re.DOTALL | re.MULTILINE)
        if section and "**options" not in section[1]:  # of `distill`: those of `fit`
            entries = re.findall(r"^\**(\w[\w, ]*?)(?= :|$)", section[1], re.MULTILINE)
            described = [parameter for entry in entries for parameter in entry.split(", ")]
            parameters = [name for name in inspect.signature(function).parameters if name != "self"]
            assert described == parameters, function


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
