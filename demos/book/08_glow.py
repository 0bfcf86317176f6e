# %% [markdown]
# # 8. Glow on two moons: why a Gaussian leaves a thread
#
# **Can a flow cut its prior in two?** Chapters 5 to 7 have all parts of Glow. Here they are stacked, and
# learn two moons: two separate pieces, from a normal prior, which is one piece.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1
from npflow.models import glow
from npflow.networks import MLP
from npflow.priors import GaussianMixture, Normal
from npflow.training import Adam, WarmupCosine
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, DEPTH, ROWS = (10, 2, 1000) if os.environ.get("NPFLOW_QUICK") else (1000, 10, 10_000)

# %% [markdown]
# ## The flow
#
# A step of Glow is an ActNorm, a coupling and a 1x1 convolution. Ten steps follow each other, after `Units`.
# The recipe, from its file:

# %%
print(inspect.getsource(glow))

# %% [markdown]
# With ten steps the log-determinant has thirty terms that depend on parameters, all of them read off. `Units`
# adds a constant, $c$:
#
# $$\log p_x(x) = \log p_z(z) + c + \sum_{k=1}^{10} \Big[\underbrace{\textstyle\sum_c s_{k,c}}_{\text{ActNorm}} +
# \underbrace{\textstyle\sum_i s_{k,i}(a_k)}_{\text{coupling}}
# + \underbrace{\textstyle\sum_c \log|U_{k,cc}|}_{\text{1x1}}\Big].$$
#
# The Jacobian of one step is a full matrix, the product of a diagonal, a block triangle and a dense one:

# %%
step = [ActNorm(), AffineCoupling(MLP((16,), "tanh")), Conv1x1()]
report = check(Chain(step), rng.standard_normal((16, 4)))
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of one step of Glow, 4 features")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## Why there is a thread
#
# $f^{-1}$ is continuous. A continuous map takes a connected set to a connected set: join two points of it by
# a path, and the image of the path joins their images. The normal density is positive on the whole plane, and
#
# $$p_x(x) = p_z(f(x))\, |\det J(x)| > 0 \quad \text{for every } x.$$
#
# So no flow from $\mathbb{R}^2$ to $\mathbb{R}^2$ can have two separate pieces. What it can do is make the
# density between them small. For that $|\det J|$ has to be small there: a thin strip of $z$ is stretched over
# the whole gap. The steeper the stretch, the larger the weights it takes, and the slower they are to learn.
#
# A prior of two Gaussians has little mass between its pieces to begin with, so less has to be stretched. It
# is positive everywhere too, so a thread remains. Whether it is thinner depends on training as well: it is
# measured below.

# %%
density = datasets.Moons()
x = datasets.moons(ROWS, rng=rng).astype(np.float32)
start = glow(features=2, steps=DEPTH, network=MLP((32, 32), "tanh"))
z = start.encode(start.init(np.random.default_rng(1), x[:1000]), x[:1000])
upper = (
    x[:1000, 1] > 0.25
)  # mostly one moon: the Gaussians start where a new flow, nearly a rotation, sends the two
direction = z[upper].mean(axis=0) - z[~upper].mean(axis=0)
direction = 2 * direction / np.linalg.norm(direction)
priors = {
    "one Gaussian": Normal(2),
    "two Gaussians": GaussianMixture(means=(-direction, direction), stds=(1, 1)),
}
trained = {}
for name, prior in priors.items():
    flow = glow(features=2, steps=DEPTH, network=MLP((32, 32), "tanh"), prior=prior)
    params = flow.init(np.random.default_rng(1), x[:1000])
    schedule = WarmupCosine(5e-3, steps=STEPS)
    params, _ = fit(
        flow,
        params,
        x,
        rng=np.random.default_rng(2),
        steps=STEPS,
        optimizer=Adam(schedule),
        clip_norm=30.0,
        progress=False,
    )
    trained[name] = flow, params
    print(f"{name:14} loss {flow.loss(params, x):.3f} nats")
print(f"entropy of the data {density.entropy():.3f} nats: no model is below it on average")

# %%
figure, axes = plt.subplots(2, 3, figsize=(10.5, 5), layout="constrained")
for row, (name, (flow, params)) in zip(axes, trained.items()):
    z = flow.prior.sample(params["prior"], np.random.default_rng(3), 4000, dtype=np.float32)
    plots.samples(z, row[0], limits=((-4.5, 4.5), (-4.5, 4.5)), title=f"z: {name}")
    plots.samples(
        flow.decode(params, z), row[1], limits=((-1.5, 2.5), (-1, 1.5)), title="what the flow makes of them"
    )
    plots.density(lambda at, flow=flow, params=params: flow.log_prob(params, at.astype(np.float32)), row[2])

# %% [markdown]
# ## Along a line through the gap
#
# The line goes from one moon to the other. The true density falls as a normal tail does, a square in the
# logarithm. Both flows follow it down only so far. How much mass lies in the thread? Count samples that are
# less likely, under the true density, than all but one in 10,000 of the data.

# %%
line = np.linspace([0.0, 1.0], [1.0, -0.5], 400)
figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(line[:, 0], density.log_prob(line), color="0.4", linestyle=":", label="the truth")
for (name, (flow, params)), color in zip(trained.items(), ("#D55E00", "#0072B2")):
    on_line = flow.log_prob(params, line.astype(np.float32))
    ax.plot(line[:, 0], on_line, color=color, label=name)
    print(f"{name:14} least log p on the line {on_line.min():.1f} nats")
limit = np.quantile(density.log_prob(datasets.moons(10 * ROWS, rng=rng)), 1e-4)
for name, (flow, params) in trained.items():
    far = density.log_prob(flow.sample(params, np.random.default_rng(4), 2 * ROWS).astype(float)) < limit
    print(f"{name:14} {np.mean(far):.2%} of the samples lie outside the moons")
ax.set(
    xlabel="x_1 along the line from (0, 1) to (1, -0.5)",
    ylabel="log p(x), nats",
    title="Between the moons",
    ylim=(-40, 2),
)
ax.legend()

# %% [markdown]
# ## What can go wrong
#
# In a hand-written loop over layers the log-determinant is easily overwritten where it should be added:


# %%
class Overwritten(Chain):
    """Keeps the log-determinant of the last layer alone."""

    def forward(self, params, x):
        for layer, own in zip(self.layers, params):
            x, log_det = layer.forward(own, x)
        return x, log_det

    def log_det(self, params, x):
        return self.forward(params, x)[1]


report = check(Overwritten(step), rng.standard_normal((16, 4)))
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. Which set has the image of the line between the two Gaussians' centers? Draw it.
# 2. Leave out the 1x1 convolutions. `check` passes. Why is the density bad all the same?
# 3. Let the two Gaussians have standard deviations of 0.3. What does training do, and why?
