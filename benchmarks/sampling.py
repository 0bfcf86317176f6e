"""Sampling at D = 256: a MAF beside the same MAF in zuko, beside D full passes, and beside an IAF.

All have five transforms, two hidden layers of 512 units, and parameters away from their start, in float32.
npflow's `inverse` computes each hidden unit once; by definition it takes D full passes, one pass of the whole
network for each component. All take turns in one process, on one thread each, so that other load affects all
alike; a ratio is the median over the rounds. The difference between both ways to invert is measured in
float64.

    pip install -e '.[benchmarks]'
    python benchmarks/sampling.py

zuko is optional and left out if it is not installed.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout
from npflow.autodiff.program.threads import one_blas_thread
from npflow.layers import MaskedAutoregressive
from npflow.models import iaf, maf
from npflow.networks import MADE

FEATURES, STEPS, HIDDEN = 256, 5, (512, 512)
NETWORK = MADE(HIDDEN, "relu")


def away_from_the_start(flow, dtype):
    """Parameters of a flow, all moved away from their start."""
    rng = np.random.default_rng(0)
    start = flow.init(rng, rng.standard_normal((500, FEATURES)).astype(dtype))
    layout = Layout(start)
    noise = 0.02 * rng.standard_normal(layout.size)
    return layout.unpack(layout.pack(start) + noise.astype(dtype), start)


def by_full_passes(flow, params, z):
    """x of z by a pass of the whole network for each component of each layer."""
    layers = zip(flow.layer.layers, params["layer"], strict=True)
    for layer, p in reversed(list(layers)):
        if not isinstance(layer, MaskedAutoregressive):
            z, _ = layer.inverse(p, z)
            continue
        x = np.zeros_like(z)
        for _ in range(FEATURES):  # after k passes, k components are right
            x, _ = layer.transformer.untransform(layer.network.apply(p, x), z)
        z = x
    return z


def zukos_sampler(rows):
    """A function that draws `rows` from zuko's MAF of this size; None without zuko."""
    try:
        import torch
        import zuko
    except ImportError:
        print("left out: zuko, which is not installed: pip install -e '.[benchmarks]'")
        return None
    torch.set_num_threads(1)
    flow = zuko.flows.MAF(FEATURES, transforms=STEPS, hidden_features=HIDDEN)

    def sample():
        with torch.no_grad():
            flow().sample((rows,))

    return sample


def seconds(contenders, rounds):
    """The seconds of each contender in each round; they take turns."""
    times = {name: [] for name in contenders}
    for _ in range(rounds + 1):
        for name, run in contenders.items():
            clock = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - clock)
    return {name: np.array(series[1:]) for name, series in times.items()}  # the first round warms the caches


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/sampling.json"))
    options = parser.parse_args()

    teacher, student = maf(FEATURES, STEPS, NETWORK), iaf(FEATURES, STEPS, NETWORK)
    params, exact = away_from_the_start(teacher, np.float32), away_from_the_start(teacher, np.float64)
    z = np.random.default_rng(1).standard_normal((4, FEATURES))
    difference = np.max(np.abs(teacher.decode(exact, z) - by_full_passes(teacher, exact, z)))
    print(f"the two ways to invert, float64: at most {difference:.1e} apart")

    students = away_from_the_start(student, np.float32)
    results = {"difference": float(difference), "rounds": options.rounds, "batches": {}}
    for rows in (1, 256):
        rng = np.random.default_rng(2)
        z = rng.standard_normal((rows, FEATURES)).astype(np.float32)
        contenders = {
            "MAF": lambda rows=rows, rng=rng: teacher.sample(params, rng, rows),
            "MAF by full passes": lambda z=z: by_full_passes(teacher, params, z),
            "MAF of zuko": zukos_sampler(rows),
            "IAF": lambda rows=rows, rng=rng: student.sample(students, rng, rows),
        }
        with one_blas_thread():
            times = seconds({name: run for name, run in contenders.items() if run}, options.rounds)
        print(f"\n{rows} rows{'seconds':>31}{'times the MAF':>18}")
        table = results["batches"][rows] = {}
        for name, series in times.items():
            ratio = float(np.median(series / times["MAF"]))
            table[name] = {"seconds": float(np.median(series)), "ratio": ratio}
            print(f"{name:20}{np.median(series):17.4f}{ratio:18.3f}")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
