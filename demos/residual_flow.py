# %% [markdown]
# # Residual flows: one log-determinant, computed in four ways
#
# A residual layer adds a network to its input, `z = x + g(x)`. If g shortens every distance, to at most
# L < 1 times what it was, two different points never land on the same z, and the layer is invertible. No
# network is masked and no half is left unchanged. The price is the log-determinant, log det(I + G) with
# G = dg/dx, which is that of a full matrix.
#
# This demo trains residual flows in the plane and on digits of 64 pixels, and computes the log-determinant in
# four ways: exactly, by a power series that is cut off, with Hutchinson's estimate of its traces, and with a
# random number of terms, which has no bias. Then it inverts the flow, and measures the memory of a gradient.

# %%
import json
import math
import time

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

from npflow import Dequantized, datasets, fit, plots
from npflow.autodiff import record, tree
from npflow.cli.demo import demo_options
from npflow.layers import Residual
from npflow.layers.residual import jacobian, residual, times_jacobian
from npflow.models import EstimatedLogDet, image_residual_flow, residual_flow
from npflow.models.residual_flow import roulette
from npflow.plots.style import BLACK, BLUE, ORANGE, SKY, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options(
    "residual_flow", "Residual flows in the plane and on digits, and their log-dets in four ways."
)
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Two moons
#
# In the plane the Jacobian of a row has four numbers, so the exact log-determinant costs next to nothing. The
# entropy of the moons is known: no model has a lower loss on average.

# %%
STEPS, ROWS = (3, 1000) if options.quick else (800, 20_000)
rng = np.random.default_rng(0)
moons = datasets.Moons(noise=0.05)
x, points = (moons.sample(n, rng=rng).astype(np.float32) for n in (ROWS, 10_000))
true_nll = float(-np.mean(moons.log_prob(points)))
flow = residual_flow(features=2, steps=8, hidden=(32, 32))


def train(model, params, x, steps, rate, **settings):
    """Train a model; return its parameters, the history and the seconds."""
    clock = time.perf_counter()
    schedule = WarmupCosine(rate, steps=steps, warmup=steps // 20)
    settings |= {"steps": steps, "optimizer": Adam(schedule), "record": not options.quick, "progress": False}
    params, history = fit(model, params, x, rng=np.random.default_rng(1), **settings)
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    return params, history, time.perf_counter() - clock


start = flow.init(np.random.default_rng(0), x[:1000])
params, history, seconds = train(flow, start, x, STEPS, 1e-2, batch_size=256, clip_norm=3.0, average=0.995)
test_nll = flow.loss(params, points)
plane = {"test_nll": float(test_nll), "true_nll": true_nll, "seconds": seconds}
print(
    f"two moons: {test_nll:.3f} nats, the true density {true_nll:.3f}, after {STEPS} steps in {seconds:.0f} s"
)

figure, axes = plt.subplots(1, 3, figsize=(10, 2.6), layout="constrained")
plots.samples(points[:2000], axes[0], limits=moons.limits, s=1)
axes[0].set_title("points")
plots.density(lambda x: flow.log_prob(params, x.astype(np.float32)), axes[1], limits=moons.limits, bar=False)
axes[1].set_title(f"density: {test_nll:.3f} nats, {test_nll - true_nll:+.3f}")
plots.samples(flow.sample(params, np.random.default_rng(2), 2000), axes[2], limits=moons.limits, s=1)
axes[2].set_title("samples")
figure.savefig(options.out / "moons.png")

# %% [markdown]
# ## Digits
#
# For images g is a network of convolutions, whose Lipschitz constant `norm_bound` keeps below 1. The flow trains
# with estimated log-dets, as it would on images of any size. Digits have only 64 pixels, so it can also be scored
# with the exact ones, in bits per pixel. Without any model a pixel takes `log2(17) = 4.09` bits.

# %%
DIGIT_STEPS = 4 if options.quick else 1000
data = datasets.image_data("digits")
test = data.test[: 20 if options.quick else None]
size = {"steps": 1, "hidden": (4, 4)} if options.quick else {"steps": 4, "hidden": (32, 32)}
digit_flow = image_residual_flow((8, 8, 1), levels=2, **size)
model = Dequantized(EstimatedLogDet(digit_flow, exact=2), data.levels)
exact_model = Dequantized(digit_flow, data.levels)
start = model.init(np.random.default_rng(0), data.train[:256])
digit_params, digit_history, digit_seconds = train(
    model, start, data.train, DIGIT_STEPS, 1e-2, batch_size=64, clip_norm=100.0, average=0.99
)
scored = {
    "exact log-dets": exact_model.bits_per_dim(digit_params, test, rng=np.random.default_rng(2)),
    "estimated log-dets": model.bits_per_dim(digit_params, test, rng=np.random.default_rng(2)),
}
bits = {
    name: {"bits_per_dim": float(row.mean()), "standard_error": float(row.std() / np.sqrt(len(row)))}
    for name, row in scored.items()
}
figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.9), layout="constrained")
figure.get_layout_engine().set(wspace=0.1)
samples = model.sample(digit_params, np.random.default_rng(3), 16 if options.quick else 100)
plots.images(samples, axes[0], levels=17, columns=10, title="samples")
plots.images(data.test[:100], axes[1], levels=17, columns=10, title="digits")
figure.savefig(options.out / "digits.png")

# %% [markdown]
# ## Four log-determinants
#
# One layer of this flow, at one test digit, in double precision. Its log-determinant is
#
# 1. log det(I + G), from the D x D matrix G, here 64 x 64. This takes O(D^3) operations.
# 2. the series `tr(G) - tr(G^2) / 2 + tr(G^3) / 3 - ...`, cut off after k terms: a bias that shrinks like L^k.
# 3. the same with `v^T G^k v` for each trace, for a random v of mean 0 and variance 1 (Hutchinson). This takes
#    only products of G with vectors, O(D^2) operations at most. The bias is the same, and there is variance.
# 4. the same with a random number N of terms, each divided by the probability that it is there (Russian
#    roulette): no bias, and a little more variance.
#
# We take the layer that is hardest for the series: the one whose G has the largest eigenvalue.

# %%
double = lambda params: tree.build(
    lambda _, leaf: leaf.astype(float) if tree.is_trained(leaf) else leaf, params
)
digit = model.dequantize(test[:1], np.full_like(test[:1], 0.5, dtype=float))
inner = []  # each residual layer, its parameters and its input
for visit in digit_flow.visits(double(digit_params), digit):
    layer = getattr(visit.method, "__self__", None)
    if isinstance(layer, Residual):
        inner.append((layer, *visit.arguments))


def matrix(layer, params, x):
    """G of one row: row i is the change of g with x_i."""
    arrays = layer.arrays(params)
    return jacobian(residual(x, *arrays)[1], x.shape[1:], *arrays)[0]


radii = [float(np.abs(np.linalg.eigvals(matrix(*one))).max()) for one in inner]
layer, layer_params, at = inner[int(np.argmax(radii))]
G = matrix(layer, layer_params, at)
exact = float(np.linalg.slogdet(np.eye(len(G)) + G)[1])

DRAWS, MOST = (400, 8) if options.quick else (10_000, 16)
rng = np.random.default_rng(4)
many = np.tile(at, (DRAWS, 1, 1, 1))
v = rng.standard_normal(many.shape)


def draws(coefficients):
    """The estimates of the layer for all v."""
    return layer.forward_estimate(layer_params, many, v, coefficients)[1]


def padded(rows):
    """Coefficients of different lengths as one array."""
    coefficients = np.zeros((len(rows), max(map(len, rows))))
    for row, one in zip(coefficients, rows):
        row[: len(one)] = one
    return coefficients


traces = [float(np.trace(np.linalg.matrix_power(G, k))) for k in range(1, MOST + 1)]
series = np.cumsum([(-1) ** k / (k + 1) * trace for k, trace in enumerate(traces)])
CUT = (1, 2, 4, 8) if options.quick else (1, 2, 3, 4, 6, 8, 12, 16)
hutchinson = {k: draws(np.ones((DRAWS, k))) for k in CUT}
SETTINGS = ((1, 0.5), (2, 0.5), (4, 0.5))  # terms that are always there, and the probability of one more
lotteries = {setting: [roulette(rng, *setting) for _ in range(DRAWS)] for setting in SETTINGS}
roulettes = {setting: draws(padded(rows)) for setting, rows in lotteries.items()}
terms = {setting: float(np.mean([len(row) for row in rows])) for setting, rows in lotteries.items()}


def against_exact(found):
    """Bias, its standard error, and standard deviation, in nats."""
    return {
        "bias": float(found.mean() - exact),
        "standard_error": float(found.std() / math.sqrt(len(found))),
        "deviation": float(found.std()),
    }


four = {
    "exact": exact,
    "spectral radius": max(radii),
    "series": {k: float(series[k - 1] - exact) for k in CUT},
    "Hutchinson": {k: against_exact(found) for k, found in hutchinson.items()},
    "roulette": {
        f"{number} and more": against_exact(found) | {"terms": terms[number, survival]}
        for (number, survival), found in roulettes.items()
    },
}

figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
ks = np.arange(1, MOST + 1)
axes[0].plot(ks, np.abs(series - exact), color=BLACK, label="series, cut off")
axes[0].errorbar(
    CUT,
    [abs(row["bias"]) for row in four["Hutchinson"].values()],
    [row["standard_error"] for row in four["Hutchinson"].values()],
    fmt="o",
    color=BLUE,
    markersize=4,
    label="Hutchinson, cut off",
)
axes[0].errorbar(
    list(terms.values()),
    [abs(row["bias"]) for row in four["roulette"].values()],
    [row["standard_error"] for row in four["roulette"].values()],
    fmt="^",
    color=VERMILLION,
    markersize=5,
    label="roulette",
)
floor = min(row["standard_error"] for row in four["Hutchinson"].values())
axes[0].axhline(floor, color="0.6", linestyle="--", linewidth=0.8, label="a standard error")
axes[0].set(
    yscale="log", ylim=(floor / 30, None), xlabel="terms (mean)", ylabel="|bias| [nats]", title="bias"
)
axes[1].plot(
    CUT,
    [row["deviation"] for row in four["Hutchinson"].values()],
    "o-",
    color=BLUE,
    markersize=4,
    label="Hutchinson, cut off",
)
axes[1].plot(
    list(terms.values()),
    [row["deviation"] for row in four["roulette"].values()],
    "^",
    color=VERMILLION,
    label="roulette",
)
axes[1].set(
    xlabel="terms (mean)",
    ylabel="[nats]",
    title="standard deviation of a draw",
    ylim=(0, 1.6 * hutchinson[1].std()),
)
shown = {"Hutchinson, 1 term": (hutchinson[1], SKY), "roulette, 1 and more": (roulettes[1, 0.5], VERMILLION)}
bins = np.linspace(*np.percentile(np.concatenate([found for found, _ in shown.values()]), [0.5, 99.5]), 60)
for name, (found, color) in shown.items():
    axes[2].hist(found, bins=bins, histtype="step", color=color, density=True, label=name)
    axes[2].axvline(found.mean(), color=color, linestyle=":")
axes[2].axvline(exact, color=BLACK, linestyle="--", linewidth=1, label="exact")
axes[2].set(xlabel="log-det [nats]", title="draws, and their means (dotted)", yticks=[])
for ax in axes:
    ax.legend(fontsize=7)
figure.savefig(options.out / "log_dets.png")

# %% [markdown]
# ## There and back
#
# Each step `x <- z - g(x)` multiplies the distance to the solution x* by at most L. So the number of steps is
# known beforehand, and the last step tells how near x is: |x - x*| <= r / (1 - L) with r = |z - g(x) - x|. In the
# plane a step of Newton's method needs only a 2 x 2 matrix. The layer takes it where it shortens r at least as
# much, so that the guarantee holds.

# %%
COUNT = 40
few = points[:200].astype(float)
steps_of = list(flow.visits(double(params), few))


def lengths(layer, params, x, newton):
    """The largest r before each step of the iteration, for the z of these x, and the last error of x."""
    arrays = layer.arrays(params)
    z, y, found = x + residual(x, *arrays)[0], None, []
    y = z
    for _ in range(COUNT):
        g, slopes = residual(y, *arrays)
        r = z - g - y
        found.append(float(np.linalg.norm(r.reshape(len(r), -1), axis=1).max()))
        if newton:
            G = jacobian(slopes, x.shape[1:], *arrays).swapaxes(1, 2)
            r = np.linalg.solve(np.eye(G.shape[-1]) + G, r[..., None])[..., 0]
        y = y + r
    return found, float(np.abs(y - x).max())


in_plane = [visit for visit in steps_of if isinstance(getattr(visit.method, "__self__", None), Residual)]
slow = [lengths(visit.method.__self__, *visit.arguments, newton=False)[0] for visit in in_plane]
worst = int(np.argmax([sum(found) for found in slow]))
visit = in_plane[worst]
fast, newton_error = lengths(visit.method.__self__, *visit.arguments, newton=True)
on_digits = [lengths(*one, newton=False) for one in inner]
figure, ax = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
number = np.arange(COUNT)
L = visit.method.__self__.lipschitz
ax.plot(
    number,
    slow[worst][0] * L**number,
    color=BLACK,
    linestyle="--",
    linewidth=1,
    label=f"the guarantee, {L:g}^k",
)
ax.plot(
    number, slow[worst], "o-", color=BLUE, markersize=3, label="x <- z - g(x), the slowest layer in the plane"
)
for index, (found, _) in enumerate(on_digits):
    ax.plot(
        number,
        found,
        color=ORANGE,
        linewidth=0.8,
        label=None if index else "the same, each layer of the digits",
    )
ax.plot(number, fast, "^-", color=VERMILLION, markersize=4, label="Newton, the slowest layer in the plane")
ax.set(
    yscale="log", ylim=(1e-17, None), xlabel="steps k", ylabel="largest r", title="the way to the solution"
)
ax.legend(fontsize=7, loc="lower left", bbox_to_anchor=(0.5, 0.65))
figure.savefig(options.out / "inverse.png")


def there_and_back(flow, params, x):
    """The largest error of a row of x that is encoded and decoded."""
    return float(np.abs(flow.decode(params, flow.encode(params, x)) - x).max())


back = {
    "moons, single": there_and_back(flow, params, few.astype(np.float32)),
    "moons, double": there_and_back(flow, double(params), few),
    "digits, double": there_and_back(digit_flow, double(digit_params), digit),
}
clock = time.perf_counter()
flow.sample(params, np.random.default_rng(5), 2000)
sampling = time.perf_counter() - clock

# %% [markdown]
# ## The memory of a gradient
#
# The gradient of the series keeps the products of every term. But d log det(I + G) = tr((I + G)^-1 dG), whose
# estimate is v^T (I + G)^-1 dG v. With the series (I + G)^-1 = I - G + G^2 - ... this is a single product,
# w^T dG v, with a constant vector, w^T = v^T - v^T G + v^T G^2 - ... `forward_estimate` does this: the memory does
# not grow with the number of terms.

# %%
NUMBERS = (2, 16) if options.quick else (2, 4, 8, 16)
batch = np.tile(at.astype(np.float32), (64, 1, 1, 1))
noise = np.random.default_rng(6).standard_normal(batch.shape, np.float32)
single = tree.build(lambda _, leaf: leaf.astype(np.float32), layer_params)


def as_constant(params, x, v, coefficients):
    """The mean of the estimates."""
    return anp.sum(layer.forward_estimate(params, x, v, coefficients)[1]) / len(x)


def all_kept(params, x, v, coefficients):
    """The same, with all terms of the series in the gradient."""
    arrays = layer.arrays(params)
    _, slopes = residual(x, *arrays)
    power, total = v, 0
    for k in range(coefficients.shape[1]):
        power = times_jacobian(power, slopes, *arrays)
        total = total + (-1) ** k / (k + 1) * anp.sum(power * v)
    return total / len(x)


memory = {
    name: {
        count: record(loss, single, batch, noise, np.ones((64, count), np.float32)).peak_bytes
        for count in NUMBERS
    }
    for name, loss in {"a constant w": as_constant, "all terms kept": all_kept}.items()
}

# %%
summary = {
    "plane": plane,
    "digits": bits | {"steps": digit_history.steps, "seconds": digit_seconds},
    "log_dets": four,
    "there_and_back": back,
    "sampling_seconds": sampling,
    "memory": memory,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'digits, bits per pixel':28}{'uniform':>10}{np.log2(data.levels):10.3f}")
for name, row in bits.items():
    print(f"{'':28}{name:>20}{row['bits_per_dim']:10.3f} +- {row['standard_error']:.3f}")
print(f"\nlog-det of a layer at a digit: {exact:.4f} nats exactly")
print(f"{'':28}{'terms':>8}{'bias':>10}{'its error':>11}{'deviation of a draw':>22}")
for k, bias in four["series"].items():
    print(f"{'series, cut off':28}{k:8}{bias:+10.4f}{0:11.4f}{0:22.4f}")
for k, row in four["Hutchinson"].items():
    print(
        f"{'Hutchinson, cut off':28}{k:8}{row['bias']:+10.4f}{row['standard_error']:11.4f}{row['deviation']:22.4f}"
    )
for name, row in four["roulette"].items():
    print(
        f"{'roulette, ' + name:28}{row['terms']:8.1f}{row['bias']:+10.4f}{row['standard_error']:11.4f}{row['deviation']:22.4f}"
    )
for name, error in back.items():
    print(f"there and back, {name}: at most {error:.1e}")
for name, row in memory.items():
    print(
        f"gradient, {name}: " + ", ".join(f"{count} terms {size / 1e6:.1f} MB" for count, size in row.items())
    )
print(f"2,000 samples of the moons in {sampling:.2f} s")
print(f"figures and summary.json in {options.out}")
