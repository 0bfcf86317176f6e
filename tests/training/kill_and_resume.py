"""Kill a training run with SIGKILL at random moments, resume it each time, and compare with one left alone.

As a script it does twenty kills: ``python tests/training/kill_and_resume.py``. A test does a few.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from npflow import datasets, fit, load
from npflow.autodiff import Layout
from npflow.models import glow
from npflow.networks import MLP
from npflow.training import Adam, WarmupCosine


def train(checkpoint, steps):
    """The run under test: every part of the state that a checkpoint has to keep takes part in it."""
    rng = np.random.default_rng(7)
    x = datasets.moons(500, rng=rng).astype(np.float32)
    flow = glow(2, steps=3, network=MLP((16, 16)))
    params = flow.init(rng, x)
    print("training", flush=True)
    return fit(
        flow,
        params,
        x[:400],
        rng=rng,
        steps=steps,
        batch_size=64,
        optimizer=Adam(WarmupCosine(5e-3, steps=steps, warmup=10)),
        clip_norm=5.0,
        average=0.99,
        validation=x[400:],
        checkpoint=checkpoint,
        checkpoint_every=3,
        progress=False,
    )


def killed_and_left_alone(folder, kills, steps, seed=0):
    """Run both; return for each its final checkpoint and result, and after how many steps the kills hit."""
    moments = random.Random(seed)
    killed, alone = Path(folder) / "killed.npz", Path(folder) / "alone.npz"
    train(alone, steps)
    command = [sys.executable, __file__, "--train", str(killed), "--steps", str(steps)]
    reached = []
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        process.stdout.readline()  # "training": from here on, any moment may be the last
        time.sleep(moments.uniform(0.0, 0.5))
        process.kill()
        process.communicate()
        # Whatever the moment was, the checkpoint is loadable (or not begun yet).
        reached.append(load(killed).run["step"] if killed.exists() else 0)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load(killed), load(alone), reached


def same_bits(a, b):
    """Whether two checkpoints hold the same result and the same state, the clock aside."""
    arrays = all(
        np.array_equal(a.arrays[name], b.arrays[name], equal_nan=True)
        for name in a.arrays.keys() | b.arrays.keys()
        if name != "history:seconds"
    )
    return arrays and a.run == b.run and np.array_equal(*(Layout(c.params).pack(c.params) for c in (a, b)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--train", metavar="CHECKPOINT", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train, options.steps)
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        killed, alone, reached = killed_and_left_alone(folder, options.kills, options.steps)
    same = same_bits(killed, alone)
    print(f"killed after steps {reached}, of {options.steps}")
    print("the same parameters and state, bit for bit" if same else "DIFFERENT")
    sys.exit(not same)
