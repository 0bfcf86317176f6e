# %% [markdown]
# # Three small tables: flows, kernels and mixtures
#
# Real data from scikit-learn: chemical analyses of 178 wines, measurements of 569 tissue samples, 1797
# handwritten digits with 64 pixels. The question is the same for all: after training, how probable are new
# rows under the model? The answer is the mean negative log-likelihood of the test rows, in nats. Smaller is
# better: one nat less means that each test row is e times as probable on average.
#
# With so few rows the difficulty is not to learn them, but to stop before the model overfits. So everything
# that can be chosen is chosen on separate rows, the validation rows: bandwidths, numbers of components, and
# the step at which training stops.

# %%
import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from npflow import Flow, datasets, fit, plots
from npflow.autodiff import tree
from npflow.autodiff.program.threads import available_cores
from npflow.cli.demo import demo_options
from npflow.layers import Chain, Spline
from npflow.models import (
    EstimatedLogDet,
    EstimatedTrace,
    continuous_flow,
    gaussianization,
    glow,
    iaf,
    maf,
    neural_spline,
    nice,
    planar,
    real_nvp,
    residual_flow,
    sylvester,
)
from npflow.networks import MADE, MLP
from npflow.plots.style import BLUE
from npflow.training import Adam

options = demo_options("tabular", "Flows, kernels and mixtures on three small tables.")
plt.style.use(plots.STYLE)

# %% [markdown]
# ## Data
#
# 70 % of the rows to train, 10 % to validate, 20 % to test, all standardized by the means and standard
# deviations of the training rows. On such rows independent normal features have 1.42 nats each: 18 for wine,
# 43 for breast cancer, 91 for digits. What a model gains over this comes from dependence between features, or
# from features that are not normal.
#
# Pixels are integers, so uniform noise of the width of one level is added to make a density. The training
# digits are used four times, each time with new noise, which reduces overfitting.

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
# scikit-learn's density estimators, with many settings each; the validation rows choose. A kernel density has
# one setting: its bandwidth. A mixture of Gaussians has the number of components, the form of their
# covariances, and a constant that is added to the diagonals so that no component collapses onto a few rows.

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
    """Fit all to the training rows; return the one with the highest likelihood of the validation rows."""
    with warnings.catch_warnings(), threadpool_limits(1):  # threads are slower for such small matrices
        warnings.simplefilter("ignore", ConvergenceWarning)
        fitted = [clone(estimator).fit(table.train) for estimator in estimators]
        return max(fitted, key=lambda estimator: estimator.score(table.validation))


# %% [markdown]
# ## Flows
#
# A family is a recipe that takes the number of features. In front of each flow is a spline for each feature,
# which makes the feature roughly normal. For pixels, most of which are black, this is a large part of the
# work. (IAF is made for sampling, and evaluates a density feature by feature. It gets fewer layers and steps
# here, and still takes the longest.)
#
# Three things reduce overfitting.
#
# `fit` evaluates the validation rows after every epoch, and returns the parameters that were best on them.
#
# A flow never sees exactly the same row twice: a little noise is added to each copy of a training row. This
# is related to the kernel density: with noise of standard deviation h the training rows are a sample of the
# kernel density of bandwidth h, so a flow that overfits learns no more than this. The size of the noise was
# also chosen on the validation rows.
#
# And the networks start small and smooth, with tanh. With weights of the usual size a network starts as an
# irregular function and soon fits each row. A network that starts nearly linear bends where many rows agree.
# On breast cancer this alone gains four to nine nats, on digits three to six; try `SMALL = 1`.

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
    "planar": lambda features: planar(features, steps=64),
    "Sylvester": lambda features: sylvester(features, steps=32),
    "residual flow": lambda features: residual_flow(features, steps=4),
    "continuous": lambda features: continuous_flow(features, steps=4),
}
if options.quick:
    for family in (
        "IAF",
        "Gaussianization",
        "autoregressive spline",
        "planar",
        "residual flow",
        "continuous",
    ):
        del FAMILIES[family]
NOISE = {"digits": 0.05, "breast_cancer": 0.01, "wine": 0.3}
EPOCH = 100 if options.quick else 5000  # rows, at least
SMALL = 0.2
STEPS = 3 if options.quick else 2000
FEWER = {} if options.quick else {"IAF": 500}
# Trained with estimated log-dets: that takes the residual flow a tenth of the time for 64 features.
ESTIMATED = {"residual flow": lambda flow: EstimatedLogDet(flow, exact=2), "continuous": EstimatedTrace}


def flow_of(family, features):
    """A flow of the family, after a spline of each feature."""
    flow = FAMILIES[family](features)
    return Flow(Chain([Spline(bins=32), *flow.layer.layers]), flow.prior)


def start_small(params):
    """The parameters of a new flow with the weights of its networks multiplied by `SMALL`."""
    smaller = lambda path, leaf: leaf * np.float32(SMALL) if path.endswith("weight") else leaf
    return tree.build(smaller, params)


def train(family, table, noise):
    """Train a flow of the family on a table; return its parameters and its history."""
    rng = np.random.default_rng(0)
    rows = np.tile(table.train, (-(-EPOCH // len(table.train)), 1))
    rows = (rows + noise * rng.standard_normal(rows.shape)).astype(np.float32)
    flow = flow_of(family, rows.shape[1])
    params, history = fit(
        ESTIMATED[family](flow) if family in ESTIMATED else flow,
        start_small(flow.init(rng, rows)),
        rows,
        rng=rng,
        steps=FEWER.get(family, STEPS),
        batch_size=64,
        optimizer=Adam(1e-3),
        clip_norm=10.0,
        average=0.99,
        validation=table.validation.astype(np.float32),
        record=not options.quick,  # a recording takes as long as several steps
        progress=False,
    )
    if history.interrupted:
        raise SystemExit(f"stopped after {history.steps} steps: nothing was written")
    return params, history


# %% [markdown]
# ## All models on every table
#
# These flows are too small to use more than one core, so several train at a time, each in its own process. A
# trained model is two functions: one gives log-probabilities, the other draws samples.


# %%
@dataclass(frozen=True)
class Model:
    """A trained model of a table."""

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
    """Train a model on a table; return it and a row of results."""
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
# The bars are standard errors of the mean over the test rows. Most of this error is common to all models,
# since some rows are improbable under every model. So differences between models are more certain than the
# bars suggest.

# %%
figure, axes = plt.subplots(1, len(tables), figsize=(10, 3.4), layout="constrained")
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
    ax.set(title=name.replace("_", " "), yticks=places, xlabel="negative log-likelihood [nats]")
    ax.set_yticklabels(rows if ax is axes[0] else [])
    ax.margins(y=0.15)
    ax.grid(axis="y", color="0.9")
figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
figure.savefig(options.out / "tabular.png")

# %% [markdown]
# ## Overfitting
#
# The validation loss falls as long as what the model learns also holds for other rows. Then it rises, while
# the training loss still falls. `fit` returns the parameters at the lowest point.

# %%
for name in ["digits"] if options.quick else tables:
    figure, axes = plt.subplots(
        -(-len(FAMILIES) // 4),
        4,
        squeeze=False,
        figsize=(10, 2.2 * -(-len(FAMILIES) // 4)),
        layout="constrained",
    )
    for ax, kind in zip(axes.flat, FAMILIES):
        models[name][kind].history.plot(ax)
        ax.get_legend().remove()
        ax.set(title=kind, ylabel="")
    for ax in axes.flat[len(FAMILIES) :]:
        ax.set_axis_off()
    figure.suptitle(name.replace("_", " "))
    figure.supylabel("negative log-likelihood [nats]", fontsize=9)
    labelled = axes[0, 0].get_legend_handles_labels()
    figure.legend(labelled[0], ["training", *labelled[1][1:]], loc="outside lower center", ncols=3)
    figure.savefig(options.out / f"history_{name}.png")

# %% [markdown]
# ## Digits, real and drawn
#
# Samples in grey levels, transformed back with the means and standard deviations of the table. The same
# random numbers give the same split of the data.

# %%
rng = np.random.default_rng(0)
pixels, _ = datasets.digits(rng=rng)
train_pixels = datasets.split(pixels, rng=rng).train
mean, std = np.mean(train_pixels, axis=0), np.std(train_pixels, axis=0)

COLUMNS, APART = (4, 1) if options.quick else (16, 20)
drawn = {"test rows": tables["digits"].test[:COLUMNS]}
for kind, model in models["digits"].items():
    drawn[kind] = model.sample(APART * COLUMNS)[::APART]  # a mixture draws component by component
figure, axes = plt.subplots(
    len(drawn), 1, figsize=(0.5 * COLUMNS + 2, 0.55 * len(drawn)), layout="constrained"
)
for ax, (kind, rows) in zip(axes, drawn.items()):
    pictures = np.pad((rows * std + mean).reshape(-1, 8, 8), ((0, 0), (0, 0), (1, 1)), constant_values=0)
    ax.imshow(np.hstack(pictures), cmap="gray_r", vmin=0, vmax=1)
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_ylabel(kind, rotation=0, ha="right", va="center")
figure.savefig(options.out / "digits.png")

# %%
(options.out / "summary.json").write_text(json.dumps(results, indent=2))
print(f"\n{'':15}{'':24}{'train':>9}{'validation':>12}{'test':>9}{'std. error':>12}{'seconds':>9}   chosen")
for name, rows in results.items():
    for kind, row in rows.items():
        figures = f"{row['train_nll']:9.2f}{row['validation_nll']:12.2f}{row['test_nll']:9.2f}"
        print(
            f"{name:15}{kind:24}{figures}{row['standard_error']:12.2f}{row['seconds']:9.1f}   {row['chosen']}"
        )

# %% [markdown]
# The test losses as the table of the guide; the smallest in a column is bold.

# %%
best = {name: min(row["test_nll"] for row in rows.values()) for name, rows in results.items()}
NAMES = {"kernel density": "kernel density (scikit-learn)", "mixture": "mixture of Gaussians (scikit-learn)"}
page = [["", *(f"{name.replace('_', ' ')} ({table.test.shape[1]})" for name, table in tables.items())]]
page.append(["---"] * len(page[0]))
for kind in kinds:
    losses = {name: rows[kind]["test_nll"] for name, rows in results.items()}
    cells = [f"**{loss:.1f}**" if loss == best[name] else f"{loss:.1f}" for name, loss in losses.items()]
    page.append([NAMES.get(kind, kind), *(cell.replace("-", "\N{MINUS SIGN}") for cell in cells)])
print(*(f"| {' | '.join(cells)} |" for cells in page), sep="\n")
print(f"figures and summary.json in {options.out}")
