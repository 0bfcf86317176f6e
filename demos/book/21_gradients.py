# %% [markdown]
# # 21. Gradients: tape, program, and Adam
#
# **How does one loss give a million derivatives for the price of a few evaluations?** By the chain rule,
# walked backwards. npflow does it once by autograd, writes down what was computed, and replays that.

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
from autograd import make_vjp

from npflow import Flow, plots
from npflow.autodiff import Layout, record, value_and_grad
from npflow.layers import Affine, AffineCoupling
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import Adam
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)

# %% [markdown]
# ## The chain rule, from the left
#
# Let $L = \ell(f_K(\dots f_1(\theta)))$. Its gradient is a product of Jacobians,
#
# $$\nabla L^T = \nabla \ell^T\, J_K \cdots J_2\, J_1.$$
#
# Multiply from the left, and each product is a *row* times a matrix: $v^T J_k$. No matrix is ever formed.
# From the right they would be matrices times matrices, as many columns as parameters. So each function needs
# to know one thing: how to take $v$ to $v^T J$, its vector-Jacobian product (VJP). Three of them make a
# network:
#
# | function | $v^T J$ |
# | --- | --- |
# | $y = \tanh x$ | $v (1 - y^2)$ |
# | $y = x W$ | $v\, W^T$ for $x$, and $x^T v$ for $W$ |
# | $y = \sum_i x_i$ | $v$ for each $i$ |
#
# A VJP with each unit vector $e_i$ gives row $i$ of the Jacobian. That is how `check` has autograd's
# Jacobian:

# %%
layer = AffineCoupling(MLP((8,), "tanh"))
x = rng.standard_normal((1, 4))
start = layer.init(rng, np.repeat(x, 8, axis=0))
layout = Layout(start)
params = layout.unpack(layout.pack(start) + 0.5 * rng.standard_normal(layout.size), start)
vjp, z = make_vjp(lambda row: layer.forward(params, row)[0])(x)
rows = np.concatenate([vjp(unit[None]) for unit in np.eye(4)])
plots.jacobian(rows, title="four vector-Jacobian products")
print(
    f"log|det| of these rows {np.linalg.slogdet(rows)[1]:+.10f}, "
    f"the layer's formula {layer.forward(params, x)[1][0]:+.10f}"
)

# %% [markdown]
# ## A recorded program
#
# autograd records every operation on a tape, at each step anew. A flow performs the same operations in each
# step, so npflow records once and writes out the program: forward, then backward. For the affine flow of
# chapter 4 it is short enough to read whole:

# %%
flow = Flow(Affine(), Normal(1))
data = rng.normal(3.0, 0.5, (100, 1))
params = {"layer": {"mean": np.array([1.0]), "log_std": np.array([0.3])}, "prior": {}}
program = record(flow.loss, params, data)
print(program.source)

# %% [markdown]
# Read the backward part beside the gradient by hand of chapter 4. With $z = (x - m)\, e^{-s}$ and
# $L = \overline{z^2 / 2} + s + \tfrac12 \log 2 \pi$,
#
# $$\frac{\partial L}{\partial z_i} = \frac{z_i}{n}, \qquad
# \frac{\partial L}{\partial m} = -\sum_i \frac{z_i}{n}\, e^{-s}, \qquad
# \frac{\partial L}{\partial s} = 1 - \sum_i \frac{z_i^2}{n}.$$

# %%
value, gradient = value_and_grad(flow.loss)(params, data)
z = (data - 1.0) * np.exp(-0.3)
print("by autograd:", gradient["layer"]["mean"][0], gradient["layer"]["log_std"][0])
print("by hand:    ", -np.mean(z) * np.exp(-0.3), 1 - np.mean(z**2))

# %% [markdown]
# ## Adam on one vector
#
# All parameters lie in one vector $\theta$, and so does the gradient $g$. Adam keeps two running means,
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g, \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2, \qquad
# \theta \leftarrow \theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon},$$
#
# with $\hat m = m / (1 - \beta_1^t)$ and $\hat v = v / (1 - \beta_2^t)$. Why the division: $m$ starts at 0,
# and with a constant $g$ it is $(1 - \beta_1^t)\, g$ after $t$ steps, by the geometric series. So $\hat m$ is
# $g$, and the first step is $\eta$ times the sign of $g$, whatever its size. That is why the units of a
# parameter matter (chapter 5).

# %%
print(inspect.getsource(Adam.update))
adam, layout = Adam(0.05), Layout(params)
vector = layout.pack(params)
state, path = adam.init(vector), [vector.copy()]
for step in range(1, 201):
    _, gradient = value_and_grad(flow.loss)(layout.unpack(vector, params), data)
    adam.update(state, vector, layout.pack(gradient), step)
    path.append(vector.copy())
at_each_step = [layout.unpack(vector, params)["layer"] for vector in path]
mean, log_std = ([leaf[name][0] for leaf in at_each_step] for name in ("mean", "log_std"))
figure, ax = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
grid_m, grid_s = np.meshgrid(np.linspace(0.5, 4, 80), np.linspace(-1.2, 1.5, 80))
loss = (
    np.mean(0.5 * ((data[:, :, None] - grid_m) / np.exp(grid_s)) ** 2, axis=0)
    + grid_s
    + 0.5 * np.log(2 * np.pi)
)
ax.contour(grid_m, grid_s, np.log(loss - loss.min() + 0.05), levels=20, cmap="cividis", linewidths=0.7)
ax.plot(mean, log_std, color="#D55E00", label="Adam, 200 steps")
ax.plot(data.mean(), np.log(data.std()), "k*", markersize=10, label="maximum likelihood")
ax.set(xlabel="m", ylabel="s", title="The loss of the affine flow")
ax.legend()

# %% [markdown]
# ## What can go wrong
#
# `np.array` of NumPy's own knows no VJP, so the tape would be cut there. `check` names the line, and what
# belongs there:


# %%
class Cut(Affine):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return np.array(z), log_det


print(check(Cut(), data[:16]).failures[0].sentence)

# %% [markdown]
# ## Exercises
#
# 1. What is the VJP of $y = x / \lVert x \rVert$?
# 2. $v^T J$ costs about as much as $f$. How much does the whole Jacobian of a map of $D$ components cost?
# 3. With $\beta_1 = \beta_2 = 0$, which optimizer is Adam?
