"""Planar and radial layers, and the root that the inverse of the planar one needs."""

from functools import partial

import numpy as np
import pytest
from autograd.test_util import check_grads
from helpers import moved, perturbed, refusal, rows

from npflow import fit, models
from npflow.autodiff import value_and_grad
from npflow.layers import Planar, Radial
from npflow.layers.planar import log_slope, positive, root
from npflow.verify.jacobians import by_autograd

every_layer = pytest.mark.parametrize("layer", [Planar(), Radial()], ids=["planar", "radial"])
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@every_layer
def test_it_starts_as_the_identity(layer):
    x = rows(20, 3)
    z, log_det = layer.forward(layer.init(np.random.default_rng(0), x), x)
    np.testing.assert_allclose(z, x, atol=1e-15)
    np.testing.assert_allclose(log_det, 0, atol=1e-14)


@every_layer
@pytest.mark.parametrize("unit", [1e-30, 1e30])
def test_init_follows_the_units_of_the_data(layer, unit):
    x = rows(50, 3, dtype=np.float32)
    params, far = (
        moved(layer.init(np.random.default_rng(0), data), by=0) for data in (x, np.float32(unit) * x)
    )
    if isinstance(layer, Planar):
        np.testing.assert_allclose(far["weight"] * unit, params["weight"], rtol=1e-5)
        np.testing.assert_allclose(far["bias"], params["bias"], rtol=1e-4)
    else:
        np.testing.assert_allclose(far["centre"], params["centre"] * np.float32(unit))
        np.testing.assert_allclose(far["log_scale"], params["log_scale"] + np.log(unit), rtol=1e-5)


@every_layer
@pytest.mark.parametrize("strength", [-30.0, -3.0, 3.0, 30.0])
def test_it_stays_invertible_however_strong_it_is(layer, strength):
    x = rows(200, 3)
    params = perturbed(layer, x)
    if isinstance(layer, Planar):
        params["direction"] = strength * params["weight"] / np.sum(params["weight"] ** 2)
    else:
        params["strength"] = np.array([strength])
    z, log_det = layer.forward(params, x)
    sign, expected = np.linalg.slogdet(by_autograd(lambda x: layer.forward(params, x)[0], x))
    back, back_log_det = layer.inverse(params, z)
    size = np.max(np.abs(z))
    assert np.isfinite(log_det).all()
    np.testing.assert_allclose(layer.forward(params, back)[0], z, atol=1e-13 * size)
    if strength > -30:  # there 1 + w.u is below the rounding of 1, and so is a Jacobian's determinant
        assert (sign == 1).all()
        np.testing.assert_allclose(log_det, expected, atol=1e-10)
        np.testing.assert_allclose(back, x, atol=1e-10)
        np.testing.assert_allclose(back_log_det, -log_det, atol=1e-9)


@every_layer
@every_dtype
def test_rows_at_the_centre_and_far_out_have_finite_gradients(layer, dtype):
    x = rows(6, 2, dtype=dtype)
    params = perturbed(layer, x)
    far = np.sqrt(np.finfo(dtype).max) / 100
    x = np.array([params.get("centre", x[0]), [far, 0], [0, -far]], dtype)

    def loss(p):
        (z, log_det), (back, other) = layer.forward(p["layer"], p["x"]), layer.inverse(p["layer"], p["x"])
        return sum(np.sum(array) / far for array in (z, back)) + np.sum(log_det) + np.sum(other)

    value, gradient = value_and_grad(loss)({"layer": params, "x": x})
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in (*gradient["layer"].values(), gradient["x"]))


def test_a_feature_that_does_not_vary_has_finite_parameters():
    x = np.column_stack([rows(20, 1), np.full((20, 1), 3.0)])
    for layer in (Planar(), Radial()):
        assert all(np.isfinite(leaf).all() for leaf in layer.init(np.random.default_rng(0), x).values())
        constant = layer.init(np.random.default_rng(0), np.ones((5, 2)))
        assert all(np.isfinite(leaf).all() for leaf in constant.values())


def test_images_are_refused():
    for layer in (Planar(), Radial()):
        expected = f"rows of shape (n, features) for {type(layer).__name__}, got shape (2, 3, 3, 1)"
        assert expected in refusal(layer.init, np.random.default_rng(0), np.zeros((2, 3, 3, 1)))


# ---------------------------------------------------------------- the root


@every_dtype
@pytest.mark.parametrize("product", [1e-12, 1e-3, 0.5, 1.0, 2.0, 1e3, 1e12])
def test_the_root_is_exact_to_rounding(dtype, product):
    y = np.concatenate([[0.0], np.geomspace(1e-20, 1e20, 81)]).astype(dtype)
    y = np.concatenate([-y, y])
    product = dtype(product)
    a = root(y, product)
    assert a.dtype == dtype
    exact, p = a.astype(np.longdouble), np.longdouble(product)
    residual = y - exact - (p - 1) * np.tanh(exact)
    size = np.abs(exact) + abs(p - 1) * np.abs(np.tanh(exact))
    assert np.all(np.abs(residual) <= 4 * np.finfo(dtype).eps * np.maximum(size, np.abs(y)))


def test_the_root_has_the_derivatives_of_the_implicit_function():
    y, product = np.array([[-2.0, 0.1], [0.3, 4.0], [1.7, -0.2]]), np.array([0.2, 3.0])
    check_grads(root, modes=["rev"], order=2)(y, product)


@every_dtype
def test_a_slope_near_zero_keeps_its_digits(dtype):
    t = np.array([0.0, 1e-3, 0.5], dtype)
    product = positive(np.array([-40.0], dtype))
    exact = np.log(
        t.astype(np.longdouble) ** 2 + np.longdouble(product[0]) * (1 - t.astype(np.longdouble) ** 2)
    )
    np.testing.assert_allclose(log_slope(t, product), exact.astype(float), rtol=4 * np.finfo(dtype).eps)


# ---------------------------------------------------------------- the recipes


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("name", ["planar", "radial", "sylvester"])
def test_a_recipe_learns_in_any_units(name):
    rng = np.random.default_rng(0)
    x = rng.standard_t(3, (300, 3))
    x[:, 2] = x[:, 0] * x[:, 1]
    flow, losses = getattr(models, name)(3, 4), []
    for unit in (1.0, 1e-30, 1e30):
        params = flow.init(np.random.default_rng(0), unit * x)
        before = flow.loss(params, unit * x)
        params, _ = fit(flow, params, unit * x, rng=np.random.default_rng(1), steps=30, progress=False)
        losses.append(flow.loss(params, unit * x) - 3 * np.log(unit))
        assert flow.loss(params, unit * x) < before
        assert np.isfinite(flow.sample(params, rng, 50)).all()
    np.testing.assert_allclose(losses, losses[0], atol=0.05)


def test_a_context_is_there_exactly_where_there_are_weights_for_it():
    layer, x, context = Planar(), rows(5, 2), rows(5, 3, seed=2)
    start = partial(layer.init, np.random.default_rng(0), x)
    assert "expected a context, since" in refusal(layer.forward, start(context), x)
    assert "expected no context, since" in refusal(layer.inverse, start(), x, context)
    assert "got images of shape (5, 2, 2, 1)" in refusal(start, rows(5, 2, 2, 1))
