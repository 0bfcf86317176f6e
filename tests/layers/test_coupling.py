"""The couplings."""

from dataclasses import dataclass

import numpy as np
import pytest
from helpers import perturbed, refusal, results_of, rows, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.layers import (
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    ElementwiseCoupling,
    ScaleShift,
    Shift,
    SplineCoupling,
)
from npflow.layers.layer import pixels
from npflow.networks import MADE, MLP, Network
from npflow.verify.jacobians import by_autograd

NETWORK = MLP((6,), "tanh")
LAYERS = {part: AffineCoupling(NETWORK, part) for part in ("first", "second")}
every_part = pytest.mark.parametrize("part", ["first", "second"])
every_shape = pytest.mark.parametrize("shape", [(5, 4), (2, 3, 2, 4)], ids=["rows", "images"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=15, deadline=None)


def numerical_jacobian(layer, params, row):
    """dz/dx at one row of features by central differences, an output a line."""
    steps = 1e-6 * np.eye(len(row))
    high, low = (layer.forward(params, row + sign * steps)[0] for sign in (1, -1))
    return ((high - low) / 2e-6).T


@every_part
@every_shape
@every_dtype
def test_a_new_coupling_is_the_identity(part, shape, dtype):
    layer, x = LAYERS[part], rows(*shape, dtype=dtype)
    params = layer.init(np.random.default_rng(0), x)
    assert Layout(params).dtype == dtype
    for value, log_det in (layer.forward(params, x), layer.inverse(params, x)):
        np.testing.assert_array_equal(value, x, strict=True)
        np.testing.assert_array_equal(log_det, np.zeros(shape[0], dtype), strict=True)


@few
@given(st.sampled_from(sorted(LAYERS)), st.integers(0, 99))
def test_forward_scales_and_shifts_one_half_by_a_function_of_the_other(part, seed):
    layer, x = LAYERS[part], rows(5, 4)
    params = perturbed(layer, x, seed=seed)
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
    layer, x = LAYERS[part], rows(*shape)
    params = perturbed(layer, x, seed=seed)
    z, log_det = layer.forward(params, x)
    back, inverse_log_det = layer.inverse(params, z)
    np.testing.assert_allclose(back, x, rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(inverse_log_det, -log_det, rtol=1e-8, atol=1e-8)


@every_part
def test_the_jacobian_is_triangular_with_the_scales_on_its_diagonal(part):
    layer, x = LAYERS[part], rows(5, 4)
    params = perturbed(layer, x)
    jacobian = numerical_jacobian(layer, params, x[0])
    kept, changed = (slice(2, 4), slice(0, 2)) if part == "first" else (slice(0, 2), slice(2, 4))
    np.testing.assert_allclose(jacobian[kept, kept], np.eye(2), atol=1e-8)
    np.testing.assert_allclose(jacobian[kept, changed], 0, atol=1e-8)
    own = jacobian[changed, changed]
    np.testing.assert_allclose(own, np.diag(np.diag(own)), atol=1e-8)
    assert np.abs(jacobian[changed, kept]).min() > 1e-3
    kept, _ = layer.mask.parts(x)
    log_scale = 2 * np.tanh(layer.network.apply(params, kept)[0, :2] / 2)
    np.testing.assert_allclose(np.diag(own), np.exp(log_scale), rtol=1e-6)


@every_part
def test_the_log_det_is_that_of_the_numerical_jacobian(part):
    layer, x = LAYERS[part], rows(5, 4)
    params = perturbed(layer, x)
    expected = [np.linalg.slogdet(numerical_jacobian(layer, params, row))[1] for row in x]
    np.testing.assert_allclose(layer.forward(params, x)[1], expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("limit", [0.5, 2, 10.0])
@every_dtype
def test_the_log_scale_stays_inside_its_limit_whatever_the_network_gives(limit, dtype):
    layer = AffineCoupling(MLP(()), log_scale_limit=limit)
    x = rows(5, 4, dtype=dtype)
    params = perturbed(layer, x, by=1e4)
    log_det = np.abs(layer.log_det(params, x)).max()  # of two channels
    assert 0.99 * 2 * limit < log_det <= 2 * limit
    for values in (*layer.forward(params, x), *layer.inverse(params, x)):
        assert np.isfinite(values).all()


@pytest.mark.parametrize("limit", [2, np.float64(2), np.float32(2)])
@every_dtype
def test_a_coupling_keeps_the_dtype_whatever_the_type_of_its_limit(limit, dtype):
    layer, x = AffineCoupling(NETWORK, log_scale_limit=limit), rows(5, 4, dtype=dtype)
    params = perturbed(layer, x)
    arrays = [*layer.forward(params, x), *layer.inverse(params, x), layer.log_det(params, x)]
    assert {array.dtype for array in arrays} == {np.dtype(dtype)}


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
def test_channels_where_the_mask_is_true_are_transformed_by_a_function_of_the_others(kind, part, shape):
    layer, x, mask = kind(NETWORK, part), rows(*shape), np.array(MASKS[part], bool)
    params = perturbed(layer, x)
    z, _ = layer.forward(params, x)
    np.testing.assert_array_equal((z != x).all(axis=tuple(range(x.ndim - 1))), mask)
    np.testing.assert_array_equal(z[..., ~mask], x[..., ~mask])
    once, _ = layer.forward(params, np.where(mask, x + 1, x))  # the network does not see the difference
    slope = once[..., mask] - z[..., mask]
    twice, _ = layer.forward(params, np.where(mask, x + 2, x))
    np.testing.assert_allclose(twice[..., mask] - z[..., mask], 2 * slope, rtol=1e-9)


def test_two_couplings_of_opposite_masks_leave_nothing_as_it_is():
    x = rows(7, 5)
    for one, other in (("first", "second"), ("even", "odd")):
        chain = Chain([AffineCoupling(NETWORK, one), AffineCoupling(NETWORK, other)])
        assert (chain.forward(perturbed(chain, x), x)[0] != x).all()


def test_an_additive_coupling_keeps_volume_exactly():
    layer, x = AdditiveCoupling(NETWORK), rows(5, 4)
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
    layer, x, changed = (
        AffineCoupling(WholeImage(), board),
        rows(*shape, dtype=dtype),
        board_mask(board, shape),
    )
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
    layer, x = kind(WholeImage(), board), rows(3, 2, 2, 2)
    params = perturbed(layer, x)
    jacobians = by_autograd(lambda x: layer.forward(params, x)[0], x)
    changed = np.repeat(board_mask(board, x.shape).ravel(), 2)
    own = jacobians[:, changed][:, :, changed]
    np.testing.assert_array_equal(own, own * np.eye(len(own[0])))
    np.testing.assert_array_equal(jacobians[:, ~changed], np.broadcast_to(np.eye(8)[~changed], (3, 4, 8)))
    assert (jacobians[:, changed][:, :, ~changed] != 0).all()  # each depends on every pixel that stays
    expected = np.linalg.slogdet(jacobians)[1]
    np.testing.assert_allclose(layer.log_det(params, x), expected, rtol=1e-9, atol=1e-12)
    back, log_det = layer.inverse(params, layer.forward(params, x)[0])
    np.testing.assert_allclose(back, x, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(log_det, -expected, rtol=1e-9, atol=1e-12)


def test_two_checkerboards_leave_no_pixel_as_it_is():
    x = rows(3, 3, 2, 1)
    chain = Chain([AffineCoupling(WholeImage(), board) for board in BOARDS])
    assert (chain.forward(perturbed(chain, x), x)[0] != x).all()


# ---------------------------------------------------------------- the formulas and the general form


@pytest.mark.parametrize(
    ("written_out", "general"),
    [
        (AdditiveCoupling, lambda *args: ElementwiseCoupling(*args, Shift())),
        (AffineCoupling, lambda *args: ElementwiseCoupling(*args, ScaleShift())),
        (lambda *args: AffineCoupling(*args, 0.5), lambda *args: ElementwiseCoupling(*args, ScaleShift(0.5))),
    ],
    ids=["additive", "affine", "affine 0.5"],
)
@pytest.mark.parametrize(
    ("transformed", "shape"), [("second", (5, 4)), ("odd", (5, 3, 2, 5)), ("checkerboard-odd", (5, 3, 2, 1))]
)
@every_dtype
def test_a_coupling_has_the_bits_of_the_general_one(written_out, general, transformed, shape, dtype):
    x, context = rows(*shape, dtype=dtype), rows(5, 2, dtype=dtype, seed=2)
    layers = written_out(NETWORK, transformed), general(NETWORK, transformed)
    params, same = (perturbed(layer, x, context) for layer in layers)
    assert same_bits(params, same)

    results = [results_of(layer, params, x, context) for layer in layers]
    assert same_bits(*results)


# ---------------------------------------------------------------- contexts, and what is refused


@pytest.mark.parametrize("kind", [AdditiveCoupling, AffineCoupling])
@pytest.mark.parametrize(
    ("transformed", "shape"),
    [("second", (5, 4)), ("second", (5, 3, 2, 4)), ("checkerboard-even", (5, 3, 2, 4))],
)
def test_with_a_context_each_row_is_transformed_by_its_own(kind, transformed, shape):
    layer, x, context = kind(NETWORK, transformed), rows(*shape), rows(5, 3, seed=3)
    params = perturbed(layer, x, context)
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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: AffineCoupling(transformed="third"),
            "AffineCoupling's transformed to be 'first', .* got 'third'",
        ),
        (lambda: AffineCoupling(transformed=(True, True)), r"true for some channels .* got \(True, True\)"),
        (lambda: AffineCoupling(transformed=(0, 1, 2)), r"true for some channels .* got \(0, 1, 2\)"),
        (lambda: AffineCoupling(log_scale_limit=0), "log_scale_limit to be a finite number above 0, got 0"),
        (
            lambda: AffineCoupling(log_scale_limit=np.inf),
            "log_scale_limit to be a finite number above 0, got inf",
        ),
        (lambda: AffineCoupling(log_scale_limit=None), "log_scale_limit to be a number above 0, got None"),
        (lambda: AffineCoupling(MADE()), "network to see all of its input for each output, got MADE"),
        (lambda: AffineCoupling("tanh"), "AffineCoupling's network to be an object with init and apply"),
        (lambda: AffineCoupling(MLP), "AffineCoupling's network to be an object with init and apply"),
        (
            lambda: ElementwiseCoupling(transformer=MLP()),
            "ElementwiseCoupling's transformer to be .*Elementwise",
        ),
        (lambda: SplineCoupling(transformer=Shift()), "SplineCoupling's transformer to be .*Spline"),
    ],
)
def test_hyper_parameters_that_cannot_be_used_are_refused(make, words):
    with pytest.raises(InputError, match=words):
        make()


@pytest.mark.parametrize(
    ("transformed", "shape", "words"),
    [
        ("second", (5, 1), "at least two channels to take parts of, got 1"),
        ("odd", (2, 3, 2, 1), "at least two channels to take parts of, got 1"),
        ((0, 1, 1), (5, 4), "expected 3 channels, one for each place of the mask, got 4"),
        ("checkerboard-odd", (5, 4), "at least two pixels for a checkerboard, got shape (5, 4)"),
        ("checkerboard-odd", (2, 1, 1, 3), "at least two pixels for a checkerboard, got shape (2, 1, 1, 3)"),
    ],
)
def test_rows_that_cannot_be_taken_apart_are_refused(transformed, shape, words, rng):
    assert words in refusal(AffineCoupling(NETWORK, transformed).init, rng, rows(*shape))
