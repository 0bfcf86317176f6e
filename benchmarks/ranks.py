"""A training step on ranks of MPI beside one on threads: ratios of medians, the bits, and the bytes that a rank sends.

    python benchmarks/ranks.py             # two ranks of a thread each beside one process of two threads
    python benchmarks/ranks.py --ranks 4 --rows 8192

Both sides stay up and take turns, a few steps each; the side that waits sleeps. mpiexec is that of the environment.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout
from npflow.autodiff.program.ranks import Ranks
from npflow.autodiff.program.slices import ProgramGradient
from npflow.autodiff.program.threads import one_blas_thread
from npflow.cli.catalogue import MODELS, load_data
from npflow.models import glow, maf
from npflow.networks import MADE, MLP
from npflow.training import Adam

STEPS = 5  # in a turn


def moons_glow():
    """10 steps of Glow on two features, as in the table of benchmarks/moons.py."""
    return glow(2, steps=10, network=MLP((64, 64, 64))), (2,)


def tabular_maf():
    """The MAF of the tabular benchmarks on 8 features."""
    return maf(8, 5, MADE((64, 64))), (8,)


def digits_glow():
    """A Glow of two levels on digits, as `npflow train glow` makes it."""
    data = load_data("digits")
    return MODELS["glow"].build(data, 0, levels=2, steps_per_level=4, channels=32), data.train.shape[1:]


MAKERS = {"moons Glow": moons_glow, "MAF, D = 8": tabular_maf, "Glow on digits": digits_glow}


class Counting:
    """A communicator that counts the bytes that this rank sends to others."""

    def __init__(self, communicator):
        self.communicator, self.sent = communicator, 0

    def __getattr__(self, name):
        return getattr(self.communicator, name)

    def Alltoallv(self, send, receive):
        buffer, (counts, _) = send
        self.sent += (sum(counts) - counts[self.rank]) * buffer.itemsize
        self.communicator.Alltoallv(send, receive)

    def Allgatherv(self, send, receive):
        buffer, count = send
        self.sent += count * buffer.itemsize * (self.size - 1)
        self.communicator.Allgatherv(send, receive)


def steps_of(name, rows, slices, threads, communicator):
    """A function that makes a training step; its plan, and its vector of parameters."""
    model, shape = MAKERS[name]()
    rng = np.random.default_rng(0)
    x = rng.integers(17, size=(rows, *shape)) if len(shape) > 1 else rng.standard_normal((rows, *shape))
    x = x.astype(np.uint8 if len(shape) > 1 else np.float32)
    start = model.init(rng, x[:256])
    layout = Layout(start)
    vector = layout.pack(start)
    batch = (x, *model.noise(rng, rows, np.float32))
    params, gradient = layout.unpack(vector, start), np.empty_like(vector)
    programs = ProgramGradient(model.loss, params, threads, slices, Ranks(communicator))
    adam = Adam(1e-4)
    moments, count = adam.init(vector), 0

    def step():
        nonlocal count
        count += 1
        programs(batch, out=gradient)
        adam.update(moments, vector, gradient, count)

    return step, programs.plan_of(batch), vector


def work(name, rows, slices, threads):
    """One side: a turn for each line of standard input; its seconds, bytes and bits as a line of JSON."""
    communicator = None
    if threads == 1:
        from mpi4py import MPI

        communicator = Counting(MPI.COMM_WORLD)
    first = communicator is None or communicator.rank == 0
    step, plan, vector = steps_of(name, rows, slices, threads, communicator)
    with one_blas_thread():
        while True:
            more = sys.stdin.readline() != "" if first else True
            if communicator is not None:
                request = communicator.Ibarrier()
                while not request.Test():  # a rank that waits in MPI takes a whole core
                    time.sleep(0.001)
                more = communicator.bcast(more)
                communicator.sent = 0
            if not more:
                return
            begun = time.perf_counter()
            for _ in range(STEPS):
                step()
            seconds = (time.perf_counter() - begun) / STEPS
            sent = 0 if communicator is None else int(communicator.sent) // STEPS
            if first:
                facts = {"seconds": seconds, "sent": sent, "slices": plan.count, "parameters": vector.size}
                print(json.dumps(facts | {"bits": zlib.crc32(vector)}), flush=True)


def turn(side):
    side.stdin.write("go\n")
    side.stdin.flush()
    return json.loads(side.stdout.readline())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--slices", type=int, help="by default as the shapes say")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--side", nargs=2, metavar=("MODEL", "THREADS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        name, threads = arguments.side
        return work(name, arguments.rows, arguments.slices, int(threads))
    mpiexec = shutil.which("mpiexec", path=Path(sys.executable).parent) or "mpiexec"
    same = [sys.executable, __file__, "--rows", str(arguments.rows)]
    if arguments.slices:
        same += ["--slices", str(arguments.slices)]
    count = arguments.ranks
    print(f"| model, {arguments.rows:,} rows | slices | {count} threads | {count} ranks | ranks / threads | "
          "bytes sent | vector | bits |")  # fmt: skip
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name in MAKERS:
        commands = (
            [*same, "--side", name, str(count)],
            [mpiexec, "-n", str(count), *same, "--side", name, "1"],
        )
        sides = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            for command in commands
        ]
        rounds = [[turn(side) for side in sides] for _ in range(arguments.rounds + 1)][1:]
        for side in sides:
            side.stdin.close()
            side.wait()
        threads, ranks = zip(*rounds)
        medians = [1000 * np.median([one["seconds"] for one in side]) for side in (threads, ranks)]
        ratio = np.median([b["seconds"] / a["seconds"] for a, b in rounds])
        last = ranks[-1]
        same_bits = "equal" if threads[-1]["bits"] == last["bits"] else "DIFFERENT"
        print(f"| {name} | {last['slices']} | {medians[0]:.1f} ms | {medians[1]:.1f} ms | {ratio:.2f} | "
              f"{last['sent']:,} | {4 * last['parameters']:,} | {same_bits} |", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
