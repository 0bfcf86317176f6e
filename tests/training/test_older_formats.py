"""Checkpoints of older formats give the flow and the run that they gave."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import moved, refusal, rows, same_bits
from stored import rewrite, small, with_contents

from npflow import Dequantized, Flow, load, save
from npflow.autodiff import Layout
from npflow.description import describe
from npflow.layers import ActNorm, Affine, AffineCoupling, Chain, Inverse, Layer, Logit, Split, Units
from npflow.models import VAE, PixelCNN
from npflow.networks import MaskedConvNet
from npflow.priors import Normal
from npflow.training import Adam
from npflow.training.older_formats import FORMATS, classes, convert_moments, dicts_of, no_units

NORMS = Chain([ActNorm(), Inverse(ActNorm()), Affine(), Split(Chain([ActNorm(), AffineCoupling(small)]))])


def written_as(path, name, model, params, x):
    """Write a checkpoint with the name of a format; return what the model says of x."""
    save(path, model, params)
    rewrite(path, lambda description: description.update(format=name))
    options = {"rng": np.random.default_rng(0)} if model.noisy else {}
    return model.log_prob(params, x, **options)


def without(path, place):
    """Take the constants at a place out of a checkpoint."""
    *above, last = place.split("/")

    def change(description):
        branch = description["params"]
        for key in above:
            branch = branch["dict"][key]
        if "dict" in branch:
            del branch["dict"][last]
        else:  # a list of two
            branch |= branch["list"][1]
            del branch["list"]

    rewrite(path, change)
    names = [f"constant:{place}/{name}" for name in ("exponent", "center")]
    with_contents(path, lambda contents: [contents.pop(name) for name in names])


@pytest.mark.parametrize("name", FORMATS[:3])
@pytest.mark.parametrize(
    "model",
    [
        Flow(AffineCoupling(small), Normal(4), context_features=2),
        Dequantized(Flow(Chain([Logit(), AffineCoupling(small)]), Normal((2, 2, 2)), context_features=2), 4),
        PixelCNN((2, 2, 2), 4, MaskedConvNet(2, blocks=1, kernel=3, head=(2,)), context_features=2),
    ],
    ids=["flow", "dequantized", "PixelCNN"],
)
def test_a_context_had_no_units(name, model, tmp_path, rng):
    x = rng.integers(4, size=(10, 2, 2, 2)) if hasattr(model, "levels") else rows(10, 4)
    context, path = (
        rows(10, 2).astype(np.float64 if isinstance(model, Flow) else np.float32),
        tmp_path / "flow.npz",
    )
    params = moved(model.init(rng, x, context))
    params["context"] = no_units(2)
    save(path, model, params)
    rewrite(path, lambda description: description.update(format=name))
    without(path, "context")
    assert same_bits(load(path).params, params)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize(
    ("model", "places"),
    [
        (Flow(NORMS, Normal(4)), [("layer", 0), ("layer", 1), ("layer", 3, 0)]),
        (VAE(features=4, encoder=small, decoder=small), [("norm", 1)]),
    ],
    ids=["flow", "VAE"],
)
def test_the_bias_of_an_act_norm_was_in_units_of_x(name, model, places, tmp_path):
    """z = (x + bias) exp(log_scale), where it is z = x exp(log_scale) + bias now."""
    x, path = 2 * rows(10, 4) + 1, tmp_path / "flow.npz"
    params = moved(model.init(np.random.default_rng(0), x))
    if isinstance(model, VAE):
        params["norm"][0] = no_units(4)
    expected = written_as(path, name, model, params, x)

    def into_units_of_x(contents):
        older = Layout(params).unpack(contents["params"], params)
        for place in places:
            norm = older
            for key in place:
                norm = norm[key]
            norm["bias"] /= np.exp(norm["log_scale"])
        contents["params"] = Layout(older).pack(older)

    if name in FORMATS[:2]:
        with_contents(path, into_units_of_x)
    if isinstance(model, VAE) and name != FORMATS[-1]:
        without(path, "norm/0")
    loaded = load(path)
    assert loaded.format == name
    options = {"rng": np.random.default_rng(0)} if model.noisy else {}
    found = loaded.flow.log_prob(loaded.params, x, **options)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_the_vectors_of_a_run_are_converted_with_the_parameters(trained):
    """The gradient of the bias, and so m, has the inverse of the bias's unit, and v that squared."""
    now = load(trained)
    rewrite(trained, lambda description: description.update(format=FORMATS[1]))
    older = load(trained)
    scale = np.exp(Layout(now.params).unpack(now.arrays["vector"], now.params)["layer"][0]["log_scale"])
    powers = {"moment:m": -1, "moment:v": -2}
    for name in ("vector", "average", "best", "moment:m", "moment:v"):
        before, after = (
            Layout(now.params).unpack(one.arrays[name], now.params)["layer"] for one in (now, older)
        )
        if name in powers:
            wanted = before[0]["bias"] * scale ** powers[name]
        else:
            wanted = before[0]["bias"] * np.exp(before[0]["log_scale"])
        np.testing.assert_allclose(after[0]["bias"], wanted, rtol=1e-12)
        assert same_bits(after[0]["log_scale"], before[0]["log_scale"])
        assert same_bits(after[1], before[1])


@dataclass(frozen=True)
class Own(Layer):
    """A layer of the reader's own with the parameters of an ActNorm."""

    def init(self, rng, x):
        return {"bias": np.zeros(2, x.dtype), "log_scale": np.zeros(2, x.dtype)}

    def forward(self, params, x):
        return x + params["bias"], np.zeros_like(x[:, 0])

    def inverse(self, params, z):
        return z - params["bias"], np.zeros_like(z[:, 0])


def test_a_layer_that_cannot_be_told_from_an_act_norm_is_refused(tmp_path):
    flow, x, path = Flow(Chain([ActNorm(), Own()]), Normal(2)), rows(10, 2), tmp_path / "flow.npz"
    written_as(path, FORMATS[1], flow, flow.init(np.random.default_rng(0), x), x)
    assert "expected an ActNorm for each bias and log_scale" in refusal(load, path)


def test_units_have_no_centers(tmp_path):
    flow, path = Flow(Chain([Units(), Inverse(Units())]), Normal(2)), tmp_path / "flow.npz"
    params = flow.init(np.random.default_rng(0), rows(50, 2) + 1)
    save(path, flow, params)

    def without_centers(description):
        description["format"] = FORMATS[1]
        for one in description["params"]["dict"]["layer"]["list"]:
            del one["dict"]["center"]

    rewrite(path, without_centers)
    with_contents(path, lambda contents: [contents.pop(f"constant:layer/{index}/center") for index in (0, 1)])
    assert same_bits(load(path).params, params)


@pytest.mark.parametrize("name", FORMATS)
def test_adams_moments_had_the_factors_of_the_paper(name):
    adam, moments = Adam(beta1=0.75, beta2=0.5), {"m": np.ones(2), "v": np.ones(2)}
    convert_moments(name, moments, adam)
    first = name == FORMATS[0]
    assert moments["m"].tolist() == [4.0 if first else 1.0] * 2
    assert moments["v"].tolist() == [2.0 if first else 1.0] * 2


def test_the_classes_of_a_description_are_those_of_its_objects():
    found = classes(describe(Flow(NORMS, Normal(4))))
    assert found[:4] == ["Flow", "Chain", "ActNorm", "Inverse"]
    assert found.count("ActNorm") == 3
    assert classes({"class": "Own", "text": '"class": "ActNorm"'}) == ["Own"]


def test_dicts_of_some_keys_are_found_in_dicts_lists_and_tuples():
    tree = {"x": ({"a": 1}, [{"a": 2, "b": 3}]), "y": {"a": 4}}
    assert dicts_of({"a"}, tree) == [{"a": 1}, {"a": 4}]
