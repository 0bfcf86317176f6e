"""A flow over integers: the probability of each, bits/dim, samples, training by the very same fit, refusals."""

from dataclasses import dataclass

import numpy as np
import pytest
import stand_in
from helpers import assert_agrees, moved, refusal, same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

import npflow
from npflow import Dequantized, Flow, InputError, NonFiniteError, fit, load, to_device
from npflow.autodiff import Layout, record, value_and_grad
from npflow.errors import ConvergenceError
from npflow.layers import (
    ActNorm,
    Affine,
    AffineCoupling,
    Chain,
    Conv1x1,
    Layer,
    Logit,
    Split,
    Squeeze,
    Unsqueeze,
)
from npflow.networks import MLP
from npflow.priors import Logistic, Normal
from npflow.training import Adam

NETWORK = MLP((6,), "tanh")
SCALE = [Squeeze(), ActNorm(), Conv1x1(), AffineCoupling(NETWORK), Split(Affine()), Unsqueeze()]
IMAGES = Dequantized(Flow(Chain([Logit(), *SCALE]), Normal((4, 2, 2))))
CONDITIONAL = Dequantized(Flow(Chain([Logit(), *SCALE]), Normal((4, 2, 2)), context_features=3), levels=8)
BELL = Dequantized(Flow(Affine(), Normal(2)), levels=5)
few = settings(max_examples=10, deadline=None)


@pytest.fixture
def x(rng):
    """Images whose pixels are alike, with all levels among them."""
    x = np.clip(rng.normal(100, 60, (60, 1, 1, 1)) + rng.normal(0, 20, (60, 4, 2, 2)), 0, 255)
    x[0, 0, 0] = [0, 255]
    return x.astype(np.uint8)


def trained(model, rng, x, context=None, dtype=np.float64):
    """Parameters away from their start, as training leaves them."""
    return moved(model.init(rng, x, context, dtype), rng, by=0.1)


def bell(mean, std):
    """Parameters of `BELL`: the mean and the standard deviation of each of two features, as shares of [0, 1]."""
    return {"layer": {"mean": np.array(mean), "log_std": np.log(std)}, "prior": {}}


def run(model, x, *arrays, seed=0, **options):
    params = model.init(np.random.default_rng(1), x, *arrays)
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    return fit(model, params, x, *arrays, rng=np.random.default_rng(seed), **options)


# ---------------------------------------------------------------- the probability of integers


@pytest.mark.parametrize(("levels", "bits"), [(2, 1), (256, 8), (65536, 16)])
def test_where_the_density_is_uniform_each_integer_costs_all_of_its_bits(levels, bits, rng):
    model = Dequantized(Flow(Logit(alpha=0), Logistic((2, 3, 1))), levels)
    x = rng.integers(levels, size=(20, 2, 3, 1))
    params = model.init(rng, x)
    for draws in (1, 3):
        np.testing.assert_allclose(model.bits_per_dim(params, x, rng=rng, draws=draws), bits, rtol=1e-12)
    np.testing.assert_allclose(model.log_prob(params, x, rng=rng), -6 * bits * np.log(2), rtol=1e-12)


@few
@given(st.integers(0, 99))
def test_one_draw_is_the_density_at_one_place_of_the_cell(seed):
    x = np.random.default_rng(seed).integers(5, size=(6, 2), dtype=np.uint8)
    mean, std = [0.3, 0.6], [0.2, 0.4]
    u = np.random.default_rng(seed).random((6, 2))
    expected = np.sum(norm(mean, std).logpdf((x + u) / 5) - np.log(5), axis=1)
    rng = np.random.default_rng(seed)
    np.testing.assert_allclose(BELL.log_prob(bell(mean, std), x, rng=rng), expected, rtol=1e-12)
    np.testing.assert_allclose(BELL.losses(bell(mean, std), x, u), -expected, rtol=1e-12)
    bits = BELL.bits_per_dim(bell(mean, std), x, rng=np.random.default_rng(seed))
    np.testing.assert_allclose(bits, -expected / (2 * np.log(2)), rtol=1e-12)


def test_more_draws_come_closer_to_the_probability_of_the_cell(rng):
    x = np.stack(np.meshgrid(np.arange(5), np.arange(5)), axis=-1).reshape(-1, 2)
    mean, std = [0.4, 0.7], [0.15, 0.1]
    density = norm(mean, std)
    exact = np.sum(np.log(density.cdf((x + 1) / 5) - density.cdf(x / 5)), axis=1)
    estimates = [
        np.mean([BELL.log_prob(bell(mean, std), x, rng=rng, draws=draws) for _ in range(repeats)], axis=0)
        for draws, repeats in ((1, 200), (4, 50), (16, 12), (1000, 1))
    ]
    means = [estimate.mean() for estimate in estimates]
    assert np.all(np.diff([*means[:-1], exact.mean()]) > 0)  # in this order, and below the exact
    np.testing.assert_allclose(estimates[-1], exact, atol=0.2)
    np.testing.assert_allclose(np.exp(estimates[-1]).sum(), np.exp(exact).sum(), rtol=0.01)


def test_samples_are_as_frequent_as_they_are_probable_and_what_lies_outside_is_at_an_end(rng):
    mean, std = [0.1, 0.5], [0.2, 0.3]
    x = BELL.sample(bell(mean, std), rng, 20_000)
    below = np.array([norm(mean, std).cdf(level / 5) for level in range(1, 5)])
    expected = np.diff(below, axis=0, prepend=0, append=1)
    shares = np.stack([np.mean(x == level, axis=0) for level in range(5)])
    np.testing.assert_allclose(shares, expected, atol=0.015)


def test_integers_so_far_out_that_the_flow_overflows_have_no_probability(rng, x):
    params = IMAGES.init(rng, x)
    params["layer"][2]["log_scale"][...] = 300
    assert (IMAGES.log_prob(params, x[:3], rng=rng, draws=2) == -np.inf).all()


def test_u_is_drawn_for_some_rows_at_a_time(rng, x, monkeypatch):
    params = trained(IMAGES, rng, x)
    monkeypatch.setattr("npflow.flow.AT_ONCE", 7 * 16)
    bits, generator = IMAGES.bits_per_dim(params, x, rng=np.random.default_rng(5)), np.random.default_rng(5)
    for start in range(0, 60, 7):
        part = IMAGES.bits_per_dim(params, x[start : start + 7], rng=generator)
        np.testing.assert_allclose(bits[start : start + 7], part, rtol=1e-12)


# ---------------------------------------------------------------- to z and back


def test_encode_is_of_the_middles_of_the_cells_and_decode_gives_the_integers(rng, x):
    params = trained(IMAGES, rng, x)
    z = IMAGES.encode(params, x)
    np.testing.assert_array_equal(z, IMAGES.flow.encode(params, (x + 0.5) / 256))
    np.testing.assert_array_equal(IMAGES.decode(params, z), x, strict=True)
    errors = IMAGES.reconstruction_error(params, x)
    assert errors.shape == x.shape
    assert 0 < errors.max() < 1e-9
    off = IMAGES.flow.decode(params, z) - (x + 0.5) / 256
    np.testing.assert_allclose(errors, np.abs(off) * 256, atol=1e-12)


def test_numbers_become_the_integers_of_their_cells():
    y = np.array([[-0.2, 0.0, 0.19, 0.2, 0.5, 0.999, 1.0, 3.0, np.inf]])
    assert BELL.quantize(y).tolist() == [[0, 0, 0, 1, 2, 4, 4, 4, 4]]
    integers = np.arange(256, dtype=np.uint8)
    for u in (0, 0.5, 0.999):
        y = IMAGES.dequantize(integers, np.full(256, u, np.float32))
        assert y.dtype == np.float32
        np.testing.assert_array_equal(IMAGES.quantize(y), integers, strict=True)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("levels", [5, 17, 256])
def test_no_u_is_rounded_into_the_next_cell(levels, dtype):
    model, x = Dequantized(IMAGES.flow, levels), np.arange(levels)
    largest = np.full(levels, np.nextafter(dtype(1), dtype(0)), dtype)
    y = model.dequantize(x, largest)
    assert (y < 1).all()
    np.testing.assert_array_equal(model.quantize(y), x)
    np.testing.assert_allclose(y * levels, x + 1, rtol=1e-6)


def test_what_the_inverse_did_not_find_is_no_integer(rng, x):
    """On a device a layer that does not converge gives nan: to raise an error it would have to wait."""

    class Lost(Affine):
        def inverse(self, params, z):
            y, log_det = super().inverse(params, z)
            return np.where(np.arange(len(z))[:, None] == 3, np.nan, y), log_det

    model = Dequantized(Flow(Lost(), Normal(2)), levels=5)
    params = bell([0.5, 0.5], [0.2, 0.2])
    for call in (lambda: model.sample(params, rng, 5), lambda: model.decode(params, np.zeros((5, 2)))):
        with pytest.raises(ConvergenceError, match="the inverse of the flow, got nan in row 3"):
            call()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_numbers_are_in_the_dtype_of_the_parameters_and_integers_in_the_least_that_holds_them(
    dtype, kind, rng, x
):
    x = x.astype(kind)
    params = trained(IMAGES, rng, x, dtype=dtype)
    assert Layout(params).dtype == dtype
    z = IMAGES.encode(params, x)
    numbers = [
        z,
        IMAGES.log_prob(params, x, rng=rng, draws=2),
        IMAGES.bits_per_dim(params, x, rng=rng),
        IMAGES.reconstruction_error(params, x),
        IMAGES.losses(params, x, *IMAGES.noise(rng, len(x), dtype)),
    ]
    assert {array.dtype for array in numbers} == {np.dtype(dtype)}
    assert {IMAGES.sample(params, rng, 3).dtype, IMAGES.decode(params, z).dtype} == {np.dtype(np.uint8)}
    assert Dequantized(IMAGES.flow, 257).decode(params, z).dtype == np.uint16
    np.testing.assert_array_equal(IMAGES.decode(params, z), x)


def test_the_parameters_are_float32_unless_another_dtype_is_asked_for(rng, x):
    assert Layout(IMAGES.init(rng, x)).dtype == np.float32


def test_a_temperature_is_the_flows(rng, x):
    params = trained(IMAGES, rng, x)
    cold = IMAGES.sample(params, rng, 4, temperature=0)
    np.testing.assert_array_equal(cold, IMAGES.decode(params, np.zeros((4, 4, 2, 2))))
    cool, warm = (IMAGES.sample(params, rng, 500, temperature=t) for t in (0.5, 1))
    assert cool.std() < 0.8 * warm.std()


def test_each_row_has_a_context_of_its_own(rng):
    x, context = rng.integers(8, size=(5, 4, 2, 2)), rng.standard_normal((5, 3))
    params = trained(CONDITIONAL, rng, x, context)
    np.testing.assert_array_equal(
        CONDITIONAL.decode(params, CONDITIONAL.encode(params, x, context), context), x
    )
    assert CONDITIONAL.reconstruction_error(params, x, context).max() < 1e-9
    draw = lambda context: CONDITIONAL.log_prob(params, x, context, rng=np.random.default_rng(0), draws=2)
    assert (draw(context) != draw(-context)).all()
    u = np.random.default_rng(0).random((5, 4, 2, 2))
    np.testing.assert_allclose(
        -CONDITIONAL.losses(params, x, context, u),
        CONDITIONAL.flow.log_prob(params, (x + u) / 8, context) - 16 * np.log(8),
        rtol=1e-12,
    )
    assert CONDITIONAL.sample(params, rng, 5, context).shape == x.shape


# ---------------------------------------------------------------- training, by the very same fit


def test_it_learns_that_pixels_are_alike(rng, x):
    params, history = run(IMAGES, x, steps=200, optimizer=Adam(1e-2), validation=x[:20])
    start = IMAGES.init(np.random.default_rng(1), x)
    before, after = (IMAGES.bits_per_dim(p, x, rng=rng, draws=5).mean() for p in (start, params))
    assert after < before - 0.3
    assert 4 < after < 8
    assert history.validation_loss[-1] < history.validation_loss[0]
    assert x.dtype == np.uint8


def test_a_run_by_programs_has_the_bits_of_one_through_the_layers(rng, x):
    context = rng.standard_normal((60, 3), np.float32)
    (a, first), (b, second) = (run(CONDITIONAL, x // 32, context, record=record) for record in (True, False))
    assert same_bits(a, b)
    assert first.loss == second.loss


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_program_has_the_bits_of_the_plain_path(dtype, rng, x):
    params = trained(IMAGES, rng, x, dtype=dtype)
    batch = x, *IMAGES.noise(rng, len(x), dtype)
    loss, gradient = record(IMAGES.loss, params, *batch)(params, *batch)
    expected, slopes = value_and_grad(IMAGES.loss)(params, *batch)
    assert loss.tobytes() == expected.tobytes()
    assert gradient.tobytes() == Layout(params).pack(slopes).tobytes()
    assert (loss.dtype, gradient.dtype) == (dtype, dtype)


def test_u_is_another_in_each_step_and_the_same_in_each_look_at_held_out_rows(x):
    options = {"batch_size": 60, "optimizer": Adam(1e-12), "validation": x[:30], "steps": 6}
    _, history = run(IMAGES, x, **options)
    assert len(set(history.loss)) == 6
    np.testing.assert_allclose(history.validation_loss, history.validation_loss[0], rtol=1e-6)


def test_it_is_saved_and_loaded(rng, x, tmp_path):
    params = trained(CONDITIONAL, rng, x // 32, rng.standard_normal((60, 3)))
    npflow.save(tmp_path / "images.npz", CONDITIONAL, params)
    saved = load(tmp_path / "images.npz")
    assert saved.flow == CONDITIONAL
    assert same_bits(saved.params, params)


def test_it_learns_on_a_device_what_it_learns_on_the_host(device, x):
    options = {"steps": 8, "average": 0.9, "batch_size": 16, "progress": False, "validation": x[:9]}
    learned, history = run(IMAGES, x, **options)
    params = IMAGES.init(np.random.default_rng(1), x)
    there, history_there = fit(
        IMAGES, *to_device((params, x), device.name), rng=np.random.default_rng(0), **options
    )
    if device.exact:  # a GPU draws numbers of its own
        assert_agrees(device, there, learned)
        assert history_there.loss == history.loss
        assert history_there.validation_loss == history.validation_loss


def test_all_that_it_computes_lives_where_its_parameters_live(device, rng, x):
    params = trained(IMAGES, rng, x)
    there, x_there = to_device((params, x), device.name)
    assert_agrees(
        device, IMAGES.init(np.random.default_rng(1), x_there), IMAGES.init(np.random.default_rng(1), x)
    )
    for method, arrays in (
        (lambda p, x: IMAGES.encode(p, x), (x,)),
        (lambda p, x: IMAGES.reconstruction_error(p, x), (x,)),
        (lambda p, z: IMAGES.decode(p, z), (IMAGES.encode(params, x),)),
    ):
        assert_agrees(device, method(there, *to_device(arrays, device.name)), method(params, *arrays))
    if device.exact:  # the stand-in's numbers are the host's
        for method in (
            lambda p, x: IMAGES.bits_per_dim(p, x, rng=np.random.default_rng(0), draws=3),
            lambda p, x: IMAGES.sample(p, np.random.default_rng(0), 7, temperature=0.7),
        ):
            assert_agrees(device, method(there, x_there), method(params, x))


def test_a_step_on_a_device_sends_nothing(device, rng, x):
    arguments = trained(IMAGES, rng, x), x, *IMAGES.noise(rng, len(x), np.float64)
    there = to_device(arguments, device.name)
    program = record(IMAGES.loss, *there)
    program(*there)  # constants are compared the first time
    with stand_in.counted() as transfers:
        results = program(*there)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, results, record(IMAGES.loss, *arguments)(*arguments))


# ---------------------------------------------------------------- failures and refusals


def test_the_layer_that_gives_the_first_value_that_is_not_finite_is_named(rng, x):
    params = IMAGES.init(rng, x)
    params["layer"][2]["log_scale"][0] = 800
    with np.errstate(all="ignore"), pytest.raises(NonFiniteError, match=r"is that of layer/2 \(ActNorm\)"):
        fit(IMAGES, params, x, rng=rng, steps=3, progress=False)


def test_a_layer_that_makes_numpy_arrays_is_named(device, rng):
    @dataclass(frozen=True)
    class HostBound(Layer):
        def forward(self, params, x):
            return x + np.zeros(x.shape, x.dtype), np.zeros(len(x), x.dtype)

        inverse = forward

    model = Dequantized(Flow(Chain([Affine(), HostBound()]), Normal(2)))
    x = rng.integers(256, size=(6, 2))
    there = to_device((model.init(rng, x), x), device.name)
    with pytest.raises(
        InputError, match=rf"layer/1 \(HostBound\): expected forward to compute on {device} alone"
    ):
        fit(model, *there, rng=rng, steps=1, progress=False)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((Affine(),), "flow to be an instance of Flow, got Affine()"),
        ((BELL.flow, 1), "levels to be at least 2, got 1"),
        ((BELL.flow, 2**16 + 1), "levels to be at most 65536, got 65537"),
        ((BELL.flow, 2.5), "levels to be an integer, got 2.5"),
    ],
)
def test_hyper_parameters_that_cannot_be_used_get_a_sentence(arguments, words):
    assert words in refusal(Dequantized, *arguments)


def test_bad_input_gets_a_sentence(rng, x):
    params = IMAGES.init(rng, x)
    in_range = "x as integers from 0 to 255, got"
    wrong = x.astype(int)
    wrong[3, 1, 0, 1] = 256
    for call, words in (
        (lambda: IMAGES.init(rng, x / 255), f"{in_range} float64"),
        (lambda: IMAGES.init(rng, x, dtype=np.float16), "dtype to be float32 or float64"),
        (lambda: IMAGES.init(0, x), "rng to be a numpy.random.Generator, got an int"),
        (lambda: IMAGES.init(rng, x[:, :2]), "x with rows of shape (4, 2, 2), got rows of shape"),
        (lambda: IMAGES.encode(params, x > 9), f"{in_range} bool"),
        (lambda: IMAGES.encode(params, "x"), f"{in_range} a str"),
        (lambda: IMAGES.log_prob(params, None, rng=rng), "got a NoneType"),
        (lambda: IMAGES.encode(params, wrong), f"{in_range} 256 in row 3, at index (1, 0, 1)"),
        (lambda: IMAGES.encode(params, wrong - 257), f"{in_range} -"),
        (lambda: IMAGES.encode(params, x[..., 0]), "add an axis for the channels: x[..., None]"),
        (lambda: IMAGES.encode(params, x[:0]), "x to have at least one row"),
        (lambda: IMAGES.log_prob(params, x, rng=rng, draws=0), "draws to be at least 1, got 0"),
        (lambda: IMAGES.log_prob(params, x, rng=0), "rng to be a numpy.random.Generator"),
        (lambda: IMAGES.decode(params, x + 1j), "z in float32 or float64, got complex128"),
        (lambda: IMAGES.sample(params, rng, 0), "the number of samples to be at least 1, got 0"),
        (lambda: IMAGES.log_prob(params, x, np.ones((60, 1)), rng=rng), "no context for a flow with"),
        (lambda: IMAGES.check({}), "the parameters of a flow"),
        (lambda: run(IMAGES, x, validation=x[:3] / 255), "validation as integers from 0 to 255, got"),
        (lambda: CONDITIONAL.init(rng, x // 32), "a context of 3 features for each of"),
    ):
        assert words in refusal(call)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_noise_lies_inside_the_cell_of_an_integer(dtype):
    """A generator gives 0 once in 2^24 float32 numbers, where the density of a `Logit(0)` is 0."""

    class Zeros:
        def random(self, shape, dtype):
            return np.zeros(shape, dtype)

    model = Dequantized(Flow(Logit(0), Normal(2)), 4)
    x = np.array([[0, 3]])
    (u,) = model.noise(Zeros(), 1, np.dtype(dtype))
    assert np.isfinite(model.losses({"layer": {}, "prior": {}}, x, u)).all()
    np.testing.assert_array_equal(model.quantize(model.dequantize(x, u)), x)
