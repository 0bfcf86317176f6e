"""The contract of a layer, a chain of layers, and a layer turned round."""

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Given,
    Inverse,
    Layer,
    Permutation,
    Reverse,
)
from npflow.layers.layer import name_in_chain, pixels, zeros_per_row
from npflow.networks import MLP

COUPLING = AffineCoupling(MLP((4,), "tanh"))
LAYERS = [
    ActNorm(),
    Affine(),
    COUPLING,
    Conv1x1(),
    Permutation(),
    Reverse(),
    Inverse(ActNorm()),
    Chain([Affine()]),
]
chains = st.lists(st.sampled_from(LAYERS), min_size=1, max_size=4).map(Chain)
few = settings(max_examples=15, deadline=None)


@dataclass(frozen=True)
class Scale(Layer):
    """A layer of the reader's own, without a `log_det` of its own: multiplies by a number."""

    factor: float

    def forward(self, params, x):
        return x * self.factor, zeros_per_row(x) + x[0].size * np.log(self.factor)

    def inverse(self, params, z):
        return z / self.factor, zeros_per_row(z) - z[0].size * np.log(self.factor)


@dataclass(frozen=True)
class Picky(Layer):
    """A layer that can be initialized on nothing."""

    def init(self, rng, x):
        raise InputError(f"expected something else, got shape {x.shape}")


def rows(shape=(5, 4), dtype=np.float64):
    return np.random.default_rng(1).normal(1, 2, shape).astype(dtype)


def perturbed(layer, x):
    rng = np.random.default_rng(0)
    params = layer.init(rng, x)
    layout = Layout(params)
    noise = 0.3 * rng.standard_normal(layout.size).astype(layout.dtype)
    return layout.unpack(layout.pack(params) + noise, params)


def test_a_layer_that_defines_nothing_has_no_parameters_and_no_map():
    assert Layer().init(np.random.default_rng(0), rows()) == {}
    with pytest.raises(NotImplementedError):
        Layer().forward({}, rows())
    with pytest.raises(NotImplementedError):
        Layer().inverse({}, rows())


def test_log_det_of_a_layer_without_its_own_is_the_second_half_of_forward():
    np.testing.assert_array_equal(Scale(3.0).log_det({}, rows()), np.full(5, 4 * np.log(3)))


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_the_log_det_of_every_layer_is_the_second_half_of_its_forward(layer, dtype, shape):
    x = rows(shape, dtype)
    params = perturbed(layer, x)
    log_det = layer.log_det(params, x)
    np.testing.assert_array_equal(log_det, layer.forward(params, x)[1], strict=True)
    assert (log_det.shape, log_det.dtype) == (shape[:1], dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_per_row_and_pixels_count_rows_and_pixels(dtype):
    np.testing.assert_array_equal(zeros_per_row(rows((3, 2), dtype)), np.zeros(3, dtype), strict=True)
    assert (pixels(rows((3, 2))), pixels(rows((3, 4, 5, 2)))) == (1, 20)


@few
@given(chains)
def test_a_chain_applies_its_layers_in_order(chain):
    x = rows()
    params = perturbed(chain, x)
    z, log_det = chain.forward(params, x)
    expected, total = x, np.zeros(5)
    for layer, p in zip(chain.layers, params):
        expected, part = layer.forward(p, expected)
        total = total + part
    np.testing.assert_array_equal(z, expected)
    np.testing.assert_array_equal(log_det, total)


@few
@given(chains)
def test_the_inverse_of_a_chain_undoes_it_with_the_opposite_log_det(chain):
    x = rows()
    params = perturbed(chain, x)
    z, log_det = chain.forward(params, x)
    back, inverse_log_det = chain.inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-8, atol=1e-8)


@few
@given(chains)
def test_the_trace_of_a_chain_ends_in_forward_and_its_log_dets_sum_up_to_it(chain):
    x = rows()
    params = perturbed(chain, x)
    steps = chain.trace(params, x)
    z, log_det = chain.forward(params, x)
    assert [step.name for step in steps] == [name_in_chain(i, layer) for i, layer in enumerate(chain.layers)]
    np.testing.assert_array_equal(steps[-1].output, z)
    np.testing.assert_allclose(sum(step.log_det for step in steps), log_det, rtol=1e-12, atol=1e-12)


@few
@given(chains)
def test_the_inverse_trace_of_a_chain_ends_in_inverse_and_its_log_dets_sum_up_to_it(chain):
    z = rows()
    params = perturbed(chain, z)
    steps = chain.trace_inverse(params, z)
    x, log_det = chain.inverse(params, z)
    names = [name_in_chain(i, layer) for i, layer in enumerate(chain.layers)]
    assert [step.name for step in steps] == names[::-1]
    np.testing.assert_array_equal(steps[-1].output, x)
    np.testing.assert_allclose(sum(step.log_det for step in steps), log_det, rtol=1e-12, atol=1e-12)


def test_the_steps_of_a_trace_are_named_by_place_and_kind():
    chain = Chain([Scale(2.0), Chain([Reverse()]), Scale(0.5)])
    x = rows()
    names = [step.name for step in chain.trace(chain.init(np.random.default_rng(0), x), x)]
    assert names == ["0 (Scale)", "1 (Chain)", "2 (Scale)"]


def test_each_layer_of_a_chain_is_initialized_on_what_the_layers_before_it_make_of_the_batch():
    x = rows((50, 2))
    first, second, third = Chain([ActNorm(), Scale(4.0), ActNorm()]).init(np.random.default_rng(0), x)
    np.testing.assert_allclose(first["bias"], -x.mean(0))
    assert second == {}
    np.testing.assert_allclose(third["bias"], 0, atol=1e-12)
    np.testing.assert_allclose(third["log_scale"], -np.log(4), rtol=1e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)])
def test_a_chain_of_every_layer_keeps_shape_and_dtype(shape, dtype):
    chain, x = Chain(LAYERS), rows(shape, dtype)
    params = perturbed(chain, x)
    for value, log_det in (chain.forward(params, x), chain.inverse(params, x)):
        assert (value.shape, value.dtype) == (x.shape, dtype)
        assert (log_det.shape, log_det.dtype) == (shape[:1], dtype)


def test_a_chain_leaves_its_input_as_it_was():
    chain, x = Chain(LAYERS), rows()
    params = perturbed(chain, x)
    before = x.copy()
    chain.forward(params, x)
    chain.inverse(params, x)
    np.testing.assert_array_equal(x, before)


def test_a_chain_keeps_its_layers_as_a_tuple():
    assert Chain([Reverse(), ActNorm()]).layers == (Reverse(), ActNorm())
    assert Chain([Reverse()]) == Chain((Reverse(),)) == Chain(iter([Reverse()]))
    assert hash(Chain([Reverse()])) == hash(Chain((Reverse(),)))


def test_a_chain_of_no_layers_is_refused():
    with pytest.raises(InputError, match="expected a Chain of at least one layer, got none"):
        Chain([])


@pytest.mark.parametrize("method", ["forward", "inverse", "trace"])
def test_a_chain_refuses_parameters_of_another_number_of_layers(method):
    with pytest.raises(ValueError, match="argument"):
        getattr(Chain([Reverse(), Reverse()]), method)([{}], rows())


def test_what_a_layer_of_a_chain_refuses_is_told_with_its_place():
    with pytest.raises(InputError) as caught:
        Chain([ActNorm(), AffineCoupling()]).init(np.random.default_rng(0), rows((5, 1)))
    assert str(caught.value) == ("1 (AffineCoupling): expected at least two channels to take parts of, got 1")


def test_what_a_layer_of_a_chain_in_a_chain_refuses_is_told_with_its_whole_path():
    with pytest.raises(InputError) as caught:
        Chain([Reverse(), Chain([Reverse(), Reverse(), Picky()])]).init(np.random.default_rng(0), rows())
    assert str(caught.value) == "1/2 (Picky): expected something else, got shape (5, 4)"


def test_the_repr_of_a_chain_is_its_layers_a_line_each_and_evaluates_to_it():
    chain = Chain([ActNorm(), Chain([Reverse()]), Inverse(Permutation())])
    assert repr(chain) == (
        "Chain([\n    ActNorm(),\n    Chain([\n        Reverse(),\n    ]),\n    Inverse(layer=Permutation()),\n])"
    )
    assert eval(repr(chain)) == chain


@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_inverse_turns_a_layer_round(layer):
    x = rows()
    params = perturbed(layer, x)
    turned = Inverse(layer)
    for (value, log_det), (expected, expected_log_det) in (
        (turned.forward(params, x), layer.inverse(params, x)),
        (turned.inverse(params, x), layer.forward(params, x)),
    ):
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(log_det, expected_log_det)
    np.testing.assert_array_equal(turned.log_det(params, x), layer.inverse(params, x)[1])


def test_inverse_hands_the_batch_to_the_inner_layer_as_it_is():
    x = rows()
    params, inner = (layer.init(np.random.default_rng(0), x) for layer in (Inverse(ActNorm()), ActNorm()))
    np.testing.assert_array_equal(params["bias"], inner["bias"])
    np.testing.assert_array_equal(params["log_scale"], inner["log_scale"])


def test_a_layer_turned_round_after_itself_is_the_identity():
    x = rows()
    params = perturbed(COUPLING, x)
    z, log_det = Chain([COUPLING, Inverse(COUPLING)]).forward([params, params], x)
    np.testing.assert_allclose(z, x, rtol=1e-12)
    np.testing.assert_allclose(log_det, 0, atol=1e-12)


@pytest.mark.parametrize("what", [ActNorm, 3, MLP()])
def test_what_is_not_a_layer_is_refused(what):
    expected = "to be an object with init, forward and inverse, got "
    with pytest.raises(InputError, match=f"expected a Chain's entry 1 {expected}"):
        Chain([ActNorm(), what])
    with pytest.raises(InputError, match=f"expected the layer of Inverse {expected}"):
        Inverse(what)


def test_a_chain_of_one_layer_without_brackets_is_refused():
    with pytest.raises(
        InputError, match=r"expected the layers of a Chain as a list or tuple, got ActNorm\(\)"
    ):
        Chain(ActNorm())


# ---------------------------------------------------------------- a context


def test_a_context_reaches_the_layers_that_take_one_and_no_others():
    rng = np.random.default_rng(0)
    x, context = rng.standard_normal((6, 4)), rng.standard_normal((6, 2))
    chain = Chain([ActNorm(), Inverse(Chain([AffineCoupling(), Reverse()]))])
    start = chain.init(rng, x, context)
    layout = Layout(start)
    params = layout.unpack(layout.pack(start) + 0.1 * rng.standard_normal(layout.size), start)
    z, log_det = chain.forward(params, x, context)
    back, _ = chain.inverse(params, z, context)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(chain.log_det(params, x, context=context), log_det)
    assert np.all(np.any(chain.forward(params, x, -context)[0] != z, axis=1))
    np.testing.assert_array_equal(chain.trace(params, x, context)[-1].output, z)
    np.testing.assert_allclose(chain.trace_inverse(params, z, context)[-1].output, x, rtol=1e-10, atol=1e-10)


def test_a_layer_given_a_context_is_the_conditioned_one_at_it():
    rng = np.random.default_rng(0)
    x, context = rng.standard_normal((6, 4)), np.tile([[0.5, -1.0]], (6, 1))
    inner, layer = AffineCoupling(), Given(AffineCoupling(), (0.5, -1.0))
    params = layer.init(np.random.default_rng(1), x)
    for method in ("forward", "inverse"):
        expected = getattr(inner, method)(params, x, context=context)
        for got, wanted in zip(getattr(layer, method)(params, x), expected, strict=True):
            np.testing.assert_array_equal(got, wanted)
    with pytest.raises(InputError, match="expected each number in Given's context to be a number, got 'a'"):
        Given(inner, ("a",))


def test_what_takes_no_context_is_not_given_one_in_silence():
    sentence = "expected a layer that takes a context, and at least one number of it, for Given"
    for layer, context in (
        (ActNorm(), (1.0,)),
        (Chain([ActNorm(), Inverse(Reverse())]), (1.0,)),
        (AffineCoupling(), ()),
    ):
        with pytest.raises(InputError, match=sentence):
            Given(layer, context)
    Given(Chain([ActNorm(), Inverse(AffineCoupling())]), (1.0,))
