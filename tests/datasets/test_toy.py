"""The toy densities: what is common to all, then the shape of each."""

import subprocess
import sys

import numpy as np
import pytest

from npflow.datasets import (
    TOY,
    banana,
    checkerboard,
    circles,
    eight_gaussians,
    funnel,
    moons,
    pinwheel,
    spirals,
)
from npflow.errors import InputError

N = 20_000


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(params=TOY)
def draw(request):
    return TOY[request.param]


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_any_number_of_rows(draw, n):
    x = draw(n, rng=rng())
    assert x.shape == (n, 2)
    assert x.dtype == np.float64
    assert np.isfinite(x).all()


def test_same_rng_same_rows(draw):
    np.testing.assert_array_equal(draw(50, rng=rng(3)), draw(50, rng=rng(3)))
    assert not np.array_equal(draw(50, rng=rng(3)), draw(50, rng=rng(4)))


def test_an_rng_moves_on(draw):
    generator = rng()
    assert not np.array_equal(draw(50, rng=generator), draw(50, rng=generator))


def test_no_global_state_is_touched_or_used(draw):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    x = draw(50, rng=rng())
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]

    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(draw(50, rng=rng()), x)


def test_rows_are_in_random_order(draw):
    """Both halves are draws from the same density: their means agree within the error of a mean."""
    x = draw(N, rng=rng())
    error = x.std(axis=0) * np.sqrt(2 / (N / 2))
    assert (np.abs(x[: N // 2].mean(axis=0) - x[N // 2 :].mean(axis=0)) < 4 * error).all()


def test_moments(draw):
    """Mean and covariance, as they follow from the formulas."""
    gap = 4 / np.pi - 1 / 2  # how far the upper moon's mean is above the lower one's
    moons_covariance = np.array([[3 / 4, -gap / 4], [-gap / 4, 1 / 2 - 4 / np.pi**2 + gap**2 / 4]])
    mean, covariance = {
        moons: ([0.5, 0.25], moons_covariance + 0.05**2 * np.eye(2)),
        circles: ([0, 0], ((1 + 0.5**2) / 4 + 0.05**2) * np.eye(2)),
        spirals: ([0, 0], None),
        checkerboard: ([0, 0], [[16 / 3, 1], [1, 16 / 3]]),
        eight_gaussians: ([0, 0], (8 / 2 + 1 / 8) * np.eye(2)),
        pinwheel: ([0, 0], 2 * (1 + 0.3**2 + 0.1**2) * np.eye(2)),
        funnel: ([0, 0], None),
        banana: ([0, 0], None),
    }[draw]
    x = draw(N, rng=rng())
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=4 * x.std() / np.sqrt(N))
    if covariance is not None:
        np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.08)


@pytest.mark.parametrize("noise", [0, 0.05, 0.1])
def test_moons_lie_on_their_arcs(noise):
    x = moons(1001, rng=rng(), noise=noise)
    from_upper = abs(np.hypot(x[:, 0], x[:, 1]) - 1)
    from_lower = abs(np.hypot(x[:, 0] - 1, x[:, 1] - 0.5) - 1)
    reach = 5 * noise + 1e-12
    assert np.minimum(from_upper, from_lower).max() < reach
    # Half circles: the upper one above its centre, the lower one below.
    assert x[from_lower > reach, 1].min() > -reach
    assert x[from_upper > reach, 1].max() < 0.5 + reach
    assert (from_upper < reach).sum() >= 500
    assert (from_lower < reach).sum() >= 501


def test_circles_have_their_radii():
    radius = np.hypot(*circles(1000, rng=rng(), noise=0).T)
    np.testing.assert_allclose(np.sort(radius), np.repeat([0.5, 1], 500))
    radius = np.hypot(*circles(N, rng=rng(), noise=0.05).T)
    assert np.minimum(abs(radius - 1), abs(radius - 0.5)).max() < 5 * 0.05


def test_spirals_lie_on_two_arms():
    """Without noise, a point is within the jitter of 1/6 of an arm, and as many are on either one."""
    x = spirals(N, rng=rng(), noise=0)
    t = np.linspace(0, 3 * np.pi, 2000)
    arm = np.stack([-t * np.cos(t), t * np.sin(t)], axis=1) / 3
    jitter = np.array([1, 1]) / 12
    distances = [np.abs(x[:2000, None] - sign * (arm + jitter)).max(axis=-1).min(axis=1) for sign in (1, -1)]
    assert np.minimum(*distances).max() < 1 / 12 + 0.01
    assert abs((distances[0] < distances[1]).mean() - 0.5) < 0.05


def test_spirals_fill_their_arms_evenly():
    """t^2 is uniform: half of the points are beyond t = 3 pi / sqrt(2)."""
    radius = np.hypot(*spirals(N, rng=rng()).T)
    assert abs((radius > np.pi / np.sqrt(2)).mean() - 0.5) < 0.03


def test_checkerboard_lies_in_black_squares_evenly():
    x = checkerboard(N, rng=rng())
    squares = np.floor(x / 2).astype(int)
    assert (squares.sum(axis=1) % 2 == 0).all()
    _, counts = np.unique(squares, axis=0, return_counts=True)
    assert len(counts) == 8
    np.testing.assert_allclose(counts / N, 1 / 8, atol=0.01)
    np.testing.assert_allclose(np.histogram(x - 2 * squares, 4, (0, 2))[0] / (2 * N), 0.25, atol=0.01)


def test_eight_gaussians_are_round_and_equal():
    x = eight_gaussians(N, rng=rng())
    angles = np.arange(8) * np.pi / 4
    centers = 2 * np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offsets = x[:, None] - centers
    nearest = np.hypot(*offsets.transpose(2, 0, 1)).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(nearest) / N, 1 / 8, atol=0.01)
    offset = offsets[np.arange(N), nearest]
    np.testing.assert_allclose(np.cov(offset.T), np.eye(2) / 8, atol=0.005)


def test_pinwheel_has_five_arms():
    """Unwound by the angle that its radius gives, each point lies at a multiple of 72 degrees."""
    x = pinwheel(N, rng=rng())
    radius = np.hypot(*x.T) / 2
    angle = -np.arctan2(x[:, 1], x[:, 0]) - np.exp(radius) / 4
    turns = angle / (2 * np.pi / 5)
    assert (abs(turns - np.round(turns)) < 0.25).mean() > 0.97
    arms = np.bincount(np.round(turns).astype(int) % 5) / N
    np.testing.assert_allclose(arms, 1 / 5, atol=0.015)


def test_the_funnel_has_the_scale_that_its_first_coordinate_says():
    v, second = funnel(N, rng=rng()).T
    np.testing.assert_allclose(v.std(), 3, rtol=0.02)
    for part in (v < -3, abs(v) < 1, v > 3):
        np.testing.assert_allclose((second * np.exp(-v / 2))[part].std(), 1, rtol=0.05)


def test_the_banana_straightened_is_a_gaussian():
    first, second = banana(N, rng=rng()).T
    straight = np.stack([first / 10, second + 0.03 * (first**2 - 100)])
    np.testing.assert_allclose(np.cov(straight), np.eye(2), atol=0.03)
    assert abs(np.mean(straight[0] ** 2 * straight[1])) < 0.05  # nothing of the bend is left


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 0, "rng": rng()}, "expected the number of rows to be at least 1, got 0"),
        ({"n": 2.5, "rng": rng()}, "expected the number of rows to be an integer, got 2.5"),
        ({"n": 5, "rng": 0}, "expected rng to be a numpy.random.Generator, got a int"),
    ],
)
def test_bad_input(draw, arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        draw(**arguments)


@pytest.mark.parametrize("draw_noisy", [moons, circles, spirals])
def test_bad_noise(draw_noisy):
    with pytest.raises(InputError, match=r"expected noise to be a finite number at least 0, got -1\.0"):
        draw_noisy(5, rng=rng(), noise=-1)


def test_import_does_not_load_scikit_learn():
    code = "import npflow.datasets, sys; print('sklearn' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False"
