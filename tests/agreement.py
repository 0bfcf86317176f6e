"""Whether a device gives what NumPy gives."""

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu import devices

# How far a GPU may be from the host, which adds up in another order.
TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def assert_agrees(device, got, expected):
    """Assert that a tree of arrays lives on a device and holds what is expected, a tree of NumPy's arrays.

    To the bit where the device computes with the host's arithmetic, else within its tolerance.
    """
    got, expected = dict(tree.items(got)), dict(tree.items(expected))
    assert got.keys() == expected.keys()
    for path, wanted in expected.items():
        assert devices.device_of(got[path]) is device, f"{path} is not on {device}"
        found, wanted = np.asarray(devices.to_host(got[path])), np.asarray(wanted)
        assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype), path
        if device.exact:
            assert found.tobytes() == wanted.tobytes(), path
        else:
            tolerance = TOLERANCES.get(wanted.dtype, 0)
            np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, err_msg=path)
