# %% [markdown]
# # Every family on eight densities in the plane
#
# Which flow suits which shape? Each family of flows learns each of eight two-dimensional densities, from the
# same points, in the same small number of steps. All are scored on the same test points.
#
# The densities are known exactly, so there is a score that no model beats on average: the entropy,
# `-E[log p(x)]` under the true density. The difference between a flow's test loss and the entropy is the
# Kullback-Leibler divergence: the error of the flow in nats.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from matplotlib.colors import PowerNorm
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from tqdm.auto import tqdm

from npflow import Flow, fit, plots
from npflow.autodiff.program.threads import available_cores
from npflow.cli.demo import demo_options
from npflow.datasets import DENSITIES
from npflow.layers import ActNorm, Chain, Conv1x1
from npflow.models import (
    continuous_flow,
    gaussianization,
    glow,
    iaf,
    maf,
    neural_spline,
    nice,
    planar,
    real_nvp,
    residual_flow,
    sylvester,
)
from npflow.networks import MADE, MLP
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine

options = demo_options("families", "Every family of flows learns eight densities in the plane.")
plt.style.use(plots.STYLE)
clock = time.perf_counter()

# %% [markdown]
# ## The families
#
# One line each: a function of a size, which is 1 in the comparison and larger where we train longer. The
# first family is only there for comparison: an affine map of a Gaussian is a Gaussian, so its loss is the
# best that a Gaussian can have.

# %%
NETWORK, MASKED = MLP((32, 32)), MADE((32, 32))
FAMILIES = {
    "affine": lambda size: Flow(Chain([ActNorm(), Conv1x1()]), Normal(2)),
    "NICE": lambda size: nice(features=2, couplings=8 * size, network=NETWORK),
    "RealNVP": lambda size: real_nvp(2, 8 * size, NETWORK, masks=("second", "first")),
    "Glow": lambda size: glow(features=2, steps=8 * size, network=NETWORK),
    "MAF": lambda size: maf(features=2, steps=6 * size, network=MASKED),
    "IAF": lambda size: iaf(features=2, steps=6 * size, network=MASKED),
    "Gaussianization": lambda size: gaussianization(features=2, steps=6 * size, rotation="random"),
    "spline coupling": lambda size: neural_spline(features=2, steps=3 * size, network=NETWORK),
    "autoregressive spline": lambda size: neural_spline(2, 2 * size, "autoregressive", MASKED),
    "planar": lambda size: planar(features=2, steps=32 * size),
    "Sylvester": lambda size: sylvester(features=2, steps=16 * size),
    "residual flow": lambda size: residual_flow(features=2, steps=8 * size, hidden=(32, 32)),
    "continuous": lambda size: continuous_flow(features=2, hidden=(64 * size, 64 * size), steps=8),
}

# %% [markdown]
# ## The densities
#
# Six of them have several pieces, holes or edges. A continuous map of one Gaussian can come close to these,
# but not reach them. The other two can be represented exactly: the funnel by one affine layer whose scale of
# `x_2` depends on `x_1`, and the banana by an additive layer. So these two show what a family can represent,
# and the six show how well it bends.
#
# Every flow sees the points shifted to mean 0 and scaled to standard deviation 1, in float32. This is one
# more affine layer, `log p(x) = log q((x - mean) / std) - sum(log std)`, so all losses are in the units of
# the density.

# %%
ROWS, TEST_ROWS = (1000, 500) if options.quick else (20_000, 10_000)
names = ["moons"] if options.quick else list(DENSITIES)


class Data:
    """Training and test points of one density, and its own log p at the test points."""

    def __init__(self, density, rows, test_rows, seed):
        rng = np.random.default_rng(seed)
        self.density = density
        self.x = density.sample(rows, rng=rng)
        self.test = density.sample(test_rows, rng=rng)
        self.mean, self.std = self.x.mean(axis=0), self.x.std(axis=0)
        self.true_log_prob = density.log_prob(self.test)
        self.true_nll = float(-np.mean(self.true_log_prob))

    def scaled(self, x):
        """Points as the flows see them."""
        return ((x - self.mean) / self.std).astype(np.float32)

    def log_prob(self, flow, params, x):
        """The log density of a flow at points of the plane, in nats."""
        return flow.log_prob(params, self.scaled(x)) - np.sum(np.log(self.std))

    def score(self, log_prob):
        """The mean test loss of a model, its excess over the true density's, and a standard error."""
        excess = self.true_log_prob - log_prob
        return {
            "test_nll": float(-np.mean(log_prob)),
            "above_true": float(np.mean(excess)),
            "standard_error": float(np.std(excess) / np.sqrt(len(excess))),
        }


data = {name: Data(DENSITIES[name], ROWS, TEST_ROWS, seed) for seed, name in enumerate(names)}
entropies = {name: DENSITIES[name].entropy() for name in names}

# %% [markdown]
# ## Training
#
# All train in the same way: Adam with a short warm-up and a cosine schedule down to zero, with clipped
# gradients. The result is the moving average of the parameters. These flows are too small to use more than
# one core, so several train at a time, each in its own process. A process returns the score of its flow and a
# picture of its density.

# %%
STEPS = 3 if options.quick else 800
PIXELS = 30 if options.quick else 120


def train(flow, data, steps, rate):
    """Train a flow on the data; return its parameters."""
    x = data.scaled(data.x)
    start = flow.init(np.random.default_rng(1), x[:1000])
    params, history = fit(
        flow,
        start,
        x,
        rng=np.random.default_rng(2),
        steps=steps,
        batch_size=256,
        optimizer=Adam(WarmupCosine(rate, steps=steps, warmup=steps // 20)),
        clip_norm=3.0,
        average=0.995,
        record=not options.quick,  # a recording takes as long as several steps
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    return params


def picture(log_prob, limits, pixels=PIXELS):
    """The density at the centres of the pixels of an image."""
    x, y = (low + (high - low) * (np.arange(pixels) + 0.5) / pixels for low, high in limits)
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    return np.exp(log_prob(points)).reshape(pixels, pixels)


def learn(flow, data):
    """Train a flow; return its row for the table and its picture."""
    begun = time.perf_counter()
    params = train(flow, data, STEPS, rate=1e-2)
    row = data.score(data.log_prob(flow, params, data.test)) | {"seconds": time.perf_counter() - begun}
    return row, picture(lambda x: data.log_prob(flow, params, x), data.density.limits)


pairs = [(name, family) for family in FAMILIES for name in names]
processes = 1 if options.quick else available_cores()
jobs = [delayed(learn)(FAMILIES[family](1), data[name]) for name, family in pairs]
learned = Parallel(processes, return_as="generator")(jobs)
learned = dict(zip(pairs, tqdm(learned, total=len(pairs), unit="flow")))
rows = {pair: row for pair, (row, _) in learned.items()}
pictures = {pair: image for pair, (_, image) in learned.items()}

# %% [markdown]
# ## What they learned
#
# Each row is a density: points, the density itself, and what each family learned. Colours show the square
# root of the density, so that the threads between the pieces are visible. They have the same scale along a
# row. Below each picture is how many nats the flow is above the true density on the test points. The smallest
# number of a row is bold.


# %%
def show(ax, image, limits, top):
    """Draw a picture; the colour scale ends at `top`."""
    ax.imshow(
        image,
        cmap="cividis",
        norm=PowerNorm(0.5, vmin=0, vmax=top, clip=True),
        origin="lower",
        extent=np.ravel(limits),
        interpolation="nearest",
    )


columns = ["points", "true density", *FAMILIES]
shapes = [np.diff(DENSITIES[name].limits).ravel() for name in names]
heights = [height / width for width, height in shapes]
figure, axes = plt.subplots(
    len(names),
    len(columns),
    figsize=(0.82 * len(columns), 0.8 * sum(heights) + 0.22 * len(names) + 0.4),
    height_ratios=heights,
    layout="constrained",
    squeeze=False,
)
for name, row in zip(names, axes):
    limits = DENSITIES[name].limits
    true = picture(DENSITIES[name].log_prob, limits)
    plots.samples(data[name].test[:2000], row[0], limits=limits, s=1)
    row[0].set_ylabel(name.replace("_", "\n"))
    show(row[1], true, limits, true.max())
    row[1].set_xlabel(f"entropy {entropies[name]:.3f}", fontsize=8, labelpad=2)
    best = min(FAMILIES, key=lambda family: rows[name, family]["test_nll"])
    for family, ax in zip(FAMILIES, row[2:]):
        show(ax, pictures[name, family], limits, true.max())
        weight = "bold" if family == best else "normal"
        ax.set_xlabel(f"{rows[name, family]['above_true']:+.3f}", fontsize=8, weight=weight, labelpad=2)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
for column, ax in zip(columns, axes[0]):
    ax.set_title(column.replace(" ", "\n").replace("Gaussianiz", "Gaussian-\niz"), fontsize=8)
figure.savefig(options.out / "families.png")

# %% [markdown]
# ## In numbers
#
# Test losses in nats, and the mean training time of a flow in seconds. A mean over 10,000 points has a
# standard error of about 0.01, but this error is common to all models. The mean of the true density on these
# points shows its size: compare it with the entropy.


# %%
lines = {
    "entropy": entropies,
    "true density": {name: data[name].true_nll for name in names},
    **{family: {name: rows[name, family]["test_nll"] for name in names} for family in FAMILIES},
}
seconds = {family: f"{np.mean([rows[name, family]['seconds'] for name in names]):.1f}" for family in FAMILIES}
widths = {name: max(10, len(name) + 2) for name in names}
print(f"\n{'':24}" + "".join(f"{name:>{width}}" for name, width in widths.items()) + f"{'seconds':>10}")
for line, numbers in lines.items():
    figures = "".join(f"{numbers[name]:{width}.4f}" for name, width in widths.items())
    print(f"{line:24}{figures}{seconds.get(line, ''):>10}")

# %% [markdown]
# ## Two moons, with more time
#
# The family that was best on two moons trains once more: twice the size, more points, many more steps. It is
# compared with two classical estimators on the same points. The mixture of Gaussians has 20 components. The
# kernel density estimate uses all points; its bandwidth is chosen on separate points.
#
# The three are close, so there are 100,000 new test points. The standard error of a mean over them is 0.0023,
# and that of a difference from the true density is far smaller.

# %%
MANY, MANY_TEST, LONG = (1000, 500, 3) if options.quick else (50_000, 100_000, 4000)
moons = Data(DENSITIES["moons"], MANY, MANY_TEST, seed=100)
best = min(FAMILIES, key=lambda family: rows["moons", family]["test_nll"])


def long_flow():
    flow = FAMILIES[best](2)
    params = train(flow, moons, LONG, rate=5e-3)
    return f"{best}, {LONG} steps", lambda x: moons.log_prob(flow, params, x)


def gaussians():
    return "20 Gaussians", GaussianMixture(20, random_state=0).fit(moons.x).score_samples


def kernels():
    held_out = moons.density.sample(MANY // 10, rng=np.random.default_rng(101))
    fits = [KernelDensity(bandwidth=h, rtol=1e-3).fit(moons.x) for h in (0.015, 0.02, 0.025, 0.03)]
    kernel = max(fits, key=lambda kernel: kernel.score(held_out))
    return f"kernels of {kernel.bandwidth}", kernel.score_samples


def compare(make):
    """Fit a model; return its name, its row for the table and its picture."""
    begun = time.perf_counter()
    name, log_prob = make()
    seconds = time.perf_counter() - begun
    row = moons.score(log_prob(moons.test)) | {"seconds": seconds}
    return name, row, picture(log_prob, moons.density.limits, 2 * PIXELS)


models = Parallel(processes)(delayed(compare)(make) for make in (long_flow, gaussians, kernels))

# %% [markdown]
# Their densities, in the colours of the pictures above. The mixture shows its components, and the kernel
# estimate shows random clusters of its points. The flow has a smooth arc, and a thread between the moons.

# %%
limits = moons.density.limits
true = picture(moons.density.log_prob, limits, 2 * PIXELS)
figure, axes = plt.subplots(1, 4, figsize=(10, 2.4), layout="constrained")
show(axes[0], true, limits, true.max())
axes[0].set_title(f"the true density\n{moons.true_nll:.4f} nats")
for ax, (name, row, image) in zip(axes[1:], models):
    show(ax, image, limits, true.max())
    ax.set_title(f"{name}\n{row['test_nll']:.4f} nats")
figure.savefig(options.out / "moons.png")

# %%
print(f"\n{'two moons':24}{'test nll':>10}{'above true':>12}{'std. error':>12}{'seconds':>10}")
print(f"{'the true density':24}{moons.true_nll:10.4f}  (entropy {moons.density.entropy():.4f})")
for name, row, _ in models:
    print(
        f"{name:24}{row['test_nll']:10.4f}{row['above_true']:12.4f}{row['standard_error']:12.4f}{row['seconds']:10.1f}"
    )
summary = {
    "densities": {
        name: {
            "entropy": entropies[name],
            "true_nll": data[name].true_nll,
            "families": {family: rows[name, family] for family in FAMILIES},
        }
        for name in names
    },
    "moons": {
        "family": best,
        "test_rows": MANY_TEST,
        "true_nll": moons.true_nll,
        "standard_error": float(np.std(moons.true_log_prob) / np.sqrt(MANY_TEST)),
        "models": {name: row for name, row, _ in models},
    },
    "seconds": time.perf_counter() - clock,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"{summary['seconds']:.0f} seconds; figures and summary.json in {options.out}")
