"""Every recipe on data that makes flows diverge: heavy tails, in units that differ by a million.

19 columns of Student's t with 2 degrees of freedom, scaled from 1e-3 to 1e3; 3,000 steps of Adam at 1e-3,
float32, with the defaults of the recipes and of `fit`. RealNVP has 32 couplings, as the model of normflows'
issue 73, "NaN loss". A value that is not finite ends a run with an error. The table shows how the loss fell.

    python benchmarks/heavy_tails.py [recipe ...]
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from npflow import NonFiniteError, fit, models

FEATURES, ROWS = 19, 10_000
RECIPES = {
    "real_nvp": lambda: models.real_nvp(FEATURES, couplings=32),
    "nice": lambda: models.nice(FEATURES),
    "glow": lambda: models.glow(FEATURES),
    "maf": lambda: models.maf(FEATURES),
    "iaf": lambda: models.iaf(FEATURES),
    "neural_spline": lambda: models.neural_spline(FEATURES),
    "neural_spline autoregressive": lambda: models.neural_spline(FEATURES, kind="autoregressive"),
    "gaussianization": lambda: models.gaussianization(FEATURES),
    "planar": lambda: models.planar(FEATURES),
    "radial": lambda: models.radial(FEATURES),
    "sylvester": lambda: models.sylvester(FEATURES),
    "residual_flow": lambda: models.residual_flow(FEATURES),
}


def heavy_tailed(rng):
    """The data, float32."""
    return (rng.standard_t(2, (ROWS, FEATURES)) * 10.0 ** np.linspace(-3, 3, FEATURES)).astype(np.float32)


def train(flow, x, test, steps):
    """Train a flow; return a row of the table."""
    clock = time.perf_counter()
    params = flow.init(np.random.default_rng(1), x)
    try:
        params, history = fit(flow, params, x, rng=np.random.default_rng(2), steps=steps, progress=False)
    except NonFiniteError as error:
        return {"finite": False, "error": str(error), "steps": error.history.steps}
    loss, tenth = np.array(history.loss), max(1, steps // 10)
    return {
        "finite": bool(
            np.isfinite(loss).all() and np.isfinite(flow.sample(params, np.random.default_rng(3), 1000)).all()
        ),
        "first": float(np.mean(loss[:tenth])),
        "last": float(np.mean(loss[-tenth:])),
        "longest_gradient": float(np.max(history.gradient_norm)),
        "median_test_nll": float(np.median(-flow.log_prob(params, test))),
        "seconds": time.perf_counter() - clock,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "recipes", nargs="*", metavar="recipe", help=f"among {', '.join(RECIPES)}; by default all"
    )
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/heavy_tails.json"))
    options = parser.parse_args()
    unknown = set(options.recipes) - set(RECIPES)
    if unknown:
        parser.error(f"expected recipes among {', '.join(RECIPES)}, got {', '.join(sorted(unknown))}")

    rng, results = np.random.default_rng(0), {}
    x, test = heavy_tailed(rng), heavy_tailed(rng)
    print(f"{'recipe':30}{'first tenth':>12}{'last tenth':>12}{'longest gradient':>18}{'seconds':>9}")
    for name in options.recipes or RECIPES:
        row = results[name] = train(RECIPES[name](), x, test, options.steps)
        if "error" in row:
            print(f"{name:30}  FAILED at step {row['steps']}: {row['error']}", flush=True)
            continue
        verdict = "" if row["finite"] and row["last"] < row["first"] else "  FAILED"
        print(
            f"{name:30}{row['first']:12.2f}{row['last']:12.2f}{row['longest_gradient']:18.1e}"
            f"{row['seconds']:9.0f}{verdict}",
            flush=True,
        )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))
    if not all(row["finite"] and row["last"] < row["first"] for row in results.values()):
        raise SystemExit("some runs did not stay finite, or did not learn")


if __name__ == "__main__":
    main()
