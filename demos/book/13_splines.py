# %% [markdown]
# # 13. Splines
#
# **A scale and a shift bend nothing: can one component be mapped by any increasing curve, and back,
# exactly?** A spline of rational functions has a closed inverse, a closed derivative, and as many bins as one
# likes.

# %%
import inspect
import os

import matplotlib.pyplot as plt
import numpy as np

from npflow import plots
from npflow.autodiff import Layout
from npflow.layers import Spline, SplineCoupling
from npflow.layers import spline as spline_file
from npflow.networks import MLP
from npflow.verify import check

plt.style.use(plots.STYLE)

rng = np.random.default_rng(0)
FEATURES = 2 if os.environ.get("NPFLOW_QUICK") else 6

# %% [markdown]
# ## One bin
#
# Take a bin of width $w$ and height $h$, with the mean slope $s = h / w$ and given slopes $d_0$, $d_1$ at its
# ends. Let $t \in [0, 1]$ be the share of the width, $u = 1 - t$, and $q$ the share of the height:
#
# $$q(t) = \frac{s t^2 + d_0 t u}{D}, \qquad D = s t^2 + (d_0 + d_1) t u + s u^2.$$
#
# Check what it must do:
#
# - At $t = 0$: $q = 0 / s = 0$. At $t = 1$: $q = s / s = 1$. So bins join without a gap.
# - Near $t = 0$: $q \approx d_0 t / s$, so $dz/dx = (h / w)\, dq/dt = s\, d_0 / s = d_0$. By symmetry the
#   slope at $t = 1$ is $d_1$. So bins join without a kink.
# - In between: let $N$ be the numerator. $N' D - N D'$ is, after multiplying out,
#   $s\,(d_1 t^2 + 2 s t u + d_0 u^2)$, so
#
# $$\frac{dz}{dx} = s\, q'(t) = \frac{s^2 (d_1 t^2 + 2 s t u + d_0 u^2)}{D^2} > 0.$$
#
# All terms are positive, so the curve increases whatever a network says, as long as $s, d_0, d_1 > 0$.
#
# ## The inverse is a quadratic equation
#
# $q D = N$ is quadratic in $t$. With $p = 1 - q$ it reads $s q u^2 - (d_0 p - d_1 q)\, t u - s p\, t^2 = 0$.
# Divide by $u^2$, and with $a = d_0 p - d_1 q$ solve for the positive root $t / u$:
#
# $$\frac{t}{u} = \frac{-a + \sqrt{a^2 + 4 s^2 p q}}{2 s p} = \frac{2 s q}{a + \sqrt{a^2 + 4 s^2 p q}}.$$
#
# The two forms are equal. Where $a > 0$ the first one subtracts two numbers that are nearly equal, and loses
# digits; then the second is used. That is all of this function:

# %%
print(inspect.getsource(spline_file.rational_quadratic))
print(inspect.getsource(spline_file.inverse_rational_quadratic))

# %%
layer = Spline(bins=5, bound=3.0)
x = np.linspace(-4, 4, 801)[:, None]
start = layer.init(rng, x)
layout = Layout(start)
params = layout.unpack(layout.pack(start) + 1.5 * rng.standard_normal(layout.size), start)
z, log_det = layer.forward(params, x)
back, _ = layer.inverse(params, z)
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(x, z, color="#0072B2")
left.plot(x, x, color="0.7", linestyle=":")
left.set(title="a spline with five bins", xlabel="x", ylabel="z", aspect="equal")
right.plot(x, log_det, color="#0072B2", label="formula")
right.plot(
    x[1:],
    np.log(np.diff(z[:, 0]) / np.diff(x[:, 0])),
    color="#D55E00",
    linestyle="--",
    label="by differences",
)
right.set(title="its log-slope: continuous, with kinks at the knots", xlabel="x")
right.legend()
print(f"largest error of x -> z -> x: {np.abs(back - x).max():.1e}")

# %% [markdown]
# ## In a coupling
#
# A network of one half gives the widths, heights and slopes for each component of the other. Softmax makes
# widths and heights positive with a fixed sum; softplus makes slopes positive. The Jacobian is that of any
# coupling, with slopes on the diagonal:
#
# $$\log|\det J| = \sum_i \log \frac{dz_i}{dx_i}.$$

# %%
rows = rng.standard_normal((16, FEATURES))
report = check(SplineCoupling(MLP((16,), "tanh")), rows)
one = report.jacobians["forward"]
plots.jacobian(one.numerical, title="the Jacobian of a spline coupling")
print(f"log|det J| by differences {one.log_abs_det:+.9f}, by the formula {one.log_det:+.9f}")

# %% [markdown]
# ## What can go wrong
#
# The slope is needed in $x$, not in shares of a bin: $dz/dx = (h / w)\, dq/dt$. Forget the factor
# $s = h / w$:


# %%
class InShares(Spline):
    """Has the log-slope of q in t: the factor h / w is missing."""

    def transform(self, raw, x):
        z, log_slope = super().transform(raw, x)
        _, _, (x0, x1, y0, y1), _ = self.bin_of(raw, x, axis=0)
        return z, log_slope - spline_file.np.log((y1 - y0) / (x1 - x0))


report = check(InShares(), rows)
print(next(one.sentence for one in report.failures if "log-det" in one.name))

# %% [markdown]
# ## Exercises
#
# 1. Multiply out $N' D - N D'$, with $u' = -1$.
# 2. Show that $d_0 = d_1 = s$ gives a straight line.
# 3. The spline is the identity outside $[-B, B]$. Why are the outermost slopes 1? `check` would pass if
#    they were not: what would be lost?
# 4. `npflow exercise spline` writes a page to complete; `npflow exercise spline FILE` marks it.
