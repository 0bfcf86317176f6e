"""The toy densities: what holds for all samplers, then for all densities, then the formula of each."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from numpy.random import default_rng
from scipy.special import entr, ndtr
from scipy.stats import multivariate_normal, norm

from npflow.datasets import (
    DENSITIES,
    TOY,
    Checkerboard,
    Circles,
    Moons,
    Pinwheel,
    Spirals,
    banana,
    checkerboard,
    circles,
    eight_gaussians,
    funnel,
    moons,
    pinwheel,
    spirals,
)
from npflow.datasets.numerics import plane
from npflow.errors import InputError

N = 20_000
BLURRED = {moons: Moons, circles: Circles, spirals: Spirals}
NOISY = BLURRED | {checkerboard: Checkerboard}
ENTROPIES = {
    "moons": 0.28923374,
    "circles": 0.60607644,
    "spirals": 2.64545028,
    "checkerboard": np.log(32),
    "eight_gaussians": 2.83157836,
    "pinwheel": 2.31778804,
    "funnel": np.log(6 * np.pi * np.e),
    "banana": np.log(20 * np.pi * np.e),
}
# A part of the plane with all of each density but a ten-millionth, and a spacing that is fine enough. The
# funnel is missing: a grid that resolves its neck would be too large.
PLANES = {
    "moons": (Moons(), ((-1.4, 2.4), (-0.9, 1.4)), 0.04),
    "moons, less noise": (Moons(0.03), ((-1.2, 2.2), (-0.7, 1.2)), 0.03),
    "moons, more noise": (Moons(0.4), ((-3.5, 4.5), (-3, 3.5)), 0.2),
    "circles": (Circles(), ((-1.4, 1.4), (-1.4, 1.4)), 0.04),
    "circles, less noise": (Circles(0.01), ((-1.1, 1.1), (-1.1, 1.1)), 0.008),
    "circles, more noise": (Circles(0.5), ((-4, 4), (-4, 4)), 0.25),
    "spirals": (Spirals(), ((-4, 4), (-4, 4)), 0.1),
    "spirals, less noise": (Spirals(0.07), ((-3.8, 3.8), (-3.8, 3.8)), 0.08),
    "spirals, more noise": (Spirals(0.6), ((-7, 7), (-7, 7)), 0.3),
    "checkerboard": (Checkerboard(), ((-4.95, 5), (-4.95, 5)), 0.1),
    "checkerboard, noise": (Checkerboard(0.1), ((-4.8, 4.8), (-4.8, 4.8)), 0.04),
    "checkerboard, more noise": (Checkerboard(1.0), ((-11, 11), (-11, 11)), 0.25),
    "eight_gaussians": (DENSITIES["eight_gaussians"], ((-5, 5), (-5, 5)), 0.2),
    "pinwheel": (Pinwheel(), ((-5.5, 5.5), (-5.5, 5.5)), 0.08),
    "banana": (DENSITIES["banana"], ((-60, 60), (-105, 9)), 0.5),
}


@pytest.fixture(params=TOY)
def name(request):
    return request.param


@pytest.fixture
def draw(name):
    return TOY[name]


@pytest.fixture
def density(name):
    return DENSITIES[name]


# ---------------------------------------------------------------- samplers


@pytest.mark.parametrize("n", [1, 2, 7, 100])
def test_any_number_of_rows(draw, n):
    x = draw(n, rng=default_rng(0))
    assert x.shape == (n, 2)
    assert x.dtype == np.float64
    assert np.isfinite(x).all()


def test_the_functions_draw_from_the_densities(name, draw, density):
    assert list(DENSITIES) == list(TOY)
    np.testing.assert_array_equal(density.sample(50, rng=default_rng(0)), draw(50, rng=default_rng(0)))
    help, parameters = inspect.getdoc(draw), inspect.signature(draw).parameters
    assert draw.__name__ == name and list(parameters) == ["n", "rng", "noise"][: 2 + (draw in NOISY)]
    assert draw not in NOISY or parameters["noise"].default == density.noise
    summary = help.splitlines()[0]
    assert summary.startswith("Draw rows of ")
    assert summary.endswith(f"; see `{type(density).__name__}`.")
    assert ("\nnoise : float\n" in help) == (draw in NOISY)
    if draw in NOISY:
        expected = NOISY[draw](0.2).sample(50, rng=default_rng(0))
        np.testing.assert_array_equal(draw(50, rng=default_rng(0), noise=0.2), expected)


def test_all_randomness_comes_from_the_rng(draw):
    np.random.seed(0)  # noqa: NPY002
    before = np.random.get_state()  # noqa: NPY002
    generator = default_rng(3)
    x = draw(50, rng=generator)
    assert not np.array_equal(draw(50, rng=generator), x)
    assert not np.array_equal(draw(50, rng=default_rng(4)), x)
    after = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.random.seed(1)  # noqa: NPY002
    np.testing.assert_array_equal(draw(50, rng=default_rng(3)), x)


def test_rows_are_in_random_order(draw):
    """The means of both halves agree within their standard error."""
    x = draw(N, rng=default_rng(0))
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
    x = draw(N, rng=default_rng(0))
    np.testing.assert_allclose(x.mean(axis=0), mean, atol=4 * x.std() / np.sqrt(N))
    if covariance is not None:
        np.testing.assert_allclose(np.cov(x.T), covariance, atol=0.08)


def test_eight_gaussians_are_round_and_equal():
    x = eight_gaussians(N, rng=default_rng(0))
    angles = np.arange(8) * np.pi / 4
    centers = 2 * np.sqrt(2) * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    offsets = x[:, None] - centers
    nearest = np.hypot(*offsets.transpose(2, 0, 1)).argmin(axis=1)
    np.testing.assert_allclose(np.bincount(nearest) / N, 1 / 8, atol=0.01)
    offset = offsets[np.arange(N), nearest]
    np.testing.assert_allclose(np.cov(offset.T), np.eye(2) / 8, atol=0.005)


def test_the_funnel_has_the_scale_of_its_first_coordinate():
    v, second = funnel(N, rng=default_rng(0)).T
    np.testing.assert_allclose(v.std(), 3, rtol=0.02)
    for part in (v < -3, abs(v) < 1, v > 3):
        np.testing.assert_allclose((second * np.exp(-v / 2))[part].std(), 1, rtol=0.05)


def test_import_does_not_load_scikit_learn():
    code = "import npflow.datasets, sys; print('sklearn' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.stdout.strip() == "False"


# ---------------------------------------------------------------- densities


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_densities_are_float64_for_points_of_any_dtype(density, dtype):
    x = density.sample(600, rng=default_rng(0)).astype(dtype)  # more than are computed at a time
    log_p = density.log_prob(x)
    assert (log_p.shape, log_p.dtype) == ((600,), np.float64)
    np.testing.assert_array_equal(log_p, density.log_prob(x.astype(np.float64)))
    np.testing.assert_allclose(log_p[[-1]], density.log_prob(x[-1:]), rtol=1e-12)


@pytest.mark.parametrize("case", PLANES)
def test_p_integrates_to_one_and_minus_log_p_to_the_entropy(case):
    density, limits, spacing = PLANES[case]
    points, cell = plane(limits, spacing)
    p = np.exp(density.log_prob(points))
    assert np.sum(p) * cell == pytest.approx(1, abs=1e-6)
    assert np.sum(entr(p)) * cell == pytest.approx(density.entropy(), abs=2e-5)


def test_the_mean_over_a_sample_is_the_entropy(density):
    log_p = density.log_prob(density.sample(10_000, rng=default_rng(0)))
    error = np.std(log_p) / np.sqrt(len(log_p))
    assert -np.mean(log_p) == pytest.approx(density.entropy(), abs=4 * error + 1e-12)


@pytest.mark.parametrize("name", [name for name in DENSITIES if name != "funnel"])  # its neck is too thin
def test_the_histogram_of_a_sample_fits_the_density(name):
    """Chi-square over 144 cells is about their number, as the counts are Poisson distributed."""
    x = DENSITIES[name].sample(20_000, rng=default_rng(1))
    limits = ((-4.8, 4.8), (-4.8, 4.8)) if name == "checkerboard" else DENSITIES[name].limits
    (left, right), (bottom, top) = limits
    counts, *_ = np.histogram2d(*x.T, bins=12, range=limits)
    axes = [low + (high - low) * (np.arange(12 * 8) + 0.5) / 96 for low, high in limits]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    cell = (right - left) * (top - bottom) / 96**2
    p = np.exp(DENSITIES[name].log_prob(points)).reshape(12, 8, 12, 8)
    expected = len(x) * cell * p.sum(axis=(1, 3))
    often = expected > 10
    assert counts[often].sum() > 0.95 * len(x)
    chi_square = (counts - expected)[often] ** 2 / expected[often]
    assert np.sum(chi_square) < often.sum() + 4 * np.sqrt(2 * often.sum())


def test_entropies_are_those_of_the_docstrings(name, density):
    assert density.entropy() == pytest.approx(ENTROPIES[name], abs=1e-8)
    assert f"{ENTROPIES[name]:.4f} nats" in inspect.getdoc(type(density))


def test_most_of_the_density_lies_within_the_limits(density):
    x = density.sample(2000, rng=default_rng(0))
    (left, right), (bottom, top) = density.limits
    inside = (left < x[:, 0]) & (x[:, 0] < right) & (bottom < x[:, 1]) & (x[:, 1] < top)
    assert inside.mean() > 0.9


def test_far_out_the_density_is_small_without_overflow(density):
    log_p = density.log_prob(np.array([[40.0, -30.0], [-1e3, 1e3], [1e6, 0.0], [-1e6, 0.0]]))
    assert not np.isnan(log_p).any()
    assert (log_p < -10).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_at_the_largest_numbers_the_density_is_tiny_without_a_warning(density, dtype):
    x = np.finfo(dtype).max * np.array([[1, 1], [-1, 1], [0, -1], [1, 0]], dtype)
    log_p = density.log_prob(x)  # warnings are errors
    assert not np.isnan(log_p).any()
    assert (log_p < -10).all()


# ---------------------------------------------------------------- scores

SCORED = {name: case[0] for name, case in PLANES.items() if name != "checkerboard"}
SCORED["funnel"] = DENSITIES["funnel"]


@pytest.mark.parametrize("name", SCORED)
def test_the_score_is_the_gradient_by_differences(name):
    density, rng = SCORED[name], default_rng(0)
    x = density.sample(600, rng=rng)  # more than are computed at a time
    x = np.concatenate([x, x[:50] + 0.1 * rng.standard_normal((50, 2))])
    differences = [density.log_prob(x + h) - density.log_prob(x - h) for h in 1e-5 * np.eye(2)]
    expected = np.stack(differences, axis=1) / 2e-5
    score = density.score(x)
    assert (score.shape, score.dtype) == (x.shape, np.float64)
    np.testing.assert_allclose(score, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max(axis=1).mean())
    np.testing.assert_array_equal(
        density.score(x.astype(np.float32)), density.score(np.float64(np.float32(x)))
    )


def test_the_score_in_the_middle_of_the_circles_is_zero():
    np.testing.assert_array_equal(Circles().score(np.zeros((1, 2))), 0)


def test_a_density_with_jumps_has_no_score():
    with pytest.raises(InputError, match="noise of Checkerboard to be above 0 for a score, got 0"):
        Checkerboard().score(np.zeros((1, 2)))


def test_the_blurred_board_is_the_mean_of_the_board_around_a_point():
    x = np.array([[-4.0, -4.0], [0.1, 0.2], [1.9, 2.1], [1.0, -1.0], [4.3, 3.9]])
    e, cell = plane(((-6, 6), (-6, 6)), 0.011)
    weights = np.exp(-np.sum(e * e, axis=1) / 2) / (2 * np.pi) * cell
    for noise in (0.2, 0.7):
        p = [np.sum(weights * np.exp(Checkerboard().log_prob(point + noise * e))) for point in x]
        np.testing.assert_allclose(np.exp(Checkerboard(noise).log_prob(x)), p, rtol=0.03, atol=2e-5)


def test_moons_are_a_sum_over_points_of_the_arcs():
    t = (np.arange(50_000) + 0.5) * np.pi / 50_000
    upper = np.stack([np.cos(t), np.sin(t)], axis=1)
    lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], axis=1)
    arcs = np.concatenate([upper, lower])
    for noise in (0.02, 0.05, 0.5):
        x = np.array([[0.0, 1.0], [1.0, 0.02], [0.5, 0.25], [2.1, 0.6], [1.0, -0.3]])
        p = [np.mean(np.prod(norm.pdf(point, arcs, noise), axis=1)) for point in x]
        np.testing.assert_allclose(Moons(noise).log_prob(x), np.log(p), atol=1e-5)


def test_spirals_are_a_sum_over_points_of_the_arms():
    t = 3 * np.pi * (np.arange(40_000) + 0.5) / 40_000
    arm = np.stack([-t * np.cos(t), t * np.sin(t)], axis=1) / 3
    middle = arm + 1 / 12  # of the square of the uniform noise

    def blur(d, noise):
        return 6 * (ndtr((1 / 12 - abs(d)) / noise) - ndtr((-1 / 12 - abs(d)) / noise))

    for noise in (0.03, 0.1, 0.5):
        x = np.array([[0.0, 0.0], [3.2, 0.1], [-1.5, 0.7], [2.0, -2.0], [-3.0, 1.0]])
        p = [np.average(np.prod(blur(y - middle, noise), axis=1), weights=t) for y in np.concatenate([x, -x])]
        expected = np.log(np.reshape(p, (2, -1)).mean(axis=0))
        np.testing.assert_allclose(Spirals(noise).log_prob(x), expected, atol=1e-6)


def test_the_pinwheel_is_a_sum_over_the_points_that_are_mapped_to_a_small_box():
    """A scan of the arms, without the equation in b."""
    box = 0.02
    r, s = np.meshgrid(np.linspace(-0.6, 2.6, 1601), np.linspace(-0.7, 0.7, 701))
    weight = norm.pdf(r, 1, 0.3) * norm.pdf(s, 0, 0.1) * 0.002 * 0.002 / 5
    points = np.array([[0.1, -0.1], [1.2, 0.9], [-0.5, -1.9], [0.4, 2.6], [1.8, -1.2]])
    p = np.zeros(len(points))
    for k in range(5):
        a = 2 * np.pi * k / 5 + np.exp(r) / 4
        first, second = 2 * (r * np.cos(a) + s * np.sin(a)), 2 * (s * np.cos(a) - r * np.sin(a))
        for i, (x, y) in enumerate(points):
            p[i] += np.sum(weight[(abs(first - x) < box) & (abs(second - y) < box)]) / (2 * box) ** 2
    np.testing.assert_allclose(np.exp(Pinwheel().log_prob(points)), p, rtol=0.04)


def test_the_checkerboard_is_flat_on_black_squares_and_zero_elsewhere():
    x = np.array([[-4, -4], [-0.01, 1.99], [0, 0], [1, 3], [4, 1], [-5, -3], [2, 2], [3.9, 4.1]])
    black = [True, False, True, False, False, False, True, False]
    np.testing.assert_array_equal(Checkerboard().log_prob(x), np.where(black, -np.log(32), -np.inf))


def test_the_funnel_and_the_banana_are_gaussians_given_their_first_coordinate():
    x = 4 * default_rng(0).standard_normal((50, 2))
    v, second = x.T
    expected = norm.logpdf(v, 0, 3) + norm.logpdf(second, 0, np.exp(v / 2))
    np.testing.assert_allclose(DENSITIES["funnel"].log_prob(x), expected, rtol=1e-12)
    straight = np.stack([v, second + 0.03 * (v**2 - 100)], axis=1)
    expected = multivariate_normal([0, 0], np.diag([100, 1])).logpdf(straight)
    np.testing.assert_allclose(DENSITIES["banana"].log_prob(x), expected, rtol=1e-12)
    assert DENSITIES["funnel"].log_prob(np.array([[0.0, 0.0]])) == -np.log(6 * np.pi)
    assert DENSITIES["funnel"].log_prob(np.array([[-5000.0, 1.0]])) == -np.inf


def test_points_on_a_device(device):
    x = default_rng(0).standard_normal((20, 2))
    np.testing.assert_array_equal(Moons().log_prob(device.send(x)), Moons().log_prob(x))


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"n": 0, "rng": default_rng(0)}, "number of rows to be at least 1, got 0"),
        ({"n": 2.5, "rng": default_rng(0)}, "number of rows to be an integer, got 2.5"),
        ({"n": 5, "rng": 0}, "expected rng .*Generator, got an int"),
    ],
)
def test_rows_and_rng_are_checked(draw, density, arguments, sentence):
    for sample in (draw, lambda n, rng: density.sample(n, rng=rng)):
        with pytest.raises(InputError, match=sentence):
            sample(**arguments)


def test_points_are_checked(density):
    with pytest.raises(InputError, match="expected x with rows of 2 features, got rows of 3 features"):
        density.log_prob(np.zeros((5, 3)))
    with pytest.raises(InputError, match="expected x to be finite, got nan in row 1"):
        density.log_prob(np.array([[0.0, 0.0], [0.0, np.nan]]))


@pytest.mark.parametrize("draw", NOISY)
@pytest.mark.parametrize("noise", [-1, np.inf, "0.1"])
def test_noise_is_checked(draw, noise):
    for make in (NOISY[draw], lambda noise: draw(5, rng=default_rng(0), noise=noise)):
        with pytest.raises(InputError, match=rf"{NOISY[draw].__name__}'s noise .*at least 0, got"):
            make(noise)


@pytest.mark.parametrize("kind", BLURRED.values())
def test_without_noise_there_is_no_density(kind):
    assert kind(0).sample(5, rng=default_rng(0)).shape == (5, 2)
    for compute in (kind(0).entropy, lambda: kind(0).log_prob(np.zeros((1, 2)))):
        with pytest.raises(InputError, match=rf"noise of {kind.__name__} to be above 0"):
            compute()
