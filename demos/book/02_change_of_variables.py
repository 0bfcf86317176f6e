# %% [markdown]
# # 2. The change of variables
#
# **If $z = f(x)$ and $z$ is normal, how is $x$ distributed?** The formula has one line. All of maximum
# likelihood with flows follows from it, and it answers a question that everybody asks: why does training not
# simply send all data to $z = 0$, where the density is highest?

# %%
import inspect

import autograd.numpy as anp
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
# ## A density instead of data
#
# What if there are no data, but a density $\tilde p(x) = Z\, p(x)$ with an unknown constant $Z$, such as
# $e^{-\text{energy}}$ or likelihood times prior? A flow $q$ makes its own samples, $x = f^{-1}(z)$, and knows their
# density from the same formula, read from $z$ to $x$: $\log q(x) = \log p_z(z) - \log|\det dx/dz|$. So it can minimize
#
# $$E_q[\log q(x) - \log \tilde p(x)] = \operatorname{KL}(q \,\|\, p) - \log Z.$$
#
# The two directions of the divergence differ where the flow cannot reach the density. Below, $p$ has two bumps, and the
# flow is one normal density. $\operatorname{KL}(\text{data} \,\|\, q)$ weighs each place by the data, so $q$ has to
# cover both bumps. $\operatorname{KL}(q \,\|\, p)$ weighs it by $q$, so $q$ must not be where $p$ is low: it takes one
# bump and drops the other.
#
# The weights $w = \tilde p(x) / q(x)$ of samples of $q$ estimate $Z$ by their mean. Their effective sample size,
# $(\sum w)^2 / (n \sum w^2)$, is 1 where they are all alike.

# %%
from npflow import fit
from npflow.models import ReverseKL
from npflow.training import Adam, importance_sample


def log_two_bumps(x):
    """Two normal densities at -2 and 2 with std 0.6, one with 2/3 of the mass; times 5."""
    left, right = (-0.5 * ((x[:, 0] - centre) / 0.6) ** 2 for centre in (-2, 2))
    constant = np.log(5 / (3 * 0.6 * np.sqrt(2 * np.pi)))
    return anp.logaddexp(left + np.log(2), right) + constant


centre = np.where(rng.random((4000, 1)) < 2 / 3, -2, 2)
two_bumps = centre + 0.6 * rng.standard_normal((4000, 1))
training = {"rng": rng, "steps": 300, "optimizer": Adam(0.03), "progress": False}
begin = flow.init(rng, rng.normal(1, 1, (100, 1)))
learned = {
    "KL(data || q), from data": fit(flow, begin, two_bumps, **training)[0],
    "KL(q || p), from the density": fit(ReverseKL(flow, log_two_bumps), begin, None, **training)[0],
}
at = np.linspace(-5, 5, 400)[:, None]
figure, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
ax.fill_between(at.ravel(), np.exp(log_two_bumps(at)) / 5, color="0.85", label="p")
for (name, its), color, line in zip(learned.items(), (BLUE, ORANGE), ("-", "--")):
    ax.plot(at, np.exp(flow.log_prob(its, at)), line, color=color, label=name)
    sample = importance_sample(flow, its, log_two_bumps, rng, 10_000)
    print(
        f"{name:30} effective sample size {sample.effective_sample_size:.2f}, "
        f"Z {np.exp(sample.log_z):.2f} +- {np.exp(sample.log_z) * sample.log_z_error:.2f}, truth 5"
    )
ax.set(xlabel="x", ylabel="density")
ax.legend()

# %% [markdown]
# The flow that dropped a bump has nearly equal weights and a small error, but its $Z$ is that of one bump alone.
# **Nothing in its own samples tells what it misses.** So start wide, and compare two starts.

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
# 4. Start the flow between the two bumps, or with std 3. Which bump does KL(q || p) take? Raise the std of the bumps
#    to 1.5 and watch the two curves meet.
# 5. `npflow exercise importance` asks for the weights, the estimate of $\log Z$ and the effective sample size.
# 6. `npflow exercise density` writes a page to complete; `npflow exercise density FILE` marks it.
