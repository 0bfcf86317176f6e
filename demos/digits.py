# %% [markdown]
# # Digits: every model of images on one page
#
# Five papers on the density of images: NICE, RealNVP, Glow, MintNet and PixelCNN. Here all learn the same
# 1437 digits, once without the class and, except for MintNet, which takes no context, once with it. All are
# measured in the same unit: the bits per pixel that the model's code takes for a test digit,
# `-log2 p(x) / 64`. Then we compare samples of given classes side by side. The last part shows what a flow
# can do and a PixelCNN cannot, because only a flow has a z.

# %%
import json
from collections.abc import Callable
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from sklearn.neighbors import KNeighborsClassifier
from tqdm.auto import tqdm

from npflow import Dequantized, Flow, datasets, fit, latent, plots
from npflow.autodiff import Layout
from npflow.autodiff.program.threads import available_cores
from npflow.cli.demo import demo_options
from npflow.models import PixelCNN, image_glow, image_nice, image_real_nvp, mintnet
from npflow.networks import ConvNet, MaskedConvNet, ResNet
from npflow.plots.style import BLACK, BLUE, ORANGE, SKY, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options(
    "digits", "NICE, RealNVP, Glow, MintNet and PixelCNN on 8 x 8 digits, in bits per pixel."
)
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# scikit-learn's 1797 digits: 8 x 8 pixels with integer levels from 0 to 16. A fifth is held out: one half of
# it is for validation, the other for the test. The class of a digit is a context of ten numbers (one-hot).

# %%
SHAPE, LEVELS = (8, 8, 1), 17
data = datasets.image_data("digits")
images = {"train": data.train, "validation": data.test[:180], "test": data.test[180:]}
labels = {"train": data.train_labels, "validation": data.test_labels[:180], "test": data.test_labels[180:]}
train, test = images["train"], images["test"]
ONE_HOT = np.eye(10, dtype=np.float32)  # the context of each class

# %% [markdown]
# ## The models
#
# One line each. Four are flows, which are densities of real numbers. `Dequantized` makes a flow into a
# distribution of integers: the probability of an image is the volume under the density in its cell. A
# PixelCNN is a distribution of integers already.
#
# Half of all pixels are white. After dequantization such a pixel lies between 0 and 1/17, with an edge at 0
# that no smooth density can follow. Each flow begins with a `Logit`, which moves this edge to minus infinity.
# The Glow of the paper, made for photographs, has none. On digits a `Logit` gains more than 0.15 bits per
# pixel.
#
# With so few images a model soon overfits, so `fit` returns the parameters that were best on the validation
# digits. What else helps? We tried several settings with a Glow, one at a time. A high learning rate helps:
# the usual 1e-3 is 0.12 bits worse after the same number of steps. Little else matters: networks nearly three
# times as wide, or training without the moving average, change the result by less than 0.01 bits.

# %%
RESNET = ResNet(channels=4 if options.quick else 24, blocks=1)
CONVNET = ConvNet((4, 4) if options.quick else (32, 32), kernels=(3, 3, 3))
FILTERS = 2 if options.quick else 12
MASKED = MaskedConvNet(8, 1, 3, (8,)) if options.quick else MaskedConvNet(48, 5, 3, (64,))


class Recipe(NamedTuple):
    """A function of the number of context features, the training steps, and whether to use the class."""

    make: Callable
    steps: int
    by_class: tuple = (False, True)


MODELS = {
    "NICE": Recipe(lambda c: image_nice(SHAPE, 6, RESNET, context_features=c), 600),
    "RealNVP": Recipe(lambda c: image_real_nvp(SHAPE, 2, RESNET, context_features=c), 600),
    "Glow": Recipe(
        lambda c: image_glow(SHAPE, 2, 1 if options.quick else 8, CONVNET, context_features=c), 600
    ),
    "MintNet": Recipe(
        lambda _: mintnet(SHAPE, 2, 1 if options.quick else 2, FILTERS), 600, by_class=(False,)
    ),
    "PixelCNN": Recipe(lambda c: PixelCNN(SHAPE, LEVELS, MASKED, c), 450),
}


def model_of(name, by_class):
    """A model of integer levels, of any digit or given the class."""
    model = MODELS[name].make(10 if by_class else 0)
    return Dequantized(model, LEVELS) if isinstance(model, Flow) else model


def learn(name, by_class):
    """Train a model; return its parameters, its history, and a row for the table."""
    model, steps = model_of(name, by_class), 3 if options.quick else MODELS[name].steps
    context = {part: ONE_HOT[labels[part]] if by_class else None for part in images}
    first = [train[:256], context["train"][:256]] if by_class else [train[:256]]
    params, history = fit(
        model,
        model.init(np.random.default_rng(1), *first),
        train,
        context["train"],
        rng=np.random.default_rng(2),
        steps=steps,
        batch_size=32,
        optimizer=Adam(WarmupCosine(1e-2, steps=steps, warmup=steps // 20)),
        clip_norm=100.0,
        average=0.99,
        validation=images["validation"],
        validation_context=context["validation"],
        record=not options.quick,  # a recording takes as long as several steps
        threads=1,
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    bits = {part: bits_of(model, params, images[part], context[part]) for part in images}
    row = row_of(bits) | {
        "parameters": Layout(params).size,
        "seconds": history.seconds[-1],
        "best_step": history.validation_step[int(np.argmin(history.validation_loss))],
    }
    return params, history, row


# %% [markdown]
# ## How many bits?
#
# Without any model a level takes log2(17) = 4.09 bits. A model of independent pixels knows how often each
# pixel has each level, and takes fewer. A better model gains over this by what it knows of how pixels depend
# on each other.
#
# A PixelCNN's bits are exact. A flow's are an upper bound because of the noise. The bound from the mean of
# ten draws inside the logarithm is tighter than that from one draw.
#
# How much can the class gain? One of ten classes takes log2(10) = 3.3 bits, or 0.05 per pixel. A perfect
# model cannot gain more from the class. A model that gains more had not learned to separate the classes
# itself: independent pixels gain four times as much, because the class is all they know of each other.

# %%
DRAWS, IMAGES = (1, 50) if options.quick else (10, None)  # IMAGES: of each part, at most


def bits_of(model, params, x, context):
    """Bits per pixel, shape (n,)."""
    x, context = x[:IMAGES], None if context is None else context[:IMAGES]
    if isinstance(model, Dequantized):
        return model.bits_per_dim(params, x, context, rng=np.random.default_rng(3), draws=DRAWS)
    return model.bits_per_dim(params, x, context)


def row_of(bits):
    """The mean bits of each part, and the standard error of the test."""
    means = {part: float(values.mean()) for part, values in bits.items()}
    return means | {"standard_error": float(bits["test"].std() / np.sqrt(len(bits["test"])))}


def independent_bits(part, by_class):
    """Bits per pixel of independent pixels, from the counts of their levels plus one; shape (n,)."""
    groups = {name: label * by_class for name, label in labels.items()}
    counts = np.ones((10, 64, LEVELS))
    np.add.at(counts, (groups["train"][:, None], np.arange(64), train.reshape(-1, 64)), 1)
    p = counts / counts.sum(axis=-1, keepdims=True)
    return -np.log2(p[groups[part][:, None], np.arange(64), images[part].reshape(-1, 64)]).mean(axis=1)


# %% [markdown]
# These models are too small to use more than one core, so several train at a time, each in its own process,
# where it is also evaluated.

# %%
kinds = [(name, by_class) for name in MODELS for by_class in MODELS[name].by_class]
jobs = (delayed(learn)(*kind) for kind in kinds)
results = Parallel(1 if options.quick else available_cores(), return_as="generator")(jobs)
learned = dict(zip(tqdm(kinds, unit="model"), results))
models = {kind: model_of(*kind) for kind in kinds}
rows = {
    ("independent pixels", by_class): row_of({part: independent_bits(part, by_class) for part in images})
    for by_class in (False, True)
}
rows |= {kind: row for kind, (_, _, row) in learned.items()}

# %% [markdown]
# On the left, the bits of the validation data during training, from one draw. On the right, the bits of
# training digits (strokes) and of test digits (marks). The distance between the two shows the overfitting.

# %%
COLORS = dict(zip(MODELS, zip((BLUE, ORANGE, BLACK, SKY, VERMILLION), "osD^v")))
STYLES = ((False, BLUE, "o", "any digit"), (True, VERMILLION, "s", "given the class"))
figure, axes = plt.subplots(1, 2, figsize=(10, 3.8), layout="constrained")
best = []
for (name, by_class), (_, history, _) in learned.items():
    if not by_class:
        bits = np.array(history.validation_loss) / (64 * np.log(2))
        color, mark = COLORS[name]
        axes[0].plot(history.validation_step, bits, color=color, marker=mark, label=name)
        best.append(bits.min())
axes[0].set(xlabel="step", ylabel="bits per pixel", title="validation digits, during training")
axes[0].set(xlim=(0, None), ylim=(min(best) - 0.1, max(best) + 1))  # the first steps may be far above
axes[0].xaxis.get_major_locator().set_params(integer=True)
axes[0].legend()
names = ["independent pixels", *MODELS]
for by_class, color, mark, label in STYLES:
    places = np.arange(len(names))[::-1] - 0.2 * (2 * by_class - 1)
    for part, style, size in (("test", mark, 5), ("train", "|", 13)):
        bits = [rows[name, by_class][part] if (name, by_class) in rows else np.nan for name in names]
        axes[1].plot(bits, places, style, color=color, label=f"{part}, {label}", markersize=size)
axes[1].set(
    yticks=range(len(names)), yticklabels=names[::-1], xlabel="bits per pixel", title="after training"
)
axes[1].grid(axis="y", color="0.9")
figure.legend(*axes[1].get_legend_handles_labels(), loc="outside lower right", ncols=4)
figure.savefig(options.out / "bits.png")

# %% [markdown]
# ## Samples, class by class
#
# Each row is a class. Above at temperature 1, below at 0.7, which draws z closer to the mean for a flow and
# makes likely levels likelier for a PixelCNN: clearer digits, less variety. Do the samples show the requested
# class? Five nearest neighbours among the training digits give the share that do. (The best likelihood does
# not give the best-looking digits: when a PixelCNN draws one wrong pixel, it continues from there.)

# %%
asked = np.repeat(np.arange(10), 10 if options.quick else 50)
judge = KNeighborsClassifier(5).fit(train.reshape(-1, 64), labels["train"])
accuracy = float(judge.score(test.reshape(-1, 64), labels["test"]))
TEMPERATURES = (1.0, 0.7)
called, drawn = {}, {}
told = [name for name in MODELS if (name, True) in learned]
for name in told:
    params, *_ = learned[name, True]
    for temperature in TEMPERATURES:
        x = models[name, True].sample(
            params, np.random.default_rng(4), len(asked), ONE_HOT[asked], temperature
        )
        called[name, temperature] = float(judge.score(x.reshape(-1, 64), asked))
        drawn[name, temperature] = x.reshape(10, -1, *SHAPE)[:, :7]

real = np.stack([test[labels["test"] == digit][:7] for digit in range(10)])
ink = {"levels": LEVELS}
figure, axes = plt.subplots(
    2,
    1 + len(told),
    figsize=(10, 6),
    layout="constrained",
    gridspec_kw={"wspace": 0.05},
)
plots.images(real, axes[0, 0], title="test digits", **ink)
for column, name in zip(axes.T[1:], told):
    for ax, temperature in zip(column, TEMPERATURES):
        plots.images(drawn[name, temperature], ax, title=f"{name}, T = {temperature:g}", **ink)
for temperature, color, mark in zip(TEMPERATURES, (BLUE, VERMILLION), "os"):
    heard = [called[name, temperature] for name in told]
    axes[1, 0].plot(heard, told, mark, color=color, label=f"temperature T = {temperature:g}")
axes[1, 0].axvline(accuracy, color=BLACK, linestyle="--", linewidth=1, label="test digits")
axes[1, 0].set(
    xlabel="share of the requested class", xlim=(min(0.7, *called.values()) - 0.05, 1.03), box_aspect=1
)
axes[1, 0].invert_yaxis()
axes[1, 0].margins(y=0.3)
axes[1, 0].legend(loc="lower center", bbox_to_anchor=(0.5, 1))
figure.savefig(options.out / "samples.png")

# %% [markdown]
# ## Attributes, by the Glow
#
# The Glow without the class. `attribute_vector(a, b) = mean(z of a) - mean(z of b)`, for example of the
# training eights and threes. It is added to the z of test digits. The z of a digit is that of the middles of
# its pixels' cells, and the decoded image has integer levels again. (`latent_arithmetic.py` does more, with
# flows of rows.)

# %%
glow, params = models["Glow", False], learned["Glow", False][0]
PAIRS = ((3, 8), (1, 7), (4, 9))
STRENGTHS = np.arange(0, 1.51, 0.25)
attributes, shares = {}, {}
for source, target in PAIRS:
    without, having = (train[labels["train"] == digit] for digit in (source, target))
    vector = latent.attribute_vector(glow, params, having, without)
    start = test[labels["test"] == source]
    moved = [latent.add_attribute(glow, params, start, vector, strength) for strength in STRENGTHS]
    attributes[source, target] = np.stack(moved, axis=1)
    shares[source, target] = [float(np.mean(judge.predict(x.reshape(-1, 64)) == target)) for x in moved]

figure, axes = plt.subplots(1, 4, figsize=(10, 2.7), layout="constrained", width_ratios=(1, 1, 1, 1.1))
figure.get_layout_engine().set(wspace=0.1)
for ax, (source, target) in zip(axes, PAIRS):
    title = f"{source} + strength * ({target} - {source})"
    plots.images(attributes[source, target][:6], ax, title=title, **ink)
    ax.set_xticks(9 * np.arange(len(STRENGTHS)) + 3.5, labels=[f"{strength:g}" for strength in STRENGTHS])
    ax.tick_params(length=0)
    ax.set_xlabel("strength")
for (source, target), color, mark in zip(PAIRS, (BLUE, VERMILLION, BLACK), "os^"):
    label = f"from {source} to {target}"
    axes[3].plot(STRENGTHS, shares[source, target], color=color, marker=mark, label=label, markersize=4)
axes[3].set(xlabel="strength", ylabel="share", ylim=(-0.05, 1.05), title="called the target")
axes[3].legend(loc="lower right")
figure.savefig(options.out / "attributes.png")

# %% [markdown]
# ## Interpolation, by the Glow
#
# Along the straight line from one z to another, the strokes of one digit change into those of the other.
# Along the line between the pixels, on the right, one digit fades out while the other fades in.

# %%
ENDS = ((0, 6), (1, 4), (7, 9), (3, 5), (2, 8), (6, 8))
SHARES = np.linspace(0, 1, 9)
first, last = (np.stack([test[labels["test"] == pair[side]][side] for pair in ENDS]) for side in (0, 1))
in_z = latent.interpolate(glow, params, first, last, SHARES)
in_pixels = np.stack([(1 - share) * first + share * last for share in SHARES])
figure, axes = plt.subplots(1, 2, figsize=(10, 4.3), layout="constrained")
figure.get_layout_engine().set(wspace=0.1)
for ax, between, title in zip(axes, (in_z, in_pixels), ("mixed in z", "mixed pixel by pixel")):
    plots.images(between.swapaxes(0, 1), ax, title=title, **ink)
    ax.set_xticks(9 * np.arange(len(SHARES))[::2] + 3.5, labels=[f"{share:g}" for share in SHARES[::2]])
    ax.tick_params(length=0)
    ax.set_xlabel("share of the digit on the right")
figure.savefig(options.out / "interpolation.png")

# %%
summary = {
    "uniform_bits": float(np.log2(LEVELS)),
    "class_bits": float(np.log2(10) / 64),
    "models": {
        name: {label: rows[name, by_class] for by_class, _, _, label in STYLES if (name, by_class) in rows}
        for name in ("independent pixels", *MODELS)
    },
    "judge_accuracy": accuracy,
    "called_as_asked": {
        name: {str(temperature): called[name, temperature] for temperature in TEMPERATURES} for name in told
    },
    "attributes": {
        f"{source} to {target}": dict(zip(map(str, STRENGTHS), values))
        for (source, target), values in shares.items()
    },
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
heads = ("train", "validation", "test", "std. error", "parameters", "seconds")
print(f"\n{'bits per pixel':20}{'':18}" + "".join(f"{head:>12}" for head in heads))
print(f"{'uniform':20}{'':18}" + 3 * f"{np.log2(LEVELS):12.3f}")
for (name, by_class), row in rows.items():
    line = "".join(f"{row[head]:12.3f}" for head in ("train", "validation", "test", "standard_error"))
    if name in MODELS:
        line += f"{row['parameters']:12,}{row['seconds']:12.1f}"
    print(f"{name:20}{'given the class' if by_class else '':18}{line}")
print("samples of the requested class: " + ", ".join(f"{name} {called[name, 1.0]:.0%}" for name in told))
print(f"figures and summary.json in {options.out}")
