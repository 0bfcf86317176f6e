"""The rows of a data set on a device: sent once where they fit, batch by batch where not."""

import numpy as np
import pytest
import stand_in
from helpers import assert_agrees

from npflow.autodiff.gpu import devices
from npflow.training.data import Batch, Batches
from npflow.training.on_device import Data

X = np.arange(60.0).reshape(20, 3)
ORDER = np.random.default_rng(0).permutation(20)


@pytest.fixture
def strict():
    return devices.find_device("strict")


@pytest.fixture
def little_memory(monkeypatch, strict):
    """A device that has room for a part of the data."""
    monkeypatch.setattr(strict, "available", X.nbytes // 2, raising=False)


def test_a_batch_has_the_rows_in_the_order_that_is_asked_for(device):
    data = Data(X, device)
    assert len(data) == 20
    for rows in (slice(0, 7), slice(7, 14), slice(14, 20)):
        assert_agrees(device, data.take(Batch(ORDER, rows)), X[ORDER[rows]])
    other = ORDER[::-1].copy()
    assert_agrees(device, data.take(Batch(other, slice(0, 7))), X[other[:7]])


def test_on_the_host_nothing_is_copied_but_the_batches():
    noise = lambda rows, number: (np.full(rows, number),)
    batches = Batches((X,))
    rows, drawn = batches.take(Batch(ORDER, slice(14, 20), 3), noise)
    np.testing.assert_array_equal(rows, X[ORDER[14:20]])
    assert drawn.tolist() == [3] * 6
    ((whole, drawn),) = batches.chunks(noise)
    assert whole is X
    assert drawn.tolist() == [0] * 20


def test_data_that_fits_is_sent_once_and_an_order_once(strict):
    with stand_in.counted() as transfers:
        data = Data(X, strict)
        for _ in range(3):
            data.take(Batch(ORDER, slice(0, 5)))
        data.take(Batch(ORDER.copy(), slice(5, 10)))
        whole = data.chunk(0, len(X))
    assert transfers == stand_in.Transfers(to_device=3, to_host=0)
    assert_agrees(strict, whole, X)


def test_data_on_the_device_already_is_not_sent(strict, little_memory):
    there = strict.send(X)
    with stand_in.counted() as transfers:
        data = Data(there, strict)
    assert data.x is there
    assert transfers == stand_in.Transfers(0, 0)


@pytest.mark.usefixtures("little_memory")
def test_data_that_does_not_fit_is_sent_a_batch_or_a_chunk_at_a_time(strict):
    with stand_in.counted() as transfers:
        data = Data(X, strict)
        batches = [data.take(Batch(ORDER, slice(start, start + 5))) for start in (0, 5)]
        rows = data.rows_at_once()
        chunks = [data.chunk(start, min(start + rows, len(X))) for start in range(0, len(X), rows)]
    assert data.x is X
    assert transfers == stand_in.Transfers(to_device=2 + len(chunks), to_host=0)
    assert_agrees(strict, batches, [X[ORDER[:5]], X[ORDER[5:10]]])
    assert len(chunks) > 1
    assert all(chunk.nbytes <= strict.free_bytes() for chunk in chunks)
    np.testing.assert_array_equal(np.concatenate([strict.fetch(chunk) for chunk in chunks]), X)
