"""The masked autoregressive layer."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import perturbed, refusal, results_of, rows, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.layers import Elementwise, Inverse, MaskedAutoregressive, ScaleShift, Shift
from npflow.networks import MADE, MLP

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=10, deadline=None)
NETWORK = MADE((12, 12), "tanh")


def by_full_passes(layer, params, z):
    """x of z by the definition: a pass of the whole network for each component."""
    x = np.zeros_like(z)
    for _ in range(z.shape[1]):
        x, _ = layer.transformer.untransform(layer.network.apply(params, x), z)
    return x


@few
@given(st.integers(1, 40), st.sampled_from(["natural", "reversed"]), st.sampled_from([ScaleShift(), Shift()]))
def test_the_inverse_is_that_of_one_pass_for_each_component(features, order, transformer):
    layer = MaskedAutoregressive(MADE((12, 12), "tanh", order), transformer)
    z = rows(3, features)
    params = perturbed(layer, z)
    x, log_det = layer.inverse(params, z)
    np.testing.assert_allclose(x, by_full_passes(layer, params, z), rtol=1e-12, atol=1e-12)
    again, forward_log_det = layer.forward(params, x)
    np.testing.assert_allclose(again, z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, -forward_log_det, rtol=1e-12, atol=1e-12)


def test_a_component_depends_on_those_before_it_and_itself():
    layer, x = MaskedAutoregressive(NETWORK), rows(1, 6)
    params = perturbed(layer, x)
    z, _ = layer.forward(params, x)
    for place in range(6):
        other = x.copy()
        other[0, place] += 1
        changed = (layer.forward(params, other)[0] != z)[0]
        np.testing.assert_array_equal(changed, np.arange(6) >= place)


def test_with_a_context_each_row_is_transformed_by_its_own():
    layer, x, context = MaskedAutoregressive(NETWORK), rows(4, 5), rows(4, 2, seed=2)
    params = perturbed(layer, x, context)
    z, log_det = layer.forward(params, x, context)
    for row in range(4):
        alone, log_det_alone = layer.forward(params, x[row : row + 1], context[row : row + 1])
        np.testing.assert_allclose(alone[0], z[row], rtol=1e-12)
        np.testing.assert_allclose(log_det_alone[0], log_det[row], rtol=1e-12)
    back, _ = layer.inverse(params, z, context)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    assert np.all(layer.forward(params, x, context[::-1].copy())[0] != z)


@every_dtype
def test_a_new_layer_is_the_identity(dtype):
    x = rows(3, 4, dtype=dtype)
    for layer in (MaskedAutoregressive(), Inverse(MaskedAutoregressive())):
        params = layer.init(np.random.default_rng(0), x)
        for pair in (layer.forward(params, x), layer.inverse(params, x)):
            assert same_bits(pair, (x, np.zeros(3, dtype)))


@dataclass(frozen=True)
class Delegate(Elementwise):
    """ScaleShift by another name: the layer takes its general way."""

    numbers = 2

    def transform(self, raw, x):
        return ScaleShift().transform(raw, x)

    def untransform(self, raw, z):
        return ScaleShift().untransform(raw, z)


@every_dtype
def test_the_formula_has_the_bits_of_the_general_form(dtype):
    x, context = rows(5, 4, dtype=dtype), rows(5, 2, dtype=dtype, seed=2)
    layers = [MaskedAutoregressive(NETWORK, map_) for map_ in (ScaleShift(), Delegate())]
    params, same = (perturbed(layer, x, context) for layer in layers)
    assert same_bits(params, same)

    results = [results_of(layer, params, x, context) for layer in layers]
    assert same_bits(*results)


def test_a_network_that_is_no_made_and_a_map_that_takes_no_numbers_are_refused():
    assert "MaskedAutoregressive's network to be a" in refusal(MaskedAutoregressive, MLP())
    for transformer in ("affine", Elementwise()):
        sentence = refusal(MaskedAutoregressive, transformer=transformer)
        assert "transformer to be an elementwise map such as ScaleShift()" in sentence


class Doubled(ScaleShift):
    """A map of the reader's own, derived from the default one."""

    def transform(self, raw, x):
        z, log_slope = super().transform(raw, x)
        return 2 * z, log_slope + np.log(2)

    def untransform(self, raw, z):
        x, log_slope = super().untransform(raw, z / 2)
        return x, log_slope - np.log(2)


def test_a_map_derived_from_the_default_one_is_used():
    layer, x = MaskedAutoregressive(transformer=Doubled()), rows(5, 3)
    params = layer.init(np.random.default_rng(0), x)
    z, log_det = layer.forward(params, x)
    np.testing.assert_allclose(z, 2 * x)
    np.testing.assert_allclose(log_det, 3 * np.log(2))
    np.testing.assert_allclose(layer.inverse(params, z)[0], x)
