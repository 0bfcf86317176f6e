# %% [markdown]
# # Every log-det formula, compared with a numerical Jacobian
#
# A flow is trained on its log-dets. If a formula is wrong, training still runs and the loss still falls, but
# the result is no density. So npflow checks every formula. `npflow.verify.check` computes the Jacobian of a
# layer in two ways, by SciPy's finite differences and by autograd, and compares `log|det J|` with the closed
# form.
#
# This demo checks every layer, draws the Jacobians, and then shows the report on a wrong formula.

# %%
import argparse
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path

import autograd.numpy as np
import matplotlib.pyplot as plt

from npflow import plots
from npflow.autodiff.primitives import split_last, tanh
from npflow.layers import AffineCoupling, Layer
from npflow.networks import MLP
from npflow.verify import check
from npflow.verify.cases import CASES

parser = argparse.ArgumentParser(description="Compares every layer's log-det with its numerical Jacobian.")
parser.add_argument("--out", type=Path, default=Path("out/verify"), help="where figures and summary.json go")
parser.add_argument(
    "--quick",
    action="store_true",
    default=bool(os.environ.get("NPFLOW_QUICK")),
    help="only a few of the layers",
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Every layer
#
# `CASES` is the registry: each layer, with the shape of its test data. A report is a table of about
# twenty-five checks. The first report is printed in full.

# %%
QUICK = ("ActNorm", "AffineCoupling")
cases = {name: case for name, case in CASES.items() if name in QUICK or not options.quick}
reports = {}
clock = time.perf_counter()
for name, case in cases.items():
    reports[name] = check(case.layer, case.batch(np.random.default_rng(0)))
    reports[name].subject = name
seconds = time.perf_counter() - clock
print(next(iter(reports.values())))

# %% [markdown]
# ## Pictures of the Jacobians
#
# The numerical Jacobian beside the exact one. They show why each determinant is easy to compute: a diagonal
# (ActNorm), a triangle with a block of zeros (AffineCoupling), a permutation, one block for each pixel
# (layers of images).

# %%
for name, report in reports.items():
    figure = plots.jacobians(report)[0, 0].figure
    figure.savefig(options.out / f"{name.replace('/', '_')}.png", dpi=80)
    if name not in ("ActNorm", "AffineCoupling", "Permutation", "Conv1x1/image"):  # a notebook shows these
        plt.close(figure)

# %% [markdown]
# ## A wrong formula
#
# An affine coupling that sums its log-scale over the half that stays, instead of the half that is scaled. It
# is one line, and easy to miss, because all shapes are right and the inverse is right. In a new layer all
# log-scales are zero, it is the identity, and even this formula gives the right value. So `check` moves the
# parameters away from their start first.


# %%
@dataclass(frozen=True)
class WrongHalf(AffineCoupling):
    """Compute the log-det from the wrong half."""

    def forward(self, params, x):
        z, _ = super().forward(params, x)
        _, b = self.mask.parts(x)
        raw, _ = split_last(self.network.apply(params, b), b.shape[-1])
        return z, self.mask.log_det(self.log_scale_limit * tanh(raw / self.log_scale_limit))

    log_det = Layer.log_det  # the second half of forward


wrong = check(WrongHalf(MLP((16, 16), "tanh")), np.random.default_rng(0).standard_normal((8, 6)))
print("Wrong on purpose:")
print(wrong)

# %% [markdown]
# ## All layers in one figure
#
# The error of each layer's log-det, against finite differences and against autograd, the larger one of both
# directions. Only the ten-step Glow comes near the limit, and only against finite differences. Its leaky
# ReLUs have kinks, where finite differences are less accurate, as SciPy's own error estimate says. The error
# of the wrong formula is far larger.

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
