"""Several libraries side by side in one run: a process for each, interleaved rounds, ratios.

Each column of a comparison runs in a process of its own, with its library's default number of threads. The
losses of the first steps must agree before anything is timed. The rounds are interleaved: a few steps of one
column, then of the next, and again, so that other load on the machine affects all alike. A ratio is the
median over rounds of a column's median step divided by the first column's in the same round.
"""

import argparse
import inspect
import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Column:
    """A library on a device.

    Parameters
    ----------
    contender : type
        The class of the library's step.
    python : str
        An interpreter that has the library.
    device : {"cpu", "cuda"}
    name : str
        The column's name in the table; the library's by default.
    checkout : Path, optional
        A folder from which the library is imported, instead of the installed one.
    """

    contender: type
    python: str = sys.executable
    device: str = "cpu"
    name: str = ""
    checkout: Path | None = None

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.contender.name)

    @property
    def env(self):
        """The environment variables of the column's process."""
        paths = [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
        if self.checkout is not None:
            paths.insert(0, str(self.checkout.resolve()))
        return os.environ | ({"PYTHONPATH": os.pathsep.join(paths)} if paths else {})

    def can_run(self):
        """Whether the interpreter exists, imports the library, and the library finds the device."""
        statement = f"import {self.contender.module}"
        if self.device == "cuda":
            statement += f"; {self.contender.finds_gpu}"
        command = [self.python, "-c", statement]
        try:
            return subprocess.run(command, capture_output=True, env=self.env).returncode == 0
        except OSError:
            return False


def those_that_run(columns):
    """The columns that can run here; print a line for each other one."""
    able = [column for column in columns if column.can_run()]
    for column in columns:
        if column not in able:
            which = " that finds a GPU" if column.device == "cuda" else ""
            print(f"left out: {column.name}, as {column.python} has no {column.contender.module}{which}")
    return able


def other_columns(contender, checkouts):
    """A column of npflow for each other checkout; raise `SystemExit` if a folder is none."""
    for checkout in checkouts:
        if not (checkout / "npflow" / "__init__.py").is_file():
            raise SystemExit(f"expected --other to be a checkout of npflow, got {checkout}")
    return [Column(contender, name=f"npflow at {checkout}", checkout=checkout) for checkout in checkouts]


class Worker:
    """The process of a column."""

    def __init__(self, column, file):
        served = inspect.getfile(column.contender)
        command = [column.python, served, column.contender.__name__, str(file)]
        self.name, self.device = column.name, column.device
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=column.env
        )

    def ask(self, **order):
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit(f"the process of {self.name} ended: see above")
        return json.loads(answer)

    def stop(self):
        self.process.stdin.close()
        self.process.wait()


@contextmanager
def arrays_file(save, *arguments):
    """A temporary file of parameters and data for all processes, written by `save(file, *arguments)`."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays.npz"
        save(file, *arguments)
        yield file


def measure(columns, file, model, batch, rounds, pace):
    """Measure all columns at one batch size: the first losses, and a dict for each line of the table.

    `pace(worker)` gives the number of blocks of a round, and the number of steps of a block.
    """
    workers = [Worker(column, file) for column in columns]
    try:
        starts = [
            worker.ask(do="start", model=model, device=worker.device, batch=batch) for worker in workers
        ]
        losses = starts[0]["losses"]
        for worker, start in zip(workers, starts):
            if not np.allclose(start["losses"], losses, rtol=2e-4):
                raise SystemExit(f"{worker.name} does not compute the same: {start['losses']}, {losses}")
        paces = [pace(worker) for worker in workers]
        medians, peaks = [[] for _ in workers], {}
        for _ in range(rounds):
            for worker, (blocks, steps), series in zip(workers, paces, medians):
                answer = worker.ask(do="time", blocks=blocks, steps=steps)
                series.append(answer["median"])
                peaks[worker] = answer["peak_bytes"]
    finally:
        for worker in workers:
            worker.stop()
    first = np.array(medians[0])
    rows = [
        {
            "name": worker.name,
            "version": start["version"],
            **({"gpu": start["gpu"]} if start["gpu"] else {}),
            "median": float(np.median(series)),
            "ratio": float(np.median(np.array(series) / first)),
            "seconds": start["seconds"],
            "peak_bytes": peaks[worker],
        }
        for worker, start, series in zip(workers, starts, medians)
    ]
    return {"first_losses": losses, "libraries": rows}


def print_table(results):
    """Print a line for each column of each result."""
    names = [row["name"] for row in results[0]["libraries"]]
    against, name_width = f"/ {names[0]}", max(15, *map(len, names))
    width = max(9, len(against))
    print(f"\n{'batch':>6} {'':{name_width}} {'ms a step':>10} {against:>{width}}   first step ready after")
    for result in results:
        for row in result["libraries"]:
            ratio = "" if row["name"] == names[0] else f"{row['ratio']:.2f}"
            print(
                f"{result['batch']:6} {row['name']:{name_width}} {1e3 * row['median']:10.2f} {ratio:>{width}}"
                f"   {row['seconds']:.2f} s"
            )


def write(file, results):
    """Write the results as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2))
    print(f"\nwritten to {file}")


def option_parser(description, out):
    """A parser of the options that all comparisons share."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument(
        "--torch-python", default=sys.executable, help="an interpreter with PyTorch installed"
    )
    parser.add_argument("--rounds", type=int, default=15, help="number of interleaved rounds")
    parser.add_argument("--out", type=Path, default=Path(out), help="JSON file of the results")
    return parser


def add_other(parser):
    """Add the option of other checkouts."""
    parser.add_argument(
        "--other",
        type=Path,
        action="append",
        default=[],
        metavar="CHECKOUT",
        help="another checkout of npflow, measured beside this one; may be repeated",
    )
