"""MADE: which outputs depend on which components, and evaluation one component at a time."""

import autograd
import numpy as np
import pytest
from helpers import perturbed
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.networks import MADE
from npflow.networks.mlp import ACTIVATIONS

few = settings(max_examples=15, deadline=None)


networks = st.builds(
    MADE,
    hidden=st.lists(st.integers(1, 9), max_size=3),
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    order=st.sampled_from(["natural", "reversed"]),
    squash_inputs=st.booleans(),
)


@few
@given(networks, st.integers(1, 7), st.integers(1, 3), st.booleans(), st.randoms(use_true_random=False))
def test_the_jacobian_of_each_block_of_outputs_is_strictly_triangular_in_the_order(
    network, features, each, conditioned, random
):
    if random.random() < 0.5:
        network = MADE(network.hidden, network.activation, random.sample(range(features), features))
    rng = np.random.default_rng(features)
    x, context = rng.standard_normal((1, features)), rng.standard_normal((1, 2)) if conditioned else None
    params = perturbed(network, x, each * features, context, by=0.5)
    jacobian = autograd.jacobian(lambda row: network.apply(params, row[None], context)[0])(x[0])
    places = network.places(features)
    for block in jacobian.reshape(each, features, features):
        in_order = block[places][:, places]
        np.testing.assert_array_equal(np.triu(in_order), 0)


@pytest.mark.parametrize("conditioned", [False, True])
def test_every_output_depends_on_every_component_before_its_own(conditioned):
    network, rng = MADE((30, 30), "tanh"), np.random.default_rng(0)
    x, context = rng.standard_normal((1, 6)), rng.standard_normal((1, 2)) if conditioned else None
    params = perturbed(network, x, 12, context, by=0.5)
    jacobian = autograd.jacobian(lambda row: network.apply(params, row[None], context)[0])(x[0])
    for block in jacobian.reshape(2, 6, 6):
        assert np.all(block[np.tril_indices(6, -1)] != 0)


def test_every_output_depends_on_the_context():
    network, rng = MADE((20,), "tanh"), np.random.default_rng(0)
    x, context = rng.standard_normal((1, 4)), rng.standard_normal((1, 3))
    params = perturbed(network, x, 8, context, by=0.5)
    jacobian = autograd.jacobian(lambda row: network.apply(params, x, row[None])[0])(context[0])
    assert np.all(jacobian != 0)


@few
@given(networks, st.integers(1, 40), st.integers(1, 3), st.booleans(), st.integers(1, 3))
def test_one_by_one_gives_the_outputs_of_one_pass(network, features, each, conditioned, rows):
    rng = np.random.default_rng(features)
    x, context = (
        rng.standard_normal((rows, features)),
        rng.standard_normal((rows, 2)) if conditioned else None,
    )
    params = perturbed(network, x, each * features, context, by=0.5)
    expected = network.apply(params, x, context).reshape(rows, each, features)
    generator, component = network.one_by_one(params, x, context), None
    for place in network.places(features).tolist():
        np.testing.assert_allclose(generator.send(component), expected[:, :, place], rtol=1e-9, atol=1e-9)
        component = x[:, place : place + 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("conditioned", [False, True])
@pytest.mark.parametrize("hidden", [(), (8,)])
def test_a_new_network_gives_zeros_in_the_dtype_of_its_input(hidden, conditioned, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4)).astype(dtype)
    context = rng.standard_normal((3, 2)).astype(dtype) if conditioned else None
    params = MADE(hidden).init(rng, x, 8, context)
    assert Layout(params).dtype == dtype
    np.testing.assert_array_equal(
        MADE(hidden).apply(params, x, context), np.zeros((3, 8), dtype), strict=True
    )


def test_hidden_units_keep_the_size_of_their_inputs():
    rng = np.random.default_rng(0)
    network, x = MADE((400, 400), "relu"), rng.standard_normal((300, 30))
    first, second, _ = network.init(rng, x, 30)
    h = np.maximum(x @ first["weight"], 0)
    h = np.maximum(h @ second["weight"], 0)
    assert 0.5 < np.mean(h**2) < 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden": 3}, "MADE's hidden as a list or tuple, got 3"),
        ({"activation": "cos"}, "MADE's activation to be one of .*, got 'cos'"),
        ({"order": "random"}, "MADE's order to be .* a permutation .*, got 'random'"),
        ({"order": None}, "MADE's order to be .* a permutation .*, got None"),
        ({"order": (0, 2)}, r"MADE's order to be .* a permutation .*, got \(0, 2\)"),
        ({"order": (0, 0.5)}, "MADE's order to be an integer, got 0.5"),
        ({"order": 3}, "MADE's order as a list or tuple, got 3"),
    ],
)
def test_invalid_hyper_parameters_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        MADE(**arguments)


def test_invalid_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"a multiple of features as outputs for MADE, got .* 7 outputs"):
        MADE().init(rng, np.zeros((2, 3)), 7)
    with pytest.raises(InputError, match=r"shape \(n, features\)"):
        MADE().init(rng, np.zeros((2, 3, 3, 1)), 3)
    with pytest.raises(InputError, match="expected 2 features, the length of MADE's order, got 3"):
        MADE(order=(1, 0)).init(rng, np.zeros((2, 3)), 3)


def test_a_missing_or_unexpected_context_is_refused():
    network, rng = MADE((4,)), np.random.default_rng(0)
    x, context = rng.standard_normal((2, 3)), rng.standard_normal((2, 2))
    for made, passed, sentence in (
        (context, None, "expected a context, .* got none"),
        (None, context, "expected no context, .* got one"),
    ):
        params = network.init(rng, x, 3, made)
        for call in (lambda p, c: network.apply(p, x, c), lambda p, c: next(network.one_by_one(p, x, c))):
            with pytest.raises(InputError, match=sentence):
                call(params, passed)


def test_masks_are_cached_and_read_only():
    first, again = (MADE((4,)).masks(3, 6, False, np.dtype(np.float32)) for _ in range(2))
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first[0][0, 0] = 5
