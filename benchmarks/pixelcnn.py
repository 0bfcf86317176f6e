"""Sampling from PixelCNN: each layer's features are stored, beside a full pass for each number.

Parameters are away from their start, in float32. By definition, sampling takes a full pass for each channel
of each pixel; `sample` computes each layer's features at a pixel once. The two take turns in one process, on
one thread, so that other load affects both alike; a ratio is the median over the rounds. A round makes only a
part of the naive passes, spread over the image: all cost the same, and the time is scaled to all of them. The
difference between the logits of both is measured in float64.

    pip install -e .
    python benchmarks/pixelcnn.py
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout
from npflow.autodiff.program.threads import one_blas_thread
from npflow.models import PixelCNN
from npflow.networks import MaskedConvNet

NETWORK = MaskedConvNet(features=32, blocks=5, kernel=7, head=(64,))
MODELS = (PixelCNN((8, 8, 1), 17, NETWORK), PixelCNN((32, 32, 3), 256, NETWORK))


def away_from_the_start(model, dtype):
    """Parameters of a model, all moved away from their start."""
    rng = np.random.default_rng(0)
    start = model.init(rng, np.zeros((1, *model.shape), np.uint8), dtype=dtype)
    layout = Layout(start)
    return layout.unpack(layout.pack(start) + (0.05 * rng.standard_normal(layout.size)).astype(dtype), start)


def difference(model):
    """The largest difference between the logits of sampling and of a full pass, in float64."""
    params = away_from_the_start(model, np.float64)
    x = np.random.default_rng(1).integers(model.levels, size=(1, *model.shape)).astype(np.uint8)
    scaled, expected = x * (2 / (model.levels - 1)) - 1, model.logits(params, x)
    numbers, known, most = model.network.one_by_one(params, scaled), None, 0.0
    for i, j, k in itertools.product(*map(range, model.shape)):
        most = max(most, np.max(np.abs(numbers.send(known) - expected[:, i, j, k])))
        known = scaled[:, i, j, k : k + 1]
    return float(most)


def naive(model, params, rng, n, passes):
    """Draw `passes` of the numbers of `n` images, each by a pass over the whole image."""
    x = np.zeros((n, *model.shape), np.uint8)
    places = list(itertools.product(*map(range, model.shape)))
    for i, j, k in places[:: len(places) // passes][:passes]:
        logits = model.logits(params, x)[:, i, j, k]
        gumbel = -np.log(-np.log(rng.random(logits.shape)))
        x[:, i, j, k] = np.argmax(logits + gumbel, axis=-1)


def seconds(run):
    """The seconds of a call."""
    clock = time.perf_counter()
    run()
    return time.perf_counter() - clock


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    parser.add_argument("--passes", type=int, default=64, help="naive passes of a round")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/pixelcnn.json"))
    options = parser.parse_args()

    results = {"rounds": options.rounds, "passes": options.passes, "network": repr(NETWORK), "models": {}}
    print(f"{'images':>14}{'n':>5}{'sample':>12}{'naive':>12}{'naive / sample':>17}")
    for model in MODELS:
        params, numbers = away_from_the_start(model, np.float32), math.prod(model.shape)
        passes, name = min(options.passes, numbers), "x".join(map(str, model.shape))
        table = results["models"][name] = {"difference": difference(model), "batches": {}}
        for n in (1, 8):
            rng, times = np.random.default_rng(2), []
            with one_blas_thread():
                for _ in range(options.rounds + 1):
                    fast = seconds(lambda: model.sample(params, rng, n))  # noqa: B023
                    slow = seconds(lambda: naive(model, params, rng, n, passes))  # noqa: B023
                    times.append((fast, slow * numbers / passes))
            fast, slow = np.array(times[1:]).T  # the first round warms the caches
            row = {"sample": np.median(fast), "naive": np.median(slow), "ratio": np.median(slow / fast)}
            table["batches"][n] = {key: float(value) for key, value in row.items()}
            print(f"{name:>14}{n:5}{row['sample']:10.4f} s{row['naive']:10.2f} s{row['ratio']:17.1f}")
        print(f"{'':14} logits of both, float64: at most {table['difference']:.1e} apart")
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
