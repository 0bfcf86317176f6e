# %% [markdown]
# # Flow, VAE, autoregressive model, GAN, diffusion
#
# All five turn noise into data. They differ in what they know about the density that they have learned, and in what a
# sample costs:
#
# |  | log p(x) | an encoder | a sample takes | what it gives up |
# | --- | --- | --- | --- | --- |
# | **flow** | exact | yes, exact | one pass | free choice of layers: each needs an inverse and a cheap determinant |
# | **VAE** | a bound | yes, with noise | one pass | the exact number; x is noise around a mean |
# | **autoregressive** | exact | where the conditionals are layers | a pass for each component | fast samples |
# | **GAN** | none | no | one pass | the density, and any sign of what is left out |
# | **diffusion** | by an integral | yes, by the same integral | tens of passes | fast samples, and a fast likelihood |
#
# Here all five learn the same data: two moons, eight Gaussians on a circle, and scikit-learn's digits. Four of them are
# trained by the same `fit`. The GAN is a game between two networks, without a loss to minimize, so its loop is written
# out.

# %%
import itertools
import json
import math
import time
from dataclasses import dataclass

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors
from sklearn.svm import SVC

from npflow import Flow, fit, plots
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.primitives import concatenate_last, softplus, sum_event
from npflow.cli.demo import demo_options
from npflow.datasets import EightGaussians, Moons
from npflow.layers import Chain, MaskedAutoregressive, Spline, Units
from npflow.model import Model
from npflow.models import VAE, glow, real_nvp
from npflow.networks import MADE, MLP
from npflow.plots.style import BLUE
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine

options = demo_options(
    "vae_or_flow", "Flow, VAE, autoregressive model, GAN and diffusion learn the same data."
)
plt.style.use(plots.STYLE)
KINDS = ("flow", "VAE", "autoregressive", "GAN", "diffusion")

# %% [markdown]
# ## Data
#
# The digits have 8 x 8 pixels with 17 levels. Integer levels have no density, so each pixel gets uniform noise of the
# width of one level, `(x + u) / 17`. Training uses twenty noisy copies of each of 1200 images, so that it cannot learn
# the noise by heart. 180 images choose the best parameters of a run, and 417 test.

# %%
rng = np.random.default_rng(0)
PLANES = {"moons": Moons(), "eight Gaussians": EightGaussians()}
digits, order = load_digits(), rng.permutation(1797)
images, answers = digits.data[order], digits.target[order]


def dequantized(images, draws=1):
    """Pixel levels from 0 to 16 as numbers between 0 and 1, under some draws of the noise."""
    images = np.repeat(images, draws, axis=0)
    return ((images + rng.random(images.shape)) / 17).astype(np.float32)


data = {
    name: [density.sample(n, rng=rng).astype(np.float32) for n in (20_000, 2000, 5000)]
    for name, density in PLANES.items()
}
data["digits"] = [dequantized(images[:1200], 20), dequantized(images[1200:1380]), dequantized(images[1380:])]

# %% [markdown]
# ## A flow, a VAE, an autoregressive model
#
# The **flow** maps x to z one to one: `log p(x) = log prior(z) + log|det J|`.
#
# The **VAE** draws x around the output of a network of z, so p(x) is an integral over all z. Training raises a lower
# bound of its logarithm, the ELBO. A better bound averages over many z from the encoder,
# `log(1/K sum_k p(x | z_k) p(z_k) / q(z_k | x))`. It rises with K, fast at first. To compare the ELBO with the exact
# number of a flow would count the gap against the VAE, so here the VAE is scored with K = 1000. Its z of a digit has
# sixteen components; the flow's must have 64, one for each pixel, even for pixels that are always white.
# `demos/vae_flows.py` puts flows inside a VAE.
#
# The **autoregressive model** is a product of one-dimensional densities, `log p(x) = sum_i log p(x_i | x_1 ...
# x_{i-1})`. A single masked network has the parameters of all of them as its outputs, here those of monotone splines
# that make each `x_i` normal. This is one layer, a flow with a slow inverse. (A PixelCNN has probabilities of levels in
# place of densities; `demos/pixelcnn.py`.)


# %%
def train(model, x, validation, steps, rate):
    """Train a model by `fit`; return its parameters."""
    params, history = fit(
        model,
        model.init(np.random.default_rng(1), x[:1000]),
        x,
        rng=np.random.default_rng(2),
        steps=10 if options.quick else steps,
        batch_size=256,
        optimizer=Adam(WarmupCosine(rate, steps=steps, warmup=steps // 20)),
        clip_norm=100.0,
        average=0.99,
        validation=validation,
        record=not options.quick,  # a recording takes as long as several steps
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps}: nothing was written")
    return params


def autoregressive(features, network):
    """The product of densities in one dimension, each of them of a variable that a monotone spline makes normal."""
    return Flow(Chain([Units(), MaskedAutoregressive(network, Spline(bins=16, bound=4.0))]), Normal(features))


# %% [markdown]
# ## A GAN
#
# A generator G makes x from z, and a discriminator d tells its samples from data. d minimizes
# `-log d(x) - log(1 - d(G(z)))`, the generator `-log d(G(z))`, and they take turns (Goodfellow et al. 2014). `record`
# makes a program of each loss and its gradient, and `Adam` works on their flat vectors. No number tells how far
# training has come: each loss is relative to the other network. The generator that is kept is an average over the last
# steps.


# %%
class GAN:
    """A generator and a discriminator."""

    def __init__(self, features, latent, hidden):
        self.features, self.latent, self.network = features, latent, MLP(hidden)

    def start(self, rng, inputs, outputs):
        """Parameters whose outputs are not all zero, as a vector and as a tree of views of it."""
        params = self.network.init(rng, np.zeros((1, inputs), np.float32), outputs)
        last = params[-1]["weight"]
        last[...] = rng.standard_normal(last.shape) / math.sqrt(len(last))
        vector = Layout(params).pack(params)
        return vector, Layout(params).unpack(vector, params)

    def discriminator_loss(self, d, x, fake):
        """-log d(x) - log(1 - d(G(z))), the mean over a batch, for d = 1 / (1 + exp(-output))."""
        return anp.sum(softplus(-self.network.apply(d, x)) + softplus(self.network.apply(d, fake))) / len(x)

    def generator_loss(self, g, d, z):
        """-log d(G(z)), the mean over a batch."""
        return anp.sum(softplus(-self.network.apply(d, self.network.apply(g, z)))) / len(z)

    def train(self, x, steps, rate, batch=256):
        """Take turns; return the generator's parameters, averaged over steps."""
        rng, steps = np.random.default_rng(2), 10 if options.quick else steps
        noise = lambda: rng.standard_normal((batch, self.latent), np.float32)
        g_vector, g = self.start(rng, self.latent, self.features)
        d_vector, d = self.start(rng, self.features, 1)
        adam = Adam(WarmupCosine(rate, steps=steps, warmup=steps // 20), beta1=0.5)
        g_state, d_state, average = adam.init(g_vector), adam.init(d_vector), g_vector.copy()
        of_d = record(self.discriminator_loss, d, x[:batch], x[:batch])
        of_g = record(self.generator_loss, g, d, noise())
        for step in range(1, steps + 1):
            _, gradient = of_d(d, x[rng.integers(len(x), size=batch)], self.network.apply(g, noise()))
            adam.update(d_state, d_vector, gradient.copy(), step)
            _, gradient = of_g(g, d, noise())
            adam.update(g_state, g_vector, gradient.copy(), step)
            average += (g_vector - average) * max(0.005, 1 / step)
        return Layout(g).unpack(average, g)

    def sample(self, params, rng, n):
        return self.network.apply(params, rng.standard_normal((n, self.latent), np.float32))


# %% [markdown]
# ## A diffusion, by matching
#
# Each row is mixed with noise, `x_t = cos(pi t / 2) x + sin(pi t / 2) e`: data at t = 0, noise at t = 1. Along this path
# it moves with the velocity `dx_t/dt`, and a network of `x_t` and t learns this velocity by least squares. It does not
# see x and e, so it learns the mean of the velocity over all pairs whose path passes this point. That is all that is
# needed: points that move with this mean have the density of `x_t` at each t (Song et al. 2021; Lipman et al. 2023). So
# a sample is noise that moves from t = 1 to t = 0. The motion is invertible, so it is a flow: its log-determinant is the
# integral of the trace of the velocity's Jacobian J. The trace is the sum of `v^T J v` over the unit vectors v, or its
# mean over random signs v (Hutchinson). In general v are any probes for which the sum of `v v^T` has the identity as
# its mean.
#
# Training needs no samples and no solution of the differential equation: one pass of the network for each row.
# `npflow.models.FlowMatching(flow, path="diffusion")` is the library's own; here all of it is on one page.


# %%
@dataclass(frozen=True)
class Diffusion(Model):
    """A field that moves noise to data; `centre` and `size` are roughly the mean and the spread of the data."""

    features: int
    network: MLP
    centre: float = 0.0
    size: float = 1.0

    noisy = True

    def init(self, rng, x):
        return self.network.init(rng, np.zeros((1, self.features + 8), x.dtype), self.features)

    def check(self, params):
        return Layout(params)

    def check_batch(self, x, context=None, dtype=None, name="x"):
        return np.asarray(x, dtype), None

    def noise(self, rng, rows, dtype):
        return rng.standard_normal((rows, self.features), dtype), rng.random((rows, 1), dtype)

    def velocity(self, params, x, t):
        """dx/dt of each row, for t of shape (n, 1)."""
        waves = anp.pi * t * np.arange(1, 5, dtype=x.dtype)
        return self.network.apply(
            params, concatenate_last(x, concatenate_last(anp.cos(waves), anp.sin(waves)))
        )

    def losses(self, params, x, e, t):
        x, angle = (x - self.centre) / self.size, 0.5 * anp.pi * t
        x_t = anp.cos(angle) * x + anp.sin(angle) * e
        moving = 0.5 * anp.pi * (anp.cos(angle) * e - anp.sin(angle) * x)
        return sum_event((self.velocity(params, x_t, t) - moving) ** 2)

    def follow(self, params, x, times, probes=()):
        """Move x along the times by steps of Runge and Kutta (RK4); return it with the integral of the trace.

        The trace is the sum of v^T J v over the probes v, each of the shape of x.
        """
        along = lambda x, t, v: np.sum(v * self.velocity(params, x, t))
        slope = value_and_grad(along)
        total = np.zeros(len(x), x.dtype)

        def rate(x, t):
            t = np.full((len(x), 1), t, x.dtype)
            traces = [np.sum(v * slope(x, t, v)[1], axis=1) for v in probes]
            return self.velocity(params, x, t), sum(traces)

        for start, end in itertools.pairwise(times):
            h = end - start
            k1, trace1 = rate(x, start)
            k2, trace2 = rate(x + h / 2 * k1, start + h / 2)
            k3, trace3 = rate(x + h / 2 * k2, start + h / 2)
            k4, trace4 = rate(x + h * k3, end)
            x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
            total = total + h / 6 * (trace1 + 2 * trace2 + 2 * trace3 + trace4)
        return x, total

    def sample(self, params, rng, n, steps=20):
        z = rng.standard_normal((n, self.features), np.float32)
        return self.follow(params, z, times(steps)[::-1])[0] * self.size + self.centre

    def log_prob(self, params, x, probes, steps):
        z, log_det = self.follow(params, (x - self.centre) / self.size, times(steps), probes)
        return Normal(self.features).log_prob({}, z) + log_det - self.features * math.log(self.size)


def times(steps):
    """From 0 to 1, with short steps near the data, where the velocity changes fast."""
    return [float(t) for t in np.linspace(0, 1, steps + 1) ** 2]


# %% [markdown]
# ## How to compare them
#
# A density can be scored by the likelihood of test data. A GAN has none, so all five are also judged by their samples:
# a **classifier** is trained to tell samples from test data, and scored on further samples and data. If the two have the
# same distribution it is right half of the time, and the more they differ the more often (Lopez-Paz and Oquab 2017). No
# model was trained on the data that it is judged by, so copies of training rows are not rewarded.

# %%
COUNT, DRAWS, ODE_STEPS = (200, 20, 8) if options.quick else (5000, 1000, 40)


def error_of(share, n):
    """The standard error of a share of n cases."""
    return math.sqrt(share * (1 - share) / n)


def told_apart_in_the_plane(x, samples):
    """How often 30 nearest neighbours tell samples from data, and the standard error."""
    n = min(len(x), len(samples)) // 2
    labels = np.repeat([0, 1], n)
    classifier = KNeighborsClassifier(30).fit(np.concatenate([x[:n], samples[:n]]), labels)
    right = float(classifier.score(np.concatenate([x[n : 2 * n], samples[n : 2 * n]]), labels))
    return {"told_apart": right, "told_apart_error": error_of(right, 2 * n)}


def timed(job):
    """What a job returns, and the seconds of processor time that it took."""
    clock = time.process_time()
    result = job()
    return result, time.process_time() - clock


def learned(kind, model, data, steps, rate, probes):
    """Train a model; return it with its parameters and samples, and what is measured of it."""
    x, validation, test = data
    job = lambda: model.train(x, steps, rate) if kind == "GAN" else train(model, x, validation, steps, rate)
    params, seconds = timed(job)
    samples, of_samples = timed(lambda: model.sample(params, np.random.default_rng(5), COUNT))
    row = {"parameters": Layout(params).size, "seconds": seconds, "sampling_ms": 1e6 * of_samples / COUNT}
    if kind == "VAE":
        row["elbo"] = float(np.mean(model.elbo(params, test, rng=np.random.default_rng(3), draws=20)))
        log_prob = model.log_prob(params, test, rng=np.random.default_rng(3), draws=DRAWS)
    elif kind == "diffusion":
        test = test[: len(probes[0])]
        log_prob = model.log_prob(params, test, probes, ODE_STEPS)
    else:
        log_prob = None if kind == "GAN" else model.log_prob(params, test)
    if log_prob is not None:
        row["log_prob"] = float(np.mean(log_prob))
        row["standard_error"] = float(np.std(log_prob) / math.sqrt(len(log_prob)))
    return model, params, samples, row


# %% [markdown]
# ## In the plane
#
# The entropy of both densities is known. No model has a log-likelihood above minus the entropy on average, so the
# distance from it is what a model has not learned.

# %%
tanh = MLP((64, 64), "tanh")
models = {
    "flow": (glow(features=2, steps=8, network=tanh), 2000, 5e-3),
    "VAE": (VAE(features=2, latent=2, encoder=tanh, decoder=tanh), 3000, 5e-3),
    "autoregressive": (autoregressive(2, MADE((64, 64), "tanh")), 2000, 5e-3),
    "GAN": (GAN(2, 8, (128, 128)), 8000, 1e-3),
    "diffusion": (Diffusion(2, MLP((128, 128, 128))), 5000, 2e-3),
}
directions = [np.tile(e, (COUNT, 1)) for e in np.eye(2, dtype=np.float32)]
rows, trained, samples = {}, {}, {}
for name in PLANES:
    for kind, (model, steps, rate) in models.items():
        *trained[name, kind], x, row = learned(kind, model, data[name], steps, rate, directions)
        rows[name, kind], samples[name, kind] = row | told_apart_in_the_plane(data[name][2], x), x


# %%
def table(name, columns):
    """Print the rows of one data set: for each column its heading, the key of a figure, and its format."""
    print(f"\n{name:16}" + "".join(f"{heading:>{width}}" for heading, _, width, _ in columns))
    for kind in (kind for of_name, kind in rows if of_name == name):
        row = rows[name, kind]
        cells = (format(row[key], form) if key in row else "-" for _, key, _, form in columns)
        print(f"{kind:16}" + "".join(f"{cell:>{width}}" for cell, (_, _, width, _) in zip(cells, columns)))


COLUMNS = [
    ("nats", "log_prob", 9, ".3f"),
    ("std. error", "standard_error", 12, ".3f"),
    ("ELBO", "elbo", 9, ".3f"),
    ("told apart", "told_apart", 12, ".1%"),
    ("parameters", "parameters", 12, ","),
    ("training, CPU s", "seconds", 17, ".1f"),
    ("1000 samples, CPU ms", "sampling_ms", 22, ".1f"),
]
for name, density in PLANES.items():
    table(name, COLUMNS)
    print(f"minus the entropy {-density.entropy():.3f} nats; told apart at best 50 %")

# %% [markdown]
# On the moons the flow and the autoregressive model come closest to the entropy, on the eight Gaussians the
# autoregressive model and the diffusion. The flow is a continuous map of a density in one piece, so it leaves bridges
# where the data are in several. The VAE's samples spread into the space between the pieces: its q(z | x), all together,
# leave holes in the prior, and training never sees the decoder's output for a z in a hole. The GAN finds all pieces
# here, but not their density: they are too narrow, and there are bridges too. Neither of its two losses shows this.

# %%
figure, axes = plt.subplots(2, 6, figsize=(12, 4.3), layout="constrained")
for line, (name, density) in zip(axes, PLANES.items()):
    for ax, kind in zip(line, ("data", *KINDS)):
        x = data[name][2] if kind == "data" else samples[name, kind]
        color = "0.35" if kind == "data" else BLUE
        plots.samples(x[:2000], ax, limits=density.limits, color=color, title=kind)
figure.savefig(options.out / "planes.png")

# %% [markdown]
# ## Digits
#
# Samples are rounded to the 17 levels of a pixel, and a random forest tries to tell them from test images, by
# cross-validation. It finds a background that is one level off, which no eye would. So a second forest sees pixels
# rounded to five shades of grey.
#
# A model that copies a part of the data well may still leave out the rest. Three more numbers look for that:
#
# - **classes**: a classifier of digits says which digit each sample is. `exp(entropy)` of the shares is 10 if all
#   digits are equally frequent, and 5 if there are only five of them;
# - **coverage**: the share of test images with a sample near them, nearer than their fifth neighbour among the other
#   test images (Naeem et al. 2020), from as many samples as there are test images;
# - **nearest**: the median distance of a sample to the nearest training image. For test images it is 16.6; a model that
#   repeats what it was trained on would have much less.
#
# The row `training images` is what a model that draws from the data itself would get.

# %%
wide = MLP((128, 128))
models = {
    "flow": (real_nvp(features=64, couplings=8, network=MLP((128,), "tanh")), 1000, 1e-3),
    "VAE": (VAE(features=64, latent=16, encoder=wide, decoder=wide), 2500, 2e-3),
    "autoregressive": (autoregressive(64, MADE((256,), "tanh")), 600, 2e-3),
    "GAN": (GAN(64, 16, (256, 256)), 6000, 5e-4),
    "diffusion": (Diffusion(64, MLP((256, 256, 256)), centre=0.3, size=0.35), 8000, 1e-3),
}
PROBES = 1 if options.quick else 8
signs = rng.choice([-1, 1], (PROBES, len(data["digits"][2]), 64)).astype(np.float32) / math.sqrt(PROBES)
for kind, (model, steps, rate) in models.items():
    *trained["digits", kind], samples["digits", kind], rows["digits", kind] = learned(
        kind, model, data["digits"], steps, rate, signs
    )

# %%
test = images[1380:]
reader = SVC().fit(images[:1200], answers[:1200])
neighbours = NearestNeighbors(n_neighbors=6).fit(test)
radius = neighbours.kneighbors(test)[0][:, 5]  # the first neighbour is the image itself
training = NearestNeighbors().fit(images[:1200])


def judged(pictures):
    """What is measured of pictures of 17 levels."""
    few = pictures[: len(test)]
    shares = np.bincount(reader.predict(pictures), minlength=10) / len(pictures)
    near = NearestNeighbors(n_neighbors=1).fit(few).kneighbors(test)[0][:, 0]
    return {
        "told_apart": told_apart(test, few),
        "told_apart_by_shades": told_apart(np.round(test / 4), np.round(few / 4)),
        "told_apart_error": error_of(0.5, 2 * len(few)),
        "classes": float(np.exp(-np.sum(shares[shares > 0] * np.log(shares[shares > 0])))),
        "coverage": float(np.mean(near < radius)),
        "nearest": float(np.median(training.kneighbors(few, 1)[0])),
    }


def told_apart(x, samples):
    """How often a random forest tells samples from data."""
    both, labels = np.concatenate([x, samples]), np.repeat([0, 1], [len(x), len(samples)])
    forest = RandomForestClassifier(5 if options.quick else 200, random_state=0)
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    return float(np.mean(cross_val_predict(forest, both, labels, cv=folds) == labels))


def levels(x):
    """Numbers as the level of each pixel, from 0 to 16."""
    return np.clip(np.floor(17 * x), 0, 16)


for kind in KINDS:
    rows["digits", kind] |= judged(levels(samples["digits", kind]))
rows["digits", "training images"] = judged(images[:1200])
del rows["digits", "training images"]["nearest"]
table(
    "digits",
    [
        *COLUMNS[:4],
        ("by shades", "told_apart_by_shades", 11, ".1%"),
        ("classes", "classes", 9, ".2f"),
        ("coverage", "coverage", 10, ".1%"),
        ("nearest", "nearest", 9, ".1f"),
        *COLUMNS[4:],
    ],
)
print(f"the classifier of digits is right on {reader.score(test, answers[1380:]):.1%} of the test images")

# %% [markdown]
# Likelihood and samples disagree (Theis et al. 2016). The VAE has the highest likelihood of these images, even by a
# bound, and its samples are told apart most easily. With sixteen numbers for an image it has to find what digits have in
# common, and few images are enough for that. But a sample is a draw from p(x | z), with noise in each pixel, because
# that is what its likelihood measures. (Papers mostly show the mean of p(x | z) instead, which is smoother than the
# data.) The diffusion has the lowest likelihood and the best coverage. The samples of the autoregressive model are the
# hardest to tell apart, except for a few that went astray at an early pixel and never came back. They also cost it
# coverage.
#
# The GAN's samples look fine one by one. Only counting shows that some digits are more frequent than others. No model
# repeats its training images.

# %%
SHOWN = 25
figure, axes = plt.subplots(1, 7, figsize=(12, 2.1), layout="constrained")
vae, vae_params = trained["digits", "VAE"]
z = np.random.default_rng(6).standard_normal((SHOWN, vae.latent), np.float32)
pictures = {"test data": data["digits"][2]} | {kind: samples["digits", kind] for kind in KINDS}
pictures["means of the VAE"] = vae.decode(vae_params, z)[0]
for ax, (title, x) in zip(axes, pictures.items()):
    plots.images(np.clip(x[:SHOWN], 0, 1).reshape(-1, 8, 8, 1), ax, levels=2, title=title)
figure.savefig(options.out / "digits.png")

# %% [markdown]
# ## In one table
#
# The time is that of training on all three data sets, and of 1000 samples of digits, on one core.

# %%
PROPERTIES = {
    "flow": ("exact", "exact", "1"),
    "VAE": ("bound", "with noise", "1"),
    "autoregressive": ("exact", "exact", "D"),
    "GAN": ("none", "none", "1"),
    "diffusion": ("integral", "integral", "80"),
}
names = ("log p(x)", "encoder", "passes", "moons", "8 Gaussians", "digits", "told apart", "coverage")
print(f"\n{'':16}" + "".join(f"{name:>12}" for name in (*names, "training s", "sampling ms")))
for kind, properties in PROPERTIES.items():
    each = [rows[name, kind] for name in data]
    cells = [*properties, *(f"{row['log_prob']:.2f}" if "log_prob" in row else "-" for row in each)]
    cells += [f"{each[-1][key]:.0%}" for key in ("told_apart_by_shades", "coverage")]
    cells += [f"{sum(row['seconds'] for row in each):.0f}", f"{each[-1]['sampling_ms']:.0f}"]
    print(f"{kind:16}" + "".join(f"{cell:>12}" for cell in cells))

# %% [markdown]
# Which one to use?
#
# - For a density, or an encoder without noise: a **flow**.
# - For a short code of x: a **VAE**. Report a bound from many draws.
# - For the best density, if slow samples do not matter: an **autoregressive** model.
# - For samples alone, in one pass: a **GAN**. Check separately what it leaves out.
# - For good samples that may take tens of passes: a **diffusion**. It is trained by least squares, which is easier than a
#   game, and it is a flow if you can wait for its integral.

# %%
summary = {
    "draws": DRAWS,
    "entropies": {name: density.entropy() for name, density in PLANES.items()},
    "reader_accuracy": float(reader.score(test, answers[1380:])),
    "models": {f"{name} {kind}": row for (name, kind), row in rows.items()},
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"figures and summary.json in {options.out}")
