"""Linear maps of the channels."""

import numpy as np
import pytest
import scipy.linalg
from helpers import moved, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout, tree, value_and_grad
from npflow.autodiff.primitives import sum_event
from npflow.layers import Conv1x1, Permutation, Reverse

every_shape = pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)], ids=["rows", "images"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=15, deadline=None)
channel_counts, seeds = st.integers(1, 6), st.integers(0, 999)


def new(channels, seed=0, dtype=np.float64):
    return Conv1x1().init(np.random.default_rng(seed), rows(1, channels, dtype=dtype))


def moved_weight(channels, seed=0):
    """Parameters away from an orthogonal weight."""
    return moved(new(channels, seed), seed)


def weight_of(params):
    """W, read off as what the layer makes of the unit vectors."""
    return Conv1x1().forward(params, np.eye(len(params["sign"])))[0]


@few
@given(channel_counts, seeds)
def test_the_weight_starts_as_an_orthogonal_matrix(channels, seed):
    params = new(channels, seed)
    weight = weight_of(params)
    np.testing.assert_allclose(weight @ weight.T, np.eye(channels), atol=1e-12)
    np.testing.assert_allclose(Conv1x1().log_det(params, rows(3, channels)), 0, atol=1e-12)


@few
@given(channel_counts, seeds)
def test_the_weight_is_the_permuted_product_of_its_two_triangles(channels, seed):
    params = moved_weight(channels, seed)
    lower = np.tril(params["lower"], -1) + np.eye(channels)
    upper = np.triu(params["upper"], 1) + np.diag(params["sign"] * np.exp(params["log_scale"]))
    permutation = np.eye(channels)[params["permutation"]]
    np.testing.assert_allclose(weight_of(params), permutation @ lower @ upper, rtol=1e-10, atol=1e-12)


@few
@given(channel_counts, seeds, st.sampled_from([(3,), (2, 3, 4)]))
def test_forward_is_a_product_with_the_weight_at_each_pixel(channels, seed, places):
    params, x = moved_weight(channels, seed), rows(*places, channels)
    z, _ = Conv1x1().forward(params, x)
    np.testing.assert_allclose(z, np.einsum("...i,ij->...j", x, weight_of(params)), rtol=1e-9, atol=1e-11)


@few
@given(channel_counts, seeds, st.sampled_from([(3,), (2, 3, 4)]))
def test_the_log_det_is_that_of_the_weight_times_the_number_of_pixels(channels, seed, places):
    params, x = moved_weight(channels, seed), rows(*places, channels)
    expected = np.prod(places[1:]) * np.linalg.slogdet(weight_of(params))[1]
    _, log_det = Conv1x1().forward(params, x)
    np.testing.assert_allclose(log_det, np.full(places[0], expected), rtol=1e-9, atol=1e-11)


@few
@given(channel_counts, seeds, st.sampled_from([(3,), (2, 3, 4)]))
def test_inverse_undoes_forward_with_the_opposite_log_det(channels, seed, places):
    params, x = moved_weight(channels, seed), rows(*places, channels)
    z, log_det = Conv1x1().forward(params, x)
    back, inverse_log_det = Conv1x1().inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-7, atol=1e-7)
    np.testing.assert_array_equal(inverse_log_det, -log_det)


def test_the_inverse_solves_and_never_forms_an_inverse_matrix(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("an inverse matrix was formed")

    for module in (np.linalg, scipy.linalg):
        for name in ("inv", "pinv"):
            monkeypatch.setattr(module, name, refuse)
    params, x = moved_weight(4), rows(5, 4)
    z, _ = Conv1x1().forward(params, x)
    np.testing.assert_allclose(Conv1x1().inverse(params, z)[0], x, rtol=1e-9)


def test_what_lies_outside_the_two_triangles_does_not_count():
    params, x = moved_weight(4), rows(5, 4)
    full = params | {
        "lower": params["lower"] + np.triu(np.ones((4, 4))),
        "upper": params["upper"] + np.tri(4),
    }
    for method in (Conv1x1().forward, Conv1x1().inverse):
        np.testing.assert_array_equal(method(full, x)[0], method(params, x)[0])


def test_the_signs_and_the_permutation_are_constants():
    params = new(5, seed=3)
    assert params["sign"].dtype == np.int8
    assert set(params["sign"].tolist()) <= {-1, 1}
    assert sorted(params["permutation"].tolist()) == [0, 1, 2, 3, 4]
    constants = {leaf.path for leaf in Layout(params).leaves if leaf.offset < 0}
    assert constants == {"permutation", "sign"}


def test_signs_of_both_kinds_are_drawn():
    signs = np.concatenate([new(4, seed)["sign"] for seed in range(5)])
    assert set(signs.tolist()) == {-1, 1}


def test_the_gradient_leaves_the_signs_alone_and_equals_finite_differences():
    params, x = moved_weight(3), rows(4, 3)
    layout = Layout(params)
    vector, steps = layout.pack(params), 1e-6 * np.eye(layout.size)

    def energy(params):
        (z, log_det), (y, _) = Conv1x1().forward(params, x), Conv1x1().inverse(params, x)
        return (sum_event(z * z) + log_det + sum_event(y * y * y)).sum()

    _, gradient = value_and_grad(energy)(params)
    assert gradient["sign"] is None
    assert gradient["permutation"] is None
    high, low = (
        np.array([energy(layout.unpack(vector + sign * step, params)) for step in steps]) for sign in (1, -1)
    )
    np.testing.assert_allclose(layout.pack(gradient), (high - low) / 2e-6, rtol=1e-5, atol=1e-6)


@every_shape
@every_dtype
def test_a_one_by_one_convolution_keeps_the_dtype_in_both_directions(shape, dtype):
    x = rows(*shape, dtype=dtype)
    params = Conv1x1().init(np.random.default_rng(0), x)
    assert Layout(params).dtype == dtype
    assert {array.dtype for array in (*Conv1x1().forward(params, x), *Conv1x1().inverse(params, x))} == {
        np.dtype(dtype)
    }


@few
@given(channel_counts, seeds, st.sampled_from([(3,), (2, 3, 4)]))
def test_a_permutation_moves_channel_p_i_to_place_i_and_inverse_moves_it_back(channels, seed, places):
    x = rows(*places, channels)
    params = Permutation().init(np.random.default_rng(seed), x)
    assert sorted(params["permutation"].tolist()) == list(range(channels))
    z, _ = Permutation().forward(params, x)
    for place, channel in enumerate(params["permutation"]):
        np.testing.assert_array_equal(z[..., place], x[..., channel])
    np.testing.assert_array_equal(Permutation().inverse(params, z)[0], x)


def test_a_permutation_has_nothing_to_train():
    params = Permutation().init(np.random.default_rng(0), rows(5, 4))
    assert Layout(params).size == 0
    assert not any(tree.is_trained(leaf) for _, leaf in tree.items(params))


@every_shape
def test_reverse_turns_the_channels_round_and_is_its_own_inverse(shape):
    x = rows(*shape)
    z, _ = Reverse().forward({}, x)
    np.testing.assert_array_equal(z, x[..., ::-1])
    np.testing.assert_array_equal(Reverse().inverse({}, z)[0], x)


@every_shape
@every_dtype
@pytest.mark.parametrize("layer", [Permutation(), Reverse()], ids=["Permutation", "Reverse"])
def test_a_reordering_of_channels_keeps_volume_and_dtype(layer, shape, dtype):
    x = rows(*shape, dtype=dtype)
    params = layer.init(np.random.default_rng(0), x)
    for value, log_det in (layer.forward(params, x), layer.inverse(params, x)):
        assert value.dtype == dtype
        np.testing.assert_array_equal(log_det, np.zeros(shape[0], dtype), strict=True)


def test_a_permutation_moves_something_where_it_can():
    drawn = [Permutation().init(np.random.default_rng(seed), np.zeros((4, 2))) for seed in range(20)]
    assert all(params["permutation"].tolist() == [1, 0] for params in drawn)
    assert Permutation().init(np.random.default_rng(0), np.zeros((4, 1)))["permutation"].tolist() == [0]
