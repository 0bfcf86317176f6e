# %% [markdown]
# # PixelCNN: an image as a long sentence
#
# Any distribution of many numbers is a product of distributions of one: `p(x) = p(x_1) p(x_2 | x_1) p(x_3 | x_1, x_2) ...`
# A PixelCNN reads an image as one reads a page, row by row from the left, and says of each pixel how probable each of its
# levels is, given all that was read before. It has no z and no Jacobian. It is no flow but a rival of flows, in
# likelihood, and it is trained by the same `fit`.
#
# One network gives the distributions of all pixels in one pass. What keeps each from seeing itself and all that comes
# after it are masks. Here they are looked at first; then one PixelCNN learns ten digits, class by class.

# %%
import argparse
import json
import time
from pathlib import Path

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from sklearn.neighbors import KNeighborsClassifier

from npflow import datasets, fit, plots
from npflow.autodiff import Layout, value_and_grad
from npflow.models import PixelCNN
from npflow.networks import MaskedConvNet
from npflow.networks.masked import causal_mask
from npflow.plots.canvas import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

parser = argparse.ArgumentParser(
    description="A class-conditional PixelCNN of 8 x 8 digits, and what it sees."
)
parser.add_argument(
    "--out", type=Path, default=Path("out/pixelcnn"), help="where figures and summary.json go"
)
parser.add_argument(
    "--quick", action="store_true", help="a few steps only: shows that it runs, not that it learns"
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Masks
#
# A convolution looks at each pixel and its neighbours. A masked one keeps the places of its kernel above the middle, and
# to its left. The middle itself is kept by group: features are divided into groups, one for each channel, and group k at
# a pixel sees the groups before it, by mask B its own group too. The first convolution, which sees the image itself, has
# mask A: the red group sees no colour of its own pixel, the green one red, the blue one red and green. All others have
# mask B. So what is computed for a channel has never seen that channel.
#
# (The tone of the middle is the share of all pairs of groups that may pass there: those on its right.)

# %%
figure, axes = plt.subplots(1, 4, figsize=(13, 3.7), layout="constrained")
for kind, places, middle in (("A", axes[0], axes[1]), ("B", axes[2], axes[3])):
    mask = causal_mask(kind, (25, 3, 3), 3, np.dtype(float))
    kernel = np.zeros(49)
    kernel[:25] = mask.mean(axis=(1, 2))  # of the middle, a part
    places.imshow(kernel.reshape(7, 7), cmap="Blues", vmin=0, vmax=1.4)
    places.add_patch(Rectangle((2.5, 2.5), 1, 1, fill=False, edgecolor=BLACK, linewidth=1.6))
    places.set(xticks=[], yticks=[], title=f"mask {kind}, a kernel of 7 x 7")
    middle.imshow(mask[-1], cmap="Blues", vmin=0, vmax=1.4)
    middle.set(xticks=range(3), yticks=range(3), xticklabels="RGB", yticklabels="RGB")
    middle.set(xlabel="for the group", ylabel="sees the group", title=f"mask {kind}, the middle")
    for (i, j), seen in np.ndenumerate(mask[-1]):
        middle.text(j, i, int(seen), ha="center", va="center", color="white" if seen else "black")
figure.savefig(options.out / "masks.png", dpi=80)

# %% [markdown]
# ## What a pixel sees
#
# The gradient of one pixel's logits in the image: its size, averaged over networks that were just made and images of
# noise. What is read before the pixel, and yet is out of sight, is hatched. A convolution of 3 x 3 sees three pixels
# above and one at the left, and with each block one sees a pixel further; but to the right never more than a column
# for each row up. With ten blocks all is seen but what lies beyond that: PixelCNN's *blind spot*, which no number of
# blocks makes smaller. A large first kernel does, a little (right). The remedy came in a later paper: a second stack of
# convolutions, which sees whole rows above.

# %%
SIDE, PIXEL = 15, (10, 6)


def sight(network, params, x, pixel, context=None):
    """The size of the gradient of a pixel's logits in each pixel of an image, averaged over images `x`."""
    direction = np.random.default_rng(0).standard_normal(params["head"][-1]["bias"].shape)

    def logit(tree):
        logits = network.apply(tree["params"], tree["x"], context)[:, pixel[0], pixel[1]]
        return anp.sum(anp.dot(logits, direction.astype(x.dtype)))

    _, gradient = value_and_grad(logit)({"params": params, "x": x})
    return np.abs(gradient["x"]).mean(axis=(0, 3))


def draw_sight(ax, seen, pixel, title):
    """What is seen of an image, on a logarithmic scale; what is read before the pixel and is not is hatched."""
    with np.errstate(divide="ignore"):
        strength = np.log10(seen / seen.max())
    image = ax.imshow(np.ma.masked_invalid(strength), cmap="cividis", vmin=-4, vmax=0)
    i, j = np.indices(seen.shape)
    before = (i < pixel[0]) | ((i == pixel[0]) & (j < pixel[1]))
    for row, column in zip(*np.nonzero(before & (seen == 0))):
        corner = (column - 0.5, row - 0.5)
        ax.add_patch(
            Rectangle(corner, 1, 1, facecolor="white", edgecolor=VERMILLION, hatch="////", linewidth=0)
        )
    ax.add_patch(
        Rectangle((pixel[1] - 0.5, pixel[0] - 0.5), 1, 1, fill=False, edgecolor=BLACK, linewidth=1.8)
    )
    ax.set(xticks=[], yticks=[], title=title)
    return image


def sight_of_new(network):
    """What a pixel sees in networks that were just made."""
    total = np.zeros((SIDE, SIDE))
    for seed in range(1 if options.quick else 20):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((20, SIDE, SIDE, 1))
        params = network.init(rng, noise, outputs=8)
        params["head"][-1]["weight"][...] = rng.standard_normal(params["head"][-1]["weight"].shape)
        total = total + sight(network, params, noise, PIXEL)
    return total


networks = [MaskedConvNet(16, blocks, kernel, ()) for kernel, blocks in ((3, 0), (3, 3), (3, 10), (7, 3))]
figure, axes = plt.subplots(1, 4, figsize=(14, 3.7), layout="constrained")
out_of_sight = {}
for ax, network in zip(axes, networks):
    seen = sight_of_new(network)
    title = f"{network.kernel} x {network.kernel} and {network.blocks} blocks"
    image = draw_sight(ax, seen, PIXEL, title)
    out_of_sight[title] = PIXEL[0] * SIDE + PIXEL[1] - int(np.count_nonzero(seen))
figure.colorbar(image, ax=axes, label="log10 of |gradient|, relative", shrink=0.85)
figure.savefig(options.out / "sight.png", dpi=80)

# %% [markdown]
# ## Digits, class by class
#
# scikit-learn's 1797 digits: 8 x 8 pixels of 17 levels, as they are. There is no noise to add: p(x) is a probability of
# whole numbers, and `-log2 p(x)` the length in bits that the image is compressed to by the best code for p. Which digit
# it is goes in as a context of ten numbers, and adds a bias to hidden layers. The pixel on the right has learned to
# look up and to the left, and most of all at its neighbours.

# %%
data = datasets.image_data("digits")
images = {"train": data.train, "validation": data.test[:180], "test": data.test[180:]}
labels = {"train": data.train_labels, "validation": data.test_labels[:180], "test": data.test_labels[180:]}
test, test_labels = images["test"], labels["test"]
ONE_HOT = np.eye(10, dtype=np.float32)  # the context of each class

network = MaskedConvNet(features=12 if options.quick else 48, blocks=5, kernel=3, head=(64,))
model = PixelCNN(shape=(8, 8, 1), levels=17, network=network, context_features=10)
STEPS = 20 if options.quick else 450
clock = time.perf_counter()
params, history = fit(
    model,
    model.init(np.random.default_rng(1), images["train"], ONE_HOT[labels["train"]]),
    images["train"],
    ONE_HOT[labels["train"]],
    rng=np.random.default_rng(2),
    steps=STEPS,
    batch_size=64,
    optimizer=Adam(WarmupCosine(3e-3, steps=STEPS, warmup=STEPS // 20)),
    clip_norm=100.0,
    average=0.99,
    validation=images["validation"],
    validation_context=ONE_HOT[labels["validation"]],
)
if history.interrupted:
    raise SystemExit(f"stopped at step {history.steps} of {STEPS}: nothing was written")
seconds = time.perf_counter() - clock

scaled = test.astype(np.float32) / 8 - 1
seen = sight(model.network, params, scaled, (5, 4), ONE_HOT[test_labels])
figure, axes = plt.subplots(1, 2, figsize=(11, 3.7), layout="constrained", width_ratios=(1.6, 1))
history.plot(axes[0])
axes[0].set_title("training")
image = draw_sight(axes[1], seen, (5, 4), "what a pixel of test digits looks at")
figure.colorbar(image, ax=axes[1], label="log10 of |gradient|, relative")
figure.savefig(options.out / "history.png", dpi=80)

# %% [markdown]
# ## How many bits?
#
# Bits per pixel. A level about which nothing is known takes log2(17) = 4.09. Pixels that know how often each of them has
# which level in digits of their class, but nothing of each other, take fewer; a pixel that has seen those before it
# fewer still. There are few digits, and in the end training learns them by heart: so `fit` returns the parameters
# that did best on validation data.


# %%
def independent_bits(x, label):
    """Bits per pixel where each pixel has the levels' frequencies of its own and of its class, one added to each."""
    counts = np.ones((10, 64, 17))
    np.add.at(counts, (labels["train"][:, None], np.arange(64), images["train"].reshape(-1, 64)), 1)
    p = counts / counts.sum(axis=-1, keepdims=True)
    return -np.log2(p[label[:, None], np.arange(64), x.reshape(-1, 64)]).mean(axis=1)


rows = {}
for name in images:
    bits = model.bits_per_dim(params, images[name], ONE_HOT[labels[name]])
    rows[name] = {
        "bits_per_dim": float(bits.mean()),
        "standard_error": float(bits.std() / np.sqrt(len(bits))),
        "independent_pixels": float(independent_bits(images[name], labels[name]).mean()),
    }

# %% [markdown]
# Where in an image are they? Each pixel has its own `-log2 p(x_i | before)`. What is white for certain costs nothing; what
# comes unforeseen, such as the beginning of a stroke, costs most.


# %%
def bits_of_pixels(x, label):
    """-log2 of the probability of each pixel given those before it."""
    logits = model.logits(params, x, ONE_HOT[label]).astype(float)
    nats = np.log(np.sum(np.exp(logits), axis=-1)) - np.take_along_axis(logits, x[..., None], axis=-1)[..., 0]
    return nats[..., 0] / np.log(2)


shown = [int(np.flatnonzero(test_labels == digit)[0]) for digit in (0, 2, 3, 7)]
each = bits_of_pixels(test, test_labels)
figure, axes = plt.subplots(2, 5, figsize=(12, 5), layout="constrained")
for column, number in zip(axes.T, shown):
    column[0].imshow(test[number, ..., 0], cmap="gray_r", vmin=0, vmax=16)
    image = column[1].imshow(each[number], cmap="cividis", vmin=0, vmax=6)
    column[0].set_title(f"a test {test_labels[number]}")
    column[1].set_title(f"{each[number].mean():.2f} bits per pixel")
axes[0, 4].imshow(test.mean(axis=0)[..., 0], cmap="gray_r", vmin=0, vmax=16)
axes[0, 4].set_title("mean of all test digits")
axes[1, 4].imshow(each.mean(axis=0), cmap="cividis", vmin=0, vmax=6)
axes[1, 4].set_title(f"{each.mean():.2f} bits per pixel")
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
figure.colorbar(image, ax=axes[1], label="-log2 p(pixel | before) [bits]")
figure.savefig(options.out / "bits.png", dpi=80)

# %% [markdown]
# ## Samples
#
# A pixel can be drawn once those before it are: 64 times a distribution, a draw, and on to the next. Taken literally each
# is a pass over the whole image; `sample` keeps what each layer has seen, and computes of each pixel that pixel alone.
# There is a row for each class. On the right logits were divided by a temperature of 0.7, which makes the likely
# likelier: cleaner digits, less variety. Are they what was asked for? Five nearest neighbours say.

# %%
judge = KNeighborsClassifier(5).fit(images["train"].reshape(-1, 64), labels["train"])
asked = np.repeat(np.arange(10), 10 if options.quick else 100)
clock = time.perf_counter()
samples = {
    temperature: model.sample(params, np.random.default_rng(3), len(asked), ONE_HOT[asked], temperature)
    for temperature in (1.0, 0.7)
}
sampling_seconds = (time.perf_counter() - clock) / 2
called = {"test": float(judge.score(test.reshape(-1, 64), test_labels))} | {
    f"temperature {temperature}": float(judge.score(x.reshape(-1, 64), asked))
    for temperature, x in samples.items()
}


real = np.stack([test[test_labels == digit][:10] for digit in range(10)])
figure, axes = plt.subplots(1, 3, figsize=(13, 4.4), layout="constrained", gridspec_kw={"wspace": 0.05})
ink = {"levels": 17, "cmap": "gray_r"}
plots.images(real, axes[0], title="test digits", **ink)
for ax, (temperature, x) in zip(axes[1:], samples.items()):
    plots.images(x.reshape(10, -1, 8, 8, 1)[:, :10], ax, title=f"samples, temperature {temperature}", **ink)
figure.savefig(options.out / "samples.png", dpi=90)

# %% [markdown]
# ## The other half
#
# What is below is drawn given what is above. So images can be completed from their upper halves, as often as one likes:
# `complete(params, rng, x, rows=4, context)`. On the left it was told the right class, on the right that all are eights.

# %%
digits = np.array([0, 2, 3, 4, 5, 6, 8, 9])
whole = np.stack([test[test_labels == digit][0] for digit in digits])
upper = np.concatenate([whole[:, :4], np.zeros_like(whole[:, 4:])], axis=1)
COLUMNS = 6


def completions(label):
    """Each test digit, what is given of it, and how that is completed as a digit of a class."""
    context = ONE_HOT[np.repeat(label, COLUMNS)]
    x = np.repeat(upper, COLUMNS, axis=0)
    drawn = model.complete(params, np.random.default_rng(4), x, 4, context, temperature=0.7)
    return np.concatenate([whole[:, None], upper[:, None], drawn.reshape(-1, COLUMNS, 8, 8, 1)], axis=1)


figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained")
plots.images(completions(digits), axes[0], title="completed as what they are", **ink)
plots.images(completions(np.full_like(digits, 8)), axes[1], title="completed as eights", **ink)
for ax in axes:
    ax.axvline(17, color=BLUE, linewidth=1)
    ax.set_xticks([3.5, 12.5, 44], labels=["test", "given", "completed"])
    ax.tick_params(length=0)
figure.savefig(options.out / "completions.png", dpi=90)

# %% [markdown]
# ## A likelihood is a classifier
#
# p(x | class) for each of the ten classes says, by Bayes' rule, how probable each class is for an image. Nothing was
# trained to tell digits apart, and yet the class by which a test digit is most probable is nearly always its own.

# %%
log_probs = np.stack(
    [model.log_prob(params, test, ONE_HOT[np.full(180, digit)]) for digit in range(10)], axis=1
)
accuracy = float(np.mean(np.argmax(log_probs, axis=1) == test_labels))

# %%
summary = {
    "parameters": Layout(params).size,
    "seconds": seconds,
    "bits": rows,
    "uniform_bits": float(np.log2(17)),
    "out_of_sight": out_of_sight,
    "called_as_asked": called,
    "milliseconds_a_sample": 1000 * sampling_seconds / len(asked),
    "accuracy_by_likelihood": accuracy,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'bits per pixel':>14}{'PixelCNN':>12}{'std. error':>12}{'independent pixels':>20}")
for name, row in rows.items():
    print(
        f"{name:>14}{row['bits_per_dim']:12.3f}{row['standard_error']:12.3f}{row['independent_pixels']:20.3f}"
    )
print("called as asked: " + ", ".join(f"{name} {share:.1%}" for name, share in called.items()))
print(f"the likeliest class of a test digit is its own: {accuracy:.1%}")
print(f"{seconds:.1f} s of training, {summary['milliseconds_a_sample']:.2f} ms a sample")
print(f"figures and summary.json in {options.out}")
