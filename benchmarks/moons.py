"""A training step of a ten-step Glow on two moons: npflow beside PyTorch eager and jax.jit.

All have the same model (`contenders_moons.py`; couplings of 1-64-64-64-2), parameters, data and batches, in
float32. Each step is timed alone. `side_by_side.py` says how they are compared.

    pip install -e '.[benchmarks]'
    python benchmarks/moons.py --jax-python PATH/TO/A/PYTHON/WITH/JAX

Both libraries are optional; one that is not installed is left out. Two commits of npflow are compared by

    python benchmarks/moons.py --other PATH/TO/ANOTHER/CHECKOUT
"""

import sys

from contender import BATCHES
from contenders_moons import Jax, Npflow, Torch, TorchFused, save
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

HIDDEN = (64, 64, 64)
SIZES = (64, 256, 1024)


def main():
    parser = option_parser(__doc__.split("\n")[0], out="out/benchmarks/moons.json")
    parser.add_argument("--jax-python", default=sys.executable, help="an interpreter with JAX installed")
    add_other(parser)
    options = parser.parse_args()

    columns = those_that_run(
        [
            Column(Npflow),
            *other_columns(Npflow, options.other),
            Column(Torch, options.torch_python),
            Column(TorchFused, options.torch_python),
            Column(Jax, options.jax_python),
        ]
    )
    results = []
    with arrays_file(save, HIDDEN, BATCHES * max(SIZES)) as file:
        for batch in SIZES:
            steps = max(10, 4000 // batch)
            alone = lambda worker, steps=steps: (steps, 1)
            measured = measure(columns, file, HIDDEN, batch, options.rounds, alone)
            results.append({"batch": batch, "rounds": options.rounds, "steps": steps, **measured})
    print_table(results)
    print_markdown(results)
    write(options.out, results)


def print_markdown(results):
    """Print the table of the guide: milliseconds of the first column, and how many times as long others take."""
    print("\n| batch |", *(f"{row['name']} |" for row in results[0]["libraries"]))
    print("| --- |" + " --- |" * len(results[0]["libraries"]))
    for result in results:
        first, *others = result["libraries"]
        print(
            f"| {result['batch']} | {1e3 * first['median']:.1f} ms |",
            *(f"{row['ratio']:.1f} |" for row in others),
        )


if __name__ == "__main__":
    main()
