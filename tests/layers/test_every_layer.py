"""The contract of every layer of the registry, on the host and on devices."""

import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from helpers import assert_agrees, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import to_device
from npflow.autodiff import Layout, tree, value_and_grad
from npflow.layers import BlockMeans, Fold, Squeeze, Unsqueeze, gaussianization, masked_convolution
from npflow.verify.cases import CASES


def moved_params(case, rng, x):
    """Parameters near the start, but not at it: a little noise, less in each leaf of a wide layer."""

    def move(_, leaf):
        if not tree.is_trained(leaf):
            return leaf
        inputs = max(1, np.prod(leaf.shape[:-1]))
        return leaf + rng.normal(0, 0.1 / np.sqrt(inputs), leaf.shape).astype(leaf.dtype)

    return tree.build(move, case.layer.init(rng, x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
@settings(deadline=None, max_examples=3)
@given(rows=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_round_trip_log_dets_shapes_and_dtypes(name, dtype, rows, seed):
    case, rng = CASES[name], np.random.default_rng(seed)
    params = moved_params(case, rng, case.batch(rng, 16, dtype))
    x = case.batch(rng, rows, dtype)
    z, log_det = case.layer.forward(params, x)
    back, inverse_log_det = case.layer.inverse(params, z)
    assert back.shape == x.shape
    assert z.shape == x.shape or isinstance(case.layer, (BlockMeans, Fold, Squeeze, Unsqueeze))
    assert log_det.shape == inverse_log_det.shape == (rows,)
    assert {array.dtype for array in (z, log_det, back, inverse_log_det)} == {np.dtype(dtype)}
    tolerance = 1e-9 if dtype == np.float64 else 2e-2
    np.testing.assert_allclose(back, x, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=tolerance, rtol=tolerance)
    np.testing.assert_array_equal(case.layer.log_det(params, x), log_det)


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_finite_and_stay_in_float32(name):
    case, rng = CASES[name], np.random.default_rng(0)
    x = case.batch(rng, 6, np.float32)
    params = moved_params(case, rng, x)

    def loss(params, x):
        z, log_det = case.layer.forward(params, x)
        return anp.sum(z * z) - anp.sum(log_det)

    value, gradient = value_and_grad(loss)(params, x)
    assert value.dtype == np.float32
    leaves = [leaf for _, leaf in tree.items(gradient) if leaf is not None]
    assert all(leaf.dtype == np.float32 for leaf in leaves)
    assert np.isfinite(Layout(params).pack(gradient)).all()


@pytest.mark.parametrize("name", CASES)
def test_init_follows_the_generator_and_nothing_else(name):
    case = CASES[name]
    x = case.batch(np.random.default_rng(0))
    before = np.random.get_state()[1].copy()  # noqa: NPY002 (that it is not touched)
    first, second = (case.layer.init(np.random.default_rng(5), x) for _ in range(2))
    assert same_bits(first, second)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.fixture
def few_steps(monkeypatch):
    """A device makes all steps of an iteration; the small cases converge in fewer than these."""
    monkeypatch.setattr(masked_convolution, "DEVICE_STEPS", 30)
    monkeypatch.setattr(gaussianization, "STEPS", 30)


@pytest.mark.usefixtures("few_steps", "uncovered")
@pytest.mark.parametrize("name", CASES)
def test_on_a_device_it_equals_the_host_and_transfers_nothing(name, device):
    case, rng = CASES[name], np.random.default_rng(0)
    x = case.batch(rng, 6, np.float32)
    params = moved_params(case, rng, x)

    def everything(params, x):
        def loss(params):
            z, log_det = case.layer.forward(params["layer"], params["x"])
            back, inverse_log_det = case.layer.inverse(params["layer"], z)
            return anp.sum(z * z) + anp.sum(log_det * log_det) + anp.sum(back * inverse_log_det[0])

        z, log_det = case.layer.forward(params, x)
        back, inverse_log_det = case.layer.inverse(params, z)
        alone = case.layer.log_det(params, x)
        value, gradient = value_and_grad(loss)({"layer": params, "x": x})
        return (
            z,
            log_det,
            back,
            inverse_log_det,
            alone,
            value,
            [g for _, g in tree.items(gradient) if g is not None],
        )

    arguments = to_device((params, x), device.name)
    everything(*arguments)  # the first call sends masks and permutations
    with stand_in.counted() as transfers, stand_in.numpys_order():
        there = everything(*arguments)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, there, everything(params, x))
