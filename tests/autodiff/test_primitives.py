"""Every primitive against the same thing composed of autograd's own functions, to second order.

`CASES` lists them all: a new primitive is tested by being listed, and has to be.
"""

from collections.abc import Callable
from dataclasses import dataclass

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from autograd.core import primitive_vjps
from autograd.scipy.special import erfinv, expit
from autograd.scipy.stats import norm
from helpers import assert_agrees

from npflow.autodiff import convolution as C
from npflow.autodiff import primitives as P
from npflow.autodiff import record, value_and_grad
from npflow.autodiff.gpu.devices import constant, to_device
from npflow.layers import gaussianization as Q
from npflow.layers import spline as S

ROWS, IMAGES = (4, 4), (2, 3, 2, 4)
PERMUTATION = np.array([2, 0, 3, 1])
STEPS = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 0.0]])


@dataclass(frozen=True)
class Case:
    """A call of a primitive, the same thing in autograd's functions, and the shapes of the arguments."""

    name: str
    call: Callable
    composition: Callable
    shapes: Callable = lambda shape: [shape]
    variant: str = ""

    def arguments(self, shape, dtype=np.float64):
        """Random arguments, away from the kinks of piecewise linear functions at 0."""
        rng = np.random.default_rng(7)
        draws = [rng.standard_normal(s) for s in self.shapes(shape)]
        return [(draw + 0.1 * np.sign(draw)).astype(dtype) for draw in draws]


def well_conditioned(matrix):
    return matrix + constant(4 * np.eye(len(matrix), dtype=np.float32), like=matrix)


def even_places(x):
    return constant(np.arange(x.shape[-1]) % 2 == 0, like=x)


def labels(x):
    """A label for each row of the last axis: 0, 1, 2 and so on, and again from 0."""
    shape, k = x.shape[:-1], x.shape[-1]
    return constant(np.resize(np.arange(k, dtype=np.uint8), shape), like=x)


def one_hot(x):
    """The one-hot vectors of `labels`."""
    return np.eye(x.shape[-1])[labels(x)]


def triangular_case(lower, unit_diagonal):
    triangle = anp.tril if lower else anp.triu

    def composition(y, matrix):
        a = triangle(well_conditioned(matrix))
        if unit_diagonal:
            a = a - anp.diag(anp.diag(a)) + np.eye(len(matrix))
        return anp.reshape(anp.linalg.solve(a.T, anp.reshape(y, (-1, y.shape[-1])).T).T, y.shape)

    return Case(
        "solve_triangular",
        lambda y, matrix: P.solve_triangular(y, well_conditioned(matrix), lower, unit_diagonal),
        composition,
        lambda shape: [shape, (shape[-1], shape[-1])],
        f"{'lower' if lower else 'upper'}{'-unit' if unit_diagonal else ''}",
    )


def padded(x, start, width):
    zeros = [np.zeros((*x.shape[:-1], count)) for count in (start, width - start - x.shape[-1])]
    return anp.concatenate([zeros[0], x, zeros[1]], axis=-1)


def as_planes(x):
    """Shape (n, k, c) as (k, n * c)."""
    return anp.reshape(anp.swapaxes(x, 0, 1), (x.shape[1], -1))


def spread_case(shape_of):
    return Case(
        "spread_event",
        lambda x: P.spread_event(x, shape_of(x)),
        lambda x: anp.reshape(x, (-1, *[1] * (len(shape_of(x)) - 1))) * np.ones(shape_of(x)),
        lambda shape: [shape[:1]],
        "rows" if len(shape_of(np.ones(1))) == 2 else "images",
    )


def sums_of_logistics(x, means, rates, weights):
    """F, 1 - F and f of mixtures: shapes (d, n) and (d, k)."""
    means, rates, weights = (leaf[:, :, None] for leaf in (means, rates, weights))
    below, above = (expit(sign * (x[:, None] - means) * rates) for sign in (1, -1))
    return [anp.sum(weights * terms, axis=1) for terms in (below, above, rates * below * above)]


def logit_and_slope(f, rest, density, shift):
    """What `mixture_sums` is for; each of its sums depends on its shift, and these two do not."""
    return anp.concatenate(
        [anp.log(f) - anp.log(rest) + shift, anp.log(density) - anp.log(f) - anp.log(rest)]
    )


def seen(x, height, width):
    """For each place of a kernel the pixels that it sees, zeros beyond the edge: shape (height, width, n, h, w, c)."""
    (_, h, w, _), (top, left) = x.shape, (height // 2, width // 2)
    x = anp.pad(x, ((0, 0), (top, top), (left, left), (0, 0)), "constant")
    return anp.array([[x[:, i : i + h, j : j + w] for j in range(width)] for i in range(height)])


def conv2d_cases(height, width, inputs, outputs):
    x, weight, g = (2, 4, 3, inputs), (height, width, inputs, outputs), (2, 4, 3, outputs)
    variant = f"{height}x{width}-{inputs}-{outputs}"
    return [
        Case(
            "conv2d",
            C.conv2d,
            lambda x, weight: anp.einsum("ijnhwa,ijab->nhwb", seen(x, height, width), weight),
            lambda shape: [x, weight],
            variant,
        ),
        Case(
            "conv2d_vjp_x",
            C.conv2d_vjp_x,
            lambda g, weight: anp.einsum("ijnhwb,ijab->nhwa", seen(g, height, width), weight[::-1, ::-1]),
            lambda shape: [g, weight],
            variant,
        ),
        Case(
            "conv2d_vjp_weight",
            lambda g, x: C.conv2d_vjp_weight(g, x, height, width),
            lambda g, x: anp.einsum("ijnhwa,nhwb->ijab", seen(x, height, width), g),
            lambda shape: [g, x],
            variant,
        ),
    ]


def below(x):
    """Images a pixel further down, zeros at the top."""
    return anp.concatenate([0 * x[:, :1], x[:, :-1]], axis=1)


def above(x):
    """Images a pixel further up, zeros at the bottom."""
    return anp.concatenate([x[:, 1:], 0 * x[:, :1]], axis=1)


KERNELS = [(3, 3, 2, 3), (3, 3, 3, 2), (1, 1, 2, 2), (3, 5, 2, 2), (7, 1, 2, 1)]

CASES = [
    Case("linear", P.linear, anp.matmul, lambda shape: [shape, (shape[-1], 3)]),
    Case(
        "dense",
        P.dense,
        lambda x, weight, bias: anp.matmul(x, weight) + bias,
        lambda shape: [shape, (shape[-1], 3), (3,)],
    ),
    *[triangular_case(lower, unit) for lower in (True, False) for unit in (True, False)],
    Case(
        "log_abs_det",
        lambda J: P.log_abs_det(well_conditioned(J)),
        lambda J: anp.linalg.slogdet(well_conditioned(J))[1],
        lambda shape: [(4, 4, 4)],
    ),
    Case(
        "inverse_transposed",
        lambda J: P.inverse_transposed(well_conditioned(J)),
        lambda J: anp.swapaxes(anp.linalg.inv(well_conditioned(J)), 1, 2),
        lambda shape: [(4, 4, 4)],
    ),
    Case("relu", P.relu, lambda x: anp.where(x > 0, x, 0.0)),
    Case("leaky_relu", P.leaky_relu, lambda x: anp.where(x > 0, x, 0.01 * x)),
    Case(
        "leaky_relu",
        lambda x: P.leaky_relu(x, 0.2),
        lambda x: anp.where(x > 0, x, 0.2 * x),
        variant="slope",
    ),
    Case(
        "relu_vjp",
        P.relu_vjp,
        lambda g, y: anp.where(y > 0, g, 0.0),
        lambda shape: [shape, shape],
    ),
    Case(
        "leaky_relu_vjp",
        lambda g, y: P.leaky_relu_vjp(g, y, 0.2),
        lambda g, y: anp.where(y > 0, g, 0.2 * g),
        lambda shape: [shape, shape],
    ),
    Case(
        "where",
        lambda a, b: P.where(even_places(a), a, b),
        lambda a, b: a * (np.arange(a.shape[-1]) % 2 == 0) + b * (np.arange(a.shape[-1]) % 2),
        lambda shape: [shape, shape],
    ),
    Case(
        "where",
        lambda a, b: P.where(even_places(a), a, P.where(constant(np.ones(a.shape, bool), like=a), b, 0.0)),
        lambda a, b: a * (np.arange(a.shape[-1]) % 2 == 0) + b * (np.arange(a.shape[-1]) % 2),
        lambda shape: [shape, shape[-1:]],
        variant="broadcast",
    ),
    Case("elu", P.elu, lambda x: anp.where(x > 0, x, anp.exp(x) - 1)),
    Case("elu_slope", P.elu_slope, lambda x: anp.where(x > 0, 1.0, anp.exp(x))),
    Case("tanh", P.tanh, anp.tanh),
    Case("sigmoid", P.sigmoid, lambda x: 1 / (1 + anp.exp(-x))),
    Case("log_sigmoid", P.log_sigmoid, lambda x: -anp.log(1 + anp.exp(-x))),
    Case("softplus", P.softplus, lambda x: anp.log(1 + anp.exp(x))),
    Case("slice_last", lambda x: P.slice_last(x, 1, 3), lambda x: x[..., 1:3]),
    Case("pad_last", lambda x: P.pad_last(x, 2, 7), lambda x: padded(x, 2, 7)),
    Case(
        "concatenate_last",
        P.concatenate_last,
        lambda a, b: anp.concatenate([a, b], axis=-1),
        lambda shape: [shape, (*shape[:-1], 2)],
    ),
    Case(
        "permute",
        lambda x: P.permute(x, constant(PERMUTATION, like=x)),
        lambda x: x[..., PERMUTATION],
        variant="last",
    ),
    Case(
        "permute",
        lambda x: P.permute(x, constant(np.arange(len(x))[::-1], like=x), axis=0),
        lambda x: x[::-1],
        variant="first",
    ),
    Case(
        "planes",
        lambda x: S.planes(x, 1, 3),
        lambda x: as_planes(x[:, 1:3]),
        lambda shape: [(3, 4, shape[-1])],
    ),
    Case(
        "unplanes",
        lambda x: S.unplanes(x, 1, (2, 5, 2)),
        lambda x: anp.stack(
            [np.zeros((2, 2)), *[x[i].reshape(2, 2) for i in (0, 1)], np.zeros((2, 2)), np.zeros((2, 2))],
            axis=1,
        ),
        lambda shape: [(2, 4)],
    ),
    Case("softmax_planes", S.softmax_planes, lambda x: anp.exp(x) / anp.sum(anp.exp(x), -2, keepdims=True)),
    Case(
        "softmax_planes",
        lambda x: S.softmax_planes(x, 2.5),
        lambda x: 2.5 * anp.exp(x) / anp.sum(anp.exp(x), -2, keepdims=True),
        variant="total",
    ),
    Case(
        "running_sums",
        lambda x: S.running_sums(x, start=-2.0, end=5.0),
        lambda x: np.array([[-2.0], [-2.0], [-2.0], [5.0]]) + anp.einsum("ji,...im->...jm", STEPS, x),
        lambda shape: [(*shape[:-2], 3, shape[-1])],
    ),
    Case(
        "running_sums_vjp",
        S.running_sums_vjp,
        lambda g: anp.einsum("ji,...jm->...im", STEPS, g),
        lambda shape: [(*shape[:-2], 4, shape[-1])],
    ),
    Case("sum_rows", P.sum_rows, lambda x: anp.sum(x, axis=tuple(range(x.ndim - 1)))),
    Case(
        "spread_over_rows",
        lambda x: P.spread_over_rows(x, (3, 2, len(x))),
        lambda x: x * np.ones((3, 2, len(x))),
        lambda shape: [shape[-1:]],
    ),
    Case("sum_event", P.sum_event, lambda x: anp.sum(x, axis=tuple(range(1, x.ndim)))),
    spread_case(lambda x: (len(x), 3)),
    spread_case(lambda x: (len(x), 3, 2, 4)),
    Case("spread_rows", lambda x: P.spread_rows(x, 5), lambda x: x * np.ones(5), lambda shape: [()]),
    Case("logsumexp_last", P.logsumexp_last, lambda x: anp.log(anp.sum(anp.exp(x), axis=-1))),
    Case(
        "log_softmax_at",
        lambda x: P.log_softmax_at(x, labels(x)),
        lambda x: anp.sum(one_hot(x) * x, axis=-1) - anp.log(anp.sum(anp.exp(x), axis=-1)),
    ),
    Case("softmax_last", P.softmax_last, lambda x: anp.exp(x) / anp.sum(anp.exp(x), axis=-1, keepdims=True)),
    Case("take_last", lambda x: P.take_last(x, labels(x)), lambda x: anp.sum(one_hot(x) * x, axis=-1)),
    Case(
        "one_hot_minus",
        lambda x, g: P.one_hot_minus(x, labels(x), g),
        lambda x, g: (one_hot(x) - x) * g[..., None],
        lambda shape: [shape, shape[:-1]],
    ),
    *[case for kernel in KERNELS for case in conv2d_cases(*kernel)],
    Case(
        "unfold",
        lambda x: C.unfold(x, 3, 5),
        lambda x: anp.reshape(anp.transpose(seen(x, 3, 5), (2, 3, 4, 0, 1, 5)), (2, 4, 3, -1)),
        lambda shape: [(2, 4, 3, 2)],
    ),
    Case(
        "unfold",
        lambda x: C.unfold(x, 3, 1, turned=True),
        lambda x: anp.concatenate([above(x), x, below(x)], axis=-1),
        lambda shape: [(2, 4, 3, 2)],
        "turned",
    ),
    Case(
        "fold",
        lambda y: C.fold(y, 3, 1),
        lambda y: y[..., 2:4] + above(y[..., :2]) + below(y[..., 4:]),
        lambda shape: [(2, 4, 3, 6)],
    ),
    Case(
        "fold",
        lambda y: C.fold(y, 3, 1, turned=True),
        lambda y: y[..., 2:4] + below(y[..., :2]) + above(y[..., 4:]),
        lambda shape: [(2, 4, 3, 6)],
        "turned",
    ),
    Case(
        "unfold",
        lambda x: C.unfold(x, 3, 5, places=8),
        lambda x: anp.reshape(anp.transpose(seen(x, 3, 5), (2, 3, 4, 0, 1, 5)), (2, 4, 3, -1))[..., : 8 * 2],
        lambda shape: [(2, 4, 3, 2)],
        "first places",
    ),
    Case(
        "fold",
        lambda y: C.fold(y, 3, 1, places=2),
        lambda y: y[..., 2:4] + above(y[..., :2]),
        lambda shape: [(2, 4, 3, 4)],
        "first places",
    ),
    Case(
        "half_turn",
        C.half_turn,
        lambda x: anp.reshape(anp.reshape(x, (len(x), -1))[:, ::-1], x.shape),
        lambda shape: [(2, 4, 3, 2)],
    ),
    Case("turned", Q.turned, anp.transpose, lambda shape: [(4, 3)]),
    Case("log_sigmoids", Q.log_sigmoids, lambda x: -anp.log(1 + anp.exp(x)) - anp.log(1 + anp.exp(-x))),
    Case(
        "mixture_sums",
        lambda x, means, *logs: logit_and_slope(*Q.mixture_sums(x, means, *map(anp.exp, logs))),
        lambda x, means, *logs: logit_and_slope(*sums_of_logistics(x, means, *map(anp.exp, logs)), 0.0),
        lambda shape: [(3, 4), (3, 2), (3, 2), (3, 2)],
    ),
    Case("normal_of_logit", Q.normal_of_logit, lambda x: np.sqrt(2) * erfinv(2 * expit(x) - 1)),
    Case("logit_of_normal", Q.logit_of_normal, lambda z: norm.logcdf(z) - norm.logcdf(-z)),
]

# Each case on rows, and on images where its arguments then have other shapes.
every_call = pytest.mark.parametrize(
    ("case", "shape"),
    [
        pytest.param(case, shape, id=f"{case.name}-{case.variant}-{kind}".replace("--", "-"))
        for case in CASES
        for kind, shape in (("rows", ROWS), ("images", IMAGES))
        if shape == ROWS or case.shapes(ROWS) != case.shapes(IMAGES)
    ],
)
every_shape = pytest.mark.parametrize("shape", [ROWS, IMAGES], ids=["rows", "images"])


def scalar(fun):
    """A scalar in which each number of the result has a slope and a curvature of its own."""

    def total(*args):
        y = fun(*args)
        weights = constant(np.linspace(0.5, 1.5, y.size, dtype=y.dtype).reshape(y.shape), like=y)
        return anp.sum(weights * (y + 0.5 * y * y))

    return total


def gradient(fun, args):
    return autograd.grad(fun, tuple(range(len(args))))(*args)


def squared_gradient_norm(fun):
    return lambda *args: sum(anp.sum(g * g) for g in gradient(fun, args))


def test_every_public_primitive_is_in_the_table():
    public = {
        name
        for name, value in (vars(P) | vars(Q) | vars(C) | vars(S)).items()
        if not name.startswith("_") and callable(value) and value in primitive_vjps
    }
    assert public == {case.name for case in CASES}


@every_call
def test_value_and_both_derivatives_are_those_of_the_composition(case, shape):
    args = case.arguments(shape)
    before = [arg.copy() for arg in args]
    value, expected = case.call(*args), case.composition(*args)
    assert value.shape == expected.shape
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-14)
    once, again = scalar(case.call), scalar(case.composition)
    pairs = [*zip(gradient(once, args), gradient(again, args), strict=True)]
    pairs += zip(*(gradient(squared_gradient_norm(fun), args) for fun in (once, again)), strict=True)
    for actual, wanted in pairs:
        np.testing.assert_allclose(actual, wanted, rtol=1e-10, atol=1e-10)
    for arg, kept in zip(args, before):
        np.testing.assert_array_equal(arg, kept)


@every_call
def test_float32_has_float32_values_and_first_and_second_derivatives(case, shape):
    args = case.arguments(shape, np.float32)
    once = scalar(case.call)
    results = [case.call(*args), *gradient(once, args), *gradient(squared_gradient_norm(once), args)]
    assert {result.dtype for result in results} == {np.dtype(np.float32)}


@every_call
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_a_device_value_and_both_derivatives_are_the_hosts_and_nothing_is_sent(case, shape, dtype, device):
    def everything(args):
        tree = {str(number): arg for number, arg in enumerate(args)}
        results = [case.call(*args)]
        for scale in (scalar(case.call), squared_gradient_norm(scalar(case.call))):
            value, slopes = value_and_grad(lambda tree, scale=scale: scale(*tree.values()))(tree)
            results += [value, *slopes.values()]
        return results

    args = case.arguments(shape, dtype)
    there = to_device(args, device.name)
    everything(there)  # fixed arrays of the case are sent the first time
    with stand_in.counted() as transfers:
        results = everything(there)
    assert transfers == stand_in.Transfers(0, 0)
    assert_agrees(device, results, everything(args))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("function", "values"),
    [
        (P.tanh, [-1, 1]),
        (P.sigmoid, [0, 1]),
        (P.softplus, [0, 1e4]),
        (P.log_sigmoid, [-1e4, 0]),
        (P.relu, [0, 1e4]),
        (P.leaky_relu, [-100, 1e4]),
        (P.elu, [-1, 1e4]),
        (P.elu_slope, [0, 1]),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_activations_of_extreme_inputs_and_their_derivatives_are_finite(function, values, dtype):
    x = np.array([-1e4, 1e4], dtype)
    np.testing.assert_allclose(function(x), values, rtol=1e-6)
    assert np.isfinite(gradient(scalar(function), [x])).all()
    assert np.isfinite(gradient(squared_gradient_norm(scalar(function)), [x])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_logsumexp_of_extreme_inputs_and_its_derivatives_are_finite(dtype):
    x = np.array([[1e4, -1e4], [-1e4, -1e4], [1e4, 1e4]], dtype)
    total = lambda x: anp.sum(P.logsumexp_last(x))
    np.testing.assert_allclose(P.logsumexp_last(x), [1e4, -1e4 + np.log(2), 1e4 + np.log(2)], rtol=1e-6)
    np.testing.assert_allclose(gradient(total, [x])[0], [[1, 0], [0.5, 0.5], [0.5, 0.5]], rtol=2e-3)
    assert np.isfinite(gradient(squared_gradient_norm(total), [x])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_log_softmax_of_extreme_inputs_and_its_derivatives_are_exact(dtype):
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -2e4], [0, 0, 0]], dtype)
    labels = np.array([1, 0, 2])
    total = lambda x: anp.sum(P.log_softmax_at(x, labels))
    np.testing.assert_allclose(P.log_softmax_at(x, labels), [-2e4, -np.log(2), -np.log(3)], rtol=1e-6)
    slopes = [[-1, 1, 0], [0.5, -0.5, 0], [-1 / 3, -1 / 3, 2 / 3]]
    np.testing.assert_allclose(gradient(total, [x])[0], slopes, rtol=1e-6, atol=1e-30)
    assert np.isfinite(gradient(squared_gradient_norm(total), [x])).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_no_gradient_of_a_softmax_is_a_denormal_number(dtype):
    x = np.linspace(-2, 0, 256, dtype=dtype)[None] * -np.log(np.finfo(dtype).tiny)
    slopes = gradient(lambda x: anp.sum(P.log_softmax_at(x, np.array([255]))) / 1000, [x])[0]
    assert (abs(slopes) > np.finfo(dtype).tiny).all()
    expected = np.exp(x) / np.exp(x).sum()
    np.testing.assert_allclose(P.softmax_last(x), expected, rtol=1e-5, atol=np.finfo(dtype).tiny ** 0.75)


@pytest.mark.parametrize("k", [2, 256, 257, 300])
@pytest.mark.parametrize("kind", [np.uint8, np.int8, np.int64])
def test_labels_of_any_integers_stand_for_themselves(kind, k):
    labels = np.array([0, 1, min(k - 1, np.iinfo(kind).max)], kind)
    x = np.random.default_rng(0).standard_normal((3, k))
    expected = x[np.arange(3), labels.astype(int)] - np.log(np.sum(np.exp(x), axis=-1))
    np.testing.assert_allclose(P.log_softmax_at(x, labels), expected, rtol=1e-12)
    one_hot = np.eye(k)[labels.astype(int)]
    np.testing.assert_array_equal(P.one_hot_minus(0 * x, labels, np.ones(3)), one_hot)


def test_a_program_of_a_softmax_takes_the_exponentials_once():
    x, labels = np.zeros((5, 4)), np.arange(5) % 4
    program = record(lambda params, labels: anp.sum(P.log_softmax_at(params["x"], labels)), {"x": x}, labels)
    assert program.source.count("np.exp(") == 1


@pytest.mark.parametrize(
    ("lower", "unit_diagonal"), [(True, False), (False, False), (True, True), (False, True)]
)
def test_solve_triangular_does_not_read_the_rest_of_the_matrix(lower, unit_diagonal):
    triangle, edge = (np.tril, -1) if lower else (np.triu, 1)
    y = np.random.default_rng(0).standard_normal((5, 3))
    clean = triangle(np.full((3, 3), 2.0))
    unread = clean == 0 if not unit_diagonal else triangle(np.ones((3, 3)), edge) == 0
    x = P.solve_triangular(y, np.where(unread, np.nan, clean), lower, unit_diagonal)
    matrix = triangle(clean, edge) + np.eye(3) if unit_diagonal else clean
    np.testing.assert_allclose(x @ matrix, y)


@every_shape
def test_split_last_gives_two_parts_that_concatenate_last_joins_again(shape):
    x = np.random.default_rng(0).standard_normal(shape)
    first, second = P.split_last(x, 1)
    assert (first.shape[-1], second.shape[-1]) == (1, shape[-1] - 1)
    np.testing.assert_array_equal(P.concatenate_last(first, second), x)


@pytest.mark.parametrize("seed", range(3))
def test_permute_and_the_permutation_sorted_back_undo_each_other(seed):
    rng = np.random.default_rng(seed)
    x, permutation = rng.standard_normal((3, 6)), rng.permutation(6)
    y = P.permute(x, permutation)
    np.testing.assert_array_equal(y[:, 0], x[:, permutation[0]])
    np.testing.assert_array_equal(P.permute(y, np.argsort(permutation)), x)


def test_small_values_of_sigmoid_keep_their_precision():
    np.testing.assert_allclose(P.sigmoid(np.array([-40.0, -700.0])), np.exp([-40.0, -700.0]), rtol=1e-12)
    single = P.sigmoid(np.float32([-18.0]))
    np.testing.assert_allclose(single, np.exp(-18.0), rtol=1e-6)


def test_softplus_is_exact_far_out():
    x = np.array([-700.0, -40.0, 40.0, 700.0, 1e30])
    np.testing.assert_allclose(P.softplus(x), [np.exp(-700.0), np.exp(-40.0), 40, 700, 1e30], rtol=1e-12)
    slopes = autograd.grad(lambda x: anp.sum(P.softplus(x)))(x)
    np.testing.assert_allclose(slopes, [np.exp(-700.0), np.exp(-40.0), 1, 1, 1], rtol=1e-12)
    np.testing.assert_array_equal(P.softplus(np.float32([-1e30, 1e30])), np.float32([0, 1e30]), strict=True)


def test_softmax_of_numbers_of_any_size_adds_up_to_the_total():
    x = 1e30 * np.random.default_rng(0).standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(S.softmax_planes(x, 3.0).sum(-2), np.full((2, 3), 3.0), rtol=1e-6)


def test_products_do_not_warn_of_what_blas_finds_behind_the_last_number():
    """An infinity times zero is as invalid as the garbage that BLAS may read; the result tells them apart."""
    x = np.array([[np.inf, 1.0]])
    weight = np.array([[0.0], [1.0]])
    assert np.isnan(P.linear(x, weight)).all()
    assert np.isnan(P.dense(x, weight, np.zeros(1))).all()
    assert np.isnan(P.sum_event(np.array([[np.inf, -np.inf]]))).all()
    assert np.isnan(P.sum_rows(np.array([[np.inf], [-np.inf]]))).all()


def test_the_log_det_of_a_singular_matrix_has_no_gradient_and_other_rows_have_theirs():
    J = np.stack([2 * np.eye(2), np.ones((2, 2))])
    assert P.log_abs_det(J)[1] == -np.inf
    gradient = autograd.elementwise_grad(P.log_abs_det)(J)
    np.testing.assert_allclose(gradient[0], np.eye(2) / 2)
    assert np.isnan(gradient[1]).all()
