"""Set before NumPy and matplotlib are imported, for this process and those that tests start."""

import functools
import os
import signal
import sys

import pytest

os.environ["MPLBACKEND"] = "agg"  # no screen

# The matrices of the tests are small: a second BLAS thread gains nothing, and on a busy machine the two wait
# for each other twenty times as long as they compute.
for library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

# A shell starts a job in the background with SIGINT ignored; the tests send themselves Ctrl-C.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy  # noqa: E402 (after the lines above)
import stand_in  # noqa: E402

from npflow.autodiff.gpu import devices  # noqa: E402
from npflow.errors import InputError  # noqa: E402

devices.MAKERS["strict"] = stand_in.Strict

CUDA = pytest.param("cuda", marks=pytest.mark.gpu)


@functools.cache
def why_not(name):
    """Why there is no device of a name, or None where there is; asked once, as it looks for CuPy."""
    try:
        devices.find_device(name)
    except InputError as error:
        return str(error)


def find_device(name):
    """The device of a name; the test is skipped where it is a GPU, and there is none."""
    if name == "cuda" and why_not(name):
        pytest.skip(why_not(name))
    return devices.find_device(name)


@pytest.fixture
def rng():
    """A generator with a fixed seed."""
    return numpy.random.default_rng(0)


@pytest.fixture
def usual_signals():
    """The handlers of signals in a terminal: a job in the background ignores Ctrl-C, and one under nohup SIGHUP."""
    handlers = {"SIGINT": signal.default_int_handler, "SIGTERM": signal.SIG_DFL, "SIGHUP": signal.SIG_DFL}
    usual = {getattr(signal, name): handler for name, handler in handlers.items() if hasattr(signal, name)}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield usual
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def uncovered():
    """No trace of the test's lines: where coverage takes three times as long as the test, and others cover them.

    (The mark no_cover of pytest-cov has no effect in the processes of pytest-xdist, where two coverages are on.)
    """
    trace = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(trace)


@pytest.fixture(params=["strict", CUDA])
def device(request):
    """Each device that is not the host: CuPy's stand-in, and CuPy itself where there is a GPU."""
    return find_device(request.param)


@pytest.fixture(params=["cpu", "strict", CUDA])
def any_device(request):
    """Each device, the host too."""
    return find_device(request.param)


@pytest.fixture
def recordings(monkeypatch):
    """The number of rows of each recording that a gradient of batches makes."""
    from npflow.autodiff.program import slices

    rows, record = [], slices.record

    def counting(loss, params, x):
        rows.append(len(x))
        return record(loss, params, x)

    monkeypatch.setattr(slices, "record", counting)
    return rows
