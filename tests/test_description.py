"""Architectures as plain data, and back."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import refusal

from npflow import layers
from npflow.description import (
    KNOWN,
    Described,
    checked,
    choice,
    class_name,
    count,
    describe,
    difference,
    fingerprint,
    flag,
    instance,
    number,
    rebuild,
)
from npflow.errors import kind_of
from npflow.flow import Flow
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    AffineInjector,
    Chain,
    Continuous,
    Conv1x1,
    ElementwiseCoupling,
    Inverse,
    Layer,
    Permutation,
    Planar,
    Reverse,
    ScaleShift,
    Shift,
    Spline,
)
from npflow.models import (
    VAE,
    EstimatedLogDet,
    EstimatedTrace,
    ExactTrace,
    FlowMatching,
    PixelCNN,
    Solved,
    continuous_flow,
    residual_flow,
    super_resolution,
)
from npflow.models.continuous_flow import Ode
from npflow.models.residual_flow import WithoutLogDet, WithoutLogDets
from npflow.networks import MADE, MLP, Beside, ConvNet, MaskedConvNet, Network, ResNet
from npflow.priors import GaussianMixture, Logistic, Normal, Prior
from npflow.training import Adam
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
    ElementwiseCoupling(MLP((3,)), "odd", Shift()),
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
    VAE(5, 3, posterior=Chain([Planar()]), prior=Flow(COUPLING, Normal(3)), context_features=2, draws=4),
    PixelCNN([4, 5, 3], 16, MaskedConvNet(8, head=()), 10),
    EstimatedLogDet(residual_flow(2, 1, (4,)), terms=3),
    WithoutLogDet((4,)),
    WithoutLogDets(Continuous((4,), 2)),
    EstimatedTrace(continuous_flow(2, (4,))),
    ExactTrace(continuous_flow(2, (4,))),
    Ode(Continuous((4,), 2), 1e-6, 1e-6, "RK45"),
    FlowMatching(continuous_flow(2, (4,)), "diffusion"),
    Solved(continuous_flow(2).layer, 1e-8, method="RK45"),
    AffineInjector(ConvNet([4], [3, 1]), 1.5),
    super_resolution((8, 8, 3), 17, halvings=2, steps=1),
    Bumps(4, 0.1, True, "cubic", 7, ((1, 2), ("a", None)), Beside(MLP(), MLP())),
    *(case.layer for case in CASES.values()),
]
PLAIN = [
    None,
    True,
    0,
    -(2**70),
    0.1,
    1e-320,
    float("inf"),
    "",
    "ä\n",
    (),
    (1, (2.5, ("a", None)), ()),
    ((((False,),),),),
]


def through_json(value):
    return rebuild(json.loads(json.dumps(describe(value))))


@pytest.mark.parametrize("value", OBJECTS, ids=lambda value: type(value).__name__)
def test_an_object_comes_back_equal_through_json(value):
    back = through_json(value)
    assert type(back) is type(value)
    assert back == value
    assert hash(back) == hash(value)
    assert repr(back) == repr(value)


def test_every_layer_network_prior_and_model_of_npflow_is_among_the_objects_tried():
    bases = {"Composite", "Coupling", "Elementwise", "Layer", "Network", "Parting", "Prior", "Substituted"}
    bases |= {"Distillation", "OwnSamples", "ReverseKL"}  # they hold the arrays of a teacher, or a function
    parts = (
        "npflow.layers",
        "npflow.networks",
        "npflow.priors",
        "npflow.flow",
        "npflow.completion",
        "npflow.models",
    )
    own = {name for name, kind in KNOWN.items() if kind.__module__.startswith(parts)}
    assert own - bases == {type(value).__name__ for value in OBJECTS if not isinstance(value, Bumps)}


@pytest.mark.parametrize("value", PLAIN, ids=repr)
def test_plain_values_come_back_equal_through_json(value):
    assert through_json(value) == value
    assert through_json(Bumps(grid=(value,))) == Bumps(grid=(value,))


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
    assert KNOWN[OWN] is Bumps
    assert class_name(ActNorm) == "ActNorm"


def test_a_class_of_your_own_never_stands_in_for_npflows_of_the_same_name():
    own = type("ActNorm", (Layer,), {"__module__": "mine"})
    assert class_name(own) == "mine.ActNorm"
    assert rebuild({"class": "ActNorm"}) == layers.ActNorm()
    assert type(rebuild({"class": "ActNorm"})) is layers.ActNorm


@pytest.mark.parametrize(
    "name", ["Model", "Layer", "Bumps", "nowhere.Bumps", "os.system", None, 3, ["ActNorm"]]
)
def test_a_class_that_is_not_defined_is_refused(name):
    words = refusal(rebuild, {"class": "Chain", "layers": [{"class": "ActNorm"}, {"class": name}]})
    assert words.startswith(f"expected the name of a class that is defined, got {name!r}")


@pytest.mark.parametrize(
    ("description", "words"),
    [
        ({"hidden": [4]}, "the name of a class that is defined, got None"),
        (
            {"class": "MLP", "hidden": [4], "depth": 3},
            "of MLP: hidden, activation, squash_inputs, got 'depth', which",
        ),
        ({"class": "Inverse"}, "the hyper-parameters of Inverse: layer, got none for 'layer'"),
        ({"class": "MLP", "activation": "gelu"}, "got 'gelu'"),  # the sentence of the class
        ({"class": "Flow", "layer": {"class": "ActNorm"}, "prior": 3}, "got 3"),
        ({"class": "VAE", "features": 2, "encoder": []}, "got ()"),
    ],
    ids=["no class", "unknown", "missing", "unusable", "kind", "empty"],
)
def test_a_description_of_no_object_is_refused(description, words):
    assert words in refusal(rebuild, description)


@pytest.mark.parametrize(
    "value", [np.zeros(2), {"a": 1}, {1}, np.tanh, MLP, object(), 1j], ids=lambda value: type(value).__name__
)
def test_a_hyper_parameter_that_is_no_plain_value_is_refused(value):
    words = refusal(describe, Chain([ActNorm(), Bumps(grid=(0, value))]))
    assert f"got {kind_of(value)} as grid of Bumps: {value!r}" in words


def test_a_layer_that_is_no_dataclass_cannot_be_described():
    class Bare(Layer):
        """A layer without the decorator: it has no hyper-parameters that could be listed."""

    assert "got a Bare as layers of Chain: " in refusal(describe, Chain([Bare()]))


def test_bases_are_known_by_name_too():
    assert [KNOWN[kind.__name__] for kind in (Layer, Network, Prior)] == [Layer, Network, Prior]


# ---------------------------------------------------------------- declarations


@dataclass(frozen=True)
class Tried(Described):
    """A hyper-parameter of every kind that can be declared."""

    width: int = count()
    rate: float = number(0.5, above=0)
    steps: int | None = count(None, least=0)
    bias: bool = flag(True)
    kind: str = choice(("linear", "cubic"), "linear")
    network: Network = instance(Network, MLP())
    words: tuple = checked(lambda value, name: tuple(value), ())


def test_declared_hyper_parameters_are_stored_as_their_checks_return_them():
    tried = Tried(np.int64(3), np.float32(2), 0, np.bool_(False), "cubic", MLP((2,)), ["a"])
    assert tried == Tried(3, 2.0, 0, False, "cubic", MLP((2,)), ("a",))
    assert [type(value) for value in (tried.width, tried.rate, tried.bias)] == [int, float, bool]
    assert Tried(1).steps is None  # None is accepted where it is the default
    assert Tried(1, steps=None) == Tried(1)
    assert through_json(tried) == tried


@pytest.mark.parametrize(
    ("options", "got"),
    [
        ({"width": 0}, "got 0"),
        ({"width": None}, "got None"),
        ({"rate": 0}, "got 0.0"),
        ({"rate": None}, "got None"),
        ({"steps": -1}, "got -1"),
        ({"bias": 1}, "got 1"),
        ({"kind": "quartic"}, "got 'quartic'"),
        ({"network": Reverse()}, "got Reverse()"),
    ],
)
def test_others_get_a_sentence_with_the_name_of_the_class_and_the_field(options, got):
    words = refusal(Tried, **{"width": 1} | options)
    assert words.startswith(f"expected Tried's {next(iter(options))} to be ")
    assert words.endswith(got)


def test_a_required_hyper_parameter_is_pythons_to_ask_for():
    with pytest.raises(TypeError, match="width"):
        Tried()


def test_a_fingerprint_tells_shape_dtype_and_contents(any_device):
    x = np.arange(6.0).reshape(2, 3)
    others = [x.T, x.reshape(3, 2), x.astype(np.float32), x + 1e-9]
    assert len({fingerprint(array) for array in (x, *others)}) == 5
    assert fingerprint(any_device.send(x)) == fingerprint(x[:, ::-1][:, ::-1]) == fingerprint(x)


@pytest.mark.parametrize(
    ("there", "here", "sentence"),
    [
        (Adam(1e-3), Adam(3e-3), "learning_rate/rate: 0.001 there, 0.003 here"),
        (Chain([ActNorm()]), Chain([ActNorm(), ActNorm()]), "layers: 1 entries there, 2 here"),
        (
            Chain([ActNorm(), Reverse()]),
            Chain([ActNorm(), ActNorm()]),
            "layers/1/class: 'Reverse' there, 'ActNorm' here",
        ),
        (Chain([ActNorm()]), None, "Chain there, None here"),
        (None, 10.0, "None there, 10.0 here"),
    ],
)
def test_the_first_difference_of_two_descriptions_is_told(there, here, sentence):
    assert difference(describe(there), describe(here)) == sentence
