"""MintNet's layer: masked convolutions with a triangular Jacobian, and the inverse of any triangular map."""

import itertools

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from helpers import moved as moved_params
from helpers import refusal, rows
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import Flow
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.gpu import devices
from npflow.autodiff.primitives import elu, elu_slope, linear
from npflow.errors import ConvergenceError
from npflow.layers import Inverse, MaskedConvolution, masked_convolution
from npflow.layers.masked_convolution import invert_triangular
from npflow.priors import Normal
from npflow.verify.jacobians import by_autograd

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
few = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32)
every_order = pytest.mark.parametrize("order", ["raster", "reversed"])


def images(*shape, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).normal(0.5, 1.5, shape).astype(dtype)


def moved(layer, x, noise=0.3, seed=0):
    """Parameters away from where they start, by noise that is the smaller, the more inputs a sum has."""
    rng = np.random.default_rng(seed)
    params = layer.init(rng, x)
    for part in params["convolutions"]:
        for name, inputs in (("lower", part["lower"][..., 0].size), ("diagonal", 1), ("bias", 1)):
            part[name] += (noise / np.sqrt(inputs) * rng.standard_normal(part[name].shape)).astype(x.dtype)
    params["log_scale"] += (noise * rng.standard_normal(x.shape[1:])).astype(x.dtype)
    return params


# ---------------------------------------------------------------- the formula


def triangular_matrix(part, height, width, channels):
    """L + D of a convolution as a matrix on whole images, from the definition, weight by weight."""
    _, inputs, outputs = part["lower"].shape
    matrix = np.zeros((height, width, inputs, height, width, outputs))
    for (i, j), (k, m) in itertools.product(np.ndindex(height, width), repeat=2):
        place = 3 * (i - k + 1) + j - m + 1  # where in the kernel around (k, m) the pixel (i, j) is
        for a, b in np.ndindex(inputs, outputs):
            here, there = (i, j, a * channels // inputs), (k, m, b * channels // outputs)
            if here < there and max(abs(i - k), abs(j - m)) <= 1:
                matrix[i, j, a, k, m, b] = part["lower"][place, a, b]
            if here == there:
                matrix[i, j, a, k, m, b] = np.log1p(np.exp(part["diagonal"][a, b]))
    return matrix.reshape(height * width * inputs, -1)


def test_it_is_the_papers_formula_with_matrices_that_are_triangular():
    layer, x = MaskedConvolution(filters=2), images(4, 3, 3, 2)
    params = moved(layer, x)
    h = flat = x.reshape(4, -1)
    for number, part in enumerate(params["convolutions"]):
        h = h @ triangular_matrix(part, 3, 3, 2) + np.tile(part["bias"], 9)
        h = np.where((h > 0) | (number == 2), h, np.exp(h) - 1)
    expected = np.exp(params["log_scale"]).ravel() * flat + h
    z, _ = layer.forward(params, x)
    np.testing.assert_allclose(z.reshape(4, -1), expected, rtol=1e-10, atol=1e-10)


@every_order
def test_the_jacobian_is_triangular_and_positive_on_the_diagonal(order):
    layer, x = MaskedConvolution(3, order), images(4, 3, 4, 2)
    params = moved(layer, x)
    jacobians = by_autograd(lambda x: layer.forward(params, x)[0], x)
    before = np.tril if order == "raster" else np.triu
    np.testing.assert_array_equal(jacobians, before(jacobians))
    diagonals = np.diagonal(jacobians, axis1=1, axis2=2)
    assert (diagonals > 0).all()
    np.testing.assert_allclose(layer.log_det(params, x), np.log(diagonals).sum(axis=1), rtol=1e-12)


def test_the_reversed_order_is_that_of_the_image_upside_down():
    x = images(5, 3, 2, 3)
    layer, other = MaskedConvolution(4), MaskedConvolution(4, "reversed")
    params = moved(layer, x)
    turn = lambda x: -x.reshape(len(x), -1)[:, ::-1].reshape(x.shape)
    params["log_scale"][...] = 0.3
    z, log_det = layer.forward(params, turn(x))
    expected, expected_log_det = other.forward(params, x)
    np.testing.assert_array_equal(turn(z), expected)
    np.testing.assert_allclose(log_det, expected_log_det)


@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_each_component_is_convex_in_itself_and_reversed_concave(seed):
    """The iteration of the inverse converges from any start for this reason."""
    x = images(1, 2, 2, 2, seed=seed)
    for order, sign in (("raster", 1), ("reversed", -1)):
        layer = MaskedConvolution(3, order)
        params = moved(layer, x, noise=1.0, seed=seed)
        for at in np.ndindex(x.shape[1:]):
            line = np.repeat(x, 41, axis=0)
            line[(slice(None), *at)] = np.linspace(-8, 8, 41)
            z = layer.forward(params, line)[0][(slice(None), *at)]
            assert (np.diff(z) > 0).all()
            assert (sign * np.diff(z, 2) > -1e-9 * np.abs(z).max()).all()


@every_order
@every_dtype
def test_it_starts_near_the_identity(order, dtype):
    layer, x = MaskedConvolution(order=order), images(20, 4, 4, 3, dtype=dtype)
    params = layer.init(np.random.default_rng(0), x)
    z, log_det = layer.forward(params, x)
    assert (log_det > 0).all()
    assert (log_det < 48 * np.log(1.2)).all()
    assert np.corrcoef(z.ravel(), x.ravel())[0, 1] > 0.99
    assert {leaf.dtype for leaf in params["convolutions"][0].values()} == {np.dtype(dtype)}


# ---------------------------------------------------------------- the inverse


@every_order
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-3)])
def test_the_inverse_is_exact_after_few_passes(order, dtype, tolerance, monkeypatch):
    layer, passes = MaskedConvolution(6, order), []
    x = images(10, 8, 8, 2, dtype=dtype)
    params = moved(layer, x)
    z, log_det = layer.forward(params, x)
    plain = masked_convolution.residual_block
    monkeypatch.setattr(
        masked_convolution, "residual_block", lambda *arrays: passes.append(1) or plain(*arrays)
    )
    back, inverse_log_det = layer.inverse(params, z)
    assert len(passes) < 40  # of 128 components
    np.testing.assert_allclose(back, x, atol=tolerance)
    np.testing.assert_allclose(inverse_log_det, -log_det, atol=100 * tolerance)
    anything = 4 * images(10, 8, 8, 2, dtype=dtype, seed=2)
    np.testing.assert_allclose(
        layer.forward(params, layer.inverse(params, anything)[0])[0], anything, atol=tolerance
    )


def test_an_image_whose_pixels_magnify_rounding_from_row_to_row_is_found():
    """A pixel that is right up to rounding has to stay, or those after it never settle."""
    layer, x = MaskedConvolution(4), images(3, 12, 12, 1)
    params, z = moved(layer, x, noise=2.5), 3 * images(3, 12, 12, 1, seed=2)
    found, _ = layer.inverse(params, z)
    assert np.abs(found).max() > 1e15
    again, _ = layer.forward(params, found)
    assert np.abs(again - z).max() < 1e-12 * np.abs(found).max()


def test_an_inverse_beyond_single_precision_is_an_error():
    layer, x = MaskedConvolution(4), images(3, 16, 16, 3, dtype=np.float32)
    flow = Flow(layer, Normal((16, 16, 3)))
    params = {"layer": moved(layer, x, noise=5.0), "prior": {}}
    with pytest.raises(ConvergenceError, match="expected the inverse of a triangular map to converge"):
        flow.sample(params, np.random.default_rng(0), 3)


def test_the_program_of_its_inverse_is_exact():
    layer = Inverse(MaskedConvolution(2))
    flow, x = Flow(layer, Normal((2, 2, 2))), images(6, 2, 2, 2)
    params = {"layer": moved(layer.layer, x), "prior": {}}
    program = record(flow.loss, params, x)
    params = {"layer": moved(layer.layer, x, seed=3), "prior": {}}
    loss, gradient = program(params, x)
    expected, slopes = value_and_grad(flow.loss)(params, x)
    assert loss == expected
    np.testing.assert_array_equal(gradient, Layout(params).pack(slopes))


# ---------------------------------------------------------------- what is refused


def test_hyper_parameters_and_rows_that_cannot_be_used_are_refused(rng):
    for arguments, words in (
        ({"filters": 0}, "MaskedConvolution's filters to be at least 1, got 0"),
        ({"filters": "many"}, "MaskedConvolution's filters to be an integer, got 'many'"),
        ({"order": "columns"}, "MaskedConvolution's order to be one of 'raster', 'reversed', got 'columns'"),
    ):
        assert words in refusal(MaskedConvolution, **arguments)
    sentence = refusal(Flow(MaskedConvolution(), Normal(4)).init, rng, np.ones((5, 4)))
    assert "expected images (n, height, width, channels), got shape (5, 4)" in sentence


# ---------------------------------------------------------------- the inverse of a triangular map


def convex(x, t, steepness, weight):
    """Each component's own convex function, and what bounded functions of those before it add."""
    value = t * x + steepness * elu(x) + linear(anp.tanh(x), weight)
    return value, t + steepness * elu_slope(x)


def arrays(seed=0, features=5, spread=1.0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    t, steepness = np.exp(spread * rng.standard_normal((2, features)))
    weight = np.triu(rng.standard_normal((features, features)), 1)
    return [array.astype(dtype) for array in (t, steepness, weight)]


def draw(n=7, features=5, seed=1, dtype=np.float64):
    """Rows of standard deviation 3."""
    return 3 * rows(n, features, seed=seed, dtype=dtype)


@every_dtype
@few
@given(seed=seeds, features=st.integers(1, 12), spread=st.floats(0, 3))
def test_there_and_back_is_where_it_started(dtype, seed, features, spread):
    map_arrays, x = arrays(seed, features, spread, dtype), draw(5, features, seed, dtype)
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
    """The iteration converges from any start for this reason."""
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


def test_components_settle_from_any_start_in_few_steps(monkeypatch):
    counts = []

    def counting(x, *arrays):
        counts[-1] += 1
        return convex(x, *arrays)

    for seed in range(20):
        counts.append(0)
        invert_triangular(counting, 1e3 * draw(features=30, seed=seed), *arrays(seed, 30, 2.0))
    assert max(counts) < masked_convolution.PATIENCE


@every_dtype
def test_components_far_out_on_the_way_do_not_overflow(dtype):
    """The second component starts far off and throws each after it further; without a limit they would overflow."""
    far = dtype(1e8 if dtype == np.float32 else 1e40)
    chain = lambda x: (x + far * anp.concatenate([0 * x[:, :1], x[:, :-1]], axis=1), np.ones_like(x))
    x = np.eye(1, 12, dtype=dtype)
    np.testing.assert_array_equal(invert_triangular(chain, chain(x)[0]), x)


def test_a_row_does_not_depend_on_the_others():
    map_arrays, z = arrays(spread=2.0), 10 * draw()
    together = invert_triangular(convex, z, *map_arrays)
    for row, expected in zip(z, together):
        np.testing.assert_allclose(invert_triangular(convex, row[None], *map_arrays)[0], expected, rtol=1e-13)


# ---------------------------------------------------------------- what cannot be found


def bent(x):
    """A function of one number whose slope rises and falls: from afar Newton's method goes from end to end."""
    return anp.arctan(x - 3) + 1e-3 * x, 1 / (1 + (x - 3) ** 2) + 1e-3


BENT = np.array([[-1.34], [0.0], [-1.3]])  # targets, and starts: near their x, far from it, near


@every_dtype
def test_an_iteration_that_does_not_converge_is_an_error_with_the_residual(dtype):
    z = BENT.astype(dtype)
    message = (
        r"inverse of a triangular map to converge, got a residual of 3\.1\d? after \d+ steps, 50 of them"
    )
    with pytest.raises(ConvergenceError, match=message):
        invert_triangular(bent, z)
    found = invert_triangular(bent, z[[0, 2]])
    np.testing.assert_allclose(bent(found)[0], z[[0, 2]], atol=1e-6)


def test_on_a_device_a_row_that_is_not_found_is_nan_and_nothing_is_transferred(device):
    z = devices.to_device(BENT, device.name)
    with stand_in.counted() as transfers:
        x = invert_triangular(bent, z)
    assert transfers == stand_in.Transfers(0, 0)
    found = devices.to_host(x)
    np.testing.assert_array_equal(np.isnan(found[:, 0]), [False, True, False])
    np.testing.assert_allclose(bent(found)[0][[0, 2]], BENT[[0, 2]], atol=1e-9)


def test_numbers_that_are_not_finite_stay_in_their_row():
    map_arrays, z = arrays(), draw(3)
    expected = invert_triangular(convex, z, *map_arrays)
    z[1, 2] = np.nan
    x = invert_triangular(convex, z, *map_arrays)
    np.testing.assert_allclose(x[[0, 2]], expected[[0, 2]], rtol=1e-12)
    assert np.isnan(x[1, 2])


# ---------------------------------------------------------------- derivatives


@every_dtype
def test_its_jacobian_is_the_inverse_of_the_maps(dtype):
    map_arrays, x = arrays(dtype=dtype), draw(dtype=dtype)
    z, _ = convex(x, *map_arrays)
    there = by_autograd(lambda x: convex(x, *map_arrays)[0], x)
    back = by_autograd(lambda z: invert_triangular(convex, z, *map_arrays), z)
    tolerance = 1e-9 if dtype == np.float64 else 1e-3
    np.testing.assert_allclose(there @ back, np.broadcast_to(np.eye(5), there.shape), atol=tolerance)


@every_dtype
def test_gradients_in_z_and_in_the_maps_parameters_are_those_of_finite_differences(dtype):
    weights = np.random.default_rng(2).standard_normal((7, 5))
    params = dict(zip(("z", "t", "steepness", "weight"), (draw(), *arrays())))
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
    map_arrays, z = arrays(), draw()
    loss = lambda scale: lambda z: scale * anp.sum(anp.sin(invert_triangular(convex, z, *map_arrays)))
    large, small = (value_and_grad(loss(scale))(z)[1] for scale in (1.0, 1e-30))
    np.testing.assert_allclose(small, 1e-30 * large, rtol=1e-12)


def test_a_program_has_its_gradient():
    z = draw()
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
        autograd.grad(lambda z: outer(autograd.grad(total)(z)))(draw())


@every_dtype
def test_the_gradient_of_one_number_is_found_in_few_steps(dtype, monkeypatch):
    """Most of g is 0, so that rounding has to be measured against its largest number."""
    layer, rng = MaskedConvolution(4), np.random.default_rng(0)
    z = rng.standard_normal((16, 8, 8, 1)).astype(dtype)
    params = moved_params(layer.init(rng, z), rng, by=1.0)
    settle, counts = masked_convolution._settle, []

    def counted(fun, *arguments, **options):
        counts.append(0)

        def step(x):
            counts[-1] += 1
            return fun(x)

        return settle(step, *arguments, **options)

    monkeypatch.setattr(masked_convolution, "_settle", counted)
    autograd.grad(lambda z: anp.sum(layer.inverse(params, z)[0][:, -1, -1]))(z)
    assert len(counts) == 2
    assert max(counts) < 2 * masked_convolution.PATIENCE


def test_components_that_settle_one_after_another_are_waited_for():
    """Each is thrown off by the one before it until that is found, so 400 components take hundreds of steps."""
    taken = []

    def chain(x):
        taken.append(x)
        before = np.concatenate([0 * x[:, :1], np.sin(5 * x[:, :-1])], axis=1)
        return x + elu(3 * x) + 2 * before, 1 + 3 * elu_slope(3 * x)

    z, _ = chain(np.random.default_rng(0).standard_normal((2, 400)))
    found = invert_triangular(chain, z)
    assert len(taken) > 4 * masked_convolution.PATIENCE
    np.testing.assert_allclose(chain(found)[0], z, atol=1e-12)


def test_a_number_that_turns_nan_on_the_way_is_not_taken_for_found():
    def edge(x):
        """x - 1, as far as 3, with a slope that leads beyond."""
        return anp.where(x > 3, anp.nan, x - 1), 0.1 + 0 * x

    with pytest.raises(ConvergenceError, match="got a residual of nan"):
        invert_triangular(edge, np.zeros((2, 1)))
