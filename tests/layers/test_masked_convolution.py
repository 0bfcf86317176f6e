"""MintNet's layer: masked convolutions with a triangular Jacobian."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import Flow
from npflow.autodiff import Layout, record, value_and_grad
from npflow.errors import ConvergenceError, InputError
from npflow.layers import Inverse, MaskedConvolution, masked_convolution
from npflow.priors import Normal
from npflow.verify.jacobians import by_autograd

every_order = pytest.mark.parametrize("order", ["raster", "reversed"])


def images(*shape, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).normal(0.5, 1.5, shape).astype(dtype)


def moved(layer, x, noise=0.3, seed=0):
    """Parameters away from where they start, by noise that a sum over inputs feels alike however many there are."""
    rng = np.random.default_rng(seed)
    params = layer.init(rng, x)
    for part in params["convolutions"]:
        for name, inputs in (("lower", part["lower"][..., 0].size), ("diagonal", 1), ("bias", 1)):
            part[name] += (noise / np.sqrt(inputs) * rng.standard_normal(part[name].shape)).astype(x.dtype)
    params["log_scale"] += (noise * rng.standard_normal(x.shape[1:])).astype(x.dtype)
    return params


# ---------------------------------------------------------------- the formula


def triangular_matrix(part, height, width, channels):
    """L + D of a convolution as a matrix on whole images, from the definition, weight by weight."""
    _, inputs, outputs = part["lower"].shape
    matrix = np.zeros((height, width, inputs, height, width, outputs))
    for (i, j), (k, m) in itertools.product(np.ndindex(height, width), repeat=2):
        place = 3 * (i - k + 1) + j - m + 1  # where in the kernel around (k, m) the pixel (i, j) is
        for a, b in np.ndindex(inputs, outputs):
            here, there = (i, j, a * channels // inputs), (k, m, b * channels // outputs)
            if here < there and max(abs(i - k), abs(j - m)) <= 1:
                matrix[i, j, a, k, m, b] = part["lower"][place, a, b]
            if here == there:
                matrix[i, j, a, k, m, b] = np.log1p(np.exp(part["diagonal"][a, b]))
    return matrix.reshape(height * width * inputs, -1)


def test_it_is_the_papers_formula_with_matrices_that_are_triangular():
    layer, x = MaskedConvolution(filters=2), images(4, 3, 3, 2)
    params = moved(layer, x)
    h = rows = x.reshape(4, -1)
    for number, part in enumerate(params["convolutions"]):
        h = h @ triangular_matrix(part, 3, 3, 2) + np.tile(part["bias"], 9)
        h = np.where((h > 0) | (number == 2), h, np.exp(h) - 1)
    expected = np.exp(params["log_scale"]).ravel() * rows + h
    z, _ = layer.forward(params, x)
    np.testing.assert_allclose(z.reshape(4, -1), expected, rtol=1e-10, atol=1e-10)


@every_order
def test_the_jacobian_is_triangular_and_positive_on_the_diagonal(order):
    layer, x = MaskedConvolution(3, order), images(4, 3, 4, 2)
    params = moved(layer, x)
    jacobians = by_autograd(lambda x: layer.forward(params, x)[0], x)
    before = np.tril if order == "raster" else np.triu
    np.testing.assert_array_equal(jacobians, before(jacobians))
    diagonals = np.diagonal(jacobians, axis1=1, axis2=2)
    assert (diagonals > 0).all()
    np.testing.assert_allclose(layer.log_det(params, x), np.log(diagonals).sum(axis=1), rtol=1e-12)


def test_reversed_it_is_the_same_of_the_image_upside_down():
    x = images(5, 3, 2, 3)
    layer, other = MaskedConvolution(4), MaskedConvolution(4, "reversed")
    params = moved(layer, x)
    turn = lambda x: -x.reshape(len(x), -1)[:, ::-1].reshape(x.shape)
    params["log_scale"][...] = 0.3
    z, log_det = layer.forward(params, turn(x))
    expected, expected_log_det = other.forward(params, x)
    np.testing.assert_array_equal(turn(z), expected)
    np.testing.assert_allclose(log_det, expected_log_det)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_each_component_is_convex_in_itself_and_reversed_concave(seed):
    """On it rests that the inverse's iteration converges from anywhere."""
    x = images(1, 2, 2, 2, seed=seed)
    for order, sign in (("raster", 1), ("reversed", -1)):
        layer = MaskedConvolution(3, order)
        params = moved(layer, x, noise=1.0, seed=seed)
        for at in np.ndindex(x.shape[1:]):
            line = np.repeat(x, 41, axis=0)
            line[(slice(None), *at)] = np.linspace(-8, 8, 41)
            z = layer.forward(params, line)[0][(slice(None), *at)]
            assert (np.diff(z) > 0).all()
            assert (sign * np.diff(z, 2) > -1e-9 * np.abs(z).max()).all()


@every_order
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_it_starts_near_the_identity(order, dtype):
    layer, x = MaskedConvolution(order=order), images(20, 4, 4, 3, dtype=dtype)
    params = layer.init(np.random.default_rng(0), x)
    z, log_det = layer.forward(params, x)
    assert (log_det > 0).all()
    assert (log_det < 48 * np.log(1.2)).all()
    assert np.corrcoef(z.ravel(), x.ravel())[0, 1] > 0.99
    assert {leaf.dtype for leaf in params["convolutions"][0].values()} == {np.dtype(dtype)}


# ---------------------------------------------------------------- the inverse


@every_order
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_the_inverse_is_exact_after_few_passes(order, dtype, tolerance, monkeypatch):
    layer, passes = MaskedConvolution(6, order), []
    x = images(10, 8, 8, 2, dtype=dtype)
    params = moved(layer, x)
    z, log_det = layer.forward(params, x)
    plain = masked_convolution.residual_block
    monkeypatch.setattr(
        masked_convolution, "residual_block", lambda *arrays: passes.append(1) or plain(*arrays)
    )
    back, inverse_log_det = layer.inverse(params, z)
    assert len(passes) < 40  # of 128 components
    np.testing.assert_allclose(back, x, atol=tolerance)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=100 * tolerance)
    anything = 4 * images(10, 8, 8, 2, dtype=dtype, seed=2)
    np.testing.assert_allclose(
        layer.forward(params, layer.inverse(params, anything)[0])[0], anything, atol=tolerance
    )


def test_an_image_whose_pixels_multiply_rounding_from_row_to_row_is_found_all_the_same():
    """A pixel that is all right but for rounding has to stay still, or those that it throws off never settle."""
    layer, x = MaskedConvolution(4), images(3, 12, 12, 1)
    params, z = moved(layer, x, noise=2.5), 3 * images(3, 12, 12, 1, seed=2)
    found, _ = layer.inverse(params, z)
    assert np.abs(found).max() > 1e15
    again, _ = layer.forward(params, found)
    assert np.abs(again - z).max() < 1e-12 * np.abs(found).max()


def test_what_single_precision_has_no_room_for_is_an_error_that_says_so():
    layer, x = MaskedConvolution(4), images(3, 16, 16, 3, dtype=np.float32)
    flow = Flow(layer, Normal((16, 16, 3)))
    params = {"layer": moved(layer, x, noise=5.0), "prior": {}}
    with pytest.raises(ConvergenceError, match="expected the inverse of a triangular map to settle"):
        flow.sample(params, np.random.default_rng(0), 3)


def test_turned_round_it_is_trained_by_the_same_programs():
    layer = Inverse(MaskedConvolution(2))
    flow, x = Flow(layer, Normal((2, 2, 2))), images(6, 2, 2, 2)
    params = {"layer": moved(layer.layer, x), "prior": {}}
    program = record(flow.loss, params, x)
    params = {"layer": moved(layer.layer, x, seed=3), "prior": {}}
    loss, gradient = program(params, x)
    expected, slopes = value_and_grad(flow.loss)(params, x)
    assert loss == expected
    np.testing.assert_array_equal(gradient, Layout(params).pack(slopes))


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"filters": 0}, "expected MaskedConvolution's filters to be at least 1, got 0"),
        ({"filters": "many"}, "expected MaskedConvolution's filters to be an integer, got 'many'"),
        (
            {"order": "columns"},
            "expected MaskedConvolution's order to be one of 'raster', 'reversed', got 'columns'",
        ),
    ],
)
def test_what_it_cannot_be_is_refused(arguments, sentence):
    with pytest.raises(InputError) as caught:
        MaskedConvolution(**arguments)
    assert str(caught.value) == sentence


def test_rows_of_features_are_refused():
    flow = Flow(MaskedConvolution(), Normal(4))
    with pytest.raises(
        InputError, match=r"expected images \(n, height, width, channels\), got shape \(5, 4\)"
    ):
        flow.init(np.random.default_rng(0), np.ones((5, 4)))
