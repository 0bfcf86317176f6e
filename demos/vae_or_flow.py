# %% [markdown]
# # A variational autoencoder or a flow?
#
# Both map normal noise z to data x, and the same `fit` trains both. They differ in what they know of the
# density they learned:
#
# - a **flow** maps z to x one to one, so it simply computes `log p(x) = log prior(z) + log|det J|`;
# - a **VAE** adds noise: x is drawn around the output of a network of z, so p(x) is an integral over all z.
#   Training raises a lower bound of its logarithm, the ELBO. A better estimate averages over many z from the
#   encoder: `log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x)`. On average it is also below log p(x), but the gap
#   shrinks as K grows.
#
# So one table has three numbers: ELBO <= estimate from K draws <= log p(x). A comparison of a flow with a
# VAE's ELBO alone would count this gap against the VAE.

# %%
import json
import time

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from npflow import datasets, fit, plots
from npflow.autodiff import Layout
from npflow.cli.demo import demo_options
from npflow.models import VAE, glow, real_nvp
from npflow.networks import MLP
from npflow.plots.style import BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options("vae_or_flow", "A VAE and a flow learn the same data by the same fit.")
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# Two moons, and scikit-learn's 1797 digits, 8 x 8 pixels with 17 levels. Integer levels have no density, so
# each pixel gets uniform noise of the width of one level, `(x + u) / 17`. The noise is not a part of the
# digit. Training uses twenty noisy copies of each image, so that it cannot learn the noise by heart. A fifth
# of the digits is held out, one half for validation and one for the test.

# %%
rng = np.random.default_rng(0)
moons = [datasets.moons(n, rng=rng).astype(np.float32) for n in (20_000, 2000, 2000)]

images = load_digits().data[rng.permutation(1797)]


def dequantized(images, draws=1):
    """Pixel levels from 0 to 16 as numbers between 0 and 1, under some draws of the noise."""
    images = np.repeat(images, draws, axis=0)
    return ((images + rng.random(images.shape)) / 17).astype(np.float32)


digits = [dequantized(images[:1437], draws=20), dequantized(images[1437:1617]), dequantized(images[1617:])]

# %% [markdown]
# ## Four models, one `fit`
#
# A VAE has a loss for each row, like a flow. Its loss also takes noise, and the model draws this itself. So
# everything in `fit` works as it does for flows: recorded programs, the moving average, validation, and
# checkpoints that resume bit for bit.
#
# The VAE of the moons has two components of z, like its flow. The VAE of the digits has sixteen. Its flow
# must have 64, one for each pixel, even for pixels that are always white.


# %%
def train(model, data, steps, rate):
    """Train a model; return it with its parameters, its history, and the beginning of a row for the table."""
    x, validation, _ = data
    clock = time.perf_counter()
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
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps} of {steps}: nothing was written")
    row = {"parameters": Layout(params).size, "seconds": time.perf_counter() - clock}
    return model, params, history, row


tanh = MLP((64, 64), "tanh")
wide = MLP((128, 128))
trained = {
    ("moons", "VAE"): train(VAE(features=2, latent=2, encoder=tanh, decoder=tanh), moons, 3000, 5e-3),
    ("moons", "flow"): train(glow(features=2, steps=8, network=tanh), moons, 2000, 5e-3),
    ("digits", "VAE"): train(VAE(features=64, latent=16, encoder=wide, decoder=wide), digits, 2500, 2e-3),
    ("digits", "flow"): train(
        real_nvp(features=64, couplings=8, network=MLP((128,), "tanh")), digits, 1000, 1e-3
    ),
}

# %% [markdown]
# ## The likelihood of test data
#
# Means over the test rows, in nats, and their standard errors.

# %%
DRAWS = 20 if options.quick else 2000


def measure(name, model, params, x):
    """Mean log p(x): a bound and an estimate for a VAE, the exact value for a flow."""
    if name == "VAE":
        rng = np.random.default_rng(3)
        best = model.log_prob(params, x, rng=rng, draws=DRAWS)
        row = {
            "elbo": float(np.mean(model.elbo(params, x, rng=rng, draws=20))),
            "estimate": float(np.mean(best)),
        }
    else:
        best = model.log_prob(params, x)
        row = {"exact": float(np.mean(best))}
    return row | {"standard_error": float(np.std(best) / np.sqrt(len(best)))}


tests = {"moons": moons[2], "digits": digits[2]}
rows = {
    key: row | measure(key[1], model, params, tests[key[0]])
    for key, (model, params, _, row) in trained.items()
}

# %% [markdown]
# How many draws does the estimate need? It rises with every draw, fast at first. Where it has levelled off,
# it can be compared, but it never shows how large the remaining gap is.

# %%
counts = [1, 2, 5, 10, 20] if options.quick else [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000]
estimates = {}
for name in tests:
    vae, params, _, _ = trained[name, "VAE"]
    rng = np.random.default_rng(4)
    estimates[name] = [
        float(np.mean(vae.log_prob(params, tests[name], rng=rng, draws=count))) for count in counts
    ]

# %% [markdown]
# ## Two moons
#
# The entropy of this data is 0.289 nats (`demos/moons.py` computes it). On average no model has a mean
# log-likelihood above -0.289. The flow comes close. The VAE's samples spread into the space between the
# moons: its q(z | x), all together, leave holes in the prior, and training never sees the decoder's output
# for a z in a hole.

# %%
LIMITS = ((-1.6, 2.6), (-1.1, 1.6))
ENTROPY = 0.2892


def draw_estimates(ax, name):
    """Draw the estimate by the number of draws, with the ELBO and the flow's exact value."""
    ax.plot(counts, estimates[name], "o-", color=VERMILLION, markersize=4, label="VAE, estimate from K draws")
    ax.axhline(rows[name, "VAE"]["elbo"], color=VERMILLION, linestyle=":", label="VAE, ELBO")
    ax.axhline(rows[name, "flow"]["exact"], color=BLUE, label="flow, exact")
    ax.set(xscale="log", xlabel="draws K", ylabel="nats", title="log p(x) of test data")
    ax.legend(loc="upper left", bbox_to_anchor=(1, 1))


figure, axes = plt.subplots(1, 4, figsize=(10, 2.1), layout="constrained", width_ratios=(1, 1, 1, 1.1))
plots.samples(moons[2], axes[0], limits=LIMITS, color="0.35", title="data")
for ax, (name, color) in zip(axes[1:], (("VAE", VERMILLION), ("flow", BLUE))):
    model, params, _, _ = trained["moons", name]
    x = model.sample(params, np.random.default_rng(5), 2000)
    plots.samples(x, ax, limits=LIMITS, color=color, title=f"samples of the {name}")
axes[3].axhline(-ENTROPY, color="black", linestyle="--", linewidth=1, label="minus the entropy of the data")
draw_estimates(axes[3], "moons")
figure.savefig(options.out / "moons.png")

# %% [markdown]
# ## Digits
#
# With sixteen numbers for an image, the VAE must find what digits have in common, and few images are enough
# for this. The flow models every pixel, and on so few images it soon overfits: its validation loss rises
# early, and `fit` returns the parameters from before. The figure on the right shows what a bound can do to a
# comparison: by its ELBO the VAE is worse than the flow, by the estimate it is clearly better.
#
# A sample of the VAE is a draw from p(x | z), with the noise of each pixel, because this is what its
# likelihood measures. Papers mostly show the mean of p(x | z) instead, which is smoother than the data.


# %%
vae, vae_params, _, _ = trained["digits", "VAE"]
flow, flow_params, _, _ = trained["digits", "flow"]
z = np.random.default_rng(6).standard_normal((49, vae.latent), np.float32)
figure, axes = plt.subplots(1, 5, figsize=(10, 2.1), layout="constrained", width_ratios=(1, 1, 1, 1, 1.2))
for ax, title, x in zip(
    axes,
    ("test data", "samples of the flow", "samples of the VAE", "means of the VAE"),
    (
        digits[2][: len(z)],
        flow.sample(flow_params, np.random.default_rng(6), len(z)),
        vae.sample(vae_params, np.random.default_rng(6), len(z)),
        vae.decode(vae_params, z)[0],
    ),
):
    plots.images(x.reshape(-1, 8, 8, 1), ax, levels=2, title=title)
draw_estimates(axes[4], "digits")
figure.savefig(options.out / "digits.png")

# %% [markdown]
# ## Training curves
#
# Of the digits. The loss of the VAE is a bound, that of the flow is exact.

# %%
figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
for ax, name, label in zip(axes, ("VAE", "flow"), ("-ELBO [nats]", "negative log-likelihood [nats]")):
    trained["digits", name][2].plot(ax)
    ax.set(title=f"{name} of the digits", ylabel=label)
figure.savefig(options.out / "history.png")

# %%
summary = {
    "draws": DRAWS,
    "entropy_of_moons": ENTROPY,
    "models": {f"{name} {kind}": row for (name, kind), row in rows.items()},
    "estimates": {"draws": counts, **estimates},
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(
    f"\n{'log p(x) of test data [nats]':30}{'ELBO':>10}{f'{DRAWS} draws':>14}{'exact':>10}{'std. error':>12}"
    f"{'parameters':>12}{'seconds':>9}"
)
for (name, kind), row in rows.items():
    figures = "".join(
        f"{row[key]:{width}.3f}" if key in row else f"{'-':>{width}}"
        for key, width in (("elbo", 10), ("estimate", 14), ("exact", 10), ("standard_error", 12))
    )
    print(f"{f'{name}, {kind}':30}{figures}{row['parameters']:12}{row['seconds']:9.1f}")
print(f"figures and summary.json in {options.out}")
