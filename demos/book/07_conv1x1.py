# %% [markdown]
# # 7. The 1x1 convolution, and $P L U$
#
# **Couplings need their halves to be mixed. Why not learn the mixing?** Glow multiplies the channels of each
# pixel by a trained matrix. Its determinant would cost $C^3$ operations, in every layer and step, so the
# matrix is kept in a form whose determinant can be read off.

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import lu

from npflow import plots
from npflow.layers import Conv1x1
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)

# %% [markdown]
# ## A matrix on the channels
#
# $$z_{ij} = x_{ij} W \quad \text{for every pixel } ij, \qquad \log|\det J| = H W \log|\det W|.$$
#
# A pixel is a row vector, as it is in an array of shape $(n, H, W, C)$, and in the second formula $H W$ is
# the number of pixels. Seen as a map of the whole image, the Jacobian is block diagonal: one copy of $W^T$
# for each pixel. The determinant of a block diagonal matrix is the product of those of its blocks, and
# $\det W^T = \det W$.

# %%
x = rng.standard_normal((8, 2, 2, 3))
report = check(Conv1x1(), x)
plots.jacobian(
    report.jacobians["forward"].numerical, title="2 x 2 pixels, 3 channels: four copies of W transposed"
)

# %% [markdown]
# ## $W = P L U$
#
# Every invertible matrix is a permutation of rows times a lower triangle with ones on its diagonal times an
# upper triangle: that is what Gaussian elimination with pivoting computes. Then
#
# $$\log|\det W| = \underbrace{\log|\det P|}_{0} + \underbrace{\log \det L}_{0}
# + \log|\det U| = \sum_c \log|U_{cc}|.$$
#
# So train $L$, $U$'s upper part and $\log|U_{cc}|$; keep $P$ and the signs of $U$'s diagonal fixed. A sum of
# $C$ numbers is the whole log-determinant, and $W$ can never become singular.

# %%
W = rng.standard_normal((4, 4))
P, L, U = lu(W)
print("P L U is W:", np.allclose(P @ L @ U, W))
print(
    "log|det W|:",
    np.linalg.slogdet(W)[1].round(12),
    "  sum of log|U_cc|:",
    np.log(np.abs(np.diag(U))).sum().round(12),
)

figure, axes = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for ax, (name, matrix) in zip(axes, {"W": W, "P": P, "L": L, "U": U}.items()):
    plots.jacobian(matrix, ax, title=name)

# %%
print(inspect.getsource(Conv1x1))

# %% [markdown]
# ## The inverse
#
# $W^{-1} = U^{-1} L^{-1} P^T$, by two triangular systems. It is computed once for a batch, not once for each
# pixel.
#
# ## Why it starts orthogonal
#
# A random orthogonal $W$ mixes all channels from the first step, and has $|\det W| = 1$: it neither stretches
# nor loses anything, and its condition is 1, so the inverse is as exact as it can be.

# %% [markdown]
# ## What can go wrong
#
# Forget $H W$. On vectors, where there are no pixels, nobody notices.


# %%
class OneCopy(Conv1x1):
    def log_det(self, params, x):
        return super().log_det(params, x) / (x.shape[1] * x.shape[2])

    def forward(self, params, x):
        return super().forward(params, x)[0], self.log_det(params, x)

    def inverse(self, params, z):
        return super().inverse(params, z)[0], -self.log_det(params, z)


print(next(one.sentence for one in check(OneCopy(), x).failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. A permutation of the channels is a special case. Which $L$ and $U$ does it have?
# 2. The signs of $U$'s diagonal are fixed. Which matrices can training not reach? Does it matter?
# 3. Write $W = e^{A}$ with any matrix $A$ instead. Show that $\log \det W = \operatorname{tr} A$.
# 4. `npflow exercise conv1x1` writes a page to complete; `npflow exercise conv1x1 FILE` marks it.
