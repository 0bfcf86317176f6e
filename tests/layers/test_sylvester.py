"""Sylvester layers: a triangle for a determinant, and planar layers where the triangle is one number."""

import numpy as np
import pytest
from helpers import perturbed, refusal, rows

from npflow.layers import Planar, Sylvester
from npflow.verify.jacobians import by_autograd


def test_with_rank_one_it_is_a_planar_layer():
    x, layer = rows(20, 4), Sylvester(rank=1)
    params = perturbed(layer, x)
    Q, R_T, S_T, _ = layer.matrices(params)
    R, S = R_T.T, S_T.T
    weight, u = (Q @ S.T)[:, 0], (Q @ R)[:, 0]
    # Planar replaces the component of its direction along the weight; this one leads to u.
    along = np.log(np.expm1(weight @ u + 1)) - np.log(np.expm1(1.0))
    direction = u + weight * (along - weight @ u) / (weight @ weight)
    planar = {"weight": weight, "direction": direction, "bias": params["bias"]}
    for found, expected in zip(layer.forward(params, x), Planar().forward(planar, x)):
        np.testing.assert_allclose(found, expected, atol=1e-13)
    for found, expected in zip(layer.inverse(params, x), Planar().inverse(planar, x)):
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_it_starts_as_the_identity():
    x = rows(20, 5)
    z, log_det = Sylvester(3).forward(Sylvester(3).init(np.random.default_rng(0), x), x)
    np.testing.assert_allclose(z, x, atol=1e-15)
    np.testing.assert_allclose(log_det, 0, atol=1e-14)


@pytest.mark.parametrize("rank", [1, 3, 5])
@pytest.mark.parametrize("strength", [-8.0, 8.0])
def test_both_directions_hold_however_strong_it_is(rank, strength):
    x, layer = rows(50, 5), Sylvester(rank)
    params = perturbed(layer, x, by=1.0)
    params["strength"] = params["strength"] + strength
    z, log_det = layer.forward(params, x)
    sign, expected = np.linalg.slogdet(by_autograd(lambda x: layer.forward(params, x)[0], x))
    assert (sign == 1).all()
    np.testing.assert_allclose(log_det, expected, atol=1e-9)
    back, back_log_det = layer.inverse(params, z)
    np.testing.assert_allclose(layer.forward(params, back)[0], z, atol=1e-12 * np.max(np.abs(z)))
    np.testing.assert_allclose(back_log_det, -layer.log_det(params, back), atol=1e-9)


def test_with_the_factors_in_the_other_order_the_diagonal_is_not_the_determinant():
    """The trap of the docstring: x S Q^T and Q R in place of x Q S^T and R^T Q^T."""
    x, layer = rows(8, 4), Sylvester(4)
    params = perturbed(layer, x)
    Q, R_T, S_T, _ = layer.matrices(params)
    R, S = R_T.T, S_T.T
    t = np.tanh(x @ S @ Q.T + params["bias"])
    slopes = 1 - t**2
    jacobians = np.eye(4) + np.einsum("ij,nj,jk->nik", S @ Q.T, slopes, Q @ R)
    diagonal = np.sum(np.log(1 + slopes * np.diag(R) * np.diag(S)), axis=1)
    assert np.min(np.abs(diagonal - np.linalg.slogdet(jacobians)[1])) > 1e-3


def test_a_rank_above_the_features_is_refused():
    sentence = refusal(Sylvester(4).init, np.random.default_rng(0), rows(5, 3))
    assert "Sylvester's rank to be at most 3, the 3 features of x, got 4" in sentence
