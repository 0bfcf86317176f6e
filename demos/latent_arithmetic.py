# %% [markdown]
# # Arithmetic on z
#
# A flow gives every x a z and every z an x, without loss. All z together form one round cloud. So we can
# calculate with them, and look at the results:
#
# - **add**: the vector from the mean z of the threes to the mean z of the eights turns other threes into
#   eights;
# - **mix**: halfway between two digits in z lies one digit, halfway between their pixels lie two;
# - **carry over**: a z of one data set, decoded by the flow of another, is a sample of the other.
#
# All this is in `npflow.latent`, three lines each: encode, calculate, decode.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier

from npflow import datasets, fit, latent, plots
from npflow.cli.demo import demo_options
from npflow.models import glow, nice, real_nvp
from npflow.networks import MLP
from npflow.plots.style import BLACK, BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options("latent_arithmetic", "Attributes, interpolation and translation in the latent space.")
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# scikit-learn's 1797 digits, 8 x 8 pixels with 17 levels. Each pixel gets uniform noise of the width of one
# level, so that a density exists. Training uses twenty noisy copies of each image. A fifth is held out for
# all that follows: no flow was trained on the digits in the pictures below, but half of them chose the step
# at which training stopped.

# %%
rng = np.random.default_rng(0)
order = rng.permutation(1797)
images, labels = load_digits().data[order], load_digits().target[order]


def dequantized(images):
    """Pixel levels from 0 to 16 as numbers between 0 and 1."""
    return ((images + rng.random(images.shape)) / 17).astype(np.float32)


ONE_HOT = np.eye(10, dtype=np.float32)  # the context of each class
x, y = dequantized(np.repeat(images[:1437], 20, axis=0)), np.repeat(labels[:1437], 20)
test, test_y = dequantized(images[1437:]), labels[1437:]
validation, validation_y = test[:180], test_y[:180]
judge = KNeighborsClassifier(5).fit(images[:1437] / 17, labels[:1437])  # classifies a digit, without a flow
accuracy = float(judge.score(test, test_y))
print(f"five nearest neighbours classify {accuracy:.1%} of the test digits correctly")

# %% [markdown]
# ## Three flows
#
# A RealNVP of all digits; another RealNVP that takes the class as a context of ten numbers; and a NICE, whose
# scaling layer is used at the end.


# %%
def train(flow, steps, rate, conditional=False):
    """Train a flow; return the parameters that were best on the validation data, and a row of results."""
    clock = time.perf_counter()
    contexts = [ONE_HOT[y], ONE_HOT[validation_y]] if conditional else [None, None]
    first = [x[:1000]] if not conditional else [x[:1000], contexts[0][:1000]]
    params, history = fit(
        flow,
        flow.init(np.random.default_rng(1), *first),
        x,
        contexts[0],
        rng=np.random.default_rng(2),
        steps=10 if options.quick else steps,
        batch_size=256,
        optimizer=Adam(WarmupCosine(rate, steps=steps, warmup=steps // 20)),
        clip_norm=100.0,
        average=0.99,
        validation=validation,
        validation_context=contexts[1],
        record=not options.quick,  # a recording takes as long as several steps
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    return params, {"validation_nll": min(history.validation_loss), "seconds": time.perf_counter() - clock}


small = MLP((128,), "tanh")
flow = real_nvp(features=64, couplings=8, network=small)
by_class = real_nvp(features=64, couplings=8, network=small, context_features=10)
additive = nice(features=64, couplings=4, network=MLP((128, 128), "tanh"))
params, flow_row = train(flow, 600, 1e-3)
class_params, class_row = train(by_class, 600, 1e-3, conditional=True)
nice_params, nice_row = train(additive, 600, 3e-3)

# %% [markdown]
# ## Add: from a three to an eight
#
# `attribute_vector(a, b) = mean(z of a) - mean(z of b)`, for example of the training eights and threes. Added
# to the z of a three from the test data, a little of it changes almost nothing, all of it makes an eight, and
# more makes an exaggerated eight. Is it really an eight? Five nearest neighbours among the training images
# decide.

# %%
PAIRS = ((3, 8), (1, 7), (4, 9))
STRENGTHS = np.arange(0, 2.01, 0.25)
attributes, shares = {}, {}
for source, target in PAIRS:
    vector = latent.attribute_vector(flow, params, x[y == target], x[y == source])
    start = test[test_y == source]
    moved = [latent.add_attribute(flow, params, start, vector, strength) for strength in STRENGTHS]
    attributes[source, target] = moved
    shares[source, target] = [float(np.mean(judge.predict(images) == target)) for images in moved]


def mosaic(x, ax, title):
    """Draw digits of shape (rows, columns, 64) as a grid, dark on white, with a tick for each column."""
    plots.images(x.reshape(*x.shape[:2], 8, 8, 1), ax, levels=2, title=title)
    ax.set_xticks(9 * np.arange(x.shape[1]) + 3.5)


figure, axes = plt.subplots(1, 4, figsize=(10, 2.9), layout="constrained", width_ratios=(1, 1, 1, 1.15))
for ax, (source, target) in zip(axes, PAIRS):
    shown = np.stack(attributes[source, target][::2], axis=1)[:6]
    mosaic(shown, ax, f"{source} + strength * ({target} - {source})")
    ax.set_xticklabels([f"{strength:g}" for strength in STRENGTHS[::2]])
    ax.set_xlabel("strength")
STYLES = ((BLUE, "o"), (VERMILLION, "s"), (BLACK, "^"))
for (color, mark), (source, target) in zip(STYLES, PAIRS):
    label = f"from {source} to {target}"
    axes[3].plot(STRENGTHS, shares[source, target], color=color, marker=mark, label=label, markersize=4)
axes[3].set(xlabel="strength", ylabel="share", ylim=(-0.05, 1.05), title="called the target")
axes[3].legend(loc="lower right")
figure.savefig(options.out / "attributes.png")

# %% [markdown]
# Five nearest neighbours are not strict: they also classify a three as an eight after the difference of the
# mean *images* was added to its pixels, although some strokes are blacker than black and others whiter than
# white. How likely is each of the two as an eight? The flow that takes the class answers this; it was not
# used to make them. Medians, in nats:

# %%
likelihoods = {}
for source, target in PAIRS:
    start = test[test_y == source]
    in_pixels = start + np.mean(x[y == target], axis=0) - np.mean(x[y == source], axis=0)
    made = {
        "test digits": test[test_y == target],
        "moved in z": attributes[source, target][list(STRENGTHS).index(1)],
        "moved in pixels": in_pixels,
    }
    likelihoods[f"{source} to {target}"] = {
        name: float(np.median(by_class.log_prob(class_params, images, ONE_HOT[np.full(len(images), target)])))
        for name, images in made.items()
    } | {"classified as target, moved in pixels": float(np.mean(judge.predict(in_pixels) == target))}
for name, row in likelihoods.items():
    print(f"{name}: " + ", ".join(f"{what} {value:.2f}" for what, value in row.items()))

# %% [markdown]
# ## Mix: between two digits
#
# Along the straight line from one z to another, and for comparison from pixel to pixel. Halfway between the
# pixels both digits are visible, pale. Halfway between the z there is one digit, fully black, though not
# always a clear one.

# %%
ENDS = ((0, 6), (1, 4), (7, 9), (3, 5), (2, 8), (6, 8))
SHARES = np.linspace(0, 1, 7)
a, b = (np.stack([test[test_y == pair[side]][side] for pair in ENDS]) for side in (0, 1))
between = latent.interpolate(flow, params, a, b, SHARES)
pixels = np.stack([(1 - share) * a + share * b for share in SHARES])
figure, axes = plt.subplots(1, 2, figsize=(10, 4.7), layout="constrained")
for ax, mixed, title in zip(axes, (between, pixels), ("mixed in z", "mixed pixel by pixel")):
    mosaic(mixed.swapaxes(0, 1), ax, title)
    ax.set_xticklabels([f"{share:.2f}" for share in SHARES])
    ax.set_xlabel("share of the digit on the right")
figure.savefig(options.out / "interpolation.png")


# %% [markdown]
# How black are they? The darkest tenth of the pixels, of the data, of the images halfway in z, and halfway in
# pixels:


# %%
def ink(x):
    """The mean of the darkest tenth of each image's pixels, between 0 and 1."""
    return float(np.mean(np.sort(x, axis=-1)[..., -6:]))


blackness = {"data": ink(np.stack([a, b])), "in_z": ink(between[3]), "in_pixels": ink(pixels[3])}
print({name: round(value, 3) for name, value in blackness.items()})

# %% [markdown]
# ## Carry over: from one class to another, by one conditional flow
#
# A flow that takes the class keeps in z what the class does not say: slant, weight, width. Encoded as a three
# and decoded as any other digit, it has the same handwriting. Each row is a test digit, and the result of
# decoding it as each of the ten.

# %%
SOURCES = 2 if options.quick else 10
accepted = np.zeros((SOURCES, 10))
written = np.zeros((SOURCES, 12, 64), np.float32)  # a test digit, a gap, and the digit as each of the ten
for source in range(SOURCES):
    start = test[test_y == source]
    written[source, 0] = start[0]
    for target in range(10):
        there = latent.translate(
            start, (by_class, class_params, ONE_HOT[source]), (by_class, class_params, ONE_HOT[target])
        )
        written[source, 2 + target] = there[0]
        accepted[source, target] = np.mean(judge.predict(there) == target)
figure, axes = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained", width_ratios=(1.15, 1))
mosaic(written, axes[0], "one handwriting, ten digits")
axes[0].set_xticks(9 * np.array([0, *range(2, 12)]) + 3.5, labels=["test", *range(10)])
axes[0].set_xlabel("decoded as")
axes[1].imshow(accepted, cmap="cividis", vmin=0, vmax=1)
for (i, j), share in np.ndenumerate(accepted):
    color = "black" if share > 0.5 else "white"
    axes[1].text(j, i, f"{share:.2f}".lstrip("0"), ha="center", va="center", fontsize=7, color=color)
axes[1].set(xticks=range(10), yticks=range(SOURCES), xlabel="decoded as", ylabel="encoded as")
axes[1].set_title("share classified as the decoded class")
figure.savefig(options.out / "translation.png")

# %% [markdown]
# ## Carry over: from one data set to another, by two flows
#
# Two flows, trained separately, one on moons and one on circles. They never saw a pair of points, but one can
# decode what the other encodes, because both have the same prior. Each point keeps its colour, its place
# along the moons. Neighbours stay neighbours, since both maps are continuous. Which arc goes where was not
# prescribed.

# %%
plane = glow(features=2, steps=8, network=MLP((64, 64), "tanh"))
sides = {}
for name in ("moons", "circles"):
    points = getattr(datasets, name)(20_000, rng=rng).astype(np.float32)
    start = plane.init(np.random.default_rng(1), points[:1000])
    STEPS = 5 if options.quick else 2000
    learned, history = fit(
        plane,
        start,
        points,
        rng=np.random.default_rng(2),
        steps=STEPS,
        batch_size=512,
        optimizer=Adam(WarmupCosine(5e-3, steps=STEPS, warmup=STEPS // 20)),
        clip_norm=30.0,
        average=0.99,
        record=not options.quick,  # a recording takes as long as several steps
    )
    sides[name] = (plane, learned)
moons = datasets.moons(3000, rng=rng).astype(np.float32)
codes = plane.encode(sides["moons"][1], moons)
circles = latent.translate(moons, source=sides["moons"], target=sides["circles"])
back = latent.translate(circles, source=sides["circles"], target=sides["moons"])
radius = np.hypot(*circles.T)
plane_row = {
    "on_a_circle": float(np.mean(np.minimum(np.abs(radius - 1), np.abs(radius - 0.5)) < 0.15)),
    "there_and_back": float(np.max(np.abs(back - moons))),
}

place = moons[:, 0] - 1.2 * moons[:, 1]
hue = {"c": place, "cmap": "cividis", "alpha": 0.9}
figure, axes = plt.subplots(1, 3, figsize=(10, 3.9), layout="constrained")
plots.samples(moons, axes[0], title="moons", **hue)
plots.samples(codes, axes[1], title="z", limits=((-4, 4), (-4, 4)), **hue)
plots.samples(circles, axes[2], title="the same points as circles", limits=((-1.6, 1.6), (-1.6, 1.6)), **hue)
figure.savefig(options.out / "moons_to_circles.png")

# %% [markdown]
# ## How much volume do digits take?
#
# All layers of a NICE preserve volume, except three: `Units` and `ActNorm` at the start and `Scaling` at the
# end. Their product gives the spread of the data along each of the 64 dimensions, in the units of the pixels. Shifts do
# not mix dimensions: each stays a pixel, minus what the network predicts of it from other pixels. So compared
# with the spread of the pixels, the figure shows what the network has learned about them. Principal
# components do mix dimensions; compared with these, the sum of the logarithms, the log volume, is smaller for
# the curved dimensions of the flow than for the best straight ones.
#
# (z is logistic, with standard deviation pi / sqrt(3). The floor on the right is the noise that was added.)

# %%
units, norm, *_, scaling = nice_params["layer"]
log_scale = norm["log_scale"] + scaling["log_scale"] - units["exponent"] * np.log(2)
log_scales = {
    "pixels": -np.log(np.std(x, axis=0)),
    "principal components": -0.5 * np.log(np.linalg.eigvalsh(np.cov(x.T.astype(float)))),
    "NICE": log_scale - np.log(np.pi / np.sqrt(3)),
}
log_volumes = {name: float(-np.sum(values)) for name, values in log_scales.items()}
figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
for (name, values), (color, mark) in zip(log_scales.items(), (STYLES[2], STYLES[1], STYLES[0])):
    label = f"{name}, log volume {log_volumes[name]:.0f}"
    plots.spectrum(values, ax, color=color, marker=mark, markersize=3.5, label=label)
ax.set(ylabel="standard deviation", title="the spread of digits along 64 dimensions")
ax.legend(loc="lower left")
figure.savefig(options.out / "spectrum.png")

# %%
off_diagonal = accepted[~np.eye(SOURCES, 10, dtype=bool)]
summary = {
    "judge_accuracy": accuracy,
    "flows": {"digits": flow_row, "digits, given the class": class_row, "nice": nice_row},
    "attributes": {
        f"{source} to {target}": dict(zip(map(str, STRENGTHS), values))
        for (source, target), values in shares.items()
    },
    "log_likelihoods_as_target": likelihoods,
    "blackness": blackness,
    "translated_digits_accepted": float(off_diagonal.mean()),
    "moons_to_circles": plane_row,
    "log_volumes": log_volumes,
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'strength':>22}" + "".join(f"{strength:8.2f}" for strength in STRENGTHS[::2]))
for (source, target), values in shares.items():
    print(f"{f'{source}s classified {target}':>22}" + "".join(f"{value:8.2f}" for value in values[::2]))
print(f"digits carried over to another class and classified so: {off_diagonal.mean():.2f}")
print(f"moons carried over to within 0.15 of a circle:       {plane_row['on_a_circle']:.2f}")
print(f"figures and summary.json in {options.out}")
