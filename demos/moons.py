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
import argparse
import json
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from sklearn.cluster import KMeans

from npflow import Flow, datasets, fit, plots
from npflow.models import glow
from npflow.networks import MLP
from npflow.priors import GaussianMixture, Normal
from npflow.training import Adam, WarmupCosine

parser = argparse.ArgumentParser(description="A ten-step Glow learns two moons, with two priors.")
parser.add_argument("--out", type=Path, default=Path("out/moons"), help="where figures and summary.json go")
parser.add_argument(
    "--quick",
    action="store_true",
    default=bool(os.environ.get("NPFLOW_QUICK")),
    help="only a few steps: a test that it runs",
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

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
# ## What they learned
#
# For each prior: samples of z; what the flow makes of them, over the data in grey; the density, with contours
# around shares of its mass; and the image of a square grid under the map z -> x.

# %%
LIMITS, RESOLUTION = ((-1.5, 2.5), (-1.1, 1.6)), 50 if options.quick else 200
rng = np.random.default_rng(2)
figure, axes = plt.subplots(2, 4, figsize=(15, 6), layout="constrained")
for row, (name, (flow, params, _, numbers)) in zip(axes, trained.items()):
    z = flow.prior.sample(params["prior"], rng, 2000, np.float32)
    plots.samples(z, row[0], limits=((-6.6, 6.6), (-4.5, 4.5)), title=f"z, {name} prior")
    plots.samples(test, row[1], limits=LIMITS, color="0.8")
    plots.samples(flow.decode(params, z), row[1], limits=LIMITS, title="x = inverse(z), data in grey")
    plots.density(
        lambda at, flow=flow, params=params: flow.log_prob(params, at.astype(np.float32)),
        row[2],
        limits=LIMITS,
        resolution=RESOLUTION,
    )
    row[2].set_title(f"density, {numbers['test_nll']:.3f} nats on test data")
    plots.grid(
        lambda z, flow=flow, params=params: flow.decode(params, z.astype(np.float32)),
        row[3],
        limits=((-3, 3), (-3, 3)),
        lines=13,
        resolution=RESOLUTION,
    )
    row[3].set(title="a square grid, from z to x", xlim=LIMITS[0], ylim=LIMITS[1])
    row[3].legend(loc="lower left", fontsize=7)
figure.savefig(options.out / "moons.png", dpi=80)

# %% [markdown]
# ## Step by step
#
# Samples of z, and where they are after each of the ten steps on the way to x. Each point keeps its colour,
# which shows its angle in z.

# %%
for name, (flow, params, _, _) in list(trained.items())[: 1 if options.quick else None]:
    z = flow.prior.sample(params["prior"], np.random.default_rng(3), 2000, np.float32)
    layers = flow.layer.trace_inverse(params["layer"], z)
    steps = [*layers[2:-2:3], layers[-1]]  # a step has three layers; the units of the data come back last
    names = ["z", *[f"after step {k} of 10" for k in range(1, 11)]]
    axes = plots.steps([z, *[step.output for step in steps]], names=names)
    axes.flat[0].figure.savefig(options.out / f"steps_{name}.png", dpi=80)

# %% [markdown]
# ## Training curves

# %%
figure, axes = plt.subplots(1, 2, figsize=(12, 4), layout="constrained", sharey=True)
for ax, (name, (_, _, history, _)) in zip(axes, trained.items()):
    history.plot(ax, limit=entropy)
    ax.set_title(f"{name} prior")
figure.savefig(options.out / "history.png", dpi=100)

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
