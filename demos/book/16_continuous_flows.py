# %% [markdown]
# # 16. Continuous flows
#
# **What if a layer does almost nothing, and there are infinitely many of them?** Then no coupling, no mask and no
# triangle is needed: any network will do, and the log-determinant becomes a trace.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np

from npflow import Flow, datasets, fit, plots
from npflow.autodiff import Layout
from npflow.layers import Continuous
from npflow.layers import continuous as continuous_file
from npflow.models import ExactTrace, Solved, continuous_flow
from npflow.plots.style import BLUE, ORANGE, VERMILLION
from npflow.training import Adam
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
QUICK = bool(os.environ.get("NPFLOW_QUICK"))
ROWS = 6 if QUICK else 16

# %% [markdown]
# ## From layers to time
#
# Let a layer add a little of a network, $x \to x + h\,f(x)$, and apply $1/h$ of them, each with its own time $t$. As
# $h \to 0$ the points follow a velocity field:
#
# $$\frac{dx}{dt} = f(t, x), \qquad x(0) = x, \quad x(1) = z.$$
#
# *It is invertible.* If $f$ is Lipschitz in $x$, as networks are, exactly one solution passes through each point. Two
# points never meet, and the inverse is the solution backwards in time.
#
# *Its log-determinant is the integral of a trace.* Let $F = \partial f / \partial x$. The Jacobian of one layer is
# $I + hF$, and in its determinant every product but that of the diagonal has at least two factors $h$:
#
# $$\det(I + hF) = \prod_i (1 + h F_{ii}) + O(h^2) = 1 + h\, \mathrm{tr}\, F + O(h^2).$$
#
# So $\log\det(I + hF) = h\,\mathrm{tr}\,F + O(h^2)$. There are $1/h$ layers: the remainders add up to $O(h)$, which
# goes to zero, and the sum of the traces becomes an integral:
#
# $$\log|\det J| = \int_0^1 \mathrm{tr}\, F(t, x(t))\; dt.$$
#
# The trace is the divergence of the field: the relative rate at which a small volume carried along grows. In the
# figure nine circles move along a random field:

# %%
layer = Continuous(hidden=(32,), steps=20)
start = layer.init(rng, rng.standard_normal((50, 2)))
layout = Layout(start)
params = layout.unpack(layout.pack(start) + 0.35 * rng.standard_normal(layout.size), start)


def way(params, x, steps=40):
    """Points on their way from t = 0 to 1, shape (steps + 1, n, 2)."""
    ways, arrays = [x], layer.arrays(params)
    for k in range(steps):
        ways.append(continuous_file.one_step(ways[-1], k / steps, 1 / steps, *arrays))
    return np.array(ways)


angle = np.linspace(0, 2 * np.pi, 200)
circles = np.concatenate(
    [
        np.stack([a + 0.35 * np.cos(angle), b + 0.35 * np.sin(angle)], 1)
        for a in (-2, 0, 2)
        for b in (-2, 0, 2)
    ]
)
ways = way(params, circles)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), layout="constrained")
for k, color in ((0, "0.6"), (20, ORANGE), (-1, BLUE)):
    for one in ways[k].reshape(9, -1, 2):
        left.plot(*one.T, color=color)
for line in ways[:, 25::100].swapaxes(0, 1):
    left.plot(*line.T, color="0.8", linewidth=0.6, zorder=0)
left.set(title="circles at t = 0 (grey), 1/2 (orange) and 1 (blue)", aspect="equal")
centers = np.array([(a, b) for a in (-2.0, 0, 2) for b in (-2.0, 0, 2)])
_, log_det = layer.forward(params, centers)


def area(polygon):
    """The area inside a polygon."""
    x, y = polygon.T
    return 0.5 * abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1)))


grown = [np.log(area(one) / area(ways[0][:200])) for one in ways[-1].reshape(9, -1, 2)]
right.plot(grown, log_det, "o", color=BLUE)
right.axline((0, 0), slope=1, color="0.7", linestyle=":")
right.set(
    title="nine circles, close to the line",
    xlabel="log of how much the area of a circle has grown",
    ylabel="log|det J| at its centre",
)

# %% [markdown]
# ## A computer takes steps
#
# An equation like this is solved in steps. The classical Runge-Kutta method (RK4) takes four velocities for a step. One
# step has an error of $O(h^5)$, all of them together have one of $O(h^4)$. This is the method, for any number of arrays:

# %%
print(inspect.getsource(continuous_file.runge_kutta))

# %% [markdown]
# What is the log-determinant now? There are two answers, and they differ.
#
# *Integrate the trace* along with $x$, by the same steps. The result is the log-determinant of the flow up to
# $O(h^4)$.
#
# *Take the log-determinant of the steps themselves*, as they are what is applied to $x$. Differentiate the formula of
# a step by the $x$ it starts from: its Jacobian $J$, which starts as $I$, goes through the same step as $x$, along
# $F J$ in place of $f$. So with $J_k$ for step $k$
#
# $$\frac{d}{dt}(x, J) = (f, F J), \qquad \log|\det J| = \sum_k \log|\det J_k|.$$
#
# This is exact for one step as for a thousand, and it is what `forward` of the layer computes:

# %%
print(inspect.getsource(Continuous.forward))
print(inspect.getsource(continuous_file.step_with_jacobian))

# %%
points = rng.standard_normal((40, 2))
z, exact = Solved(layer, 1e-12, 1e-12).forward(params, points)
counts = [2, 4, 8, 16] if QUICK else [2, 4, 8, 16, 32, 64]
errors = []
for count in counts:
    steps = Continuous((32,), count)
    by_steps, by_trace = steps.forward(params, points), steps.forward_trace(params, points)
    wrong = by_steps[0] - z, by_trace[1] - exact, by_steps[1] - by_trace[1]
    errors.append([np.sqrt(np.mean(one**2)) for one in wrong])
figure, ax = plt.subplots(figsize=(6, 3.6), layout="constrained")
labels = ("z, from the flow's", "integral of the trace, from the flow's log-det", "between the two log-dets")
for series, label, marker, color in zip(np.transpose(errors), labels, "osD", (BLUE, VERMILLION, ORANGE)):
    ax.loglog(counts, series, marker + "-", label=label, color=color)
ax.loglog(counts, errors[-1][0] * (counts[-1] / np.array(counts)) ** 4, ":", color="0.5", label="order 4")
ax.set(title="distances by the number of steps", xlabel="steps", ylabel="root mean square")
ax.set_xticks(counts, counts)
ax.minorticks_off()
ax.legend()

# %% [markdown]
# `inverse` has to undo the steps that were taken. A step backwards nearly does, up to $O(h^5)$, and Newton's method
# finds the rest, up to rounding. So the layer passes the check with a single step:

# %%
few = Continuous(hidden=(8,), steps=1)
report = check(few, rng.standard_normal((ROWS, 3)))
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of one step: no triangle, no blocks")
print(report.verdict)
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## The trace by one product
#
# The exact trace takes $D$ products of $F$ with a vector. Hutchinson's estimate takes one. Let $v$ have mean 0 and the
# identity as its covariance. Then
#
# $$\mathbb{E}[v^T F v] = \sum_{ij} F_{ij}\, \mathbb{E}[v_i v_j] = \mathrm{tr}\, F.$$
#
# With random signs, $v_i = \pm 1$, the diagonal comes out exactly, as $v_i^2 = 1$, and only the entries beside it add
# noise. In `EstimatedTrace` a row keeps its $v$ in all steps, so that what is integrated is smooth in $t$.

# %%
x = np.tile(points[:1], (1000 if QUICK else 20_000, 1))
_, by_trace = layer.forward_trace(params, points[:1])
for kind, v in (("normal", rng.standard_normal(x.shape)), ("signs", rng.choice([-1.0, 1.0], x.shape))):
    _, estimates = layer.forward_estimate(params, x, v)
    error = estimates.std() / np.sqrt(len(x))
    print(
        f"{kind:8} mean {estimates.mean():+.4f} +- {error:.4f}, exact {by_trace[0]:+.4f}, deviation {estimates.std():.3f}"
    )

# %% [markdown]
# ## A field without a solver
#
# Maximum likelihood follows the flow forward and back in every step of training. *Flow matching* does not follow it at
# all. Draw a row $x$, noise $z$ and a time $t$, and go straight from one to the other: $x_t = (1 - t)\,x + t\,z$, with
# the velocity $u = z - x$. Let $p_t$ be the density of $x_t$. Many paths pass a small volume around a point $y$, with
# different velocities. The flow of mass through its walls is their sum, $p_t(y)\, \mathbb{E}[u \mid x_t = y]$. So the
# mass moves as if each point had the mean velocity:
#
# $$\frac{\partial p_t}{\partial t} = -\nabla \cdot (p_t f), \qquad f(t, y) = \mathbb{E}[u \mid x_t = y].$$
#
# A flow along $f$ has the densities $p_t$, from the data at $t = 0$ to the noise at $t = 1$. And regression finds means:
# $\mathbb{E}\,|f(t, x_t) - u|^2$ is smallest for this $f$.
#
# Here the data are the numbers $\pm 1$ plus normal noise of standard deviation $s$, so that $f$ has a closed form. Let
# $\sigma^2 = (1 - t)^2 s^2 + t^2$ be the variance of $x_t$ around $\pm(1 - t)$, and
# $m = \tanh\big(y (1 - t) / \sigma^2\big)$ the mean of $\pm 1$ given $x_t = y$. Then
#
# $$f(t, y) = -m + \frac{t - (1 - t) s^2}{\sigma^2}\, \big(y - (1 - t)\, m\big).$$

# %%
S = 0.15


def mean_velocity(t, y):
    """E[z - x | x_t = y] for x = +-1 + S times a normal number."""
    variance = (1 - t) ** 2 * S**2 + t**2
    m = np.tanh(y * (1 - t) / variance)
    return -m + (t - (1 - t) * S**2) / variance * (y - (1 - t) * m)


t = np.linspace(0, 1, 201)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained", sharey=True)
for _ in range(40):
    sign, noise = rng.choice([-1.0, 1.0]), rng.standard_normal()
    data = sign + S * rng.standard_normal()
    left.plot(t, (1 - t) * data + t * noise, color=BLUE if sign > 0 else VERMILLION, linewidth=0.7)
for y in np.linspace(-2.2, 2.2, 24):
    line = [y]
    for late in t[:0:-1]:  # from noise to data
        line.append(line[-1] - (t[1] - t[0]) * mean_velocity(late, line[-1]))
    right.plot(t[::-1], line, color=BLUE if line[-1] > 0 else VERMILLION, linewidth=0.7)
left.set(title="straight paths cross", xlabel="t, from data to noise", ylabel="x")
right.set(title="paths along their mean velocity do not", xlabel="t, from data to noise")

# %% [markdown]
# `demos/flow_matching.py` does this for two moons, with a network in place of the closed form, and compares the straight
# paths with those of a diffusion.
#
# ## What can go wrong
#
# The integral of the trace is not the log-determinant of the steps. The density of a layer that returns it, as many do,
# does not integrate to 1:


# %%
class Trace(Continuous):
    """Returns the integral of the trace as the log-det of its steps."""

    def forward(self, params, x):
        return self.forward_trace(params, x)


report = check(Trace(hidden=(8,), steps=1), rng.standard_normal((ROWS, 3)))
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# The error is small as long as the field is smooth. But training can exploit it. Here eight steps learn two moons with
# each of the two log-determinants. `Solved` solves the equation to a tolerance, so it tells the loss of the flow:

# %%
seeded = np.random.default_rng(1)
x = datasets.moons(4000, rng=seeded).astype(np.float32)
flow = continuous_flow(features=2, hidden=(32, 32), steps=8)
start = flow.init(seeded, x[:1000])
solved = Flow(Solved(flow.layer, 1e-5, 1e-5), flow.prior)
print(f"the entropy of the data is {datasets.Moons().entropy():.2f} nats")
for name, model in (("the integral of the trace", ExactTrace(flow)), ("the log-det of the steps", flow)):
    learned, _ = fit(
        model,
        start,
        x,
        rng=np.random.default_rng(1),
        steps=5 if QUICK else 800,
        optimizer=Adam(0.01),
        progress=False,
    )
    seen = x[: 100 if QUICK else None]
    print(
        f"trained with {name}: {model.loss(learned, seen):.2f} nats, by Solved {solved.loss(learned, seen):.2f}"
    )

# %% [markdown]
# With the integral of the trace this run ends below the entropy, which no density can reach: the field has become too
# steep for its steps, and their error counts as likelihood. By the solver the loss is far above the entropy. With the
# log-determinant of the steps the two agree. Not every run finds such a field, but a loss well below the entropy is
# always an error.
#
# ## Exercises
#
# 1. Show that for a linear field, $f = A x$, the flow is $z = e^{A} x$ and $\log\det e^{A} = \mathrm{tr}\,A$.
# 2. What is $\log|\det J|$ of a Runge-Kutta step along $f = a x$ in one dimension? Compare it with $a h$.
# 3. Show that the determinant of this step is positive for all $a h$. Why is a step not invertible for every $f$, then?
# 4. What is the mean velocity of the straight paths if all data are at 0? Solve $dx/dt = f$.
# 5. `npflow exercise trace` writes a page to complete; `npflow exercise trace FILE` marks it.
