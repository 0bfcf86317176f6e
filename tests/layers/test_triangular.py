"""Inverses of triangular maps by a fixed-point iteration, and their derivatives."""

import itertools

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import record, tree, value_and_grad
from npflow.autodiff.gpu import devices
from npflow.autodiff.primitives import elu, elu_slope, linear
from npflow.errors import ConvergenceError
from npflow.layers import MaskedConvolution
from npflow.layers import masked_convolution as triangular
from npflow.layers.masked_convolution import invert_triangular
from npflow.verify.jacobians import by_autograd

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=20, deadline=None)
seeds = st.integers(0, 2**32)


def convex(x, t, steepness, weight):
    """Each component's own convex function, and what bounded functions of those before it add."""
    value = t * x + steepness * elu(x) + linear(anp.tanh(x), weight)
    return value, t + steepness * elu_slope(x)


def arrays(seed=0, features=5, spread=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    t, steepness = np.exp(spread * rng.standard_normal((2, features)))
    weight = np.triu(rng.standard_normal((features, features)), 1)
    return [array.astype(dtype) for array in (t, steepness, weight)]


def rows(n=7, features=5, seed=1, dtype=np.float64):
    return (3 * np.random.default_rng(seed).standard_normal((n, features))).astype(dtype)


@every_dtype
@few
@given(seed=seeds, features=st.integers(1, 12), spread=st.floats(0, 3))
def test_there_and_back_is_where_it_started(dtype, seed, features, spread):
    map_arrays, x = arrays(seed, features, spread, dtype), rows(5, features, seed, dtype)
    z, d = convex(x, *map_arrays)
    back = invert_triangular(convex, z, *map_arrays)
    assert back.dtype == dtype
    again, _ = convex(back, *map_arrays)
    # As near as the numbers that f(x) is made of let it be; the rest is up to how steep f is.
    resolution = np.finfo(dtype).eps * (1 + np.abs(z) + d * np.abs(x) + np.abs(map_arrays[2]).sum(axis=0))
    assert np.max(np.abs(again - z) / resolution) < 100


@few
@given(seed=seeds, start=st.floats(-1e6, 1e6))
def test_from_the_second_step_on_each_divides_residual_times_slope_by_four(seed, start):
    """What makes the iteration converge from anywhere, as the module's docstring has it."""
    t, steepness = np.exp(2 * np.random.default_rng(seed).standard_normal(2))
    x, products = np.array([[start]]), []
    for _ in range(60):
        value, slope = convex(x, t, steepness, np.zeros((1, 1)))  # the target is 0
        products.append((value * slope).item())
        x = x - value / slope
    rounding = 1e-12 * (1 + np.max(np.abs(products)))
    assert min(products[1:]) > -rounding  # never on the other side again
    for before, after in itertools.pairwise(products[1:]):
        assert after <= before / 4 + rounding


def test_components_settle_from_anywhere_and_long_before_the_steps_are_used_up(monkeypatch):
    counts = []

    def counting(x, *arrays):
        counts[-1] += 1
        return convex(x, *arrays)

    for seed in range(20):
        counts.append(0)
        invert_triangular(counting, 1e3 * rows(features=30, seed=seed), *arrays(seed, 30, 2.0))
    assert max(counts) < triangular.PATIENCE


@every_dtype
def test_what_is_thrown_far_out_on_the_way_does_not_overflow(dtype):
    """The second component starts far off, and throws each after it further: infinitely far, were there no limit."""
    far = dtype(1e8 if dtype == np.float32 else 1e40)
    chain = lambda x: (x + far * anp.concatenate([0 * x[:, :1], x[:, :-1]], axis=1), np.ones_like(x))
    x = np.eye(1, 12, dtype=dtype)
    np.testing.assert_array_equal(invert_triangular(chain, chain(x)[0]), x)


def test_a_row_does_not_depend_on_the_others():
    map_arrays, z = arrays(spread=2.0), 10 * rows()
    together = invert_triangular(convex, z, *map_arrays)
    for row, expected in zip(z, together):
        np.testing.assert_allclose(invert_triangular(convex, row[None], *map_arrays)[0], expected, rtol=1e-13)


# ---------------------------------------------------------------- what cannot be found


def bent(x):
    """A function of one number whose slope rises and falls: from afar Newton's method goes from end to end."""
    return anp.arctan(x - 3) + 1e-3 * x, 1 / (1 + (x - 3) ** 2) + 1e-3


BENT = np.array([[-1.34], [0.0], [-1.3]])  # it starts there too: near to what is looked for, far off, near


@every_dtype
def test_what_is_not_found_is_an_error_that_says_by_how_much(dtype):
    z = BENT.astype(dtype)
    message = (
        r"expected the inverse of a triangular map to settle, got a residual of 3\.1\d? after \d+ steps, "
        "the last 50 of them in vain"
    )
    with pytest.raises(ConvergenceError, match=message):
        invert_triangular(bent, z)
    found = invert_triangular(bent, z[[0, 2]])
    np.testing.assert_allclose(bent(found)[0], z[[0, 2]], atol=1e-6)


def test_on_a_device_a_row_that_is_not_found_is_nan_and_nobody_waits(device):
    z = devices.to_device(BENT, device.name)
    with stand_in.counted() as transfers:
        x = invert_triangular(bent, z)
    assert transfers == stand_in.Transfers(0, 0)
    found = devices.to_host(x)
    np.testing.assert_array_equal(np.isnan(found[:, 0]), [False, True, False])
    np.testing.assert_allclose(bent(found)[0][[0, 2]], BENT[[0, 2]], atol=1e-9)


def test_numbers_that_are_not_finite_stay_in_their_row():
    map_arrays, z = arrays(), rows(3)
    expected = invert_triangular(convex, z, *map_arrays)
    z[1, 2] = np.nan
    x = invert_triangular(convex, z, *map_arrays)
    np.testing.assert_allclose(x[[0, 2]], expected[[0, 2]], rtol=1e-12)
    assert np.isnan(x[1, 2])


# ---------------------------------------------------------------- derivatives


@every_dtype
def test_its_jacobian_is_the_inverse_of_the_maps(dtype):
    map_arrays, x = arrays(dtype=dtype), rows(dtype=dtype)
    z, _ = convex(x, *map_arrays)
    there = by_autograd(lambda x: convex(x, *map_arrays)[0], x)
    back = by_autograd(lambda z: invert_triangular(convex, z, *map_arrays), z)
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(there @ back, np.broadcast_to(np.eye(5), there.shape), atol=tolerance)


@every_dtype
def test_gradients_in_z_and_in_the_maps_parameters_are_those_of_finite_differences(dtype):
    weights = np.random.default_rng(2).standard_normal((7, 5))
    params = dict(zip(("z", "t", "steepness", "weight"), (rows(), *arrays())))
    found = lambda p: invert_triangular(convex, p["z"], p["t"], p["steepness"], p["weight"])
    total = lambda params: anp.sum(weights.astype(params["z"].dtype) * found(params))
    _, gradient = value_and_grad(total)({name: value.astype(dtype) for name, value in params.items()})
    for name, value in params.items():
        way = np.random.default_rng(3).standard_normal(value.shape)
        way = np.triu(way, 1) if name == "weight" else way
        high, low = (total(params | {name: value + step * way}) for step in (1e-5, -1e-5))
        assert gradient[name].dtype == dtype
        tolerance = 1e-7 if dtype == np.float64 else 1e-3
        np.testing.assert_allclose(np.sum(gradient[name] * way), (high - low) / 2e-5, rtol=tolerance)


def test_small_gradients_have_as_many_digits_as_large_ones():
    map_arrays, z = arrays(), rows()
    loss = lambda scale: lambda z: scale * anp.sum(anp.sin(invert_triangular(convex, z, *map_arrays)))
    large, small = (value_and_grad(loss(scale))(z)[1] for scale in (1.0, 1e-30))
    np.testing.assert_allclose(small, 1e-30 * large, rtol=1e-12)


def test_a_program_has_its_gradient():
    z = rows()
    loss = lambda params, z: anp.sum(anp.sin(invert_triangular(convex, z, *params)))
    program = record(loss, arrays(), z)
    for seed in (0, 4):
        params = arrays(seed)
        value, gradient = value_and_grad(loss)(params, z)
        got, vector = program(params, z)
        assert got == value
        np.testing.assert_array_equal(vector, np.concatenate([leaf.ravel() for leaf in gradient]))


@pytest.mark.parametrize("outer", [lambda g: anp.sum(g**2), anp.sum])
@pytest.mark.parametrize("inner", [lambda x: anp.sum(x**2), anp.sum])
def test_second_derivatives_are_refused(inner, outer):
    """Also where g does not depend on z: the derivative does, by x."""
    total = lambda z: inner(invert_triangular(convex, z, *arrays()))
    with pytest.raises(NotImplementedError, match="_solve_transposed"):
        autograd.grad(lambda z: outer(autograd.grad(total)(z)))(rows())


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_gradient_of_one_number_is_found_in_few_steps(dtype, monkeypatch):
    """Most of its g is 0, of which rounding is no share."""
    layer, rng = MaskedConvolution(4), np.random.default_rng(0)
    z = rng.standard_normal((16, 8, 8, 1)).astype(dtype)
    params = tree.build(
        lambda _, leaf: leaf + rng.standard_normal(leaf.shape).astype(dtype), layer.init(rng, z)
    )
    settle, counts = triangular._settle, []

    def counted(fun, *arguments, **options):
        counts.append(0)

        def step(x):
            counts[-1] += 1
            return fun(x)

        return settle(step, *arguments, **options)

    monkeypatch.setattr(triangular, "_settle", counted)
    autograd.grad(lambda z: anp.sum(layer.inverse(params, z)[0][:, -1, -1]))(z)
    assert len(counts) == 2
    assert max(counts) < 2 * triangular.PATIENCE


def test_components_that_settle_one_after_another_are_waited_for():
    """Each is thrown off by the one before it until that is found: 400 components take hundreds of steps."""
    taken = []

    def chain(x):
        taken.append(x)
        before = np.concatenate([0 * x[:, :1], np.sin(5 * x[:, :-1])], axis=1)
        return x + elu(3 * x) + 2 * before, 1 + 3 * elu_slope(3 * x)

    z, _ = chain(np.random.default_rng(0).standard_normal((2, 400)))
    found = invert_triangular(chain, z)
    assert len(taken) > 4 * triangular.PATIENCE
    np.testing.assert_allclose(chain(found)[0], z, atol=1e-12)


def test_a_number_that_turns_nan_on_the_way_is_not_taken_for_found():
    def edge(x):
        """x - 1, as far as 3, with a slope that leads beyond."""
        return anp.where(x > 3, anp.nan, x - 1), 0.1 + 0 * x

    with pytest.raises(ConvergenceError, match="got a residual of nan"):
        invert_triangular(edge, np.zeros((2, 1)))
