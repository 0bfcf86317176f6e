# %% [markdown]
# # Digits: every model of images on one page
#
# Five papers say how probable an image is, NICE, RealNVP, Glow, MintNet and PixelCNN. Here all of them learn the same 1437
# digits, once as they are and, all but MintNet, which takes no class, once class by class. They are measured in the same
# unit: the bits per pixel that a test digit takes when it is coded by the model, `-log2 p(x) / 64`. Then what each draws
# when it is told a class, side by side; and what a flow can do and a PixelCNN cannot, since only a flow has a z.

# %%
import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from sklearn.neighbors import KNeighborsClassifier
from tqdm.auto import tqdm

from npflow import Dequantized, Flow, datasets, fit, latent, plots
from npflow.autodiff import Layout
from npflow.autodiff.program.threads import available_cores
from npflow.models import PixelCNN, image_glow, image_nice, image_real_nvp, mintnet
from npflow.networks import ConvNet, MaskedConvNet, ResNet
from npflow.plots.canvas import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

parser = argparse.ArgumentParser(
    description="NICE, RealNVP, Glow, MintNet and PixelCNN on 8 x 8 digits, in bits per pixel."
)
parser.add_argument("--out", type=Path, default=Path("out/digits"), help="where figures and summary.json go")
parser.add_argument(
    "--quick", action="store_true", help="a few steps only: shows that it runs, not that it learns"
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data
#
# scikit-learn's 1797 digits: 8 x 8 pixels of 17 levels, whole numbers. A fifth is held out. Half of that says when to
# stop, the other half is the test. Which digit it is goes in as a context of ten numbers.

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
# A line each. Four are flows, which are densities of real numbers; `Dequantized` makes a distribution of whole numbers
# of one, the volume under the density on the cell of each. A PixelCNN is one as it is.
#
# Half of all pixels are white. After dequantization such a pixel is anywhere between 0 and 1/17, with an edge
# at 0 that no smooth density follows. Each flow begins with a `Logit`, which moves that edge to minus infinity. The Glow of
# the paper, made for photographs, has none; on digits a `Logit` gains more than 0.15 bits per pixel.
#
# So few images are soon known by heart; `fit` returns the parameters from the step before, by the validation digits. What
# helps beside that, each tried by itself with a Glow: a high learning rate, since the usual 1e-3 takes 0.12 bits more
# after as many steps; and little else. Networks nearly three times as wide come to the same within 0.01 bits, and so does
# training without the moving average of the parameters.

# %%
RESNET = ResNet(channels=4 if options.quick else 24, blocks=1)
CONVNET = ConvNet((4, 4) if options.quick else (32, 32), kernels=(3, 3, 3))
FILTERS = 2 if options.quick else 12
MASKED = MaskedConvNet(8, 1, 3, (8,)) if options.quick else MaskedConvNet(48, 5, 3, (64,))


class Recipe(NamedTuple):
    """A flow or another model, by its number of context features, how many steps it learns, and whether by class."""

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
    """A model of whole numbers, of any digit or given the class."""
    model = MODELS[name].make(10 if by_class else 0)
    return Dequantized(model, LEVELS) if isinstance(model, Flow) else model


def learn(name, by_class):
    """A model's parameters, its history, and a row for the table of results."""
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
        record=not options.quick,  # a recording takes as long as some steps
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
# A level about which nothing is known takes log2(17) = 4.09 bits. Pixels that know how often each of them has which level,
# but nothing of each other, take fewer. What a model takes less than that, it has found out about how pixels go together.
#
# A PixelCNN's bits are exact. A flow's are a bound, to which the noise adds some: the mean of ten draws inside the
# logarithm comes closer to the truth than one.
#
# What may the class be worth? To name one of ten digits takes log2(10) = 3.3 bits, 0.05 for each pixel, and that is
# the most that a perfect model can gain from being told. Where a model gains more, it had not told the classes apart
# by itself: independent pixels gain four times as much, as the class is all they hear of each other.

# %%
DRAWS = 2 if options.quick else 10


def bits_of(model, params, x, context):
    """Bits per pixel, shape (n,)."""
    if isinstance(model, Dequantized):
        return model.bits_per_dim(params, x, context, rng=np.random.default_rng(3), draws=DRAWS)
    return model.bits_per_dim(params, x, context)


def row_of(bits):
    """What is reported of the bits of each part."""
    means = {part: float(values.mean()) for part, values in bits.items()}
    return means | {"standard_error": float(bits["test"].std() / np.sqrt(len(test)))}


def independent_bits(part, by_class):
    """Bits per pixel where each has the levels' frequencies of its own, one added to each; shape (n,)."""
    groups = {name: label * by_class for name, label in labels.items()}
    counts = np.ones((10, 64, LEVELS))
    np.add.at(counts, (groups["train"][:, None], np.arange(64), train.reshape(-1, 64)), 1)
    p = counts / counts.sum(axis=-1, keepdims=True)
    return -np.log2(p[groups[part][:, None], np.arange(64), images[part].reshape(-1, 64)]).mean(axis=1)


# %% [markdown]
# These models are too small for more than one core, so several learn at a time, in a process each, and are measured there.

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
# On the left the validation data while the models learned, by one draw. On the right all bits, of training digits (a
# stroke) and of test digits (a mark): the way from the one to the other is what was learned by heart.

# %%
STYLES = ((False, BLUE, "o", "any digit"), (True, VERMILLION, "s", "given the class"))
figure, axes = plt.subplots(1, 2, figsize=(12, 4.2), layout="constrained")
best = []
for (name, by_class), (_, history, _) in learned.items():
    if not by_class:
        bits = np.array(history.validation_loss) / (64 * np.log(2))
        axes[0].plot(history.validation_step, bits, "o-", label=name, markersize=3)
        best.append(bits.min())
axes[0].set(xlabel="step", ylabel="bits per pixel", title="validation digits, while learning")
axes[0].set(xlim=(0, None), ylim=(min(best) - 0.1, max(best) + 1))  # the first steps may be far above
axes[0].xaxis.get_major_locator().set_params(integer=True)
axes[0].legend()
names = ["independent pixels", *MODELS]
for by_class, color, mark, label in STYLES:
    places = np.arange(len(names))[::-1] - 0.2 * (2 * by_class - 1)
    for part, style, size in (("test", mark, 5), ("train", "|", 13)):
        bits = [rows[name, by_class][part] if (name, by_class) in rows else np.nan for name in names]
        axes[1].plot(bits, places, style, color=color, label=f"{part}, {label}", markersize=size)
axes[1].set(yticks=range(len(names)), yticklabels=names[::-1], xlabel="bits per pixel", title="learned")
axes[1].grid(axis="y", color="0.9")
axes[1].legend(fontsize=8)
figure.savefig(options.out / "bits.png", dpi=80)

# %% [markdown]
# ## Samples, class by class
#
# There is a row for each class. Above as the models have them, below at a temperature of 0.7, which keeps a flow's z
# nearer to the middle and makes a PixelCNN's likely levels likelier: cleaner digits, less variety. Are they what was asked
# for? Five nearest neighbours among the training digits say how many. (The best likelihood does not make the best-formed
# digits: a PixelCNN that draws one pixel wrong goes on from there.)

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
ink = {"levels": LEVELS, "cmap": "gray_r"}
figure, axes = plt.subplots(
    2,
    1 + len(told),
    figsize=(2.7 * (1 + len(told)), 7.8),
    layout="constrained",
    gridspec_kw={"wspace": 0.05},
)
plots.images(real, axes[0, 0], title="test digits", **ink)
for column, name in zip(axes.T[1:], told):
    for ax, temperature in zip(column, TEMPERATURES):
        plots.images(drawn[name, temperature], ax, title=f"{name}, temperature {temperature:g}", **ink)
for temperature, color, mark in zip(TEMPERATURES, (BLUE, VERMILLION), "os"):
    heard = [called[name, temperature] for name in told]
    axes[1, 0].plot(heard, told, mark, color=color, label=f"temperature {temperature:g}")
axes[1, 0].axvline(accuracy, color=BLACK, linestyle="--", linewidth=1, label="test digits")
axes[1, 0].set(xlabel="share called as asked", xlim=(min(0.7, *called.values()) - 0.05, 1.03), box_aspect=1)
axes[1, 0].invert_yaxis()
axes[1, 0].margins(y=0.3)
axes[1, 0].legend(fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1))
figure.savefig(options.out / "samples.png", dpi=90)

# %% [markdown]
# ## Attributes, by the Glow
#
# The Glow that was never told a class. `attribute_vector(a, b) = mean(z of a) - mean(z of b)`, of training eights and
# threes, and so on; it is added to the z of test digits. A digit's z is that of the middles of its pixels' cells, and what
# comes back is whole numbers again. (`latent_arithmetic.py` goes further, with flows of rows.)

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

figure, axes = plt.subplots(1, 4, figsize=(16, 3.9), layout="constrained", width_ratios=(1, 1, 1, 1.1))
figure.get_layout_engine().set(wspace=0.1)
for ax, (source, target) in zip(axes, PAIRS):
    title = f"{source} + strength * ({target} - {source})"
    plots.images(attributes[source, target][:6], ax, title=title, **ink)
    ax.set_xticks(9 * np.arange(len(STRENGTHS)) + 3.5, labels=[f"{strength:g}" for strength in STRENGTHS])
    ax.tick_params(length=0)
    ax.set_xlabel("strength")
for (source, target), color, mark in zip(PAIRS, (BLUE, VERMILLION, BLACK), "os^"):
    label = f"test {source}s that are called {target}"
    axes[3].plot(STRENGTHS, shares[source, target], color=color, marker=mark, label=label, markersize=4)
axes[3].set(xlabel="strength", ylabel="share", ylim=(-0.05, 1.05), title="what five nearest neighbours say")
axes[3].legend(fontsize=8)
figure.savefig(options.out / "attributes.png", dpi=80)

# %% [markdown]
# ## Interpolation, by the Glow
#
# On the straight line from one z to another: one stroke turns into another. From pixel to pixel, on the right, one fades
# out while the other fades in.

# %%
ENDS = ((0, 6), (1, 4), (7, 9), (3, 5), (2, 8), (6, 8))
SHARES = np.linspace(0, 1, 9)
first, last = (np.stack([test[labels["test"] == pair[side]][side] for pair in ENDS]) for side in (0, 1))
in_z = latent.interpolate(glow, params, first, last, SHARES)
in_pixels = np.stack([(1 - share) * first + share * last for share in SHARES])
figure, axes = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
figure.get_layout_engine().set(wspace=0.1)
for ax, between, title in zip(axes, (in_z, in_pixels), ("mixed in z", "mixed pixel by pixel")):
    plots.images(between.swapaxes(0, 1), ax, title=title, **ink)
    ax.set_xticks(9 * np.arange(len(SHARES))[::2] + 3.5, labels=[f"{share:g}" for share in SHARES[::2]])
    ax.tick_params(length=0)
    ax.set_xlabel("share of the digit on the right")
figure.savefig(options.out / "interpolation.png", dpi=80)

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
print("called as asked: " + ", ".join(f"{name} {called[name, 1.0]:.0%}" for name in told))
print(f"figures and summary.json in {options.out}")
