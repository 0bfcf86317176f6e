"""Models of images with equal training time: bits/dim of held-out images of CIFAR-10, in one table.

``npflow train`` trains each model for the given minutes, one after the other, on all cores. A model whose
results are already in the folder is not trained again. The table also shows what the papers report for the
whole of CIFAR-10 after days on GPUs, and the 8 bits/dim of a uniform distribution.

    pip install -e '.[benchmarks]'
    python benchmarks/images.py --minutes 20 --data cifar10

All options of ``npflow train`` are passed on, such as the folder of CIFAR-10, and --part if it is only a
part.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple


class Row(NamedTuple):
    """A model of ``npflow train``: its name in the table, its sizes, the bits/dim of its paper, and other options."""

    title: str
    sizes: tuple
    published: float
    others: tuple = ()


ROWS = {
    "nice": Row("NICE", (), 4.48),
    "real_nvp": Row("RealNVP", (), 3.49),
    "glow": Row("Glow, 3 levels of 8 steps", ("--levels", "3", "--steps-per-level", "8"), 3.35),
    "mintnet": Row("MintNet", (), 3.32),
    "residual_flow": Row(
        "Residual flow, 3 levels of 4 steps",
        ("--levels", "3", "--steps-per-level", "4", "--channels", "64"),
        3.28,
        ("--batch-size", "60", "--slices", "4"),
    ),
    "pixelcnn": Row("PixelCNN, which is not a flow", (), 3.14),
}


def train(name, options, rest):
    """Train a model, unless its results exist; return its summary."""
    folder = options.out / name
    summary = folder / "summary.json"
    if not finished(summary):
        command = [sys.executable, "-m", "npflow", "train", name, "--out", str(folder)]
        if (folder / "checkpoint.npz").exists():
            command += ["--resume"]
        else:
            command += [
                "--minutes",
                str(options.minutes),
                "--data",
                options.data,
                *ROWS[name].sizes,
                *ROWS[name].others,
            ]
        subprocess.run([*command, *rest], check=True)
    return json.loads(summary.read_text("utf-8"))


def finished(summary):
    """Whether a summary is that of a finished run."""
    if not summary.exists():
        return False
    found = json.loads(summary.read_text("utf-8"))
    return found["steps"] == found["of"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="training time of each model (default %(default)s)"
    )
    parser.add_argument("--data", default="cifar10", choices=("cifar10", "patches"))
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/images"))
    options, rest = parser.parse_known_args()  # the rest is passed to npflow train

    rows = {name: train(name, options, rest) for name in ROWS}
    print("\n| | parameters | steps | bits/dim | published |\n| --- | --- | --- | --- | --- |")
    print("| uniform | 0 | | 8 | |")
    for name, found in rows.items():
        title, _, published = ROWS[name]
        bits = f"{found['bits_per_dim']:.3f} ± {found['standard_error']:.3f}"
        print(f"| {title} | {found['parameters']:,} | {found['steps']:,} | {bits} | {published:.2f} |")
    print("\nminutes: " + ", ".join(f"{name} {found['seconds'] / 60:.1f}" for name, found in rows.items()))


if __name__ == "__main__":
    main()
