"""Quadrature gives known integrals, and bisection gives roots."""

import numpy as np
import pytest

from npflow.datasets.numerics import bisect, gauss, log_sum, normal_plane, plane


def test_gauss_is_exact_for_polynomials_up_to_degree_31():
    points, weights = gauss(np.array([-1.0, 0.5, 2.0]))
    for degree in (0, 1, 2, 31):
        exact = (2 ** (degree + 1) - (-1) ** (degree + 1)) / (degree + 1)
        assert np.sum(weights * points**degree) == pytest.approx(exact, rel=1e-13)


@pytest.mark.parametrize("center", [0, 1.7, 3])
def test_a_panel_of_six_standard_deviations_is_enough_for_a_gaussian(center):
    points, weights = gauss(np.linspace(-12, 18, 6))
    normal = np.exp(-((points - center) ** 2) / 2) / np.sqrt(2 * np.pi)
    assert np.sum(weights * normal) == pytest.approx(1, abs=1e-12)


def test_log_sum_does_not_overflow_or_underflow():
    logs = np.array([[1000.0, 1001.0], [-2000.0, -np.inf]])
    expected = [1000 + np.log(0.25 + 0.75 * np.e), -2000 + np.log(0.25)]
    np.testing.assert_allclose(log_sum(logs, np.array([0.25, 0.75])), expected, rtol=1e-15)


def test_a_plane_is_an_even_grid_whose_cells_fill_the_limits():
    points, cell = plane(((0, 2), (-1, 2)), 0.5)
    assert points.shape == (4 * 6, 2)
    assert points.min(axis=0).tolist() == [0, -1]
    assert points.max(axis=0).tolist() == [1.5, 1.5]
    assert cell * len(points) == 2 * 3


def test_the_normal_plane_has_the_moments_of_the_standard_normal():
    e, weights = normal_plane()
    assert np.sum(weights) == pytest.approx(1, abs=1e-13)
    np.testing.assert_allclose((weights * e.T) @ e, np.eye(2), atol=1e-12)
    assert np.sum(weights * e[:, 0] ** 4) == pytest.approx(3, abs=1e-10)


def test_bisection_finds_the_root_of_each_element_or_the_nearest_end():
    targets = np.array([[-8.0, 0.0], [0.001, 27.0]])
    np.testing.assert_allclose(bisect(lambda b: b**3 - targets, -5, 5, (2, 2)), np.cbrt(targets), atol=1e-15)
    low = np.array([[1.0], [4.0]])
    np.testing.assert_allclose(bisect(lambda b: b**3 - targets, low, 5, (2, 2)), [[1, 1], [4, 4]])
    np.testing.assert_allclose(bisect(lambda b: b - 10, low, 5, (2, 1)), 5)
