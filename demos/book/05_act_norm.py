# %% [markdown]
# # 5. ActNorm: start where the data is
#
# **Why does a deep flow need a layer that only shifts and scales?** Because its networks work on numbers of
# the order of one, and data comes in metres, in dollars, in grey levels. Glow's answer looks at the first
# batch once, and is a trained affine layer ever after.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np

from npflow import Flow, fit, plots
from npflow.layers import ActNorm, AffineCoupling, Chain, Permutation, Units
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import Adam
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, COUPLINGS = (10, 1) if os.environ.get("NPFLOW_QUICK") else (200, 4)

# %% [markdown]
# ## The layer
#
# $$z = x\, e^{s} + b, \qquad x = (z - b)\, e^{-s}, \qquad \log|\det J| = H W \sum_c s_c.$$
#
# There is one $s$ and one $b$ for each channel $c$. In an image of $H \times W$ pixels every pixel of a
# channel is scaled by the same $e^{s_c}$, so the diagonal of the Jacobian has each of them $H W$ times. That
# is where the factor $H W$ comes from; forgetting it is a classic.
#
# `init` chooses $s$ and $b$ so that the first batch leaves with mean 0 and variance 1 in each channel:
# $e^{s} = 1 / \text{std}$ and $b = -\text{mean} / \text{std}$.

# %%
print(inspect.getsource(ActNorm))

# %%
x = rng.normal([2e3, -3.0, 2e-5], [1e3, 0.1, 1e-6], (500, 3))
layer = ActNorm()
params = layer.init(rng, x)
z, log_det = layer.forward(params, x)
print("mean of z:", np.round(z.mean(axis=0), 9), " std of z:", np.round(z.std(axis=0), 9))
print("log|det J|:", log_det[0], " sum of -log std:", -np.log(x.std(axis=0)).sum())

# %% [markdown]
# ## Why the bias is in units of $z$
#
# One could as well write $z = (x - m)\, e^{s}$ with $m$ in the units of the data. As a map it is the same. As
# something to train it is not: Adam moves every parameter by about the learning rate in a step, whatever its
# units. If the data is in units of $10^{-6}$, a step of $10^{-3}$ throws $m$ a thousand standard deviations
# away. The same step of the bias $b$ is a thousandth of a standard deviation, in any units.

# %% [markdown]
# ## What it does for training
#
# The same flow with and without ActNorm, on data in three units.


# %%
def flow_of(first):
    couplings = [AffineCoupling(MLP((16,), "tanh")), Permutation()] * COUPLINGS
    return Flow(Chain([*first, *couplings]), Normal(2))


base = rng.standard_normal((1000, 2))
base[:, 1] = base[:, 0] ** 2 + 0.3 * base[:, 1]
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.2), layout="constrained", sharey=True)
for ax, unit in zip(axes, (1e-3, 1.0, 1e3)):
    for name, first, color in (("with ActNorm", [ActNorm()], "#0072B2"), ("without", [], "#D55E00")):
        flow = flow_of(first)
        start = flow.init(np.random.default_rng(0), unit * base)
        _, history = fit(flow, start, unit * base, rng=np.random.default_rng(0), steps=STEPS, progress=False)
        ax.plot(np.array(history.loss) - 2 * np.log(unit), color=color, label=name)
    ax.set(title=f"units of {unit:g}", xlabel="step")
axes[0].set(ylabel="loss less that of the units, nats", yscale="log")
axes[0].legend()

# %% [markdown]
# ## Why recipes begin with `Units`
#
# ActNorm does not help against an origin that is far away. Years have a mean of 2,000 and a standard
# deviation of 10, say. Then $b = -200$, and since
#
# $$\frac{\partial z}{\partial s} = x\, e^{s} = z - b,$$
#
# a step of $10^{-3}$ in $s$ moves *all* of $z$ by 0.2 standard deviations, where it should scale it by a
# thousandth. The gradient is as bad: in each batch it is the mean of $z\,(z - b) - 1$, whose noise is 200
# times too large.
#
# So every recipe begins with `Units`. It looks at the first batch once, like ActNorm, but trains nothing:
# $z = x\, 2^{-e} - c$ with integers $e$ and $c$. A multiplication by a power of two rounds nothing, and $c$
# is zero unless the data are far from zero, where subtracting a nearby number rounds nothing either. So the
# numbers are those of the data, with a better origin and unit, and ActNorm then has a bias of the order of
# one.

# %%
years = base * [10, 1] + [2000, 0]
figure, ax = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, first, color in (
    ("Units, ActNorm", [Units(), ActNorm()], "#0072B2"),
    ("ActNorm alone", [ActNorm()], "#D55E00"),
):
    flow = flow_of(first)
    start = flow.init(np.random.default_rng(0), years)
    bias = start["layer"][len(first) - 1]["bias"]
    z = [Chain(first).forward(start["layer"][: len(first)], years)[0]]
    moved = {**start["layer"][len(first) - 1]}
    moved["log_scale"] = moved["log_scale"] + 1e-3
    z.append(Chain(first).forward([*start["layer"][: len(first) - 1], moved], years)[0])
    shift = np.abs(z[1] - z[0]).mean(axis=0)
    print(f"{name:15} bias {np.round(bias, 2)}; a step of 0.001 in log_scale moves z by {np.round(shift, 4)}")
    _, history = fit(
        flow, start, years, rng=np.random.default_rng(0), steps=STEPS, optimizer=Adam(1e-2), progress=False
    )
    ax.plot(history.loss, color=color, label=name)
ax.set(xlabel="step", ylabel="loss, nats", title="A column of years")
ax.legend()

# %% [markdown]
# ## Its Jacobian, and what can go wrong
#
# The Jacobian of an image is diagonal, and each channel's scale stands there once for each pixel. Forget
# that, and `check` finds the missing factor.


# %%
class NoPixels(ActNorm):
    """Counts each channel once; `forward` and `inverse` take their log-determinant from here."""

    def log_det(self, params, x):
        return super().log_det(params, x) / (x.shape[1] * x.shape[2])


images = rng.normal(2, 3, (16, 2, 3, 2))
plots.jacobian(
    check(ActNorm(), images).jacobians["forward"].numerical, title="ActNorm on 2 x 3 pixels of 2 channels"
)
print(next(one.sentence for one in check(NoPixels(), images).failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. A channel is constant in the first batch. What is its standard deviation, and what should `init` do?
# 2. Batch normalization standardizes each batch by its own mean. Why can it not be a layer of a flow as it
#    stands? (Run `check` on such a layer.)
# 3. `npflow exercise act_norm` writes a page to complete; `npflow exercise act_norm FILE` marks it.
