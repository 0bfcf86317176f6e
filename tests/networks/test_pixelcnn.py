"""The network of PixelCNN: what its outputs depend on, and evaluation one number at a time."""

import itertools

import autograd
import numpy as np
import pytest
from helpers import perturbed
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout
from npflow.errors import InputError
from npflow.networks import MaskedConvNet, pixelcnn

few = settings(max_examples=15, deadline=None)
networks = st.builds(
    MaskedConvNet,
    features=st.integers(1, 7),
    blocks=st.integers(0, 2),
    kernel=st.sampled_from([1, 3, 5]),
    head=st.lists(st.integers(1, 6), max_size=2),
)
shapes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def draw(shape, conditioned, rows=1):
    """Images, and their context or None."""
    rng = np.random.default_rng(sum(shape))
    return rng.standard_normal((rows, *shape)), rng.standard_normal((rows, 2)) if conditioned else None


def jacobian(network, params, x, context=None):
    """The Jacobian of one image's outputs, shape (x.size, outputs of a number, x.size)."""
    outputs = autograd.jacobian(lambda image: network.apply(params, image[None], context)[0])(x[0])
    return outputs.reshape(x.size, -1, x.size)


# ---------------------------------------------------------------- dependencies


@few
@given(networks, shapes, st.booleans(), st.integers(0, 100))
def test_outputs_do_not_depend_on_their_own_number_or_later_ones(network, shape, conditioned, number):
    x, context = draw(shape, conditioned)
    params = perturbed(network, x, 2 * shape[-1], context)
    number, changed = number % x.size, x.copy()
    changed.reshape(-1)[number:] += 1
    before, after = (network.apply(params, image, context).reshape(x.size, 2) for image in (x, changed))
    np.testing.assert_array_equal(after[: number + 1], before[: number + 1])


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("kernel", "blocks"), [(7, 0), (3, 3)])
def test_outputs_depend_on_all_numbers_before_them_outside_the_blind_spot(kernel, blocks, channels):
    network, (x, _) = MaskedConvNet(30, blocks, kernel), draw((4, 4, channels), False)
    seen = np.any(jacobian(network, perturbed(network, x, channels), x) != 0, axis=1)
    before = np.tril(np.ones((x.size, x.size), bool), -1)
    assert not np.any(seen & ~before)
    rows, columns, _ = np.indices(x.shape[1:]).reshape(3, -1)
    up, aside = rows[:, None] - rows, columns - columns[:, None]  # from an output to a number
    # Stacked 3 x 3 kernels reach as far to the right as up; the blind spot is further to the right.
    visible = aside <= up * (1 if kernel == 3 else 3)
    np.testing.assert_array_equal(seen, before & visible)


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_each_block_lets_an_output_see_one_pixel_further(blocks):
    network, (x, _) = MaskedConvNet(30, blocks, kernel=3), draw((1, 9, 1), False)
    seen = np.any(jacobian(network, perturbed(network, x, 1), x)[-1] != 0, axis=0)
    np.testing.assert_array_equal(np.flatnonzero(seen), np.arange(8)[-1 - blocks :])


def test_every_output_depends_on_the_context():
    network, (x, context) = MaskedConvNet(6, 1, 3), draw((2, 2, 2), True)
    params = perturbed(network, x, 4, context)
    slopes = autograd.jacobian(lambda row: network.apply(params, x, row[None]))(context[0])
    assert np.all(slopes != 0)


# ---------------------------------------------------------------- one by one


@few
@given(networks, shapes, st.booleans(), st.integers(1, 3))
def test_one_by_one_gives_the_outputs_of_one_pass(network, shape, conditioned, rows):
    x, context = draw(shape, conditioned, rows)
    params = perturbed(network, x, 2 * shape[-1], context, by=0.2)
    expected = network.apply(params, x, context).reshape(*x.shape, 2)
    generator, known = network.one_by_one(params, x, context), None
    for i, j, k in itertools.product(*map(range, shape)):
        outputs = generator.send(known)
        np.testing.assert_allclose(outputs, expected[:, i, j, k], rtol=1e-12, atol=1e-12)
        known = x[:, i, j, k : k + 1]


def test_one_by_one_takes_the_multiplications_of_one_pass(monkeypatch):
    network, (x, _) = MaskedConvNet(6, 2, 5, (9,)), draw((4, 5, 3), False, rows=2)
    params = perturbed(network, x, 12)
    weights = [leaf.shape for leaf in Layout(params).leaves if leaf.path.endswith("weight")]
    counts, output = [], pixelcnn.Seen.output

    def counted(self, place):
        counts.append(len(x) * self.weights[place[1]].size)
        return output(self, place)

    monkeypatch.setattr(pixelcnn.Seen, "output", counted)
    monkeypatch.setattr(pixelcnn, "masked_convolution", None)  # one_by_one must not use it
    generator, known = network.one_by_one(params, x), None
    for i, j, k in itertools.product(*map(range, x.shape[1:])):
        generator.send(known)
        known = x[:, i, j, k : k + 1]
    assert sum(counts) == 2 * 4 * 5 * sum(map(np.prod, weights))


# ---------------------------------------------------------------- initialization and refusals


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("conditioned", [False, True])
def test_a_new_network_gives_zeros_in_the_dtype_of_its_input(conditioned, dtype):
    x, context = draw((3, 2, 2), conditioned)
    x, context = x.astype(dtype), None if context is None else context.astype(dtype)
    params = MaskedConvNet().init(np.random.default_rng(0), x, 8, context)
    assert Layout(params).dtype == dtype
    outputs = MaskedConvNet().apply(params, x, context)
    np.testing.assert_array_equal(outputs, np.zeros((1, 3, 2, 8), dtype), strict=True)
    generator = MaskedConvNet().one_by_one(params, x, context)
    np.testing.assert_array_equal(next(generator), np.zeros((1, 4), dtype), strict=True)


@pytest.mark.parametrize("blocks", [0, 1, 12])
def test_any_number_of_blocks_keeps_the_size_of_h(blocks):
    network, rng = MaskedConvNet(40, blocks, 3, ()), np.random.default_rng(0)
    x = rng.standard_normal((4, 6, 6, 1))
    params = network.init(rng, x, 80)  # as many outputs as features
    params["head"][0]["weight"][0] = np.eye(80)
    before, behind = (np.mean(network.apply(p, x) ** 2) for p in (params | {"blocks": []}, params))
    assert 0.3 < before < 2
    assert before <= behind < 4 * before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"features": 0}, "MaskedConvNet's features to be at least 1, got 0"),
        ({"blocks": -1}, "MaskedConvNet's blocks to be at least 0, got -1"),
        ({"kernel": 4}, "MaskedConvNet's kernel to be an odd number, got 4"),
        ({"kernel": 3.0}, "MaskedConvNet's kernel to be an integer, got 3.0"),
        ({"head": 8}, "MaskedConvNet's head as a list or tuple, got 8"),
    ],
)
def test_invalid_hyper_parameters_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        MaskedConvNet(**arguments)


def test_invalid_input_is_refused():
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match=r"images of shape .* for MaskedConvNet, got shape \(2, 3\)"):
        MaskedConvNet().init(rng, np.zeros((2, 3)), 3)
    with pytest.raises(InputError, match=r"a multiple of 3 channels as outputs .*, got 7"):
        MaskedConvNet().init(rng, np.zeros((2, 4, 4, 3)), 7)


def test_a_missing_or_unexpected_context_is_refused():
    network, (x, context) = MaskedConvNet(2, 1, 3), draw((2, 2, 1), True)
    for made, passed, sentence in (
        (context, None, "expected a context, .* got none"),
        (None, context, "expected no context, .* got one"),
    ):
        params = network.init(np.random.default_rng(0), x, 3, made)
        for call in (lambda p, c: network.apply(p, x, c), lambda p, c: next(network.one_by_one(p, x, c))):
            with pytest.raises(InputError, match=sentence):
                call(params, passed)
