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
import os
import pdb
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from scipy.differentiate import derivative

from npflow import Flow, datasets
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.program.reading import lines_of
from npflow.layers import AffineCoupling
from npflow.networks import MLP
from npflow.priors import Normal

parser = argparse.ArgumentParser(description="The program of one coupling layer, line by line.")
parser.add_argument(
    "--out", type=Path, default=Path("out/read_the_gradient"), help="where the figure and summary.json go"
)
parser.add_argument(
    "--quick",
    action="store_true",
    default=bool(os.environ.get("NPFLOW_QUICK")),
    help="no difference: the demo takes seconds",
)
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
# `lines_of` reads the source, and writes each line as a formula. A bar means gradient: `h` with a bar is dL/dh,
# in the shape of `h`. A product with a dot is element by element, one without is of matrices. Values on the way
# to another one are written out. Read the backward pass from the loss down. Each line takes the gradient with
# respect to the output of an operation and gives the gradient with respect to its input.


# %%
def in_math(formula):
    """A formula as Matplotlib writes it."""

    def word(found):
        text = found[0]
        if text == "bar{":
            return r"\overline{"
        if re.fullmatch("[A-Za-z](_[a-z])?", text):
            return text
        return rf"\mathrm{{{text}}}".replace("_", r"\_")

    text = re.sub(r"bar\{|[A-Za-z](?:[A-Za-z_]*[A-Za-z])?", word, formula)
    return f"${text}$".replace("*", r"\cdot").replace(" ", r"\ ") if text else ""


lines = program.source.splitlines()
formulas = {(line.part, line.name): line.formula for line in lines_of(program) if line.formula}
first = next(number for number, line in enumerate(lines) if line.startswith("def forward"))
page = [line for line in lines[first:] if line.strip()]
width = 0.07 * max(map(len, page)) + 0.3  # inches, of the longest line
figure = plt.figure(figsize=(width + 5.2, 0.2 * len(page)))
ax = figure.add_axes((0, 0, 1, 1))  # a notebook shows no figure without axes
ax.set(xlim=(0, width + 5.2), ylim=(len(page) - 0.5, -0.5))
ax.axis("off")
part = ""
for row, line in enumerate(page):
    if row % 2:
        ax.axhspan(row - 0.5, row + 0.5, color="0.95", linewidth=0)
    if line.startswith("def "):
        part = line[4:].partition("(")[0]
    title = line.startswith("def ") or "# ----" in line
    formula = formulas.get((part, line.strip().partition(" = ")[0]), "") if " = " in line else ""
    ax.text(0.1, row, line, color="#0072B2" if title else "black", size=8.4, family="monospace", va="center")
    ax.text(width, row, in_math(formula), size=10, va="center")
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
    "formulas": len(formulas),
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
