# %% [markdown]
# # Every determinant formula, held against a numerical Jacobian
#
# A flow is trained on its log-determinants: where a formula is wrong, training goes on, the loss goes down, and
# the "density" is none. So npflow never takes a formula's word. `npflow.verify.check` computes the Jacobian of a
# layer twice, by SciPy's finite differences and by autograd, and compares `log|det J|` with the closed form.
#
# This story does it for every layer, draws the Jacobians, and then shows how a wrong formula looks.

# %%
import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path

import autograd.numpy as np
import matplotlib.pyplot as plt

from npflow import plots
from npflow.autodiff.primitives import sum_event
from npflow.layers import AffineCoupling
from npflow.networks import MLP
from npflow.verify import check
from npflow.verify.cases import CASES

parser = argparse.ArgumentParser(description="Holds every layer against its numerical Jacobian.")
parser.add_argument("--out", type=Path, default=Path("out/verify"), help="where figures and summary.json go")
parser.add_argument("--quick", action="store_true", help="a few of the layers")
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Every layer
#
# `CASES` is the registry: each layer, with the shape of data to try it on. A report is a table of some
# twenty-five checks; the first one is printed whole.

# %%
QUICK = ("ActNorm", "AffineCoupling", "Conv1x1/image", "MaskedAutoregressive", "Permutation", "Spline")
cases = {name: case for name, case in CASES.items() if name in QUICK or not options.quick}
reports = {}
clock = time.perf_counter()
for name, case in cases.items():
    reports[name] = check(case.layer, case.batch(np.random.default_rng(0)))
    reports[name].subject = name
seconds = time.perf_counter() - clock
print(next(iter(reports.values())))

# %% [markdown]
# ## The Jacobians as pictures
#
# Numerical beside exact. One sees what makes each determinant easy: a diagonal (ActNorm), a triangle with a block
# of zeros (AffineCoupling), a permutation, one block for each pixel (image layers).

# %%
for name, report in reports.items():
    figure = plots.jacobians(report)[0, 0].figure
    figure.savefig(options.out / f"{name.replace('/', '_')}.png", dpi=80)
    if name not in ("ActNorm", "AffineCoupling", "Permutation", "Conv1x1/image"):  # those a notebook shows
        plt.close(figure)

# %% [markdown]
# ## How a wrong formula looks
#
# An affine coupling that sums its log-scale over the half that stays, instead of the half that is scaled: one
# line, easily missed, since shapes and round trip are all right. When the layer is new, it is the identity, all
# log-scales are zero, and any such formula is "right"; therefore `check` moves the parameters away first.


# %%
@dataclass(frozen=True)
class WrongHalf(AffineCoupling):
    """The log-det is computed from the half that is not transformed."""

    def forward(self, params, x):
        z, _ = super().forward(params, x)
        kept, changed = self.mask.parts(x)
        _, log_scale = self.transformer.transform(self.network.apply(params, changed), kept)
        return z, sum_event(log_scale)


wrong = check(WrongHalf(MLP((16, 16), "tanh")), np.random.default_rng(0).standard_normal((8, 6)))
print("Wrong on purpose:")
print(wrong)

# %% [markdown]
# ## All of them at a glance
#
# The error of each layer's log-det, against finite differences and against autograd, the larger of both directions.
# Only the ten-step Glow comes near what is allowed, and only against finite differences: its leaky ReLUs have kinks,
# near which differences are less certain, as SciPy's own estimate says. The wrong formula lies far above.

# %%
shown = {**reports, "a wrong formula": wrong}
figure, ax = plt.subplots(figsize=(8, 0.3 * len(shown) + 1.5), layout="constrained")
places = np.arange(len(shown))[::-1]
for how, marker, color in (("finite differences", "o", "#0072B2"), ("autograd", "D", "none")):
    errors = [max(report.log_det_error(how), 1e-17) for report in shown.values()]  # a log axis has no zero
    style = {"marker": marker, "facecolors": color, "edgecolors": "#0072B2" if color != "none" else "black"}
    ax.scatter(errors, places, s=45, label=f"against {how}", zorder=2, **style)
ax.axvline(1e-9, color="0.3", linestyle="--", label="allowed where SciPy\nestimates no error")
ax.set(
    xscale="log", xlabel="error of the log-det [nats], 1e-17 stands for 0", yticks=places, yticklabels=shown
)
ax.grid(axis="y", color="0.9", zorder=0)
ax.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0))
figure.savefig(options.out / "errors.png", dpi=100)

# %%
summary = {
    "passed": all(report.passed for report in reports.values()),
    "seconds": seconds,
    "layers": {
        name: {how: report.log_det_error(how) for how in ("finite differences", "autograd")}
        for name, report in reports.items()
    },
    "wrong_formula": wrong.as_dict(),
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'layer':28}{'finite differences':>20}{'autograd':>12}  verdict")
for name, report in shown.items():
    errors = [report.log_det_error(how) for how in ("finite differences", "autograd")]
    print(f"{name:28}{errors[0]:20.1e}{errors[1]:12.1e}  {'passed' if report.passed else 'FAILED'}")
print(f"figures and summary.json in {options.out}")
