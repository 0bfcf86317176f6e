"""A training step of the Glow of CIFAR-10, three levels of sixteen steps: npflow beside PyTorch eager.

All have the same model (`contenders_glow.py`; networks of 512 channels), parameters and batches of images, in
float32. Each step is timed alone. PyTorch runs in both of its memory formats, each with its default Adam and
the fused one; npflow also with reversible training. `side_by_side.py` says how they are compared. The table also shows each process's peak memory,
and the rate of a step's matrix products as a share of the machine's own rate for large matrices.

    pip install -e '.[benchmarks]'
    python benchmarks/glow.py

PyTorch is optional and left out if it is not installed. Two commits of npflow are compared by

    python benchmarks/glow.py --other PATH/TO/ANOTHER/CHECKOUT
"""

import time

import numpy as np
from contender import BATCHES
from contenders_glow import Npflow, Reversible, Torch, TorchFused, TorchLast, TorchLastFused, save
from side_by_side import (
    Column,
    add_other,
    arrays_file,
    measure,
    option_parser,
    other_columns,
    print_table,
    those_that_run,
    write,
)

SIDE = 4096  # the rate is measured on square matrices of this size


def rate_of_products(rounds=7):
    """Floating-point operations per second of large float32 matrix products on all cores; the median."""
    a = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    out, seconds = np.empty_like(a), []
    for _ in range(rounds):
        clock = time.perf_counter()
        np.dot(a, a, out=out)
        seconds.append(time.perf_counter() - clock)
    return 2 * SIDE**3 / float(np.median(seconds))


def flops_of_products(model, batch):
    """Operations of a step's matrix products: each convolution once forward and twice backward."""
    (height, width, channels), hidden, total = model["shape"], model["channels"], 0
    for level in range(1, model["levels"] + 1):
        height, width, channels = height // 2, width // 2, 4 * channels
        half = channels // 2
        network = 9 * half * hidden + hidden * hidden + 9 * hidden * channels
        learned_prior = 9 * half * channels if level < model["levels"] else 0
        weights = model["steps"] * (channels * channels + network) + learned_prior
        total += batch * height * width * weights
        channels = half
    return 3 * 2 * total


def main():
    parser = option_parser(__doc__.split("\n")[0], out="out/benchmarks/glow.json")
    parser.add_argument("--batch", type=int, default=8, help="images of a batch")
    parser.add_argument("--steps", type=int, default=16, help="Glow steps of each level")
    parser.add_argument("--channels", type=int, default=512, help="width of the coupling networks")
    parser.add_argument("--npflow", action="store_true", help="leave PyTorch out")
    add_other(parser)
    options = parser.parse_args()
    model = {"shape": (32, 32, 3), "levels": 3, "steps": options.steps, "channels": options.channels}
    peers = () if options.npflow else (Torch, TorchFused, TorchLast, TorchLastFused)
    columns = those_that_run(
        [
            Column(Npflow),
            Column(Reversible),
            *other_columns(Npflow, options.other),
            *(Column(peer, options.torch_python) for peer in peers),
        ]
    )
    with arrays_file(save, model, BATCHES * options.batch) as file:
        measured = measure(columns, file, model, options.batch, options.rounds, lambda worker: (2, 1))
        rate = rate_of_products()
    result = {
        "batch": options.batch,
        "model": model,
        "rounds": options.rounds,
        "flops_a_second": rate,
        **measured,
    }
    print_table([result])

    flops = flops_of_products(model, options.batch)
    print(
        f"\nmatrix products: {flops / 1e9:.1f} Gflop a step; this machine computes {rate / 1e9:.0f} Gflop a second"
    )
    print(f"{'':30} {'of that rate':>13} {'peak memory':>12}")
    for row in measured["libraries"]:
        row["share_of_rate"] = flops / row["median"] / rate
        print(f"{row['name']:30} {row['share_of_rate']:13.0%} {row['peak_bytes'] / 1e9:9.2f} GB")
    write(options.out, result)


if __name__ == "__main__":
    main()
