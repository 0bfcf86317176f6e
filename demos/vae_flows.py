# %% [markdown]
# # A VAE with flows
#
# A variational autoencoder has two normal densities of `z`: the prior `p(z)`, and the encoder's `q(z | x)`, which stands
# for the posterior `p(z | x)`. They are normal only because that is easy, and a flow can replace either:
#
# - as the **posterior** (Rezende and Mohamed 2015; Kingma et al. 2016): the encoder draws `z_0` from a normal density as
#   before, and a flow `f` takes it on to `z = f(z_0; h(x))`, where `h(x)` are further outputs of the encoder. So
#   `log q(z | x) = log q(z_0 | x) - log|det dz/dz_0|`;
# - as the **prior** (Chen et al. 2017): `log p(z) = log N(u; 0, I) + log|det du/dz|`, with `u = g(z)`.
#
# The two are not the same. The flow in the posterior cannot change the density that samples come from, and the flow in
# the prior does not see `x`. The question here is what each of them is worth on held-out images, in nats.

# %%
import json
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

from npflow import fit, plots
from npflow.autodiff import Layout
from npflow.cli.demo import demo_options
from npflow.layers import Chain, MaskedAutoregressive, Planar
from npflow.models import VAE, real_nvp
from npflow.networks import MADE, MLP
from npflow.plots.style import BLUE, VERMILLION
from npflow.training import Adam, WarmupCosine

options = demo_options(
    "vae_flows", "A VAE with a flow as its posterior, as its prior, and as both, on digits."
)
plt.style.use(plots.STYLE)

# %% [markdown]
# ## The models
#
# All have the same encoder, decoder and latent size, and differ in the flows between them. The layers of a posterior go
# `forward` from `z_0` to `z`, so a `MaskedAutoregressive` takes one pass: it is an inverse autoregressive flow, IAF.
# Every layer sees `h(x)`. The flows start as the identity.
#
# Two more VAEs without flows make the comparison fair. One has a larger encoder, as a flow in the posterior adds
# parameters. The other is trained by the importance-weighted bound of K = 5 draws (Burda et al. 2016),
# `log(1/K sum_k p(x, z_k) / q(z_k | x))`, which also makes up for a poor `q`.

# %%
LATENT, CONTEXT = 16, 32
plain = VAE(features=64, latent=LATENT, encoder=MLP((128, 128)), decoder=MLP((128, 128)))
orders = ("natural", "reversed", "natural", "reversed")
iaf = Chain([MaskedAutoregressive(MADE((64,), "tanh", order)) for order in orders])
planar = Chain([Planar()] * 8)
prior = real_nvp(features=LATENT, couplings=4, network=MLP((64,), "tanh"))
MODELS = {
    "plain": plain,
    "larger encoder": replace(plain, encoder=MLP((256, 256))),
    "importance-weighted": replace(plain, draws=5),
    "planar posterior": replace(plain, posterior=planar, context_features=CONTEXT),
    "IAF posterior": replace(plain, posterior=iaf, context_features=CONTEXT),
    "flow prior": replace(plain, prior=prior),
    "both": replace(plain, posterior=iaf, context_features=CONTEXT, prior=prior),
}

# %% [markdown]
# ## Data
#
# scikit-learn's 1797 digits, 8 x 8 pixels with 17 levels, made continuous by uniform noise: `(x + u) / 17`. 1200
# images train, each under twenty draws of the noise; 180 choose the best parameters of a run; 417 test. This is
# repeated on three random splits, the same three for all models. So the same image is compared under two models, and
# most of what makes an image easy or hard cancels.

# %%
SPLITS, STEPS, DRAWS = (1, 5, 5) if options.quick else (3, 1500, 200)


def split(seed):
    """Rows to train, to choose and to test."""
    rng = np.random.default_rng(seed)
    images = load_digits().data[rng.permutation(1797)]

    def dequantized(images, draws):
        images = np.repeat(images, draws, axis=0)
        return ((images + rng.random(images.shape)) / 17).astype(np.float32)

    return dequantized(images[:1200], 20), dequantized(images[1200:1380], 2), dequantized(images[1380:], 1)


splits = [split(seed) for seed in range(SPLITS)]


def train(model, data, seed):
    """Train a model on a split; return the parameters."""
    x, validation, _ = data
    params, history = fit(
        model,
        model.init(np.random.default_rng(1), x[:1000]),
        x,
        rng=np.random.default_rng(10 + seed),
        steps=STEPS,
        batch_size=256,
        optimizer=Adam(WarmupCosine(2e-3, steps=STEPS, warmup=STEPS // 20)),
        clip_norm=100.0,
        average=0.99,
        validation=validation,
        record=not options.quick,  # a recording takes as long as several steps
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps}: nothing was written")
    return params


# %% [markdown]
# ## What it is worth
#
# Two numbers for each image: the ELBO, and the bound from many draws, which is closer to `log p(x)`. Their difference
# is mostly the gap between `q(z | x)` and the posterior. A model can win by the first and lose by the second: then its
# `q` is better, but its `p` is not.
#
# The autoregressive flow in the posterior raises the ELBO, and the second number too: with a better `q`, the decoder
# learns a better `p`. The planar flow gains little: it is simple, in sixteen dimensions. The flow in the prior gains most
# on these data, as the codes of all digits together are far from a normal density. With both, the ELBO is best. Training
# by the importance-weighted bound raises the second number and lowers the first: it only needs some draws of `q` to be
# good. The larger encoder gains little, so the number of parameters does not explain the gains.

# %%
rows, params, scores = {}, {}, {}
for name, model in MODELS.items():
    clock = time.process_time()
    params[name] = [train(model, data, seed) for seed, data in enumerate(splits)]
    seconds = time.process_time() - clock
    rng = np.random.default_rng(3)
    scores[name] = {
        "elbo": [
            model.elbo(p, x, rng=rng, draws=min(DRAWS, 50)) for p, (_, _, x) in zip(params[name], splits)
        ],
        "bound": [model.log_prob(p, x, rng=rng, draws=DRAWS) for p, (_, _, x) in zip(params[name], splits)],
    }
    rows[name] = {"parameters": Layout(params[name][0]).size, "seconds": seconds / SPLITS}
    for kind, of_splits in scores[name].items():
        gain = np.concatenate(of_splits) - np.concatenate(scores["plain"][kind])
        rows[name][kind] = {
            "mean": float(np.mean(np.concatenate(of_splits))),
            "gain": float(np.mean(gain)),
            "standard_error": float(np.std(gain) / np.sqrt(len(gain))),
            "gain_of_each_split": [
                float(np.mean(one - other)) for one, other in zip(of_splits, scores["plain"][kind])
            ],
        }

heading = f"{'log p(x) of test images [nats]':32}{'ELBO':>8}{'gain':>17}{f'{DRAWS} draws':>12}{'gain':>17}"
print(f"{heading}{'parameters':>12}{'CPU seconds':>13}")
for name, row in rows.items():
    cells = "".join(
        f"{row[kind]['mean']:{width}.2f}{row[kind]['gain']:+9.2f} ± {row[kind]['standard_error']:.2f}"
        for kind, width in (("elbo", 8), ("bound", 12))
    ).replace("+0.00 ± 0.00", "            ")
    print(f"{name:32}{cells:>54}{row['parameters']:12}{row['seconds']:13.1f}")

# %% [markdown]
# The bars are means over all test images, with two standard errors; each dot is one split. On the right is the bound by
# the number of draws. Where `q` is good, few draws are enough.

# %%
counts = [1, 2, 5] if options.quick else [1, 2, 5, 10, 20, 50, 100, 200]
SHOWN = {
    "plain": ("0.35", "-"),
    "IAF posterior": (BLUE, "--"),
    "flow prior": (VERMILLION, "-."),
    "both": ("k", ":"),
}
figure, axes = plt.subplots(1, 2, figsize=(10, 3.4), layout="constrained", width_ratios=(1.5, 1))
names = [name for name in MODELS if name != "plain"]
for offset, (kind, color, label) in zip(
    (-0.18, 0.18), (("elbo", BLUE, "ELBO"), ("bound", VERMILLION, f"bound from {DRAWS} draws"))
):
    at = np.arange(len(names)) + offset
    gains = [rows[name][kind]["gain"] for name in names]
    errors = [2 * rows[name][kind]["standard_error"] for name in names]
    axes[0].barh(at, gains, 0.34, xerr=errors, color=color, alpha=0.75, label=label)
    for y, name in zip(at, names):
        each = rows[name][kind]["gain_of_each_split"]
        axes[0].plot(each, [y] * len(each), ".", color="k", markersize=3)
axes[0].set(
    yticks=range(len(names)), yticklabels=names, xlabel="nats above the plain VAE", title="Held-out digits"
)
axes[0].axvline(0, color="k", linewidth=0.8)
axes[0].invert_yaxis()
axes[0].legend()
estimates = {}
for name, (color, style) in SHOWN.items():
    rng = np.random.default_rng(4)
    model, (_, _, x) = MODELS[name], splits[0]
    estimates[name] = [float(np.mean(model.log_prob(params[name][0], x, rng=rng, draws=k))) for k in counts]
    axes[1].plot(counts, estimates[name], style, color=color, marker="o", markersize=3, label=name)
axes[1].set(xscale="log", xlabel="draws K", ylabel="nats", title="The bound from K draws")
axes[1].legend(loc="lower right")
figure.savefig(options.out / "gains.png")

# %% [markdown]
# ## Codes and samples
#
# The codes of training images in two of their components, and draws of the prior. Where there are draws of the prior
# but no codes, the decoder was never trained, and a sample from there need not be a digit.

# %%
figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
for (top, bottom), name in zip(axes.T, SHOWN):
    model, p, (x, _, _) = MODELS[name], params[name][0], splits[0]
    rng = np.random.default_rng(5)
    z = model.sample_posterior(p, rng, x[::20])
    spread = np.argsort(np.std(z, axis=0))[-2:]  # the two components that say most
    flow = model.prior
    drawn = rng.standard_normal((1000, LATENT)) if flow is None else flow.sample(p["prior"], rng, 1000)
    top.scatter(*drawn[:, spread].T, s=3, color=VERMILLION, alpha=0.5, label="the prior")
    top.scatter(*z[:1000, spread].T, s=3, color=BLUE, alpha=0.5, label="codes of images")
    top.set(title=name, xticks=[], yticks=[])
    images = model.sample(p, np.random.default_rng(6), 36)
    plots.images(images.reshape(-1, 8, 8, 1), bottom, levels=2, title="samples")
axes[0, 0].legend(markerscale=3)
figure.savefig(options.out / "codes.png")

# %% [markdown]
# ## A posterior in the plane
#
# With two components of `z` the posterior `p(z | x)`, which is proportional to `p(x | z) p(z)`, can be computed on a
# grid. Grey: the posterior of four training images, each under the decoder that was trained with this `q`. Dots: draws
# of `q(z | x)`. An encoder without a flow has to fit the posterior by an ellipse whose axes are those of `z`; a flow can
# turn and bend it.
#
# On test images another error is larger: the encoder has not seen them, and puts `q` beside the posterior (a part of
# the amortization gap; Cremer et al. 2018). No flow closes that.

# %%
small = replace(plain, latent=2)
PLANE = {
    "plain": small,
    "IAF posterior": replace(small, posterior=iaf, context_features=CONTEXT),
}
x = splits[0][0][:80:20]  # the first of each image's draws of noise
figure, axes = plt.subplots(2, 4, figsize=(10, 5.2), layout="constrained")
for row, (name, model) in zip(axes, PLANE.items()):
    p = train(model, splits[0], 0)
    for ax, one in zip(row, x):
        q = model.sample_posterior(p, np.random.default_rng(7), np.repeat(one[None], 300, axis=0))
        middle, width = np.mean(q, axis=0), 8 * np.max(np.std(q, axis=0))
        side = np.linspace(-width / 2, width / 2, 20 if options.quick else 120)
        grid = np.stack(np.meshgrid(middle[0] + side, middle[1] + side), axis=-1).astype(np.float32)
        z = grid.reshape(-1, 2)
        mean, log_std = model.decode(p, z)
        log_likelihood = np.sum(-0.5 * ((one - mean) / np.exp(log_std)) ** 2 - log_std, axis=1)
        log_joint = log_likelihood - 0.5 * np.sum(z**2, axis=1)
        posterior = np.exp(log_joint - np.max(log_joint)).reshape(grid.shape[:2])
        ax.pcolormesh(grid[..., 0], grid[..., 1], posterior, cmap="Greys", shading="auto", rasterized=True)
        ax.scatter(*q.T, s=2, color=VERMILLION, alpha=0.6)
        ax.set(xticks=[], yticks=[], title=name, aspect="equal")
figure.savefig(options.out / "posteriors.png")

# %%
summary = {"draws": DRAWS, "splits": SPLITS, "models": rows, "estimates": {"draws": counts, **estimates}}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"figures and summary.json in {options.out}")
