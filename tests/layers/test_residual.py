"""Residual layers: the bound of the Lipschitz constant, the fixed point, and estimates of the log-det."""

import math

import numpy as np
import pytest
from autograd import elementwise_grad
from autograd.test_util import check_grads
from helpers import moved, perturbed, refusal, rows

from npflow.autodiff import Layout, value_and_grad
from npflow.autodiff.convolution import conv2d
from npflow.errors import ConvergenceError
from npflow.layers import Residual
from npflow.layers import residual as residual_module
from npflow.layers.residual import (
    bounded,
    fixed_point,
    invert_residual,
    jacobian,
    log_det_plus_identity,
    norm_bound,
    residual,
    times_jacobian,
)
from npflow.verify.jacobians import by_autograd

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def strong(layer, x, seed=0):
    """Parameters whose network is at its bound."""
    params = moved(layer.init(np.random.default_rng(seed), x), seed, by=3.0)
    params[-1]["weight"] = params[-1]["weight"] + rows(*params[-1]["weight"].shape, dtype=x.dtype)
    return params


# ---------------------------------------------------------------- the Lipschitz constant


@every_dtype
@pytest.mark.parametrize(
    "shape", [(1, 1), (3, 8), (64, 64), (200, 5), (3, 3, 2, 4), (3, 3, 4, 2), (1, 1, 3, 3)]
)
def test_the_bound_lies_between_the_largest_singular_value_and_a_known_multiple(shape, dtype):
    for seed in range(5):
        weight = rows(*shape, dtype=dtype, seed=seed) * dtype(10.0 ** (3 * seed - 6))
        bound = norm_bound(weight)
        assert bound.dtype == dtype
        slack = 100 * np.finfo(dtype).eps
        size, most = min(shape[-2:]), 1.0
        if shape[0] == 3 and len(shape) == 4:  # for the distance between the points of the grid
            most = 1 / np.cos(np.pi / 10) ** 2
        ratio = bound / largest_singular_value(weight.astype(np.float64))
        assert 1 - slack <= ratio <= most * size ** (1 / 128) + slack


def largest_singular_value(weight):
    """That of a matrix, or of a convolution on the infinite plane, by a fine grid of frequencies."""
    if weight.ndim == 2:
        return np.linalg.norm(weight, 2)
    wave = np.exp(1j * np.outer(np.linspace(0, 2 * np.pi, 97), np.arange(len(weight))))
    return np.linalg.norm(np.einsum("ad,be,deio->abio", wave, wave, weight), 2, axis=(2, 3)).max()


def test_the_bound_is_reached_where_all_singular_values_are_equal_or_one_counts():
    assert norm_bound(2 * np.eye(16)) == pytest.approx(2 * 16 ** (1 / 128))
    assert norm_bound(np.diag([5.0, 0.1, 0.1])) == pytest.approx(5.0)
    assert bounded(np.zeros((3, 4)), 0.9, 1.0).max() == 0


@pytest.mark.parametrize("size", [4, 7])
def test_the_bound_of_a_kernel_holds_for_images_with_zeros_around_them(size):
    kernel = rows(3, 3, 2, 3)
    matrix = conv2d(np.eye(size * size * 2).reshape(-1, size, size, 2), kernel).reshape(size * size * 2, -1)
    assert 0.7 * norm_bound(kernel) < np.linalg.norm(matrix, 2) <= norm_bound(kernel)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (3, 3, 2, 4), (3, 3, 3, 2)])
@pytest.mark.parametrize("most", [0.5, 50.0])
def test_a_weight_within_its_bound_has_its_derivative(shape, most):
    weight = rows(*shape)
    found = bounded(weight, most, 2.0)
    assert 2 * norm_bound(found) == pytest.approx(min(most, norm_bound(weight)))
    check_grads(lambda weight: bounded(weight, most, 2.0), modes=["rev"], order=1)(weight)


@pytest.mark.parametrize("lipschitz", [0.3, 0.9, 0.99])
def test_no_distance_is_stretched_beyond_the_bound(lipschitz):
    layer, x = Residual((16, 16), lipschitz), rows(400, 3) * 3
    params = strong(layer, x)
    arrays = layer.arrays(params)
    g, slopes = residual(x, *arrays)
    stretched = np.linalg.norm(g[1:] - g[:-1], axis=1) / np.linalg.norm(x[1:] - x[:-1], axis=1)
    norms = np.linalg.norm(jacobian(slopes, x.shape[1:], *arrays), 2, axis=(1, 2))
    assert max(stretched.max(), norms.max()) <= lipschitz
    assert norms.max() > lipschitz / 15  # the bound is not far off


@pytest.mark.parametrize("value", [0, 1, 1.5, "a"])
def test_a_constant_that_is_not_between_0_and_1_is_refused(value):
    assert "lipschitz" in refusal(Residual, (8,), value)


def test_a_network_without_hidden_layers_is_refused():
    assert "expected at least one number in Residual's hidden, got none" in refusal(Residual, ())


# ---------------------------------------------------------------- the network's derivatives


@pytest.mark.parametrize("shape", [(3,), (3, 2, 2)])
def test_the_jacobian_is_that_of_autograd_and_products_with_it_agree(shape):
    layer, x = Residual((8, 5)), rows(6, *shape)
    arrays = layer.arrays(strong(layer, x))
    _, slopes = residual(x, *arrays)
    G = jacobian(slopes, shape, *arrays)
    exact = by_autograd(lambda x: residual(x, *arrays)[0], x)
    np.testing.assert_allclose(np.swapaxes(G, 1, 2), exact, atol=1e-14)
    v = rows(6, *shape, seed=4)
    product = np.einsum("nij,nj->ni", exact, v.reshape(6, -1))
    np.testing.assert_allclose(times_jacobian(v, slopes, *arrays).reshape(6, -1), product, atol=1e-14)


def test_the_log_det_has_its_derivative():
    check_grads(log_det_plus_identity, modes=["rev"], order=1)(0.2 * rows(4, 3, 3))


# ---------------------------------------------------------------- the inverse


@every_dtype
@pytest.mark.parametrize("lipschitz", [0.5, 0.99])
def test_the_inverse_is_exact_to_rounding(dtype, lipschitz):
    layer, x = Residual((16, 16), lipschitz), 3 * rows(50, 4, dtype=dtype)
    params = strong(layer, x)
    z, log_det = layer.forward(params, x)
    back, back_log_det = layer.inverse(params, z)
    eps = np.finfo(dtype).eps
    assert back.dtype == dtype
    assert np.abs(back - x).max() <= 100 * eps * np.abs(x).max() / (1 - lipschitz)
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e4 * eps)


@pytest.mark.parametrize("newton", [None, lambda r, _: 0 * r])
def test_the_fixed_point_stops_after_as_many_steps_as_are_guaranteed(newton):
    calls = []

    def rest(x):
        calls.append(x)
        return 1.0 - 1.9 * x, None  # turns round its fixed point: the slowest that a map of this constant is

    x = fixed_point(rest, np.zeros((1, 1)), 0.9, newton)  # one of the Newtons never helps
    assert x[0, 0] == pytest.approx(1 / 1.9, rel=1e-15)
    assert len(calls) <= 1 + math.ceil(math.log(2**-55) / math.log(0.9)) * (1 if newton is None else 2)


def test_newtons_steps_find_it_in_a_few(monkeypatch):
    layer, x = Residual((16, 16), 0.99), 3 * rows(200, 2)
    params, calls = strong(layer, x), []
    z, _ = layer.forward(params, x)
    plain = residual_module.residual
    monkeypatch.setattr(residual_module, "residual", lambda *args: calls.append(0) or plain(*args))
    back = layer.inverse(params, z)[0]
    np.testing.assert_allclose(back, x, atol=1e-11)
    assert len(calls) < 30


def test_an_image_comes_back_and_its_gradient_goes_through_the_implicit_function():
    layer, x = Residual((4, 4), 0.8), rows(2, 3, 3, 2)
    params = strong(layer, x)
    z, log_det = layer.forward(params, x)
    back, back_log_det = layer.inverse(params, z)
    np.testing.assert_allclose(back, x, atol=1e-13)
    np.testing.assert_allclose(back_log_det, -log_det, atol=1e-12)
    check_grads(lambda z: layer.inverse(params, z)[0], modes=["rev"], order=1)(z)


@pytest.mark.parametrize("shape", [(2,), (2, 2, 1)])
def test_a_second_derivative_of_the_inverse_is_refused_rather_than_zero(shape):
    import autograd.numpy as anp

    layer, z = Residual((4,)), rows(3, *shape)
    params = strong(layer, z)
    slope = elementwise_grad(lambda z: layer.inverse(params, z)[0])
    with pytest.raises(NotImplementedError, match="VJP of _solve_transposed"):
        elementwise_grad(lambda z: anp.sum(slope(z)))(z)


def test_rows_of_another_shape_are_refused():
    assert "got shape (3, 2, 2)" in refusal(Residual().init, np.random.default_rng(0), rows(3, 2, 2))


def test_the_inverse_has_the_derivatives_of_the_implicit_function():
    layer, z = Residual((6,), 0.8), rows(4, 2)
    params = strong(layer, z)
    layout = Layout(params)

    def found(vector, z):
        return invert_residual(z, layer.lipschitz, *layer.arrays(layout.unpack(vector, params)))

    start = layout.pack(params)
    loss = lambda p: np.sum(np.sin(layer.inverse(p["layer"], p["z"])[0]) @ np.arange(1.0, 3))
    _, gradient = value_and_grad(lambda p: loss_of(p, layer))({"layer": params, "z": z})
    direction = rows(*start.shape, seed=7)
    h = 1e-6
    differences = (
        loss({"layer": layout.unpack(start + h * direction, params), "z": z})
        - loss({"layer": layout.unpack(start - h * direction, params), "z": z})
    ) / (2 * h)
    assert layout.pack(gradient["layer"]) @ direction == pytest.approx(differences, rel=1e-6)
    check_grads(lambda z: found(start, z), modes=["rev"], order=1)(z)


def loss_of(p, layer):
    """A sum over the inverse, under autograd."""
    import autograd.numpy as anp

    return anp.sum(anp.dot(anp.sin(layer.inverse(p["layer"], p["z"])[0]), np.arange(1.0, 3)))


def test_weights_that_are_not_finite_are_told():
    layer, x = Residual((4,)), rows(3, 2)
    params = perturbed(layer, x)
    params[0]["weight"][0, 0] = np.nan
    with pytest.raises(ConvergenceError, match="are its weights finite"):
        layer.inverse(params, x)


# ---------------------------------------------------------------- estimates


def estimates(layer, params, x, coefficients, draws=4000, seed=3):
    """The log-det of each row of x by many draws, shape (draws, n)."""
    many = np.tile(x, (draws, 1))
    v = np.random.default_rng(seed).standard_normal(many.shape)
    _, log_det = layer.forward_estimate(params, many, v, np.tile(coefficients, (len(many), 1)))
    return log_det.reshape(draws, len(x))


def test_the_series_has_the_exact_log_det_as_its_mean():
    layer, x = Residual((8,), 0.8), rows(3, 3)
    params = strong(layer, x)
    z, exact = layer.forward(params, x)
    found = estimates(layer, params, x, np.ones(60))
    error = found.std(axis=0) / math.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - exact) < 4 * error)
    assert np.all(error < 0.05)
    np.testing.assert_array_equal(layer.forward_estimate(params, x, x, np.ones((3, 2)))[0], z)


def test_a_series_that_is_cut_off_has_the_bias_of_the_terms_that_are_missing():
    layer, x = Residual((8,), 0.95), rows(2, 3)
    params = strong(layer, x)
    _, slopes = residual(x, *layer.arrays(params))
    G = jacobian(slopes, x.shape[1:], *layer.arrays(params))
    for terms in (1, 3):
        powers = [np.trace(np.linalg.matrix_power(G, k), axis1=1, axis2=2) for k in range(1, terms + 1)]
        expected = sum((-1) ** k / (k + 1) * power for k, power in enumerate(powers))
        found = estimates(layer, params, x, np.ones(terms))
        error = found.std(axis=0) / math.sqrt(len(found))
        assert np.all(np.abs(found.mean(axis=0) - expected) < 4 * error)


def test_the_gradient_of_the_estimate_has_the_exact_gradient_as_its_mean():
    import autograd.numpy as anp

    layer, x = Residual((6,), 0.7), rows(2, 2)
    params = strong(layer, x)
    layout = Layout(params)
    exact = layout.pack(value_and_grad(lambda p: anp.sum(layer.forward(p, x)[1]))(params)[1])
    draws = 3000
    many, v = np.tile(x, (draws, 1)), rows(2 * draws, 2, seed=5)
    ones = np.ones((2 * draws, 40))

    def batch(part):
        loss = lambda p: anp.sum(layer.forward_estimate(p, many[part], v[part], ones[part])[1])
        return layout.pack(value_and_grad(loss)(params)[1]) * (2 * draws / (part.stop - part.start))

    parts = [slice(start, start + 200) for start in range(0, 2 * draws, 200)]
    found = np.array([batch(part) for part in parts]) / draws
    error = found.std(axis=0, ddof=1) / math.sqrt(len(found))
    assert np.all(np.abs(found.mean(axis=0) - exact) < 5 * error + 1e-12)
