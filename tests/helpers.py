"""What tests of more than one file need: rows, parameters away from their start, comparisons."""

import io
import os

import autograd.numpy as anp
import numpy as np
import pytest

from npflow import InputError
from npflow.autodiff import Layout, tree, value_and_grad
from npflow.autodiff.gpu import devices

# How far a GPU may be from the host, which adds up in another order.
TOLERANCES = {np.dtype(np.float32): 1e-5, np.dtype(np.float64): 1e-12}


def rows(*shape, dtype=np.float64, seed=1):
    """Standard normal numbers of a shape, rows first."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def moved(params, seed=0, by=0.3):
    """Parameters away from where they start: each trained number plus `by` times normal noise.

    `seed` may be a generator too.
    """
    rng = np.random.default_rng(seed) if isinstance(seed, int) else seed
    layout = Layout(params)
    noise = by * rng.standard_normal(layout.size).astype(layout.dtype)
    return layout.unpack(layout.pack(params) + noise, params)


def perturbed(model, x, *more, seed=0, by=0.3, **options):
    """What `init` of a layer, network or model draws for `x`, moved: none starts as the identity or at zero.

    `more` and `options` are further arguments of `init`, such as a context or a number of outputs.
    """
    rng = np.random.default_rng(seed)
    return moved(model.init(rng, x, *more, **options), rng, by)


def vector(params):
    """The trained leaves of a tree as one vector."""
    return Layout(params).pack(params)


def same_bits(first, second):
    """Whether two trees have the same leaves, to the bit."""
    first, second = dict(tree.items(first)), dict(tree.items(second))
    return first.keys() == second.keys() and all(
        (np.shape(leaf), np.asarray(leaf).dtype, np.asarray(leaf).tobytes())
        == (np.shape(second[path]), np.asarray(second[path]).dtype, np.asarray(second[path]).tobytes())
        for path, leaf in first.items()
    )


def results_of(layer, params, x, context):
    """Both directions of a conditional layer at x, its log-det, and a gradient through all of them."""

    def loss(p):
        z, log_det = layer.forward(p["layer"], p["x"], context)
        back, back_log_det = layer.inverse(p["layer"], p["x"], context)
        return anp.sum(anp.sin(z)) + anp.sum(log_det) + anp.sum(anp.sin(back)) - 2 * anp.sum(back_log_det)

    directions = layer.forward(params, x, context), layer.inverse(params, x, context)
    return *directions, layer.log_det(params, x, context), value_and_grad(loss)({"layer": params, "x": x})


def refusal(call, *args, **kwargs):
    """The sentence of the `InputError` that a call raises."""
    with pytest.raises(InputError) as caught:
        call(*args, **kwargs)
    return str(caught.value)


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


class Failing(io.StringIO):
    """A stream that cannot be written to, for the reason of an errno: it is full, or its reader has gone."""

    def __init__(self, number):
        super().__init__()
        self.number = number

    def write(self, text):
        raise OSError(self.number, os.strerror(self.number))
