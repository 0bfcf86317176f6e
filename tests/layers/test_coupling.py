"""The couplings."""

import re
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.layers import AdditiveCoupling, AffineCoupling, Chain, SplineCoupling
from npflow.layers.layer import pixels
from npflow.networks import MADE, MLP, Beside, Network
from npflow.verify.jacobians import by_autograd

NETWORK = MLP((6,), "tanh")
LAYERS = {part: AffineCoupling(NETWORK, part) for part in ("first", "second")}
every_part = pytest.mark.parametrize("part", ["first", "second"])
every_shape = pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)], ids=["rows", "images"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=15, deadline=None)


def rows(shape=(5, 4), dtype=np.float64):
    return np.random.default_rng(1).standard_normal(shape).astype(dtype)


def perturbed(layer, x, seed=0, size=0.5):
    rng = np.random.default_rng(seed)
    params = layer.init(rng, x)
    layout = Layout(params)
    noise = size * rng.standard_normal(layout.size).astype(layout.dtype)
    return layout.unpack(layout.pack(params) + noise, params)


def numerical_jacobian(layer, params, row):
    """dz/dx at one row of features by central differences, an output a line."""
    steps = 1e-6 * np.eye(len(row))
    high, low = (layer.forward(params, row + sign * steps)[0] for sign in (1, -1))
    return ((high - low) / 2e-6).T


@every_part
@every_shape
@every_dtype
def test_a_new_coupling_is_the_identity(part, shape, dtype):
    layer, x = LAYERS[part], rows(shape, dtype)
    params = layer.init(np.random.default_rng(0), x)
    assert Layout(params).dtype == dtype
    for value, log_det in (layer.forward(params, x), layer.inverse(params, x)):
        np.testing.assert_array_equal(value, x, strict=True)
        np.testing.assert_array_equal(log_det, np.zeros(shape[0], dtype), strict=True)


@few
@given(st.sampled_from(sorted(LAYERS)), st.integers(0, 99))
def test_forward_scales_and_shifts_one_half_by_a_function_of_the_other(part, seed):
    layer, x = LAYERS[part], rows()
    params = perturbed(layer, x, seed)
    first, second = x[:, :2], x[:, 2:]
    kept, changed = (second, first) if part == "first" else (first, second)
    raw, shift = np.split(NETWORK.apply(params, kept), 2, axis=1)
    log_scale = 2 * np.tanh(raw / 2)
    changed = changed * np.exp(log_scale) + shift
    z, log_det = layer.forward(params, x)
    expected = (changed, kept) if part == "first" else (kept, changed)
    np.testing.assert_allclose(z, np.concatenate(expected, axis=1), rtol=1e-12)
    np.testing.assert_allclose(log_det, log_scale.sum(1), rtol=1e-12)


@few
@given(st.sampled_from(sorted(LAYERS)), st.sampled_from([(5, 4), (2, 3, 2, 6)]), st.integers(0, 99))
def test_inverse_undoes_forward_with_the_opposite_log_det(part, shape, seed):
    layer, x = LAYERS[part], rows(shape)
    params = perturbed(layer, x, seed)
    z, log_det = layer.forward(params, x)
    back, inverse_log_det = layer.inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-8, atol=1e-8)


@every_part
def test_the_jacobian_is_triangular_with_the_scales_on_its_diagonal(part):
    layer, x = LAYERS[part], rows()
    params = perturbed(layer, x)
    jacobian = numerical_jacobian(layer, params, x[0])
    kept, changed = (slice(2, 4), slice(0, 2)) if part == "first" else (slice(0, 2), slice(2, 4))
    np.testing.assert_allclose(jacobian[kept, kept], np.eye(2), atol=1e-8)
    np.testing.assert_allclose(jacobian[kept, changed], 0, atol=1e-8)
    own = jacobian[changed, changed]
    np.testing.assert_allclose(own, np.diag(np.diag(own)), atol=1e-8)
    assert np.abs(jacobian[changed, kept]).min() > 1e-3
    kept, changed = layer.mask.parts(x)
    _, log_scale = layer.transformer.transform(layer.network.apply(params, kept), changed)
    np.testing.assert_allclose(np.diag(own), np.exp(log_scale[0]), rtol=1e-6)


@every_part
def test_the_log_det_is_that_of_the_numerical_jacobian(part):
    layer, x = LAYERS[part], rows()
    params = perturbed(layer, x)
    expected = [np.linalg.slogdet(numerical_jacobian(layer, params, row))[1] for row in x]
    np.testing.assert_allclose(layer.forward(params, x)[1], expected, rtol=1e-6, atol=1e-7)


@every_part
@every_shape
def test_the_other_half_stays_as_it_is(part, shape):
    layer, x = LAYERS[part], rows(shape)
    params = perturbed(layer, x)
    kept = slice(2, 4) if part == "first" else slice(0, 2)
    for value, _ in (layer.forward(params, x), layer.inverse(params, x)):
        np.testing.assert_array_equal(value[..., kept], x[..., kept])
        assert not np.allclose(value, x)


@pytest.mark.parametrize("limit", [0.5, 2, 10.0])
@every_dtype
def test_the_log_scale_stays_inside_its_limit_whatever_the_network_gives(limit, dtype):
    layer = AffineCoupling(MLP(()), log_scale_limit=limit)
    x = rows(dtype=dtype)
    params = perturbed(layer, x, size=1e4)
    kept, changed = layer.mask.parts(x)
    _, log_scale = layer.transformer.transform(layer.network.apply(params, kept), changed)
    assert np.abs(log_scale).max() <= limit
    assert np.abs(log_scale).max() > 0.99 * limit
    for values in (*layer.forward(params, x), *layer.inverse(params, x)):
        assert np.isfinite(values).all()


@pytest.mark.parametrize("limit", [2, np.float64(2), np.float32(2)])
@every_shape
@every_dtype
def test_a_coupling_keeps_the_dtype_whatever_the_type_of_its_limit(limit, shape, dtype):
    layer, x = AffineCoupling(NETWORK, log_scale_limit=limit), rows(shape, dtype)
    params = perturbed(layer, x)
    arrays = [*layer.forward(params, x), *layer.inverse(params, x), layer.log_det(params, x)]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


@every_part
def test_join_puts_halves_back_in_their_places(part):
    x = rows((2, 3, 2, 4))
    np.testing.assert_array_equal(LAYERS[part].mask.join(*LAYERS[part].mask.parts(x)), x)


@pytest.mark.parametrize("shape", [(5, 1), (2, 3, 2, 1)])
def test_one_channel_has_no_parts(shape):
    with pytest.raises(InputError) as caught:
        AffineCoupling().init(np.random.default_rng(0), rows(shape))
    assert str(caught.value) == "expected at least two channels to take parts of, got 1"


MASKS = {
    "first": [1, 1, 1, 0, 0],
    "second": [0, 0, 0, 1, 1],
    "even": [1, 0, 1, 0, 1],
    "odd": [0, 1, 0, 1, 0],
    (1, 0, 0, 1, 0): [1, 0, 0, 1, 0],
}


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
@pytest.mark.parametrize("part", MASKS)
@pytest.mark.parametrize("shape", [(7, 5), (2, 3, 2, 5)], ids=["rows", "images"])
def test_what_is_transformed_is_where_the_mask_is_true_by_what_lies_where_it_is_false(kind, part, shape):
    layer, x, mask = kind(NETWORK, part), rows(shape), np.array(MASKS[part], bool)
    params = perturbed(layer, x)
    z, _ = layer.forward(params, x)
    np.testing.assert_array_equal((z != x).all(axis=tuple(range(x.ndim - 1))), mask)
    np.testing.assert_array_equal(z[..., ~mask], x[..., ~mask])
    moved, _ = layer.forward(params, np.where(mask, x + 1, x))  # the network does not see the difference
    slope = moved[..., mask] - z[..., mask]
    again, _ = layer.forward(params, np.where(mask, x + 2, x))
    np.testing.assert_allclose(again[..., mask] - z[..., mask], 2 * slope, rtol=1e-9)


def test_two_couplings_of_opposite_masks_leave_nothing_as_it_is():
    x = rows((7, 5))
    for one, other in (("first", "second"), ("even", "odd")):
        chain = Chain([AffineCoupling(NETWORK, one), AffineCoupling(NETWORK, other)])
        assert (chain.forward(perturbed(chain, x), x)[0] != x).all()


def test_an_additive_coupling_keeps_volume_exactly():
    layer, x = AdditiveCoupling(NETWORK), rows()
    params = perturbed(layer, x)
    for value, log_det in (layer.forward(params, x), layer.inverse(params, x)):
        assert not np.allclose(value, x)
        np.testing.assert_array_equal(log_det, np.zeros(len(x)))


# ---------------------------------------------------------------- checkerboards


@dataclass(frozen=True)
class WholeImage(Network):
    """A dense network of an image's pixels, all of which it sees for each."""

    def init(self, rng, x, outputs):
        return NETWORK.init(rng, x.reshape(len(x), -1), pixels(x) * outputs)

    def apply(self, params, x):
        return NETWORK.apply(params, x.reshape(len(x), -1)).reshape(*x.shape[:-1], -1)


BOARDS = {"checkerboard-odd": 1, "checkerboard-even": 0}
every_board = pytest.mark.parametrize("board", BOARDS)


def board_mask(board, shape):
    return np.sum(np.indices(shape[1:3]), axis=0) % 2 == BOARDS[board]


@every_board
@every_dtype
@pytest.mark.parametrize("shape", [(4, 2, 3, 2), (2, 3, 3, 1)])
def test_on_a_checkerboard_pixels_are_transformed_by_what_a_network_makes_of_the_others(board, dtype, shape):
    layer, x, changed = AffineCoupling(WholeImage(), board), rows(shape, dtype), board_mask(board, shape)
    params = perturbed(layer, x)
    z, log_det = layer.forward(params, x)
    m = (~changed[..., None]).astype(dtype)
    raw, shift = np.split(layer.network.apply(params, m * x), 2, axis=-1)
    log_scale = 2 * np.tanh(raw / 2)
    tolerance = {"rtol": 1e-12 if dtype == np.float64 else 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(z, m * x + (1 - m) * (x * np.exp(log_scale) + shift), **tolerance)
    np.testing.assert_allclose(log_det, np.sum((1 - m) * log_scale, axis=(1, 2, 3)), **tolerance)
    assert z.dtype == log_det.dtype == dtype
    assert z[:, ~changed].tobytes() == x[:, ~changed].tobytes()
    assert (z[:, changed] != x[:, changed]).all()


@every_board
@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling, SplineCoupling])
def test_on_a_checkerboard_the_log_det_is_that_of_the_jacobian(kind, board):
    layer, x = kind(WholeImage(), board), rows((3, 2, 2, 2))
    params = perturbed(layer, x)
    jacobians = by_autograd(lambda x: layer.forward(params, x)[0], x)
    changed = np.repeat(board_mask(board, x.shape).ravel(), 2)
    own = jacobians[:, changed][:, :, changed]
    np.testing.assert_array_equal(own, own * np.eye(len(own[0])))
    np.testing.assert_array_equal(jacobians[:, ~changed], np.broadcast_to(np.eye(8)[~changed], (3, 4, 8)))
    assert (jacobians[:, changed][:, :, ~changed] != 0).all()  # every pixel that stays has a say
    expected = np.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(layer.log_det(params, x), expected, rtol=1e-9, atol=1e-12)
    back, log_det = layer.inverse(params, layer.forward(params, x)[0])
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_det, -expected, rtol=1e-9, atol=1e-12)


def test_two_checkerboards_leave_no_pixel_as_it_is():
    x = rows((3, 3, 2, 1))
    chain = Chain([AffineCoupling(WholeImage(), board) for board in BOARDS])
    assert (chain.forward(perturbed(chain, x), x)[0] != x).all()


@pytest.mark.parametrize("shape", [(5, 4), (2, 1, 1, 3)])
def test_a_checkerboard_is_refused_where_there_are_no_two_pixels(shape):
    sentence = (
        "expected images (n, height, width, channels) of at least two pixels for a checkerboard, got shape "
    )
    with pytest.raises(InputError, match=re.escape(f"{sentence}{shape}")):
        AffineCoupling(NETWORK, "checkerboard-odd").init(np.random.default_rng(0), rows(shape))


# ---------------------------------------------------------------- contexts, and what is refused


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
@pytest.mark.parametrize(
    ("transformed", "shape"),
    [("second", (5, 4)), ("second", (5, 3, 2, 4)), ("checkerboard-even", (5, 3, 2, 4))],
)
def test_with_a_context_each_row_is_transformed_by_its_own(kind, transformed, shape):
    layer, x, rng = kind(NETWORK, transformed), rows(shape), np.random.default_rng(3)
    context = rng.standard_normal((5, 3))
    start = layer.init(rng, x, context=context)
    layout = Layout(start)
    params = layout.unpack(0.5 * rng.standard_normal(layout.size), start)
    z, log_det = layer.forward(params, x, context=context)
    for row in range(5):
        alone, log_det_alone = layer.forward(params, x[row : row + 1], context=context[row : row + 1])
        np.testing.assert_allclose(alone[0], z[row], rtol=1e-12)
        np.testing.assert_allclose(log_det_alone[0], log_det[row], rtol=1e-12, atol=1e-15)
    back, _ = layer.inverse(params, z, context=context)
    np.testing.assert_allclose(back, x, rtol=1e-10, atol=1e-10)
    other, _ = layer.forward(params, x, context=context[::-1].copy())
    assert not np.allclose(other[0], z[0])
    np.testing.assert_array_equal(layer.log_det(params, x, context=context), log_det)


EXPECTED = (
    "expected AffineCoupling's transformed to be 'first', 'second', 'odd', 'even', 'checkerboard-odd', "
    "'checkerboard-even' or a mask"
)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            {"transformed": "third"},
            f"{EXPECTED}, got 'third'",
        ),
        (
            {"transformed": (True, True)},
            f"{EXPECTED}, true for some channels and false for others, got (True, True)",
        ),
        (
            {"transformed": (0, 1, 2)},
            f"{EXPECTED}, true for some channels and false for others, got (0, 1, 2)",
        ),
        (
            {"log_scale_limit": 0},
            "expected AffineCoupling's log_scale_limit to be a finite number above 0, got 0.0",
        ),
        (
            {"log_scale_limit": np.inf},
            "expected AffineCoupling's log_scale_limit to be a finite number above 0, got inf",
        ),
        (
            {"log_scale_limit": None},
            "expected AffineCoupling's log_scale_limit to be a number above 0, got None",
        ),
        (
            {"log_scale_limit": "2"},
            "expected AffineCoupling's log_scale_limit to be a number above 0, got '2'",
        ),
    ],
)
def test_hyper_parameters_that_cannot_be_used_are_refused(arguments, sentence):
    with pytest.raises(InputError) as caught:
        AffineCoupling(**arguments)
    assert str(caught.value) == sentence


def test_a_masked_network_is_refused():
    with pytest.raises(
        InputError, match="expected AffineCoupling's network to see all of its input for each output"
    ):
        AffineCoupling(MADE())


def test_a_mask_for_other_channels_is_refused():
    with pytest.raises(InputError, match="expected 3 channels, one for each place of the mask, got 4"):
        AdditiveCoupling(NETWORK, (0, 1, 1)).init(np.random.default_rng(0), rows())


@pytest.mark.parametrize("network", ["tanh", MLP, None])
def test_what_is_not_a_network_is_refused(network):
    with pytest.raises(
        InputError, match="expected AffineCoupling's network to be an object with init and apply"
    ):
        AffineCoupling(network)
    with pytest.raises(InputError, match="expected Beside's shift to be an object with init and apply"):
        Beside(MLP(), network)
