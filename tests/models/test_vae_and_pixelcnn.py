"""What the VAE and the PixelCNN share as models that `fit` trains: programs, gradients, resumed runs, files."""

import numpy as np
import pytest
from helpers import moved, vector

from npflow import fit, load, save
from npflow.autodiff import Layout, record, value_and_grad
from npflow.layers import Chain, MaskedAutoregressive, Planar
from npflow.models import VAE, PixelCNN, maf
from npflow.networks import MADE, MLP, MaskedConvNet
from npflow.training import Adam, WarmupCosine

TINY = MaskedConvNet(4, blocks=1, kernel=3, head=(5,))
MADE8 = MADE((8,), "tanh")
FLOWS = {"posterior": Chain([MaskedAutoregressive(MADE8), Planar()]), "prior": maf(2, 1, MADE8)}
MODELS = {
    "VAE": VAE(3, 2, MLP((8,), "tanh"), MLP((8,), "tanh")),
    "VAE with flows": VAE(3, 2, MLP((8,), "tanh"), MLP((8,), "tanh"), **FLOWS, context_features=2, draws=2),
    "PixelCNN": PixelCNN((3, 4, 3), levels=5, network=TINY),
    "conditional PixelCNN": PixelCNN((3, 4, 1), levels=5, network=TINY, context_features=2),
}
dtypes = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@pytest.fixture(params=MODELS)
def model(request):
    return MODELS[request.param]


def data(model, n=20, dtype=np.float64, seed=3):
    """Rows, and a context if the model takes one."""
    rng = np.random.default_rng(seed)
    if isinstance(model, VAE):
        return (rng.normal(5, 3, (n, 3)).astype(dtype),)
    x = rng.integers(model.levels, size=(n, *model.shape), dtype=np.uint8)
    return (x, np.eye(2, dtype=dtype)[np.arange(n) % 2]) if model.context_features else (x,)


def start(model, dtype=np.float64):
    more = {} if isinstance(model, VAE) else {"dtype": dtype}
    return model.init(np.random.default_rng(1), *data(model, 60, dtype), **more)


def batch_of(model, n, dtype=np.float64):
    """Moved parameters, and what `loss` takes: rows, a context, noise."""
    noise = model.noise(np.random.default_rng(4), n, dtype) if model.noisy else ()
    return moved(start(model, dtype), by=0.2), (*data(model, n, dtype), *noise)


def run(model, *, seed=0, **options):
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    rng, rows = np.random.default_rng(seed), data(model, 60, np.float32)
    return fit(model, start(model, np.float32), *rows, rng=rng, **options)


@dtypes
def test_its_program_equals_the_plain_path_bit_for_bit(model, dtype):
    params, batch = batch_of(model, 20, dtype)
    loss, gradient = record(model.loss, params, *batch)(params, *batch)
    expected, slopes = value_and_grad(model.loss)(params, *batch)
    assert (loss.dtype, gradient.dtype) == (dtype, dtype)
    assert loss.tobytes() == expected.tobytes()
    assert gradient.tobytes() == Layout(params).pack(slopes).tobytes()


def test_its_gradient_equals_finite_differences(model, rng):
    params, batch = batch_of(model, 4)
    layout = Layout(params)
    at, gradient = layout.pack(params), layout.pack(value_and_grad(model.loss)(params, *batch)[1])
    for place in rng.permutation(layout.size)[:40]:
        step = np.zeros(layout.size)
        step[place] = 1e-6
        ahead, behind = (model.loss(layout.unpack(at + h * step, params), *batch) for h in (1, -1))
        assert gradient[place] == pytest.approx((ahead - behind) / 2e-6, rel=1e-5, abs=1e-7)


def test_a_run_with_programs_equals_one_without_bit_for_bit(model):
    (a, first), (b, second) = run(model), run(model, record=False)
    assert np.array_equal(vector(a), vector(b))
    assert first.loss == second.loss


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(model, tmp_path):
    validation, *context = data(model, 12, np.float32, seed=4)
    options = {"average": 0.9, "clip_norm": 1.0, "optimizer": Adam(WarmupCosine(1e-2, 25))}
    options |= {"validation": validation, "validation_context": context[0] if context else None}
    alone, whole = run(model, steps=25, checkpoint=tmp_path / "alone.npz", **options)
    for stop in (4, 13):
        path = tmp_path / f"{stop}.npz"
        run(model, steps=stop, checkpoint=path, **options)
        resumed, history = run(model, steps=25, seed=99, checkpoint=path, **options)
        assert history.loss == whole.loss
        assert np.array_equal(load(path).arrays["vector"], load(tmp_path / "alone.npz").arrays["vector"])
        if stop % 4 == 0:  # otherwise the end of the shorter run is one more validation
            assert np.array_equal(vector(resumed), vector(alone))
            assert history.validation_loss == whole.validation_loss


def test_it_is_saved_and_loaded(model, tmp_path):
    params = moved(start(model))
    save(tmp_path / "model.npz", model, params)
    saved = load(tmp_path / "model.npz")
    assert saved.flow == model
    assert np.array_equal(vector(saved.params), vector(params))
    assert type(model).__name__ in repr(saved)
