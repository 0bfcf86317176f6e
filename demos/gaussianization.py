# %% [markdown]
# # Gaussianization: a flow without a gradient, and what gradients add
#
# Let F be the distribution function of a number x. Then F(x) is uniform, and Phi^-1(F(x)) is standard normal,
# where Phi is the normal distribution function. So one column of a table can be made normal in one step. Two
# columns that are each normal are not jointly normal. But rotate the axes: the new columns are mixtures of
# the old ones, and no longer normal. Make them normal, rotate again, and so on. Each step brings the data
# closer to a normal distribution. All steps together, with their log-dets, are a density. Nothing was
# trained.
#
# Every step is invertible and differentiable, so the same chain can then be trained by maximum likelihood: a
# normalizing flow that starts from a good density. This demo does both.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
from scipy import stats

from npflow import datasets, fit, plots
from npflow.cli.demo import demo_options
from npflow.layers import Gaussianize
from npflow.models import gaussianization
from npflow.plots.style import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options(
    "gaussianization", "Iterative Gaussianization of two moons, and the flow trained from it."
)
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# Two moons. Their density is known, and so is their entropy: on average no model has a lower test loss. A
# mean over 10,000 points has a standard error of 0.007 nats, so we also compute the loss of the true density
# on the same points.

# %%
rng = np.random.default_rng(0)
moons = datasets.Moons(noise=0.05)
x = moons.sample(2_000 if options.quick else 50_000, rng=rng).astype(np.float32)
test = moons.sample(10_000, rng=rng).astype(np.float32)
entropy, true_nll = moons.entropy(), float(-np.mean(moons.log_prob(test)))
print(f"entropy of the data: {entropy:.4f} nats; the true density on the test points: {true_nll:.4f}")

# %% [markdown]
# ## One column
#
# `Gaussianize` uses a mixture of eight logistics, fitted to the column, as F. Its density follows the
# histogram of the column (left). Its distribution function and the normal quantiles give the map (middle).
# The result is nearly normal (right). The next step, with eight more logistics, can correct what is left.

# %%
layer, columns = Gaussianize(components=8), x[:, :1]
params = layer.init(np.random.default_rng(0), columns)
at = np.linspace(-1.4, 2.4, 400, dtype=np.float32)[:, None]
z_at, log_slope = layer.forward(params, at)
density = np.exp(log_slope) * stats.norm.pdf(z_at[:, 0])  # F' = z' phi(z)
means, log_scales, log_weights = (params[name][0] for name in ("means", "log_scales", "log_weights"))
logistics = np.exp(log_weights) * stats.logistic.pdf(at, means, np.exp(log_scales))

figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
axes[0].hist(columns[:, 0], bins=120, density=True, color="0.8", label="the column")
axes[0].plot(at, logistics, color=BLUE, linewidth=0.8, label=["its eight logistics", *[None] * 7])
axes[0].plot(at, density, color=BLACK, linewidth=1.6, label="their mixture, F'")
axes[0].set(xlabel="x", ylabel="density", title="before")
axes[1].plot(at, z_at, color=BLACK, linewidth=1.6)
axes[1].set(xlabel="x", ylabel="z", title=r"the map, $z = \Phi^{-1}(F(x))$")
axes[2].hist(layer.forward(params, columns)[0][:, 0], bins=120, density=True, color="0.8", label="the column")
normal = np.linspace(-4.5, 4.5, 200)
axes[2].plot(normal, stats.norm.pdf(normal), color=VERMILLION, linewidth=1.6, label="standard normal")
axes[2].set(xlabel="z", ylabel="density", title="after")
for ax in (axes[0], axes[2]):
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.08))  # above the title, not over the curves
figure.savefig(options.out / "one_column.png")

# %% [markdown]
# ## Two columns, step by step
#
# Iterative Gaussianization with five steps is one call: `flow.init(rng, x)`. It fits each layer to the output
# of the layers before it. The pictures follow the same points through the layers (without the first one,
# which only chooses units). Each Gaussianize makes both margins normal, and each rotation changes the axes.
# (The rotations are random here. Principal components are the better choice for a table, but they are useless
# for two columns without correlation.) The moons are stretched, rotated, and stretched again, until they fill
# the plane almost evenly. The seams that are left need more steps.

# %%
flow = gaussianization(features=2, steps=2 if options.quick else 5, rotation="random")
params = flow.init(np.random.default_rng(1), x)
_, *steps = flow.layer.trace(params["layer"], x[:3000])
names = [f"{step.name.split('(')[1].rstrip(')')} {1 + number // 2}" for number, step in enumerate(steps)]
axes = plots.steps([x[:3000], *[step.output for step in steps]], names=["x", *names])
axes.flat[0].figure.savefig(options.out / "iterative.png")

# %% [markdown]
# ## How good is the density?
#
# Test losses with more and more steps. They fall more and more slowly: random axes are not the best ones, and
# each step adds a small error of its own.


# %%
def score(flow, params):
    """The mean test loss, its excess over the true density's on the same points, and a standard error."""
    excess = moons.log_prob(test) - flow.log_prob(params, test)
    return {
        "test_nll": float(-np.mean(flow.log_prob(params, test))),
        "above_true": float(np.mean(excess)),
        "standard_error": float(np.std(excess) / np.sqrt(len(excess))),
    }


iterative = {}
for count in (1, 5) if options.quick else (1, 2, 5, 10, 20, 40):
    clock = time.perf_counter()
    flow = gaussianization(features=2, steps=count, rotation="random")
    params = flow.init(np.random.default_rng(1), x)
    iterative[count] = score(flow, params) | {"seconds": time.perf_counter() - clock}

# %% [markdown]
# ## The same chain, trained
#
# Fifteen steps, trained by maximum likelihood from the result of `init`. Now all layers are optimized
# together.

# %%
STEPS = 20 if options.quick else 5000
flow = gaussianization(features=2, steps=3 if options.quick else 15, rotation="random")
start = flow.init(np.random.default_rng(1), x)
clock = time.perf_counter()
params, history = fit(
    flow,
    start,
    x,
    rng=np.random.default_rng(2),
    steps=STEPS,
    batch_size=512,
    optimizer=Adam(WarmupCosine(2e-2, steps=STEPS, warmup=STEPS // 20)),
    clip_norm=30.0,
    average=0.995,
)
if history.interrupted:
    raise SystemExit(f"stopped at step {history.steps} of {STEPS}: nothing was written")
trained = score(flow, params) | {"seconds": time.perf_counter() - clock, "steps": history.steps}

# %% [markdown]
# On the left the density after `init`, in the middle after training, on the right the true one. The contours
# contain the same shares of the mass. Training has separated the moons. A continuous map of one round cloud
# cannot cut it, so a thread still joins them, but it is too thin to be inside the contour of 99 % of the
# mass.

# %%
LIMITS = ((-1.4, 2.4), (-1.0, 1.5))
figure, axes = plt.subplots(1, 3, figsize=(10, 2.9), layout="constrained")
for ax, title, log_prob in (
    (axes[0], "after init", lambda at: flow.log_prob(start, at.astype(np.float32))),
    (axes[1], "trained", lambda at: flow.log_prob(params, at.astype(np.float32))),
    (axes[2], "the true density", moons.log_prob),
):
    plots.density(log_prob, ax, limits=LIMITS, resolution=50 if options.quick else 200)
    nats = true_nll if title.startswith("the") else -np.mean(log_prob(test))
    ax.set_title(f"{title}\ntest loss {nats:.3f} nats")
figure.savefig(options.out / "densities.png")

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
counts, losses = list(iterative), [row["test_nll"] for row in iterative.values()]
axes[0].plot(counts, losses, "o-", color=BLUE, label="iterative Gaussianization")
axes[0].plot(
    len(flow.layer.layers) // 2 - 1, trained["test_nll"], "s", color=VERMILLION, label="the flow, trained"
)
axes[0].axhline(true_nll, color=BLACK, linestyle="--", linewidth=1, label="true density, on the same points")
axes[0].set(xscale="log", xticks=counts, xticklabels=counts, xlabel="number of steps [Gaussianize, Rotation]")
axes[0].set(ylabel="test loss [nats]", ylim=(0, None))
axes[0].minorticks_off()
axes[0].legend(loc="lower left")
history.plot(axes[1], limit=entropy)
axes[1].set_title("training, starting at the iterative model")
figure.savefig(options.out / "losses.png")

# %%
summary = {"entropy": entropy, "true_nll": true_nll, "iterative": iterative, "trained": trained}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
rows = {f"iterative, {count} step{'s' * (count > 1)}": row for count, row in iterative.items()}
rows["trained"] = trained
print(f"\n{'':22}{'test nll':>10}{'above the true density':>24}{'std. error':>12}{'seconds':>10}")
for name, row in rows.items():
    figures = f"{row['test_nll']:10.4f}{row['above_true']:24.4f}{row['standard_error']:12.4f}"
    print(f"{name:22}{figures}{row['seconds']:10.1f}")
print(f"{'the true density':22}{true_nll:10.4f}")
print(f"{'entropy':22}{entropy:10.4f}")
print(f"figures and summary.json in {options.out}")
