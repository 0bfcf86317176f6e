# %% [markdown]
# # 3. Products and triangles
#
# **The determinant of a $D \times D$ matrix costs $D^3$ operations, and a Jacobian $D$ passes. How can a flow
# afford one for each row and step?** It never computes one. It is built of maps whose determinant can be read
# off, and of products of them.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np

from npflow import plots
from npflow.layers import AffineCoupling, Chain, MaskedAutoregressive, Permutation
from npflow.networks import MADE, MLP
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
FEATURES = 4 if os.environ.get("NPFLOW_QUICK") else 6

# %% [markdown]
# ## A triangle's determinant is the product of its diagonal
#
# Let $J$ be lower triangular: output $i$ depends on inputs $1 \dots i$ alone. Expand along the first row,
# which has one entry that is not zero:
#
# $$\det \begin{pmatrix} J_{11} & 0 \\ v & J' \end{pmatrix} = J_{11} \det J'
# = J_{11} J_{22} \det J'' = \dots =
# \prod_i J_{ii}.$$
#
# Geometrically: the entries off the diagonal shear, and a shear keeps volumes. So
#
# $$\log|\det J| = \sum_i \log |J_{ii}|,$$
#
# which takes $D$ operations. The entries below the diagonal may be anything, such as the derivatives of a
# deep network: they do not matter.

# %%
matrix = np.tril(rng.standard_normal((5, 5)))
print(f"product of the diagonal {np.prod(np.diag(matrix)):.10f}, determinant {np.linalg.det(matrix):.10f}")

# %% [markdown]
# ## Blocks
#
# The same holds for blocks: $\det \begin{pmatrix} A & 0 \\ B & C \end{pmatrix} = \det A \det C$. A coupling
# leaves half of $x$ alone, so $A$ is the identity, and scales the other half one component at a time, so $C$
# is diagonal.

# %%
x = rng.standard_normal((16, FEATURES))
layers = {
    "coupling: block triangle": AffineCoupling(MLP((16,), "tanh")),
    "autoregressive: triangle": MaskedAutoregressive(network=MADE((16,), "tanh")),
    "permutation: |det| = 1": Permutation(),
}
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3.6), layout="constrained")
for ax, (title, layer) in zip(axes, layers.items()):
    report = check(layer, x)
    one = report.jacobians["forward"]
    plots.jacobian(one.numerical, ax, title=title)
    print(f"{title:28} log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## Products
#
# By the chain rule the Jacobian of $f_2 \circ f_1$ is $J_2(f_1(x))\, J_1(x)$, and
# $\det(A B) = \det A \det B$: stretch by one factor, then by another. So a chain adds up log-determinants,
# each at the point that the layers before have reached:
#
# $$\log|\det J| = \sum_k \log|\det J_k(x_k)|, \qquad x_{k+1} = f_k(x_k).$$
#
# A product of two triangles is no triangle, if one of them is a lower and the other an upper one, or if a
# permutation stands between them. The chain below is a full matrix. Its determinant is still read off.

# %%
step = [AffineCoupling(MLP((16,), "tanh")), Permutation()]
chain = Chain(step * 3)
report = check(chain, x)
one = report.jacobians["forward"]
ax = plots.jacobian(one.numerical, title="three couplings, a permutation after each")
print(f"by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# `Chain.forward` is a loop: each layer takes what the one before it gave, and the log-dets are added up.


# %%
def forward(layers, params, x):
    total = np.zeros(len(x))
    for layer, own in zip(layers, params):
        x, log_det = layer.forward(own, x)
        total = total + log_det
    return x, total


params = chain.init(rng, x)
for by_hand, of_chain in zip(forward(chain.layers, params, x), chain.forward(params, x)):
    print("the same as Chain.forward:", np.array_equal(by_hand, of_chain))

# %% [markdown]
# In its file a chain says which layers it has and in which order they are applied. The loop is that of all
# layers that are made of layers:

# %%
print(inspect.getsource(Chain))

# %% [markdown]
# ## $P L U$
#
# A dense matrix can be kept as a product as well: $W = P L U$ with a permutation $P$, a lower triangle $L$
# with ones on its diagonal, and an upper triangle $U$. Then $|\det P| = 1$, $\det L = 1$, and
#
# $$\log|\det W| = \sum_i \log|U_{ii}|.$$
#
# Chapter 7 does this for Glow's 1x1 convolution.

# %% [markdown]
# ## What can go wrong
#
# Each $\log|\det J_k|$ belongs to the point that its layer sees. Evaluate all of them at the first $x$, and
# the sum is wrong as soon as a log-determinant depends on its input:


# %%
class AtTheFirstPoint(Chain):
    """A chain that asks every layer for its log-det at the input of the chain."""

    def forward(self, params, x):
        z, _ = super().forward(params, x)
        return z, sum(layer.log_det(own, x) for layer, own in zip(self.layers, params))


report = check(AtTheFirstPoint(step * 2), x)
print(next(check.sentence for check in report.failures if "log-det" in check.name))

# %% [markdown]
# ## Exercises
#
# 1. Show that $\det(A^{-1}) = 1 / \det A$ from the product rule. What does it say about `forward` and
#    `inverse`?
# 2. Write a layer $z = x L^T$ with a lower triangle $L$ whose diagonal is $e^s$. What is its log-determinant?
#    Let `check` mark it.
# 3. A network has 10 layers, each with a dense Jacobian of 3072 x 3072. How many operations would the
#    determinants of one image cost? How many does a coupling need?
# 4. `npflow exercise chain` and `npflow exercise triangle` write a page each to complete;
#    `npflow exercise chain FILE` marks it.
