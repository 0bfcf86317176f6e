"""The variational autoencoder: its bound, importance-weighted likelihoods, training, refusals."""

import re
import warnings
from dataclasses import replace

import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, rows, vector
from scipy.stats import multivariate_normal

import npflow
from npflow import InputError, NonFiniteError, fit, to_device
from npflow.autodiff import tree, value_and_grad
from npflow.flow import Flow
from npflow.layers import Affine, Chain, Logit, MaskedAutoregressive, Planar
from npflow.models import VAE, maf, real_nvp, vae
from npflow.networks import MADE, MLP
from npflow.priors import GaussianMixture, Normal
from npflow.training import Adam, WarmupCosine

SMALL = VAE(3, 2, MLP((8,), "tanh"), MLP((8,), "tanh"))
IAF = Chain(
    [MaskedAutoregressive(MADE((8,), "tanh")), MaskedAutoregressive(MADE((8,), "tanh", order="reversed"))]
)
FLOWS = replace(
    SMALL, posterior=Chain([IAF, Planar()]), prior=real_nvp(2, 2, MLP((8,), "tanh")), context_features=3
)


@pytest.fixture
def x(rng):
    return rng.normal(5, 3, (60, 3))


def run(x, *, model=SMALL, seed=0, **options):
    params = model.init(np.random.default_rng(1), x)
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    return fit(model, params, x, rng=np.random.default_rng(seed), **options)


# ---------------------------------------------------------------- the bound and the likelihood


def scale_and_shift(model, params):
    """The a and b of x = a y + b, where y is what the encoder sees of x."""
    b, a_and_b = model.norm.inverse(params["norm"], np.stack([np.zeros(3), np.ones(3)]))[0]
    return a_and_b - b, b


def linear_gaussian(rng, wide=2.0):
    """A VAE that is a factor analyser, its parameters, and the mean and covariance of its x."""
    model = VAE(3, 2, MLP((8,), "tanh"), MLP(()))
    params = moved(model.init(rng, rng.normal(5, 3, (60, 3))), rng, by=0.2)
    (decoder,) = params["decoder"]
    decoder["weight"][:, 3:] = 0  # log std is then the bias, for all z
    decoder["bias"][3:] += wide  # and wide, so that an untrained encoder is a good enough proposal
    std_of_x, mean_of_x = scale_and_shift(model, params)
    loading = decoder["weight"][:, :3] * std_of_x
    std = np.exp(5 * np.tanh(decoder["bias"][3:] / 5)) * std_of_x
    mean = decoder["bias"][:3] * std_of_x + mean_of_x
    return model, params, mean, loading.T @ loading + np.diag(std**2)


def test_importance_weighting_approaches_the_exact_likelihood_of_a_linear_gaussian(rng):
    model, params, mean, covariance = linear_gaussian(rng)
    x = model.sample(params, rng, 200)
    exact = multivariate_normal(mean, covariance).logpdf(x)
    means = [model.log_prob(params, x, rng=rng, draws=draws).mean() for draws in (1, 10, 100, 1000)]
    assert np.all(np.diff([*means, exact.mean()]) > -1e-3)  # ascending, and below the exact mean
    off = np.abs(model.log_prob(params, x, rng=rng, draws=4000) - exact)
    assert np.all(np.quantile(off, [0.5, 0.9]) < [0.03, 0.15])
    assert means[-1] == pytest.approx(exact.mean(), abs=0.05)
    assert model.elbo(params, x, rng=rng, draws=200).mean() < means[1]


def test_the_elbo_of_the_exact_posterior_is_the_likelihood(rng):
    model, params, mean, covariance = linear_gaussian(rng)
    # One component of z, so that the exact posterior, N(gain (x - mean), variance), is of the encoder's kind.
    model = VAE(3, 1, MLP(()), MLP(()))
    decoder = {"weight": params["decoder"][0]["weight"][:1], "bias": params["decoder"][0]["bias"]}
    loading, noise = decoder["weight"][0, :3], np.exp(-2 * 5 * np.tanh(decoder["bias"][3:] / 5))
    variance = 1 / (1 + loading @ (noise * loading))
    gain = variance * loading * noise
    raw = 5 * np.arctanh(0.5 * np.log(variance) / 5)
    encoder = {
        "weight": np.stack([gain, np.zeros(3)], axis=1),
        "bias": np.array([-gain @ decoder["bias"][:3], raw]),
    }
    params = {"decoder": [decoder], "encoder": [encoder], "norm": params["norm"]}
    x = model.sample(params, rng, 100)
    std_of_x, _ = scale_and_shift(model, params)
    covariance = np.outer(loading, loading) + np.diag(1 / noise)
    exact = multivariate_normal(mean, covariance * np.outer(std_of_x, std_of_x)).logpdf(x)
    np.testing.assert_allclose(model.log_prob(params, x, rng=rng, draws=1), exact, rtol=1e-10)
    np.testing.assert_allclose(model.elbo(params, x, rng=rng, draws=4000).mean(), exact.mean(), atol=0.02)


def test_the_elbo_is_below_the_estimate_which_rises_with_the_number_of_samples(rng, x):
    params = moved(SMALL.init(rng, x), rng, by=0.2)
    elbo = SMALL.elbo(params, x, rng=rng, draws=500)
    one = SMALL.log_prob(params, x, rng=rng, draws=1)
    many = SMALL.log_prob(params, x, rng=rng, draws=500)
    assert np.all(elbo < many)
    assert one.mean() == pytest.approx(elbo.mean(), abs=4 * np.std(one - elbo) / np.sqrt(len(x)))


def test_the_loss_of_a_row_is_the_negative_elbo_of_its_draw(rng, x):
    params = moved(SMALL.init(rng, x), rng, by=0.2)
    epsilon = rng.standard_normal((len(x), 2))
    mean, log_std = SMALL.encode(params, x)
    z = mean + np.exp(log_std) * epsilon
    at, spread = SMALL.decode(params, z)
    reconstruction = -0.5 * np.sum(((x - at) / np.exp(spread)) ** 2 + 2 * spread + np.log(2 * np.pi), axis=1)
    divergence = 0.5 * np.sum(mean**2 + np.exp(2 * log_std) - 2 * log_std - 1, axis=1)
    np.testing.assert_allclose(SMALL.losses(params, x, epsilon), divergence - reconstruction, rtol=1e-10)


def test_its_density_integrates_to_one(rng):
    model = VAE(1, 1, MLP((8,), "tanh"), MLP((8,), "tanh"))
    params = moved(model.init(rng, rng.normal(-4, 2, (50, 1))), rng, by=0.2)
    at = np.linspace(-25, 15, 160)[:, None]
    p = np.exp(model.log_prob(params, at, rng=rng, draws=2000))  # its mean is the density
    assert np.sum(p) * (at[1, 0] - at[0, 0]) == pytest.approx(1, abs=0.02)


def test_units_of_the_data_shift_the_elbo_by_their_logarithm(rng, x):
    units, shift = np.array([1e-3, 1.0, 1e3]), np.array([5.0, 0.0, -1e4])
    other = x * units + shift
    elbos = [
        SMALL.elbo(SMALL.init(np.random.default_rng(1), data), data, rng=np.random.default_rng(2))
        for data in (x, other)
    ]
    np.testing.assert_allclose(elbos[1], elbos[0] - np.sum(np.log(units)), rtol=1e-6)


def test_many_samples_are_evaluated_in_parts_of_bounded_size(rng, x, monkeypatch):
    params = moved(SMALL.init(rng, x), rng, by=0.2)
    whole = SMALL.log_prob(params, x, rng=np.random.default_rng(3), draws=50)
    rows, map_rows = [], vae.map_rows

    def watched(fun, params, *arrays):
        rows.append(len(arrays[0]))
        return map_rows(fun, params, *arrays)

    monkeypatch.setattr(vae, "map_rows", watched)
    monkeypatch.setattr(vae, "AT_ONCE", 7 * len(x))
    parts = SMALL.log_prob(params, x, rng=np.random.default_rng(4), draws=50)
    assert rows == [7 * len(x)] * 7 + [len(x)]
    assert parts.mean() == pytest.approx(whole.mean(), rel=0.1)  # the same estimate from other draws
    monkeypatch.setattr(vae, "AT_ONCE", 1)
    rows.clear()
    SMALL.log_prob(params, x, rng=rng, draws=3)
    assert rows == [len(x)] * 3


# ---------------------------------------------------------------- flows


def plain_params(params):
    """The parameters of a VAE of two components of z, without its flows and without h."""
    *hidden, last = params["encoder"]
    last = {"weight": last["weight"][:, :4], "bias": last["bias"][:4]}
    return {"decoder": params["decoder"], "encoder": [*hidden, last], "norm": params["norm"]}


@pytest.mark.parametrize(
    "model",
    [
        replace(SMALL, posterior=Chain([Planar(), IAF]), context_features=3),
        replace(SMALL, posterior=Planar()),
        replace(SMALL, prior=Flow(Affine(), Normal(2))),
        replace(SMALL, posterior=IAF, prior=Flow(IAF, Normal(2))),
    ],
    ids=["posterior with h", "posterior", "prior", "both"],
)
def test_flows_that_are_the_identity_leave_the_bound_as_it_is(model, rng, x):
    params = model.init(rng, x)
    network = moved({name: params[name] for name in ("decoder", "encoder")}, rng, by=0.2)
    network["decoder"][-1]["bias"][3:] += 2  # wide, so that a mean of draws is accurate
    params, plain = params | network, plain_params(params | network)
    epsilon = rng.standard_normal((len(x), 2))
    np.testing.assert_allclose(
        -model.losses(params, x, epsilon), SMALL._log_weights(plain, x, epsilon), atol=1e-12
    )
    of_both = (
        one.log_prob(of_one, x, rng=np.random.default_rng(0), draws=7)
        for one, of_one in ((model, params), (SMALL, plain))
    )
    np.testing.assert_allclose(*of_both, rtol=0, atol=1e-12)
    # The plain one has the divergence in closed form; with flows it is that of the draws.
    elbos = (
        one.elbo(of_one, x, rng=rng, draws=1000).mean() for one, of_one in ((model, params), (SMALL, plain))
    )
    assert next(elbos) == pytest.approx(next(elbos), abs=0.05)


def test_the_bound_rises_to_the_exact_likelihood_whatever_the_posterior(rng):
    plain, params, mean, covariance = linear_gaussian(rng)
    model = replace(plain, posterior=IAF, context_features=3, prior=Flow(Affine(), Normal(2)))
    params = moved(model.init(rng, plain.sample(params, rng, 60)), rng, by=0.1) | {
        name: params[name] for name in ("decoder", "norm")
    }
    params["encoder"][-1]["bias"][2:4] = 0  # with flows it starts narrow, a poor proposal here
    prior = {"mean": np.array([0.3, -0.2]), "log_std": np.array([0.2, -0.3])}
    params["prior"] = {"layer": prior, "prior": {}}
    std_of_x, _ = scale_and_shift(model, params)
    loading = params["decoder"][0]["weight"][:, :3] * std_of_x
    noise = covariance - loading.T @ loading
    covariance = noise + loading.T @ np.diag(np.exp(2 * prior["log_std"])) @ loading
    exact_density = multivariate_normal(mean + prior["mean"] @ loading, covariance)

    x = model.sample(params, rng, 20_000)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(x.mean(axis=0) / scale, exact_density.mean / scale, atol=0.03)
    np.testing.assert_allclose(
        np.cov(x.T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.05
    )

    x = x[:200]
    exact = exact_density.logpdf(x)
    elbo = model.elbo(params, x, rng=rng, draws=500).mean()
    bounds = [model.log_prob(params, x, rng=rng, draws=draws).mean() for draws in (1, 10, 100, 1000)]
    assert bounds[0] == pytest.approx(elbo, abs=0.3)  # both are estimates of the ELBO
    assert np.all(np.diff([elbo, *bounds[1:], exact.mean()]) > -1e-3)
    assert bounds[-1] == pytest.approx(exact.mean(), abs=0.05)


def test_an_autoregressive_posterior_has_the_covariance_that_independent_components_lack(rng):
    """Of a linear Gaussian, with a linear IAF: q(z | x) is then the posterior, and one draw gives log p(x)."""
    plain, params, mean, covariance = linear_gaussian(rng, wide=0.0)
    model = replace(plain, encoder=MLP(()), posterior=MaskedAutoregressive(MADE(())))
    weight, bias = params["decoder"][0]["weight"], params["decoder"][0]["bias"]
    loading = weight[:, :3] * scale_and_shift(model, params)[0]
    covariance = covariance + 15 * loading.T @ loading
    weight *= 4  # so that the components of z are correlated, given x
    loading, precision = weight[:, :3], np.exp(-10 * np.tanh(bias[3:] / 5))
    of_posterior = np.linalg.inv(np.eye(2) + loading * precision @ loading.T)
    gain = of_posterior @ loading * precision  # z = gain (y - bias) + L epsilon
    lower = np.linalg.cholesky(of_posterior)
    std = np.diag(lower)
    z_to_z_0 = np.linalg.inv(lower / std)  # z_0 has independent components
    encoder = {
        "weight": np.concatenate([(z_to_z_0 @ gain).T, np.zeros((3, 2))], axis=1),
        "bias": np.concatenate([-z_to_z_0 @ gain @ bias[:3], 5 * np.arctanh(np.log(std) / 5)]),
    }
    shift = {"weight": np.zeros((2, 4)), "bias": np.zeros(4)}
    shift["weight"][0, 3] = (lower / std)[1, 0]
    params |= {"encoder": [encoder], "posterior": [shift]}
    x = model.sample(params, rng, 100)
    exact = multivariate_normal(mean, covariance).logpdf(x)
    np.testing.assert_allclose(model.log_prob(params, x, rng=rng, draws=1), exact, rtol=1e-10)
    shift["weight"][...] = 0
    assert model.log_prob(params, x, rng=rng, draws=1).mean() < exact.mean() - 0.1
    x = np.repeat(x[:1], 20_000, axis=0)
    shift["weight"][0, 3] = (lower / std)[1, 0]
    np.testing.assert_allclose(np.cov(model.sample_posterior(params, rng, x).T), of_posterior, atol=0.03)


def test_the_loss_of_several_draws_is_the_importance_weighted_bound(rng, x):
    several = replace(FLOWS, draws=5)
    params = moved(FLOWS.init(rng, x), rng, by=0.2)
    (epsilon,) = several.noise(rng, len(x), np.float64)
    log_weights = np.stack([FLOWS._log_weights(params, x, epsilon[:, k]) for k in range(5)])
    expected = np.log(5) - np.logaddexp.reduce(log_weights)
    np.testing.assert_allclose(several.losses(params, x, epsilon), expected, rtol=1e-12)
    for draws, method in ((1, several.elbo), (100, several.log_prob)):  # they do not depend on it
        same = method.__func__(FLOWS, params, x, rng=np.random.default_rng(0), draws=draws)
        assert np.array_equal(method(params, x, rng=np.random.default_rng(0), draws=draws), same)


def test_a_mixture_is_a_prior_by_way_of_a_flow(rng, x):
    mixture = Flow(Affine(), GaussianMixture([[-2, 0], [2, 0]], [0.5, 0.5], trained=True))
    model = replace(SMALL, prior=mixture)
    params, history = fit(model, model.init(rng, x), x, rng=rng, steps=5, progress=False)
    assert np.isfinite(history.loss).all()
    assert model.sample(params, rng, 4, temperature=0).shape == (4, 3)


# ---------------------------------------------------------------- samples, codes, dtypes


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("model", [SMALL, FLOWS, replace(FLOWS, draws=3)], ids=["plain", "flows", "draws"])
def test_everything_is_in_the_dtype_of_the_data(model, dtype, rng, x):
    x = x.astype(dtype)
    params = model.init(rng, x)
    assert {leaf.dtype for _, leaf in tree.items(params) if tree.is_trained(leaf)} == {np.dtype(dtype)}
    results = [
        model.sample(params, rng, 7),
        *model.encode(params, x),
        model.sample_posterior(params, rng, x),
        *model.decode(params, np.zeros((4, 2), dtype)),
        model.elbo(params, x, rng=rng, draws=3),
        model.log_prob(params, x, rng=rng, draws=3),
        model.losses(params, x, *model.noise(rng, len(x), dtype)),
    ]
    assert {result.dtype for result in results} == {np.dtype(dtype)}
    shapes = [(7, 3), (60, 2), (60, 2), (60, 2), (4, 3), (4, 3), (60,), (60,), (60,)]
    assert [result.shape for result in results] == shapes


def test_samples_have_the_mean_and_covariance_of_the_model(rng):
    model, params, mean, covariance = linear_gaussian(rng)
    x = model.sample(params, rng, 50_000)
    scale = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(x.mean(axis=0) / scale, mean / scale, atol=0.03)
    np.testing.assert_allclose(
        np.cov(x.T) / np.outer(scale, scale), covariance / np.outer(scale, scale), atol=0.03
    )


def test_a_new_model_has_a_nonzero_gradient(rng, x):
    params = SMALL.init(rng, x)
    _, gradient = value_and_grad(SMALL.loss)(params, x, *SMALL.noise(rng, len(x), np.float64))
    assert np.abs(gradient["decoder"][-1]["weight"]).max() > 0.05
    mean, log_std = SMALL.encode(params, x)
    assert 0.1 < mean.std() < 10
    assert np.all(log_std == 0)
    _, spread = SMALL.decode(params, mean)
    np.testing.assert_allclose(np.exp(spread), 0.14 * x.std(axis=0) * np.ones((60, 1)), rtol=0.1)


# ---------------------------------------------------------------- training


def test_it_learns_a_curve_in_three_dimensions(rng):
    z = rng.standard_normal((2000, 1))
    x = np.concatenate([z, np.tanh(2 * z), z**3 / 3], axis=1) + 0.1 * rng.standard_normal((2000, 3))
    model = VAE(3, 1, MLP((32, 32), "tanh"), MLP((32, 32), "tanh"))
    params = model.init(np.random.default_rng(1), x)
    learned, history = fit(
        model, params, x, rng=rng, steps=400, optimizer=Adam(WarmupCosine(1e-2, 400)), progress=False
    )
    assert (
        model.elbo(learned, x, rng=rng, draws=5).mean() > model.elbo(params, x, rng=rng, draws=5).mean() + 2
    )
    assert np.mean(history.loss[-20:]) == pytest.approx(
        -model.elbo(learned, x, rng=rng, draws=5).mean(), abs=0.1
    )
    mean, _ = model.encode(learned, x)
    assert abs(np.corrcoef(mean[:, 0], z[:, 0])[0, 1]) > 0.95


def test_the_best_parameters_by_validation_are_returned_and_every_validation_uses_the_same_noise(rng, x):
    held_out = rng.normal(5, 3, (30, 3))
    params, history = run(x, steps=60, validation=held_out, optimizer=Adam(0.05), average=0.5)
    assert history.validation_step[:2] == [4, 8]
    again, _ = run(x, steps=60, validation=held_out, optimizer=Adam(0.05), average=0.5)
    assert np.array_equal(vector(params), vector(again))
    assert min(history.validation_loss) < history.validation_loss[0]


def test_each_step_draws_new_noise(x):
    _, history = run(x, batch_size=60, optimizer=Adam(1e-12))
    assert len(set(history.loss)) == 20


@pytest.mark.parametrize(("dtype", "activation"), [(np.float32, "leaky_relu"), (np.float64, "tanh")])
def test_training_on_heavy_tails_in_any_units_stays_finite(dtype, activation, rng):
    x = (rng.standard_t(2, (3000, 4)) * np.array([1e-3, 1, 30, 1e3])).astype(dtype)
    model = VAE(4, 2, MLP((32, 32), activation), MLP((32, 32), activation))
    start = model.init(rng, x)
    params, history = fit(model, start, x, rng=rng, steps=400, batch_size=64, progress=False)
    assert np.isfinite(history.loss).all()
    assert np.isfinite(history.gradient_norm).all()
    assert np.isfinite(vector(params)).all()
    assert np.isfinite(model.log_prob(params, x, rng=rng, draws=5)).all()
    assert np.median(model.elbo(params, x, rng=rng)) > np.median(model.elbo(start, x, rng=rng)) + 0.3


@pytest.mark.parametrize("model", [SMALL, replace(FLOWS, draws=2)], ids=["plain", "flows"])
def test_training_on_a_device_equals_training_on_the_host(model, device, x):
    x, options = x.astype(np.float32), {"steps": 8, "average": 0.9, "clip_norm": 1.0}
    learned, history = run(x, model=model, **options)
    params = model.init(np.random.default_rng(1), x)
    params_there, x_there = to_device((params, x), device.name)
    there, history_there = fit(
        model, params_there, x_there, rng=np.random.default_rng(0), batch_size=16, progress=False, **options
    )
    if device.exact:  # a GPU draws numbers of its own
        assert_agrees(device, there, learned)
        assert history_there.loss == history.loss
    rng = np.random.default_rng(0)
    for got, host in (
        (model.log_prob(there, x_there, rng=rng, draws=5), model.log_prob(learned, x, rng=rng, draws=5)),
        (model.elbo(there, x_there, rng=rng), model.elbo(learned, x, rng=rng)),
        (model.sample(there, rng, 5), model.sample(learned, rng, 5)),
        (model.sample_posterior(there, rng, x_there), model.sample_posterior(learned, rng, x)),
        (model.encode(there, x_there)[0], model.encode(learned, x)[0]),
    ):
        assert npflow.autodiff.gpu.devices.device_of(got) is device
        assert (got.shape, got.dtype) == (host.shape, host.dtype)


# ---------------------------------------------------------------- failures and refusals


def test_the_error_names_the_first_part_whose_output_is_not_finite(rng, x):
    for name, bad, value in (
        ("norm", "log_scale", 800),
        ("encoder", "weight", 1e308),
        ("decoder", "weight", 1e308),
    ):
        params = SMALL.init(rng, x)
        leaf = params["norm"][1][bad] if name == "norm" else params[name][-1][bad]
        leaf[...] = value
        with pytest.raises(NonFiniteError, match=f"that of the {name}$"):
            fit(SMALL, params, x, rng=rng, steps=3, progress=False)


def test_the_error_names_the_layer_of_a_flow(rng, x):
    for model in (FLOWS, replace(FLOWS, draws=2)):
        params = model.init(rng, x)
        for name, leaves, value in (
            ("prior/prior (Normal)", [params["prior"]["layer"][-1][-1]["bias"]], 1e200),
            (
                "posterior/1 (Planar)",
                [params["posterior"][1][name] for name in ("weight", "direction")],
                1e200,
            ),
        ):
            for leaf in leaves:
                leaf[...] = value
            with pytest.raises(NonFiniteError, match=re.escape(f"that of the {name}")):
                fit(model, params, x, rng=rng, steps=3, progress=False)


def test_an_elbo_that_overflows_blames_no_part(rng, x):
    params = SMALL.init(rng, x)
    params["decoder"][-1]["bias"][:3] = 1e200
    with pytest.raises(NonFiniteError, match="although parameters and outputs are finite"):
        fit(SMALL, params, x, rng=rng, steps=3, progress=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": 0}, "VAE's features to be at least 1, got 0"),
        ({"latent": 1.5}, "VAE's latent to be an integer, got 1.5"),
        ({"encoder": MADE()}, r"VAE's encoder to be .* MLP, got MADE\("),
        ({"decoder": None}, "VAE's decoder to be .* MLP, got None"),
        ({"log_std_limit": 0}, "VAE's log_std_limit to be a finite number above 0, got 0"),
        (
            {"posterior": MLP()},
            r"VAE's posterior to be an object with init, forward and inverse, got MLP",
        ),
        ({"prior": Normal(2)}, "VAE's prior to be an instance of Flow, got Normal"),
        ({"prior": real_nvp(3)}, r"prior to be a flow of 2 features, those of z, .* got event_shape=\(3,\)$"),
        ({"prior": real_nvp(2, context_features=1)}, "and without a context, got one with a context$"),
        ({"context_features": 1}, "posterior to be a layer that takes a context, .* is 1, got None"),
        ({"context_features": 1, "posterior": Affine()}, r"takes a context, .* is 1, got Affine\(\)"),
        ({"draws": 0}, "VAE's draws to be at least 1, got 0"),
        ({"posterior": Logit(0)}, r"any real numbers, as z_0 is normal, got Logit\(alpha=0.0\)"),
    ],
)
def test_invalid_hyper_parameters_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        VAE(**{"features": 3} | arguments)


def test_invalid_input_is_refused(rng, x):
    params = SMALL.init(rng, x)
    for call, sentence in (
        (lambda: SMALL.init(rng, x[:, :2]), "expected x with rows of 3 features, got rows of 2 features"),
        (lambda: SMALL.init(0, x), "expected rng to be a numpy.random.Generator, got an int"),
        (lambda: SMALL.elbo(params, x.astype(np.float32), rng=rng), "x in float64, the dtype of the para"),
        (lambda: SMALL.elbo(params, x, rng=rng, draws=0), "expected draws to be at least 1, got 0"),
        (lambda: SMALL.log_prob(params, x, rng=rng, draws=2.5), "expected draws to be an integer, got 2.5"),
        (lambda: SMALL.log_prob(params, x, rng=0), "expected rng to be a numpy.random.Generator"),
        (lambda: SMALL.sample(params, rng, 0), "expected the number of samples to be at least 1, got 0"),
        (lambda: SMALL.encode(params, np.full_like(x, np.nan)), "expected x to be finite, got nan in row 0"),
        (lambda: SMALL.decode(params, x), "expected z with rows of 2 features, got rows of 3 features"),
        (lambda: fit(SMALL, params, x, x, rng=rng, progress=False), "expected no context for a VAE, got one"),
        (lambda: SMALL.encode(VAE(3).init(rng, x), x), "expected the parameters of this VAE"),
        (lambda: SMALL.encode({}, x), "expected the parameters of this VAE"),
        (lambda: SMALL.check(maf(3, 1).init(rng, x)), "expected the parameters of this VAE"),
        (lambda: FLOWS.check(params), "expected the parameters of this VAE"),
        (lambda: SMALL.sample_posterior(params, 0, x), "expected rng to be a numpy.random.Generator"),
    ):
        assert sentence in refusal(call)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_probability_of_rows_far_out_is_zero_without_a_warning(dtype, rng):
    params = moved(SMALL.init(rng, rows(50, 3, dtype=dtype)), rng)
    largest = np.finfo(dtype).max
    x = np.array([[size, 0, -size] for size in (largest, largest**0.75, largest**0.5, 1.0)], dtype)
    for estimate in (SMALL.log_prob, SMALL.elbo):
        with warnings.catch_warnings(action="error"):
            found = estimate(params, x, rng=rng, draws=3)
        assert not np.isnan(found).any()
        assert found[0] == -np.inf
        assert np.isfinite(found[-1])
    params["norm"][1]["bias"][0] = np.nan
    assert np.isnan(SMALL.log_prob(params, x, rng=rng)).all()
