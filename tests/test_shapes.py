"""Shapes of parameters from hyper-parameters alone: those that `init` gives, whatever their size."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import refusal, rows
from test_flow import FLOWS

from npflow import Flow
from npflow.autodiff import Layout
from npflow.flow import known_layout, layout_of_init
from npflow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    Gaussianize,
    Given,
    Inverse,
    Layer,
    Logit,
    MaskedAutoregressive,
    MaskedConvolution,
    Reverse,
    Rotation,
    Split,
    Squeeze,
)
from npflow.layers.coupling import Coupling
from npflow.layers.layer import given
from npflow.models import VAE, PixelCNN, pixelcnn, vae
from npflow.networks import MADE, MLP, Beside, ConvNet, MaskedConvNet, Network, ResNet
from npflow.priors import Normal, Prior
from npflow.shapes import COMPOSITES, LAYERS, NETWORKS, PRIORS, Blanks, Unknown, hands_context_on
from npflow.verify.cases import CASES

CONV = ConvNet((3, 4), (3, 1, 5))


@pytest.mark.parametrize("name", CASES)
def test_the_shapes_of_a_layer_are_those_of_its_init(name, rng):
    """The registry has every layer and every recipe."""
    layer, x = CASES[name].layer, CASES[name].batch(rng, 4)
    params = layer.init(rng, x)
    blanks, output = Blanks(1000).layer(layer, x.shape[1:], 0)
    assert Layout(blanks).difference(Layout(params)) is None
    assert output == layer.forward(params, x)[0].shape[1:]


@pytest.mark.parametrize("name", FLOWS)
def test_the_shapes_of_a_flow_are_those_of_its_init(name):
    assert known_layout(FLOWS[name]).difference(layout_of_init(FLOWS[name])) is None


@pytest.mark.parametrize(
    ("layer", "shape", "features"),
    [
        (AffineCoupling(CONV, "checkerboard-odd"), (4, 2, 3), 2),
        (AffineCoupling(ResNet(4, 3, 5), "first"), (4, 2, 3), 0),
        (AdditiveCoupling(ResNet(4, 1), "even"), (4, 2, 3), 0),
        (AffineCoupling(Beside(MLP((3,)), MLP(())), (True, False, False)), (3,), 2),
        (AdditiveCoupling(MLP((3,)), "odd"), (5,), 0),
        (MaskedAutoregressive(MADE((), order=(1, 2, 0))), (3,), 4),
        (Rotation(reflections=2), (5,), 0),
        (Rotation(), (1,), 0),
    ],
)
def test_networks_masks_and_contexts_of_all_kinds(layer, shape, features, rng):
    context = rows(4, features) if features else None
    params = layer.init(rng, rows(4, *shape), **given(layer, context))
    assert Layout(Blanks(100).leaf(layer, shape, features)).difference(Layout(params)) is None


@pytest.mark.parametrize("features", [0, 3])
def test_the_shapes_of_a_pixelcnn_and_a_vae_are_those_of_init(features, rng):
    model = PixelCNN((4, 4, 3), 5, MaskedConvNet(6, 2, 5, (3, 7)), features)
    assert pixelcnn.expected_layout(model).difference(Layout(model._init(rng, np.float32))) is None
    model = VAE(5, 3, MLP((8,)), MLP(()))
    assert vae.expected_layout(model).difference(Layout(model.init(rng, rows(9, 5)))) is None


def test_every_init_of_npflow_has_its_entry():
    tables = {*LAYERS, *NETWORKS, *PRIORS, *(init for init, _ in COMPOSITES)}
    kinds = [*subclasses(Layer), *subclasses(Network), *subclasses(Prior)]
    own = {kind.init for kind in kinds if kind.__module__.startswith("npflow.")}
    assert own == tables


def subclasses(kind):
    return [inner for sub in kind.__subclasses__() for inner in (sub, *subclasses(sub))]


N = 10**9


@pytest.mark.parametrize(
    "layer",
    [
        AffineCoupling(MLP((N, N))),
        AffineCoupling(ConvNet((N,), (1, 1))),
        AffineCoupling(ResNet(N, 2, N + 1)),
        AffineCoupling(ResNet(3, N)),
        Gaussianize(N),
        MaskedConvolution(N),
        Rotation(2),
    ],
)
def test_an_architecture_of_any_size_is_refused_in_no_time(layer):
    flow = Flow(layer, Normal((4, 4, 2)))
    sentence = refusal(flow.check, {"layer": {"a": np.zeros(3)}, "prior": {}})
    assert sentence.startswith("expected ")


@pytest.mark.parametrize(
    "model",
    [
        VAE(N, N),
        VAE(N**3, 2),
        VAE(2, 2, MLP((N, N))),
        PixelCNN((N, N, N)),
        PixelCNN((4, 4, 1), network=MaskedConvNet(4, blocks=N)),
        PixelCNN((4, 4, 1), N, MaskedConvNet(N, kernel=N + 1, head=(N,)), N),
        Flow(Chain([Logit(), ActNorm()]), Normal((N, N, N), trained=True)),
        Flow(MaskedAutoregressive(MADE((N, N))), Normal(N), N),
    ],
    ids=lambda model: repr(model)[:60],
)
def test_a_model_of_any_size_is_refused_in_no_time(model):
    refusal(model.check, {"layer": {"a": np.zeros(3)}, "prior": {}})


def test_rows_of_any_size_whose_layers_have_few_parameters_are_known():
    flow = Flow(Chain([Logit(), ActNorm(), Inverse(Reverse())]), Normal((2**20, 2**20, 3)))
    params = {"layer": [{}, {"bias": np.zeros(3), "log_scale": np.zeros(3)}, {}], "prior": {}}
    assert flow.check(params).size == 6


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (Squeeze(), (3, 4, 1), "even height and width"),
        (Squeeze(), (4, 4, 1), "the layer of a Flow to keep the shape"),
        (Split(Squeeze()), (4, 4, 2), "the layer of Split to keep the shape"),
        (AffineCoupling(MLP()), (1,), "at least two channels"),
        (AffineCoupling(MLP(), (True, False)), (3,), "expected 2 channels"),
        (AffineCoupling(MLP(), "checkerboard-odd"), (3,), "two pixels"),
        (AdditiveCoupling(Beside(MLP(), MLP())), (3,), "even number of outputs"),
        (AffineCoupling(CONV), (4,), "images"),
        (AffineCoupling(ResNet()), (4,), "images"),
        (MaskedConvolution(), (4,), "images"),
        (MaskedAutoregressive(), (4, 4, 1), "for MADE"),
        (MaskedAutoregressive(MADE(order=(1, 0))), (3,), "length of MADE's order"),
        (Rotation(5), (3,), "at most 3 reflections"),
        (Coupling(), (4,), "a layer that defines forward, got a Coupling"),
    ],
)
def test_a_layer_that_does_not_take_its_rows_says_so(layer, shape, words):
    assert words in refusal(known_layout, Flow(layer, Normal(shape)))


@dataclass(frozen=True)
class Own(ActNorm):
    """A subclass with an `init` of its own."""

    def init(self, rng, x):
        return super().init(rng, x)


def test_a_subclass_with_its_own_init_is_left_to_init():
    flow = Flow(Chain([Own(), ActNorm(), AffineCoupling(MLP((3,)))]), Normal(2, trained=True))
    with pytest.raises(Unknown):
        Blanks(9).leaf(Own(), (2,), 0)
    assert known_layout(flow) is None
    params = flow.init(np.random.default_rng(0), rows(9, 2))
    assert flow.check(params).size == Layout(params).size
    for spoilt in (0, 1):
        bad = {**params, "layer": [*params["layer"]]}
        bad["layer"][spoilt] = {"bias": np.zeros(3), "log_scale": np.zeros(3)}
        assert "got another architecture's" in refusal(flow.check, bad)


class OwnMLP(MLP):
    """A network with an `init` of its own."""

    def init(self, rng, x, outputs):
        return super().init(rng, x, outputs)


class OwnConvNet(MaskedConvNet):
    """Another one."""

    def init(self, rng, x, outputs, context=None):
        return super().init(rng, x, outputs, context)


def test_so_is_a_network_of_the_readers_in_a_model():
    for model, own in (
        (VAE(3, 2, MLP((4,)), MLP((4,))), VAE(3, 2, OwnMLP((4,)), MLP((4,)))),
        (PixelCNN((4, 4, 1), 3, MaskedConvNet(4, 1)), PixelCNN((4, 4, 1), 3, OwnConvNet(4, 1))),
    ):
        find = {VAE: vae, PixelCNN: pixelcnn}[type(model)].expected_layout
        assert find(own).difference(find(model)) is None


def test_beside_a_layer_of_the_readers_nothing_large_is_made_either():
    params = {"layer": [{"bias": np.zeros(2), "log_scale": np.zeros(2)}, {}], "prior": {}}
    for flow in (
        Flow(Chain([Own(), AffineCoupling(MLP((N, N)))]), Normal(2)),
        Flow(Chain([Own(), AffineCoupling(MLP((10**4, 10**4)))]), Normal(2)),
    ):
        refusal(flow.check, params)
    flow = Flow(Chain([Own(), ActNorm()]), Normal((N, N, 2)))  # noise cannot tell
    assert flow.check(params).size == 4


def test_whether_a_context_is_handed_on_is_known():
    coupling = AffineCoupling(MLP())
    assert hands_context_on(Chain([ActNorm(), Split(Inverse(coupling))]))
    assert not hands_context_on(Chain([ActNorm(), Given(coupling, (1.0,))]))
