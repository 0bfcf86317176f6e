"""The masked autoregressive layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.layers import Inverse, MaskedAutoregressive, ScaleShift, Shift
from npflow.networks import MADE, MLP

few = settings(max_examples=10, deadline=None)
NETWORK = MADE((12, 12), "tanh")


def perturbed(layer, x, context=None, size=0.3):
    rng = np.random.default_rng(0)
    params = layer.init(rng, x) if context is None else layer.init(rng, x, context)
    layout = Layout(params)
    return layout.unpack(layout.pack(params) + size * rng.standard_normal(layout.size), params)


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
    z = np.random.default_rng(1).standard_normal((3, features))
    params = perturbed(layer, z)
    x, log_det = layer.inverse(params, z)
    np.testing.assert_allclose(x, by_full_passes(layer, params, z), rtol=1e-12, atol=1e-12)
    again, forward_log_det = layer.forward(params, x)
    np.testing.assert_allclose(again, z, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(log_det, -forward_log_det, rtol=1e-12, atol=1e-12)


def test_a_component_depends_on_those_before_it_and_itself():
    layer, x = MaskedAutoregressive(NETWORK), np.random.default_rng(1).standard_normal((1, 6))
    params = perturbed(layer, x)
    z, _ = layer.forward(params, x)
    for place in range(6):
        moved = x.copy()
        moved[0, place] += 1
        changed = (layer.forward(params, moved)[0] != z)[0]
        np.testing.assert_array_equal(changed, np.arange(6) >= place)


def test_with_a_context_each_row_is_transformed_by_its_own():
    layer, rng = MaskedAutoregressive(NETWORK), np.random.default_rng(2)
    x, context = rng.standard_normal((4, 5)), rng.standard_normal((4, 2))
    params = perturbed(layer, x, context)
    z, log_det = layer.forward(params, x, context)
    for row in range(4):
        alone, log_det_alone = layer.forward(params, x[row : row + 1], context[row : row + 1])
        np.testing.assert_allclose(alone[0], z[row], rtol=1e-12)
        np.testing.assert_allclose(log_det_alone[0], log_det[row], rtol=1e-12)
    back, _ = layer.inverse(params, z, context)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    assert np.all(layer.forward(params, x, context[::-1].copy())[0] != z)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_new_layer_is_the_identity(dtype):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    for layer in (MaskedAutoregressive(), Inverse(MaskedAutoregressive())):
        params = layer.init(np.random.default_rng(0), x)
        for value, log_det in (layer.forward(params, x), layer.inverse(params, x)):
            np.testing.assert_array_equal(value, x, strict=True)
            np.testing.assert_array_equal(log_det, np.zeros(3, dtype), strict=True)


def test_what_is_no_made_and_no_elementwise_map_is_refused():
    with pytest.raises(InputError, match="expected MaskedAutoregressive's network to be a MADE, got MLP"):
        MaskedAutoregressive(MLP())
    with pytest.raises(InputError, match="transformer to be an elementwise map such as ScaleShift"):
        MaskedAutoregressive(transformer="affine")
