# %% [markdown]
# # 20. Flows beside VAEs, GANs, autoregressive models and diffusion
#
# **All of these turn noise into data. What does each of them know of the density that it has learned?** A
# number, a bound, or nothing. This chapter puts them side by side on the same two moons, whose entropy is
# known, and ends with a diffusion, which turns out to be a flow.

# %%
import inspect
import os
import time
from dataclasses import replace

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import logsumexp, ndtri, softmax
from scipy.stats import norm

from npflow import datasets, fit, plots
from npflow.layers import Chain, MaskedAutoregressive
from npflow.models import VAE, maf, real_nvp
from npflow.networks import MADE, MLP
from npflow.training import Adam, WarmupCosine
from npflow.verify import check_functions

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
QUICK = os.environ.get("NPFLOW_QUICK")
STEPS, DEPTH, DRAWS, ODE_STEPS = (5, 1, [1, 4], 10) if QUICK else (1000, 8, [1, 4, 16, 64, 256], 100)

# %% [markdown]
# ## The five at a glance
#
# | model | x from noise | $\log p(x)$ | trained by | one sample costs |
# | --- | --- | --- | --- | --- |
# | flow | $x = f^{-1}(z)$, as many components as $x$ | exact | likelihood | one pass |
# | autoregressive | one component after the other | exact | likelihood | $D$ passes |
# | VAE | $z$, then $x$ drawn from $p(x \mid z)$; $z$ may be short | a lower bound | the bound | one pass |
# | GAN | $x = G(z)$, $z$ may be short | none | a game against a classifier | one pass |
# | diffusion | noise is removed in many small steps | a bound; exact by an integral | denoising | tens to hundreds of passes |
#
# The sections below derive the third column, row by row. `demos/vae_or_flow.py` trains all five on the same data, and
# compares their likelihoods, samples and times.

# %% [markdown]
# ## A flow: the number itself
#
# This is chapter 2: $\log p(x) = \log p_z(f(x)) + \log|\det J(x)|$. The price is that $f$ must have an
# inverse and a cheap determinant, and that $z$ is as long as $x$.

# %%
density = datasets.Moons()
x, test = (datasets.moons(n, rng=rng).astype(np.float32) for n in (10_000, 2000))
optimizer = Adam(WarmupCosine(5e-3, steps=STEPS))
options = {"rng": rng, "steps": STEPS, "optimizer": optimizer, "clip_norm": 10.0, "progress": False}
flow = real_nvp(features=2, couplings=DEPTH, network=MLP((32, 32), "tanh"))
flow_params, _ = fit(flow, flow.init(rng, x), x, **options)
entropy = density.entropy()
print(f"entropy of the data {entropy:.3f} nats")
print(f"flow: loss {flow.loss(flow_params, test):.3f} nats, exact")

# %% [markdown]
# ## Autoregressive models: the number itself, one component at a time
#
# $$\log p(x) = \sum_{i=1}^{D} \log p(x_i \mid x_1, \dots, x_{i-1}).$$
#
# A network gives each conditional, from any family of densities in one dimension, or of probabilities:
# PixelCNN and language models are made so (chapter 11). Nothing has to be inverted. But $x_i$ can be drawn
# only after $x_{i-1}$. Where the conditionals are normal, or any other density with a distribution function,
# standardizing them is a flow: the MAF of chapter 10 is both.

# %%
autoregressive = maf(features=2, steps=DEPTH, network=MADE((32, 32), "tanh"))
autoregressive_params, _ = fit(autoregressive, autoregressive.init(rng, x), x, **options)
print(f"MAF: loss {autoregressive.loss(autoregressive_params, test):.3f} nats, exact")

# %% [markdown]
# ## A VAE: a bound
#
# A VAE draws $z$ from a prior, and then $x$ from $p(x \mid z)$, a normal density around the output of a
# network. So
#
# $$p(x) = \int p(x \mid z)\, p(z)\, dz,$$
#
# an integral over all $z$ that could have made $x$. No change of variables helps: $z$ does not determine $x$.
# Take an encoder $q(z \mid x)$, any density of $z$. With Bayes' rule $p(x) = p(x, z) / p(z \mid x)$, which
# holds for every $z$,
#
# $$\log p(x) = E_q\left[\log \frac{p(x, z)}{q(z \mid x)}\right]
# + E_q\left[\log \frac{q(z \mid x)}{p(z \mid x)}\right],$$
#
# where the first term can be written in another way, and the second is a divergence:
#
# $$\log p(x) = \underbrace{E_q[\log p(x \mid z)] - \operatorname{KL}(q \,\|\, p(z))}_{\text{ELBO}}
# + \underbrace{\operatorname{KL}\big(q \,\|\, p(z \mid x)\big)}_{\ge\, 0}.$$
#
# The ELBO is what can be computed. The gap is how far the encoder is from the true posterior, which nobody
# knows. Its loss, from its file:

# %%
print(inspect.getsource(VAE.losses))
vae = VAE(features=2, latent=2, encoder=MLP((64, 64), "tanh"), decoder=MLP((64, 64), "tanh"))
vae_params, _ = fit(vae, vae.init(rng, x), x, **options)
print(f"VAE: -ELBO {-vae.elbo(vae_params, test, rng=rng, draws=16).mean():.3f} nats, a bound")

# %% [markdown]
# The bound can be tightened after training. The mean of $p(x, z) / q(z \mid x)$ over $z \sim q$ is $p(x)$, so
# by Jensen's inequality
#
# $$E\left[\log \frac1K \sum_{k=1}^{K} \frac{p(x, z_k)}{q(z_k \mid x)}\right]
# \le \log p(x), \qquad z_k \sim q(z \mid x),$$
#
# with the ELBO at $K = 1$ and equality as $K \to \infty$. Compare a flow with this estimate, not with the
# ELBO, or the gap is counted against the VAE.

# %%
estimates = [-vae.log_prob(vae_params, test, rng=rng, draws=count).mean() for count in DRAWS]
figure, ax = plt.subplots(figsize=(6.4, 3.4), layout="constrained")
ax.plot(DRAWS, estimates, "o-", color="#D55E00", label="VAE, from K draws")
for name, model, params, style in (
    ("flow, exact", flow, flow_params, "-"),
    ("MAF, exact", autoregressive, autoregressive_params, "--"),
):
    ax.axhline(model.loss(params, test), color="#0072B2", linestyle=style, label=name)
ax.axhline(entropy, color="0.4", linestyle=":", label="entropy of the data")
ax.set(xscale="log", xlabel="draws K", ylabel="nats", title="An upper bound of the loss, and the loss itself")
ax.legend()
for count, value in zip(DRAWS, estimates):
    print(f"K = {count:3}: {value:.3f} nats")

# %% [markdown]
# ### Flows inside a VAE
#
# Two densities of $z$ are normal only because that is easy. A flow can replace either:
#
# - the **posterior** (Rezende and Mohamed 2015): the encoder draws $z_0$ from its normal density, and a flow takes it
#   on to $z = f(z_0; h(x))$, where $h(x)$ are further outputs of the encoder. By the change of variables
#   $\log q(z \mid x) = \log q(z_0 \mid x) - \log|\det dz/dz_0|$. Only this direction is needed, so $f$ may be a masked
#   autoregressive layer, which is then called an inverse autoregressive flow (Kingma et al. 2016);
# - the **prior** (Chen et al. 2017): $\log p(z)$ is that of a flow, which is trained together with the rest.
#
# The Kullback-Leibler divergence then has no closed form. It is estimated from the same draw of $z$ as the rest, and
# what is maximized is the mean of
#
# $$\log p(x \mid z) + \log p(z) - \log q(z_0 \mid x) + \log\left|\det \frac{dz}{dz_0}\right|.$$

# %%
iaf = Chain([MaskedAutoregressive(MADE((32,), "tanh", order)) for order in ("natural", "reversed")])
for name, model in {
    "posterior": replace(vae, posterior=iaf, context_features=8),
    "prior": replace(vae, prior=real_nvp(features=2, couplings=4, network=MLP((32, 32), "tanh"))),
}.items():
    options["rng"] = np.random.default_rng(2)
    params, _ = fit(model, model.init(np.random.default_rng(2), x), x, **options)
    elbo = -model.elbo(params, test, rng=rng, draws=16).mean()
    estimate = -model.log_prob(params, test, rng=rng, draws=DRAWS[-1]).mean()
    print(f"a flow as {name:9}: -ELBO {elbo:.3f} nats, from {DRAWS[-1]} draws {estimate:.3f} nats")

# %% [markdown]
# Both improve the ELBO, and the estimate from many draws with it. With a better $q$ the decoder learns a better density.
# And the flow in the prior learns where the codes of the data are, while a plain VAE also draws $z$ from the holes
# between them, which become samples between the moons. But flows make it easier to end in a poor optimum of VAEs, the
# *posterior collapse*: $q(z_i \mid x) = p(z_i)$ for a component of $z$, which costs nothing and says nothing about $x$.
# With a flow in the prior, three of eight runs with other seeds ended there, at about 1.45 nats. `demos/vae_flows.py`
# measures flows inside a VAE on digits.

# %% [markdown]
# ## What a sample costs
#
# Seconds depend on the machine; the passes through a network do not. With two components a MAF takes two
# passes a layer; with 3,072 components, 3,072 passes a layer.

# %%
models = {
    "flow": (flow, flow_params),
    "MAF": (autoregressive, autoregressive_params),
    "VAE": (vae, vae_params),
}
figure, axes = plt.subplots(1, 3, figsize=(10.5, 2.9), layout="constrained")
for ax, (name, (model, params)) in zip(axes, models.items()):
    seconds = []
    for _ in range(3):
        clock = time.perf_counter()
        drawn = model.sample(params, rng, 2000)
        seconds.append(time.perf_counter() - clock)
    print(f"{name:4} 2,000 samples in {1e3 * min(seconds):5.1f} ms")
    plots.samples(drawn, ax, limits=((-1.5, 2.5), (-1, 1.5)), title=name)

# %% [markdown]
# ## A GAN: no number
#
# A GAN has a generator $x = G(z)$ and no encoder. A classifier $d(x)$, the discriminator, gives the
# probability that $x$ is real. The two play
#
# $$\min_G \max_d \; V = E_{x \sim p}[\log d(x)] + E_{x \sim q}[\log(1 - d(x))],$$
#
# where $p$ is the density of the data and $q$ that of the samples. For given $G$ maximize at each $x$: the
# derivative of $p \log d + q \log(1 - d)$ in $d$ is $p / d - q / (1 - d)$, which vanishes at
#
# $$d^*(x) = \frac{p(x)}{p(x) + q(x)}, \qquad V(d^*) = 2 \operatorname{JS}(p, q) - 2 \log 2.$$
#
# So a perfect discriminator would train $G$ on the Jensen-Shannon divergence, which lies between 0 and
# $\log 2$. Nobody has $d^*$; a network that is trained along with $G$ stands in. For a flow on two moons both
# densities are known, so $d^*$ and the divergence can be computed:

# %%
fake = flow.sample(flow_params, rng, 5000).astype(np.float64)
real = datasets.moons(5000, rng=rng)


def log_odds(at):
    """log of d* / (1 - d*)."""
    return density.log_prob(at) - flow.log_prob(flow_params, at.astype(np.float32))


value = -np.mean(np.logaddexp(0, -log_odds(real))) - np.mean(np.logaddexp(0, log_odds(fake)))
right = (np.mean(log_odds(real) > 0) + np.mean(log_odds(fake) < 0)) / 2
print(f"Jensen-Shannon divergence of flow and data {value / 2 + np.log(2):.4f} nats; at most {np.log(2):.4f}")
print(f"the best possible discriminator is right in {right:.1%} of cases; a coin in 50 %")

# %% [markdown]
# Why is there no $\log p(x)$? If $z$ has fewer components than $x$, all samples lie on a thin sheet of no
# volume. An $x$ beside it has $p(x) = 0$, and the loss of a likelihood would be infinite. This freedom is why
# GANs draw sharp images, and why nobody can say what they leave out: a generator that makes a part of the
# data only, however well, is not punished as it is by $-\log p(x)$.

# %% [markdown]
# ## A diffusion: a flow with infinitely many layers
#
# Let each row drift towards 0 and add noise all the time: $dx = -\tfrac12 x\, dt + dW$. After a time $t$
#
# $$x_t = e^{-t/2} x_0 + \sqrt{1 - e^{-t}}\; \epsilon, \qquad \epsilon \sim \mathcal N(0, I),$$
#
# so for large $t$ nothing is left but a standard normal. The density $p_t$ obeys
#
# $$\frac{\partial p_t}{\partial t} = \tfrac12 \nabla \cdot (x\, p_t) + \tfrac12 \Delta p_t
# = -\nabla \cdot (p_t\, v), \qquad
# v(x, t) = -\tfrac12 \big(x + \nabla \log p_t(x)\big),$$
#
# as $\Delta p = \nabla \cdot (p\, \nabla \log p)$. The right side says that mass moves with the velocity $v$,
# *without any noise*. So the points of the differential equation $dx/dt = v(x, t)$ have the same densities
# $p_t$ as the noisy ones. They move invertibly: from data at time 0 to noise at time $T$, and back. That is a
# flow, and all it needs is the score $\nabla \log p_t$. A diffusion trains a network to give it, by removing
# noise from $x_t$.
#
# Its log-determinant: a short step is the map $x + h\, v(x)$, and
#
# $$\log|\det(I + h A)| = h \operatorname{tr} A + O(h^2), \qquad A = \frac{\partial v}{\partial x},$$
#
# since in the product of all eigenvalues $1 + h \lambda_i$ only their sum is of order $h$. Add up the steps,
# as for any chain of layers:
#
# $$\log p_0(x_0) = \log p_T(x_T) + \int_0^T \operatorname{tr} \frac{\partial v}{\partial x}(x_t, t)\, dt.$$
#
# ### With an exact score
#
# Let the data be a mixture of normals with means $m_k$, equal weights, and the variance $s^2$. Then $p_t$ is
# a mixture too, with means $e^{-t/2} m_k$ and the variance $\sigma^2 = e^{-t} s^2 + 1 - e^{-t}$. Write
# $\bar m$ for the mean of the means, each weighted by its share $P(k \mid x)$. Then
#
# $$\nabla \log p_t = \frac{\bar m - x}{\sigma^2}, \qquad
# \nabla \cdot \nabla \log p_t = -\frac{D}{\sigma^2} + \frac{\overline{|m|^2} - |\bar m|^2}{\sigma^4}.$$
#
# So everything can be computed without a network. Each step below is one of Runge and Kutta's, of order 4.

# %%
T, S = 12.0, 0.5


def at_time(t, means):
    """The means of the mixture at time t, and its variance."""
    return np.exp(-t / 2) * means, np.exp(-t) * S**2 + 1 - np.exp(-t)


def velocity(x, t, means):
    """v(x, t), shape (n, D), and the trace of its Jacobian, shape (n,)."""
    m, variance = at_time(t, means)
    share = softmax(-0.5 * np.sum((x[:, None] - m) ** 2, axis=2) / variance, axis=1)
    mean, square = share @ m, share @ np.sum(m**2, axis=1)
    score = (mean - x) / variance
    trace_of_score = -x.shape[1] / variance + (square - np.sum(mean**2, axis=1)) / variance**2
    return -0.5 * (x + score), -0.5 * (x.shape[1] + trace_of_score)


def follow(x, means, steps=ODE_STEPS, back=False, path=None):
    """Move x along dx/dt = v from time 0 to T, or back; return it with the integral of the trace."""
    times = T * np.linspace(0, 1, steps + 1) ** 2  # short steps near the data, where v is steep
    log_det = np.zeros(len(x))
    for start, end in zip(*((times[:0:-1], times[-2::-1]) if back else (times[:-1], times[1:]))):
        h = end - start
        k1, trace1 = velocity(x, start, means)
        k2, trace2 = velocity(x + h / 2 * k1, start + h / 2, means)
        k3, trace3 = velocity(x + h / 2 * k2, start + h / 2, means)
        k4, trace4 = velocity(x + h * k3, end, means)
        x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        log_det = log_det + h / 6 * (trace1 + 2 * trace2 + 2 * trace3 + trace4)
        if path is not None:
            path.append((end, x))
    return x, log_det


def log_mixture(x, t, means):
    m, variance = at_time(t, means)
    squares = np.sum((x[:, None] - m) ** 2, axis=2) / variance
    normalizer = np.log(len(m)) + 0.5 * x.shape[1] * np.log(2 * np.pi * variance)
    return logsumexp(-0.5 * squares, axis=1) - normalizer


# %% [markdown]
# One dimension, three pieces. Each line is one point's way from the data on the left to noise on the right.
# They never cross: that would be two points with one future.

# %%
means = np.array([[-2.0], [0.5], [2.0]])
figure, (left, right) = plt.subplots(
    1, 2, figsize=(10.5, 3.8), layout="constrained", gridspec_kw={"width_ratios": (1.6, 1)}
)
shown = np.linspace(0, 1, 200)
height = np.linspace(-3.5, 3.5, 200)
picture = np.stack([log_mixture(height[:, None], T * u**2, means) for u in shown], axis=1)
left.pcolormesh(shown, height, np.exp(picture), cmap="cividis", shading="auto")
path = []
ends = np.linspace(-2.6, 2.6, 14)[:, None]
follow(ends, means, path=path)
left.plot(
    [0, *(np.sqrt(t / T) for t, _ in path)],
    [ends[:, 0], *(at[:, 0] for _, at in path)],
    color="white",
    linewidth=0.8,
)
left.set(xlabel="square root of t / T", ylabel="x", title="The density p_t, and points that move with v")

at = np.linspace(-3.2, 3.2, 161)[:, None]
z, log_det = follow(at, means)
by_the_integral = norm.logpdf(z[:, 0]) + log_det
right.plot(at, log_mixture(at, 0, means), color="0.6", linewidth=4, label="log p of the mixture")
right.plot(at, by_the_integral, color="#0072B2", label="log prior(z) + integral of the trace")
right.set(xlabel="x", ylabel="nats", title="Change of variables", ylim=(-6, 0))
right.legend(loc="lower center")
print(
    f"largest difference of the two curves {np.abs(by_the_integral - log_mixture(at, 0, means)[:]).max():.1e}"
)

# %% [markdown]
# The mass to the left of a point cannot change while points do not cross. So in one dimension
# $\Phi(z) = F(x)$, and a diffusion with an exact score is the map of chapter 12, $z = \Phi^{-1}(F(x))$, up to
# what is left of the data at time $T$:

# %%
F = norm.cdf((at - means.T) / S).mean(axis=1)
print(f"largest difference from Gaussianization {np.abs(z[:, 0] - ndtri(F)).max():.1e}")

# %% [markdown]
# In two dimensions, held against differences as any other layer:

# %%
corners = np.array([[1.5, 0.0], [-1.0, 1.2], [-0.5, -1.5]])
rows = rng.standard_normal((4, 2))
report = check_functions(
    lambda x: follow(x, corners),
    lambda z: follow(z, corners, back=True),
    rows,
    tolerance=1e-4,
    dtypes="float64",
    name="a diffusion",
)
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of a diffusion, from data to noise")
print(f"log|det J| by differences {one.log_abs_det:+.6f}, by the integral {one.log_det:+.6f}")

# %% [markdown]
# A network in place of the exact score has no closed trace: with $D$ components it takes $D$ backward passes.
# Hutchinson's estimate takes one, as $E[e^T A\, e] = \operatorname{tr} A$ for random signs $e$. A *continuous
# flow* has a network for $v$ itself (chapter 16), and is trained by the likelihood or, which is much cheaper, by
# regression on straight lines from noise to data (flow matching).

# %% [markdown]
# ## What can go wrong
#
# The integral of the trace is the log-determinant of the *exact* solution. With a few large steps the
# computed map is another one, whose log-determinant is not the sum of the traces. A likelihood from 10 steps
# is then not the likelihood of what these 10 steps sample:

# %%
few = ODE_STEPS // 10
report = check_functions(
    lambda x: follow(x, corners, few), None, rows, tolerance=1e-4, dtypes="float64", name="few steps"
)
one = report.jacobians["forward"]
print(f"{few} steps: log|det J| {one.log_abs_det:+.4f}, integral of the trace {one.log_det:+.4f}")
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# The layers of a flow have the log-determinant of the map that is computed, up to rounding. That, and a
# sample for one pass, is what they are for.

# %% [markdown]
# ## Exercises
#
# 1. For which $q(z \mid x)$ is the ELBO equal to $\log p(x)$? Can a normal $q$ be that if $p(x \mid z)$ is
#    normal around $W z$?
# 2. $d^*$ is known for a flow and given data's density. Write $p$ by $q$ and $d^*$. How could a discriminator
#    repair a generator's samples?
# 3. Show Hutchinson's formula. What is the variance of $e^T A\, e$ for random signs if $A$ is diagonal?
# 4. A prior does not fit the codes. Why does a flow in the posterior help less than one in the prior?
# 5. Which of the five can model the probability of text, and which of them need $x$ to be continuous?
# 6. `npflow exercise bound` writes a page to complete, on the importance-weighted bound of a VAE with a flow in its
#    posterior; `npflow exercise bound FILE` marks it.
