# %% [markdown]
# # 1. Volumes and determinants
#
# **How much does a map stretch space near a point?** The answer is one number, and everything that a flow
# adds to a loss comes from it. This chapter builds it up: first on a line, then for a parallelogram, then for
# any smooth map.

# %%
import inspect
import itertools

import matplotlib.pyplot as plt
import numpy as np
from scipy.differentiate import jacobian

from npflow import plots

plt.style.use(plots.STYLE)

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "0.6"

# %% [markdown]
# ## One dimension: the derivative
#
# Let $z = f(x)$, and look at a short interval from $x$ to $x + h$. Its image runs from $f(x)$ to $f(x + h)$.
# By Taylor's theorem
#
# $$f(x + h) - f(x) = f'(x)\, h + O(h^2).$$
#
# So the interval becomes $f'(x)$ times as long, up to an error that vanishes faster than $h$. Where $f$
# falls, $f'$ is negative: the interval is turned over. A length has no sign, so the factor is $|f'(x)|$.
#
# Take $f(x) = \sinh x$ as an example. Its derivative is $\cosh x$.

# %%
x = np.array([-2.0, -1.0, 0.0, 1.0, 2.0])
h = 1e-3
print("    x   length of the image / h     cosh x")
for at in x:
    print(f"{at:5.1f}{(np.sinh(at + h) - np.sinh(at)) / h:20.4f}{np.cosh(at):20.4f}")

# %%
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ticks = np.linspace(-2, 2, 17)
for left, right in itertools.pairwise(ticks):
    shade = BLUE if round(8 * (left + 2)) % 4 == 0 else ORANGE
    ax.fill([left, right, np.sinh(right), np.sinh(left)], [1, 1, 0, 0], color=shade, alpha=0.5, linewidth=0)
ax.set(yticks=[0, 1], yticklabels=["z = sinh x", "x"], title="Equal intervals of x, and what they become")
ax.spines[["top", "right", "left"]].set_visible(False)

# %% [markdown]
# ## Two dimensions: the parallelogram
#
# A linear map $z = A x$ takes the unit square to a parallelogram with the sides
#
# $$A e_1 = \begin{pmatrix} a \\ c \end{pmatrix}, \qquad A e_2 = \begin{pmatrix} b \\ d \end{pmatrix},
# \qquad A = \begin{pmatrix} a & b \\ c & d \end{pmatrix}.$$
#
# What is its area? Slide the second side along the first. That shears the parallelogram, and a shear keeps
# the area: base and height stay. Slide until the second side stands on the second axis. It has moved by
# $b / a$ times the first side, so its height is now $d - b c / a$. Then slide the first side along the second
# until it lies on the first axis: its length is $a$. What is left is a rectangle with the area
#
# $$\left| a \left(d - \frac{b c}{a}\right) \right| = |a d - b c| = |\det A|.$$
#
# In words: the absolute value of the determinant is the factor by which a linear map changes areas. The same
# argument, one axis after the other, is Gaussian elimination, and holds in any dimension: $|\det A|$ is the
# factor for volumes.

# %%
A = np.array([[2.0, 0.8], [0.5, 1.2]])
corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
sheared = np.array([[A[0, 0], 0], [0, np.linalg.det(A) / A[0, 0]]])

figure, axes = plt.subplots(1, 3, figsize=(10, 3.2), layout="constrained", sharex=True, sharey=True)
for ax, matrix, title in zip(
    axes,
    (np.eye(2), A, sheared),
    ("the unit square", "its image under A", "sheared until it is a rectangle"),
):
    points = corners @ matrix.T
    ax.fill(*points.T, color=BLUE, alpha=0.4)
    ax.set(title=f"{title}\narea {abs(np.linalg.det(matrix)):.2f}", aspect="equal")

# %% [markdown]
# ## The sign
#
# $\det A$ is negative where $A$ turns the plane over, as a mirror does. Volumes do not see that. Leave the
# absolute value out, and half of all matrices give the logarithm of a negative number:

# %%
rng = np.random.default_rng(0)
determinants = np.linalg.det(rng.standard_normal((1000, 3, 3)))
print(f"{np.mean(determinants < 0):.0%} of 1,000 random matrices have a negative determinant")

# %% [markdown]
# ## Any smooth map: the Jacobian
#
# Near a point $x$ a smooth map is nearly linear:
#
# $$f(x + h) = f(x) + J(x)\, h + O(|h|^2), \qquad J_{ij} = \frac{\partial f_i}{\partial x_j}.$$
#
# So a small square at $x$ becomes nearly a parallelogram, and volumes near $x$ change by the factor
# $|\det J(x)|$. For a sequence of maps the chain rule multiplies Jacobians, and the determinant of a product
# is the product of the determinants. **Factors multiply, so their logarithms add.** That is why a flow adds
# up one log-determinant a layer.
#
# Take a strip bent around the origin by polar coordinates, and look at small squares.


# %%
def bend(x):
    """A smooth map of the plane. The first axis holds the coordinates, as SciPy's `jacobian` expects."""
    radius, angle = np.exp(0.4 * x[0]), 0.7 * x[1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)])


figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for corner in np.stack(np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0]), axis=-1).reshape(-1, 2):
    square = corner + 0.5 * corners
    factor = abs(np.linalg.det(jacobian(bend, corner + 0.25).df))
    left.fill(*square.T, color=BLUE, alpha=0.4)
    right.fill(*bend(square.T), color=ORANGE, alpha=0.5)
    right.annotate(f"{factor:.2f}", bend(corner + 0.25), ha="center", va="center", fontsize=8)
left.set(title="squares at x", aspect="equal")
right.set(title="their images, with |det J| in the middle of each", aspect="equal")

# %% [markdown]
# ## In npflow
#
# A layer returns the logarithm of this factor beside its output, one number a row. `check` holds it against
# the determinant of a numerical Jacobian, which is what the picture above does.

# %%
from npflow.layers import Conv1x1
from npflow.verify import check

layer, rows = Conv1x1(), rng.standard_normal((8, 2))
params = layer.init(rng, rows)
z, log_det = layer.forward(params, rows)
print("log|det J| of each row:", np.round(log_det, 4))

report = check(layer, rows)
plots.jacobian(report.jacobians["forward"].numerical, title="the Jacobian of this layer, by differences")
for direction in ("forward", "inverse"):
    one = report.jacobians[direction]
    print(
        f"{direction}: log|det| of the numerical Jacobian {one.log_abs_det:.10f}, "
        f"of the formula {one.log_det:.10f}"
    )

# %% [markdown]
# The layer's two maps, from its file. Chapter 7 explains the parts of its matrix.

# %%
print(inspect.getsource(Conv1x1.forward))
print(inspect.getsource(Conv1x1.inverse))

# %% [markdown]
# ## What can go wrong
#
# Forget the absolute value, and everything works until a determinant is negative. `check` moves parameters
# until it is.


# %%
import autograd.numpy as anp


class NoAbs(Conv1x1):
    """A matrix whose log-determinant is log det, without the absolute value."""

    def init(self, rng, x):
        weight = 0.8 * np.eye(x.shape[1]) + 0.05 * rng.standard_normal((x.shape[1], x.shape[1]))
        return {"weight": weight.astype(x.dtype)}

    def forward(self, params, x):
        log_det = anp.log(anp.linalg.det(params["weight"])) * anp.ones_like(x[:, 0])
        return x @ params["weight"], log_det

    def inverse(self, params, z):
        inverse = anp.linalg.inv(params["weight"])
        return z @ inverse, anp.log(anp.linalg.det(inverse)) * anp.ones_like(z[:, 0])

    def log_det(self, params, x):
        return self.forward(params, x)[1]


with np.errstate(invalid="ignore"):
    print(check(NoAbs(), rows).failures[0].sentence)

# %% [markdown]
# ## Exercises
#
# 1. $f(x) = x^3$ has $f'(0) = 0$. It has an inverse. Why can it still not be a layer?
# 2. What is $\log|\det J|$ of $z = 3 x$ for $x$ in $D$ dimensions? Check it with `check_functions`.
# 3. Show that a rotation of the plane has $|\det J| = 1$, by the formula and with the picture.
# 4. `npflow exercise volume` writes a page to complete; `npflow exercise volume FILE` marks it.
