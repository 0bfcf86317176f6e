"""Set before NumPy and matplotlib are imported, for this process and those that tests start."""

import os

import pytest

os.environ["MPLBACKEND"] = "agg"  # no screen

# The matrices of the tests are small: a second BLAS thread gains nothing, and on a busy machine the two wait
# for each other twenty times as long as they compute.
for library in ("OPENBLAS", "MKL", "OMP"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture
def recordings(monkeypatch):
    """The number of rows of each recording that a gradient of batches makes."""
    from npflow.autodiff import batches  # after the lines above

    rows, record = [], batches.record

    def counting(loss, params, x):
        rows.append(len(x))
        return record(loss, params, x)

    monkeypatch.setattr(batches, "record", counting)
    return rows
