# %% [markdown]
# # 22. Numerical Jacobians, and how `check` decides
#
# **A formula and a numerical derivative never agree exactly. When is the formula wrong?** When they differ by
# more than the numerical derivative can be off. So the derivative needs an estimate of its own error.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np
from scipy.differentiate import derivative

from npflow import plots
from npflow.layers import AffineCoupling
from npflow.networks import MLP
from npflow.verify import check, jacobians

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
FEATURES, MISTAKES = (2, [1e-6]) if os.environ.get("NPFLOW_QUICK") else (4, [1e-4, 1e-6, 1e-8, 1e-10])

# %% [markdown]
# ## The error of a difference has two parts
#
# By Taylor's theorem
#
# $$\frac{f(x + h) - f(x)}{h} = f'(x) + \frac{h}{2} f''(x) + O(h^2), \qquad
# \frac{f(x + h) - f(x - h)}{2 h} = f'(x) + \frac{h^2}{6} f'''(x) + O(h^4).$$
#
# In the second one the even terms cancel. That is the truncation error; a small $h$ makes it small. But each
# value of $f$ is rounded, with a relative error of $\epsilon \approx 2 \cdot 10^{-16}$, and the division by
# $h$ enlarges that: the rounding error is about $\epsilon / h$, and a small $h$ makes it large. For an error
# of order $k$ the best $h$ balances the two:
#
# $$h^k = \frac{\epsilon}{h}
# \quad\Longrightarrow\quad h = \epsilon^{1/(k+1)}, \quad \text{error} = \epsilon^{k/(k+1)}.$$
#
# So forward differences reach $10^{-8}$, central ones $10^{-11}$, and order 8 reaches $10^{-14}$ with a large
# $h$ of 0.02.

# %%
h = np.logspace(-12, 0, 100)
x = 0.7
weights = np.array([4 / 5, -1 / 5, 4 / 105, -1 / 280])  # of f(x + kh) - f(x - kh), k = 1 ... 4
eighth = sum(w * (np.sin(x + k * h) - np.sin(x - k * h)) for k, w in enumerate(weights, start=1)) / h
schemes = {
    "forward, order 1": (np.sin(x + h) - np.sin(x)) / h,
    "central, order 2": (np.sin(x + h) - np.sin(x - h)) / (2 * h),
    "central, order 8": eighth,
}
figure, ax = plt.subplots(figsize=(7, 3.6), layout="constrained")
for (name, values), color in zip(schemes.items(), ("#D55E00", "#E69F00", "#0072B2")):
    error = np.abs(values - np.cos(x)) + 1e-17
    ax.loglog(h, error, color=color, label=name)
    print(f"{name}: least error {error.min():.0e} at h = {h[np.argmin(error)]:.0e}")
ax.set(
    xlabel="h",
    ylabel="error of the derivative of sin at 0.7",
    title="Truncation on the right, rounding on the left",
)
ax.legend()

# %% [markdown]
# ## An estimate of the error
#
# Compute the derivative with $h$ and with $h / 2$. With order $k$ the error falls by $2^k$, so the difference
# of the two is nearly the error of the first: an estimate that needs no knowledge of $f$. SciPy repeats this
# until the estimate is below a tolerance, or no longer falls.

# %%
found = derivative(np.sin, x, order=8)
print(
    f"SciPy: error estimated {found.error:.1e}, true {abs(found.df - np.cos(x)):.1e}, "
    f"{found.nfev} evaluations"
)

# %% [markdown]
# ## From an error of $J$ to an error of $\log|\det J|$
#
# Let each entry of $J$ be off by $E$. Then $\det(J + E) = \det J \, \det(I + J^{-1} E)$, and to first order
#
# $$\log|\det(J + E)| - \log|\det J|
# \approx \operatorname{tr}(J^{-1} E) \le \sum_{ij} |J^{-1}|_{ji} |E|_{ij}.$$
#
# A nearly singular $J$ has a large inverse, so its log-determinant is uncertain however good the entries are.
# `check` computes this bound for each row, and compares formula and Jacobian with it. These functions do it:

# %%
print(inspect.getsource(jacobians.by_finite_differences))
print(inspect.getsource(jacobians.log_abs_det))

# %%
rows = rng.standard_normal((8, FEATURES))
layer = AffineCoupling(MLP((8,), "tanh"))
report = check(layer, rows)
one = report.jacobians["forward"]
figure, axes = plt.subplots(1, 2, figsize=(8, 3.4), layout="constrained")
plots.jacobian(one.numerical, axes[0], title="by differences")
plots.jacobian(one.numerical - one.exact, axes[1], title="less that of autograd")
print(f"largest difference of the two Jacobians: {np.abs(one.numerical - one.exact).max():.1e}")

# %% [markdown]
# There is a second witness: autograd's Jacobian, which is exact up to rounding. Where the two Jacobians
# agree, and the formula differs from both, the formula is wrong. Where the Jacobians differ from each other,
# a derivative is wrong, or the map is not smooth.

# %% [markdown]
# ## What can go wrong: how small a mistake is seen?
#
# Add a small number to a right log-determinant:


# %%
class Off(AffineCoupling):
    """Its log-determinant is off by `by`."""

    by = 0.0

    def forward(self, params, x, context=None):
        z, log_det = super().forward(params, x, context)
        return z, log_det + self.by

    def inverse(self, params, z, context=None):
        x, log_det = super().inverse(params, z, context)
        return x, log_det - self.by

    def log_det(self, params, x, context=None):
        return self.forward(params, x, context)[1]


for by in MISTAKES:
    Off.by = by
    report = check(Off(MLP((8,), "tanh")), rows)
    one = report["log-det forward, finite differences"]
    print(
        f"off by {by:.0e} nats: {one.error:.1e} found, {one.tolerance:.1e} allowed; passed: {report.passed}"
    )

# %% [markdown]
# The allowance is never below $10^{-9}$ nats: smaller errors do not matter in practice, and rounding in a deep
# layer can reach it.

# %% [markdown]
# ## Exercises
#
# 1. Derive the weights $2/3$ and $-1/12$ of the central difference of order 4, for the form of the code above.
# 2. In float32 $\epsilon$ is $10^{-7}$. What is the best error of each scheme, and why does `check` compute
#    in float64?
# 3. $f(x) = |x|$ at $x = 0.01$. For which $h$ is the central difference right?
