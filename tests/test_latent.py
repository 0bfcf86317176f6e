"""Arithmetic on z: what is added arrives, what lies between does, and samples go from one data set to another."""

import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal

from npflow import Dequantized, Flow, datasets, fit, latent, to_device
from npflow.layers import ActNorm, Affine, AffineCoupling, Chain, Reverse
from npflow.models import real_nvp
from npflow.networks import MLP
from npflow.priors import Logistic, Normal
from npflow.training import Adam

small = MLP((8,), "tanh")


def affine(mean, std, dtype=np.float64):
    """A flow whose z is the standardized x, and its parameters."""
    params = {"mean": np.array(mean, dtype), "log_std": np.log(np.array(std, dtype))}
    return Flow(Affine(), Normal(len(mean))), {"layer": params, "prior": {}}


def a_flow(rng, dtype=np.float64, context_features=0):
    """A flow with parameters away from their start, rows and contexts."""
    x = rng.normal(2, 3, (40, 3)).astype(dtype)
    context = rng.normal(size=(40, context_features)).astype(dtype) if context_features else None
    flow = real_nvp(3, 2, small, context_features=context_features)
    return flow, moved(flow.init(rng, x, context), rng), x, context


# ---------------------------------------------------------------- attributes


def test_the_vector_is_the_difference_of_the_mean_codes(rng):
    flow, params = affine([1.0, 2.0], [2.0, 0.5])
    a, b = rng.normal(size=(30, 2)), rng.normal(size=(20, 2))
    expected = (a.mean(axis=0) - b.mean(axis=0)) / [2.0, 0.5]
    np.testing.assert_allclose(latent.attribute_vector(flow, params, a, b), expected, rtol=1e-12)


@pytest.mark.parametrize("context_features", [0, 2])
def test_a_vector_that_is_added_is_in_the_code_and_can_be_taken_away_again(context_features, rng):
    flow, params, x, context = a_flow(rng, context_features=context_features)
    vector = np.array([0.5, -1.0, 2.0])
    changed = latent.add_attribute(flow, params, x, vector, 1.5, context=context)
    z = flow.encode(params, x, context)
    np.testing.assert_allclose(flow.encode(params, changed, context), z + 1.5 * vector, rtol=1e-9)
    back = latent.add_attribute(flow, params, changed, vector, -1.5, context=context)
    np.testing.assert_allclose(back, x, rtol=1e-9)
    np.testing.assert_allclose(
        latent.add_attribute(flow, params, x, vector, 0, context=context), x, rtol=1e-9
    )


def test_an_attribute_moves_the_mean_code_of_one_set_to_that_of_the_other(rng):
    flow, params, x, _ = a_flow(rng)
    a, b = x[:15], x[15:]
    changed = latent.add_attribute(flow, params, b, latent.attribute_vector(flow, params, a, b))
    codes = flow.encode(params, changed), flow.encode(params, a)
    np.testing.assert_allclose(codes[0].mean(axis=0), codes[1].mean(axis=0), rtol=1e-9)


def test_a_context_of_one_row_is_every_rows(rng):
    flow, params, x, context = a_flow(rng, context_features=2)
    one, every = context[0], np.repeat(context[:1], len(x), axis=0)
    other = context[1], np.repeat(context[1:2], len(x), axis=0)
    for call in (
        lambda c, d: latent.attribute_vector(flow, params, x, x + 1, context_a=c, context_b=d),
        lambda c, d: latent.add_attribute(flow, params, x, np.ones(3), context=c),
        lambda c, d: latent.interpolate(flow, params, x, x + 1, [0.3], context_a=c, context_b=d),
        lambda c, d: latent.translate(x, (flow, params, c), (flow, params, d)),
    ):
        assert np.array_equal(call(one, other[0]), call(every, other[1]))


# ---------------------------------------------------------------- between


@pytest.mark.parametrize("context_features", [0, 2])
def test_the_ends_of_an_interpolation_are_the_samples_and_its_codes_lie_on_a_line(context_features, rng):
    flow, params, x, context = a_flow(rng, context_features=context_features)
    a, b, contexts = x[:20], x[20:], {}
    if context_features:
        contexts = {"context_a": context[:20], "context_b": context[20:]}
    between = latent.interpolate(flow, params, a, b, [0, 0.25, 1], **contexts)
    assert between.shape == (3, 20, 3)
    np.testing.assert_allclose(between[0], a, rtol=1e-9)
    np.testing.assert_allclose(between[2], b, rtol=1e-9)
    c = [contexts.get(name) for name in ("context_a", "context_b")]
    middle = None if c[0] is None else 0.75 * c[0] + 0.25 * c[1]
    expected = 0.75 * flow.encode(params, a, c[0]) + 0.25 * flow.encode(params, b, c[1])
    np.testing.assert_allclose(flow.encode(params, between[1], middle), expected, rtol=1e-9)


# ---------------------------------------------------------------- from one data set to another


def test_a_translation_between_two_normals_is_the_affine_map_between_them(rng):
    x = rng.normal([1.0, -5.0], [2.0, 0.1], (50, 2))
    there = latent.translate(x, affine([1.0, -5.0], [2.0, 0.1]), affine([0.0, 3.0], [1.0, 7.0]))
    np.testing.assert_allclose(there, (x - [1.0, -5.0]) / [2.0, 0.1] * [1.0, 7.0] + [0.0, 3.0], rtol=1e-9)


def test_there_and_back_is_where_it_was(rng):
    flow, params, x, context = a_flow(rng, context_features=2)
    source, target = (flow, params, context), (flow, params, -context)
    there = latent.translate(x, source, target)
    assert np.abs(there - x).max() > 0.1
    np.testing.assert_allclose(latent.translate(there, target, source), x, rtol=1e-9)
    assert np.array_equal(latent.translate(x, source=source, target=target), there)


def test_two_flows_carry_one_data_set_into_the_other(rng):
    sets = [datasets.moons(1000, rng=rng), datasets.circles(1000, rng=rng)]
    flow = Flow(Chain([ActNorm(), *[AffineCoupling(MLP((32,))), Reverse()] * 6]), Normal(2))
    sides = []
    for x in sets:
        params = flow.init(np.random.default_rng(1), x)
        params, _ = fit(
            flow, params, x, rng=rng, steps=200, batch_size=128, optimizer=Adam(1e-2), progress=False
        )
        sides.append((flow, params))
    there = latent.translate(sets[0], *sides)

    def log_density(side, x):
        return np.median(side[0].log_prob(side[1], x))

    assert log_density(sides[1], there) > log_density(sides[1], sets[0]) + 0.3
    assert log_density(sides[1], there) == pytest.approx(log_density(sides[1], sets[1]), abs=0.7)


# ---------------------------------------------------------------- integers


def test_a_dequantized_flow_encodes_the_middle_of_cells_and_decodes_integers(rng):
    model = Dequantized(real_nvp(3, 2, small), levels=16)
    x = rng.integers(16, size=(40, 3), dtype=np.uint8)
    params = model.init(rng, x)
    a, b = x[:20], x[20:]
    middle = lambda x: ((x + 0.5) / 16).astype(np.float32)
    vector = latent.attribute_vector(model, params, a, b)
    assert np.array_equal(vector, latent.attribute_vector(model.flow, params, middle(a), middle(b)))
    changed = latent.add_attribute(model, params, b, vector)
    assert np.array_equal(
        changed, model.quantize(latent.add_attribute(model.flow, params, middle(b), vector))
    )
    assert changed.dtype == np.uint8
    assert (changed != b).any()
    between = latent.interpolate(model, params, a, b, [0, 0.5, 1])
    assert np.array_equal(between[[0, 2]], [a, b])
    assert np.array_equal(latent.translate(x, (model, params), (model, params)), x)
    words = refusal(latent.interpolate, model, params, a, middle(b), [0])
    assert "b as integers from 0 to 15, got float32" in words


# ---------------------------------------------------------------- dtypes, devices, refusals


def test_float32_is_kept(rng):
    flow, params, x, context = a_flow(rng, np.float32, 2)
    vector = latent.attribute_vector(flow, params, x, x + 1, context_a=context, context_b=context)
    side = flow, params, context[0]
    results = [
        vector,
        latent.add_attribute(flow, params, x, vector, np.float64(0.5), context=context),
        latent.add_attribute(flow, params, x, vector.tolist(), context=context),
        latent.interpolate(
            flow, params, x, x, np.linspace(0, 1, 3), context_a=context[0], context_b=context[1]
        ),
        latent.translate(x, side, side),
    ]
    assert {result.dtype for result in results} == {np.dtype(np.float32)}


def test_on_a_device_it_is_what_it_is_on_the_host(device, rng):
    flow, params, x, context = a_flow(rng, np.float32, 2)

    def results(params, x, context):
        vector = latent.attribute_vector(flow, params, x, x + 1, context_a=context, context_b=context[0])
        return {
            "vector": vector,
            "moved": latent.add_attribute(flow, params, x, vector, 0.5, context=context),
            "between": latent.interpolate(
                flow, params, x, x + 1, [0.5], context_a=context, context_b=context[0]
            ),
            "there": latent.translate(x, (flow, params, context), (flow, params, context[0])),
        }

    expected = results(params, x, context)
    assert_agrees(device, results(*to_device((params, x, context), device.name)), expected)


def test_bad_input_gets_a_sentence(rng):
    flow, params, x, _ = a_flow(rng)
    conditional, conditional_params, *_ = a_flow(rng, context_features=2)
    other = Flow(flow.layer, Logistic(3))
    trained = Flow(Affine(), Normal(3, trained=True))
    first, second = trained.init(rng, x), trained.init(rng, x)
    second["prior"]["mean"] += 1
    ones = np.ones(3)
    for call, words in (
        (lambda: latent.attribute_vector(None, params, x, x), "a Flow or a Dequantized flow, got None"),
        (lambda: latent.attribute_vector(flow, params, x, x[:, :2]), "b with rows of 3 features"),
        (lambda: latent.attribute_vector(flow, params, x * np.nan, x), "a to be finite, got nan in row 0"),
        (lambda: latent.attribute_vector(flow, params, x, x, context_a=ones), "no context for a flow"),
        (lambda: latent.attribute_vector(conditional, conditional_params, x, x), "a context of 2 features"),
        (lambda: latent.add_attribute(flow, params, x, np.ones(2)), "vector of shape (3,)"),
        (lambda: latent.add_attribute(flow, params, x, ones * np.inf), "vector to be finite, got inf"),
        (lambda: latent.add_attribute(flow, params, x, ones.astype(np.float32)), "vector in float64"),
        (lambda: latent.add_attribute(flow, params, x, ones, "1"), "strength to be a number, got '1'"),
        (lambda: latent.interpolate(flow, params, x, x[:5], [0]), "a row of b for each of 40 rows of a"),
        (lambda: latent.interpolate(flow, params, x, x, []), "at least one share, got none"),
        (lambda: latent.interpolate(flow, params, x, x, 0.5), "shares as a list or tuple, got 0.5"),
        (lambda: latent.translate(x, flow, (flow, params)), "the source as a list or tuple, got a Flow"),
        (lambda: latent.translate(x, (flow, params), (flow,)), "the target as (flow, params)"),
        (
            lambda: latent.translate(x, (flow, params), (other, params)),
            "a source and a target with one prior",
        ),
        (lambda: latent.translate(x, (trained, first), (trained, second)), "got priors"),
        (lambda: latent.translate(x, (flow, params), (flow, params, np.ones(2))), "no context for a flow"),
        (lambda: latent.translate(x, (flow, params), (flow, {})), "the parameters of a flow"),
    ):
        assert words in refusal(call)
    assert np.array_equal(latent.translate(x, (trained, first), (trained, first)), x)


@pytest.mark.filterwarnings("error")
def test_a_strength_that_the_dtype_cannot_hold_gets_a_sentence(rng):
    flow, params, x, context = a_flow(rng, np.float32, 2)
    words = refusal(latent.add_attribute, flow, params, x, x[0], 1e300, context=context)
    assert words == "expected strength in the range of float32, got 1e+300"
