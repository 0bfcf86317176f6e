# %% [markdown]
# # 14. Planar, radial and Sylvester flows
#
# **Can a map that changes all components at once have a determinant that costs almost nothing?** Yes, if it
# moves points in a few directions only. The price is the inverse, which needs the root of an equation.

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
# Move each point along one vector $u$, by an amount that depends on one number, $a = w^T x + b$:
#
# $$z = x + u \tanh(a), \qquad J = I + \tanh'(a)\, u w^T.$$
#
# $J$ is the identity plus the product of a column and a row. It maps every vector orthogonal to $w$ to itself,
# so $D - 1$ of its eigenvalues are 1. The last one belongs to the eigenvector $u$: it is
# $1 + \tanh'(a)\, w^T u$. The determinant is their product. For any vectors $v$ and $w$ this is the **matrix
# determinant lemma**:
#
# $$\det(I + v w^T) = 1 + w^T v, \qquad \log|\det J| = \log\big(1 + \tanh'(a)\, w^T u\big).$$
#
# That is one number for each row, in $O(D)$ operations.

# %%
print(inspect.getsource(Planar.forward))
print(inspect.getsource(Planar.inverse))

# %% [markdown]
# ## Invertible by construction
#
# $\tanh'$ lies between 0 and 1, so the determinant is positive everywhere if $w^T u > -1$. Training alone does
# not keep $u$ there. So the layer replaces the component of $u$ along $w$ such that
# $w^T u = \operatorname{softplus}(\cdot) - 1$.
#
# For the inverse, multiply $z = x + u \tanh(a)$ by $w^T$ and add $b$:
#
# $$w^T z + b = a + w^T u \tanh(a).$$
#
# The right side increases with $a$, since its slope is the determinant. So only one number has to be found for
# each row, however large $D$ is, and then $x = z - u \tanh(a)$.


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
# A planar map stretches space across a plane, or squeezes it almost flat. A radial map,
# $z = x + g q (x - c)$ with $q = s / (s + |x - c|)$, stretches the neighbourhood of a point $c$. In the
# $D - 1$ directions around $c$ it stretches by $1 + gq$, and along the radius by $1 + gq^2$. So
# $\log|\det J| = (D - 1) \log(1 + gq) + \log(1 + gq^2)$.
#
# ## Several planes at once: Sylvester's identity
#
# Now let $a$ have $M$ components. Each depends on all of $x$, and moves $x$ in a direction of its own. With $A$
# of shape $D \times M$ and $B$ of shape $M \times D$
#
# $$z = x + A \tanh(a), \qquad a = B x + b, \qquad \det\big(I_D + A\, \mathrm{diag}(\tanh'(a))\, B\big) =
# \det\big(I_M + \mathrm{diag}(\tanh'(a))\, B A\big).$$
#
# The last equation is Sylvester's identity: the factors change places, and a $D \times D$ determinant becomes
# one of $M \times M$. Van den Berg et al. (2018) make $BA$ triangular: $A = Q R$ and $B = S Q^T$, with $M$
# orthonormal columns in $Q$ and upper triangular $R$ and $S$. Then $B A = S\, Q^T Q\, R = S R$, and
#
# $$\log|\det J| = \sum_i \log\big(1 + \tanh'(a_i)\, R_{ii} S_{ii}\big).$$

# %%
print(inspect.getsource(Sylvester.forward))
print(inspect.getsource(Sylvester.matrices))

# %% [markdown]
# With $M = 2$ in five dimensions the Jacobian looks full, but $J - I$ has two singular values that are not 0:

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
# A planar layer bends space at one plane, so two moons take many of them: here 32 planar layers, or 16 Sylvester
# layers of two planes each. Planar flows were made for another purpose: small corrections of the posterior in a
# variational autoencoder, where only `forward` and its determinant are needed (chapter 20).

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
# A batch has its points in rows, and for rows $z = x + A \tanh(a)$ reads `x + tanh(a) @ A.T`, with
# `a = x @ B.T + b`. If both factors are transposed, the two $Q$ still meet: `B.T = Q @ S.T` and
# `A.T = R.T @ Q.T`. Pyro 1.9 multiplies rows by `S @ Q.T` and `Q @ R`, which are the factors for columns. Then
# $(BA)^T = Q R S Q^T$: the $Q$ are on the outside, the product is not triangular, and $R_{ii} S_{ii}$ is not its
# diagonal. With weights near 0 the two determinants agree, so a test at the start of training passes.


# %%
class InRows(Layer):
    """The log-det of the triangles, with rows multiplied by the factors for columns."""

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
# 2. A planar layer with $w^T u = -1$ has a determinant of 0 at one value of $a$. Do two points share one $z$
#    then? And with $w^T u = -2$?
# 3. Two planar layers in a row move each point within the plane of $u_1$ and $u_2$. Why are they not a Sylvester
#    layer with $M = 2$?
# 4. `npflow exercise planar` writes a page to complete; `npflow exercise planar FILE` marks it.
