"""Priors: the normal, the logistic and the mixture of Gaussians."""

import autograd.numpy as anp
import numpy as np
import pytest
import scipy.stats
import stand_in
from helpers import assert_agrees, perturbed, refusal, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import priors, to_device
from npflow.autodiff import Layout, tree, value_and_grad
from npflow.errors import InputError
from npflow.priors import GaussianMixture, Logistic, Normal, Prior

MEANS, STDS, WEIGHTS = ((-2.0, 1.0), (0.5, 0.0), (3.0, -1.0)), (0.5, 1.0, 0.8), (1.0, 2.0, 3.0)
PRIORS = {
    "normal": Normal(2),
    "trained normal": Normal(2, trained=True),
    "logistic": Logistic(2),
    "mixture": GaussianMixture(MEANS, STDS, WEIGHTS),
    "trained mixture": GaussianMixture(MEANS, STDS, WEIGHTS, trained=True),
}
every_prior = pytest.mark.parametrize("prior", PRIORS.values(), ids=PRIORS.keys())
trained_priors = pytest.mark.parametrize(
    "prior", [p for p in PRIORS.values() if getattr(p, "trained", False)], ids=repr
)
every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=15, deadline=None)


def draws(*shape, dtype=np.float64, seed=1):
    """z of standard deviation 2."""
    return 2 * rows(*shape, dtype=dtype, seed=seed)


def params_of(prior, dtype=np.float64, seed=0):
    """Parameters moved away from their initial values."""
    return perturbed(prior, np.zeros((1, *prior.event_shape), dtype), seed=seed, by=0.5)


def mixture_density(z, means, stds, weights):
    parts = [
        weight * scipy.stats.multivariate_normal(mean, std**2 * np.eye(len(mean))).pdf(z)
        for mean, std, weight in zip(means, stds, np.divide(weights, np.sum(weights)))
    ]
    return np.sum(parts, axis=0)


def test_the_base_class_has_no_parameters_and_no_density():
    assert Prior().init(np.random.default_rng(0), draws(6, 2)) == {}
    with pytest.raises(NotImplementedError):
        Prior().log_prob({}, draws(6, 2))
    with pytest.raises(NotImplementedError):
        Prior().sample({}, np.random.default_rng(0), 1)


@few
@given(st.sampled_from([(1,), (3,), (2, 3, 2)]), st.integers(0, 99))
def test_the_normal_is_scipys_in_each_component(event_shape, seed):
    z = draws(4, *event_shape, seed=seed)
    expected = scipy.stats.norm.logpdf(z).reshape(4, -1).sum(1)
    np.testing.assert_allclose(Normal(event_shape).log_prob({}, z), expected, rtol=1e-12)


@few
@given(st.sampled_from([(1,), (3,), (2, 3, 2)]), st.integers(0, 99))
def test_the_trained_normal_is_scipys_with_its_means_and_standard_deviations(event_shape, seed):
    prior, z = Normal(event_shape, trained=True), draws(4, *event_shape, seed=seed)
    params = params_of(prior, seed=seed)
    expected = scipy.stats.norm.logpdf(z, params["mean"], np.exp(params["log_std"])).reshape(4, -1).sum(1)
    np.testing.assert_allclose(prior.log_prob(params, z), expected, rtol=1e-11)


@few
@given(st.integers(1, 3), st.integers(1, 4), st.integers(0, 99))
def test_the_mixture_is_the_weighted_sum_of_scipys_normals(features, components, seed):
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 2, (components, features))
    stds, weights = rng.uniform(0.3, 2, (2, components))
    z = draws(5, features, seed=seed)
    prior = GaussianMixture(means, stds, weights)
    np.testing.assert_allclose(
        prior.log_prob({}, z), np.log(mixture_density(z, means, stds, weights)), rtol=1e-10
    )


@few
@given(st.integers(0, 99))
def test_the_trained_mixture_divides_its_weights_by_their_sum(seed):
    prior, z = PRIORS["trained mixture"], draws(6, 2, seed=seed)
    params = params_of(prior, seed=seed)
    stds, weights = np.exp(params["log_stds"]), np.exp(params["log_weights"])
    expected = np.log(mixture_density(z, params["means"], stds, weights))
    np.testing.assert_allclose(prior.log_prob(params, z), expected, rtol=1e-10)


@pytest.mark.parametrize("kind", ["normal", "mixture"])
def test_a_trained_prior_starts_as_the_fixed_one(kind):
    fixed, trained = PRIORS[kind], PRIORS[f"trained {kind}"]
    params = trained.init(np.random.default_rng(0), draws(6, 2))
    np.testing.assert_allclose(
        trained.log_prob(params, draws(6, 2)), fixed.log_prob({}, draws(6, 2)), rtol=1e-14
    )
    assert Layout(params).size > 0
    assert fixed.init(np.random.default_rng(0), draws(6, 2)) == {}


@every_prior
def test_the_density_integrates_to_one(prior):
    side, step = np.linspace(-15, 15, 241, retstep=True)
    grid = np.stack(np.meshgrid(side, side), axis=-1).reshape(-1, 2)
    density = np.exp(prior.log_prob(params_of(prior), grid))
    np.testing.assert_allclose(density.sum() * step**2, 1, rtol=1e-4)


@pytest.mark.parametrize("kind", ["normal", "trained normal"])
def test_samples_of_the_normal_have_its_moments(kind):
    prior = PRIORS[kind]
    params = params_of(prior)
    mean, std = params.get("mean", np.zeros(2)), np.exp(params.get("log_std", np.zeros(2)))
    z = prior.sample(params, np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(z.mean(0), mean, atol=0.06)
    np.testing.assert_allclose(z.std(0), std, rtol=0.05)
    assert abs(np.corrcoef(z.T)[0, 1]) < 0.05


@pytest.mark.parametrize("kind", ["mixture", "trained mixture"])
def test_samples_of_the_mixture_have_its_moments(kind):
    prior = PRIORS[kind]
    params = params_of(prior)
    mixture = params or prior.start(np.float64)
    means, variances = mixture["means"], np.exp(2 * mixture["log_stds"])
    weights = np.exp(mixture["log_weights"]) / np.exp(mixture["log_weights"]).sum()
    mean = weights @ means
    covariance = (weights * (means - mean).T) @ (means - mean) + weights @ variances * np.eye(2)
    z = prior.sample(params, np.random.default_rng(0), 20_000)
    np.testing.assert_allclose(z.mean(0), mean, atol=0.1)
    np.testing.assert_allclose(np.cov(z.T), covariance, rtol=0.1, atol=0.1)


def test_samples_come_from_each_component_in_proportion_to_its_weight():
    prior = GaussianMixture([[-50], [0], [50]], [1, 1, 1], [1, 2, 5])
    z = prior.sample({}, np.random.default_rng(0), 8000)
    shares = [np.mean(np.abs(z - mean) < 10) for mean in (-50, 0, 50)]
    np.testing.assert_allclose(shares, [1 / 8, 2 / 8, 5 / 8], atol=0.03)


@every_prior
def test_the_same_generator_state_gives_the_same_samples(prior):
    params = params_of(prior)
    first, second, other = (prior.sample(params, np.random.default_rng(seed), 5) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, second)
    assert not np.allclose(first, other)


@every_prior
@every_dtype
@pytest.mark.parametrize("temperature", [0.0, 0.5, 1.0, 2.0])
def test_a_temperature_scales_how_far_a_draw_is_from_its_mean(prior, dtype, temperature):
    params = params_of(prior, dtype)
    draw = lambda temperature: prior.sample(params, np.random.default_rng(3), 50, dtype, temperature)
    mean, plain = draw(0.0), prior.sample(params, np.random.default_rng(3), 50, dtype)
    assert draw(temperature).dtype == dtype
    np.testing.assert_allclose(
        draw(temperature), mean + temperature * (plain - mean), atol=1e-5 if dtype == np.float32 else 1e-12
    )
    if temperature == 1:
        assert draw(temperature).tobytes() == plain.tobytes()


def test_at_temperature_zero_draws_are_means():
    params = params_of(PRIORS["trained normal"])
    draw = lambda name, params: PRIORS[name].sample(params, np.random.default_rng(3), 50, temperature=0.0)
    np.testing.assert_array_equal(draw("normal", {}), np.zeros((50, 2)))
    np.testing.assert_array_equal(draw("logistic", {}), np.zeros((50, 2)))
    np.testing.assert_array_equal(draw("trained normal", params), np.tile(params["mean"], (50, 1)))
    assert set(map(tuple, draw("mixture", {}))) == set(MEANS)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_of_a_normal_at_a_temperature_have_the_density_to_a_power(temperature):
    prior = PRIORS["trained normal"]
    params = params_of(prior)
    grid = np.linspace(-30, 30, 2001)
    power = np.exp(prior.log_prob(params, np.stack([grid, np.zeros_like(grid)], axis=1)) / temperature**2)
    below = np.cumsum(power) / np.sum(power)
    z = prior.sample(params, np.random.default_rng(0), 20_000, temperature=temperature)[:, 0]
    shares = np.searchsorted(np.sort(z), grid) / len(z)
    np.testing.assert_allclose(shares, below, atol=0.02)


@trained_priors
def test_the_gradient_of_a_trained_prior_equals_finite_differences(prior):
    params, z = params_of(prior), draws(6, 2)
    layout = Layout(params)
    vector, steps = layout.pack(params), 1e-6 * np.eye(layout.size)
    total = lambda params: prior.log_prob(params, z).sum()
    _, gradient = value_and_grad(total)(params)
    high, low = (
        np.array([total(layout.unpack(vector + sign * step, params)) for step in steps]) for sign in (1, -1)
    )
    np.testing.assert_allclose(layout.pack(gradient), (high - low) / 2e-6, rtol=1e-6, atol=1e-6)


@every_prior
def test_the_gradient_in_z_equals_finite_differences(prior):
    params, z = params_of(prior), draws(6, 2)
    _, gradient = value_and_grad(lambda z: prior.log_prob(params, z).sum())(z)
    for column, step in enumerate(1e-6 * np.eye(2)):
        slope = (prior.log_prob(params, z + step) - prior.log_prob(params, z - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, column], slope, rtol=1e-6, atol=1e-6)


@every_prior
@every_dtype
def test_the_dtype_is_kept_in_parameters_log_prob_gradient_and_samples(prior, dtype):
    params, z = params_of(prior, dtype), draws(6, 2, dtype=dtype)
    log_prob = prior.log_prob(params, z)
    samples = prior.sample(params, np.random.default_rng(0), 4, dtype)
    _, gradient = value_and_grad(lambda z: prior.log_prob(params, z).sum())(z)
    assert (log_prob.shape, log_prob.dtype) == ((6,), dtype)
    assert (samples.shape, samples.dtype) == ((4, 2), dtype)
    assert gradient.dtype == dtype
    if getattr(prior, "trained", False):
        assert Layout(params).dtype == dtype


def test_a_mixture_far_from_the_data_has_a_finite_log_prob():
    prior = GaussianMixture([[0, 0], [1, 1]], [1e-2, 1e-2])
    assert np.isfinite(prior.log_prob({}, np.full((1, 2), 1e4, np.float32))).all()


def test_the_event_shape_of_a_normal_is_a_tuple_of_ints():
    assert Normal(3).event_shape == Normal((3,)).event_shape == Normal([np.int64(3)]).event_shape == (3,)
    assert Normal((4, 4, 3)).sample({}, np.random.default_rng(0), 2).shape == (2, 4, 4, 3)


def test_a_mixture_stores_tuples_of_floats():
    prior = GaussianMixture(np.array([[0, 1], [2, 3]]), np.array([1, 2]))
    assert prior == GaussianMixture(((0.0, 1.0), (2.0, 3.0)), (1.0, 2.0), (1.0, 1.0))
    assert hash(prior) == hash(GaussianMixture(((0.0, 1.0), (2.0, 3.0)), (1.0, 2.0)))
    assert prior.event_shape == (2,)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Normal(0), "Normal's event_shape to be at least 1, got 0"),
        (lambda: Normal((2, 1.5)), r"Normal's event_shape to be an integer, got 1\.5"),
        (lambda: Normal("2"), "Normal's event_shape to be an integer, got '2'"),
        (lambda: Normal(()), "Normal's event_shape to have at least one axis"),
        (lambda: Normal(2, trained=1), "Normal's trained to be True or False, got 1"),
        (lambda: Logistic(0), "Logistic's event_shape to be at least 1, got 0"),
        (
            lambda: GaussianMixture([[0, 0], [1]], [1, 1]),
            r"rows of one length, at least one, got \[\[0, 0\], \[1\]\]",
        ),
        (lambda: GaussianMixture([], []), r"means to be rows of one length, at least one, got \[\]"),
        (lambda: GaussianMixture([[]], [1]), r"means to be rows of one length, at least one, got \[\[\]\]"),
        (
            lambda: GaussianMixture([0, 1], [1, 1]),
            "each row in GaussianMixture's means as a list or tuple, got 0",
        ),
        (
            lambda: GaussianMixture([[0, 0], [1, 1]], [1]),
            "one std and one weight for each .*, got 2 means, 1 stds and 2 weights",
        ),
        (
            lambda: GaussianMixture([[0, 0], [1, 1]], [1, 1], [1, 2, 3]),
            "one std and one weight for each .*, got 2 means, 2 stds and 3 weights",
        ),
        (
            lambda: GaussianMixture([[0, np.nan]], [1]),
            "GaussianMixture's means to be a finite number, got nan",
        ),
        (lambda: GaussianMixture([["x", 0]], [1]), "GaussianMixture's means to be a number, got 'x'"),
        (
            lambda: GaussianMixture([[0, 0]], [0]),
            "GaussianMixture's stds to be a finite number above 0, got 0",
        ),
        (lambda: GaussianMixture([[0, 0]], [1], [-1]), "weights to be a finite number above 0, got -1"),
    ],
)
def test_invalid_hyper_parameters_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


def test_a_mixture_far_from_its_point_and_with_large_log_weights_stays_finite_or_minus_infinity():
    mixture = GaussianMixture(((0.0, 0.0), (1.0, 1.0)), (1.0, 1.0), trained=True)
    params = mixture.init(np.random.default_rng(0), np.zeros((1, 2)))
    far = np.full((1, 2), 1e20, np.float32)
    with np.errstate(over="ignore"):
        fixed = GaussianMixture(((0.0, 0.0), (1.0, 1.0)), (1.0, 1.0))
        assert fixed.log_prob({}, far)[0] == -np.inf
    params["log_weights"] += 800
    assert np.isfinite(mixture.sample(params, np.random.default_rng(0), 5)).all()
    assert np.isfinite(mixture.log_prob(params, np.zeros((1, 2)))).all()


# ---------------------------------------------------------------- on a device


def test_every_prior_is_in_the_table():
    defined = {
        name for name, value in vars(priors).items() if isinstance(value, type) and issubclass(value, Prior)
    }
    assert defined == {type(prior).__name__ for prior in PRIORS.values()} | {"Prior"}


@every_prior
@every_dtype
def test_on_a_device_the_density_equals_the_hosts_and_nothing_is_sent(prior, dtype, device):
    def everything(params, z):
        total = lambda p: anp.sum(prior.log_prob(p["prior"], p["z"]))
        value, gradient = value_and_grad(total)({"prior": params, "z": z})
        return prior.log_prob(params, z), value, [leaf for _, leaf in tree.items(gradient)]

    params, z = params_of(prior, dtype), draws(6, 2, dtype=dtype)
    there = to_device((params, z), device.name)
    everything(*there)  # the first call sends fixed means and weights
    with stand_in.counted() as transfers:
        results = everything(*there)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, results, everything(params, z))


@every_prior
@every_dtype
def test_samples_are_drawn_on_the_device(prior, dtype, device):
    params = params_of(prior, dtype)
    there = to_device(params, device.name)
    prior.sample(there, device.generator(np.random.default_rng(0)), 1, dtype)
    with stand_in.counted() as transfers:
        z = prior.sample(there, device.generator(np.random.default_rng(0)), 2000, dtype)
    assert transfers == stand_in.Transfers(0, 0)
    expected = prior.sample(params, np.random.default_rng(0), 2000, dtype)
    if device.exact:  # the stand-in's numbers are the host's
        assert_agrees(device, z, expected)
    else:
        z = device.fetch(z)
        assert z.dtype == dtype
        np.testing.assert_allclose(z.mean(0), expected.mean(0), atol=0.2)
        np.testing.assert_allclose(np.cov(z.T), np.cov(expected.T), atol=0.5)


def test_the_mixtures_components_are_drawn_as_numpys_choice_draws_them():
    prior = PRIORS["mixture"]
    rng, twin = np.random.default_rng(0), np.random.default_rng(0)
    component = twin.choice(3, 50, p=np.divide(WEIGHTS, np.sum(WEIGHTS)))
    noise = twin.standard_normal((50, 2))
    expected = np.array(MEANS)[component] + np.array(STDS)[component, None] * noise
    np.testing.assert_allclose(prior.sample({}, rng, 50), expected, rtol=1e-12)


@pytest.mark.parametrize("trained", [False, True])
def test_a_mixture_in_float32_takes_the_logs_of_stds_and_weights_of_any_size(trained):
    z = rows(5, 2, dtype=np.float32)
    for size in (1e-300, 1e300, 1e308):
        mixture = GaussianMixture([[0, 0], [1, 1]], [1, 2], [size, size], trained=trained)
        plain = GaussianMixture([[0, 0], [1, 1]], [1, 2], trained=trained)
        found = [one.log_prob(one.init(None, z), z) for one in (mixture, plain)]
        np.testing.assert_allclose(*found, rtol=1e-6)
    narrow = GaussianMixture([[0, 0], [1, 1]], [1e-60, 2], trained=trained)
    with np.errstate(over="ignore"):
        assert np.isfinite(narrow.log_prob(narrow.init(None, z), z)).all()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("trained", [False, True])
def test_means_that_the_dtype_cannot_hold_get_a_sentence(trained, rng):
    prior = GaussianMixture(((0.0, 1e300), (1.0, 0.0)), (1e300, 1.0), trained=trained)
    z = np.zeros((3, 2), np.float32)
    call = lambda: prior.log_prob(prior.init(rng, z), z)
    assert refusal(call).startswith("expected GaussianMixture's means in the range of float32, got 1e+300")
