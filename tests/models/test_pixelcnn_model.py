"""PixelCNN: its probabilities, samples and completions, training, refusals."""

import itertools

import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, same_bits, vector

from npflow import InputError, NonFiniteError, fit, to_device
from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import device_of
from npflow.models import VAE, PixelCNN
from npflow.networks import MLP, MaskedConvNet
from npflow.training import Adam

TINY = MaskedConvNet(4, blocks=1, kernel=3, head=(5,))
COLOUR = PixelCNN((3, 4, 3), levels=5, network=TINY)
BY_CLASS = PixelCNN((3, 4, 1), levels=5, network=TINY, context_features=2)


def images(model, n=20, dtype=np.uint8, seed=3):
    return np.random.default_rng(seed).integers(model.levels, size=(n, *model.shape)).astype(dtype)


def classes(n=20, dtype=np.float64):
    return np.eye(2, dtype=dtype)[np.arange(n) % 2]


def data(model, n=20, dtype=np.float64):
    """Images, and a context if the model takes one."""
    return (images(model, n), classes(n, dtype)) if model.context_features else (images(model, n),)


def trained(model, dtype=np.float64, by=0.3):
    """Parameters moved away from their initial values, as training moves them."""
    rng = np.random.default_rng(1)
    return moved(model.init(rng, *data(model, dtype=dtype), dtype=dtype), rng, by)


def all_images(shape, levels):
    """Every image of a shape and a number of levels."""
    numbers = list(itertools.product(range(levels), repeat=int(np.prod(shape))))
    return np.array(numbers, np.uint8).reshape(-1, *shape)


# ---------------------------------------------------------------- probabilities


@pytest.mark.parametrize("shape", [(2, 2, 1), (1, 2, 2), (2, 1, 2)])
def test_probabilities_of_all_images_sum_to_one_and_samples_follow_them(shape, rng):
    model = PixelCNN(shape, levels=3, network=TINY)
    every = all_images(shape, 3)
    p = np.exp(model.log_prob(params := trained(model), every))
    assert len(p) == 81
    assert p.max() > 3 * p.min()
    np.testing.assert_allclose(p.sum(), 1, rtol=1e-12)
    samples = model.sample(params, rng, 20_000).reshape(-1, 4)
    frequency = np.bincount(samples @ [27, 9, 3, 1], minlength=81) / len(samples)
    np.testing.assert_allclose(frequency, p, atol=5 * np.sqrt(p.max() / len(samples)))
    chi_squared = len(samples) * np.sum((frequency - p) ** 2 / p)
    assert 40 < chi_squared < 130  # of 80 degrees of freedom


@pytest.mark.parametrize("context", [None, classes()])
def test_log_prob_sums_the_log_softmax_of_each_number(context):
    model = COLOUR if context is None else BY_CLASS
    params, x = trained(model), images(model)
    logits = model.logits(params, x, context)
    assert logits.shape == (*x.shape, 5)
    log_p = logits - np.log(np.sum(np.exp(logits), axis=-1, keepdims=True))
    each = np.take_along_axis(log_p, x[..., None].astype(int), axis=-1)
    log_prob = model.log_prob(params, x, context)
    np.testing.assert_allclose(log_prob, each.reshape(20, -1).sum(axis=1), rtol=1e-12)
    bits = -log_prob / np.log(2) / np.prod(model.shape)
    np.testing.assert_allclose(model.bits_per_dim(params, x, context), bits, rtol=1e-12)


def test_the_units_of_a_context_change_neither_probabilities_nor_samples(rng):
    x, context = images(BY_CLASS), rng.normal(2000, 10, (20, 2))
    found = []
    for unit in (1.0, 2.0**-40):
        params = moved(BY_CLASS.init(np.random.default_rng(0), x, unit * context, np.float64))
        samples = BY_CLASS.sample(params, np.random.default_rng(1), 20, unit * context, temperature=0)
        logits = BY_CLASS.logits(params, samples, unit * context)
        np.testing.assert_array_equal(samples, np.argmax(logits, axis=-1))
        found.append((logits, samples))
    assert same_bits(*found)
    assert np.ptp(found[0][0], axis=0).max() > 0.1  # the context matters


def test_logits_depend_on_earlier_numbers_alone():
    model = PixelCNN((3, 4, 3), 5, MaskedConvNet(30, 1, 3))
    params, x = trained(model), images(model, 1)
    before = model.logits(params, x).reshape(-1, 5)
    for number in range(x.size):
        changed = x.copy()
        changed.reshape(-1)[number] = (changed.reshape(-1)[number] + 2) % 5
        after = model.logits(params, changed).reshape(-1, 5)
        np.testing.assert_array_equal(after[: number + 1], before[: number + 1])
        at_a_row_end = (number + 1) % 12 == 0  # the next row begins too far to the left to see it
        assert at_a_row_end or not np.array_equal(after[number + 1], before[number + 1])


def test_a_new_model_is_the_uniform_distribution():
    params = COLOUR.init(np.random.default_rng(0), images(COLOUR))
    np.testing.assert_allclose(COLOUR.bits_per_dim(params, images(COLOUR)), np.log2(5), rtol=1e-6)


def test_the_network_sees_levels_scaled_to_minus_one_to_one():
    model = PixelCNN((1, 1, 256))
    params = {"first": {"weight": np.zeros(1, np.float32)}}
    seen = model._scaled(params, np.arange(256, dtype=np.uint8).reshape(1, 1, 1, 256))
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen.ravel(), np.linspace(-1, 1, 256), atol=1e-6)


@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int32, np.uint64])
def test_any_integer_dtype_is_accepted(kind):
    params = trained(COLOUR)
    expected = COLOUR.log_prob(params, images(COLOUR))
    np.testing.assert_array_equal(COLOUR.log_prob(params, images(COLOUR, dtype=kind)), expected)


# ---------------------------------------------------------------- samples and completions


@pytest.mark.parametrize(("levels", "kind"), [(2, np.uint8), (256, np.uint8), (257, np.uint16)])
def test_samples_are_small_integers_below_the_levels(levels, kind, rng):
    model = PixelCNN((2, 2, 1), levels, TINY)
    samples = model.sample(trained(model, by=1.0), rng, 50)
    assert samples.shape == (50, 2, 2, 1)
    assert samples.dtype == kind
    assert samples.max() < levels
    model.check_batch(samples)


@pytest.mark.parametrize("model", [COLOUR, BY_CLASS])
def test_each_number_is_drawn_from_the_logits_of_the_whole_network(model, monkeypatch, rng):
    params, context = trained(model), classes() if model.context_features else None
    seen, one_by_one = [], MaskedConvNet.one_by_one

    def watched(self, *arguments):
        generator, known = one_by_one(self, *arguments), None
        while True:
            seen.append(generator.send(known))
            known = yield seen[-1]

    monkeypatch.setattr(MaskedConvNet, "one_by_one", watched)
    monkeypatch.setattr(MaskedConvNet, "apply", None)  # no whole pass for each number
    x = model.sample(params, rng, 20, context)
    monkeypatch.undo()
    expected = model.logits(params, x, context)
    np.testing.assert_allclose(np.stack(seen, axis=1).reshape(expected.shape), expected, rtol=0, atol=1e-12)


def test_the_same_generator_state_gives_the_same_samples_in_either_dtype():
    double = trained(COLOUR)
    single = Layout(double).unpack(vector(double).astype(np.float32), double)
    draws = [COLOUR.sample(params, np.random.default_rng(5), 30) for params in (double, double, single)]
    np.testing.assert_array_equal(draws[0], draws[1])
    np.testing.assert_array_equal(draws[0], draws[2])


def test_temperature_zero_draws_the_likeliest_level_and_a_high_one_all_levels(rng):
    params = trained(COLOUR)
    cold = COLOUR.sample(params, rng, 40, temperature=0)
    likeliest = np.argmax(COLOUR.logits(params, cold), axis=-1)
    np.testing.assert_array_equal(cold, likeliest)
    hot = COLOUR.sample(params, rng, 400, temperature=1e4)
    np.testing.assert_allclose(np.bincount(hot.ravel()) / hot.size, 0.2, atol=0.02)
    bits = [COLOUR.bits_per_dim(params, x).mean() for x in (cold, COLOUR.sample(params, rng, 400), hot)]
    assert bits == sorted(bits)


def test_a_completion_keeps_given_rows_and_draws_the_others(rng):
    params, x = trained(COLOUR), images(COLOUR)
    start = x.copy()
    completed = COLOUR.complete(params, rng, x, rows=2)
    np.testing.assert_array_equal(completed[:, :2], x[:, :2])
    assert not np.array_equal(completed[:, 2:], x[:, 2:])
    np.testing.assert_array_equal(x, start)
    np.testing.assert_array_equal(COLOUR.complete(params, rng, x, rows=3), x)


def test_completions_are_drawn_given_the_rows_above(rng):
    model = PixelCNN((2, 1, 1), levels=3, network=TINY)
    params, x = trained(model), np.zeros((40_000, 2, 1, 1), np.uint8)
    x[20_000:, 0] = 2
    drawn = model.complete(params, rng, x, rows=1)[:, 1, 0, 0]
    p = np.exp(model.log_prob(params, all_images(model.shape, 3))).reshape(3, 3)
    for above, part in ((0, drawn[:20_000]), (2, drawn[20_000:])):
        frequency = np.bincount(part, minlength=3) / len(part)
        np.testing.assert_allclose(frequency, p[above] / p[above].sum(), atol=0.02)


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_everything_is_in_the_dtype_of_the_parameters(dtype):
    params, (x, context) = trained(BY_CLASS, dtype), data(BY_CLASS, dtype=dtype)
    assert Layout(params).dtype == dtype
    for result in (
        BY_CLASS.log_prob(params, x, context),
        BY_CLASS.bits_per_dim(params, x, context),
        BY_CLASS.losses(params, x, context),
        BY_CLASS.logits(params, x, context),
        BY_CLASS.loss(params, x, context),
    ):
        assert result.dtype == dtype


def run(model=BY_CLASS, *, seed=0, **options):
    x, *context = data(model, 60, np.float32)
    params = model.init(np.random.default_rng(1), x, *context)
    options = {"steps": 20, "batch_size": 16, "progress": False} | options
    if options.get("validation") is not None and context:
        options["validation_context"] = classes(len(options["validation"]), np.float32)
    return fit(model, params, x, *context, rng=np.random.default_rng(seed), **options)


def test_it_learns_a_distribution_for_each_class(rng):
    model = PixelCNN((3, 4, 1), levels=5, network=MaskedConvNet(8, 1, 3, (8,)), context_features=2)
    label = rng.integers(2, size=400)
    first = rng.integers(5, size=(400, 3, 1, 1))
    step = np.where(label == 0, 1, 4).reshape(
        -1, 1, 1, 1
    )  # each pixel is one level above that at its left, or below
    x = ((first + step * np.arange(4).reshape(1, 1, 4, 1)) % 5).astype(np.uint8)
    context = np.eye(2, dtype=np.float32)[label]
    params = model.init(np.random.default_rng(1), x, context)
    options = {"rng": rng, "steps": 250, "batch_size": 50, "optimizer": Adam(2e-2), "progress": False}
    params, _ = fit(model, params, x, context, **options)
    # Of the four numbers in a row, the first is one of five; the others follow from it.
    assert model.bits_per_dim(params, x, context).mean() == pytest.approx(np.log2(5) / 4, abs=0.05)
    assert model.bits_per_dim(params, x, context[:, ::-1].copy()).mean() > 3
    for value, expected in ((0, 1), (1, 4)):
        asked = np.tile(np.eye(2, dtype=np.float32)[value], (50, 1))
        samples = model.sample(params, rng, 50, asked).astype(int)
        assert np.mean(np.diff(samples, axis=2) % 5 == expected) > 0.95


@pytest.mark.parametrize("model", [COLOUR, BY_CLASS])
def test_training_on_a_device_equals_training_on_the_host(model, device):
    options = {"steps": 8, "average": 0.9, "clip_norm": 1.0, "validation": images(model, 12, seed=4)}
    learned, history = run(model, **options)
    there, history_there = run(model, device=device.name, **options)
    if device.exact:
        assert np.array_equal(vector(there), vector(learned))
        assert history_there.loss == history.loss
    x, *context = data(model, dtype=np.float32)
    params_there, x_there, *context_there = to_device((learned, x, *context), device.name)
    log_prob = model.log_prob(params_there, x_there, *context_there)
    assert_agrees(device, log_prob, model.log_prob(learned, x, *context))
    draws = []
    for params, beside in ((learned, context), (params_there, context_there)):
        draws.append(model.sample(params, np.random.default_rng(0), 20, *beside))
    assert device_of(draws[1]) is device
    assert (draws[1].shape, draws[1].dtype) == (draws[0].shape, draws[0].dtype)
    if device.exact:  # a GPU draws numbers of its own
        assert_agrees(device, draws[1], draws[0])
    assert device_of(model.init(np.random.default_rng(0), x_there, *context_there)) is device
    with pytest.raises(InputError, match="expected all arrays on one device, got"):
        model.log_prob(params_there, x, *context)
    with pytest.raises(InputError, match="expected all arrays on one device, got"):
        model.complete(learned, np.random.default_rng(0), x_there, 1, *context)


# ---------------------------------------------------------------- failures and refusals


def test_a_loss_that_is_not_finite_ends_the_run():
    params = COLOUR.init(np.random.default_rng(0), images(COLOUR))
    params["head"][-1]["bias"][0] = 1e38
    params["head"][-1]["bias"][1] = -3e38
    with pytest.raises(NonFiniteError, match="although parameters and outputs are finite"):
        fit(COLOUR, params, images(COLOUR), rng=np.random.default_rng(0), steps=3, progress=False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"shape": 8}, "PixelCNN's shape as a list or tuple, got 8"),
        ({"shape": (8, 8)}, r"PixelCNN's shape to be \(height, width, channels\), got \(8, 8\)"),
        ({"shape": (8, 0, 1)}, "PixelCNN's shape to be at least 1, got 0"),
        ({"levels": 1}, "PixelCNN's levels to be at least 2, got 1"),
        ({"context_features": -1}, "PixelCNN's context_features to be at least 0, got -1"),
        ({"network": MLP(())}, r"PixelCNN's network to be .* MaskedConvNet, got MLP\("),
    ],
)
def test_invalid_hyper_parameters_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        PixelCNN(**{"shape": (8, 8, 1)} | arguments)


def test_invalid_input_is_refused(rng):
    params, x = trained(COLOUR), images(COLOUR)
    too_bright = x.copy()
    too_bright[3, 1, 2, 0] = 5
    below = x.astype(np.int8)
    below[1, 0, 0, 2] = -1
    conditional, context = trained(BY_CLASS), classes()
    y = images(BY_CLASS)
    quiet = {"rng": rng, "steps": 1, "progress": False}
    for call, sentence in (
        (lambda: COLOUR.log_prob(params, x / 4), "expected x as integers from 0 to 4, got float64"),
        (lambda: COLOUR.log_prob(params, [0, [1]]), "expected x as integers from 0 to 4, got a list"),
        (lambda: COLOUR.log_prob(params, x[..., :1]), "expected x with rows of shape (3, 4, 3)"),
        (
            lambda: BY_CLASS.init(rng, y[..., 0], context, np.float64),
            "got shape (20, 3, 4); add an axis for the channels: x[..., None]",
        ),
        (lambda: COLOUR.log_prob(params, x[:0]), "expected x to have at least one row and one value in each"),
        (lambda: COLOUR.log_prob(params, too_bright), "0 to 4, got 5 in row 3, at index (1, 2, 0)"),
        (lambda: fit(COLOUR, params, below, **quiet), "got -1 in row 1, at index"),
        (
            lambda: fit(COLOUR, params, x, validation=too_bright, **quiet),
            "expected validation as integers from 0 to 4, got 5 in row 3",
        ),
        (lambda: COLOUR.log_prob(params, x, context), "no context for a PixelCNN with context_features=0"),
        (lambda: BY_CLASS.log_prob(conditional, y), "expected a context of 2 features for each of"),
        (lambda: BY_CLASS.log_prob(conditional, y, context[:5]), "row of context for each of 20 rows, got 5"),
        (lambda: BY_CLASS.init(rng, y, context), "expected context in float32, the dtype of the parameters"),
        (lambda: COLOUR.log_prob(conditional, x), "expected the parameters of this PixelCNN"),
        (lambda: COLOUR.check(VAE(3).init(rng, rng.standard_normal((5, 3)))), "parameters of this PixelCNN"),
        (lambda: COLOUR.init(rng, x, dtype=np.float16), "parameters' dtype to be float32 or float64"),
        (lambda: COLOUR.init(0, x), "expected rng to be a numpy.random.Generator, got an int"),
        (lambda: COLOUR.sample(params, 0, 3), "expected rng to be a numpy.random.Generator, got an int"),
        (lambda: COLOUR.sample(params, rng, 0), "expected the number of samples to be at least 1, got 0"),
        (
            lambda: COLOUR.sample(params, rng, 1, temperature=-1),
            "expected temperature to be a finite number at least 0, got -1",
        ),
        (lambda: COLOUR.complete(params, rng, x, 4), "rows to be at most 3, got 4"),
    ):
        assert sentence in refusal(call)
