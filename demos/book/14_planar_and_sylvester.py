# %% [markdown]
# # 14. Planar, radial and Sylvester flows
#
# **Can a map of all components at once have a determinant that costs almost nothing?** Yes, if it differs
# from the identity in a few directions only. The price is the inverse, which needs the root of an equation.

# %%
import inspect
import os

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.layers import Layer, Planar, Radial, Sylvester
from npflow.models import planar, sylvester
from npflow.training import Adam, WarmupCosine
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, DEPTH = (10, 2) if os.environ.get("NPFLOW_QUICK") else (600, 16)

# %% [markdown]
# ## The matrix determinant lemma
#
# Move each point along one vector $u$, by an amount that depends on one number of it, $a = w^T x + b$:
#
# $$z = x + u \tanh(a), \qquad J = I + \tanh'(a)\, u w^T.$$
#
# $J$ is the identity and a product of a column and a row. It leaves every vector orthogonal to $w$ alone, so
# $D - 1$ of its eigenvalues are 1. The eigenvector $u$ has the last one, $1 + \tanh'(a)\, w^T u$. The
# determinant is the product of them:
#
# $$\det(I + v w^T) = 1 + w^T v, \qquad \log|\det J| = \log\big(1 + \tanh'(a)\, w^T u\big).$$
#
# One number, and $O(D)$ operations.

# %%
print(inspect.getsource(Planar.forward))
print(inspect.getsource(Planar.inverse))

# %% [markdown]
# ## Invertible by construction
#
# $\tanh'$ lies between 0 and 1, so the determinant is positive everywhere if $w^T u > -1$. Nothing keeps a
# trained $u$ there. So the layer replaces the component of $u$ along $w$, such that
# $w^T u = \operatorname{softplus}(\cdot) - 1$.
#
# For the inverse multiply $z = x + u \tanh(a)$ by $w^T$ and add $b$:
#
# $$w^T z + b = a + w^T u \tanh(a).$$
#
# The right side increases with $a$, since its slope is the determinant. So one number of each row has to be
# found, however large $D$ is, and then $x = z - u \tanh(a)$.


# %%
def lines(layer, params, ax, title):
    """The image of a grid under the layer."""
    plots.grid(lambda x: layer.forward(params, x)[0], ax, limits=((-3, 3), (-3, 3)), lines=25)
    ax.set_title(title)


figure, axes = plt.subplots(1, 3, figsize=(10, 3.3), layout="constrained")
w = np.array([1.5, 0.5])
for ax, along in zip(axes, (2.0, -3.0)):
    direction = np.array([0.0, 2.5]) + w * along / (w @ w)
    params = {"weight": w, "direction": direction, "bias": np.zeros(1)}
    product = Planar().plane(params, context=None)[3].item() - 1
    lines(Planar(), params, ax, f"planar, w.u = {product:.2f}")
bump = {"centre": np.zeros(2), "log_scale": np.zeros(1), "strength": np.array([3.0])}
lines(Radial(), bump, axes[2], "radial")

# %% [markdown]
# A planar map stretches space across a plane, or folds it almost flat. A radial map,
# $z = x + g q (x - c)$ with $q = s / (s + |x - c|)$, stretches the neighbourhood of a point $c$. In the
# $D - 1$ directions around $c$ it stretches by $1 + gq$, and along the radius by $1 + gq^2$.
#
# ## Several planes at once: Sylvester's identity
#
# Let $a$ have $M$ components, of which each depends on all of $x$, and let each move $x$ in a direction of
# its own. With $A$ of shape $D \times M$ and $B$ of shape $M \times D$
#
# $$z = x + A \tanh(a), \qquad a = B x + b, \qquad \det\big(I_D + A\, \mathrm{diag}(\tanh'(a))\, B\big) =
# \det\big(I_M + \mathrm{diag}(\tanh'(a))\, B A\big).$$
#
# That is Sylvester's identity: the factors change places, and a $D \times D$ determinant becomes one of
# $M \times M$. Van den Berg and others make $BA$ a triangle: $A = Q R$ and $B = S Q^T$, with $M$ orthonormal
# columns in $Q$ and upper triangles $R$ and $S$. Then $B A = S\, Q^T Q\, R = S R$, and
#
# $$\log|\det J| = \sum_i \log\big(1 + \tanh'(a_i)\, R_{ii} S_{ii}\big).$$

# %%
print(inspect.getsource(Sylvester.forward))
print(inspect.getsource(Sylvester.matrices))

# %%
x = rng.standard_normal((16, 5))
layer = Sylvester(rank=2)
params = layer.init(rng, x)
params = {name: leaf + 0.5 * rng.standard_normal(leaf.shape) for name, leaf in params.items()}
report = check(layer, x, params=params)
one = report.jacobians["forward"]
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")
figure, axes = plt.subplots(1, 2, figsize=(8, 3.6), layout="constrained")
plots.jacobian(one.numerical, axes[0], title="the Jacobian of Sylvester(rank=2)")
values = np.linalg.svd(one.numerical - np.eye(5), compute_uv=False)
axes[1].bar(range(1, 6), values, color="#0072B2")
axes[1].set(title="singular values of J - I", xlabel="number")

# %% [markdown]
# ## How well do they bend?
#
# A planar layer bends space at one plane. So a density with several pieces takes many of them, where one
# coupling would do. They were made for another place: small corrections of a posterior in a variational
# autoencoder, where only $x \to z$ and its determinant are needed.

# %%
x = datasets.moons(4000, rng=rng).astype(np.float32)
entropy = datasets.Moons().entropy()
for name, flow in (("planar", planar(2, steps=2 * DEPTH)), ("Sylvester", sylvester(2, steps=DEPTH))):
    start = flow.init(np.random.default_rng(0), x)
    learned, _ = fit(
        flow,
        start,
        x,
        rng=np.random.default_rng(0),
        steps=STEPS,
        optimizer=Adam(WarmupCosine(1e-2, steps=STEPS)),
        progress=False,
    )
    print(f"{name:10} {flow.loss(learned, x) - entropy:+.3f} nats above the entropy")

# %% [markdown]
# ## What can go wrong: a transposed triangle
#
# A batch has its points in rows, and in rows $z = x + A \tanh(a)$ reads `x + tanh(a) @ A.T`, with
# `a = x @ B.T + b`. Transpose both factors, and the $Q$ still meet in the middle: `B.T = Q @ S.T`, and
# `A.T = R.T @ Q.T`. Pyro 1.9 wrote `Q @ R` and `S @ Q.T` for the two factors, with which $x$ is multiplied
# from the left. Then $BA$ is $Q R S Q^T$: the $Q$ are on the outside, the product is no triangle, and its
# diagonal is not its determinant. At weights near 0 the two agree, so a test at the start of training passes.


# %%
class InRows(Layer):
    """The formula of the columns, with factors that rows meet in another order."""

    def init(self, rng, x):
        D = x.shape[1]
        draw = lambda: np.triu(rng.uniform(-0.9, 0.9, (D, D)))
        return {"R": draw(), "S": draw(), "q": rng.standard_normal((D, D))}

    def forward(self, params, x):
        R, S, Q = params["R"], params["S"], np.linalg.qr(np.array(params["q"]))[0]
        t = anp.tanh(anp.dot(x, anp.dot(S, Q.T)))
        slopes = (1 - t * t) * anp.diag(R) * anp.diag(S)
        return x + anp.dot(t, anp.dot(Q, R)), anp.sum(anp.log(anp.abs(1 + slopes)), axis=1)

    def inverse(self, params, z):
        x = z
        for _ in range(40):
            x = x + 0.4 * (z - self.forward(params, x)[0])
        return x, -self.forward(params, x)[1]


report = check(InRows(), rng.standard_normal((16, 3)))
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. Show that $\det(I + v w^T) = 1 + w^T v$ for vectors in the plane by writing out the $2 \times 2$ matrix.
# 2. A planar layer with $w^T u = -1$ has a determinant of 0 at one value of $a$. Which points do then share
#    one $z$?
# 3. Two planar layers in a row move each point within the plane of $u_1$ and $u_2$. Why are they no Sylvester
#    layer with $M = 2$?
# 4. `npflow exercise planar` writes a page to complete; `npflow exercise planar FILE` marks it.
