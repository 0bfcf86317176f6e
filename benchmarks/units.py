"""Whether training depends on the units of the data: every recipe for rows, in units from 1e-30 to 1e30.

A flow of D features on data in units of s has a loss of D log s more than in units of one. The table shows the loss
after some steps less that, so all numbers of a line should be one, up to what rounding makes of a training run. That is
the noise: how far apart the losses are of a few tables in units of one that differ by rounding alone. A line is marked
where units make a larger difference than 0.1 nats and than twice the noise.

Columns are far from zero, constant, zero, twice there, one-hot or nearly the same, and one table has fewer rows than
features.

    python benchmarks/units.py
    python benchmarks/units.py --recipes maf gaussianization --scales 1 1e-6 --steps 50
"""

import argparse

import numpy as np

import npflow

RECIPES = (
    "nice",
    "real_nvp",
    "glow",
    "maf",
    "iaf",
    "neural_spline",
    "gaussianization",
    "planar",
    "sylvester",
    "residual_flow",
    "vae",
)


def tables():
    """Small tables by kind."""
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(300, 3))
    plain[:, 1] = plain[:, 0] ** 2 + 0.3 * plain[:, 1]
    kinds = {"plain": plain, "far from zero": plain + np.array([2000, -1e4, 1e4])}
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
    """The loss after some steps in units of one; nan where training failed."""
    x = (x * scale).astype(dtype)
    make = npflow.models.VAE if recipe == "vae" else getattr(npflow.models, recipe)
    flow = make(features=x.shape[1])
    params = flow.init(np.random.default_rng(0), x)
    optimizer = npflow.training.Adam(npflow.training.WarmupCosine(1e-3, steps=steps))
    options = {"steps": steps, "optimizer": optimizer, "clip_norm": 10.0, "progress": False}
    try:
        params, _ = npflow.fit(flow, params, x, rng=np.random.default_rng(1), **options)
    except npflow.NonFiniteError as error:
        print(error)
        return np.nan
    noise = {"rng": np.random.default_rng(2)} if flow.noisy else {}
    loss = -np.mean(flow.log_prob(params, x, **noise).astype(np.float64))
    return loss - x.shape[1] * np.log(scale)


def noise_of(recipe, x, dtype, steps, tables=3):
    """The range of the loss in units of one, over tables that differ by rounding alone."""
    rng = np.random.default_rng(0)
    size = 64 * np.finfo(dtype).eps  # that of the logarithm of a scale of 1e30
    rounded = [x * (1 + size * rng.standard_normal(x.shape[1])) for _ in range(tables)]
    return np.ptp([loss_after(recipe, one, 1.0, dtype, steps) for one in [x, *rounded]])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", nargs="+", choices=RECIPES, default=RECIPES)
    parser.add_argument("--kinds", nargs="+", choices=tables(), default=list(tables()))
    parser.add_argument("--scales", nargs="+", type=float, default=[1, 1e-30, 1e-6, 1e6, 1e30])
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    print(f"{'':39}" + "".join(f"{scale:9.0e}" for scale in arguments.scales) + "    noise")
    marked = 0
    for recipe in arguments.recipes:
        for kind in arguments.kinds:
            x = tables()[kind]
            for dtype in (np.float64, np.float32):
                losses = [loss_after(recipe, x, scale, dtype, arguments.steps) for scale in arguments.scales]
                noise = noise_of(recipe, x, dtype, arguments.steps)
                odd = not np.ptp(losses) <= max(0.1, 2 * noise)  # a range of few runs is a low guess
                marked += odd
                line = "".join(f"{loss:9.2f}" for loss in losses)
                print(f"{recipe:16}{kind:14}{dtype.__name__:9}{line}{noise:9.2f}{'  <--' * odd}", flush=True)
    print(f"{marked} lines where units make a difference")


if __name__ == "__main__":
    main()
