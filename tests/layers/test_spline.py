"""The rational-quadratic spline: against the paper's formulas, and for any numbers and inputs."""

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.test_util import check_grads
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import record, value_and_grad
from npflow.layers import Spline
from npflow.layers.spline import ONE, slope

every_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])
every_direction = pytest.mark.parametrize("direction", ["transform", "untransform"])
both_axes = pytest.mark.parametrize(("axis", "direction"), [(0, "transform"), (1, "untransform")])
few = settings(max_examples=10, deadline=None)


def numbers_of(layer, shape, size=1.0, dtype=np.float64, seed=0):
    """Random numbers for components of a shape, of a standard deviation."""
    rng = np.random.default_rng(seed)
    return (size * rng.standard_normal((*shape[:-1], layer.numbers * shape[-1]))).astype(dtype)


def columns_of(layer, n, size=1.0, dtype=np.float64, seed=0):
    """Numbers of n splines of one component each, and their knots, shape (2, bins + 1, n)."""
    raw = numbers_of(layer, (n, 1), size, dtype, seed)
    return raw, layer.knots_and_slopes(raw, np.zeros((n, 1), dtype))[0]


# ---------------------------------------------------------------- the paper's formulas


def textbook(raw, bins, bound):
    """Knots and slopes of one component as in the paper's code.

    The numbers of the slopes are changed as in npflow: c makes 0 the identity, and they are bounded.
    """

    def knots(raw):
        shares = np.exp(raw) / np.sum(np.exp(raw))
        return 2 * bound * np.cumsum([0, *(1e-3 + (1 - 1e-3 * bins) * shares)]) - bound

    c = np.log(np.exp(1 - 1e-3) - 1)
    slopes = [1, *(1e-3 + np.log1p(np.exp(1e4 * np.tanh(raw[2 * bins :] / 1e4) + c))), 1]
    return knots(raw[:bins]), knots(raw[bins : 2 * bins]), slopes


def textbook_bin(at, ends, others, slopes):
    k = np.clip(np.searchsorted(ends, at, "right") - 1, 0, len(ends) - 2)
    return ends[k], ends[k + 1] - ends[k], others[k], others[k + 1] - others[k], slopes[k], slopes[k + 1]


def textbook_forward(raw, x, bins, bound):
    """Equations 4 and 5 of the paper."""
    if abs(x) > bound:
        return x, 0.0
    xs, ys, slopes = textbook(raw, bins, bound)
    x0, w, y0, h, d0, d1 = textbook_bin(x, xs, ys, slopes)
    s, xi = h / w, (x - x0) / w
    bottom = s + (d1 + d0 - 2 * s) * xi * (1 - xi)
    z = y0 + h * (s * xi**2 + d0 * xi * (1 - xi)) / bottom
    return z, np.log(s**2 * (d1 * xi**2 + 2 * s * xi * (1 - xi) + d0 * (1 - xi) ** 2) / bottom**2)


def textbook_inverse(raw, z, bins, bound):
    """Equations 6 to 8 and 29 of the paper."""
    if abs(z) > bound:
        return z
    xs, ys, slopes = textbook(raw, bins, bound)
    y0, h, x0, w, d0, d1 = textbook_bin(z, ys, xs, slopes)
    s, up = h / w, z - y0
    a = h * (s - d0) + up * (d1 + d0 - 2 * s)
    b = h * d0 - up * (d1 + d0 - 2 * s)
    c = -s * up
    return x0 + w * 2 * c / (-b - np.sqrt(b**2 - 4 * a * c))


@few
@given(bins=st.integers(2, 12), bound=st.sampled_from([0.5, 3.0, 5.0]), seed=st.integers(0, 2**32))
def test_values_log_slopes_and_inverses_are_the_papers(bins, bound, seed):
    layer, x = Spline(bins, bound), bound * np.random.default_rng(seed).uniform(-1.2, 1.2, (6, 2))
    raw = numbers_of(layer, x.shape, 1.5, seed=seed)
    z, log_slope = layer.transform(raw, x)
    back, back_log_slope = layer.untransform(raw, x)
    for row, i in np.ndindex(x.shape):
        own = raw[row, i::2]
        expected = textbook_forward(own, x[row, i], bins, bound)
        np.testing.assert_allclose((z[row, i], log_slope[row, i]), expected, rtol=1e-10, atol=1e-11)
        origin = textbook_inverse(own, x[row, i], bins, bound)
        expected = -textbook_forward(own, origin, bins, bound)[1]
        np.testing.assert_allclose(back[row, i], origin, rtol=1e-8, atol=1e-9)
        np.testing.assert_allclose(back_log_slope[row, i], expected, rtol=1e-7, atol=1e-7)


def test_the_slope_of_ordinary_numbers_is_that_of_the_papers_code_to_float32s_precision():
    raw = np.linspace(-5, 5, 1001)
    c = np.log(np.exp(1 - 1e-3) - 1)
    assert pytest.approx(c, rel=1e-12) == ONE
    np.testing.assert_allclose(slope(raw.astype(np.float32)), 1e-3 + np.log1p(np.exp(raw + c)), 1e-6, 1e-7)


def test_slopes_of_numbers_of_any_size_stay_between_their_bounds_and_in_order():
    raw = np.array([-1e30, -1e6, -100, 0, 100, 1e4, 1e6, 1e30], np.float32)
    slopes = slope(raw)
    assert slopes.dtype == np.float32
    assert (np.diff(slopes) >= 0).all()
    np.testing.assert_allclose(slopes[[0, 3, -1]], [1e-3, 1, 1e4], rtol=1e-3)


# ---------------------------------------------------------------- round trips and log-dets


@few
@given(st.integers(0, 2**32))
def test_inverse_undoes_forward_to_1e_9(seed):
    layer = Spline()
    x = np.random.default_rng(seed).uniform(-5, 5, (100, 3))
    raw = numbers_of(layer, x.shape, 1.5, seed=seed)
    z, log_slope = layer.transform(raw, x)
    back, back_log_slope = layer.untransform(raw, z)
    np.testing.assert_allclose(back, x, atol=1e-9)
    np.testing.assert_allclose(back_log_slope, -log_slope, atol=1e-9)


@every_direction
def test_the_log_slope_is_that_of_the_exact_jacobian(direction):
    layer = Spline()
    x = np.random.default_rng(0).uniform(-6, 6, (2000, 3))
    raw = numbers_of(layer, x.shape, 3.0)
    apply = getattr(layer, direction)
    _, gradient = value_and_grad(lambda x: anp.sum(apply(raw, x)[0]))(x)
    np.testing.assert_allclose(apply(raw, x)[1], np.log(gradient), rtol=1e-9, atol=1e-11)


@every_direction
@pytest.mark.parametrize("shape", [(3, 2), (2, 2, 1, 2)], ids=["rows", "images"])
@pytest.mark.parametrize("shared", [True, False], ids=["shared", "each its own"])
def test_derivatives_in_numbers_and_input_equal_finite_differences_to_second_order(direction, shape, shared):
    layer = Spline(bins=3, bound=2.0)
    x = np.random.default_rng(1).uniform(-2.5, 2.5, shape)
    raw = numbers_of(layer, shape[-1:] if shared else shape, 0.5)
    before = np.random.get_state()  # noqa: NPY002 (check_grads draws from it)
    np.random.seed(0)  # noqa: NPY002
    for part in (0, 1):
        check_grads(lambda *args, part=part: getattr(layer, direction)(*args)[part], (0, 1), ["rev"], 2)(
            raw, x
        )
    np.random.set_state(before)  # noqa: NPY002


# ---------------------------------------------------------------- identity, edges, knots


@every_dtype
@pytest.mark.parametrize("bins", [2, 3, 8, 50])
def test_zeros_are_the_identity(bins, dtype):
    layer, x = Spline(bins), np.linspace(-6, 6, 997, dtype=dtype)[:, None]
    for y, log_slope in (f(np.zeros(layer.numbers, dtype), x) for f in (layer.transform, layer.untransform)):
        np.testing.assert_allclose(y, x, atol=10 * np.finfo(dtype).eps)
        np.testing.assert_allclose(log_slope, np.zeros_like(x), atol=10 * bins * np.finfo(dtype).eps)


@every_dtype
@every_direction
@pytest.mark.parametrize("size", [1, 1e3, 1e30])
def test_outside_the_bound_it_is_exactly_the_identity(direction, dtype, size):
    layer = Spline(bound=3.0)
    out = np.array([np.nextafter(dtype(3), dtype(4)), 3.5, 1e4, 1e30, np.finfo(dtype).max], dtype)
    x = np.concatenate((out, -out))[:, None]
    y, log_slope = getattr(layer, direction)(numbers_of(layer, x.shape, size, dtype), x)
    np.testing.assert_array_equal(y, x, strict=True)
    np.testing.assert_array_equal(log_slope, np.zeros_like(x), strict=True)


@every_direction
def test_value_and_slope_are_continuous_at_the_bound_and_right_on_it(direction):
    layer, apply = Spline(bound=2.0), getattr(Spline(bound=2.0), direction)
    raw = numbers_of(layer, (100, 1), 1.0)
    for edge in (-2.0, 2.0):
        for x in (edge, edge * (1 - 1e-12), edge * (1 + 1e-12)):
            y, log_slope = apply(raw, np.full((100, 1), x))
            np.testing.assert_allclose(y, edge, rtol=1e-10)
            np.testing.assert_allclose(log_slope, 0, atol=1e-8)
        _, gradient = value_and_grad(lambda x: anp.sum(apply(raw, x)[0]))(np.full((100, 1), edge))
        np.testing.assert_allclose(gradient, 1, rtol=1e-10)


@both_axes
def test_at_a_knot_it_has_the_knots_value_and_slope_from_both_sides(axis, direction):
    layer = Spline(bins=5)
    raw, knots = columns_of(layer, 100)
    slopes = slope(raw[:, 10:])
    sign = 1 if direction == "transform" else -1
    for k in range(1, 5):
        x, expected = knots[axis][k][:, None], knots[1 - axis][k][:, None]
        for nudge in (-1e-12, 0, 1e-12):
            y, log_slope = getattr(layer, direction)(raw, x + nudge)
            np.testing.assert_allclose(y, expected, atol=1e-9)
            np.testing.assert_allclose(log_slope, sign * np.log(slopes[:, [k - 1]]), atol=1e-8)
        _, gradient = value_and_grad(lambda x: anp.sum(getattr(layer, direction)(raw, x)[0]))(x)
        np.testing.assert_allclose(gradient, slopes[:, [k - 1]] ** sign, rtol=1e-9)


# ---------------------------------------------------------------- any numbers and inputs


def anywhere(rng, layer, knots):
    """For each spline a place: normal, far out, a knot exactly, at the bound or next to it."""
    n, dtype = knots.shape[1], knots.dtype
    edge = dtype.type(layer.bound)
    edges = np.array([edge, np.nextafter(edge, 0 * edge), np.nextafter(edge, 2 * edge)])
    places = [
        layer.bound * rng.standard_normal(n) / 2,
        rng.choice([1e30, 1e10, 1e3], n) * rng.choice([-1, 1], n),
        knots[rng.integers(0, len(knots), n), np.arange(n)],
        rng.choice(edges, n) * rng.choice([-1, 1], n),
    ]
    return np.choose(rng.choice(4, n, p=[0.5, 0.1, 0.3, 0.1]), places).astype(dtype)[:, None]


@every_dtype
@pytest.mark.parametrize("size", [1, 10, 1e3, 1e30])
def test_many_splines_stay_finite_and_lead_back_as_far_as_their_slopes_allow(dtype, size):
    layer, n, rng = Spline(), 20_000, np.random.default_rng(0)
    raw, knots = columns_of(layer, n, size, dtype)
    rounding = 16 * np.finfo(dtype).eps * dtype(layer.bound)
    for axis, (there, back) in enumerate(
        [(layer.transform, layer.untransform), (layer.untransform, layer.transform)]
    ):
        x = anywhere(rng, layer, knots[axis])
        y, log_slope = there(raw, x)
        assert np.isfinite(y).all()
        assert np.isfinite(log_slope).all()
        assert (np.abs(y) <= np.maximum(layer.bound, np.abs(x)) + rounding).all()
        # What y is known to, up to rounding, leads back to both sides of x: where it is steep, far apart.
        slack = rounding + 4 * np.finfo(dtype).eps * np.abs(x)
        below, above = (back(raw, y + sign * slack)[0] for sign in (-1, 1))
        assert (below - slack <= x).all()
        assert (x <= above + slack).all()


@every_dtype
@both_axes
@pytest.mark.parametrize("size", [1, 10, 1e3, 1e30])
def test_it_never_falls(axis, direction, dtype, size):
    layer, n, rng = Spline(), 500, np.random.default_rng(1)
    raw, knots = columns_of(layer, n, size, dtype, seed=1)
    places = [anywhere(rng, layer, knots[axis]) for _ in range(80)]
    places += [np.nextafter(p, p.dtype.type(to)) for p in places[:40] for to in (-np.inf, np.inf)]
    x = np.sort(np.concatenate(places, axis=1), axis=1)
    each = np.repeat(raw[:, :, None], x.shape[1], axis=2).reshape(n, -1)
    y, _ = getattr(layer, direction)(each, x)
    rounding = 2 * np.finfo(dtype).eps * np.maximum(layer.bound, np.abs(y[:, 1:]))
    assert (np.diff(y, axis=1) >= -rounding).all()


@every_dtype
@both_axes
@pytest.mark.parametrize("size", [0, 1, 1e3, 1e30])
def test_gradients_are_finite_everywhere(axis, direction, dtype, size):
    layer = Spline()
    raw, knots = columns_of(layer, 2000, size, dtype)
    x = anywhere(np.random.default_rng(2), layer, knots[axis])

    def loss(params):
        y, log_slope = getattr(layer, direction)(params["raw"], params["x"])
        return anp.sum(anp.sin(y)) + anp.sum(log_slope)

    _, gradient = value_and_grad(loss)({"raw": raw, "x": x})
    for part in gradient.values():
        assert part.dtype == dtype
        assert np.isfinite(part).all()


@every_direction
def test_numbers_that_are_nan_are_not_hidden(direction):
    layer = Spline()
    raw = numbers_of(layer, (4, 1))
    raw[1, 3], raw[2, 12] = np.nan, np.nan
    y, log_slope = getattr(layer, direction)(raw, np.array([[0.5], [0.5], [0.5], [np.nan]]))
    assert np.isnan(log_slope[:, 0]).tolist() == [False, True, True, True]
    assert np.isnan(y[3, 0])


@pytest.mark.parametrize("bins", [2, 500])
@every_dtype
def test_few_bins_and_many(bins, dtype):
    layer = Spline(bins, bound=1.0)
    raw, knots = columns_of(layer, 200, 10.0, dtype)
    assert (np.diff(knots, axis=1) > 0.9 * 2e-3).all()
    tolerance = bins * np.finfo(dtype).eps
    np.testing.assert_array_equal(knots[:, [0, -1]], np.broadcast_to([[-1], [1]], (2, 2, 200)))
    x = np.linspace(-1, 1, 200, dtype=dtype)[:, None]
    z, _ = layer.transform(raw, x)
    below, above = (layer.untransform(raw, z + sign * tolerance)[0] for sign in (-1, 1))
    assert (below - tolerance <= x).all()
    assert (x <= above + tolerance).all()


# ---------------------------------------------------------------- programs, hyper-parameters


@every_direction
def test_a_program_with_numbers_from_outside_has_the_bits_of_the_plain_path(direction):
    layer = Spline()

    def loss(params, x):
        y, log_slope = getattr(layer, direction)(params["raw"], x)
        return anp.sum(y * y) - anp.sum(log_slope)

    batches = [
        (
            numbers_of(layer, (20, 3), 2.0, np.float32, seed),
            numbers_of(Spline(2), (20, 3), 3, np.float32)[:, :3],
        )
        for seed in (0, 1)
    ]
    program = record(loss, {"raw": batches[0][0]}, batches[0][1])
    for raw, x in batches:
        value, gradient = program({"raw": raw}, x)
        expected, slopes = value_and_grad(loss)({"raw": raw}, x)
        assert value.tobytes() == expected.tobytes()
        assert gradient.tobytes() == slopes["raw"].tobytes()


@pytest.mark.parametrize("bound", [3, np.float64(3), np.float32(3)])
@every_direction
def test_float32_is_kept_whatever_the_type_of_the_bound(bound, direction):
    layer, x = Spline(bins=np.int64(4), bound=bound), np.ones((2, 3), np.float32)
    arrays = getattr(layer, direction)(numbers_of(layer, x.shape, dtype=np.float32), x)
    assert {array.dtype for array in arrays} == {np.dtype(np.float32)}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bins": 1}, "Spline's bins to be at least 2, got 1"),
        ({"bins": 501}, "Spline's bins to be at most 500, as each has at least 0.001 of the width, got 501"),
        ({"bins": 8.0}, "Spline's bins to be an integer, got 8.0"),
        ({"bound": 0}, "Spline's bound to be a finite number above 0 below 1000000.0, got 0"),
        ({"bound": np.inf}, "Spline's bound to be a finite number above 0 below 1000000.0, got inf"),
        ({"bound": "5"}, "Spline's bound to be a number above 0 below 1000000.0, got '5'"),
    ],
)
def test_hyper_parameters_that_cannot_be_used_are_refused(arguments, words):
    assert words in refusal(Spline, **arguments)
