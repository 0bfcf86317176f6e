# %% [markdown]
# # Read the gradient: the backward pass of a coupling, line by line
#
# `fit` does not differentiate at every step. It records the loss and its gradient once, and replays the
# record: a *program* of plain NumPy calls, forward and backward. This demo shows the whole program of one
# affine coupling: its source, the formula of each derivative beside its line, a check against finite
# differences, and a debugger session.

# %%
import argparse
import contextlib
import io
import json
import pdb
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.differentiate import derivative

from npflow import Flow, datasets
from npflow.autodiff import Layout, record, value_and_grad
from npflow.layers import AffineCoupling
from npflow.networks import MLP
from npflow.priors import Normal

parser = argparse.ArgumentParser(description="The program of one coupling layer, line by line.")
parser.add_argument(
    "--out", type=Path, default=Path("out/read_the_gradient"), help="where the figure and summary.json go"
)
parser.add_argument("--quick", action="store_true", help="no difference: the demo takes seconds")
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## A flow of one layer
#
# `x = (a, b)`. A network of `a` gives the scale and shift of `b`. A new coupling is the identity, so its
# parameters are moved away from their start to make the example less trivial.

# %%
rng = np.random.default_rng(0)
x = datasets.moons(256, rng=rng)
flow = Flow(AffineCoupling(MLP((16,), "tanh")), Normal(2))
start = flow.init(rng, x)
layout = Layout(start)
params = layout.unpack(layout.pack(start) + 0.3 * rng.standard_normal(layout.size), start)

# %% [markdown]
# ## Record it
#
# `record` runs `value_and_grad(flow.loss)` once and writes down every NumPy call. Unused values are left out,
# repeated expressions are computed once, and buffers are reused. `print(program)` shows the cost.

# %%
program = record(flow.loss, params, x)
print(program)

# %% [markdown]
# ## The source
#
# The names show where a value comes from: `coupling_h` is the variable `h` of the coupling's network, and
# `coupling_h_dot` is an intermediate value on the way to it. `grad_coupling_h` is the gradient of the loss
# with respect to `coupling_h`. Intermediate values of gradients, from the vector-Jacobian product of the
# function that computed `h`, are named `vjp_coupling_h_...`.

# %%
print(program.source)

# %% [markdown]
# ## The formula of each line
#
# A bar means gradient: `h` with a bar is dL/dh, in the shape of `h`. Read the backward pass from the loss
# down. Each line takes the gradient with respect to the output of an operation and gives the gradient with
# respect to its input.

# %%
FORWARD = {
    "coupling_kept": r"$a$, the half that stays",
    "coupling_changed": r"$b$, the half that is transformed",
    "coupling_h": r"$h = \tanh(a W_0 + b_0)$",
    "coupling_apply": r"$u = (r, t) = h W_1 + b_1$",
    "coupling_log_scale": r"$s = 2 \tanh(r / 2)$",
    "coupling_z_b": r"$z_b = b \, e^s + t$",
    "coupling_log_det": r"$\log|\det J| = s$, summed over the features",
    "coupling_joined": r"$z = (a, z_b)$",
    "prior_log_prob": r"$\log p(z) = -\frac{1}{2}|z|^2 - \log 2\pi$",
    "log_prob": r"$\log p(x) = \log p(z) + \log|\det J|$",
    "losses": r"$-\log p(x)$ of each row",
    "loss": r"$L = -\frac{1}{n}\,\sum \log p(x)$",
}
BACKWARD = {
    "vjp_prior_log_prob_multiply_multiply": r"of $z \cdot z$, its half: $\frac{1}{2n} z$",
    "grad_coupling_joined": r"$\bar z = \frac{1}{n} z$, once for each factor",
    "grad_coupling_z_b": r"$\bar z_b$; $\bar a$ is not needed: $a$ is data",
    "vjp_coupling_shift_concatenate": r"$\bar t = \bar z_b$, as a part of $\bar u$",
    "grad_coupling_z_b_exp": r"of $e^s$: $\bar z_b \cdot b$",
    "vjp_coupling_z_b_exp_multiply": r"of $s$ through $e^s$: $e^s$ times that",
    "grad_coupling_log_scale": r"$\bar s = \bar z_b \, b \, e^s - \frac{1}{n}$, the last from $\log|\det J|$",
    "grad_coupling_log_scale_tanh": r"of $\tanh(r/2)$: $2 \bar s$",
    "vjp_coupling_log_scale_tanh_multiply": r"$\tanh^2(r/2)$",
    "vjp_coupling_log_scale_tanh_subtract": r"$\tanh'(r/2) = 1 - \tanh^2(r/2)$",
    "grad_coupling_log_scale_divide": r"of $r/2$: $2 \bar s \, \tanh'(r/2)$",
    "grad_coupling_raw": r"$\bar r = \bar s \, \tanh'(r/2)$",
    "vjp_coupling_raw_concatenate": r"$\bar r$, as a part of $\bar u$",
    "grad_coupling_apply": r"$\bar u = (\bar r, \bar t)$",
    "grad_coupling_h": r"$\bar h = \bar u \, W_1^T$",
    "grad_layer_1_weight": r"$\bar W_1 = h^T \, \bar u$",
    "grad_layer_1_bias": r"$\bar b_1 = 1^T \, \bar u$, a sum over the rows",
    "vjp_coupling_h_multiply": r"$h^2$",
    "vjp_coupling_h_subtract": r"$\tanh' = 1 - h^2$",
    "grad_coupling_h_add": r"of $a W_0 + b_0$: $g = (1 - h^2) \, \bar h$",
    "grad_layer_0_weight": r"$\bar W_0 = a^T g$",
    "grad_layer_0_bias": r"$\bar b_0 = 1^T g$",
}


def made(line):
    """The name of the value that a line of the source computes, or None."""
    name, equals, _ = line.strip().partition(" = ")
    return name if equals and name.isidentifier() else None


lines = program.source.splitlines()
first = next(number for number, line in enumerate(lines) if line.startswith("def forward"))
second = next(number for number, line in enumerate(lines) if line.startswith("def backward"))
derivatives = [
    made(line) for line in lines[second:] if made(line) and made(line).startswith(("grad_", "vjp_"))
]
without = set(derivatives) - set(BACKWARD)
if without or not set(FORWARD) <= set(map(made, lines[first:second])):
    raise SystemExit(
        f"the program of this npflow is another one: the demo has no formulas for {sorted(without)}"
    )

page = [*lines[first:second], *lines[second:]]
page = [line for number, line in enumerate(page) if line.strip() or not page[number - 1].strip()]
backward_at = page.index(lines[second])
width = 0.07 * max(map(len, page)) + 0.3  # inches, of the longest line
figure = plt.figure(figsize=(width + 3.4, 0.2 * len(page)))
ax = figure.add_axes((0, 0, 1, 1))  # a notebook shows no figure without axes
ax.set(xlim=(0, width + 3.4), ylim=(len(page) - 0.5, -0.5))
ax.axis("off")
for row, line in enumerate(page):
    if row % 2:
        ax.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
    title = line.startswith("def ") or "# ----" in line
    formula = (FORWARD if row < backward_at else BACKWARD).get(made(line), "")
    ax.text(0.1, row, line, color="#0072B2" if title else "black", size=8.4, family="monospace", va="center")
    ax.text(width, row, formula, size=10, va="center")
figure.savefig(options.out / "read_the_gradient.png", dpi=100)

# %% [markdown]
# ## Is it right?
#
# The program gives the same bits as autograd, and finite differences agree along a random direction of all
# parameters.

# %%
loss, gradient = program(params, x)
plain_loss, plain = value_and_grad(flow.loss)(params, x)
same_bits = loss == plain_loss and np.array_equal(gradient, layout.pack(plain))

direction = rng.standard_normal(layout.size)
direction /= np.linalg.norm(direction)
vector = layout.pack(params)
losses = np.vectorize(lambda step: float(flow.loss(layout.unpack(vector + step * direction, params), x)))
numerical = float(derivative(losses, 0.0, initial_step=0.1).df)
exact = float(gradient @ direction)

# %% [markdown]
# ## Step through it
#
# The printed source is the code that runs, so a debugger can step through it:
#
#     python -m pdb your_script.py      then: break program.backward, continue, next, p grad_coupling_h.shape
#
# or call `breakpoint()` before `program(params, x)`, and use the same commands. To step through the layers
# themselves, use `fit(..., record=False)`. Here is a session, with the commands given in advance:

# %%
readable = record(flow.loss, params, x, reuse=False)
commands = [
    "tbreak readable.backward",
    "continue",
    *["next"] * 6,
    "p grad_coupling_z_b.shape",
    "where",
    "continue",
]
transcript = io.StringIO()
debugger = pdb.Pdb(
    stdin=io.StringIO("\n".join([*commands, ""])), stdout=transcript, nosigint=True, readrc=False
)
debugger.use_rawinput = False
with contextlib.suppress(SystemExit):
    debugger.runctx("readable(params, x)", globals(), locals())
print(transcript.getvalue())

# %%
summary = {
    "calls": program.lines,
    "formulas": len(BACKWARD),
    "workspace_bytes": program.peak_bytes,
    "without_reuse_bytes": program.bytes_without_reuse,
    "same_bits_as_autograd": bool(same_bits),
    "along_a_direction": {
        "program": exact,
        "finite_differences": numerical,
        "difference": abs(exact - numerical),
    },
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"{'same bits as autograd':28}{same_bits!s:>14}")
for name, value in summary["along_a_direction"].items():
    print(f"{name:28}{value:14.6g}")
print(f"figure and summary.json in {options.out}")
