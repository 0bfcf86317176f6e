"""Layers in order."""

import numpy as np
import pytest
from helpers import perturbed, refusal, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.errors import InputError
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Inverse,
    Layer,
    Logit,
    Permutation,
    Reverse,
    ScaleShift,
)
from npflow.networks import MLP

COUPLING = AffineCoupling(MLP((4,), "tanh"))
LAYERS = [ActNorm(), Affine(), COUPLING, Conv1x1(), Permutation(), Inverse(ActNorm()), Chain([Affine()])]
chains = st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4).map(Chain)


class Picky(Layer):
    """A layer that refuses every batch."""

    def init(self, rng, x):
        raise InputError(f"expected something else, got shape {x.shape}")


@settings(max_examples=15, deadline=None)
@given(chains)
def test_a_chain_applies_its_layers_in_order_and_undoes_them_in_reverse_order(chain):
    x = rows(5, 4)
    params = perturbed(chain, x)
    z, log_det = chain.forward(params, x)
    expected, total = x, np.zeros(5)
    for layer, p in zip(chain.layers, params, strict=True):
        expected, part = layer.forward(p, expected)
        total = total + part
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(log_det, total)
    back, inverse_log_det = chain.inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-8, atol=1e-8)


def test_each_layer_is_initialized_on_what_those_before_it_make_of_the_batch():
    x = rows(50, 2)
    chain = Chain([ActNorm(), ScaleShift(), Inverse(Affine()), ActNorm()])
    first, second, third, fourth = chain.init(np.random.default_rng(0), 3 * x)
    np.testing.assert_allclose(first["bias"], -x.mean(0) / x.std(0))
    assert (list(second), list(third)) == (["raw"], ["mean", "log_std"])
    np.testing.assert_allclose(fourth["bias"], 0, atol=1e-12)
    np.testing.assert_allclose(fourth["log_scale"], 0, atol=1e-12)


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_chain_keeps_shape_and_dtype_and_its_input(shape, dtype):
    chain, x = Chain(LAYERS), rows(*shape, dtype=dtype)
    params, before = perturbed(chain, x), x.copy()
    for value, log_det in (chain.forward(params, x), chain.inverse(params, x)):
        assert (value.shape, value.dtype) == (x.shape, dtype)
        assert (log_det.shape, log_det.dtype) == (shape[:1], dtype)
    np.testing.assert_array_equal(x, before)


def test_the_domain_of_a_chain_is_that_of_its_first_layer():
    assert Chain([Logit(), ActNorm()]).domain == Logit().domain != ActNorm().domain
    assert Chain([ActNorm(), Logit()]).domain == ActNorm().domain


def test_a_chain_keeps_its_layers_as_a_tuple():
    assert Chain([Reverse(), ActNorm()]).layers == (Reverse(), ActNorm())
    assert Chain([Reverse()]) == Chain((Reverse(),)) == Chain(iter([Reverse()]))
    assert hash(Chain([Reverse()])) == hash(Chain((Reverse(),)))


def test_the_repr_has_a_line_for_each_layer_and_evaluates_to_the_chain():
    chain = Chain([ActNorm(), Chain([Reverse()]), Inverse(Permutation())])
    assert repr(chain) == (
        "Chain([\n    ActNorm(),\n    Chain([\n        Reverse(),\n    ]),\n"
        "    Inverse(layer=Permutation()),\n])"
    )
    assert eval(repr(chain)) == chain


def test_layers_that_are_no_list_of_layers_are_refused():
    assert "expected Chain's layers to be at least one layer, got none" in refusal(Chain, [])
    assert "expected entry 1 of Chain's layers to be an object with init" in refusal(
        Chain, [ActNorm(), MLP()]
    )
    assert "expected Chain's layers as a list or tuple, got ActNorm()" in refusal(Chain, ActNorm())


def test_an_error_of_init_names_the_layer_with_its_whole_path(rng):
    chain = Chain([ActNorm(), AffineCoupling()])
    assert refusal(chain.init, rng, rows(5, 1)).startswith(
        "1 (AffineCoupling): expected at least two channels"
    )
    chain = Chain([Reverse(), Chain([Reverse(), Reverse(), Picky()])])
    assert refusal(chain.init, rng, rows(5, 4)) == "1/2 (Picky): expected something else, got shape (5, 4)"


def test_a_context_reaches_the_layers_that_take_one_and_no_others():
    x, context = rows(6, 4), rows(6, 2, seed=2)
    chain = Chain([ActNorm(), Inverse(Chain([AffineCoupling(), Reverse()]))])
    params = perturbed(chain, x, context)
    z, log_det = chain.forward(params, x, context)
    back, _ = chain.inverse(params, z, context)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(chain.log_det(params, x, context=context), log_det)
    assert np.all(np.any(chain.forward(params, x, -context)[0] != z, axis=1))


@pytest.mark.parametrize("method", ["forward", "inverse", "trace", "trace_inverse"])
@pytest.mark.parametrize("count", [1, 3])
def test_parameters_for_more_or_fewer_layers_are_refused(method, count):
    chain, x = Chain([ActNorm(), ActNorm()]), np.random.default_rng(0).normal(size=(5, 2))
    params = (2 * chain.init(np.random.default_rng(1), x))[:count]
    with pytest.raises(InputError, match=f"each of the 2 layers .* got {count}"):
        getattr(chain, method)(params, x)
