# %% [markdown]
# # 17. Conditioning
#
# **One flow for each class of data would work. Can one flow serve all of them?** Let its networks see the
# class. Then the same parameters describe a whole family of densities, and Bayes' rule makes a classifier of
# it. The context may also be an image: a flow of large images, given small ones, draws many large images that
# shrink to the same small one.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import make_moons

from npflow import datasets, fit, plots
from npflow.layers import AffineCoupling, BlockMeans, Given, Logit
from npflow.layers.layer import context_at
from npflow.models import glow, super_resolution
from npflow.networks import MLP, ConvNet
from npflow.training import Adam, WarmupCosine
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, DEPTH = (10, 1) if os.environ.get("NPFLOW_QUICK") else (500, 6)

# %% [markdown]
# ## The change of variables, given $c$
#
# Hold $c$ fixed, and nothing is new: $x \mapsto z = f(x; c)$ is an invertible map for each $c$, so
#
# $$\log p(x | c) = \log p_z(f(x; c)) + \log|\det J_c(x)|, \qquad J_c = \frac{\partial f(x; c)}{\partial x}.$$
#
# There is no derivative in $c$. In a coupling the network sees the untouched half and the context,
#
# $$z_b = b\, e^{s(a, c)} + t(a, c), \qquad \log|\det J_c| = \sum_i s_i(a, c),$$
#
# and the Jacobian is the block triangle of chapter 6, another one for each context.

# %%
print(inspect.getsource(AffineCoupling.forward))

# %%
x = rng.standard_normal((16, 4))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
for ax, context in zip(axes, ((1.0, 0.0), (0.0, 1.0))):
    report = check(Given(AffineCoupling(MLP((16,), "tanh")), context), x)
    one = report.jacobians["forward"]
    plots.jacobian(one.numerical, ax, title=f"at the context {context}")
    print(f"{context}: log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## Two moons, two classes
#
# The context is the moon that a point belongs to. The prior need not be cut in two any more (chapter 8): each
# class is one piece.

# %%
points, label = make_moons(4000, noise=0.15, random_state=0)
flow = glow(features=2, steps=DEPTH, network=MLP((32, 32), "tanh"), context_features=2)
context = np.eye(2)[label]
params = flow.init(rng, points, context)
params, _ = fit(
    flow,
    params,
    points,
    context,
    rng=rng,
    steps=STEPS,
    optimizer=Adam(WarmupCosine(5e-3, steps=STEPS)),
    progress=False,
)
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3), layout="constrained")
box = (-1.6, 2.6), (-1.2, 1.7)
for c, ax in enumerate(axes[:2]):
    plots.density(lambda at, c=c: flow.log_prob(params, at, np.eye(2)[c]), ax, limits=box)
    ax.set(title=f"p(x | class {c})")

# %% [markdown]
# ## Bayes' rule
#
# With the shares $P(c)$ of the classes,
#
# $$P(c | x) = \frac{p(x | c)\, P(c)}{\sum_{c'} p(x | c')\, P(c')}.$$
#
# A classifier that is trained directly knows this ratio alone. The flow also has the denominator, $p(x)$: where
# it is small, $x$ is unlike the data. Take care with images: flows give some images that are unlike the data
# a high density (Nalisnick et al. 2019).

# %%
test, test_label = make_moons(2000, noise=0.15, random_state=1)
log_joint = np.stack([flow.log_prob(params, test, np.eye(2)[c]) for c in (0, 1)]) + np.log(0.5)
print(f"right on {np.mean(log_joint.argmax(axis=0) == test_label):.1%} of the test points")

side = np.stack(np.meshgrid(np.linspace(*box[0], 120), np.linspace(*box[1], 100)), axis=-1)
joint = np.stack([flow.log_prob(params, side.reshape(-1, 2), np.eye(2)[c]) for c in (0, 1)])
share = np.exp(joint[1] - np.logaddexp(*joint)).reshape(side.shape[:2])
image = axes[2].pcolormesh(side[..., 0], side[..., 1], share, cmap="cividis", shading="auto")
axes[2].scatter(*test[:200].T, s=4, c="white")
axes[2].set(title="P(class 1 | x)", aspect="equal")
figure.colorbar(image, ax=axes[2])
outlier = np.array([[2.0, -4.0]])
at_outlier = [flow.log_prob(params, outlier, np.eye(2)[c])[0] for c in (0, 1)]
print(f"far away, at {outlier[0]}: log p(x | c) = {at_outlier[0]:.0f} and {at_outlier[1]:.0f} nats")

# %% [markdown]
# ## An image as context
#
# In a coupling of images the network is made of convolutions, and the context is joined to its input as further
# channels. If it is smaller or larger than the input, it is first brought to the same height and width:

# %%
print(inspect.getsource(context_at))

# %% [markdown]
# Let $c$ be an image of 4 x 4 pixels, and $x$ one of 8 x 8 that shrinks to it. Then $x$ is not free: the mean of each
# block of 2 x 2 pixels is given. So we change variables first. Two pixels between 0 and 1 have the logits $a$ and $b$.
# Replace them by $l$, the logit of the mean of the pixels, and the difference $v = a - b$. Each $(l, v)$ belongs to
# exactly one pair:
#
# $$a = w + \tfrac{v}{2}, \quad b = w - \tfrac{v}{2}, \quad
# w = \tfrac{l}{2} + \operatorname{arcsinh}\left(\sinh \tfrac{l}{2} \, \cosh \tfrac{v}{2}\right).$$
#
# Why? With $y = e^w$ and $h = e^{v/2}$ the mean is $\frac{1}{2}\left(\frac{yh}{1 + yh} + \frac{y}{h + y}\right)$. Set it
# equal to $\frac{r^2}{1 + r^2}$ with $r = e^{l/2}$. For $g = y / r$ this becomes $g^2 - 2 S g - 1 = 0$ with
# $S = \sinh\frac{l}{2} \cosh\frac{v}{2}$, whose positive root is $g = e^{\operatorname{arcsinh} S}$.
#
# Do this for the two pairs of a block, and then for the pair of their means: the block becomes one mean and three
# differences, its details. The details may be any numbers. So a flow of the details given the means is a density of
# $x$ given $c$, and every image that it draws shrinks to $c$ exactly. `BlockMeans` is this change of variables:

# %%
digits = datasets.image_data("digits")
logit, means = Logit(alpha=0), BlockMeans()
pixels = (digits.test[:2] + 0.5) / digits.levels
report = check(means, logit.forward({}, pixels)[0])
print(f"BlockMeans {report.verdict}: its log-det is off by {report.log_det_error('autograd'):.1e}")

model = super_resolution((8, 8, 1), digits.levels, 1, 2 * DEPTH, ConvNet((24, 24), (3, 3, 3)))
sr_params = model.init(rng, digits.train[:256])
sr_params, _ = fit(
    model,
    sr_params,
    digits.train,
    rng=rng,
    steps=STEPS,
    batch_size=32,
    optimizer=Adam(WarmupCosine(1e-2, steps=STEPS, warmup=STEPS // 10)),
    clip_norm=100.0,
    average=0.99,
    progress=False,
)
bits = model.bits_per_dim(sr_params, digits.test, rng=rng)
print(f"{bits.mean():.2f} bits for each of the 64 pixels, once the small image is known")

few = digits.test[[1, 5, 7, 9]]
small = model.known(few)
answers = model.answers(sr_params, rng, np.repeat(small, 8, axis=0)).reshape(4, 8, 8, 8, 1)
shrunk = answers.reshape(4, 8, 4, 2, 4, 2, 1).mean(axis=(3, 5))
print(f"answers shrink to the small image up to {np.abs(shrunk - small[:, None]).max():.0e}")
large = small.repeat(2, axis=1).repeat(2, axis=2)
table = np.concatenate([large[:, None], answers, (few[:, None] + 0.5) / digits.levels], axis=1)
figure, ax = plt.subplots(figsize=(8, 3.6), layout="constrained")
plots.images(
    digits.levels * table - 0.5, ax, levels=digits.levels, title="small, eight answers, and the digit"
)

# %% [markdown]
# A network that is trained by squared error gives a single answer, the mean of all, which is blurred.
# `demos/super_resolution.py` goes on from here, to photographs and to missing halves. The papers are SRFlow (Lugmayr
# et al. 2020) and Wavelet Flow (Yu et al. 2020).

# %% [markdown]
# ## What can go wrong
#
# Use the context in one direction only. Each direction is then a fine map by itself, but not the other's
# inverse:


# %%
class ForgetsOnTheWayBack(AffineCoupling):
    """Decodes every row as if its context were zero."""

    def inverse(self, params, z, context=None):
        return super().inverse(params, z, 0 * context)


report = check(Given(ForgetsOnTheWayBack(MLP((16,), "tanh")), (1.0, 0.0)), x)
print(report.failures[0].sentence)

# %% [markdown]
# ## Exercises
#
# 1. An ActNorm whose scale depends on $c$ alone: what is its log-determinant?
# 2. When do two separate flows learn more from the same data than one conditional flow, and when less?
# 3. Half of the labels are missing. Which loss uses all rows? (Start from $p(x) = \sum_c P(c)\, p(x | c)$.)
# 4. A small image is given whose pixels are block means rounded to integers. Which large images shrink to it? How
#    would the flow have to change?
# 5. `npflow exercise conditional` and `npflow exercise pair` write a page each to complete;
#    `npflow exercise pair FILE` marks it.
