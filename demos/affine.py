# %% [markdown]
# # The warm-up: one affine layer learns a mean and a standard deviation
#
# The smallest flow there is. The data `x` come from N(mu, sigma^2). The prior of `z` is N(0, 1). One affine
# layer maps between them:
#
# `z = (x - mean) * exp(-log_std)`, with `log|det J| = -log_std`.
#
# Maximum likelihood has a closed form here: the best `mean` is the mean of the sample, and the best
# `exp(log_std)` is its standard deviation. So this demo is also a test: gradient descent on
# `log p(x) = log prior(z) + log|det J|` must find these two numbers.

# %%
import argparse
import json
import os
from pathlib import Path

import numpy as np

from npflow import Flow, fit, plots
from npflow.layers import Affine
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine

parser = argparse.ArgumentParser(description="One affine layer learns a mean and a standard deviation.")
parser.add_argument("--out", type=Path, default=Path("out/affine"), help="where figures and summary.json go")
parser.add_argument(
    "--quick",
    action="store_true",
    default=bool(os.environ.get("NPFLOW_QUICK")),
    help="less data; the result is the same",
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data
#
# A sample of a normal distribution far from the standard one. It is in double precision, because we compare
# numbers.

# %%
MU, SIGMA = 3.0, 0.5
rng = np.random.default_rng(0)
x = rng.normal(MU, SIGMA, (500 if options.quick else 5000, 1))
mle = {"mu": float(x.mean()), "sigma": float(x.std())}

# %% [markdown]
# ## Flow and training
#
# Each step takes the gradient of the whole sample, and a cosine schedule makes the steps smaller. Without the
# noise of mini-batches the optimum is found to many digits.

# %%
flow = Flow(Affine(), Normal(1))
params = flow.init(rng, x)
params, history = fit(
    flow, params, x, rng=rng, steps=600, batch_size=len(x), optimizer=Adam(WarmupCosine(0.1, steps=600))
)
learned = {
    "mu": float(params["layer"]["mean"][0]),
    "sigma": float(np.exp(params["layer"]["log_std"][0])),
}

# %% [markdown]
# ## What it learned
#
# On the left, the density of the flow over a histogram of the data. On the right, the loss. It falls to the
# entropy of the fitted normal distribution, `log(sigma sqrt(2 pi e))`. No choice of the two parameters gives
# a lower loss on this sample.

# %%
import matplotlib.pyplot as plt

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
at = np.linspace(MU - 4 * SIGMA, MU + 4 * SIGMA, 300)[:, None]
left.hist(x[:, 0], bins=60, density=True, color="0.8", label="data")
left.plot(at[:, 0], np.exp(flow.log_prob(params, at)), color="#0072B2", label="flow")
left.set(xlabel="x", ylabel="density", title="The density that was learned")
left.legend()
limit = float(np.log(mle["sigma"] * np.sqrt(2 * np.pi * np.e)))
plots.history(history, right, limit=limit, limit_label="maximum likelihood")
right.set_title("The way there")
figure.savefig(options.out / "affine.png", dpi=120)

# %%
summary = {
    "true": {"mu": MU, "sigma": SIGMA},
    "maximum_likelihood": mle,
    "learned": learned,
    "error": {name: abs(learned[name] - mle[name]) for name in mle},
    "steps": history.steps,
    "seconds": history.seconds[-1],
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'':8}{'true':>12}{'maximum likelihood':>22}{'learned':>14}{'difference':>14}")
for name in mle:
    error = summary["error"][name]
    print(f"{name:8}{summary['true'][name]:12.6f}{mle[name]:22.6f}{learned[name]:14.6f}{error:14.1e}")
print(f"figures and summary.json in {options.out}")
