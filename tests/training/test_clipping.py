"""The norm of a gradient, and its clipping."""

import numpy as np
import pytest
import stand_in
from helpers import assert_agrees, rows

from npflow.training.clipping import clip, euclidean_norm

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@every_dtype
@pytest.mark.parametrize("scale", [0.0, 1e-10, 1.0, 1e25, 1e200])
def test_the_norm_does_not_overflow_where_squares_do(scale, dtype):
    with np.errstate(over="ignore"):
        vector = np.array([3.0, -4.0], dtype) * dtype(min(scale, 1e30 if dtype == np.float32 else scale))
        norm = euclidean_norm(vector)
    assert norm == pytest.approx(5 * float(np.abs(vector[0])) / 3, rel=1e-5)


def test_the_norm_of_what_is_not_finite_is_not():
    assert np.isnan(euclidean_norm(np.array([1.0, np.nan])))
    assert np.isinf(euclidean_norm(np.array([1.0, -np.inf])))


@every_dtype
@pytest.mark.parametrize("scale", [1.0, 1e25, 0.0])
def test_on_a_device_the_norm_is_the_hosts_and_stays_there(scale, dtype, device):
    gradient = scale * rows(50, dtype=dtype)
    with np.errstate(all="ignore"):
        there = device.send(gradient)
        with stand_in.counted() as transfers:
            norm = euclidean_norm(there)
            clip(there, norm, 0.5)
        assert transfers == stand_in.Transfers(0, 0)
        expected = euclidean_norm(gradient)
        clip(gradient, expected, 0.5)
    assert_agrees(device, norm, np.array(expected))
    assert_agrees(device, there, gradient)
