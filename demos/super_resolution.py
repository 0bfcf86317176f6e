# %% [markdown]
# # Super-resolution: many answers to one question
#
# A small image does not say what the large one was: many large images shrink to it. A network that is trained by
# squared error gives their mean, which is blurred. A flow learns the density of the large image *given* the small
# one, and draws as many answers as we like. Each is sharp, and each shrinks to the small image exactly.
#
# First come digits, from 4 x 4 to 8 x 8 pixels, then the lower half of a digit given the upper half, then
# photographs, from 8 x 8 to 32 x 32 pixels. For these the demo looks for CIFAR-10 in the folder or archive given by
# `--path`, then in that of the environment variable NPFLOW_DATA, then in `~/.cache/npflow`. If there is none, it
# uses patches of two photographs that come with scikit-learn.

# %%
import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.ndimage import zoom
from sklearn.neighbors import KNeighborsClassifier

from npflow import Dequantized, datasets, fit, plots
from npflow.autodiff import Layout
from npflow.cli.demo import demo_options
from npflow.errors import InputError, MissingDataError
from npflow.layers import BlockMeans, Logit
from npflow.models import image_glow, inpainting, super_resolution
from npflow.networks import ConvNet
from npflow.plots.style import BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine


def minutes(text):
    """A training time that makes sense."""
    if not 0 < float(text) < 10**6:
        raise argparse.ArgumentTypeError(f"expected --minutes above 0 and below 1000000, got {text}")
    return float(text)


options = demo_options(
    "super_resolution",
    "Large images given small ones, and halves given halves: digits, then CIFAR-10 or patches of photographs. With "
    "--quick it trains for a few steps, on a few images of --path, or on small patches without it.",
    {
        "--path": {"type": Path, "help": "folder or archive of CIFAR-10, complete or a part of it"},
        "--minutes": {
            "type": minutes,
            "default": 4.0,
            "help": "training time of both models of photographs together (%(default)s)",
        },
    },
)
plt.style.use(plots.STYLE)

# %% [markdown]
# ## An image as means and details
#
# `BlockMeans` takes an image apart: each block of 2 x 2 pixels becomes its mean and three details. It is a Haar
# transform with one change: a detail is not the difference of two pixels, which their mean bounds, but the
# difference of their logits, which may be any number. So, conversely, *any* details give an image with pixels
# between 0 and 1 whose blocks have the given means. Below are images with the details of a digit, with twice these
# details, with none, and with random ones.

# %%
SHAPE, LEVELS = (8, 8, 1), 17
data = datasets.image_data("digits")
train, validation, test = data.train, data.test[:180], data.test[180:]
labels = data.test_labels[180:]
ink = {"levels": LEVELS}
block_means, logit = BlockMeans(), Logit(alpha=0)


def shrunk(y):
    """The means of blocks of 2 x 2 pixels."""
    n, height, width, channels = y.shape
    return y.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


def enlarged(y, times):
    """Each pixel as a block of pixels."""
    return np.repeat(np.repeat(y, times, axis=-3), times, axis=-2)


digit = (test[12:13] + 0.5) / LEVELS
means, details = block_means.split(block_means.forward({}, logit.forward({}, digit)[0])[0])
noise = np.random.default_rng(0).normal(0, 2, details.shape)
made = []
for other in (details, 2 * details, 0 * details, noise):
    logits, _ = block_means.inverse({}, block_means.join(means, other))
    made.append(logit.inverse({}, logits)[0])
worst = max(float(np.abs(shrunk(y) - shrunk(digit)).max()) for y in made)
names = ("small", "its details", "twice as much", "no details", "random details")
figure, axes = plt.subplots(1, 5, figsize=(9, 2.1), layout="constrained")
for ax, y, name in zip(axes, (enlarged(shrunk(digit), 2), *made), names):
    plots.images(LEVELS * y - 0.5, ax, title=name, **ink)
figure.savefig(options.out / "details.png")
print(f"all shrink to the same small image: the largest difference is {worst:.0e} of full scale")

# %% [markdown]
# ## Three models of digits
#
# `super_resolution` is a Glow of the details whose networks see the small image. `inpainting` is a Glow of the
# lower half whose networks see the upper half. The third is a Glow of whole digits, without context. All have
# networks of the same width, and train for the same number of steps.
#
# All bits are divided by the 64 pixels of the image, so that they can be compared: those of the digit, and those
# that are left once the small image or the upper half is known. What is given are integers: the sums of blocks, or
# the upper half. The noise of dequantization is not given. The model is trained on means of pixels with noise, and
# `Completion` accounts for the bits of that noise.

# %%
QUICK = options.quick
STEPS = 4 if QUICK else 1000
CONVNET = ConvNet((4, 4) if QUICK else (32, 32), kernels=(3, 3, 3))
DEPTH = 1 if QUICK else 8
MODELS = {
    "whole digit": Dequantized(image_glow(SHAPE, 2, DEPTH, CONVNET), LEVELS),
    "given 4 x 4 pixels": super_resolution(SHAPE, LEVELS, 1, 2 * DEPTH, CONVNET),
    "given the upper half": inpainting(SHAPE, LEVELS, "lower", 2, DEPTH, CONVNET),
}
DRAWS = 1 if QUICK else 8


def learn(model, train, validation, steps, batch_size=32):
    """Train a model; return the parameters that are best on the validation images, and the history."""
    params, history = fit(
        model,
        model.init(np.random.default_rng(1), train[:256]),
        train,
        rng=np.random.default_rng(2),
        steps=steps,
        batch_size=batch_size,
        optimizer=Adam(WarmupCosine(1e-2, steps=steps, warmup=steps // 10)),
        clip_norm=100.0,
        average=0.99,
        validation=validation,
        record=not QUICK,
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    return params, history


def row_of(model, params, history, test, other=None):
    """A row of the table, and the bits of each test image; `other` are those of the model to compare with."""
    bits = model.bits_per_dim(params, test, rng=np.random.default_rng(3), draws=DRAWS)
    row = {
        "test": float(bits.mean()),
        "standard_error": float(bits.std() / np.sqrt(len(bits))),
        "parameters": Layout(params).size,
        "steps": history.steps,
        "seconds": history.seconds[-1],
    }
    if other is not None:
        less = other - bits
        row["less"] = float(less.mean())
        row["less_standard_error"] = float(less.std() / np.sqrt(len(less)))
    return row, bits


learned, rows, bits = {}, {}, {}
for name, model in MODELS.items():
    params, history = learn(model, train, validation, STEPS)
    learned[name] = params
    rows[name], bits[name] = row_of(model, params, history, test, bits.get("whole digit"))

# %% [markdown]
# ## Eight answers
#
# Each row has the small image, eight answers to it, the mean of a hundred answers, and the digit that the small
# image was made from. The mean is grey where the answers differ.

# %%
QUESTIONS, ANSWERS, MANY = 6, 8, 8 if QUICK else 100
order = np.array([np.flatnonzero(labels == digit)[1] for digit in (2, 3, 4, 5, 8, 9)])


def answers_to(name, x, count, temperature=1.0, seed=5):
    """`count` answers to each image, between 0 and 1, shape (images, count, ...)."""
    model = MODELS[name]
    known = np.repeat(model.known(x), count, axis=0)
    y = model.answers(learned[name], np.random.default_rng(seed), known, temperature)
    return y.reshape(len(x), count, *y.shape[1:])


def sheet(name, given, file):
    """Draw questions, answers, their mean, and the digits."""
    y = answers_to(name, test[order], MANY)
    table = [
        given,
        *np.moveaxis(LEVELS * y[:, :ANSWERS] - 0.5, 1, 0),
        LEVELS * y.mean(axis=1) - 0.5,
        test[order],
    ]
    names = ["given", *map(str, range(1, ANSWERS + 1)), "mean", "digit"]
    figure, ax = plt.subplots(figsize=(8, 0.72 * QUESTIONS + 0.5), layout="constrained")
    plots.images(
        np.stack(table, axis=1), ax, title=f"{name}: {ANSWERS} answers, and the mean of {MANY}", **ink
    )
    ax.set_xticks(9 * np.arange(len(names)) + 3.5, labels=names)
    ax.tick_params(length=0)
    figure.savefig(options.out / file)


small = MODELS["given 4 x 4 pixels"].known(test)
sheet("given 4 x 4 pixels", enlarged(LEVELS * small[order] - 0.5, 2), "answers.png")

# %% [markdown]
# Do the answers shrink to what was given? (They are left as real numbers. Rounded to the 17 levels, their means would
# be off by up to half a level.)

# %%
eight = answers_to("given 4 x 4 pixels", test, ANSWERS)
off = np.abs(shrunk(eight.reshape(-1, *SHAPE)) - np.repeat(small, ANSWERS, axis=0))
print(
    f"{len(test)} questions with {ANSWERS} answers: means of blocks are off by at most {off.max():.1e} of full scale"
)

# %% [markdown]
# And how good are they? A classifier by five nearest neighbours among the training digits says which digit it sees:
# in an answer, in the mean of eight answers, in the small image as blocks, and in the true digit. The squared error
# of the mean is little more than half of that of an answer: an answer is as far from the mean of all answers as the
# truth is.

# %%
judge = KNeighborsClassifier(5).fit(train.reshape(len(train), -1) / (LEVELS - 1), data.train_labels)
truth = (test + 0.5) / LEVELS
views = {
    "answer": eight[:, 0],
    "mean of eight answers": eight.mean(axis=1),
    "small image": enlarged(small, 2),
    "true digit": truth,
}
quality = {
    name: {
        "right": float(judge.score(y.reshape(len(y), -1), labels)),
        "squared_error": float(np.mean((y - truth) ** 2)),
    }
    for name, y in views.items()
}
for name, row in quality.items():
    print(
        f"{name:24} called the right digit {row['right']:6.1%}, mean squared error {row['squared_error']:.4f}"
    )

# %% [markdown]
# ## The lower half
#
# The given half is kept as it is. If it is the upper half of a 2 or of a 3, some answers are twos and some are
# threes.

# %%
known_half = test[order].astype(float)
known_half[:, 4:] = (LEVELS - 1) / 2
sheet("given the upper half", known_half, "halves.png")
halves = answers_to("given the upper half", test[order], ANSWERS)
kept = float(np.abs(halves[:, :, :4] - truth[order][:, None, :4]).max())
print(f"the upper half is kept, up to {kept:.1e} of full scale")

# %% [markdown]
# ## Photographs
#
# From 8 x 8 to 32 x 32 pixels in colour: 192 of 3072 numbers are given. There are two flows, one for each doubling:
# the first draws the details of 16 x 16 pixels given 8 x 8, the second those of 32 x 32 given 16 x 16. For comparison
# a Glow of whole images trains for the same time.


# %%
def photographs():
    """CIFAR-10, or a part of it, if it is found; otherwise patches of photographs."""
    rng = np.random.default_rng(0)
    if QUICK and options.path is None:
        return datasets.image_data("patches", rng=rng, n=200, size=8)
    try:
        return datasets.image_data("cifar10", options.path, complete=False)
    except InputError as error:
        if options.path is not None or not isinstance(error, MissingDataError):
            raise SystemExit(str(error)) from error
    print("CIFAR-10 was not found: using patches of photographs")
    return datasets.image_data("patches", rng=rng)


photos = photographs()
photo_train = photos.train[:200] if QUICK else photos.train
photo_train = np.random.default_rng(1).permutation(np.concatenate([photo_train, photo_train[:, :, ::-1]]))
held_out = np.random.default_rng(2).permutation(photos.test)[: 20 if QUICK else 600]
photo_validation, photo_test = np.array_split(held_out, [len(held_out) // 6])
shape = photo_train.shape[1:]
network = ConvNet((4, 4) if QUICK else (64, 64))
PHOTO_MODELS = {
    "whole image": Dequantized(image_glow(shape, 1 if QUICK else 3, 1 if QUICK else 4, network)),
    "given the small image": super_resolution(shape, 256, 2, 1 if QUICK else 6, network),
}


def steps_in(model, minutes):
    """The number of steps that fit into the time, from the time of a few."""
    start = model.init(np.random.default_rng(1), photo_train[:256])
    rehearsal = {"steps": 11, "batch_size": 32, "optimizer": Adam(1e-9), "progress": False}
    _, trial = fit(model, start, photo_train, rng=np.random.default_rng(4), **rehearsal)
    return max(100, int(60 * minutes / np.median(np.diff(trial.seconds))))


photo_rows, photo_bits = {}, {}
for name, model in PHOTO_MODELS.items():
    steps = 4 if QUICK else steps_in(model, options.minutes / 2)
    few = photo_train[: max(256, 32 * steps // 6)]  # an epoch is at most a sixth of the run
    params, history = learn(model, few, photo_validation, steps)
    photo_rows[name], photo_bits[name] = row_of(
        model, params, history, photo_test, photo_bits.get("whole image")
    )

# %% [markdown]
# Below are answers at temperature 0.8, and an enlargement by cubic splines, which is a single blurred answer. After
# minutes of training the answers have the edges and textures of photographs, but hardly their objects. Next to pure
# white or black, where the logits of neighbours are far apart, some still break into noise; their blocks have the
# right means all the same.

# %%
MODEL, shown = PHOTO_MODELS["given the small image"], photo_test[:QUESTIONS]  # the last that was trained
given = MODEL.known(shown)
times = shape[0] // given.shape[1]
cubic = np.clip(zoom(given, (1, times, times, 1), order=3, mode="nearest", grid_mode=True), 0, 1)
drawn = MODEL.answers(params, np.random.default_rng(6), np.repeat(given, ANSWERS, axis=0), temperature=0.8)
blocks = drawn.reshape(len(drawn), given.shape[1], times, given.shape[2], times, 3).mean(axis=(2, 4))
photo_off = float(np.abs(blocks - np.repeat(given, ANSWERS, axis=0)).max())
table = np.concatenate(
    [
        enlarged(given, times)[:, None],
        cubic[:, None],
        drawn.reshape(len(shown), ANSWERS, *shape),
        ((shown + 0.5) / 256)[:, None],
    ],
    axis=1,
)
names = ["given", "splines", *map(str, range(1, ANSWERS + 1)), "image"]
figure, ax = plt.subplots(figsize=(9, 0.8 * len(shown) + 0.5), layout="constrained")
side = f"{given.shape[1]} x {given.shape[2]} to {shape[0]} x {shape[1]} pixels"
plots.images(256 * table - 0.5, ax, title=f"{photos.name}, {side}: {ANSWERS} answers at temperature 0.8")
ax.set_xticks((shape[1] + 1) * np.arange(len(names)) + shape[1] / 2, labels=names)
ax.tick_params(length=0)
figure.savefig(options.out / "photographs.png")
print(f"means of blocks are off by at most {photo_off:.1e} of full scale")

# %% [markdown]
# ## In numbers
#
# Bits for each number of the image, and how many fewer they are than those of the model without context, with the
# standard error of the difference over test images.

# %%
tables = {"digits": rows, photos.name: photo_rows}
figure, axes = plt.subplots(1, 2, figsize=(9, 2.2), layout="constrained")
for ax, (title, table), color in zip(axes, tables.items(), (BLUE, VERMILLION)):
    values, errors = ([row[key] for row in table.values()] for key in ("test", "standard_error"))
    ax.errorbar(values, list(table), xerr=2 * np.array(errors), fmt="o", color=color, capsize=3)
    ax.set(title=title, xlabel="bits/dim of test images, ± 2 standard errors", ylim=(len(table) - 0.5, -0.5))
    ax.margins(x=0.1)
figure.savefig(options.out / "bits.png")
summary = {
    "bits_per_dim": tables,
    "shrinks_to_given": float(off.max()),
    "photographs_shrink_to_given": photo_off,
    "half_kept": kept,
    "quality": quality,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
for title, table in tables.items():
    print(
        f"\n{title:24}{'bits/dim':>10}{'std. error':>12}{'less by':>10}{'std. error':>12}{'parameters':>12}{'steps':>8}"
    )
    for name, row in table.items():
        less = f"{row['less']:10.3f}{row['less_standard_error']:12.3f}" if "less" in row else f"{'':22}"
        print(
            f"{name:24}{row['test']:10.3f}{row['standard_error']:12.3f}{less}{row['parameters']:12,}{row['steps']:8,}"
        )
print(f"figures and summary.json in {options.out}")
