"""README's first example with other seeds: does each print the loss that README states?

The code is that of README, with another seed in its place. The status is 1 if a loss is further from the stated one than
README says.

    python benchmarks/first_example.py --seeds 20
"""

import argparse
import contextlib
import io
import re
import sys
import tempfile
import time
from pathlib import Path

README = Path(__file__).parent.parent / "README.md"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=10, help="run seeds 0, 1, ... (default %(default)s)")
    seeds = parser.parse_args().seeds
    code = re.search(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)[1]
    stated, margin = map(float, re.search(r"# (\d\.\d+), give or take (\d\.\d+)", code).groups())

    losses = []
    print(f"{'seed':>4}{'loss':>9}{'seconds':>10}{'of CPU':>9}")
    for seed in range(seeds):
        printed, clock, cpu = io.StringIO(), time.perf_counter(), time.process_time()
        with (
            tempfile.TemporaryDirectory() as folder,
            contextlib.chdir(folder),
            contextlib.redirect_stdout(printed),
        ):
            exec(code.replace("default_rng(0)", f"default_rng({seed})"), {})
        losses.append(float(printed.getvalue()))
        seconds = f"{time.perf_counter() - clock:10.1f}{time.process_time() - cpu:9.1f}"
        print(f"{seed:4}{losses[-1]:9.4f}{seconds}", flush=True)
    print(f"README: {stated} +- {margin}; here from {min(losses):.4f} to {max(losses):.4f}")
    return int(any(abs(loss - stated) > margin for loss in losses))


if __name__ == "__main__":
    sys.exit(main())
