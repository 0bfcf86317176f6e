"""Arithmetic on long vectors, piece by piece."""

import threading

import numpy as np
import pytest

from npflow.autodiff.gpu.devices import to_device
from npflow.autodiff.program import chunks
from npflow.autodiff.program.chunks import NUMBERS, WORTH_THREADS, in_chunks


@pytest.mark.parametrize("size", [0, 1, NUMBERS, NUMBERS + 1, 3 * NUMBERS, WORTH_THREADS + 7])
def test_every_number_is_seen_once_beside_its_own_in_the_other_vector(size):
    a, b = np.arange(size), np.zeros(size, int)

    def work(a, b):
        assert len(a) <= NUMBERS
        b += a + 1

    in_chunks(work, a, b)
    np.testing.assert_array_equal(b, np.arange(1, size + 1))


def test_long_vectors_are_shared_out_to_as_many_threads_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(chunks, "available_cores", lambda: 2)
    together, seen = threading.Barrier(2, timeout=10), set()

    def work(vector):
        if threading.get_ident() not in seen:
            seen.add(threading.get_ident())
            together.wait()  # until the other thread is here too

    in_chunks(work, np.zeros(WORTH_THREADS))
    assert len(seen) == 2
    in_chunks(lambda vector: seen.add(threading.get_ident()), np.zeros(WORTH_THREADS - 1))
    assert seen == {*seen, threading.get_ident()}
    assert len(seen) == 3


def test_an_error_in_a_thread_reaches_the_caller():
    def work(vector):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_chunks(work, np.zeros(WORTH_THREADS))


def test_a_device_is_called_once(device):
    lengths = []
    in_chunks(lambda vector: lengths.append(len(vector)), to_device(np.zeros(3 * NUMBERS), device.name))
    assert lengths == [3 * NUMBERS]
