"""Every layer of the registry passes, with errors far below what the README promises."""

import dataclasses
import importlib
import inspect
import pkgutil

import numpy as np
import pytest

import npflow
from npflow import InputError, models
from npflow.layers import Composite, Elementwise, Given, Layer
from npflow.layers.composite import Substituted
from npflow.layers.coupling import Coupling
from npflow.layers.parting import Parting
from npflow.verify import check
from npflow.verify.cases import CASES, select


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("name", CASES)
def test_layer_holds_its_formula(name):
    case = CASES[name]
    report = check(case.layer, case.batch(np.random.default_rng(3)))
    report.raise_if_failed()
    for direction in ("forward", "inverse"):
        assert report[f"log-det {direction}, autograd"].error <= 1e-9
        if case.smooth:
            assert report[f"log-det {direction}, finite differences"].error <= 1e-8


BASES = (Layer, Composite, Substituted, Coupling, Elementwise, Parting)


def layer_classes():
    for module in pkgutil.walk_packages(npflow.layers.__path__, "npflow.layers."):
        for _, cls in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
            if issubclass(cls, Layer) and cls not in BASES and cls.__module__.startswith("npflow."):
                yield cls


def test_every_layer_class_is_in_the_registry():
    listed = [case.layer for case in CASES.values()]
    listed += [layer.layer for layer in listed if isinstance(layer, Given)]  # some need a context
    assert set(layer_classes()) <= set(map(type, listed))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", ["image_glow", "Affine"])
def test_a_batch_lies_in_the_domain_of_the_layer(name, dtype, rng):
    x = CASES[name].batch(rng, rows=100, dtype=dtype)
    low, high = CASES[name].layer.domain
    assert x.shape == (100, *CASES[name].event_shape)
    assert x.dtype == dtype
    assert low < x.min() < x.max() < high


def test_every_recipe_is_in_the_registry():
    recipes = {name for name in models.__all__ if inspect.isfunction(getattr(models, name))}
    assert recipes <= {name.split("/")[0] for name in CASES}


@pytest.mark.parametrize("cls", sorted(set(layer_classes()), key=lambda cls: cls.__name__))
def test_every_layer_is_a_frozen_dataclass(cls):
    assert dataclasses.is_dataclass(cls)
    assert cls.__dataclass_params__.frozen


def test_a_layers_name_selects_all_of_its_cases():
    assert set(select(["Conv1x1"])) == {"Conv1x1", "Conv1x1/image"}
    assert set(select(["Conv1x1/image", "Reverse"])) == {"Conv1x1/image", "Reverse", "Reverse/image"}
    assert set(select(["conv1X1"])) == {"Conv1x1", "Conv1x1/image"}
    assert select([]) == CASES


def test_an_unknown_name_gets_a_sentence():
    with pytest.raises(InputError, match=r"expected names of layers among Affine, .*; got 'Conv2x2'"):
        select(["Affine", "Conv2x2"])
