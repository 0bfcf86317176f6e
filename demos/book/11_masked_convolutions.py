# %% [markdown]
# # 11. Masked convolutions: MintNet and PixelCNN
#
# **Can a convolution be a triangle?** Order the pixels of an image, and let each see only those before it. A
# convolution with half of its kernel set to zero does that. With it one can build a flow, or a model of
# pixels that is no flow.

# %%
import inspect
import os

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.layers import MaskedConvolution
from npflow.models import PixelCNN
from npflow.networks import MaskedConvNet
from npflow.networks.masked import causal_mask
from npflow.training import Adam
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, SIDE, FILTERS, ORDERS = (
    (2, 2, 1, ["raster"]) if os.environ.get("NPFLOW_QUICK") else (200, 4, 4, ["raster", "reversed"])
)

# %% [markdown]
# ## The mask
#
# Number the pixels row by row. Under a $3 \times 3$ kernel five places come no later than the middle: the row
# above, the left neighbour, and the middle itself. Mask A closes the middle too, so a pixel sees those before
# it; mask B leaves it open.
#
# The matrix of a convolution with mask B is lower triangular: entry $(i, j)$ is zero unless $j \le i$. With
# mask A it is strictly lower triangular. And a product of lower triangular matrices is lower triangular, so
# convolutions can be stacked.

# %%
for kind in ("A", "B"):
    mask = causal_mask(kind, (5, 1, 1), 1, np.float64).ravel()
    print(f"mask {kind}: row above {mask[:3]}, left and middle {mask[3:]}")

# %% [markdown]
# ## MintNet: a triangle with a positive diagonal
#
# Take three masked convolutions beside the identity, $f(x) = t x + W_3 h(W_2 h(W_1 x))$ with
# $W_k = L_k + D_k$: a strictly lower triangle $L_k$, through which a component sees those before it, and a
# part $D_k \ge 0$, through which it sees itself. A path from $x_i$ to $z_i$ can never go back in the order,
# so it stays at $i$, and uses $D$ in all three convolutions. By the chain rule the diagonal collects these
# paths alone:
#
# $$\frac{\partial f_i}{\partial x_i} = t_i + \big(D_3\, h'(a_2)\, D_2\, h'(a_1)\, D_1\big)_i > 0, \qquad
# \log|\det J| = \sum_i \log \frac{\partial f_i}{\partial x_i}.$$
#
# It is positive, as $t > 0$ and $h' > 0$ for the ELU. So $f$ has an inverse: solve for $x_1$, then for $x_2$,
# and so on, each an increasing function of one number.

# %%
print(inspect.getsource(MaskedConvolution.forward))
print(inspect.getsource(MaskedConvolution.inverse))

# %%
x = rng.standard_normal((8, SIDE, SIDE, 1))
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for ax, order in zip(axes, ORDERS):
    report = check(MaskedConvolution(filters=FILTERS, order=order), x)
    one = report.jacobians["forward"]
    plots.jacobian(one.numerical, ax, title=f"{order} order, {SIDE} x {SIDE} pixels")
    print(f"{order:8} log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## The inverse is an iteration
#
# There is no formula for $f^{-1}$. With the diagonal $d(x)$ at hand, repeat
#
# $$x \leftarrow x + \frac{z - f(x)}{d(x)}.$$
#
# This is Newton's method with the diagonal in place of $J$. The first pixel depends on nothing else, so for
# it this is Newton's method in one dimension; once it has converged, the second pixel is in the same
# position; and so on. In practice all converge together. Count:

# %%
layer = MaskedConvolution(filters=FILTERS)
params = layer.init(rng, x)
z, _ = layer.forward(params, x)


def diagonal(at, h=1e-6):
    """The diagonal of the Jacobian by central differences, one component at a time."""
    d = np.empty_like(at)
    for place in np.ndindex(at.shape[1:]):
        step = np.zeros_like(at)
        step[(slice(None), *place)] = h
        difference = layer.forward(params, at + step)[0] - layer.forward(params, at - step)[0]
        d[(slice(None), *place)] = difference[(slice(None), *place)] / (2 * h)
    return d


guess, errors = z.copy(), []
for _ in range(12):
    errors.append(np.abs(guess - x).max())
    guess = guess + (z - layer.forward(params, guess)[0]) / diagonal(guess)
figure, ax = plt.subplots(figsize=(6, 3), layout="constrained")
ax.semilogy(errors, "o-", color="#0072B2")
ax.set(xlabel="iterations", ylabel="largest error of x", title="All pixels at once")
print(f"error after {len(errors) - 1} iterations {errors[-1]:.1e}")

# %% [markdown]
# ## PixelCNN: the same mask, no flow
#
# A PixelCNN predicts the *probabilities* of a pixel's levels from the pixels before it:
#
# $$P(x) = \prod_i P(x_i | x_{<i}),
# \qquad -\log P(x) = -\sum_i \log \operatorname{softmax}_{x_i}(\text{logits}_i(x_{<i})).$$
#
# The data stay integers, there is no $z$, no Jacobian and no bound. Sampling takes one step a pixel, as for a
# MAF.

# %%
data = datasets.image_data("digits")
model = PixelCNN(
    data.train.shape[1:], levels=data.levels, network=MaskedConvNet(4 * FILTERS, blocks=2, kernel=3)
)
params = model.init(rng, data.train)
params, _ = fit(model, params, data.train, rng=rng, steps=STEPS, optimizer=Adam(5e-3), progress=False)
print(
    f"{model.bits_per_dim(params, data.test).mean():.3f} bits/dim; "
    f"a model that knows nothing has {np.log2(data.levels):.3f}"
)
axes = plots.images(model.sample(params, rng, 20), levels=data.levels, columns=10, title="samples")

# %% [markdown]
# ## What can go wrong
#
# A mask that is open one place too far lets a pixel see its right neighbour. The Jacobian is no triangle any
# more, and the sum of the logarithms of its diagonal is not the log-determinant:


# %%
class SeesTheRight(MaskedConvolution):
    """Adds a part of the right neighbour."""

    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        right = anp.concatenate([x[:, :, 1:], 0 * x[:, :, :1]], axis=2)
        return z + 0.2 * right, log_det


report = check(SeesTheRight(filters=FILTERS), x)
print(report.failures[0].sentence)

# %% [markdown]
# ## Exercises
#
# 1. Stack two convolutions with mask B. Which pixels does the last pixel of a row not see, though they are
#    before it?
# 2. Why must the first convolution of a PixelCNN have mask A, and the others may have mask B?
# 3. How many iterations does the inverse need at most in exact arithmetic if each $f_i$ is linear in $x_i$?
# 4. `npflow exercise causal_mask` writes a page to complete; `npflow exercise causal_mask FILE` marks it.
