# %% [markdown]
# # Flow matching: continuous flows beside diffusion
#
# A continuous flow moves points along a velocity field, `dx/dt = f(t, x)`, from the data at `t = 0` to normal noise at
# `t = 1`. Its likelihood is exact, but training by it has to follow the flow, forward and back, in every step.
#
# Flow matching (Lipman et al. 2023) finds a field without following it. Join each row `x` to some noise `z` by a path,
# and let a network learn the velocity of the path at each of its points `(t, x_t)`. Where paths cross, the best answer
# is the mean of their velocities. The flow along this mean has the same density at each time as the paths. Two kinds of
# paths:
#
# - straight: `x_t = (1 - t) x + t z`, with the velocity `z - x`;
# - diffusion: `x_t = cos(a) x + sin(a) z` with `a = pi t / 2`, the path of every diffusion that preserves variance.
#   Its velocity is `pi/2 (cos(a) z - sin(a) x)`.
#
# The network and the loss are the same for both. So this is also where flows and diffusion models meet: a network
# trained on the second kind *is* a diffusion model, and it has an exact likelihood, as every flow does.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.collections import LineCollection

from npflow import Flow, datasets, fit, plots
from npflow.cli.demo import demo_options
from npflow.layers import Chain
from npflow.models import FlowMatching, Solved, continuous_flow
from npflow.models.flow_matching import PATHS
from npflow.training import Adam, WarmupCosine

options = demo_options(
    "flow_matching", "A continuous flow learns two moons by regression, on two kinds of paths."
)
plt.style.use(plots.STYLE)

NOISE = 0.05
rng = np.random.default_rng(0)
x = datasets.moons(50_000, noise=NOISE, rng=rng).astype(np.float32)
test = datasets.moons(100 if options.quick else 10_000, noise=NOISE, rng=rng).astype(np.float32)
density = datasets.Moons(NOISE)
entropy, true_log_prob = density.entropy(), density.log_prob(test)

# %% [markdown]
# ## Three ways to train the same network
#
# By matching on each kind of path, and by likelihood. The latter goes through 16 Runge-Kutta steps, which are 64
# passes of the network, forward and backward. So it takes fewer steps here: 300 instead of 15,000.

# %%
HIDDEN, MANY, FEW = ((16, 16), 5, 2) if options.quick else ((64, 64, 64), 15_000, 300)
flow = continuous_flow(features=2, hidden=HIDDEN)
start = flow.init(np.random.default_rng(1), x[:1000])
MODELS = {
    "straight": (FlowMatching(flow, "straight"), MANY, 1024),
    "diffusion": (FlowMatching(flow, "diffusion"), MANY, 1024),
    "likelihood": (flow, FEW, 256),
}


def train(model, steps, batch_size):
    """Train a model; return the parameters of its flow, and the seconds that the processor took."""
    clock = time.process_time()
    params, history = fit(
        model,
        start,
        x,
        rng=np.random.default_rng(2),
        steps=steps,
        batch_size=batch_size,
        optimizer=Adam(WarmupCosine(5e-3, steps=steps, warmup=steps // 20)),
        clip_norm=30.0,
        average=0.99,
        record=not options.quick,  # a recording takes as long as several steps
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    return params, time.process_time() - clock


trained = {name: train(*one) for name, one in MODELS.items()}

# %% [markdown]
# ## Exact likelihoods
#
# `Solved` puts a SciPy solver in place of the steps: it gives `log p(x)` to a tolerance, however the field was trained.
# The loss of matching cannot tell this: it is a mean square that does not go to zero.

# %%
solved = Flow(Solved(flow.layer, rtol=1e-5, atol=1e-5), flow.prior)
rows = {}
for name, (params, seconds) in trained.items():
    log_prob = solved.log_prob(params, test)
    excess = true_log_prob - log_prob
    rows[name] = {
        "test_nll": float(-np.mean(log_prob)),
        "above_true": float(np.mean(excess)),
        "standard_error": float(np.std(excess) / np.sqrt(len(excess))),
        "steps": MODELS[name][1],
        "processor_seconds": seconds,
    }
print(f"entropy {entropy:.4f} nats; the true density on the test points: {-true_log_prob.mean():.4f}\n")
print(f"{'trained by':12}{'test nll':>10}{'above true':>12}{'std. error':>12}{'steps':>8}{'seconds':>9}")
for name, row in rows.items():
    print(
        f"{name:12}{row['test_nll']:10.4f}{row['above_true']:12.4f}{row['standard_error']:12.4f}{row['steps']:8}"
        f"{row['processor_seconds']:9.1f}"
    )

# %% [markdown]
# ## Paths, and what the flow makes of them
#
# The first column joins points to noise as training does. The second follows the learned field from noise to data. These
# paths do not cross in `(t, x)`, as only one solution passes through each point. So they are not straight either: a
# point first moves towards the mean of all data that it may end at, and turns later. Light is noise, dark is data. The
# other columns show the flow's points at some times. Straight paths first shrink them, those of the diffusion keep their
# variance.

# %%
SHOWN, FINE = (60, 8) if options.quick else (2000, 100)
first, field = Chain(flow.layer.layers[:-1]), flow.layer.layers[-1]


def velocity(params, t, y):
    """The learned field, in the units of the field."""
    return field.velocity(params["layer"][-1], float(t), y)


def to_plane(params, y):
    """Points in the units of the field as points of the plane."""
    return first.inverse(params["layer"][:-1], y)[0]


def euler(params, z, steps):
    """Points at each of the times 1, 1 - h, ..., 0, by Euler's method."""
    ways, h = [z], 1 / steps
    for k in range(steps):
        ways.append(ways[-1] - h * velocity(params, 1 - k * h, ways[-1]))
    return np.array(ways)


LIMITS = ((-1.6, 2.6), (-1.4, 1.9))
z = np.random.default_rng(3).standard_normal((SHOWN, 2)).astype(np.float32)
y, _ = first.forward(start["layer"][:-1], x[:SHOWN])
TIMES = (0.8, 0.6, 0.4, 0.2, 0.0)
figure, axes = plt.subplots(2, 7, figsize=(10, 2.7), layout="constrained")
for first_row, row, name in zip((True, False), axes, PATHS):
    params = trained[name][0]
    ways = euler(params, z, FINE)
    t = np.linspace(1, 0, FINE + 1)
    pairs = np.array([PATHS[name](y, z, one)[0] for one in t])
    for ax, lines, title in ((row[0], pairs, "paths of pairs"), (row[1], ways, "paths of the flow")):
        plane = np.array([to_plane(params, points[:60]) for points in lines])
        segments = np.stack([plane[:-1], plane[1:]], axis=2).reshape(-1, 2, 2)
        shade = np.repeat(t[1:], plane.shape[1])
        ax.add_collection(LineCollection(segments, array=shade, cmap="cividis", linewidth=0.6))
        ax.scatter(*plane[-1].T, s=4, color=plots.style.VERMILLION, zorder=3)
        ax.set(xlim=LIMITS[0], ylim=LIMITS[1], title=title if first_row else "")
    for ax, time_shown in zip(row[2:], TIMES):
        points = to_plane(params, ways[round((1 - time_shown) * FINE)])
        plots.samples(points, ax, limits=LIMITS, s=1, title=f"t = {time_shown}" if first_row else None)
    row[0].set_ylabel(name)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[], aspect="equal")
figure.savefig(options.out / "paths.png")

# %% [markdown]
# ## Samples by the number of steps
#
# Solving the equation takes steps, and each step of Euler's method is a pass of the network. A single step goes along
# the velocity at the noise. With straight paths it leads to the mean of the data. With those of the diffusion it leads
# almost nowhere: the velocity at the noise is `-pi/2` times the mean of the data, which is 0 in the units of the field.
# From four steps on the two need about as many. Straight paths do not make a straight flow.
#
# The third row is the second network again, now as a diffusion model. `x_t` and `f / (pi/2)` are `(x, z)` rotated by the
# angle `a`. Rotating back gives what a diffusion model predicts, the clean point and the noise:
#
# `E[x | x_t] = cos(a) x_t - sin(a) f / (pi/2)`,      `E[z | x_t] = sin(a) x_t + cos(a) f / (pi/2)`.
#
# A step of DDPM (Ho et al. 2020) combines the two at an earlier time, with some of the noise replaced by new noise. A
# sample is then no longer a function of z, so the likelihood and the inverse are lost.
#
# Below each picture: the mean of `-log p(x)` of the samples under the true density. For true samples it is the entropy,
# 0.29. With a smaller number the samples are too close to the arcs, as those of DDPM are. Part of that comes from the
# number of steps: even with the exact field of a normal density, of standard deviation 0.1, the samples have 83 % of that
# deviation after 64 steps and 97 % after 512. The rest are errors of the network.


# %%
def predictions(params, t, y):
    """E[x | x_t = y] and E[z | x_t = y], by the field that was trained on the paths of the diffusion."""
    a, f = 0.5 * np.pi * t, velocity(params, t, y) / (0.5 * np.pi)
    return np.cos(a) * y - np.sin(a) * f, np.sin(a) * y + np.cos(a) * f


def ddpm(params, z, steps, rng):
    """Samples by the steps of a diffusion model."""
    y = z
    for k in range(steps):
        t, earlier = 1 - k / steps, 1 - (k + 1) / steps
        clean, noise = predictions(params, t, y)
        (c, s), (c1, s1) = ((np.cos(0.5 * np.pi * one), np.sin(0.5 * np.pi * one)) for one in (t, earlier))
        new = s1 / s * np.sqrt(1 - (c / c1) ** 2)  # the deviation of the noise that is replaced
        fresh = rng.standard_normal(y.shape, np.float32)
        y = (c1 * clean + np.sqrt(max(s1**2 - new**2, 0)) * noise + new * fresh).astype(np.float32)
    return y


COUNTS, MOST = (1, 2, 4, 8, 16, 64), 10 if options.quick else 512
ROWS = {
    "straight,\nEuler": ("straight", lambda params, steps: euler(params, z, steps)[-1]),
    "diffusion,\nEuler": ("diffusion", lambda params, steps: euler(params, z, steps)[-1]),
    "diffusion,\nDDPM": (
        "diffusion",
        lambda params, steps: ddpm(params, z, steps, np.random.default_rng(steps)),
    ),
}
figure, axes = plt.subplots(3, len(COUNTS) + 1, figsize=(10, 4.6), layout="constrained")
by_steps = {}
for row, (label, (name, draw)) in zip(axes, ROWS.items()):
    params = trained[name][0]
    draws = {f"{count} step{'s' * (count > 1)}": to_plane(params, draw(params, count)) for count in COUNTS}
    if "DDPM" in label:
        draws[f"{MOST} steps"] = to_plane(params, draw(params, MOST))
    else:
        draws["SciPy"] = solved.decode(params, z)
    numbers = by_steps[label.replace("\n", " ")] = {}
    for ax, (title, points) in zip(row, draws.items()):
        plots.samples(points, ax, limits=LIMITS, s=1, title=title)
        numbers[title] = float(-np.mean(np.maximum(density.log_prob(points), -50)))
        ax.set(xticks=[], yticks=[], aspect="equal")
        ax.set_xlabel(f"{numbers[title]:.2f}", labelpad=2)
    row[0].set_ylabel(label)
figure.savefig(options.out / "steps.png")

# %% [markdown]
# ## Densities
#
# The exact densities of the three, with the contours that enclose 50, 90 and 99 % of their mass. Each is one piece, as a
# continuous map of a Gaussian has to be, but the thread between the moons is too thin for the contours to show.

# %%
RESOLUTION = 20 if options.quick else 150
coarse = Flow(Solved(flow.layer, rtol=1e-3, atol=1e-3), flow.prior)
figure, axes = plt.subplots(1, 4, figsize=(10, 2.1), layout="constrained")


def draw(log_prob, ax, title):
    plots.density(log_prob, ax, limits=((-1.5, 2.5), (-1.0, 1.5)), resolution=RESOLUTION, bar=False)
    ax.set_title(title)


draw(density.log_prob, axes[0], f"true density\nentropy {entropy:.3f} nats")
for ax, (name, (params, _)) in zip(axes[1:], trained.items()):
    log_prob = lambda at, params=params: coarse.log_prob(params, at.astype(np.float32))
    draw(log_prob, ax, f"{name}\nloss {rows[name]['test_nll']:.3f} nats")
for ax in axes:
    ax.set(xticks=[], yticks=[])
figure.savefig(options.out / "densities.png")

# %%
summary = {
    "entropy": entropy,
    "true_nll": float(-np.mean(true_log_prob)),
    "trained_by": rows,
    "samples_by_steps": by_steps,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\nfigures and summary.json in {options.out}")
