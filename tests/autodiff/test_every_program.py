"""The programs of every layer of the registry and of every model recipe repeat the plain path bit for bit."""

import inspect

import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from helpers import assert_agrees, moved

from npflow import Flow, fit, models, to_device
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.primitives import concatenate_last
from npflow.autodiff.program.threads import one_blas_thread
from npflow.layers import BlockMeans, Chain, Fold, Inverse, Squeeze, Unsqueeze
from npflow.networks import MADE, MLP, ConvNet, ResNet
from npflow.priors import Normal
from npflow.verify.cases import CASES, Case

pytestmark = pytest.mark.usefixtures("uncovered")

# Each recipe as a small flow: a new one is tested by being listed.
SMALL, MASKED, CONVOLUTIONS = MLP((8,), "tanh"), MADE((8,), "tanh"), ConvNet((6, 6))
RECIPES = {
    "continuous_flow": models.continuous_flow(2, hidden=(6,), steps=1),
    "gaussianization": models.gaussianization(2, steps=1, components=3),
    "glow": models.glow(4, steps=2, network=SMALL),
    "iaf": models.iaf(3, steps=2, network=MASKED),
    "image_glow": models.image_glow((4, 4, 1), levels=2, steps=1, network=CONVOLUTIONS),
    "image_nice": models.image_nice((3, 3, 1), couplings=2, network=CONVOLUTIONS),
    "image_residual_flow": models.image_residual_flow((4, 4, 1), levels=2, steps=1, hidden=(3,)),
    "image_real_nvp": models.image_real_nvp((3, 2, 1), 1, ResNet(4, 1)),
    "maf": models.maf(4, steps=2, network=MASKED),
    "mintnet": models.mintnet((2, 2, 1), levels=2, steps=1, filters=2),
    "neural_spline": models.neural_spline(4, steps=2, network=SMALL),
    "nice": models.nice(5, couplings=2, network=SMALL),
    "planar": models.planar(4, steps=2),
    "radial": models.radial(4, steps=2),
    "residual_flow": models.residual_flow(3, steps=2, hidden=(8,)),
    "sylvester": models.sylvester(4, steps=2, rank=2),
    "real_nvp": models.real_nvp(4, couplings=2, network=SMALL),
}

# What makes the shape again that a layer changes.
BACK = {Squeeze(): Unsqueeze(), Unsqueeze(): Squeeze(), BlockMeans(): Unsqueeze()}
BACK |= {fold: Inverse(fold) for fold in (Fold(), Fold("left"))}
OF_PARTS = {"inpainting", "super_resolution"}  # models of images given a part: tests/test_completion.py


def flow_of(case):
    layer = Chain([case.layer, BACK[case.layer]]) if case.layer in BACK else case.layer
    return Flow(layer, Normal(case.event_shape, trained=True))


FLOWS = {name: flow_of(case) for name, case in CASES.items()}  # the recipes' layers are among them


def start(flow, rng, dtype):
    """Parameters away from their start, no two of them alike."""
    return moved(flow.init(rng, rows(flow, rng, 20, dtype)), rng, by=0.05)


def rows(flow, rng, n, dtype):
    return Case(flow.layer, flow.prior.event_shape).batch(rng, n, dtype)


def assert_same_bits(got, expected, dtype):
    got, expected = np.asarray(got), np.asarray(expected)
    assert (got.dtype, got.shape) == (expected.dtype, expected.shape) == (dtype, expected.shape)
    assert got.tobytes() == expected.tobytes()
    assert np.isfinite(expected).all()  # else that the bits are the same says little


def test_every_recipe_is_listed():
    recipes = {name for name in models.__all__ if inspect.isfunction(getattr(models, name))}
    assert set(RECIPES) == recipes - OF_PARTS


@pytest.mark.parametrize(("dtype", "n"), [(np.float32, 23), (np.float64, 1)])
@pytest.mark.parametrize("name", FLOWS)
def test_a_program_has_the_bits_of_the_plain_path(name, dtype, n):
    flow, rng = FLOWS[name], np.random.default_rng(n)

    def inverse(params, z):
        x, log_det = flow.layer.inverse(params["layer"], z)
        return concatenate_last(anp.reshape(x, (len(x), -1)), anp.reshape(log_det, (-1, 1)))

    params, x = start(flow, rng, dtype), rows(flow, rng, n, dtype)
    # Also on other values than those that it is recorded with.
    both = (params, x), (moved(params, rng, by=0.05), rows(flow, rng, n, dtype))
    with one_blas_thread():
        program = record(flow.loss, params, x)
        for arguments in both:
            loss, gradient = program(*arguments)
            expected, slopes = value_and_grad(flow.loss)(*arguments)
            assert_same_bits(loss, expected, dtype)
            assert_same_bits(gradient, Layout(params).pack(slopes), dtype)
        program = record(inverse, params, x, gradient=False)
        for arguments in both:
            assert_same_bits(program(*arguments), inverse(*arguments), dtype)


@pytest.mark.parametrize("name", FLOWS)
def test_on_a_device_it_is_the_hosts_program_with_the_hosts_results_and_sends_nothing(name, device):
    flow, rng = FLOWS[name], np.random.default_rng(0)
    params, x = start(flow, rng, np.float32), rows(flow, rng, 12, np.float32)
    there = to_device((params, x), device.name)
    on_host, on_device = record(flow.loss, params, x), record(flow.loss, *there)
    source = on_device.source.replace(f"import {device.alias}\n", "import numpy as np\n")
    assert source != on_device.source
    assert "np." not in on_device.source
    if device.exact:  # a GPU's results may lie in memory in another order
        assert source.replace(f"{device.alias}.", "np.") == on_host.source
        assert (on_device.lines, on_device.peak_bytes) == (on_host.lines, on_host.peak_bytes)
    on_device(*there)  # constants are compared the first time
    with stand_in.counted() as transfers:
        results = on_device(*there)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, results, on_host(params, x))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_learns_on_a_device_what_it_learns_on_the_host(name, device):
    flow, rng = RECIPES[name], np.random.default_rng(0)
    params, x = start(flow, rng, np.float64), rows(flow, rng, 32, np.float64)
    options = {"steps": 3, "batch_size": 16, "clip_norm": 1.0, "average": 0.9, "progress": False}
    learned, history = fit(flow, params, x, rng=np.random.default_rng(1), **options)
    there = to_device((params, x), device.name)
    learned_there, history_there = fit(flow, *there, rng=np.random.default_rng(1), **options)
    assert_agrees(device, learned_there, learned)
    np.testing.assert_allclose(history_there.loss, history.loss, rtol=0 if device.exact else 1e-12)
