# %% [markdown]
# # 15. Residual flows
#
# **Can an ordinary residual network be a flow, without masks and without a half that stays as it is?** Yes, if
# what it adds shortens distances. Its inverse is then an iteration with a guarantee, and its log-determinant a
# series.

# %%
import inspect
import os

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.layers import Residual
from npflow.layers.residual import jacobian, norm_bound, residual
from npflow.models import residual_flow
from npflow.models.residual_flow import roulette
from npflow.training import Adam, WarmupCosine
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
QUICK = bool(os.environ.get("NPFLOW_QUICK"))
STEPS, DEPTH, DRAWS = (10, 2, 200) if QUICK else (600, 8, 5000)

# %% [markdown]
# ## Contractions
#
# Let $z = x + g(x)$, and let $g$ change by at most $L < 1$ times the change of $x$. For two points
#
# $$|z - z'| \ge |x - x'| - |g(x) - g(x')| \ge (1 - L)\, |x - x'|,$$
#
# so two different points never have the same $z$: the map is invertible. $L$ is called a Lipschitz constant of
# $g$. The inverse is the fixed point $x^*$ of $x \leftarrow z - g(x)$. Each step multiplies the error by at most
# $L$ (Banach), and the last step bounds the error that is left: $|x_k - x^*| \le |x_{k+1} - x_k| / (1 - L)$.
#
# A linear map stretches distances by at most its largest singular value $\sigma_1$, and a chain of maps by at most
# the product of their bounds. So divide each weight matrix of a network by a bound of its $\sigma_1$, and each
# activation by its steepest slope. Power iteration, as in the papers, estimates $\sigma_1$ from below. The trace of
# a high power bounds it from above,
#
# $$\sigma_1 \le \Big(\sum_i \sigma_i^{128}\Big)^{1/128} = \mathrm{tr}\big((W^T W)^{64}\big)^{1/128}
# \le c^{1/128}\, \sigma_1,$$
#
# where $c$ is the number of singular values, and six squarings of a matrix compute it.

# %%
weight = rng.standard_normal((64, 64))
print(f"largest singular value {np.linalg.norm(weight, 2):.4f}, its bound {norm_bound(weight):.4f}")
print(inspect.getsource(Residual.forward))
print(inspect.getsource(Residual.inverse))

# %% [markdown]
# ## The network in two moons
#
# The Jacobian of a layer is full. In the plane it has four numbers for each point, and its determinant is cheap.

# %%
x = datasets.moons(4000, rng=rng).astype(np.float32)
flow = residual_flow(2, steps=DEPTH, hidden=(32, 32))
params = flow.init(rng, x)
params, _ = fit(
    flow, params, x, rng=rng, steps=STEPS, optimizer=Adam(WarmupCosine(1e-2, steps=STEPS)), progress=False
)
print(f"loss {flow.loss(params, x):.3f} nats; the entropy of the data is {datasets.Moons().entropy():.3f}")
visits = [visit for visit in flow.visits(params, x[:1500]) if "Residual" in visit.name]
stages = [x[:1500], *(visit.result[0] for visit in visits)]
axes = plots.steps(stages, names=["x", *(f"after layer {k + 1}" for k in range(len(visits)))], columns=5)

# %% [markdown]
# And the Jacobian of one layer in three dimensions, with its log-determinant by differences and by the formula:

# %%
points = rng.standard_normal((8, 3))
layer = Residual(hidden=(16, 16), lipschitz=0.9)
start = layer.init(rng, points)
for part in start:  # weights of one sign, with which the network comes near its bound
    part["weight"] = np.abs(rng.standard_normal(part["weight"].shape))
report = check(layer, points, params=start)
one = report.jacobians["forward"]
figure, ax = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
plots.jacobian(one.numerical, ax, title="the Jacobian of Residual")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## A series for the log-determinant
#
# For images the determinant of a $D \times D$ matrix takes too long. All eigenvalues of
# $G = \partial g / \partial x$ are smaller than 1 in absolute value, so the logarithm of $I + G$ has a power series:
#
# $$\log\det(I + G) = \mathrm{tr} \log(I + G) = \sum_{k=1}^\infty \frac{(-1)^{k+1}}{k}\, \mathrm{tr}(G^k).$$
#
# Three tricks make it cheap. **Hutchinson**: for a random $v$ with $E[v v^T] = I$,
# $E[v^T A v] = \mathrm{tr}(A)$, and $G^k v$ takes $k$ products with $G$, none of which needs the matrix.
# **Roulette**: a series that is cut off has a bias. Cut it off at a random $N$, and divide term $a_k$ by
# $P(N \ge k)$. Then there is none:
#
# $$E\Big[\sum_{k=1}^N \frac{a_k}{P(N \ge k)}\Big] = \sum_{k=1}^\infty a_k.$$
#
# **Neumann**: the gradient needs $(I + G)^{-1} = I - G + G^2 - \ldots$ only times one vector, so the memory does
# not grow with the number of terms.

# %%
print(inspect.getsource(Residual.forward_estimate))

# %%
row = points[:1]
arrays = layer.arrays(start)
G = jacobian(residual(row, *arrays)[1], (3,), *arrays)[0]
exact = np.linalg.slogdet(np.eye(3) + G)[1]
many, v = np.tile(row, (DRAWS, 1)), rng.standard_normal((DRAWS, 3))
draws = {}
for terms in (1, 2, 4):
    draws[f"{terms} term{'s' * (terms > 1)}"] = layer.forward_estimate(
        start, many, v, np.ones((DRAWS, terms))
    )[1]
coefficients = np.zeros((DRAWS, 40))
for row_of in coefficients:
    drawn = roulette(rng, exact=1)[:40]
    row_of[: len(drawn)] = drawn
draws["roulette"] = layer.forward_estimate(start, many, v, coefficients)[1]
for name, found in draws.items():
    error = found.std() / np.sqrt(DRAWS)
    print(f"{name:9} bias {found.mean() - exact:+.4f} +- {error:.4f}, deviation of a draw {found.std():.4f}")

# %% [markdown]
# All rows use the same draws of $v$, so most of their error is common. Compared with more terms, a single term is
# off by some 0.03 nats in the mean. The roulette agrees with four terms, though it takes a random number of them.
#
# ## What can go wrong: no bound
#
# With weights beyond the bound the formula is still that of the Jacobian, and differences agree with it. But two
# points may have the same $z$, and the iteration of the inverse diverges:


# %%
class Unbounded(Residual):
    """Multiplies the first weight by 4, after the division by its bound."""

    def arrays(self, params):
        arrays = super().arrays(params)
        arrays[0] = 4 * arrays[0]
        return arrays

    def inverse(self, params, z):
        x, arrays = z, self.arrays(params)
        for _ in range(20):
            x = z - residual(x, *arrays)[0]
        return x, -self.forward(params, x)[1]


report = check(Unbounded((16, 16)), points, params=start)
print(report.failures[0].sentence)


# %% [markdown]
# And a series that is cut off after one term, $\log\det(I + G) \approx \mathrm{tr}(G)$, is wrong in each row:


# %%
class FirstTerm(Residual):
    """Takes the trace alone."""

    def forward(self, params, x):
        arrays = self.arrays(params)
        g, slopes = residual(x, *arrays)
        return x + g, anp.trace(jacobian(slopes, x.shape[1:], *arrays), axis1=1, axis2=2)


report = check(FirstTerm((16, 16)), points, params=start)
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. By what factor does the volume of a small cube change at least, and at most, for a given $L$ and $D$?
# 2. The slopes of the sigmoid are at most 1/4. What would a residual layer with sigmoids lose, and how could its
#    weights make up for it?
# 3. Derive $\frac{d}{dt} \log\det(I + G(t)) = \mathrm{tr}\big((I + G)^{-1} G'\big)$ from the series.
# 4. Let $a_k = L^k / k$ and $P(N \ge k) = p^{k-1}$. For which $p$ is the variance of the roulette finite?
