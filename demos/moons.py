# %% [markdown]
# # Two moons: a ten-step Glow, with two priors
#
# Ten steps of [ActNorm, AffineCoupling, Conv1x1] learn the density of `sklearn.datasets.make_moons`: first
# from one Gaussian, then from a mixture of two. The moons are two separate pieces, and a Gaussian is one
# piece. A continuous map can stretch its middle to a thin thread between the moons, but it cannot cut it.
# With two Gaussians there is less in the middle to stretch, but as long as they overlap a thread remains.
# Look for it among the samples and in the grid below. (The two test losses differ by about a standard error:
# see the table.)
#
# How good can a model be? The data have an entropy, `-E[log p(x)]` under the true density. On average no
# model has a lower test loss. This limit is computed below.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans

from npflow import Flow, datasets, fit, plots
from npflow.cli.demo import demo_options
from npflow.models import glow
from npflow.networks import MLP
from npflow.priors import GaussianMixture, Normal
from npflow.training import Adam, WarmupCosine

options = demo_options("moons", "A ten-step Glow learns two moons, with two priors.")
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# In float32, where training is fastest. Another 10,000 points are for the test.

# %%
NOISE = 0.05
rng = np.random.default_rng(0)
x = datasets.moons(50_000, noise=NOISE, rng=rng).astype(np.float32)
test = datasets.moons(10_000, noise=NOISE, rng=rng).astype(np.float32)

# %% [markdown]
# ## The limit: the entropy of the data
#
# The moons are two half circles with normal noise. So the density is an integral over the two arcs,
#
# `p(x) = 1/2 sum_arcs 1/pi int_0^pi N(x; arc(t), noise^2 I) dt`,
#
# and its entropy `-int p log p dx` is another integral, over the plane. Both integrands are smooth, so simple
# sums give many correct digits. The code is in `npflow/datasets/toy.py`, with the other toy densities. A mean
# over 10,000 points has a standard error of 0.007 nats. So we also compute the mean of the true density on
# the same test points.

# %%
density = datasets.Moons(NOISE)
entropy = density.entropy()
true_nll = float(-np.mean(density.log_prob(test)))
print(f"entropy of the data: {entropy:.4f} nats; the true density on the test points: {true_nll:.4f}")

# %% [markdown]
# ## Two flows that differ only in the prior
#
# `print(flow)` shows the architecture. The networks use tanh, because smooth functions learn a smooth density
# faster.
#
# Where should the two Gaussians of the mixture lie? A new flow is little more than a random rotation of the
# data. So we split the data into two halves (by k-means, without labels) and see where the new flow sends
# them. The two Gaussians start there. If they started in another direction, the flow would first have to turn
# the halves.

# %%
flow = glow(features=2, steps=10, network=MLP((64, 64, 64), "tanh"), prior=Normal(2))
start = flow.init(np.random.default_rng(1), x[:1000])

halves = KMeans(2, n_init=10, random_state=0).fit(flow.encode(start, x[:2000])).cluster_centers_
direction = (halves[1] - halves[0]) / np.linalg.norm(halves[1] - halves[0])
mixture = GaussianMixture(means=(-2 * direction, 2 * direction), stds=(1.0, 1.0))

flows = {"normal": flow, "mixture": Flow(flow.layer, mixture)}

# %% [markdown]
# ## Training
#
# A short warm-up, then a cosine schedule down to zero. The result is the moving average of the parameters.
# Only the very longest gradients are clipped. They come from the few points between the moons, which keep the
# density there from falling to zero. If they are clipped too much, the flow drifts away from the data.

# %%
STEPS = 10 if options.quick else 2500


def train(flow):
    """Train a flow; return it with its parameters, its history, and a row for the table."""
    clock = time.perf_counter()
    params, history = fit(
        flow,
        start,
        x,
        rng=np.random.default_rng(2),
        steps=STEPS,
        batch_size=512,
        optimizer=Adam(WarmupCosine(5e-3, steps=STEPS, warmup=STEPS // 20)),
        clip_norm=30.0,
        average=0.99,
        record=not options.quick,  # a recording takes as long as several steps
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {STEPS}: nothing was written")
    nll = -flow.log_prob(params, test)
    row = {
        "test_nll": float(np.mean(nll)),
        "standard_error": float(np.std(nll) / np.sqrt(len(nll))),
        "seconds": time.perf_counter() - clock,
        "steps": history.steps,
    }
    return flow, params, history, row


trained = {name: train(flow) for name, flow in flows.items()}

# %% [markdown]
# ## From data to latent, and back
#
# A row for each prior. The first five pictures follow the same test points through the flow: the data x, the
# outputs of some of its ten steps, and z. A dot is a test point, and keeps its colour, which shows its angle in the
# data. The last two show what the flow makes of this: samples, which are new z sent back through the inverse, and
# the density, with the contours that enclose 50, 90 and 99 % of its mass.

# %%
LIMITS, RESOLUTION = ((-1.5, 2.5), (-1.75, 2.25)), 50 if options.quick else 250
STEPS_SHOWN = (3, 6, 9)
rng = np.random.default_rng(2)
figure, axes = plt.subplots(2, 7, figsize=(10, 3.45), layout="constrained")
for row, (name, (flow, params, _, numbers)) in zip(axes, trained.items()):
    _, *layers = flow.layer.trace(params["layer"], test[:1500])  # without the first, which only chooses units
    outputs = [layers[3 * k - 1].output for k in STEPS_SHOWN]  # a step has three layers
    plots.steps([test[:1500], *outputs, layers[-1].output], row[:5])
    samples = flow.sample(params, rng, 1500)
    plots.samples(samples, row[5], limits=LIMITS, s=3)
    plots.density(
        lambda at, flow=flow, params=params: flow.log_prob(params, at.astype(np.float32)),
        row[6],
        limits=LIMITS,
        resolution=RESOLUTION,
        bar=False,
    )
    row[0].set_ylabel(f"{name} prior")
    row[6].set_xlabel(f"loss {numbers['test_nll']:.3f} nats", fontsize=9)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[], title="")
titles = ["data x", *[f"after step {k}" for k in STEPS_SHOWN], "latent z", "samples of x", "density of x"]
for ax, title in zip(axes[0], titles):
    ax.set_title(title)
figure.supxlabel("each dot is a test point, and keeps its colour: its angle in the data", fontsize=9)
figure.savefig(options.out / "moons.png")

# %% [markdown]
# ## A square grid of z, as x
#
# The inverse is a smooth map of the whole plane. The lines show where it stretches: where they are close together,
# z is pressed together and the density is high, and the few long ones between the moons are the thread.

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
for ax, (name, (flow, params, _, _)) in zip(axes, trained.items()):
    plots.grid(
        lambda z, flow=flow, params=params: flow.decode(params, z.astype(np.float32)),
        ax,
        limits=((-3, 3), (-3, 3)),
        lines=13,
        resolution=RESOLUTION,
    )
    ax.set(title=f"{name} prior", xlim=LIMITS[0], ylim=(-1.1, 1.6))
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
figure.savefig(options.out / "grid.png")

# %% [markdown]
# ## Training curves

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained", sharey=True)
for ax, (name, (_, _, history, _)) in zip(axes, trained.items()):
    history.plot(ax, limit=entropy)
    ax.set_title(f"{name} prior")
figure.savefig(options.out / "history.png")

# %%
summary = {
    "entropy": entropy,
    "true_nll": true_nll,
    "priors": {name: row for name, (_, _, _, row) in trained.items()},
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(
    f"\n{'prior':12}{'test nll':>10}{'std. error':>12}{'above the true density':>24}{'steps':>8}{'seconds':>10}"
)
for name, row in summary["priors"].items():
    figures = f"{row['test_nll']:10.4f}{row['standard_error']:12.4f}{row['test_nll'] - true_nll:24.4f}"
    print(f"{name:12}{figures}{row['steps']:8}{row['seconds']:10.1f}")
print(f"figures and summary.json in {options.out}")
