# %% [markdown]
# # 2. The change of variables
#
# **If $z = f(x)$ and $z$ is normal, how is $x$ distributed?** The formula has one line. All of maximum
# likelihood with flows follows from it, and it answers a question that everybody asks: why does training not
# simply send all data to $z = 0$, where the density is highest?

# %%
import inspect

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from npflow import Flow, plots
from npflow.layers import Affine
from npflow.priors import Normal

plt.style.use(plots.STYLE)

BLUE, ORANGE = "#0072B2", "#D55E00"
rng = np.random.default_rng(0)

# %% [markdown]
# ## Mass is kept
#
# A density $p$ is mass per volume. The mass in a small piece of volume $dx$ at $x$ is $p(x)\, dx$. The map
# $f$ takes the piece to a piece at $z = f(x)$ of volume $dz = |\det J(x)|\, dx$, and the mass goes with it:
#
# $$p_x(x)\, dx = p_z(z)\, dz \qquad\Longrightarrow\qquad p_x(x) = p_z(f(x))\, |\det J(x)|.$$
#
# Where $f$ stretches space, $dz$ is large: a lot of $z$-mass comes from little $x$-volume, so the density of
# $x$ is high there. In logarithms
#
# $$\log p_x(x) = \log p_z(f(x)) + \log|\det J(x)|.$$
#
# This is what `Flow.log_prob` computes, in three lines:


# %%
def log_prob(flow, params, x):
    z, log_det = flow.layer.forward(params["layer"], x)
    return flow.prior.log_prob(params["prior"], z) + log_det


some = Flow(Affine(), Normal(1))
its_params = {"layer": {"mean": np.array([1.0]), "log_std": np.array([0.3])}, "prior": {}}
at = np.linspace(-2, 2, 5)[:, None]
print("by hand:      ", log_prob(some, its_params, at))
print("Flow.log_prob:", some.log_prob(its_params, at))

# %% [markdown]
# The layer, from its file:

# %%
print(inspect.getsource(Affine))

# %% [markdown]
# ## Watch it
#
# Draw $z$ from a standard normal, and let $x = \sinh z$. So $f(x) = \operatorname{arcsinh} x$, whose
# derivative is $1 / \sqrt{1 + x^2}$. The formula is the line; the histogram is counted.

# %%
z = rng.standard_normal(100_000)
x = np.sinh(z)
at = np.linspace(-5, 5, 400)
with_factor = norm.pdf(np.arcsinh(at)) / np.sqrt(1 + at**2)
without = norm.pdf(np.arcsinh(at))

figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.hist(
    x, bins=np.linspace(-5, 5, 101), weights=np.full(len(x), 10 / len(x)), color="0.85", label="samples of x"
)
ax.plot(at, with_factor, color=BLUE, label=r"$p_z(f(x))\,|f'(x)|$")
ax.plot(at, without, color=ORANGE, linestyle="--", label=r"$p_z(f(x))$, which is no density")
ax.set(xlabel="x", ylabel="density")
ax.legend()
step = at[1] - at[0]
print(
    f"mass of the two curves between -5 and 5: {with_factor.sum() * step:.3f} and {without.sum() * step:.3f}"
)

# %% [markdown]
# Without the factor the curve is not a density: it has more mass than one.

# %% [markdown]
# ## Why training does not collapse to $z = 0$
#
# Training maximizes the mean of $\log p_x(x)$. The first term, $\log p_z(f(x))$, is largest where $z = 0$. So
# why not shrink everything to 0? Take the simplest flow, $z = (x - m) / s$, and let $s$ grow. Then $z \to 0$,
# and
#
# $$\log p_x(x) = -\frac{(x - m)^2}{2 s^2} - \tfrac{1}{2} \log 2 \pi - \log s.$$
#
# The last term is $\log|\det J| = -\log s$. It falls without bound: **a map that shrinks space pays for it.**
# The two terms balance where $s$ is the standard deviation of the data. Set the derivative in $s$ of the mean
# to zero:
#
# $$\frac{\overline{(x - m)^2}}{s^3} - \frac{1}{s} = 0
# \qquad\Longrightarrow\qquad s^2 = \overline{(x - m)^2}.$$

# %%
data = rng.normal(3.0, 0.5, (1000, 1))
flow = Flow(Affine(), Normal(1))
scales = np.exp(np.linspace(np.log(0.15), np.log(8), 200))
terms = []
for scale in scales:
    params = {"layer": {"mean": np.array([3.0]), "log_std": np.log([scale])}, "prior": {}}
    z, log_det = flow.layer.forward(params["layer"], data)
    terms.append([flow.prior.log_prob({}, z).mean(), log_det.mean(), flow.log_prob(params, data).mean()])
prior, volume, total = np.transpose(terms)

figure, ax = plt.subplots(figsize=(7, 3.4), layout="constrained")
ax.plot(scales, prior, color=ORANGE, linestyle="--", label="log prior(z): wants z = 0")
ax.plot(scales, volume, color="0.5", linestyle=":", label="log|det J|: wants no shrinking")
ax.plot(scales, total, color=BLUE, label="their sum, log p(x)")
best = scales[np.argmax(total)]
ax.axvline(best, color=BLUE, linewidth=0.8)
ax.set(
    xscale="log",
    xlabel="s",
    ylabel="nats",
    ylim=(-8, 3),
    title=f"The best s is {best:.2f}; the data has std {data.std():.2f}",
)
ax.set_xticks([0.2, 0.5, 1, 2, 5], [0.2, 0.5, 1, 2, 5])
ax.minorticks_off()
ax.legend()

# %% [markdown]
# The loss that `fit` minimizes is the mean of $-\log p(x)$, in nats. It estimates the entropy of the data
# plus the Kullback-Leibler divergence of the flow's density from it,
#
# $$E[-\log p_x(x)] = H(\text{data}) + \operatorname{KL}(\text{data} \,\|\, p_x) \ge H(\text{data}),$$
#
# so no flow gets below the entropy, and only the right density reaches it.

# %% [markdown]
# ## Both directions
#
# To sample, draw $z$ and apply the inverse. To evaluate, apply `forward`. The log-determinants of the two
# directions cancel, because $f^{-1}(f(x)) = x$ and the determinant of the identity is 1.

# %%
params = {"layer": {"mean": np.array([3.0]), "log_std": np.log([0.5])}, "prior": {}}
z, log_det = flow.layer.forward(params["layer"], data[:3])
back, log_det_back = flow.layer.inverse(params["layer"], z)
print("x back from z:", np.round(back.ravel(), 6), " was", np.round(data[:3].ravel(), 6))
print("log-dets:", log_det, "and", log_det_back)

# %% [markdown]
# ## What can go wrong
#
# The commonest mistake of all is the sign: $\log|\det J|$ of the inverse where that of `forward` belongs. The
# density then has the wrong mass, and training goes for $z = 0$ after all. `check` names it.

# %%
from npflow.verify import check


class WrongSign(Affine):
    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return z, -log_det

    def log_det(self, params, x):
        return -super().log_det(params, x)


report = check(Affine(), data[:8])
matrix = report.jacobians["forward"].numerical
plots.jacobian(matrix, title="the Jacobian of Affine, one feature")
print(check(WrongSign(), data[:8]).failures[0].sentence)

# %% [markdown]
# ## Exercises
#
# 1. $x = e^z$ with a standard normal $z$. Derive the density of $x$, and compare with `scipy.stats.lognorm`.
# 2. Let the scale of the affine flow above go to 0 instead of infinity. Which term stops it now?
# 3. Two flows give losses of 2.10 and 2.05 nats on the same data. How much likelier does the second one make
#    a typical row?
# 4. `npflow exercise density` writes a page to complete; `npflow exercise density FILE` marks it.
