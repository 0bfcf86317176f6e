"""Kill a training run with SIGKILL at random moments, resume it each time, and compare with one left alone.

As a script it kills twenty times: ``python tests/training/kill_and_resume.py``. A test kills once.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from npflow import fit, load
from npflow.autodiff import Layout
from npflow.models import glow
from npflow.networks import MLP
from npflow.training import Adam, WarmupCosine


def train(checkpoint, steps):
    """Train with every part of the state that a checkpoint keeps; print the step of each checkpoint."""
    rng = np.random.default_rng(7)
    x = rng.standard_normal((500, 2), np.float32)
    x[:, 1] += x[:, 0] ** 2
    flow = glow(2, steps=2, network=MLP((16,)))
    return fit(
        flow,
        flow.init(rng, x),
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
        on_checkpoint=lambda params, history: print(history.steps, flush=True),
        progress=False,
    )


def killed_and_left_alone(folder, kills, steps, seed=0):
    """The final checkpoints of a run that is killed and of one left alone, and the steps that survived each kill."""
    moments = random.Random(seed)
    killed, alone = Path(folder) / "killed.npz", Path(folder) / "alone.npz"
    train(alone, steps)
    command = [sys.executable, __file__, "--train", str(killed), "--steps", str(steps)]
    survived = []
    for _ in range(kills):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(moments.randint(1, max(1, steps // (6 * kills)))):
            process.stdout.readline()
        time.sleep(moments.uniform(0, 0.01))  # in a step, or while the next checkpoint is written
        process.kill()
        process.communicate()
        survived.append(load(killed).run["step"])  # whatever the moment, the file is whole
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return load(killed), load(alone), survived


def same_state(a, b):
    """Whether two checkpoints hold the same result and the same state, the clock aside."""
    vectors = [Layout(checkpoint.params).pack(checkpoint.params) for checkpoint in (a, b)]
    arrays = (a.arrays.keys() | b.arrays.keys()) - {"history:seconds"}
    return (
        a.run == b.run
        and np.array_equal(*vectors)
        and all(np.array_equal(a.arrays[name], b.arrays[name], equal_nan=True) for name in arrays)
    )


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
        killed, alone, survived = killed_and_left_alone(folder, options.kills, options.steps)
    same = same_state(killed, alone)
    print(f"killed with checkpoints of steps {survived}, of {options.steps}")
    print("the same parameters and state to the bit" if same else "DIFFERENT")
    sys.exit(not same)
