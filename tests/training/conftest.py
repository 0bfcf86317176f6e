"""A checkpoint that the tests of its parts share."""

import pytest
from runs import data, run


@pytest.fixture
def trained(tmp_path):
    """The checkpoint of a run of 12 steps, with an average and the best parameters by validation."""
    path = tmp_path / "run.npz"
    run(data(), steps=12, average=0.9, validation=data()[:9], checkpoint=path)
    return path
