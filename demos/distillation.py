# %% [markdown]
# # Distillation: a flow that samples fast learns from a flow that evaluates fast
#
# A masked autoregressive flow (MAF) gives the density of any x in one pass of its networks, as training on
# data needs. But it samples feature by feature. An inverse autoregressive flow (IAF) has the same layers,
# inverted: it samples in one pass, with the density of each sample, but it evaluates any other x feature by
# feature. So train a MAF on data, and let it teach an IAF. The student draws samples, the teacher gives their
# densities, and the student minimizes
#
# `KL(student || teacher) = E_z[log p_S(x) - log p_T(x)],  x = student(z)`,
#
# This takes one pass of each flow, and no data. In this way Parallel WaveNet generates speech in real time
# (van den Oord et al. 2017).

# %%
import argparse
import json
import os
import time
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from npflow import datasets, fit, plots
from npflow.autodiff.program.threads import one_blas_thread
from npflow.models import iaf, maf
from npflow.networks import MADE
from npflow.training import Adam, WarmupCosine, distill, kl_divergence

parser = argparse.ArgumentParser(description="A MAF learns from data, an IAF from the MAF.")
parser.add_argument(
    "--out", type=Path, default=Path("out/distillation"), help="where figures and summary.json go"
)
parser.add_argument(
    "--quick",
    action="store_true",
    default=bool(os.environ.get("NPFLOW_QUICK")),
    help="only a few steps: a test that it runs",
)
options = parser.parse_args(None if "__file__" in globals() else [])  # in a notebook there is none
options.out.mkdir(parents=True, exist_ok=True)
STYLES = (
    ("#0072B2", "o"),
    ("#D55E00", "s"),
    ("#000000", "^"),
)  # distinguishable for all readers


def settings(steps, rate, batch_size):
    """The common training options of teachers and students."""
    steps = 5 if options.quick else steps
    return {
        "rng": np.random.default_rng(2),
        "steps": steps,
        "batch_size": batch_size,
        "optimizer": Adam(WarmupCosine(rate, steps=steps, warmup=steps // 20)),
        "clip_norm": 30.0,
        "average": 0.99,
        "record": not options.quick,  # a recording takes as long as several steps
    }


def finished(params, history):
    """The parameters and the history of a run; raise `SystemExit` if it was interrupted."""
    if history.interrupted:
        raise SystemExit(f"stopped at step {history.steps}: nothing was written")
    return params, history


# %% [markdown]
# ## In the plane
#
# Two moons, one teacher, and two students that differ only in what they minimize. Distillation makes the
# student's samples likely under the teacher. It does not make the student cover everything that is likely:
# the ends of the moons are cheap to lose, and a whole moon costs only log 2 = 0.69 nats if the other one is
# right. The samples are good, but the student never sees what it misses.
#
# The second student is fitted to samples of the teacher. This minimizes the divergence in the other
# direction, where every point that the student misses costs. (In two dimensions this is fast enough, and
# works better. But it evaluates the IAF in its slow direction, feature by feature.)

# %%
network = MADE((64, 64), "tanh")
ROWS, DRAWS = (2000, 100) if options.quick else (20_000, 4000)
x = datasets.moons(ROWS, rng=np.random.default_rng(0)).astype(np.float32)
teacher = maf(features=2, steps=6, network=network)
start = teacher.init(np.random.default_rng(1), x[:1000])
teacher_params, _ = finished(*fit(teacher, start, x, **settings(2500, 5e-3, 256)))

student = iaf(features=2, steps=6, network=network)
taught = teacher.sample(teacher_params, np.random.default_rng(1), ROWS)
start = student.init(np.random.default_rng(1), taught[:1000])
students = {
    "distilled": distill(student, start, teacher, teacher_params, **settings(1500, 1e-2, 128)),
    "fitted to samples": fit(student, start, taught, **settings(1500, 5e-3, 256)),
}
plane = {}
for name, (params, history) in students.items():
    finished(params, history)
    rng = np.random.default_rng(3)
    plane[name] = {
        "student_teacher": kl_divergence(student, params, teacher, teacher_params, rng, DRAWS),
        "teacher_student": kl_divergence(teacher, teacher_params, student, params, rng, DRAWS),
        "seconds": history.seconds[-1],
    }

# %%
LIMITS = ((-1.6, 2.6), (-1.1, 1.6))
figure, axes = plt.subplots(1, 4, figsize=(16, 3.8), layout="constrained")
plots.samples(x[:2000], axes[0], limits=LIMITS, color="0.35", title="data")
plots.samples(taught[:2000], axes[1], limits=LIMITS, color=STYLES[1][0], title="the teacher, a MAF")
for ax, (name, (params, _)) in zip(axes[2:], students.items()):
    to, of = (plane[name][direction][0] for direction in ("student_teacher", "teacher_student"))
    title = f"an IAF, {name}\nKL(student || teacher) {to:.2f}\nKL(teacher || student) {of:.2f}"
    samples = student.sample(params, np.random.default_rng(4), 2000)
    plots.samples(samples, ax, limits=LIMITS, color=STYLES[0][0])
    ax.set_title(title, fontsize=10)
figure.savefig(options.out / "moons.png", dpi=90)

# %% [markdown]
# ## In many dimensions
#
# Series of 8, 64 and 256 numbers. Each number depends on the one before it, and the noise grows with its
# size:
#
# `x_t = sin(x_{t-1}) + (0.3 + 0.2 |x_{t-1}|) e_t`, `x_0` and `e_t` standard normal.
#
# The density is known, a product of normal densities. So we can measure how good the teacher is: KL(data ||
# teacher) is the mean difference of two log-likelihoods. A student can be as good as its teacher, but not
# better.


# %%
def series(rng, n, features):
    """Samples of the recursion, and their log p(x) in nats."""
    x = [rng.standard_normal(n)]
    log_p = -0.5 * (x[0] ** 2 + np.log(2 * np.pi))
    for _ in range(1, features):
        e, std = rng.standard_normal(n), 0.3 + 0.2 * np.abs(x[-1])
        x.append(np.sin(x[-1]) + std * e)
        log_p = log_p - 0.5 * (e**2 + np.log(2 * np.pi)) - np.log(std)
    return np.stack(x, axis=1).astype(np.float32), log_p


SAMPLES, ROUNDS = (100, 2) if options.quick else (1000, 15)


def times(teacher, teacher_params, student, params, n):
    """The median seconds of both flows for `n` samples; they take turns, so that other load affects both."""
    seconds = []
    for number in range(ROUNDS + 1):
        rng, row = np.random.default_rng(number), []
        for flow, weights in ((teacher, teacher_params), (student, params)):
            with one_blas_thread():  # a second thread does not help with such small products
                clock = time.perf_counter()
                flow.sample(weights, rng, n)
                row.append(time.perf_counter() - clock)
        seconds.append(row)
    return np.median(seconds[1:], axis=0).tolist()  # the first round warms up


def estimate(values):
    """The mean of values and its standard error."""
    return [float(np.mean(values)), float(np.std(values) / np.sqrt(len(values)))]


rows, histories, flows = {}, {}, {}
for features, width, steps in ((8, 64, 2000), (64, 128, 2000), (256, 256, 1200)):
    x, _ = series(np.random.default_rng(0), ROWS, features)
    test, log_p = series(np.random.default_rng(5), SAMPLES, features)
    network = MADE((width,), "tanh")
    teacher, student = (recipe(features=features, steps=2, network=network) for recipe in (maf, iaf))
    start = teacher.init(np.random.default_rng(1), x[:1000])
    teacher_params, _ = finished(*fit(teacher, start, x, **settings(steps, 3e-3, 256)))
    taught = teacher.sample(teacher_params, np.random.default_rng(1), 1000)
    start = student.init(np.random.default_rng(1), taught)
    params, histories[features] = finished(
        *distill(student, start, teacher, teacher_params, **settings(steps, 5e-3, 128))
    )
    flows[features] = {"teacher, a MAF": (teacher, teacher_params), "student, an IAF": (student, params)}
    rng = np.random.default_rng(3)
    rows[features] = {
        "data_teacher": estimate(log_p - teacher.log_prob(teacher_params, test)),
        "student_teacher": kl_divergence(student, params, teacher, teacher_params, rng, SAMPLES),
        "teacher_student": kl_divergence(teacher, teacher_params, student, params, rng, SAMPLES),
        "data_student": estimate(log_p - student.log_prob(params, test)),
        "seconds": {n: times(teacher, teacher_params, student, params, n) for n in (1, 256)},
    }

# %% [markdown]
# ## Samples
#
# Eight series each of the data, the teacher and the student, with 64 numbers, one above the other. Teacher
# and student get the same z. Nothing asks them to map it to the same x. But both go from noise to the same
# density in the order of time, and there are few ways to do this.

# %%
made = {"data": series(np.random.default_rng(6), 8, 64)[0]}
for name, (flow, weights) in flows[64].items():
    made[name] = flow.sample(weights, np.random.default_rng(7), 8)
z = np.random.default_rng(8).standard_normal((500, 64), np.float32)
both = [flow.decode(weights, z).ravel() for flow, weights in flows[64].values()]
same_z = float(np.corrcoef(*both)[0, 1])
print(f"correlation of the x of teacher and student for the same z: {same_z:.2f}")
figure, axes = plt.subplots(1, 3, figsize=(14, 4), layout="constrained", sharey=True)
for ax, (name, curves), color in zip(axes, made.items(), ("0.35", STYLES[1][0], STYLES[0][0])):
    ax.plot((curves + 4 * np.arange(8)[:, None]).T, color=color, linewidth=1)
    ax.set(title=name, xlabel="t", yticks=[])
figure.savefig(options.out / "series.png", dpi=90)

# %% [markdown]
# ## How many times faster?
#
# A MAF takes one step of Python for each feature and layer, so its time grows with the number of features
# even when there is little to compute. An IAF takes one matrix product for all features. The ratio is largest
# for single samples. (npflow's MAF computes each hidden unit once per sample, not once for each feature.
# Compared with one pass for each feature, the ratio would be larger still.)

# %%
figure, axes = plt.subplots(1, 3, figsize=(15, 4.2), layout="constrained")
sizes = list(rows)
for (color, mark), n in zip(STYLES, (1, 256)):
    teacher_ms, student_ms = (1e3 * np.array([rows[d]["seconds"][n][side] for d in sizes]) for side in (0, 1))
    axes[0].plot(sizes, teacher_ms, mark + "--", color=color, label=f"teacher, {n} at once")
    axes[0].plot(sizes, student_ms, mark + "-", color=color, label=f"student, {n} at once")
    axes[1].plot(sizes, teacher_ms / student_ms, mark + "-", color=color, label=f"{n} at once")
axes[0].set(xlabel="features", ylabel="milliseconds", title="time of sampling", yscale="log")
axes[1].set(xlabel="features", ylabel="ratio", title="how many times faster the student is", yscale="log")
for ax in axes[:2]:
    ax.set_xscale("log", base=2)
    ax.set_xticks(sizes, labels=sizes)
    ax.legend(fontsize=8)
ticks = [tick for tick in (2, 5, 10, 20, 50, 100) if tick < 1.3 * axes[1].get_ylim()[1]]
axes[1].set_yticks(ticks, labels=ticks)
axes[1].minorticks_off()
WINDOW = 2 if options.quick else 20  # steps of the moving mean
for (color, _), (features, history) in zip(STYLES, histories.items()):
    smooth = np.convolve(history.loss, np.ones(WINDOW) / WINDOW, "valid") / features
    axes[2].plot(np.arange(len(smooth)) + WINDOW, smooth, color=color, label=f"{features} features")
axes[2].set(
    xlabel="step", ylabel="nats a feature", yscale="log", title="KL(student || teacher) during training"
)
axes[2].legend(fontsize=8)
figure.savefig(options.out / "speed.png", dpi=90)

# %%
summary = {
    "moons": plane,
    "same_z_correlation": same_z,
    "features": {
        str(features): row
        | {"times_faster": {n: row["seconds"][n][0] / row["seconds"][n][1] for n in (1, 256)}}
        for features, row in rows.items()
    },
}
(options.out / "summary.json").write_text(json.dumps(summary, indent=2))
print(f"\n{'moons, nats':20}{'KL(student || teacher)':>26}{'KL(teacher || student)':>26}")
for name, row in plane.items():
    print(
        f"{name:20}"
        + "".join(
            f"{mean:18.2f} +- {error:.2f}" for mean, error in (row["student_teacher"], row["teacher_student"])
        )
    )
names = ("data_teacher", "student_teacher", "teacher_student", "data_student")
heads = ("data||teacher", "student||teacher", "teacher||student", "data||student")
print(
    f"\n{'features':10}"
    + "".join(f"{f'KL({head})':>22}" for head in heads)
    + f"{'times faster: 1':>18}{'256':>8}"
)
for features, row in summary["features"].items():
    numbers = "".join(f"{row[name][0]:14.2f} +- {row[name][1]:.2f}" for name in names)
    ratios = row["times_faster"]
    print(f"{features:10}{numbers}{ratios[1]:18.1f}{ratios[256]:8.1f}")
print(f"figures and summary.json in {options.out}")
