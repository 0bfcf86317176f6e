"""Whether training depends on the units of the data: every recipe for rows, in units from 1e-30 to 1e30.

A flow of D features on data in units of s has a loss of D log s more than in units of one. The table shows the loss
after some steps less that, so all numbers of a line should be one, up to what rounding makes of a training run.
Columns are constant, zero, twice there, one-hot or nearly the same, and one table has fewer rows than features.

    python benchmarks/units.py
    python benchmarks/units.py --recipes maf gaussianization --scales 1 1e-6 --steps 50
"""

import argparse

import numpy as np

import npflow

RECIPES = ("nice", "real_nvp", "glow", "maf", "iaf", "neural_spline", "gaussianization", "vae")


def tables():
    """Small tables by kind."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(300, 3))
    plain[:, 1] = plain[:, 0] ** 2 + 0.3 * plain[:, 1]
    kinds = {"plain": plain}
    for kind, column in (
        ("constant", np.full(300, 2.5)),
        ("zero", np.zeros(300)),
        ("twice", plain[:, 0]),
        ("nearly twice", plain[:, 0] + 1e-3 * plain[:, 2]),
    ):
        kinds[kind] = np.column_stack([plain[:, :2], column])
    kinds["one-hot"] = np.column_stack([plain, np.eye(4)[rng.integers(0, 4, 300)]])
    kinds["wide"] = rng.normal(size=(40, 60))
    return kinds


def loss_after(recipe, x, scale, dtype, steps):
    """The loss after some steps in units of one, or the error."""
    x = (x * scale).astype(dtype)
    make = npflow.models.VAE if recipe == "vae" else getattr(npflow.models, recipe)
    flow = make(features=x.shape[1])
    params = flow.init(np.random.default_rng(0), x)
    rng = np.random.default_rng(1)
    try:
        params, _ = npflow.fit(flow, params, x, rng=rng, steps=steps, progress=False)
    except npflow.NonFiniteError as error:
        return f"{error}"[:60]
    noise = {"rng": np.random.default_rng(2)} if flow.noisy else {}
    loss = -np.mean(flow.log_prob(params, x, **noise).astype(np.float64))
    return f"{loss - x.shape[1] * np.log(scale):.2f}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--kinds", nargs="+", choices=tables(), default=list(tables()))
    parser.add_argument("--scales", nargs="+", type=float, default=[1, 1e-30, 1e-6, 1e6, 1e30])
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    columns = [(dtype, scale) for dtype in (np.float64, np.float32) for scale in arguments.scales]
    print(f"{'':30}" + "".join(f"{np.dtype(dtype).name[5:]:>4} {scale:7.0e}" for dtype, scale in columns))
    for recipe in arguments.recipes:
        for kind in arguments.kinds:
            losses = (
                loss_after(recipe, tables()[kind], scale, dtype, arguments.steps) for dtype, scale in columns
            )
            print(f"{recipe:16}{kind:14}", *(f"{loss:>11}" for loss in losses), flush=True)


if __name__ == "__main__":
    main()
