"""BLAS threads."""

import os
import subprocess
import sys

import numpy as np
import pytest
import scipy.linalg  # noqa: F401 (which has a BLAS of its own)
from threadpoolctl import threadpool_info, threadpool_limits

from npflow import Flow, fit
from npflow.autodiff.program import threads
from npflow.autodiff.program.threads import leave_others, one_blas_thread
from npflow.layers import Affine
from npflow.priors import Normal
from npflow.verify import check


def blas_threads():
    return [library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"]


def test_blas_keeps_to_one_thread_inside_and_gets_its_threads_back():
    before = blas_threads()
    with one_blas_thread():
        assert set(blas_threads()) == {1}
    assert blas_threads() == before


def test_scipys_blas_is_held_too_where_it_is_first_needed_inside():
    code = (
        "from threadpoolctl import threadpool_info\n"
        "from npflow.autodiff.program.threads import leave_others, one_blas_thread\n"
        "with one_blas_thread():\n"
        "    import scipy.linalg\n"
        "    print({one['num_threads'] for one in threadpool_info() if one['user_api'] == 'blas'})\n"
    )
    env = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    run = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert run.stdout == "{1}\n"


def test_training_and_verification_keep_to_one_thread():
    seen = []

    class Watching(Affine):
        def forward(self, params, x):
            seen.append(set(blas_threads()))
            return super().forward(params, x)

    with threadpool_limits(2, user_api="blas"):
        before = blas_threads()
        x = np.random.default_rng(0).standard_normal((10, 2))
        check(Watching(), x)
        checked = len(seen)
        flow = Flow(Watching(), Normal(2))
        params = flow.init(np.random.default_rng(0), x)
        before_fit = len(seen)
        fit(flow, params, x, rng=np.random.default_rng(0), steps=1, progress=False)
        assert blas_threads() == before
    assert set.union(*seen[:checked]) == {1}
    assert seen[before_fit:][-1] == {1}


def test_the_last_of_several_threads_to_leave_gives_blas_back_what_the_first_found(monkeypatch):
    """With a BLAS of our own: OpenBLAS lets another thread than the main one set the number only at times."""
    number = [4]

    class Limits:
        def limit(self, limits, user_api):
            self.found, number[0] = number[0], limits
            return self

        def restore_original_limits(self):
            number[0] = self.found

    monkeypatch.setattr(threads, "libraries", Limits)
    first, second = one_blas_thread(), one_blas_thread()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert number == [1]
    second.__exit__(None, None, None)
    assert number == [4]
    with pytest.raises(ZeroDivisionError), one_blas_thread():
        assert number == [1]
        raise ZeroDivisionError
    assert number == [4]


FORK = """
import gc, os, signal, threading
import numpy as np
from autograd.tracer import Box
from npflow import fit
from npflow.autodiff import Layout, record
from npflow.autodiff.gpu import devices
from npflow.autodiff.program import chunks, slices, threads
from npflow.models import glow
from npflow.networks import MLP

flow, rng = glow(2, steps=1, network=MLP((4,))), np.random.default_rng(0)
x = rng.standard_normal((60, 2))
params = flow.init(rng, x)
slices.slices_worth = lambda program, seconds: 3
gradient, out = slices.ProgramGradient(flow.loss, params, threads=2), np.zeros(Layout(params).size)
loss, boxes = gradient((x,), out), dict(Box.type_mappings)  # the threads of its pool live on

records = threading.Event()

def waits(params, x):
    records.set()
    threading.Event().wait()

def holds():
    with threads.one_blas_thread(), devices.LOCK, chunks.LOCK, threads.LOCK:
        record(waits, params, x)

threading.Thread(target=holds, daemon=True).start()
records.wait()
process = os.fork()
if process == 0:
    signal.alarm(30)  # ends a child that hangs
    assert gc.isenabled() and Box.type_mappings == boxes and not threads.inside
    assert gradient((x,), out) == loss
    fit(flow, params, x, rng=rng, steps=2, progress=False)
    flow.log_prob(params, np.repeat(x, 2000, axis=0))
    os._exit(0)
print(os.waitpid(process, 0)[1], flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_child_that_is_forked_while_another_thread_records_trains():
    run = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("0\n", "")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no processes are forked here")
def test_a_thread_that_forks_stays_in_its_contexts():
    before = blas_threads()
    with one_blas_thread():
        leave_others()  # as the child calls it
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
