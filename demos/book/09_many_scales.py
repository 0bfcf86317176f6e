# %% [markdown]
# # 9. Squeeze, split, and many scales
#
# **An image has thousands of numbers, and a flow keeps all of them. How can it be deep and still
# affordable?** It moves pixels into channels, and lets half of the channels out at each level.

# %%
import inspect

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

from npflow import plots
from npflow.layers import ActNorm, Chain, Conv1x1, Split, Squeeze, Unsqueeze
from npflow.layers import reshape as reshape_file
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)

# %% [markdown]
# ## Squeeze
#
# Each block of $2 \times 2$ pixels becomes one pixel with four times the channels. No number changes, each
# moves to another place. So the Jacobian is a permutation matrix: one 1 in each row and column. Its
# determinant is $\pm 1$, and
#
# $$\log|\det J| = 0.$$

# %%
print(inspect.getsource(reshape_file.squeeze))
image = np.arange(16.0).reshape(1, 4, 4, 1)
squeezed, _ = Squeeze().forward({}, image)
figure, axes = plt.subplots(1, 5, figsize=(10, 2.4), layout="constrained")
for ax, (title, plane) in zip(
    axes, [("the image", image[0, :, :, 0]), *((f"channel {c}", squeezed[0, :, :, c]) for c in range(4))]
):
    ax.imshow(plane, cmap="cividis", vmin=0, vmax=15)
    for (i, j), value in np.ndenumerate(plane):
        ax.text(j, i, f"{value:.0f}", ha="center", va="center", color="white" if value < 8 else "black")
    ax.set(title=title, xticks=[], yticks=[])
    ax.spines[:].set_visible(False)

# %%
report = check(Squeeze(), rng.standard_normal((8, 4, 4, 1)))
plots.jacobian(report.jacobians["forward"].numerical, title="the Jacobian of Squeeze: a permutation")

# %% [markdown]
# Why squeeze? A coupling or a 1x1 convolution mixes channels, and a grey image has only one. After a squeeze
# there are four. And a $3 \times 3$ convolution then sees a square of $6 \times 6$ pixels of the image.

# %% [markdown]
# ## $H W$
#
# A layer with parameters per channel uses them at each of $H W$ pixels. Its Jacobian is block diagonal with
# $H W$ equal blocks, so
#
# $$\log|\det J| = H W \log|\det \text{block}|.$$
#
# A squeeze divides $H W$ by four and multiplies the channels by four: their product, the number of
# components, stays.

# %%
for name, shape in {"the image": (4, 4, 1), "squeezed": (2, 2, 4), "squeezed twice": (1, 1, 16)}.items():
    x = rng.standard_normal((16, *shape))
    params = ActNorm().init(rng, 3 * x)
    log_det = ActNorm().log_det(params, x)[0]
    height, width, channels = shape
    print(
        f"{name:15} H W = {height * width:2}, {channels:2} channels: H W sum(s) = {log_det:+.4f}, "
        f"sum(s) = {params['log_scale'].sum():+.4f}"
    )

# %% [markdown]
# ## Split
#
# After some steps, half of the channels are final: they are compared with the prior as they are. Only the
# other half goes on. The map is a block diagonal one,
#
# $$z = \big(a,\; g(b)\big), \qquad J = \begin{pmatrix} I & 0 \\ 0 & J_g \end{pmatrix}, \qquad
# \log|\det J| = 0 + \log|\det J_g|.$$
#
# In code a split is a layer around layers, so that many scales are a recursion:

# %%
print(inspect.getsource(Split.steps))


def level(inner=()):
    """Squeeze, a step, split off half, and the next level inside."""
    return [Squeeze(), ActNorm(), Conv1x1(), *inner, Unsqueeze()]


flow = Chain(level([Split(Chain(level([Split(Chain([ActNorm()]))])))]))
x = rng.standard_normal((16, 4, 4, 1))
report = check(flow, x)
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="three levels on 4 x 4 pixels")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# How much does it save? With $L$ levels, level $l$ works on $D / 2^{l}$ components:
#
# $$D \left(1 + \tfrac12 + \tfrac14 + \dots\right) < 2 D,
# \quad \text{where } L \text{ levels without splits take } L D.$$

# %%
D = 32 * 32 * 3
for levels in (1, 2, 3, 4):
    parts = [D // 2**level for level in range(levels)]
    print(
        f"{levels} levels work on {' + '.join(map(str, parts))} = {sum(parts)} components, "
        f"without splits on {levels * D}"
    )

# %% [markdown]
# ## What can go wrong
#
# An inverse that puts pixels back in another order keeps the volume, so its log-determinant is right. It is
# still no inverse.


# %%
class PlainReshape(Squeeze):
    """Goes back by a plain reshape, as if the channels of a block lay side by side in memory."""

    def inverse(self, params, z):
        n, height, width, channels = z.shape
        return anp.reshape(z, (n, 2 * height, 2 * width, channels // 4)), anp.zeros_like(z[:, 0, 0, 0])


print(check(PlainReshape(), x).failures[0].sentence)

# %% [markdown]
# ## Exercises
#
# 1. Write the permutation matrix of a squeeze of $2 \times 2$ pixels with 2 channels by hand.
# 2. A 1x1 convolution after a squeeze has 16 weights on a grey image. Which maps of $2 \times 2$ blocks can
#    it learn?
# 3. The prior of the part that is split off can depend on the part that goes on. Which layer of chapter 6
#    does that?
# 4. `npflow exercise squeeze` and `npflow exercise split` write a page each to complete;
#    `npflow exercise squeeze FILE` marks it.
