"""A training step by a program allocates nothing that grows."""

import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from npflow.autodiff import Layout
from npflow.autodiff.program import slices
from npflow.autodiff.program.slices import ProgramGradient
from npflow.autodiff.program.threads import one_blas_thread
from npflow.models import glow
from npflow.networks import MLP
from npflow.training import Adam

MEGABYTE = 2**20


def training_step(threads):
    """A step as `fit` makes it, of a small Glow on batches of 64; it is told which step it is."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((640, 2)).astype(np.float32)
    flow, adam = glow(2, steps=2, network=MLP((32, 32))), Adam(1e-3)
    start = flow.init(rng, x)
    layout = Layout(start)
    vector = layout.pack(start)
    loss_of, state = ProgramGradient(flow.loss, layout.unpack(vector, start), threads), adam.init(vector)
    gradient = np.empty_like(vector)

    def step(number):
        loss = loss_of((x[rng.permutation(len(x))[:64]],), gradient)
        adam.update(state, vector, gradient, number)
        return loss

    return step


def peak_of_this_process():
    """The most memory that was ever resident, in bytes; macOS counts it in bytes, others in KiB."""
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def growth_in_a_thousand_steps():
    """How many bytes the peak of this process grows by between step 10 and step 1,000, on four slices a step."""
    slices.SECONDS_A_LINE = slices.SECONDS_A_PARAMETER = 1e-15
    slices.MOST_SLICES = 4
    step, peaks = training_step(threads=2), {}
    with one_blas_thread():
        losses = []
        for number in range(1, 1001):
            losses.append(float(step(number)))
            if number in (10, 1000):
                peaks[number] = peak_of_this_process()
    assert np.mean(losses[-10:]) < np.mean(losses[:10])  # it has trained
    return peaks[1000] - peaks[10]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not tell the peak in this way")
def test_the_peak_after_a_thousand_steps_is_that_after_ten():
    """In a process of its own: the peak of this one is that of the tests before."""
    command = [sys.executable, "-W", "error", __file__]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert int(process.stdout) < 2 * MEGABYTE


@pytest.mark.usefixtures("uncovered")
@pytest.mark.parametrize("threads", [1, 2])
def test_what_python_and_numpy_hold_does_not_grow_with_the_calls(threads, monkeypatch):
    monkeypatch.setattr(slices, "SECONDS_A_LINE", 1e-15)
    monkeypatch.setattr(slices, "SECONDS_A_PARAMETER", 1e-15)
    monkeypatch.setattr(slices, "MOST_SLICES", 2)
    step, held = training_step(threads), {}
    for number in range(1, 21):  # recordings, workspaces and threads are made
        step(number)
    tracemalloc.start()
    try:
        for number in range(21, 221):
            step(number)
            if number in (40, 220):
                held[number] = held_by_npflow()
    finally:
        tracemalloc.stop()
    assert held[220] - held[40] < 8 * 1024  # 180 steps; one array of a batch's hidden layer is as large


def held_by_npflow():
    """The bytes that npflow's lines and those of programs hold; other threads of a test run hold some too."""
    own = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*npflow*")])
    return sum(trace.size for trace in own.traces)


if __name__ == "__main__":
    print(growth_in_a_thousand_steps())
