"""A training step of the Glow of CIFAR-10, three levels of sixteen steps, 512 channels: npflow beside PyTorch eager.

The same model in each (`contenders_glow.py`), the same parameters and batches of images, float32, each step timed
alone; PyTorch in both of its memory formats, with its own Adam and with the fused one. How they are compared:
`side_by_side.py`. Beside the times stand the share of the machine's own rate of matrix products that a step
reaches, counting the arithmetic of its matrix products alone, and each process's peak memory.

    pip install -e '.[benchmarks]'
    python benchmarks/glow.py

PyTorch is optional; where it is not installed it is left out, with a word.
"""

import time

import numpy as np
from contender import BATCHES
from contenders_glow import Npflow, Torch, TorchFused, TorchLast, TorchLastFused, save
from side_by_side import Column, arrays_file, measure, option_parser, print_table, those_that_run, write

SIDE = 4096  # of the square matrices whose product the machine's rate is measured by


def rate_of_products(rounds=7):
    """How many floating-point operations a second a product of large float32 matrices makes, on all cores: the median."""
    a = np.random.default_rng(0).random((SIDE, SIDE), dtype=np.float32)
    out, seconds = np.empty_like(a), []
    for _ in range(rounds):
        clock = time.perf_counter()
        np.dot(a, a, out=out)
        seconds.append(time.perf_counter() - clock)
    return 2 * SIDE**3 / float(np.median(seconds))


def flops_of_products(model, batch):
    """The operations of a step's matrix products: each convolution's, in the forward pass and twice in the backward."""
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
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16, help="of each level")
    parser.add_argument("--channels", type=int, default=512)
    options = parser.parse_args()
    model = {"shape": (32, 32, 3), "levels": 3, "steps": options.steps, "channels": options.channels}
    peers = (Torch, TorchFused, TorchLast, TorchLastFused)
    columns = those_that_run([Column(Npflow), *(Column(peer, options.torch_python) for peer in peers)])
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
        f"\nmatrix products: {flops / 1e9:.1f} Gflop a step; this machine makes {rate / 1e9:.0f} Gflop a second"
    )
    print(f"{'':30} {'of that rate':>13} {'peak memory':>12}")
    for row in measured["libraries"]:
        row["share_of_rate"] = flops / row["median"] / rate
        print(f"{row['name']:30} {row['share_of_rate']:13.0%} {row['peak_bytes'] / 1e9:9.2f} GB")
    write(options.out, result)


if __name__ == "__main__":
    main()
