# %% [markdown]
# # 10. Autoregressive flows, both ways
#
# **Is there a more general triangle than a coupling?** A coupling has an identity in one half. The most
# general triangle lets each component depend on all before it. The price is that one direction becomes slow.

# %%
import inspect
import os
import time

import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.layers import Inverse, MaskedAutoregressive
from npflow.models import iaf, maf
from npflow.networks import MADE
from npflow.training import Adam, WarmupCosine, distill, kl_divergence
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, FEATURES, DEPTH = (10, 3, 1) if os.environ.get("NPFLOW_QUICK") else (600, 6, 5)

# %% [markdown]
# ## Any density is a product of conditionals
#
# $$p(x) = p(x_1)\, p(x_2 | x_1)\, p(x_3 | x_1, x_2) \cdots$$
#
# Let each conditional be normal, with a mean and a standard deviation that a network computes from the
# components before. Then standardizing each component is a flow:
#
# $$z_i = x_i\, e^{s_i(x_{<i})} + t_i(x_{<i}), \qquad x_i = \big(z_i - t_i(x_{<i})\big)\, e^{-s_i(x_{<i})}.$$
#
# $z_i$ does not depend on $x_j$ with $j > i$, so the Jacobian is lower triangular with $e^{s_i}$ on its
# diagonal:
#
# $$\log|\det J| = \sum_i s_i(x_{<i}).$$
#
# `forward` has all of $x$, so it is one pass. `inverse` needs $x_1$ before it can ask the network for $x_2$:
# $D$ passes, one after the other.

# %%
print(inspect.getsource(MaskedAutoregressive.forward))
print(inspect.getsource(MaskedAutoregressive.inverse))

# %%
x = rng.standard_normal((16, FEATURES))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
for ax, order in zip(axes, ("natural", "reversed")):
    report = check(MaskedAutoregressive(MADE((16,), "tanh", order=order)), x)
    one = report.jacobians["forward"]
    plots.jacobian(one.numerical, ax, title=f"{order} order")
    print(f"{order:9} log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## MADE: one network for all conditionals
#
# $D$ networks would be slow. MADE is one network whose weights are masked. Give each input its place as a
# degree, 1 to $D$, and each hidden unit a degree below $D$. Let a hidden unit see units of its own degree or
# below, and an output of degree $i$ see hidden units of degree *below* $i$. Along any path from input $j$ to
# output $i$ the degrees never fall, and the last step rises:
#
# $$j \le d_1 \le d_2 \le \dots < i \qquad\Longrightarrow\qquad j < i.$$
#
# The product of the masks counts the paths. It is strictly triangular:

# %%
masks = MADE((8,)).masks(4, 4, False, np.float64)
figure, axes = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained")
for ax, (title, mask) in zip(
    axes,
    {
        "inputs to hidden": masks[0].T,
        "hidden to outputs": masks[1].T,
        "paths": (masks[0] @ masks[1]).T,
    }.items(),
):
    ax.imshow(mask, cmap="cividis")
    for (i, j), value in np.ndenumerate(mask):
        ax.text(
            j,
            i,
            f"{value:.0f}",
            ha="center",
            va="center",
            color="white" if value < mask.max() / 2 else "black",
        )
    ax.set(title=title, xlabel="from", ylabel="to", xticks=range(mask.shape[1]), yticks=range(len(mask)))

# %% [markdown]
# ## MAF and IAF
#
# A chain of such layers is a masked autoregressive flow (MAF): densities are fast, samples slow. Turn each
# layer round, and it is an inverse autoregressive flow (IAF): samples are fast, densities slow. It is the
# same map, called from the other end.

# %%
features = 32
rows = rng.standard_normal((256, features))
times = {}
for name, layer in {"MAF": MaskedAutoregressive(), "IAF": Inverse(MaskedAutoregressive())}.items():
    params = layer.init(rng, rows)
    for method in ("forward", "inverse"):
        best = []
        for _ in range(3):
            clock = time.perf_counter()
            getattr(layer, method)(params, rows)
            best.append(time.perf_counter() - clock)
        times[name, method] = min(best)
for name in ("MAF", "IAF"):
    fast = "forward" if times[name, "forward"] < times[name, "inverse"] else "inverse"
    ratio = max(times[name, "forward"], times[name, "inverse"]) / times[name, fast]
    print(f"{name}: {fast} is the fast direction, by a factor of {ratio:.0f} at {features} features")

# %% [markdown]
# ## Distillation
#
# To have both, train a MAF on data, and then an IAF on the MAF. The student draws its own samples, whose
# density it knows without `forward`, and asks the teacher for theirs. Both are fast. The loss is
#
# $$\operatorname{KL}(S \,\|\, T) = E_{x \sim S}\left[\log p_S(x) - \log p_T(x)\right] \ge 0,$$
#
# and it is 0 where the two densities are the same: by Jensen's inequality
# $E_S[\log(p_T / p_S)] \le \log E_S[p_T / p_S] = \log 1$.

# %%
moons = datasets.moons(5000, rng=rng)
network = MADE((32, 32), "tanh")
teacher, student = (
    maf(features=2, steps=DEPTH, network=network),
    iaf(features=2, steps=DEPTH, network=network),
)
options = {
    "steps": STEPS,
    "optimizer": Adam(WarmupCosine(5e-3, steps=STEPS)),
    "clip_norm": 10.0,
    "progress": False,
}
teacher_params, _ = fit(teacher, teacher.init(rng, moons), moons, rng=rng, **options)
student_params = student.init(rng, teacher.sample(teacher_params, rng, 1000))
before = kl_divergence(student, student_params, teacher, teacher_params, rng, 2000)
student_params, _ = distill(student, student_params, teacher, teacher_params, rng=rng, **options)
after = kl_divergence(student, student_params, teacher, teacher_params, rng, 2000)
print(f"loss of the teacher {teacher.loss(teacher_params, moons):.3f} nats")
print(f"KL(student || teacher) before {before[0]:.2f}, after {after[0]:.2f} +- {after[1]:.2f} nats")

figure, axes = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
for ax, (title, flow, params) in zip(
    axes,
    (
        ("samples of the teacher", teacher, teacher_params),
        ("samples of the student", student, student_params),
    ),
):
    plots.samples(flow.sample(params, rng, 2000), ax, limits=((-1.5, 2.5), (-1, 1.5)), title=title)

# %% [markdown]
# Where the student leaves out a part of the teacher's density, as at the ends of the moons, this divergence
# hardly grows: $E_S$ weighs each place by the *student's* density. The other direction,
# $\operatorname{KL}(T \| S)$, sees it:

# %%
missed = kl_divergence(teacher, teacher_params, student, student_params, rng, 2000)
print(f"KL(teacher || student) {missed[0]:.2f} +- {missed[1]:.2f} nats")

# %% [markdown]
# ## What can go wrong
#
# A mask with $\le$ where $<$ belongs lets a component see itself. The Jacobian stays triangular, so it looks
# right. But the diagonal is no longer $e^{s_i}$, and the inverse needs what it is looking for.


# %%
class SeesItself(MaskedAutoregressive):
    """The shift of each component depends on the component itself."""

    def forward(self, params, x, context=None):
        z, log_det = super().forward(params, x, context)
        return z + 0.3 * x / (1 + x * x), log_det


for one in check(SeesItself(MADE((16,), "tanh")), x).failures[:3]:
    print(f"{one.name}: {one.sentence}")

# %% [markdown]
# ## Exercises
#
# 1. A coupling is an autoregressive layer with a special mask. Which one?
# 2. How many passes does it take to sample an image of 32 x 32 x 3 from a MAF?
# 3. A single autoregressive layer with normal conditionals learns $p(x_2 | x_1)$. Why can it not learn two
#    moons in either order, whatever its network?
# 4. `npflow exercise autoregressive` writes a page to complete; `npflow exercise autoregressive FILE` marks it.
