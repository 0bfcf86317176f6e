# %% [markdown]
# # Three small tables: flows beside kernels and mixtures
#
# Real data, as it comes with scikit-learn: chemical analyses of 178 wines, measures of 569 tissue samples, 1797
# handwritten digits of 64 pixels. The question is always the same: after seeing the training rows, how probable does
# a model find rows that it has not seen? The answer is the mean negative log-likelihood of the test rows, in nats; less
# is better, and a difference of one nat means that the test rows are e times as probable, each of them.
#
# With so few rows a flow's trouble is not to learn them, but to stop before it knows them by heart. So everything
# that can be chosen is chosen on rows of its own, the validation rows: bandwidths, numbers of components, and the step at
# which training would better have ended.

# %%
import argparse
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from npflow import Flow, datasets, fit
from npflow.autodiff import tree
from npflow.autodiff.program.threads import available_cores
from npflow.layers import Chain, Spline
from npflow.models import gaussianization, glow, iaf, maf, neural_spline, nice, real_nvp
from npflow.networks import MADE, MLP
from npflow.training import Adam

parser = argparse.ArgumentParser(description="Flows beside kernels and mixtures on three small tables.")
parser.add_argument("--out", type=Path, default=Path("out/tabular"), help="where figures and summary.json go")
parser.add_argument(
    "--quick", action="store_true", help="a few steps on a few rows: shows that it runs, not that it learns"
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Data
#
# 70 % of the rows to train, 10 % to validate, 20 % to test, all standardized by the training rows' means and
# standard deviations. On such rows independent normal features have 1.42 nats each: 18 for wine, 43 for breast cancer,
# 91 for digits. What a model gains over that it has found out about how features go together, or how they
# are not normal.
#
# Pixels are whole numbers, to which noise below one grey level is added, so that there is a density. The training digits
# are here four times, each time with new noise: nobody should learn it by heart.

# %%
COPIES, ROWS = (1, 100) if options.quick else (4, None)  # ROWS: of each part, at most
tables = {}
for name in datasets.TABULAR:
    table = datasets.tabular(name, rng=np.random.default_rng(0), copies=COPIES)
    tables[name] = table._make(part[:ROWS] for part in table)
for name, (train, validation, test) in tables.items():
    rows = f"{len(train)} rows to train, {len(validation)} to validate, {len(test)} to test"
    print(f"{name}: {train.shape[1]} features; {rows}")

# %% [markdown]
# ## Kernels and mixtures
#
# scikit-learn's density estimators, each tried with many settings, of which the validation rows choose. A kernel
# density has one: how wide the bump is that each training row becomes. A mixture of Gaussians has the number of its
# components, the form of their covariances, and what is added to the diagonals so that no component collapses onto a
# few rows.

# %%
KERNELS = [KernelDensity(bandwidth=width) for width in np.geomspace(0.1, 2, 5 if options.quick else 20)]
MIXTURES = [
    GaussianMixture(components, covariance_type=form, reg_covar=floor, random_state=0)
    for form, numbers, floors in [
        ("full", (1, 2, 3, 5, 10, 20), (1e-3, 1e-1)),
        ("diag", (20, 50, 100), (1e-3,)),
    ]
    for components in (numbers[:1] if options.quick else numbers)
    for floor in floors
]


def best_of(estimators, table):
    """The estimator, fitted to the training rows, that finds the validation rows most probable."""
    with warnings.catch_warnings(), threadpool_limits(1):  # matrices this small are faster without threads
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = [clone(estimator).fit(table.train) for estimator in estimators]
        return max(fitted, key=lambda estimator: estimator.score(table.validation))


# %% [markdown]
# ## Flows
#
# A family is a recipe, which takes the number of features. In front of each comes a spline of every feature by itself,
# which makes it roughly normal: with pixels, most of which are black, that is much of the work. (IAF is made for sampling,
# and finds the density of a given row feature by feature: it gets fewer layers and steps here, and takes the longest.)
#
# Three things keep a flow from knowing its rows by heart.
#
# `fit` looks at the validation rows after every epoch, and returns the parameters that did best on them.
#
# A flow never sees quite the same row twice: to each copy of a training row a little noise is added. That is
# the kernel density again: with noise of standard deviation h the training rows are a sample of the kernel density of
# bandwidth h, and by heart a flow can learn no more than that. How much is best was chosen on the validation rows, too.
#
# And the networks start small and smooth, with tanh. With weights of the usual size a network is a wiggly function from the
# start, and soon has a wiggle for every row; one that starts nearly linear bends where many rows agree. On breast cancer
# that alone is worth four to nine nats, on digits three to six; try `SMALL = 1`.

# %%
NETWORK, MASKED = MLP((64, 64), "tanh", squash_inputs=True), MADE((64, 64), "tanh", squash_inputs=True)
FAMILIES = {
    "NICE": lambda features: nice(features, 4, NETWORK),
    "RealNVP": lambda features: real_nvp(features, 8, NETWORK),
    "Glow": lambda features: glow(features, 5, NETWORK),
    "MAF": lambda features: maf(features, 10, MASKED),
    "IAF": lambda features: iaf(features, 2, MASKED),
    "Gaussianization": lambda features: gaussianization(features, steps=2, components=4),
    "spline coupling": lambda features: neural_spline(features, 3, "coupling", NETWORK),
    "autoregressive spline": lambda features: neural_spline(features, 2, "autoregressive", MASKED),
}
NOISE = {"digits": 0.05, "breast_cancer": 0.01, "wine": 0.3}
EPOCH = 100 if options.quick else 5000  # rows, at least
SMALL = 0.2
STEPS = 3 if options.quick else 2000
FEWER = {} if options.quick else {"IAF": 500}


def flow_of(family, features):
    """A flow of the family, behind a spline of each feature."""
    flow = FAMILIES[family](features)
    return Flow(Chain([Spline(bins=32), *flow.layer.layers]), flow.prior)


def start_small(params):
    """The parameters of a new flow, with its networks' weights so much smaller."""
    smaller = lambda path, leaf: leaf * np.float32(SMALL) if path.endswith("weight") else leaf
    return tree.build(smaller, params)


def train(family, table, noise):
    """The parameters of a flow of the family that has learned a table, and its history."""
    rng = np.random.default_rng(0)
    rows = np.tile(table.train, (-(-EPOCH // len(table.train)), 1))
    rows = (rows + noise * rng.standard_normal(rows.shape)).astype(np.float32)
    flow = flow_of(family, rows.shape[1])
    params, history = fit(
        flow,
        start_small(flow.init(rng, rows)),
        rows,
        rng=rng,
        steps=FEWER.get(family, STEPS),
        batch_size=64,
        optimizer=Adam(1e-3),
        clip_norm=10.0,
        average=0.99,
        validation=table.validation.astype(np.float32),
        record=not options.quick,  # a recording takes as long as some steps
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped after {history.steps} steps: nothing was written")
    return params, history


# %% [markdown]
# ## All of them on every table
#
# These flows are too small for more than one core, so several learn at a time, in a process each. A model is what has
# been learned: functions that give log-probabilities and draws.


# %%
@dataclass(frozen=True)
class Model:
    """What has been learned of a table."""

    log_prob: Callable
    sample: Callable
    chosen: str
    history: object = None


def kernel_density(table):
    """The kernel density that the validation rows choose."""
    best = best_of(KERNELS, table)
    return Model(best.score_samples, best.sample, f"bandwidth {best.bandwidth:.2f}")


def mixture(table):
    """The mixture of Gaussians that the validation rows choose."""
    best = best_of(MIXTURES, table)
    chosen = f"{best.n_components} {best.covariance_type}, + {best.reg_covar:g}"
    return Model(best.score_samples, lambda n: best.sample(n)[0], chosen)


def flow_model(family, table, noise):
    """A flow of the family, at the step that the validation rows choose."""
    flow, (params, history) = flow_of(family, table.train.shape[1]), train(family, table, noise)
    return Model(
        lambda x: flow.log_prob(params, x.astype(np.float32)),
        lambda n: flow.sample(params, np.random.default_rng(0), n),
        f"step {history.validation_step[int(np.argmin(history.validation_loss))]}",
        history,
    )


def learn(name, kind):
    """A model of a table, and a row for the table of results."""
    table, clock = tables[name], time.perf_counter()
    if kind in FAMILIES:
        model = flow_model(kind, table, NOISE[name])
    else:
        model = {"kernel density": kernel_density, "mixture": mixture}[kind](table)
    seconds = time.perf_counter() - clock
    nll = -model.log_prob(table.test)
    return model, {
        "train_nll": -float(np.mean(model.log_prob(table.train))),
        "validation_nll": -float(np.mean(model.log_prob(table.validation))),
        "test_nll": float(np.mean(nll)),
        "standard_error": float(np.std(nll) / np.sqrt(len(nll))),
        "chosen": model.chosen,
        "seconds": seconds,
    }


kinds = ["kernel density", "mixture", *FAMILIES]
pairs = [(name, kind) for name in tables for kind in kinds]
jobs = (delayed(learn)(name, kind) for name, kind in pairs)
learned = Parallel(1 if options.quick else available_cores(), return_as="generator")(jobs)
learned = dict(zip(tqdm(pairs, unit="model"), learned))
models = {name: {kind: learned[name, kind][0] for kind in kinds} for name in tables}
results = {name: {kind: learned[name, kind][1] for kind in kinds} for name in tables}

# %% [markdown]
# ## How they compare
#
# The bars are standard errors of the mean over the test rows. Most of such an error is common to all, since some rows
# are improbable for everyone: differences between models are surer than the bars look.

# %%
BLUE = "#0072B2"
figure, axes = plt.subplots(1, len(tables), figsize=(5 * len(tables), 4), layout="constrained")
for ax, (name, rows) in zip(axes, results.items()):
    places = np.arange(len(rows))[::-1]
    for mark, key in (("o", "test_nll"), ("|", "train_nll")):
        ax.plot([row[key] for row in rows.values()], places, mark, color=BLUE, label=key.removesuffix("_nll"))
    ax.errorbar(
        [row["test_nll"] for row in rows.values()],
        places,
        xerr=[row["standard_error"] for row in rows.values()],
        fmt="none",
        color=BLUE,
    )
    ax.set(title=name, yticks=places, yticklabels=rows, xlabel="negative log-likelihood [nats]")
    ax.margins(y=0.15)
    ax.grid(axis="y", color="0.9")
axes[0].legend()
figure.savefig(options.out / "tabular.png", dpi=100)

# %% [markdown]
# ## By heart
#
# The validation loss falls as long as what is learned is true of other rows as well, and then rises, while the training
# loss goes on falling. What `fit` returns is from the lowest point.

# %%
for name in tables:
    figure, axes = plt.subplots(2, 4, figsize=(17, 7), layout="constrained")
    for ax, kind in zip(axes.flat, FAMILIES):
        models[name][kind].history.plot(ax)
        ax.set_title(f"{kind} on {name}")
    figure.savefig(options.out / f"history_{name}.png", dpi=80)

# %% [markdown]
# ## Digits, real and drawn
#
# Draws brought back to grey levels, by the means and standard deviations that the table was standardized with: the same
# random numbers give the same split.

# %%
rng = np.random.default_rng(0)
pixels, _ = datasets.digits(rng=rng)
train_pixels = datasets.split(pixels, rng=rng).train
mean, std = np.mean(train_pixels, axis=0), np.std(train_pixels, axis=0)

COLUMNS = 4 if options.quick else 16
drawn = {"test rows": tables["digits"].test[:COLUMNS]}
for kind, model in models["digits"].items():
    drawn[kind] = model.sample(20 * COLUMNS)[::20]  # a mixture draws component by component
figure, axes = plt.subplots(
    len(drawn), 1, figsize=(0.6 * COLUMNS + 2, 0.62 * len(drawn)), layout="constrained"
)
for ax, (kind, rows) in zip(axes, drawn.items()):
    pictures = np.pad((rows * std + mean).reshape(-1, 8, 8), ((0, 0), (0, 0), (1, 1)), constant_values=1)
    ax.imshow(np.hstack(pictures), cmap="gray", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_ylabel(kind, rotation=0, ha="right", va="center")
figure.savefig(options.out / "digits.png", dpi=100)

# %%
(options.out / "summary.json").write_text(json.dumps(results, indent=2))
print(f"\n{'':15}{'':24}{'train':>9}{'validation':>12}{'test':>9}{'std. error':>12}{'seconds':>9}   chosen")
for name, rows in results.items():
    for kind, row in rows.items():
        figures = f"{row['train_nll']:9.2f}{row['validation_nll']:12.2f}{row['test_nll']:9.2f}"
        print(
            f"{name:15}{kind:24}{figures}{row['standard_error']:12.2f}{row['seconds']:9.1f}   {row['chosen']}"
        )
print(f"figures and summary.json in {options.out}")
