"""Several libraries side by side in one run: a process for each, the rounds of all interleaved, ratios.

Each column of a comparison runs in a process of its own, with the threads that its library takes by itself. The losses
of the first steps have to agree before anything is timed. The rounds are interleaved: a few steps of one, then
of the next, and again, so that what else the machine does hits all alike. A ratio is the median over the rounds of
a column's median step divided by the first column's of the same round.
"""

import argparse
import inspect
import json
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Column:
    """A library on a device, by an interpreter that has it; `name` is what the table calls it."""

    contender: type
    python: str = sys.executable
    device: str = "cpu"
    name: str = ""

    def __post_init__(self):
        object.__setattr__(self, "name", self.name or self.contender.name)

    def can_run(self):
        """Whether there is such an interpreter, it can import the library, and the library finds the device."""
        statement = f"import {self.contender.module}"
        if self.device == "cuda":
            statement += f"; {self.contender.finds_gpu}"
        try:
            return subprocess.run([self.python, "-c", statement], capture_output=True).returncode == 0
        except OSError:
            return False


def those_that_run(columns):
    """The columns that can run here; of each other one it is said that it is left out."""
    able = [column for column in columns if column.can_run()]
    for column in columns:
        if column not in able:
            which = " that finds a GPU" if column.device == "cuda" else ""
            print(f"left out: {column.name}, as {column.python} has no {column.contender.module}{which}")
    return able


class Worker:
    """The process of a column."""

    def __init__(self, column, file):
        served = inspect.getfile(column.contender)
        command = [column.python, served, column.contender.__name__, str(file)]
        self.name, self.device = column.name, column.device
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

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
    """A file of parameters and data for all processes, written by `save(file, *arguments)`, for as long as it is open."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "arrays.npz"
        save(file, *arguments)
        yield file


def measure(columns, file, model, batch, rounds, pace):
    """All columns on one size of batch: their first losses, and a dict for each line of the table.

    `pace(worker)` says how a round is timed: a number of blocks, and the number of steps of each.
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
    """A line for each column of each result."""
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
    """Write results as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2))
    print(f"\nwritten to {file}")


def option_parser(description, out):
    """The options that every comparison has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--torch-python", default=sys.executable, help="an interpreter with PyTorch installed"
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(out))
    return parser
