"""The toy densities: each is a density, its sampler's, and has the entropy that is said; then the formula of each."""

import inspect

import numpy as np
import pytest
from scipy.special import entr, ndtr
from scipy.stats import multivariate_normal, norm

from npflow.datasets import DENSITIES, TOY, Checkerboard, Circles, Moons, Pinwheel, Spirals
from npflow.datasets.numerics import plane
from npflow.errors import InputError

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
# A part of the plane that holds all of each but a ten-millionth, and a spacing that is fine enough. Most of the funnel is
# too wide for any grid that its neck is resolved by.
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
    "eight_gaussians": (DENSITIES["eight_gaussians"], ((-5, 5), (-5, 5)), 0.2),
    "pinwheel": (Pinwheel(), ((-5.5, 5.5), (-5.5, 5.5)), 0.08),
    "banana": (DENSITIES["banana"], ((-60, 60), (-105, 9)), 0.5),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture(params=DENSITIES)
def name(request):
    return request.param


def test_there_is_one_for_each_sampler_and_it_draws_the_same_rows(name):
    assert list(DENSITIES) == list(TOY)
    np.testing.assert_array_equal(DENSITIES[name].sample(50, rng=rng()), TOY[name](50, rng=rng()))


@pytest.mark.parametrize("density", [Moons(0.2), Circles(0.2), Spirals(0.2)], ids=repr)
def test_noise_is_passed_on(density):
    draw = TOY[type(density).__name__.lower()]
    np.testing.assert_array_equal(density.sample(50, rng=rng()), draw(50, rng=rng(), noise=0.2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_densities_are_float64_whatever_the_points_are(name, dtype):
    x = DENSITIES[name].sample(600, rng=rng()).astype(dtype)  # more than are worked off at a time
    log_p = DENSITIES[name].log_prob(x)
    assert (log_p.shape, log_p.dtype) == ((600,), np.float64)
    np.testing.assert_array_equal(log_p, DENSITIES[name].log_prob(x.astype(np.float64)))
    np.testing.assert_allclose(log_p[[-1]], DENSITIES[name].log_prob(x[-1:]), rtol=1e-12)


@pytest.mark.parametrize("case", PLANES)
def test_it_integrates_to_one_and_minus_log_p_to_the_entropy(case):
    density, limits, spacing = PLANES[case]
    points, cell = plane(limits, spacing)
    p = np.exp(density.log_prob(points))
    assert np.sum(p) * cell == pytest.approx(1, abs=1e-6)
    assert np.sum(entr(p)) * cell == pytest.approx(density.entropy(), abs=2e-5)


def test_the_mean_over_a_sample_is_the_entropy(name):
    log_p = DENSITIES[name].log_prob(DENSITIES[name].sample(10_000, rng=rng()))
    error = np.std(log_p) / np.sqrt(len(log_p))
    assert -np.mean(log_p) == pytest.approx(DENSITIES[name].entropy(), abs=4 * error + 1e-12)


@pytest.mark.parametrize("name", [name for name in DENSITIES if name != "funnel"])  # its neck is too thin
def test_a_histogram_of_a_sample_has_its_shape(name):
    """Counts in 144 cells vary as Poisson's do: chi-square is as large as the number of cells, give or take."""
    x = DENSITIES[name].sample(20_000, rng=rng(1))
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


def test_entropies_are_those_of_the_docstrings(name):
    assert DENSITIES[name].entropy() == pytest.approx(ENTROPIES[name], abs=1e-8)
    assert f"{ENTROPIES[name]:.4f} nats" in inspect.getdoc(type(DENSITIES[name]))


def test_most_of_it_lies_within_the_limits_to_look_at(name):
    x = DENSITIES[name].sample(2000, rng=rng())
    (left, right), (bottom, top) = DENSITIES[name].limits
    inside = (left < x[:, 0]) & (x[:, 0] < right) & (bottom < x[:, 1]) & (x[:, 1] < top)
    assert inside.mean() > 0.9


def test_far_out_it_is_small_and_no_overflow(name):
    log_p = DENSITIES[name].log_prob(np.array([[40.0, -30.0], [-1e3, 1e3], [1e6, 0.0], [-1e6, 0.0]]))
    assert not np.isnan(log_p).any()
    assert (log_p < -10).all()


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
    middle = arm + 1 / 12  # of the square that the jitter moves a point to

    def blur(d, noise):
        return 6 * (ndtr((1 / 12 - abs(d)) / noise) - ndtr((-1 / 12 - abs(d)) / noise))

    for noise in (0.03, 0.1, 0.5):
        x = np.array([[0.0, 0.0], [3.2, 0.1], [-1.5, 0.7], [2.0, -2.0], [-3.0, 1.0]])
        p = [np.average(np.prod(blur(y - middle, noise), axis=1), weights=t) for y in np.concatenate([x, -x])]
        expected = np.log(np.reshape(p, (2, -1)).mean(axis=0))
        np.testing.assert_allclose(Spirals(noise).log_prob(x), expected, atol=1e-6)


def test_the_pinwheel_is_a_sum_over_all_that_a_point_may_come_from():
    """Without the equation in b: the arms are scanned for the places that lie in a small box around the point."""
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


def test_the_checkerboard_is_flat_on_black_squares_and_nothing_elsewhere():
    x = np.array([[-4, -4], [-0.01, 1.99], [0, 0], [1, 3], [4, 1], [-5, -3], [2, 2], [3.9, 4.1]])
    black = [True, False, True, False, False, False, True, False]
    np.testing.assert_array_equal(Checkerboard().log_prob(x), np.where(black, -np.log(32), -np.inf))


def test_the_funnel_and_the_banana_are_gaussians_given_their_first_coordinate():
    x = 4 * rng().standard_normal((50, 2))
    v, second = x.T
    expected = norm.logpdf(v, 0, 3) + norm.logpdf(second, 0, np.exp(v / 2))
    np.testing.assert_allclose(DENSITIES["funnel"].log_prob(x), expected, rtol=1e-12)
    straight = np.stack([v, second + 0.03 * (v**2 - 100)], axis=1)
    expected = multivariate_normal([0, 0], np.diag([100, 1])).logpdf(straight)
    np.testing.assert_allclose(DENSITIES["banana"].log_prob(x), expected, rtol=1e-12)
    assert DENSITIES["funnel"].log_prob(np.array([[0.0, 0.0]])) == -np.log(6 * np.pi)
    assert DENSITIES["funnel"].log_prob(np.array([[-5000.0, 1.0]])) == -np.inf


def test_points_on_a_device(device):
    x = rng().standard_normal((20, 2))
    np.testing.assert_array_equal(Moons().log_prob(device.send(x)), Moons().log_prob(x))


def test_bad_input(name):
    with pytest.raises(InputError, match="expected x with rows of 2 features, got rows of 3 features"):
        DENSITIES[name].log_prob(np.zeros((5, 3)))
    with pytest.raises(InputError, match="expected x to be finite, got nan in row 1"):
        DENSITIES[name].log_prob(np.array([[0.0, 0.0], [0.0, np.nan]]))
    with pytest.raises(InputError, match="expected the number of rows to be at least 1, got 0"):
        DENSITIES[name].sample(0, rng=rng())


@pytest.mark.parametrize("kind", [Moons, Circles, Spirals])
@pytest.mark.parametrize("noise", [0, -1, np.inf])
def test_without_noise_there_is_no_density(kind, noise):
    sentence = f"expected the noise of {kind.__name__} to be a finite number above 0, got {float(noise)}"
    with pytest.raises(InputError, match=sentence):
        kind(noise)
