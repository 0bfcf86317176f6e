# %% [markdown]
# # MintNet: a residual network with a triangular Jacobian
#
# A coupling leaves half of its input unchanged, so that it can be inverted in one step. A layer of MintNet
# transforms everything at once, like an ordinary residual network:
# `f(x) = t x + W3 h(W2 h(W1 x + b1) + b2) + b3`. It is invertible because the three convolutions are masked.
# Each pixel depends on the pixels before it in reading order, and on itself through positive weights. So the
# Jacobian is triangular with a positive diagonal. Its determinant is a product, and `f` can be inverted pixel
# by pixel.
#
# There is a faster way. From any start, `x <- x + (z - f(x)) / diagonal` updates all pixels at once, and
# converges in about ten to twenty steps. This demo trains a MintNet on 8 x 8 digits, draws its Jacobians, and
# counts the steps.

# %%
import argparse
import json
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from npflow import Dequantized, datasets, fit, plots
from npflow.autodiff import tree
from npflow.layers import MaskedConvolution
from npflow.layers.masked_convolution import residual_block
from npflow.models import mintnet
from npflow.plots.canvas import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine
from npflow.verify.jacobians import by_autograd

parser = argparse.ArgumentParser(description="A MintNet of 8 x 8 digits, its Jacobians, and its inverse.")
parser.add_argument("--out", type=Path, default=Path("out/mintnet"), help="where figures and summary.json go")
parser.add_argument(
    "--quick",
    action="store_true",
    default=bool(os.environ.get("NPFLOW_QUICK")),
    help="only a few steps: a test that it runs",
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data and training
#
# Digits with 17 levels of grey. `Dequantized` adds uniform noise of the width of one level to each pixel, new
# noise in each step, so that a density exists. One half of the held-out digits is for validation, the other
# half for the test, in bits per pixel. Without any model a pixel takes `log2(17) = 4.09` bits.
#
# The flow has two levels with two pairs of layers each: on 8 x 8 pixels, and on 4 x 4 blocks of them.

# %%
STEPS = 40 if options.quick else 1500
data = datasets.image_data("digits")
validation, test = data.test[:180], data.test[180:]
model = Dequantized(mintnet((8, 8, 1), levels=2, steps=2, filters=8), data.levels)
params = model.init(np.random.default_rng(0), data.train)
clock = time.perf_counter()
params, history = fit(
    model,
    params,
    data.train,
    rng=np.random.default_rng(1),
    steps=STEPS,
    batch_size=64,
    optimizer=Adam(WarmupCosine(3e-2, steps=STEPS, warmup=STEPS // 20)),
    clip_norm=100.0,
    average=0.99,
    validation=validation,
)
if history.interrupted:
    raise SystemExit(f"stopped at step {history.steps} of {STEPS}: nothing was written")
seconds = time.perf_counter() - clock


def score(images):
    """Bits per pixel, the mean over images, and its standard error."""
    draws = 2 if options.quick else 20
    bits = model.bits_per_dim(params, images, rng=np.random.default_rng(2), draws=draws)
    return {"bits_per_dim": float(bits.mean()), "standard_error": float(bits.std() / np.sqrt(len(bits)))}


bits = {name: score(images) for name, images in {"train": data.train[:360], "test": test}.items()}
axes = plots.history(history)
axes.set_title(f"{bits['test']['bits_per_dim']:.3f} bits per pixel of the test digits")
axes.figure.savefig(options.out / "history.png", dpi=80)

# %% [markdown]
# ## Samples
#
# Samples of z, inverted layer by layer from the last to the first; on the right, digits of the data.

# %%
clock = time.perf_counter()
samples = model.sample(params, np.random.default_rng(3), 100)
sampling = time.perf_counter() - clock
figure, axes = plt.subplots(1, 2, figsize=(9.6, 4.7), layout="constrained")
figure.get_layout_engine().set(wspace=0.1)
plots.images(samples, axes[0], levels=17, columns=10, title="samples", cmap="gray_r")
plots.images(data.train[:100], axes[1], levels=17, columns=10, title="digits", cmap="gray_r")
figure.savefig(options.out / "samples.png", dpi=80)

# %% [markdown]
# ## Triangular Jacobians
#
# Of the first pair of layers, at a test digit. In raster order the z of a pixel depends on the pixel itself
# and on pixels above it and on its left, within the reach of three 3 x 3 kernels: a band below the diagonal
# for each row of pixels. In the reversed order the band is above the diagonal. In one layer alone, a pixel
# does not depend on its neighbours on all sides; in both together it does. Their log-det is the sum of two
# sums over diagonals. (The colour scale ends at the 99.5th percentile; most of the diagonals are beyond it.)

# %%
flow = model.flow
double = tree.build(
    lambda _, leaf: leaf.astype(float) if tree.is_trained(leaf) else leaf, params
)  # for small errors
digit = model.dequantize(test[:1], np.full_like(test[:1], 0.5, dtype=float))
steps = flow.layer.trace(double["layer"], digit)
first = next(number for number, layer in enumerate(flow.layer.layers) if isinstance(layer, MaskedConvolution))
inputs = [steps[first - 1].output, steps[first].output]
matrices = [
    by_autograd(lambda x, n=number: flow.layer.layers[n].forward(double["layer"][n], x)[0], x)[0]
    for number, x in zip((first, first + 1), inputs)
]
log_dets = [float(steps[number].log_det[0]) for number in (first, first + 1)]
figure, axes = plt.subplots(1, 3, figsize=(14.4, 4.2), layout="constrained")
limit = float(np.percentile(np.abs(matrices), 99.5))
for ax, matrix, title in zip(
    axes,
    [*matrices, matrices[1] @ matrices[0]],
    [
        f"raster order\nlog|det| {log_dets[0]:.3f}, diagonal {np.log(np.diag(matrices[0])).sum():.3f}",
        f"reversed order\nlog|det| {log_dets[1]:.3f}, diagonal {np.log(np.diag(matrices[1])).sum():.3f}",
        f"one after the other\nlog|det| {sum(log_dets):.3f}, of the matrix "
        f"{np.linalg.slogdet(matrices[1] @ matrices[0])[1]:.3f}",
    ],
):
    plots.jacobian(matrix, ax, title=title, limit=limit)
    ax.set(xticks=range(0, 64, 8), yticks=range(0, 64, 8))
figure.savefig(options.out / "jacobians.png", dpi=80)
triangular = {
    "above_the_diagonal": float(np.abs(np.triu(matrices[0], 1)).max()),
    "below_the_diagonal": float(np.abs(np.tril(matrices[1], -1)).max()),
    "smallest_on_the_diagonals": float(min(np.diag(matrix).min() for matrix in matrices)),
}

# %% [markdown]
# ## How fast is the iteration?
#
# The paper's iteration, written out: `x <- x + alpha (z - f(x)) / d(x)`, where `d` is the diagonal, starting
# at `x = z`, for the z of 100 test digits. Its residual is the maximum over all pixels and digits.
#
# On the left are several alpha. With alpha = 1 each pixel takes a Newton step in its own variable. The first
# pixels converge almost at once, then those that depend only on them, and so on. A smaller alpha leaves
# `1 - alpha` of the error at each step. A larger one overshoots, by `alpha - 1` near the solution, and from
# far away it may not converge. The paper proves convergence for alpha between 0 and 2 from a start that is
# near enough. Here alpha = 1 converges from any start, because the function of each pixel alone is convex, or
# concave in the reversed order. The proof is in `npflow/layers/masked_convolution.py`, beside `inverse`.
#
# On the right is alpha = 1 for each of the layers: about ten to twenty steps for 64 numbers.

# %%
ALPHAS = (0.5, 0.8, 1.0, 1.2, 1.5)
COUNT = 60
few = test[: 10 if options.quick else 100]
images = model.dequantize(few, np.full_like(few, 0.5, dtype=float))
outputs = [images, *(step.output for step in flow.layer.trace(double["layer"], images))]


def residuals(number, alpha):
    """The largest |z - f(x)| before each step of the iteration, for layer `number` of the flow."""
    layer, z = flow.layer.layers[number], outputs[number + 1]
    arrays, target = layer.arrays(double["layer"][number], z), layer.in_order(z)
    x, found = target, []
    with np.errstate(over="ignore", invalid="ignore"):  # if alpha is too large
        for _ in range(COUNT + 1):
            value, slope = residual_block(x, *arrays)
            found.append(float(np.abs(target - value).max()))
            x = x + alpha * (target - value) / slope
    return np.array(found)


def steps_to(found, residual):
    """The number of steps until a residual; None if it was not reached."""
    there = np.nonzero(found <= residual)[0]
    return int(there[0]) if len(there) else None


convolutions = [n for n, layer in enumerate(flow.layer.layers) if isinstance(layer, MaskedConvolution)]
by_layer = {number: residuals(number, 1.0) for number in convolutions}
slowest = max(convolutions, key=lambda number: steps_to(by_layer[number], 1e-10) or COUNT)
by_alpha = {alpha: residuals(slowest, alpha) for alpha in ALPHAS}

figure, axes = plt.subplots(1, 2, figsize=(12, 4.4), layout="constrained", sharey=True)
for (alpha, found), style in zip(by_alpha.items(), ("v", "s", "o", "D", "^")):
    color = {0.5: "#56B4E9", 0.8: BLUE, 1.0: BLACK, 1.2: "#E69F00", 1.5: VERMILLION}[alpha]
    axes[0].plot(found, marker=style, markersize=3, linewidth=1, color=color, label=f"alpha = {alpha:g}")
for number, found in by_layer.items():
    raster = flow.layer.layers[number].order == "raster"
    color = BLUE if raster else VERMILLION
    label = {convolutions[0]: "raster order", convolutions[1]: "reversed order"}.get(number)
    axes[1].plot(found, color=color, marker="o", markersize=3, linewidth=1, label=label)
axes[0].set(title=f"layer {slowest}, the slowest", ylabel="largest |z - f(x)|")
axes[1].set(title="alpha = 1, each of the eight layers", xlim=(-1, 31))
for ax in axes:
    ax.set(yscale="log", ylim=(1e-16, 1e4), xlabel="steps")
    ax.axhline(1e-10, color="0.6", linestyle="--", linewidth=0.8, label="1e-10")
    ax.legend(fontsize=9)
figure.savefig(options.out / "convergence.png", dpi=80)
convergence = {
    "steps_to_1e-10_by_alpha": {f"{alpha:g}": steps_to(found, 1e-10) for alpha, found in by_alpha.items()},
    "steps_to_1e-10_by_layer": {str(number): steps_to(found, 1e-10) for number, found in by_layer.items()},
}

# %% [markdown]
# ## There and back
#
# Test digits through all layers and back: the error of the pixels, in levels of grey, in single and double
# precision. Below one half a pixel is unchanged.

# %%
some = test[: 20 if options.quick else None]
errors = {
    "single": model.reconstruction_error(params, some),
    "double": model.reconstruction_error(double, some),
}
back = model.decode(params, model.encode(params, test[:10]))
figure, axes = plt.subplots(1, 2, figsize=(12, 3.2), layout="constrained", width_ratios=(1.6, 1))
plots.images(np.stack([test[:10], back]), axes[0], levels=17, cmap="gray_r")
axes[0].set_title("test digits, and their reconstructions")
bins = np.geomspace(1e-17, 1, 69)
for (name, error), color in zip(errors.items(), (BLUE, VERMILLION)):
    axes[1].hist(
        np.maximum(error.ravel(), 1e-17), bins=bins, color=color, alpha=0.8, label=f"{name} precision"
    )
axes[1].axvline(0.5, color=BLACK, linestyle="--", linewidth=1, label="half a level")
axes[1].set(xscale="log", xlabel="error of a pixel [levels], 1e-17 stands for 0", ylabel="pixels")
axes[1].margins(y=0.4)  # room for the legend
axes[1].legend(fontsize=9, loc="upper left")
figure.savefig(options.out / "reconstruction.png", dpi=80)

# %%
summary = {
    "bits": bits,
    "uniform_bits": float(np.log2(data.levels)),
    "steps": history.steps,
    "seconds": seconds,
    "sampling_ms_per_image": 1000 * sampling / len(samples),
    "triangular": triangular,
    "convergence": convergence,
    "reconstruction": {name: float(error.max()) for name, error in errors.items()},
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'':22}{'bits/dim':>10}{'std. error':>12}")
print(f"{'uniform':22}{np.log2(data.levels):10.3f}")
for name, row in bits.items():
    print(f"{name:22}{row['bits_per_dim']:10.3f}{row['standard_error']:12.3f}")
print(
    f"trained for {history.steps} steps, {seconds:.0f} s; a sample takes {summary['sampling_ms_per_image']:.1f} ms"
)
for alpha, count in convergence["steps_to_1e-10_by_alpha"].items():
    print(
        f"alpha = {alpha:4} residual below 1e-10 after {count if count is not None else f'more than {COUNT}'} steps"
    )
for name, error in summary["reconstruction"].items():
    print(f"there and back in {name} precision: at most {error:.1e} levels of error")
print(f"figures and summary.json in {options.out}")
