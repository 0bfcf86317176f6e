# %% [markdown]
# # 4. The warm-up: one affine layer
#
# **Does maximum likelihood find what statistics already knows?** The smallest flow has two parameters for
# each feature, and the best values have a closed form. So this is a test of everything in between: the
# log-determinant, the gradient, the optimizer.

# %%
import inspect
from dataclasses import dataclass

import autograd.numpy as anp
import matplotlib.pyplot as plt
import numpy as np

import npflow
from npflow import Flow, fit, plots
from npflow.layers import Affine, Layer
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
x = rng.normal(3.0, 0.5, (2000, 1))

# %% [markdown]
# ## The layer
#
# $$z = (x - m)\, e^{-s}, \qquad x = m + z\, e^{s}, \qquad \log|\det J| = -\sum_i s_i.$$
#
# The Jacobian is diagonal, with $e^{-s_i}$ on its diagonal. The scale is kept as its logarithm $s$, for three
# reasons: a scale must not be zero or change its sign, any real number is allowed for $s$, and the
# log-determinant is a plain sum. This is the whole layer:

# %%
print(inspect.getsource(Affine))

# %% [markdown]
# ## Your own layer has the same parts
#
# - It is a frozen dataclass. Its fields are hyper-parameters, such as a network; it holds no arrays.
# - `init(rng, x)` returns the arrays that are trained, as a dict, for a batch `x` of the data.
# - `forward(params, x)` returns $z$ and $\log|\det J|$, one number a row: shape `(n,)`. `inverse(params, z)`
#   returns $x$ and the log-determinant of the way back.
# - Arrays have rows first, `(n, features)` or `(n, height, width, channels)`. So a matrix stands on the
#   right, `x @ W`.
# - A layer computes by `autograd.numpy`, which is NumPy whose operations can be differentiated; most files
#   call it `np`. Functions are pure; they change none of their inputs.
#
# `check` needs nothing else. It draws parameters, and prints what it compared:


# %%
@dataclass(frozen=True)
class Shift(Layer):
    """z = x + b, and log|det J| = 0."""

    def init(self, rng, x):
        return {"bias": np.zeros(x.shape[1], x.dtype)}

    def forward(self, params, x):
        return x + params["bias"], anp.zeros_like(x[:, 0])

    def inverse(self, params, z):
        return z - params["bias"], anp.zeros_like(z[:, 0])


print(check(Shift(), rng.normal(3.0, 0.5, (8, 2))))

# %% [markdown]
# ## The Jacobian of `Affine`
#
# Its Jacobian for three features, by differences, and the two numbers that `check` compares:

# %%
report = check(Affine(), rng.normal(3.0, 0.5, (8, 3)))
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of Affine, three features")
print(f"log|det J| by differences {one.log_abs_det:+.10f}, by the formula {one.log_det:+.10f}")

# %% [markdown]
# ## The loss, and its gradient by hand
#
# With a standard normal prior the loss of one feature is
#
# $$L(m, s) = \frac{1}{n} \sum_i \left[\tfrac12 \left(\frac{x_i - m}{e^s}\right)^2 + s\right]
# + \tfrac12 \log 2\pi.$$
#
# Its derivatives are
#
# $$\frac{\partial L}{\partial m} = -\frac{\bar x - m}{e^{2s}}, \qquad
# \frac{\partial L}{\partial s} = 1 - \frac{\overline{(x - m)^2}}{e^{2s}}.$$
#
# Both vanish at the sample's mean and standard deviation. autograd finds the same numbers:

# %%
flow = Flow(Affine(), Normal(1))
params = {"layer": {"mean": np.array([1.0]), "log_std": np.array([0.3])}, "prior": {}}
value, gradient = npflow.autodiff.value_and_grad(flow.loss)(params, x)
m, s = 1.0, 0.3
print("d/dm by autograd and by hand:", gradient["layer"]["mean"][0], -(x.mean() - m) / np.exp(2 * s))
print(
    "d/ds by autograd and by hand:",
    gradient["layer"]["log_std"][0],
    1 - np.mean((x - m) ** 2) / np.exp(2 * s),
)

# %% [markdown]
# ## Training

# %%
params, history = fit(
    flow,
    params,
    x,
    rng=rng,
    steps=500,
    batch_size=len(x),
    optimizer=Adam(WarmupCosine(0.1, steps=500)),
    progress=False,
)
mean, std = params["layer"]["mean"][0], np.exp(params["layer"]["log_std"][0])
print(f"learned  mean {mean:.6f}  std {std:.6f}")
print(f"sample   mean {x.mean():.6f}  std {x.std():.6f}")

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained")
at = np.linspace(1, 5, 300)[:, None]
left.hist(x[:, 0], bins=50, density=True, color="0.85", label="data")
left.plot(at, np.exp(flow.log_prob(params, at)), color="#0072B2", label="flow")
left.set(xlabel="x", ylabel="density", title="The density that was learned")
left.legend()
plots.history(
    history, right, limit=float(np.log(x.std() * np.sqrt(2 * np.pi * np.e))), limit_label="maximum likelihood"
)

# %% [markdown]
# The loss ends at $\log(\sigma \sqrt{2 \pi e})$, the entropy of a normal distribution with the sample's
# standard deviation. No choice of $m$ and $s$ does better on these data.

# %% [markdown]
# ## What can go wrong
#
# The number of nats depends on the units: measure $x$ in millimetres instead of metres, and $\log 1000 = 6.9$
# nats are added for each feature. Losses can be compared on the same data in the same units only.

# %%
for unit, factor in (("m", 1.0), ("mm", 1000.0)):
    scaled = {
        "layer": {
            "mean": factor * params["layer"]["mean"],
            "log_std": params["layer"]["log_std"] + np.log(factor),
        },
        "prior": {},
    }
    print(f"loss in {unit}: {flow.loss(scaled, factor * x):.4f} nats")

# %% [markdown]
# The other classic is to forget that the log-determinant is a sum over features. `check` says so:


# %%
class MeanOfScales(Affine):
    """Takes the mean of the log-scales where the sum belongs."""

    def log_det(self, params, x):
        return super().log_det(params, x) / x.shape[1]


print(
    next(
        one.sentence for one in check(MeanOfScales(), x.reshape(-1, 2)[:16]).failures if "log-det" in one.name
    )
)

# %% [markdown]
# ## Exercises
#
# 1. Write the layer $z = a x + b$ with the parameter $a$ itself instead of its logarithm. What does `check`
#    find?
# 2. Use a Laplace prior, $\log p(z) = -|z| - \log 2$. Which statistics of the sample are the best $m$ and
#    $e^s$ now?
# 3. `npflow exercise affine` writes a file with the formula and an empty `forward` and `inverse`.
