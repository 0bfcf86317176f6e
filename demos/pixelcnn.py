# %% [markdown]
# # PixelCNN: an image as a long sentence
#
# Any joint distribution is a product of conditional ones: `p(x) = p(x_1) p(x_2 | x_1) p(x_3 | x_1, x_2) ...`
# A PixelCNN reads an image like a page, row by row from the left. For each pixel it gives the probability of
# each level, given all pixels before it. It has no z and no Jacobian, so it is not a flow. It competes with
# flows in likelihood, and the same `fit` trains it.
#
# One network gives the distributions of all pixels in one pass. Masks keep each pixel from seeing itself and
# the pixels after it. This demo first looks at the masks, and then trains one PixelCNN on ten digits, given
# the class.

# %%
import json
import time

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle
from sklearn.neighbors import KNeighborsClassifier

from npflow import datasets, fit, plots
from npflow.autodiff import Layout, value_and_grad
from npflow.cli.demo import demo_options
from npflow.models import PixelCNN
from npflow.networks import MaskedConvNet
from npflow.networks.masked import causal_mask
from npflow.plots.style import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options("pixelcnn", "A class-conditional PixelCNN of 8 x 8 digits, and its receptive field.")
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Masks
#
# A convolution sees each pixel and its neighbours. A masked convolution keeps only the part of its kernel
# above the middle, and on its left. The middle is masked by groups: the features are divided into groups, one
# for each channel. At a pixel, group k sees the groups before it, and with mask B also its own group. The
# first convolution, which sees the image itself, has mask A: the red group sees no colour of its own pixel,
# green sees red, blue sees red and green. All other convolutions have mask B. So the features of a channel
# never depend on that channel.
#
# (The tone of the middle is the share of pairs of groups that are connected there; they are shown on its
# right.)

# %%
figure, axes = plt.subplots(1, 4, figsize=(10, 3.1), layout="constrained")
for kind, places, middle in (("A", axes[0], axes[1]), ("B", axes[2], axes[3])):
    mask = causal_mask(kind, (25, 3, 3), 3, np.dtype(float))
    kernel = np.zeros(49)
    kernel[:25] = mask.mean(axis=(1, 2))  # a part of the middle
    places.imshow(kernel.reshape(7, 7), cmap="Blues", vmin=0, vmax=1.4)
    places.add_patch(Rectangle((2.5, 2.5), 1, 1, fill=False, edgecolor=BLACK, linewidth=1.6))
    places.set(xticks=[], yticks=[], title=f"mask {kind}, a kernel of 7 x 7")
    places.spines[:].set_visible(False)
    middle.imshow(mask[-1], cmap="Blues", vmin=0, vmax=1.4)
    middle.spines[:].set_visible(False)
    middle.set(xticks=range(3), yticks=range(3), xticklabels="RGB", yticklabels="RGB")
    middle.set(xlabel="for the group", ylabel="sees the group", title=f"mask {kind}, the middle")
    for (i, j), seen in np.ndenumerate(mask[-1]):
        middle.text(j, i, int(seen), ha="center", va="center", color="white" if seen else "black")
figure.savefig(options.out / "masks.png")

# %% [markdown]
# ## What a pixel sees
#
# The gradient of one pixel's logits with respect to the image: its absolute value, averaged over new networks
# and images of noise. Pixels that come before it in reading order but have no influence are hatched. A 3 x 3
# convolution sees three pixels above and one on the left, and each block sees one pixel further. To the
# right, the view grows by only one column for each row up. With ten blocks everything is visible except what
# lies beyond this line: PixelCNN's *blind spot*, which more blocks do not reduce. A large first kernel
# reduces it a little (right). A later paper removes it by a second stack of convolutions that sees whole rows
# above.

# %%
SIDE, PIXEL = 15, (10, 6)


def sight(network, params, x, pixel, context=None):
    """The absolute gradient of a pixel's logits by each pixel of an image, averaged over the images `x`."""
    direction = np.random.default_rng(0).standard_normal(params["head"][-1]["bias"].shape)

    def logit(tree):
        logits = network.apply(tree["params"], tree["x"], context)[:, pixel[0], pixel[1]]
        return anp.sum(anp.dot(logits, direction.astype(x.dtype)))

    _, gradient = value_and_grad(logit)({"params": params, "x": x})
    return np.abs(gradient["x"]).mean(axis=(0, 3))


def draw_sight(ax, seen, pixel, title):
    """Draw the gradient on a logarithmic scale; hatch pixels before `pixel` that have no influence."""
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
    ax.spines[:].set(visible=True, color="0.8")  # the pixels after this one are white
    return image


def sight_of_new(network):
    """What a pixel sees in new networks."""
    total = np.zeros((SIDE, SIDE))
    for seed in range(1 if options.quick else 20):
        rng = np.random.default_rng(seed)
        noise = rng.standard_normal((4 if options.quick else 20, SIDE, SIDE, 1))
        params = network.init(rng, noise, outputs=8)
        params["head"][-1]["weight"][...] = rng.standard_normal(params["head"][-1]["weight"].shape)
        total = total + sight(network, params, noise, PIXEL)
    return total


networks = [MaskedConvNet(16, blocks, kernel, ()) for kernel, blocks in ((3, 0), (3, 3), (3, 10), (7, 3))]
figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained")
out_of_sight = {}
for ax, network in zip(axes, networks):
    seen = sight_of_new(network)
    title = f"{network.kernel} x {network.kernel} and {network.blocks} blocks"
    image = draw_sight(ax, seen, PIXEL, title)
    out_of_sight[title] = PIXEL[0] * SIDE + PIXEL[1] - int(np.count_nonzero(seen))
figure.colorbar(image, ax=axes, label="log10 of |gradient|, relative", shrink=0.85)
figure.savefig(options.out / "sight.png")

# %% [markdown]
# ## Digits, given the class
#
# scikit-learn's 1797 digits: 8 x 8 pixels with 17 levels, without noise. p(x) is a probability of integers,
# and `-log2 p(x)` is the length in bits of the image in the best code for p. The class is a context of ten
# numbers (one-hot), which adds a bias to the hidden layers. The trained pixel on the right looks up and to
# the left, mostly at its neighbours.

# %%
data = datasets.image_data("digits")
images = {"train": data.train, "validation": data.test[:180], "test": data.test[180:]}
labels = {"train": data.train_labels, "validation": data.test_labels[:180], "test": data.test_labels[180:]}
test, test_labels = images["test"], labels["test"]
ONE_HOT = np.eye(10, dtype=np.float32)  # the context of each class

network = MaskedConvNet(features=12 if options.quick else 48, blocks=5, kernel=3, head=(64,))
model = PixelCNN(shape=(8, 8, 1), levels=17, network=network, context_features=10)
STEPS = 12 if options.quick else 450
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
few = slice(20 if options.quick else None)
seen = sight(model.network, params, scaled[few], (5, 4), ONE_HOT[test_labels[few]])
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", width_ratios=(1.6, 1))
history.plot(axes[0])
axes[0].set_title("training")
image = draw_sight(axes[1], seen, (5, 4), "what a pixel of test digits looks at")
figure.colorbar(image, ax=axes[1], label="log10 of |gradient|, relative")
figure.savefig(options.out / "history.png")

# %% [markdown]
# ## How many bits?
#
# Bits per pixel. Without any model a level takes log2(17) = 4.09. A model of independent pixels knows how
# often each pixel has each level in digits of its class, and takes fewer. A pixel that sees those before it
# takes fewer still. There are few digits, so training overfits in the end, and `fit` returns the parameters
# that were best on the validation data.


# %%
def independent_bits(x, label):
    """Bits per pixel of independent pixels given the class, from the counts of their levels plus one."""
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
# Where in an image are the bits? Each pixel has its own `-log2 p(x_i | before)`. A pixel that is certainly
# white costs nothing. Surprises cost most, such as the beginning of a stroke.


# %%
def bits_of_pixels(x, label):
    """-log2 of the probability of each pixel given those before it, shape (n, 8, 8)."""
    logits = model.logits(params, x, ONE_HOT[label]).astype(float)
    nats = np.log(np.sum(np.exp(logits), axis=-1)) - np.take_along_axis(logits, x[..., None], axis=-1)[..., 0]
    return nats[..., 0] / np.log(2)


shown = [int(np.flatnonzero(test_labels == digit)[0]) for digit in (0, 2, 3, 7)]
each = bits_of_pixels(test, test_labels)
figure, axes = plt.subplots(2, 5, figsize=(10, 4.4), layout="constrained")
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
    ax.spines[:].set_visible(False)
figure.colorbar(image, ax=axes[1], label="-log2 p(pixel | before) [bits]")
figure.savefig(options.out / "bits.png")

# %% [markdown]
# ## Samples
#
# A pixel can be drawn after all pixels before it: 64 times a distribution, a draw, and on to the next. Done
# naively, each takes a pass over the whole image. `sample` stores what each layer has computed, and computes
# only the new pixel. Each row is a class. On the right the logits were divided by a temperature of 0.7, which
# makes likely levels likelier: clearer digits, less variety. Do the samples show the requested class? Five
# nearest neighbours decide.

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
figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained", gridspec_kw={"wspace": 0.05})
ink = {"levels": 17}
plots.images(real, axes[0], title="test digits", **ink)
for ax, (temperature, x) in zip(axes[1:], samples.items()):
    plots.images(x.reshape(10, -1, 8, 8, 1)[:, :10], ax, title=f"samples, temperature {temperature}", **ink)
figure.savefig(options.out / "samples.png")

# %% [markdown]
# ## The other half
#
# The pixels below are drawn given those above. So an image can be completed from its upper half, in many
# ways: `complete(params, rng, x, rows=4, context)`. On the left the model gets the right class, on the right
# it gets the class eight for all.

# %%
digits = np.array([0, 2, 3, 4, 5, 6, 8, 9])
whole = np.stack([test[test_labels == digit][0] for digit in digits])
upper = np.concatenate([whole[:, :4], np.zeros_like(whole[:, 4:])], axis=1)
COLUMNS = 6


def completions(label):
    """Each test digit, its given part, and completions of it as a digit of a class."""
    context = ONE_HOT[np.repeat(label, COLUMNS)]
    x = np.repeat(upper, COLUMNS, axis=0)
    drawn = model.complete(params, np.random.default_rng(4), x, 4, context, temperature=0.7)
    return np.concatenate([whole[:, None], upper[:, None], drawn.reshape(-1, COLUMNS, 8, 8, 1)], axis=1)


figure, axes = plt.subplots(1, 2, figsize=(10, 5.4), layout="constrained")
plots.images(completions(digits), axes[0], title="completed with their own class", **ink)
plots.images(completions(np.full_like(digits, 8)), axes[1], title="completed as eights", **ink)
for ax in axes:
    ax.axvline(17, color=BLUE, linewidth=1)
    ax.set_xticks([3.5, 12.5, 44], labels=["test", "given", "completed"])
    ax.tick_params(length=0)
figure.savefig(options.out / "completions.png")

# %% [markdown]
# ## A likelihood is a classifier
#
# By Bayes' rule, p(x | class) for each of the ten classes gives the probability of each class for an image.
# The model was not trained to classify, but the class with the highest likelihood is nearly always the right
# one.

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
print("samples of the requested class: " + ", ".join(f"{name} {share:.1%}" for name, share in called.items()))
print(f"accuracy of the likeliest class on test digits: {accuracy:.1%}")
print(f"{seconds:.1f} s of training, {summary['milliseconds_a_sample']:.2f} ms per sample")
print(f"figures and summary.json in {options.out}")
