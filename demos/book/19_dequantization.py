# %% [markdown]
# # 19. Pixels are integers: dequantization and bits/dim
#
# **A pixel has 256 values, a density lives on the real line. What does a flow's density of an image mean?**
# Without care, nothing: it can grow without limit. With uniform noise it bounds the probability of the
# integers, in bits.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np

from npflow import Dequantized, Flow, datasets, fit, plots
from npflow.layers import ActNorm, Affine, Chain, Logit
from npflow.priors import Logistic, Normal
from npflow.training import Adam
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS = 10 if os.environ.get("NPFLOW_QUICK") else 400

# %% [markdown]
# ## What goes wrong without noise
#
# Take data that are always the integer 3, and the flow $z = (x - 3)\, e^{-s}$. Its density at the data is
#
# $$\log p(3) = \log \mathcal N(0) - s \;\to\; \infty \quad \text{as } s \to -\infty.$$
#
# The flow puts a spike on the value. The loss falls for ever, and says nothing about the data.

# %%
spike = Flow(Affine(), Normal(1))
for s in (0, -5, -20):
    params = {"layer": {"mean": np.array([3.0]), "log_std": np.array([float(s)])}, "prior": {}}
    print(f"s = {s:3}: loss {spike.loss(params, np.full((5, 1), 3.0)):+.2f} nats")

# %% [markdown]
# ## Uniform noise, and a bound
#
# Let the model's probability of the integer $x$ be the mass of its cell, $P(x) = \int_0^1 p(x + u)\, du$ in
# one dimension. These add up to at most
# 1. By Jensen's inequality, as the logarithm is concave,
#
# $$\log P(x) = \log E_u[p(x + u)] \;\ge\; E_u[\log p(x + u)], \qquad u \sim \mathcal U[0, 1).$$
#
# The right side is what training maximizes: add fresh noise to each row, and take the log-density. A
# probability is at most 1, so the bound can never exceed 0. npflow scales the cells to the unit interval:
# $y = (x + u) / K$ with $K$ levels. A change of variables in each of $D$ dimensions, with the derivative
# $1 / K$:
#
# $$\log P(x) \ge E_u\left[\log p_y\!\left(\frac{x + u}{K}\right)\right] - D \log K.$$

# %%
print(inspect.getsource(Dequantized.dequantize))
print(inspect.getsource(Dequantized.losses))

# %% [markdown]
# ## Bits per dimension
#
# A code for $x$ takes $-\log_2 P(x)$ bits. Divided by the number of pixels and channels these are bits/dim,
# which can be compared between models of any kind:
#
# $$\text{bits/dim} = \frac{-\log P(x)}{D \log 2}.$$
#
# A model that knows nothing gives each of $K$ levels the same probability: $\log_2 K$ bits.

# %%
data = datasets.image_data("digits")
layers = {
    "every pixel by itself": Chain([Logit(), ActNorm(), Affine()]),
}
prior = Logistic(data.train.shape[1:])
print(f"knows nothing: {np.log2(data.levels):.3f} bits/dim")
for name, layer in layers.items():
    model = Dequantized(Flow(layer, prior), levels=data.levels)
    params = model.init(rng, data.train)
    params, history = fit(
        model, params, data.train, rng=rng, steps=STEPS, optimizer=Adam(1e-2), progress=False
    )
    print(f"{name}: {model.bits_per_dim(params, data.test, rng=rng).mean():.3f} bits/dim")

# %% [markdown]
# How loose is the bound? More draws of $u$ inside the logarithm bring it nearer to $\log P(x)$, from below:

# %%
draws = [1, 4, 16, 64]
bits = [
    model.bits_per_dim(params, data.test, rng=np.random.default_rng(0), draws=count).mean() for count in draws
]
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.plot(draws, bits, "o-", color="#0072B2")
ax.set(
    xscale="log",
    xlabel="draws of u inside the logarithm",
    ylabel="bits/dim",
    title="More draws, a tighter bound",
)
for count, value in zip(draws, bits):
    print(f"{count:3} draws: {value:.4f} bits/dim")

# %% [markdown]
# ## From the unit interval to the real line
#
# $y$ lies in $[0, 1]$, and a prior lives on $\mathbb{R}$. The first layer of an image flow is a logit of a
# slightly narrowed interval, $z = \operatorname{logit}(\alpha + (1 - 2 \alpha) y)$, so that 0 and 1 stay
# finite. Its log-slope has a closed form, and its Jacobian is diagonal:

# %%
print(inspect.getsource(Logit))
cells = rng.uniform(0.02, 0.98, (16, 4))
report = check(Logit(), cells)
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of Logit")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## What can go wrong
#
# Treat the logit as a preprocessing, and leave out its log-determinant: the bits/dim are then those of other
# data. `check` sees it at once:


# %%
class Preprocessing(Logit):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return z, 0 * log_det


report = check(Preprocessing(), cells)
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. For which densities $p$ is Jensen's bound exact?
# 2. Adding the noise once, before training, seems to do the same. What happens after many epochs?
# 3. A paper reports 3.35 bits/dim on images of 8 bits. How many nats is that for an image of 32 x 32 x 3?
# 4. `npflow exercise dequantization` writes a page to complete; `npflow exercise dequantization FILE` marks it.
