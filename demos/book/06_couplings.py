# %% [markdown]
# # 6. Couplings: NICE and RealNVP
#
# **How can a map contain a deep network and still be inverted?** Leave half of $x$ alone, and let it say what
# happens to the other half. The network is never inverted. This idea carries most flows there are.

# %%
import inspect
import os

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.layers import AdditiveCoupling, AffineCoupling
from npflow.models import nice, real_nvp
from npflow.networks import MLP
from npflow.training import Adam, WarmupCosine
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
STEPS, COUPLINGS = (10, 2) if os.environ.get("NPFLOW_QUICK") else (600, 8)

# %% [markdown]
# ## The additive coupling (NICE)
#
# Split $x$ into halves $a$ and $b$. Keep $a$, and shift $b$ by a network of $a$:
#
# $$z_a = a, \quad z_b = b + t(a); \qquad\qquad a = z_a, \quad b = z_b - t(z_a).$$
#
# The inverse needs $t(a)$ once more, and $a$ is there: it was left alone. The Jacobian is
#
# $$J = \begin{pmatrix} I & 0 \\ \partial t / \partial a & I \end{pmatrix},$$
#
# a block triangle with ones on its diagonal. So $\log|\det J| = 0$, whatever $t$ is. The map keeps volumes.
#
# In the layer's file `init` makes the parameters of the network, for inputs like $a$ and as many outputs as
# $b$ has components: `network.init(rng, a, outputs=...)`. `network.apply(params, a)` computes $t(a)$.

# %%
print(inspect.getsource(AdditiveCoupling))

# %% [markdown]
# ## The affine coupling (RealNVP)
#
# Let the network scale $b$ as well:
#
# $$z_b = b\, e^{s(a)} + t(a), \qquad b = (z_b - t(a))\, e^{-s(a)}, \qquad \log|\det J| = \sum_i s_i(a).$$
#
# Now the lower right block is diagonal with $e^{s_i(a)}$. Couplings of either kind are triangles, so their
# determinants cost nothing, and the derivatives of the network in the lower left block never matter.

# %%
print(inspect.getsource(AffineCoupling))

# %% [markdown]
# `mask.parts` cuts $x$ into $a$ and $b$, and `mask.join` puts them together again. `network.apply` has two
# outputs for each component of $b$, which `split_last` cuts into $r$ and $t$. A context, which is joined to
# $a$, comes in chapter 17. `mask.log_det` sums $s$ over each row.
#
# The exponent is bounded, $s = L \tanh(r / L)$: an outlier would otherwise make $e^{s}$ overflow. And the
# last layer of the network starts at zero, so a new coupling is the identity, from where training is easy at
# any depth.

# %%
x = rng.standard_normal((16, 4))
figure, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
for ax, layer in zip(axes, (AdditiveCoupling(MLP((16,), "tanh")), AffineCoupling(MLP((16,), "tanh")))):
    report = check(layer, x)
    plots.jacobian(report.jacobians["forward"].numerical, ax, title=type(layer).__name__)
    one = report.jacobians["forward"]
    print(
        f"{type(layer).__name__:17} log|det J| by differences {one.log_abs_det:+.9f}, "
        f"by the formula {one.log_det:+.9f}"
    )

# %% [markdown]
# ## Half is left alone: alternate
#
# One coupling does not change $a$ at all. So the next one keeps $b$ and changes $a$. NICE swaps the halves;
# RealNVP uses masks, which on images are checkerboards and halves of the channels; Glow mixes the channels by
# a trained matrix in between (chapter 7).

# %%
x = datasets.moons(4000, rng=rng).astype(np.float32)
flow = real_nvp(2, COUPLINGS, MLP((32, 32), "tanh"), masks=("second", "first"))
params = flow.init(rng, x)
params, _ = fit(
    flow, params, x, rng=rng, steps=STEPS, optimizer=Adam(WarmupCosine(5e-3, steps=STEPS)), progress=False
)
stages, names, h = [x[:1500]], ["x"], x[:1500]
for visit in flow.visits(params, x[:1500]):
    if "Coupling" in visit.name:
        h = visit.result[0]
        stages.append(h)
        names.append(f"after coupling {len(stages) - 1}")
axes = plots.steps(stages, names=names, columns=5)
print(f"loss {flow.loss(params, x):.3f} nats; the entropy of the data is {datasets.Moons().entropy():.3f}")

# %% [markdown]
# A coupling moves points along one axis, and the next one along the other. The `ActNorm` before each coupling
# shifts and stretches both axes.

# %% [markdown]
# ## What NICE cannot do
#
# A flow that keeps volumes has $p_x(x) = p_z(f(x))$: no point can be denser than the middle of the prior. So
# NICE ends with one diagonal scaling layer, $z_i = h_i e^{s_i}$. It is the same for all rows: the ratio of
# two densities, $p_x(x) / p_x(x')$, is still that of two points of the prior. Compare the two on the same
# data:

# %%
for name, model in (("NICE", nice(2, COUPLINGS, MLP((32, 32), "tanh"))), ("RealNVP", flow)):
    start = model.init(np.random.default_rng(0), x)
    learned, _ = fit(
        model,
        start,
        x,
        rng=np.random.default_rng(0),
        steps=STEPS,
        optimizer=Adam(WarmupCosine(5e-3, steps=STEPS)),
        progress=False,
    )
    print(f"{name:8} {model.loss(learned, x):.3f} nats")

# %% [markdown]
# ## What can go wrong
#
# Sum the scales of the wrong half, or of a network that saw the wrong half, and the log-determinant is that
# of another map. The network must not see $b$: then the Jacobian is no triangle any more, and the inverse
# needs what it is looking for.


# %%
class SeesBoth(AdditiveCoupling):
    """Shifts the second half by a function of itself."""

    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        half = x.shape[1] // 2
        return anp.concatenate([z[:, :half], z[:, half:] + 0.3 * anp.tanh(x[:, half:])], axis=1), log_det


report = check(SeesBoth(MLP((16,), "tanh")), rng.standard_normal((16, 4)))
for one in report.failures[:4]:
    print(f"{one.name}: {one.sentence}")

# %% [markdown]
# ## Exercises
#
# 1. Two affine couplings in a row that keep the same half are one affine coupling. Which $s$ and $t$ does it
#    have?
# 2. How many couplings does it take until every output depends on every input?
# 3. Write the coupling $z_b = b \cdot \sigma(s(a)) + t(a)$ with the logistic function $\sigma$. What is its
#    log-determinant?
# 4. `npflow exercise additive_coupling` and `npflow exercise coupling` write a page each to complete;
#    `npflow exercise additive_coupling FILE` marks it.
