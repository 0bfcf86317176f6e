# %% [markdown]
# # 12. Gaussianization: a flow without gradients
#
# **Can one build a flow step by step, without training?** In one dimension the perfect flow is known in
# closed form. Apply it to each coordinate, rotate, and repeat.

# %%
import inspect
import os

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import norm

from npflow import datasets, plots
from npflow.layers import Gaussianize
from npflow.models import gaussianization
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
ROWS, FEATURES, STEPS = (200, 1, (1, 5)) if os.environ.get("NPFLOW_QUICK") else (5000, 4, (1, 2, 4, 8, 16))

# %% [markdown]
# ## One dimension: two distribution functions
#
# Let $F$ be the distribution function of $x$. Then $u = F(x)$ is uniform, as
# $P(F(x) \le u) = P(x \le F^{-1}(u)) = u$. And $z = \Phi^{-1}(u)$ is normal, by the same argument backwards.
# So
#
# $$z = \Phi^{-1}(F(x)), \qquad \frac{dz}{dx} = \frac{F'(x)}{\Phi'(z)}, \qquad
# \log|\det J| = \sum_i \big[\log F_i'(x_i) - \log \Phi'(z_i)\big].$$
#
# The middle formula follows from $\Phi(z) = F(x)$, differentiated on both sides. Put it into the change of
# variables, and $\Phi'(z)$ cancels: $p_x(x) = \Phi'(z)\, F'(x) / \Phi'(z) = F'(x)$, as it must be.
#
# npflow takes a mixture of logistics for $F$, and fits it by the EM algorithm.

# %%
column = np.concatenate([rng.normal(-2, 0.5, (ROWS, 1)), rng.exponential(1.5, (ROWS, 1))])
layer = Gaussianize(components=8)
params = layer.init(rng, column)
z, log_det = layer.forward(params, column)
figure, axes = plt.subplots(1, 3, figsize=(10.5, 3), layout="constrained")
axes[0].hist(column[:, 0], bins=80, density=True, color="0.8")
axes[0].set(title="x", ylabel="density", xlim=(-4, 6))
order = np.argsort(column[:, 0])
axes[1].plot(column[order, 0], z[order, 0], color="#0072B2")
axes[1].set(title="z as a function of x", xlabel="x", xlim=(-4, 6))
at = np.linspace(-4, 4, 200)
axes[2].hist(z[:, 0], bins=80, density=True, color="0.8")
axes[2].plot(at, norm.pdf(at), color="#0072B2", label="standard normal")
axes[2].set(title="z")
axes[2].legend()

# %%
print(inspect.getsource(Gaussianize.forward))
print(inspect.getsource(Gaussianize.inverse))

# %% [markdown]
# Each component is mapped by itself, so the Jacobian is diagonal:

# %%
x = rng.standard_normal((32, FEATURES))
report = check(layer, x)
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of Gaussianize")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## Many dimensions: rotate and repeat
#
# With normal marginals $z$ need not be normal: its components can depend on each other. Write $N(x)$ for the
# divergence of $x$ from a standard normal, and let $q = \prod_i p_i$ be the product of the marginals. Since
# $\log q - \log \mathcal N$ is a sum of functions of one component each,
#
# $$N(x) = E\left[\log \frac{p(x)}{\mathcal N(x)}\right] = E\left[\log \frac{p(x)}{\prod_i p_i(x_i)}\right] +
# \sum_i E\left[\log \frac{p_i(x_i)}{\mathcal N(x_i)}\right] = I(x) + \sum_i N(x_i).$$
#
# The first term is the mutual information, the second what the marginals lack. Now
#
# - Gaussianizing each component makes the second term 0, and leaves $I$ alone, as $I$ does not change when
#   each component is mapped by itself;
# - a rotation leaves $N$ alone, as the normal density is the same in all directions. But it moves divergence
#   from $I$ into the marginals.
#
# So no step makes $N$ larger, and each one removes what the last rotation has moved into the marginals. The
# loss of the flow is the entropy of the data plus $N$, up to what the fit of the mixtures misses:

# %%
data = datasets.moons(ROWS, rng=rng)
entropy = datasets.Moons().entropy()
print("steps   loss less the entropy, in nats")
for steps in STEPS:
    flow = gaussianization(features=2, steps=steps, rotation="random")
    params = flow.init(np.random.default_rng(0), data)
    print(f"{steps:5}   {flow.loss(params, data) - entropy:.3f}")

# %%
h, stages, names = data, [data], ["x"]
for visit in flow.visits(params, data):
    if "Gaussianize" in visit.name:
        stages.append(visit.result[0])
        names.append(f"Gaussianize {len(stages) - 1}")
axes = plots.steps([*stages[:5], stages[-1]], names=[*names[:5], names[-1]], columns=6)

# %% [markdown]
# ## What can go wrong
#
# Leave out the prior's part, $-\log \Phi'(z)$, and the formula is that of $u = F(x)$, a map to the unit
# interval:


# %%
class ToUniform(Gaussianize):
    """Has the log-determinant of F alone."""

    def forward(self, params, x):
        z, log_det = super().forward(params, x)
        return z, log_det + anp.sum(-0.5 * z * z - 0.5 * anp.log(2 * anp.pi), axis=1)


report = check(ToUniform(), x)
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. Which data are made normal by one Gaussianize, one rotation and one more Gaussianize?
# 2. In the plane, uncorrelated data of equal variance have no principal components. Why does a random rotation still make
#    progress?
# 3. Show that $I(x)$ does not change when each component is mapped by an increasing function of its own.
# 4. `npflow exercise gaussianize` writes a page to complete; `npflow exercise gaussianize FILE` marks it.
