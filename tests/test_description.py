"""Architectures as plain data, and back."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import layers
from npflow.description import Described, class_name, describe, rebuild
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Inverse,
    Layer,
    Permutation,
    Reverse,
    ScaleShift,
    Shift,
    Spline,
)
from npflow.models import VAE, PixelCNN
from npflow.networks import MADE, MLP, Beside, ConvNet, MaskedConvNet, Network, ResNet
from npflow.priors import GaussianMixture, Logistic, Normal, Prior
from npflow.verify.cases import CASES


@dataclass(frozen=True)
class Bumps(Layer):
    """A layer of the reader's own, with a hyper-parameter of every kind that can be described."""

    bins: int = 8
    bound: float = 3.0
    periodic: bool = False
    kind: str = "linear"
    seed: int | None = None
    grid: tuple = (0, (0.5, 1))
    network: Network = MLP((4,))  # noqa: RUF009 (frozen)


OWN = f"{__name__}.Bumps"
COUPLING = AffineCoupling(Beside(MLP((8, 4), "tanh"), MLP(())), "first", 1.5)
OBJECTS = [
    ActNorm(),
    Affine(),
    COUPLING,
    Conv1x1(),
    Permutation(),
    Reverse(),
    Shift(),
    ScaleShift(1.5),
    Spline(5, 2.0),
    Inverse(COUPLING),
    Chain([ActNorm(), Chain([COUPLING, Inverse(Chain([Reverse()]))])]),
    MLP((3, 2), "softplus"),
    MADE((3,), order=(1, 0)),
    Beside(MLP(), Beside(MLP(), MLP())),
    ConvNet([4], [3, 1]),
    ResNet(4, 1),
    MaskedConvNet(3, 1, 5, [4]),
    Normal((4, 4, 3), trained=True),
    Logistic(3),
    GaussianMixture([[0, 1], [2, 3]], [0.1, 0.2], [1, 3], trained=True),
    Flow(Chain([ActNorm(), COUPLING]), GaussianMixture([[0, 1]], [0.1])),
    VAE(5, 3, MLP((8,), "tanh"), MLP(()), 2.5),
    PixelCNN([4, 5, 3], 16, MaskedConvNet(8, head=()), 10),
    Bumps(4, 0.1, True, "cubic", 7, ((1, 2), ("a", None)), Beside(MLP(), MLP())),
    *(case.layer for case in CASES.values()),
]
numbers = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
nested = st.recursive(numbers, lambda inner: st.lists(inner, max_size=3).map(tuple), max_leaves=6)


def through_json(value):
    return rebuild(json.loads(json.dumps(describe(value))))


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_an_object_comes_back_equal_through_json(value):
    back = through_json(value)
    assert type(back) is type(value)
    assert back == value
    assert hash(back) == hash(value)
    assert repr(back) == repr(value)


def test_every_layer_network_and_prior_of_npflow_is_among_the_objects_tried():
    bases = {"Coupling", "Elementwise", "Layer", "Network", "Prior"}
    parts = ("npflow.layers", "npflow.networks", "npflow.priors", "npflow.flow", "npflow.models")
    own = {name for name, kind in Described.known.items() if kind.__module__.startswith(parts)}
    assert own - bases == {type(value).__name__ for value in OBJECTS if not isinstance(value, Bumps)}


@settings(max_examples=40, deadline=None)
@given(nested)
def test_plain_values_come_back_equal_through_json(value):
    assert through_json(value) == value


@settings(max_examples=20, deadline=None)
@given(grid=nested.filter(lambda value: isinstance(value, tuple)), bound=st.floats(allow_nan=False))
def test_hyper_parameters_come_back_equal_through_json(grid, bound):
    assert through_json(Bumps(bound=bound, grid=grid)) == Bumps(bound=bound, grid=grid)


def test_a_description_names_the_class_and_its_hyper_parameters():
    assert describe(COUPLING) == {
        "class": "AffineCoupling",
        "network": {
            "class": "Beside",
            "log_scale": {"class": "MLP", "hidden": [8, 4], "activation": "tanh", "squash_inputs": False},
            "shift": {"class": "MLP", "hidden": [], "activation": "leaky_relu", "squash_inputs": False},
        },
        "transformed": "first",
        "log_scale_limit": 1.5,
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [(np.int64(3), 3), (np.float32(0.5), 0.5), (np.bool_(True), True), (np.str_("a"), "a")],
)
def test_numpys_numbers_are_described_as_pythons(value, expected):
    description = describe(Bumps(bins=value))["bins"]
    assert description == expected
    assert type(description) is type(expected)


def test_a_class_of_your_own_goes_by_module_and_name():
    assert class_name(Bumps) == OWN
    assert describe(Bumps())["class"] == OWN
    assert Described.known[OWN] is Bumps
    assert class_name(ActNorm) == "ActNorm"


def test_a_class_of_your_own_never_stands_in_for_npflows_of_the_same_name():
    own = type("ActNorm", (Layer,), {"__module__": "mine"})
    assert class_name(own) == "mine.ActNorm"
    assert rebuild({"class": "ActNorm"}) == layers.ActNorm()
    assert type(rebuild({"class": "ActNorm"})) is layers.ActNorm


@pytest.mark.parametrize("name", ["Bumps", "nowhere.Bumps", "os.system", None, 3, ["ActNorm"]])
def test_a_class_that_is_not_defined_is_refused(name):
    with pytest.raises(InputError) as caught:
        rebuild({"class": "Chain", "layers": [{"class": "ActNorm"}, {"class": name}]})
    assert str(caught.value) == (
        f"expected the name of a class that is defined, got {name!r}: "
        "a class of your own is found once the module that defines it has been imported"
    )


def test_a_description_without_a_class_is_refused():
    with pytest.raises(InputError, match="expected the name of a class that is defined, got None"):
        rebuild({"hidden": [4]})


def test_hyper_parameters_that_a_class_does_not_have_are_refused():
    with pytest.raises(InputError) as caught:
        rebuild({"class": "MLP", "hidden": [4], "depth": 3})
    assert str(caught.value).startswith("expected the hyper-parameters of MLP, got ['depth', 'hidden']: ")


def test_hyper_parameters_that_are_missing_are_refused():
    with pytest.raises(InputError, match=r"expected the hyper-parameters of Inverse, got \[\]: .*'layer'"):
        rebuild({"class": "Inverse"})


def test_hyper_parameters_that_a_class_cannot_use_get_the_sentence_of_the_class():
    with pytest.raises(InputError, match=r"expected MLP's activation to be one of .*, got 'gelu'"):
        rebuild({"class": "MLP", "activation": "gelu"})


@pytest.mark.parametrize(
    "value", [np.zeros(2), {"a": 1}, {1}, np.tanh, MLP, object(), 1j], ids=lambda value: type(value).__name__
)
def test_a_hyper_parameter_that_is_no_plain_value_is_refused(value):
    with pytest.raises(InputError) as caught:
        describe(Chain([ActNorm(), Bumps(grid=(0, value))]))
    assert str(caught.value) == (
        "expected hyper-parameters that are numbers, strings, None, tuples or npflow objects, "
        f"got a {type(value).__name__} as grid of Bumps: {value!r}"
    )


def test_a_layer_that_is_no_dataclass_cannot_be_described():
    class Bare(Layer):
        """A layer without the decorator: it has no hyper-parameters that could be listed."""

    with pytest.raises(InputError, match="got a Bare as layers of Chain: "):
        describe(Chain([Bare()]))


def test_bases_are_known_by_name_too():
    assert [Described.known[kind.__name__] for kind in (Layer, Network, Prior)] == [Layer, Network, Prior]
