# %% [markdown]
# # A density instead of data
#
# Sometimes there are no data, but a density that is known up to a constant: `p(x) = p~(x) / Z`. In physics `p~` is
# `exp(-energy)`, in Bayesian statistics it is likelihood times prior. A flow `q` can learn it from its own samples, by
#
# `E_q[log q(x) - log p~(x)] = KL(q || p) - log Z`,      `x = flow(z)`.
#
# This is variational inference with a flow (Rezende and Mohamed 2015). `ReverseKL` is this loss as a model for `fit`.
#
# The trained flow draws independent samples, and its own density is exact. So each sample has a weight
# `w = p~(x) / q(x)` that corrects what the flow has not learned. The mean of the weights estimates `Z`, and their
# spread tells how good the flow is: the effective sample size, as a share, is 1 where `q = p`.

# %%
import json
import time

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from matplotlib.colors import PowerNorm
from scipy.optimize import minimize
from scipy.stats import multivariate_normal, norm
from sklearn.datasets import load_breast_cancer

from npflow import fit, plots
from npflow.autodiff.program.threads import available_cores
from npflow.cli.demo import demo_options
from npflow.datasets import DENSITIES, Checkerboard
from npflow.layers import Spline
from npflow.models import ReverseKL, neural_spline, real_nvp
from npflow.plots.style import BLUE, VERMILLION
from npflow.training import Adam, ImportanceSample, WarmupCosine, importance_sample

options = demo_options("reverse_kl", "A flow learns a density that is known up to a constant, without data.")
plt.style.use(plots.STYLE)
clock = time.perf_counter()
DRAWS = 500 if options.quick else 20_000

# %% [markdown]
# ## Training without data, by stages
#
# The flow needs a start, and there is no batch of data to start from. So we draw one: normal noise as wide as the
# part of the plane where the density may be.
#
# Far-away modes are lost easily, because the loss looks only where the flow already is. So the density is *tempered*
# first: `p~^b` times a wide normal density to the power `1 - b` is flatter, and its modes are joined. Each stage goes on
# from the one before it, with a larger `b`; the last one has `b = 1`.
#
# The reverse KL still leaves the edges of the density a little thin, where the weights are then large. These weights
# say what to correct: rows that are drawn by their weights are about samples of `p~^b`, so a second, ordinary `fit` to
# these rows minimizes the divergence in the other direction, which must not miss anything that was found. So a stage
# is two calls of `fit`: one to the density, and one to the flow's own weighted samples. (Adaptive importance sampling;
# Cappé et al. 2008.)


# %%
class Tempered:
    """`p~^b`, times to the power `1 - b` a normal density as wide as a box: its logarithm and the gradient of it."""

    def __init__(self, density, b, box):
        left, right = np.array(box).T
        self.density, self.b, self.middle, self.std = density, b, (left + right) / 2, 0.4 * (right - left)

    def log_prob(self, x):
        wide = -0.5 * np.sum(((x - self.middle) / self.std) ** 2, axis=1)
        return self.b * self.density.log_prob(x) + (1 - self.b) * wide

    def score(self, x):
        return self.b * self.density.score(x) - (1 - self.b) * (x - self.middle) / self.std**2


def start(flow, box, seed=0):
    """Parameters of a flow that covers a box: `init` sees normal noise."""
    rng, wide = np.random.default_rng(seed), Tempered(None, 0, box)
    return flow.init(rng, (wide.middle + wide.std * rng.standard_normal((1000, 2))).astype(np.float32))


def fitted(model, params, x, rng, steps, rate):
    """An ordinary call of `fit`."""
    steps = 3 if options.quick else steps
    params, history = fit(
        model,
        params,
        x,
        rng=rng,
        steps=steps,
        batch_size=256,
        optimizer=Adam(WarmupCosine(rate, steps=steps, warmup=steps // 20)),
        clip_norm=10.0,
        average=0.99,
        record=not options.quick,  # a recording takes as long as several steps
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps}: nothing was written")
    return params


def learn(flow, params, density, box, stages, seed=1):
    """Go through stages, each of a b, steps of the reverse KL, and steps on weighted samples.

    Returns the parameters, and the effective sample size before each fit to weighted samples.
    """
    rng, sizes = np.random.default_rng(seed), []
    for b, steps, corrections in stages:
        target = Tempered(density, b, box)
        if steps:
            model = ReverseKL(flow, target.log_prob, target.score, path_gradient=True)
            params = fitted(model, params, None, rng, steps, 2e-3)
        sample = importance_sample(flow, params, target.log_prob, rng, DRAWS)
        sizes.append(sample.effective_sample_size)
        if corrections:
            params = fitted(flow, params, sample.resample(rng, DRAWS), rng, corrections, 3e-3)
    return params, sizes


def measured(sample):
    """The figures of an importance sample."""
    return {
        "effective_sample_size": sample.effective_sample_size,
        "log_z": sample.log_z,
        "standard_error": sample.log_z_error,
    }


# %% [markdown]
# ## Eight densities
#
# The toy densities have their constant, so `log Z` is 0, and they give their gradient, `score`, in closed form.
# (The checkerboard has jumps, where no gradient leads over the edge. Here it is blurred a little.) Two families learn
# each of them: couplings of splines, which bend well, and RealNVP, whose affine couplings reach far out into the tails
# of the funnel.
#
# Each flow trains by itself on one core, and several at a time.

# %%
TARGETS = DENSITIES | {"checkerboard": Checkerboard(noise=0.2)}
FAMILIES = {
    "spline coupling": lambda: neural_spline(2, steps=6, spline=Spline(bins=12, bound=4.0)),
    "RealNVP": lambda: real_nvp(features=2, couplings=8),
}
STAGES = ((0.1, 500, 200), (0.3, 400, 200), (0.6, 400, 200), (1, 600, 400), (1, 0, 400), (1, 0, 400))
if options.quick:
    STAGES = STAGES[:4]
processes = 1 if options.quick else available_cores()
names = ["moons", "eight_gaussians"] if options.quick else list(TARGETS)
PIXELS = 30 if options.quick else 120


def picture(log_prob, limits):
    """The density at the centres of the pixels of an image."""
    x, y = (low + (high - low) * (np.arange(PIXELS) + 0.5) / PIXELS for low, high in limits)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return np.exp(log_prob(points)).reshape(PIXELS, PIXELS)


def job(name, family):
    """Train a flow of a family to a density; return its row for the table, its picture and some samples."""
    begun, flow, density = time.perf_counter(), FAMILIES[family](), TARGETS[name]
    params, sizes = learn(flow, start(flow, density.limits), density, density.limits, STAGES)
    seconds = time.perf_counter() - begun
    sample = importance_sample(flow, params, density.log_prob, np.random.default_rng(2), DRAWS)
    log_q = lambda x: flow.log_prob(params, x.astype(np.float32))
    row = measured(sample) | {"reverse_kl_alone": sizes[3], "seconds": seconds}
    return row, picture(log_q, density.limits), sample.x[:2000]


pairs = [(name, family) for name in names for family in FAMILIES]
learned = dict(zip(pairs, Parallel(processes)(delayed(job)(*pair) for pair in pairs)))
rows = {pair: row for pair, (row, *_) in learned.items()}
best = {name: max(FAMILIES, key=lambda family: rows[name, family]["effective_sample_size"]) for name in names}

# %% [markdown]
# The densities, in colours that show the square root, so that the threads between the pieces are visible. Below each
# picture is the effective sample size as a share; the largest of a column is bold.

# %%
lines = ["true density", *FAMILIES]
figure, axes = plt.subplots(len(lines), len(names), figsize=(10, 4.6), layout="constrained", squeeze=False)
for name, column in zip(names, axes.T):
    limits = TARGETS[name].limits
    true = picture(TARGETS[name].log_prob, limits)
    images = [true, *(learned[name, family][1] for family in FAMILIES)]
    for ax, image in zip(column, images):
        colours = PowerNorm(0.5, vmin=0, vmax=true.max(), clip=True)
        ax.imshow(
            image,
            norm=colours,
            origin="lower",
            extent=np.ravel(limits),
            interpolation="nearest",
            aspect="auto",
        )
        ax.set(xticks=[], yticks=[])
        ax.set_box_aspect(1)
    column[0].set_title(name.replace("_", "\n"), fontsize=9)
    for family, ax in zip(FAMILIES, column[1:]):
        weight = "bold" if family == best[name] else "normal"
        share = f"{rows[name, family]['effective_sample_size']:.2f}"
        ax.set_xlabel(share, fontsize=8, weight=weight, labelpad=2)
for line, ax in zip(lines, axes[:, 0]):
    ax.set_ylabel(line)
figure.savefig(options.out / "densities.png")

# %%
print(
    f"\n{'':18}{'family':18}{'first ESS':>10}{'ESS':>7}{'log Z, truth 0':>22}{'in errors':>11}{'seconds':>9}"
)
for name, family in pairs:
    row = rows[name, family]
    estimate = f"{row['log_z']:+.4f} +- {row['standard_error']:.4f}"
    errors = row["log_z"] / row["standard_error"]
    mark = " best" if family == best[name] else ""
    print(
        f"{name:18}{family:18}{row['reverse_kl_alone']:10.3f}{row['effective_sample_size']:7.3f}{estimate:>22}{errors:+11.1f}{row['seconds']:9.1f}{mark}"
    )

# %% [markdown]
# "First ESS" is the effective sample size after the reverse KL to the density itself, before the flow is fitted to its
# weighted samples. "In errors" is the distance of log Z from 0 in standard errors.

# %% [markdown]
# ## A mode that is lost, and nothing that tells
#
# The same splines without stages. On two moons the flow starts as wide as before, but the first call of `fit` has the
# density itself. It finds one moon, and stays there: the other one would have to be reached through a region where the
# density is nearly 0. All samples have about the same weight, so the effective sample size is close to 1. But the
# weights are half of what they should be: the estimate of log Z is near -log 2 = -0.69, and its standard error does not
# see this either. When Z is unknown, as it usually is, **nothing in the samples tells what was missed**. Only another run
# with a larger log Z does.
#
# The flow for eight Gaussians starts badly, on top of one of them, and spreads to some of its neighbours. Where it reaches
# k of eight, log Z is about log(k / 8).


# %%
NEAR = ((2.2, 3.4), (-0.6, 0.6))  # a box around the Gaussian at (sqrt(8), 0)
STARTS = {"moons": TARGETS["moons"].limits, "eight_gaussians": NEAR}


def without_stages(name, box):
    """Train the splines to a density in one call from a start; return their weighted samples."""
    flow, density = FAMILIES["spline coupling"](), TARGETS[name]
    model = ReverseKL(flow, density.log_prob, density.score)
    params = fitted(model, start(flow, box), None, np.random.default_rng(1), 1000, 5e-3)
    return importance_sample(flow, params, density.log_prob, np.random.default_rng(2), DRAWS)


lost = {}
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
jobs = [delayed(without_stages)(*pair) for pair in STARTS.items()]
for pair, name, sample in zip(axes.reshape(2, 2), STARTS, Parallel(processes)(jobs)):
    by_stages, _, x = learned[name, "spline coupling"]
    lost[name] = {"without stages": measured(sample), "by stages": by_stages}
    for ax, (how, row), points in zip(pair, lost[name].items(), (sample.x[:2000], x)):
        plots.samples(points, ax, limits=TARGETS[name].limits, s=2)
        ess, z, error = row["effective_sample_size"], row["log_z"], row["standard_error"]
        ax.set_title(f"{how}\nESS {ess:.2f}, log Z {z:+.3f}", fontsize=9)
        print(f"{name + ', ' + how:32} ESS {ess:.3f}, log Z {z:+.4f} +- {error:.4f}, truth 0")
        ax.set_box_aspect(1)
        ax.set_aspect("auto")
figure.savefig(options.out / "modes.png")

# %% [markdown]
# ## Bayesian logistic regression
#
# Is a tumour malignant? The answer `y` is 1 with probability `1 / (1 + exp(-(b + w.x)))`. The prior of `b` and each `w`
# is normal with standard deviation 3. With few rows the posterior is far from normal: it has a long tail towards large
# weights, as the classes are almost separable.
#
# Laplace's approximation is the classical answer: find the mode by `scipy.optimize`, and take the normal density with
# the curvature of `log p~` there. The flow starts from samples of it. Here the log density is written with
# `autograd.numpy`, and needs no score.

# %%
table = load_breast_cancer()
ROWS, COLUMNS, PRIOR_STD = 60, (0, 1, 4, 6, 8), 3.0
chosen = np.random.default_rng(0).permutation(len(table.data))[:ROWS]
features = table.data[chosen][:, COLUMNS]
features = (features - features.mean(axis=0)) / features.std(axis=0)
X = np.concatenate([np.ones((ROWS, 1)), features], axis=1)
y = 1 - table.target[chosen]  # 1 is malignant
coefficients = ["intercept", *(str(table.feature_names[column]) for column in COLUMNS)]
SIGNED = (X * (2 * y[:, None] - 1)).T


def log_posterior(w):
    """Log likelihood and log prior of each row of coefficients, up to the constant Z, which is the evidence."""
    log_likelihood = -anp.sum(anp.logaddexp(0, -anp.dot(w, SIGNED)), axis=1)
    log_prior = -0.5 * anp.sum((w / PRIOR_STD) ** 2 + np.log(2 * np.pi * PRIOR_STD**2), axis=1)
    return log_likelihood + log_prior


def minus_gradient(w):
    return -SIGNED @ (1 / (1 + np.exp(w @ SIGNED))) + w / PRIOR_STD**2


mode = minimize(lambda w: -log_posterior(w[None])[0], np.zeros(len(coefficients)), jac=minus_gradient).x
chance = 1 / (1 + np.exp(-X @ mode))
curvature = (X.T * (chance * (1 - chance))) @ X + np.eye(len(mode)) / PRIOR_STD**2
laplace = multivariate_normal(mode, np.linalg.inv(curvature))

# %% [markdown]
# Laplace's normal density gets weights too: its samples with their weights are another importance sample, of a
# different proposal. Where the two agree, both are believed.

# %%
rng = np.random.default_rng(3)
flow = real_nvp(features=len(mode), couplings=6)
params = flow.init(rng, laplace.rvs(1000, random_state=rng))
STEPS = 3 if options.quick else 1500
params, history = fit(
    ReverseKL(flow, log_posterior, path_gradient=True),
    params,
    None,
    rng=rng,
    steps=STEPS,
    batch_size=256,
    optimizer=Adam(WarmupCosine(3e-3, steps=STEPS, warmup=STEPS // 20)),
    clip_norm=10.0,
    average=0.99,
    record=not options.quick,
    progress=False,
)
if history.interrupted:
    raise SystemExit(f"stopped at step {history.steps}: nothing was written")
by_flow = importance_sample(flow, params, log_posterior, rng, DRAWS)
w = laplace.rvs(DRAWS, random_state=rng)
by_laplace = ImportanceSample(w, log_posterior(w) - laplace.logpdf(w))


def mean_and_std(sample):
    """Weighted means of the coefficients with their errors, and weighted standard deviations."""
    mean, error = sample.mean(lambda w: w)
    variance, _ = sample.mean(lambda w: (w - mean) ** 2)
    return {"mean": mean.tolist(), "standard_error": error.tolist(), "std": np.sqrt(variance).tolist()}


unweighted = ImportanceSample(by_flow.x, np.zeros(DRAWS))
posterior = {
    "Laplace": {"mean": mode.tolist(), "std": np.sqrt(np.diag(laplace.cov)).tolist()},
    "flow": mean_and_std(unweighted),
    "flow, weighted": mean_and_std(by_flow),
    "Laplace, weighted": mean_and_std(by_laplace),
}
evidence = {"flow": measured(by_flow), "Laplace": measured(by_laplace)}

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 3.0), layout="constrained")
SHOWN = (0, 1, 3)
for ax, place in zip(axes, SHOWN):
    values, weights = by_flow.x[:, place], by_flow.weights
    low, high = np.quantile(values, [0.001, 0.999])
    at = np.linspace(low, high, 200)
    bins = np.linspace(low, high, 41)
    ax.hist(values, bins, weights=weights / (bins[1] - bins[0]), color="0.85", label="flow, weighted")
    ax.hist(values, bins, density=True, histtype="step", color=BLUE, label="flow")
    std = np.sqrt(laplace.cov[place, place])
    ax.plot(at, norm.pdf(at, mode[place], std), "--", color=VERMILLION, label="Laplace")
    ax.set(title=coefficients[place], yticks=[])
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, fontsize=8)
first, second = SHOWN[1:]
x = by_flow.resample(rng, min(DRAWS, 2000))
axes[3].scatter(x[:, first], x[:, second], s=3, linewidths=0, alpha=0.5, color="0.5")
angle = np.linspace(0, 2 * np.pi, 100)
circle = np.stack([np.cos(angle), np.sin(angle)])
root = np.linalg.cholesky(laplace.cov[np.ix_([first, second], [first, second])])
for radius in np.sqrt(-2 * np.log([0.5, 0.05])):
    ellipse = mode[[first, second], None] + radius * root @ circle
    axes[3].plot(*ellipse, "--", color=VERMILLION)
axes[3].set(title="resampled; Laplace 50 and 95 %", xlabel=coefficients[first], ylabel=coefficients[second])
figure.savefig(options.out / "regression.png")

# %%
print(f"\n{'posterior':20}" + "".join(f"{name:>28}" for name in posterior))
for place, name in enumerate(coefficients):
    cells = []
    for row in posterior.values():
        error = f" ({row['standard_error'][place]:.3f})" if "standard_error" in row else ""
        cells.append(f"{row['mean'][place]:+.3f}{error} +- {row['std'][place]:.3f}")
    print(f"{name:20}" + "".join(f"{cell:>28}" for cell in cells))
print("mean (its standard error) +- standard deviation of the posterior")
for name, row in evidence.items():
    print(
        f"weights of the {name}: log Z {row['log_z']:.3f} +- {row['standard_error']:.3f}, "
        f"effective sample size {row['effective_sample_size']:.3f}"
    )

# %%
summary = {
    "modes": lost,
    "densities": {name: {family: rows[name, family] for family in FAMILIES} for name in names},
    "best": best,
    "regression": {"coefficients": coefficients, "posterior": posterior, "evidence": evidence},
    "seconds": time.perf_counter() - clock,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"{summary['seconds']:.0f} seconds; figures and summary.json in {options.out}")
