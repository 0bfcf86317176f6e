# %% [markdown]
# # A Glow of photographs, in minutes
#
# Glow as in the paper, three levels of [ActNorm, Conv1x1, AffineCoupling], but with four steps each instead
# of 32, and networks of 64 channels instead of 512. The paper's model trained for days on eight GPUs and
# reached 3.35 bits per dimension on CIFAR-10. How far does one get in minutes, on two cores? One run of this
# demo reached about 3.9, with a tenth of CIFAR-10 as training data.
#
# An image of 32 x 32 pixels is 3072 numbers from 0 to 255. Without any model each takes 8 bits. The model's
# bits/dim, `-log2 p(x) / 3072`, are the bits that each takes in the best code for the model.
#
# The demo looks for CIFAR-10 in the folder or archive given by `--path`, then in that of the environment
# variable NPFLOW_DATA, then in `~/.cache/npflow`. If there is none, it uses patches of two photographs that
# come with scikit-learn. The model then knows only two photographs, and its samples show it.

# %%
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from npflow import Dequantized, datasets, fit, latent, plots
from npflow.autodiff import Layout
from npflow.cli.demo import demo_options
from npflow.errors import InputError, MissingDataError
from npflow.layers import Squeeze
from npflow.models import image_glow
from npflow.networks import ConvNet
from npflow.plots.style import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine


def minutes(text):
    """A training time that makes sense."""
    if not 0 < float(text) < 10**6:
        raise argparse.ArgumentTypeError(f"expected --minutes above 0 and below 1000000, got {text}")
    return float(text)


options = demo_options(
    "cifar10",
    "A small Glow on CIFAR-10, or on patches of photographs, in minutes. With --quick it trains for a few steps, "
    "on a few images of --path, or on small patches without it (NPFLOW_DATA is not used).",
    {
        "--path": {"type": Path, "help": "folder or archive of CIFAR-10, complete or a part of it"},
        "--minutes": {"type": minutes, "default": 4.0, "help": "training time (%(default)s)"},
    },
)
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# The mirror image of a photograph is also a photograph. So every training image is used in both forms, which
# is free and teaches the model a true fact. Some of the held-out images choose the best parameters during
# training. The others are only for the test.


# %%
def photographs():
    """CIFAR-10, or a part of it, if it is found; otherwise patches of photographs."""
    rng = np.random.default_rng(0)
    if options.quick and options.path is None:
        return datasets.image_data("patches", rng=rng, n=200, size=8)
    try:
        return datasets.image_data("cifar10", options.path, complete=False)
    except InputError as error:
        if options.path is not None or not isinstance(error, MissingDataError):
            raise SystemExit(str(error)) from error
    print("CIFAR-10 was not found: using patches of photographs")
    return datasets.image_data("patches", rng=rng)


data = photographs()
train = data.train[:200] if options.quick else data.train
shuffled = np.random.default_rng(1).permutation(np.concatenate([train, train[:, :, ::-1]]))
held_out = np.random.default_rng(2).permutation(data.test)[: 20 if options.quick else 1000]
if len(held_out) < 20:
    raise SystemExit(f"expected at least 20 held-out images, got {len(held_out)}")
validation, test = np.array_split(held_out, 2)
shape = train.shape[1:]
DIMS = int(np.prod(shape))
print(f"{data.name}: {len(train)} images of {shape}, {len(test)} held-out images to test")

# %% [markdown]
# ## The model
#
# `Dequantized` adds uniform noise to each number, and `Logit` maps the result from [0, 1] to real numbers. A
# level begins with `Squeeze`, which makes 2 x 2 pixels into one pixel with four times as many channels. After
# the steps of a level, half of the channels are split off as a part of z, and the next level continues with
# the other half.

# %%
LEVELS = 2 if options.quick else 3
network = ConvNet((8, 8)) if options.quick else ConvNet((64, 64))
model = Dequantized(image_glow(shape, LEVELS, steps=1 if options.quick else 4, network=network))
start = model.init(np.random.default_rng(3), shuffled[:256])
print(f"{Layout(start).size:,} parameters")

# %% [markdown]
# ## Training
#
# The number of steps follows from the time: a few trial steps, with a learning rate near zero, measure the
# time of a step. Training then warms up to a rate that is high for Adam, and decreases to zero along a
# cosine. In the first 600 steps a rate of 3e-3 is 0.11 bits/dim worse than 1.5e-2.
#
# `clip_norm` makes such a rate possible. The gradients of images are long, because the loss is a sum over
# 3072 numbers, and sometimes they are a thousand times longer still. The small norm here clips all of them to
# the same length. Adam does not depend on the scale of the gradient, so it works as before, and an outlier
# has no more influence than any other batch.
#
# An epoch is at most a sixth of the run, so that the held-out images are evaluated often enough.

# %%
BATCH = 32
settings = {"batch_size": BATCH, "clip_norm": 100.0, "record": not options.quick}


def steps_in(minutes):
    """The number of steps that fit into the time, from the time of a few."""
    _, trial = fit(
        model,
        start,
        shuffled,
        rng=np.random.default_rng(4),
        steps=21,
        optimizer=Adam(1e-9),
        progress=False,
        **settings,
    )
    return max(100, int(60 * minutes * 20 / (trial.seconds[-1] - trial.seconds[0])))


STEPS = 6 if options.quick else steps_in(options.minutes)
params, history = fit(
    model,
    start,
    shuffled[: max(BATCH, STEPS * BATCH // 6)],
    rng=np.random.default_rng(5),
    steps=STEPS,
    optimizer=Adam(WarmupCosine(1e-2, steps=STEPS, warmup=STEPS // 10)),
    average=0.99,
    validation=validation,
    **settings,
)
if history.interrupted:
    raise SystemExit(f"stopped at step {history.steps} of {STEPS}: nothing was written")


def in_bits(nats):
    """Nats per image as bits/dim."""
    return np.asarray(nats) / (DIMS * np.log(2))


bits = {
    "train": model.bits_per_dim(params, shuffled[: len(test)], rng=np.random.default_rng(6)),
    "test": model.bits_per_dim(params, test, rng=np.random.default_rng(6)),
}
row = {
    "train": float(bits["train"].mean()),
    "test": float(bits["test"].mean()),
    "standard_error": float(bits["test"].std() / np.sqrt(len(test))),
}

# %% [markdown]
# `fit` evaluates the held-out images with the moving average of the parameters, which it also returns. The
# average is better than the single steps, which fluctuate.

# %%
steps = np.arange(1, history.steps + 1)
held = in_bits(history.validation_loss)
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ax in axes:
    ax.plot(steps, in_bits(history.loss), color=BLUE, linewidth=0.6, alpha=0.5, label="each step")
    ax.plot(history.validation_step, held, "o-", color=VERMILLION, markersize=3.5, label="held out")
    ax.set(xlabel="step", ylabel="loss [bits/dim]")
    ax.xaxis.get_major_locator().set_params(integer=True)
axes[0].axhline(8, color=BLACK, linestyle="--", linewidth=1, label="uniform")
axes[0].set(ylim=(0, 9), title="on the scale of 8 bits")
axes[0].legend(loc="lower left")
axes[1].set(ylim=(held.min() - 0.4, held.min() + 1), title="enlarged")
figure.savefig(options.out / "history.png")

# %% [markdown]
# ## Samples
#
# At temperature T, z is drawn from the prior and multiplied by T. Most of the mass of the density is far from
# its mode, in a shell around it. Samples at a lower temperature are smoother and have less contrast, but more
# of them look coherent. Such a small model knows colours, textures and edges, but no animals.

# %%
TEMPERATURES = (0.5, 0.7, 0.9, 1.0)
SIDE = 3 if options.quick else 6
figure, axes = plt.subplots(1, 5, figsize=(10, 2.5), layout="constrained")
plots.images(test[: SIDE**2], axes[0], title="held-out images")
spread = {}
for ax, temperature in zip(axes[1:], TEMPERATURES):
    x = model.sample(params, np.random.default_rng(7), SIDE**2, temperature=temperature)
    plots.images(x, ax, title=f"samples, T = {temperature:g}")
    spread[temperature] = float(x.std(axis=0).mean())
figure.savefig(options.out / "samples.png")

# %% [markdown]
# ## There and back
#
# A flow loses no information: an encoded image can be decoded exactly. (What is encoded is the middle of each
# number's cell.) How exact is this in float32? `reconstruction_error` gives the error in levels, of which
# there are 256. If it is below one half, the number is unchanged.

# %%
errors = model.reconstruction_error(params, test)
z = model.encode(params, test)
back = model.decode(params, z)
reconstruction = {
    "mean_error": float(errors.mean()),
    "largest_error": float(errors.max()),
    "changed_numbers": int(np.count_nonzero(back != test)),
}
COLUMNS = 8
as_image = np.clip(255 * (z[:COLUMNS] + 3) / 6, 0, 255).astype(np.uint8)
figure, ax = plt.subplots(figsize=(8.5, 3.2), layout="constrained")
plots.images(np.stack([test[:COLUMNS], as_image, back[:COLUMNS]]), ax)
ax.set_yticks((shape[0] + 1) * np.arange(3) + shape[0] / 2, labels=["held out", "z, from -3 to 3", "back"])
ax.tick_params(length=0)
figure.savefig(options.out / "there_and_back.png")

# %% [markdown]
# ## Interpolation
#
# Along straight lines in z between held-out images.

# %%
PAIRS, SHARES = 5, np.linspace(0, 1, 9)
between = latent.interpolate(model, params, test[:PAIRS], test[PAIRS : 2 * PAIRS], SHARES)
figure, ax = plt.subplots(figsize=(7.6, 4.4), layout="constrained")
plots.images(between.swapaxes(0, 1), ax)
ax.set_xticks((shape[1] + 1) * np.arange(9) + shape[1] / 2, labels=[f"{share:g}" for share in SHARES])
ax.tick_params(length=0)
ax.set_xlabel("share of the image on the right")
figure.savefig(options.out / "interpolation.png")

# %% [markdown]
# ## What each level holds
#
# z has the shape of the image, and the levels are nested. Apply `Squeeze` to the flow's z: the first half of
# the channels is what the first level split off. The second half is the z of the inner levels, squeezed in
# the same way. So `Squeeze` takes z apart, and its inverse puts it together.

# %%
squeeze = Squeeze()  # it has no parameters


def parts_of(z):
    """The parts of z, one for each level, the first level first."""
    parts = []
    for _ in range(LEVELS - 1):
        z, _ = squeeze.forward({}, z)
        part, z = np.split(z, 2, axis=-1)
        parts.append(part)
    return [*parts, z]


def joined(parts):
    """The z of these parts."""
    *outer, z = parts
    for part in reversed(outer):
        z, _ = squeeze.inverse({}, np.concatenate([part, z], axis=-1))
    return z


parts = parts_of(z)
print("parts of z: " + ", ".join(f"{part.shape[1:]}" for part in parts))

# %% [markdown]
# Keep the z of the deeper levels and replace that of the outer ones: by zero, the mode of the learned prior,
# or by samples at a temperature of 0.7. What the image keeps is in the levels that were kept.

# %%
rng = np.random.default_rng(8)
few = [part[:COLUMNS] for part in parts]
rows, names = [test[:COLUMNS]], ["held out"]
for outer in range(1, LEVELS):
    for what, temperature in (("zero", 0.0), ("drawn", 0.7)):
        replaced = [temperature * rng.standard_normal(part.shape, np.float32) for part in few[:outer]]
        rows.append(model.decode(params, joined([*replaced, *few[outer:]])))
        names.append(f"level 1 {what}" if outer == 1 else f"levels 1 to {outer} {what}")
rows.append(model.decode(params, joined([*few[:-1], np.zeros_like(few[-1])])))
names.append(f"level {LEVELS} zero")
figure, ax = plt.subplots(figsize=(9.5, 0.95 * len(rows) + 0.3), layout="constrained")
plots.images(np.stack(rows), ax)
ax.set_yticks((shape[0] + 1) * np.arange(len(rows)) + shape[0] / 2, labels=names)
ax.tick_params(length=0)
figure.savefig(options.out / "levels.png")

# %% [markdown]
# The last level, a quarter of the numbers, holds the content of the picture: colours and coarse shapes. The
# levels before it hold the details: at zero they give a blurred image, and with new samples a similar but
# less clear picture. Without the last level only edges remain, on grey.
#
# Where are the bits? The bits of an image are the bits of its z under the prior, level by level, minus the
# log-determinant: `bits = 8 + bits(z_1) + bits(z_2) + ... - log_det / log 2`, all divided by 3072. (The 8 is
# there because the cells of the levels are 1/256 wide.) A standard normal number has 2.05 bits. A level with
# more than this on held-out images saw something unexpected.


# %%
def bits_by_level(z):
    """Bits of each part of z under the prior, in total for each image, shape (levels, n)."""
    normal = [0.5 * (part.astype(float) ** 2 + np.log(2 * np.pi)) / np.log(2) for part in parts_of(z)]
    return np.stack([part.reshape(len(part), -1).sum(axis=1) for part in normal])


noise = model.noise(np.random.default_rng(6), len(test), np.float32)  # the same as for the bits of `test`
noisy, log_det = model.flow.layer.forward(params["layer"], model.dequantize(test, *noise))
levels = {}
for number, (part, total) in enumerate(zip(parts, bits_by_level(noisy)), 1):
    numbers = part[0].size
    levels[f"level {number}"] = {
        "numbers": numbers,
        "bits_per_number": float(total.mean() / numbers),
        "bits_per_dim": float(total.mean() / DIMS),
    }
log_det_bits = float(-in_bits(log_det).mean())

# %%
summary = {
    "data": data.name,
    "parameters": Layout(params).size,
    "steps": history.steps,
    "minutes": history.seconds[-1] / 60,
    "uniform_bits": 8.0,
    "bits_per_dim": row,
    "held_out": {str(step): float(value) for step, value in zip(history.validation_step, held)},
    "spread_of_samples": spread,
    "reconstruction": reconstruction,
    "joined_again": bool(np.array_equal(joined(parts), z)),
    "levels": levels,
    "log_det_bits": log_det_bits,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'':12}{'numbers':>9}{'bits each':>11}{'bits/dim':>10}")
print(f"{'uniform':12}{DIMS:9}{8:11.3f}{8:10.3f}")
for name, level in levels.items():
    print(
        f"{'z, ' + name:12}{level['numbers']:9}{level['bits_per_number']:11.3f}{level['bits_per_dim']:+10.3f}"
    )
print(f"{'log_det':12}{'':20}{log_det_bits:+10.3f}")
print(
    f"{'test':12}{'':20}{row['test']:10.3f} +- {row['standard_error']:.3f} (training images {row['train']:.3f})"
)
print(f"{history.steps} steps in {history.seconds[-1]:.1f} s")
mean_error, largest_error = reconstruction["mean_error"], reconstruction["largest_error"]
print(f"there and back: mean error {mean_error:.1e} levels, at most {largest_error:.1e}")
print(f"figures and summary.json in {options.out}")
