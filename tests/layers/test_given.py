"""A conditional layer at one context."""

import numpy as np
import pytest
from helpers import moved, perturbed, refusal, rows, same_bits

from npflow import Flow
from npflow.layers import ActNorm, AffineCoupling, Chain, Given, Inverse, Reverse, Split
from npflow.layers.units import in_units
from npflow.models import maf
from npflow.networks import MADE


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_is_the_conditional_layer_at_its_context(dtype):
    x, context = rows(6, 4, dtype=dtype), np.tile(np.array([[0.5, -1.0]], dtype), (6, 1))
    inner, layer = AffineCoupling(), Given(AffineCoupling(), (0.5, -1))
    params = perturbed(layer, x)
    assert same_bits(params, perturbed(inner, x, context))
    for method in ("forward", "inverse"):
        expected = getattr(inner, method)(params, x, context=context)
        assert same_bits(getattr(layer, method)(params, x), expected)


def test_the_layer_of_a_flow_is_given_a_context_in_the_units_of_the_flow(rng):
    x, context = rows(20, 3), rng.normal(2000, 10, (20, 2))
    flow = maf(3, 1, MADE((4,)), context_features=2)
    params = moved(flow.init(rng, x, context))
    seen = in_units(params, context[:1])[0]
    given = Flow(Given(flow.layer, tuple(seen)), flow.prior)
    log_prob = given.log_prob({name: params[name] for name in ("layer", "prior")}, x)
    assert same_bits(log_prob, flow.log_prob(params, x, context[0]))


def test_a_layer_that_takes_no_context_is_refused():
    for layer in (ActNorm(), Reverse()):
        assert "expected a layer that takes a context for Given" in refusal(Given, layer, (1.0,))
    for layer in (
        Chain([ActNorm(), Inverse(Reverse())]),
        Split(ActNorm()),
    ):  # known once the shape of a row is
        sentence = refusal(Given(layer, (1.0,)).init, np.random.default_rng(0), rows(5, 4))
        assert "expected a layer that takes a context for Given" in sentence
    for layer in (Chain([ActNorm(), Inverse(AffineCoupling())]), Split(AffineCoupling())):
        assert Given(layer, (1.0,)).layer == layer


def test_a_context_that_is_not_numbers_is_refused():
    assert "expected Given's context to have at least one number, got none" in refusal(
        Given, AffineCoupling(), ()
    )
    assert "number of Given's context to be a number, got 'a'" in refusal(Given, AffineCoupling(), ("a",))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("context", "got"),
    [([[1.0, 2.0]], "shape (1, 2)"), ([[[1.0], [2.0, 3.0]]], "a tuple"), ([[[np.nan]]], "nan in row 0")],
)
def test_a_context_that_is_no_image_is_refused(context, got):
    sentence = refusal(Given, AffineCoupling(), context)
    assert "expected Given's context" in sentence
    assert got in sentence


def test_a_context_that_the_dtype_cannot_hold_is_refused(rng):
    layer, x = Given(AffineCoupling(), (1e300,)), rows(5, 2)
    layer.forward(layer.init(rng, x), x)
    words = refusal(layer.init, rng, x.astype(np.float32))
    assert words.endswith("expected Given's context in the range of float32, got 1e+300")
