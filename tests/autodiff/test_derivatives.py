"""npflow's derivatives of autograd's functions, held against autograd's own."""

import operator

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd.core import VJPNode, primitive_vjps
from autograd.test_util import check_grads

from npflow.autodiff import record, tree, value_and_grad
from npflow.autodiff.derivatives import scatter, sum_to
from npflow.autodiff.gradient import DERIVATIVES

OPERATIONS = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "true_divide": operator.truediv,
}
SHAPES = [
    ((4, 3), (4, 3)),
    ((4, 3), (3,)),
    ((3,), (4, 3)),
    ((4, 3), (1, 3)),
    ((4, 3), (4, 1)),
    ((4, 1), (1, 3)),
    ((4, 3), ()),
    ((), (4, 3)),
    ((), ()),
    ((2, 4, 3), (3,)),
    ((2, 4, 3), (4, 1)),
    ((2, 4, 3), (1, 1, 3)),
    ((2, 1, 3), (1, 4, 1)),
    ((1, 3), (1, 1)),
    ((1, 1), (1, 1)),
    ((1,), (3,)),
    ((1, 1), (1,)),
    ((0, 3), (3,)),
    ((0, 3), (0, 1)),
    ((4, 0), (4, 1)),
]
X = np.random.default_rng(0).standard_normal((4, 3))


def draw(shape, dtype=np.float64, seed=0):
    """Numbers away from zero, which they may be divided by."""
    return np.asarray(np.random.default_rng(seed).uniform(0.5, 2, shape), dtype)


def weighted(fun):
    """A scalar whose gradient tells every element of the function's value apart."""
    return lambda *args: anp.sum(weights(anp.shape(y := fun(*args)), y.dtype) * anp.sin(y))


def weights(shape, dtype):
    return np.asarray(1 + np.arange(np.prod(shape, dtype=int)).reshape(shape), dtype)


def ours(fun, *args):
    _, gradients = value_and_grad(lambda params: fun(*params))(list(args))
    return gradients


def autograds(fun, *args):
    return [autograd.grad(fun, argnum)(*args) for argnum in range(len(args))]


def assert_like(got, expected, arguments, rtol):
    assert [g.shape for g in map(np.asarray, got)] == [np.shape(a) for a in arguments]
    assert [g.dtype for g in map(np.asarray, got)] == [a.dtype for a in arguments]
    for one, other in zip(got, expected):
        np.testing.assert_allclose(one, other, rtol=rtol, atol=rtol)


# ---------------------------------------------------------------- arithmetic


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_derivatives_of_arithmetic_equal_autograds(name, shapes):
    fun = weighted(OPERATIONS[name])
    arguments = [draw(shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert_like(ours(fun, *arguments), autograds(fun, *arguments), arguments, 1e-12)


@pytest.mark.parametrize("shapes", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_derivatives_of_arithmetic_keep_float32(name, shapes):
    fun = weighted(OPERATIONS[name])
    arguments = [draw(shape, np.float32, seed) for seed, shape in enumerate(shapes)]
    expected = autograds(fun, *(argument.astype(float) for argument in arguments))
    assert_like(ours(fun, *arguments), expected, arguments, 1e-4)


@pytest.mark.parametrize("number", [2, 2.5, np.float64(2.5), np.ones(3)], ids=repr)
@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_other_argument_may_be_a_constant(name, swapped, number):
    fun = weighted(lambda x: OPERATIONS[name](*((number, x) if swapped else (x, number))))
    assert_like(ours(fun, draw((4, 3))), autograds(fun, draw((4, 3))), [draw((4, 3))], 1e-12)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_argument_that_is_used_twice_gets_both_parts(name):
    fun = weighted(lambda x: OPERATIONS[name](x, x * x))
    assert_like(ours(fun, draw((4, 3))), autograds(fun, draw((4, 3))), [draw((4, 3))], 1e-12)


@pytest.mark.parametrize(
    "shapes", [((4, 3), (4, 3)), ((4, 3), (3,)), ((4, 1), (1, 3)), ((), (2, 3))], ids=str
)
@pytest.mark.parametrize("name", OPERATIONS)
def test_second_derivatives_of_arithmetic_equal_finite_differences(name, shapes):
    arguments = [draw(shape, seed=seed) for seed, shape in enumerate(shapes)]
    assert_second_order(OPERATIONS[name], *arguments)


def assert_second_order(fun, *arguments):
    """The gradient of a function of npflow's gradient, against finite differences."""

    def of_gradient(params):
        _, gradients = value_and_grad(lambda inner: weighted(fun)(*inner))(params)
        return sum(anp.sum(anp.cos(gradient)) for gradient in gradients)

    _, gradients = value_and_grad(of_gradient)(list(arguments))
    step = 1e-6
    for number, argument in enumerate(arguments):
        numerical = np.zeros(argument.shape)
        for index in np.ndindex(argument.shape):
            around = []
            for sign in (1, -1):
                moved = [a.copy() for a in arguments]
                moved[number][index] += sign * step
                around.append(of_gradient(moved))
            numerical[index] = (around[0] - around[1]) / (2 * step)
        np.testing.assert_allclose(gradients[number], numerical, rtol=1e-5, atol=1e-5)


# ---------------------------------------------------------------- sums over what was broadcast


@pytest.mark.parametrize(
    ("shape", "to"),
    [
        ((4, 3), (4, 3)),
        ((4, 3), ()),
        ((4, 3), (3,)),
        ((4, 3), (1, 3)),
        ((4, 3), (4, 1)),
        ((4, 3), (1, 1)),
        ((2, 4, 3), (3,)),
        ((2, 4, 3), (4, 3)),
        ((2, 4, 3), (2, 1, 1)),
        ((1, 3), (1, 1)),
        ((1, 3), (3,)),
        ((1, 1), (1,)),
        ((0, 3), (1, 3)),
        ((3,), (1,)),
    ],
)
def test_a_sum_over_broadcast_axes_undoes_broadcasting(shape, to):
    g = draw(shape)
    got = sum_to(g, to)
    # what broadcasting multiplies is what the sum adds up: <g, broadcast(y)> = <sum_to(g), y>
    for place_of_one in np.ndindex(to):
        y = np.zeros(to)
        y[place_of_one] = 1
        np.testing.assert_allclose(got[place_of_one], np.sum(g * np.broadcast_to(y, shape)), rtol=1e-12)
    assert np.shape(got) == to


def test_what_was_not_broadcast_is_not_touched():
    g = draw((4, 3))
    assert sum_to(g, (4, 3)) is g


@pytest.mark.parametrize("to", [(), (3,), (4, 1), (1, 3), (1, 1)])
def test_a_sum_over_broadcast_axes_keeps_float32_and_has_derivatives(to):
    assert sum_to(draw((4, 3), np.float32), to).dtype == np.float32
    check_grads(lambda g: sum_to(g, to), modes=["rev"], order=2)(draw((4, 3)))


# ---------------------------------------------------------------- indices

INDICES = {
    "all": slice(None),
    "ellipsis": Ellipsis,
    "empty": (),
    "new axis": None,
    "new axes": (None, Ellipsis, None),
    "new axis between": (slice(None), None, slice(None)),
    "row": 1,
    "last row": -1,
    "element": (1, 2),
    "column": (slice(None), 1),
    "slice": slice(1, 3),
    "step": slice(None, None, 2),
    "backwards": slice(None, None, -1),
    "slices": (slice(1, None), slice(None, -1)),
    "ellipsis and slice": (Ellipsis, slice(1, 2)),
    "slice and new axis": (slice(1, 2), None),
    "nothing": slice(0, 0),
    "integers": np.array([2, 0]),
    "repeated integers": np.array([1, 1, 0, 1]),
    "negative integers": np.array([-1, 3]),
    "list": [0, 0, 2],
    "matrix of integers": np.array([[0, 1], [1, 1]]),
    "pairs": (np.array([0, 0, 1]), np.array([2, 2, 1])),
    "integers of columns": (slice(None), np.array([0, 0])),
    "integer and integers": (1, np.array([0, 2, 0])),
    "integers and new axis": (np.array([0, 0]), None),
    "mask": np.array([True, False, True, True]),
    "mask of elements": X > 0,
    "NumPy's integer": np.int64(2),
}


@pytest.mark.parametrize("name", INDICES)
def test_the_derivative_of_an_index_equals_autograds(name):
    fun = weighted(lambda x: x[INDICES[name]])
    assert_like(ours(fun, X), autograds(fun, X), [X], 1e-13)


@pytest.mark.parametrize("name", INDICES)
def test_the_derivative_of_an_index_is_an_array_and_keeps_float32(name):
    (gradient,) = ours(weighted(lambda x: x[INDICES[name]]), X.astype(np.float32))
    assert (type(gradient), gradient.dtype, gradient.shape) == (np.ndarray, np.float32, (4, 3))


@pytest.mark.parametrize("name", ["new axes", "element", "slices", "backwards", "repeated integers", "pairs"])
def test_second_derivatives_of_an_index_equal_finite_differences(name):
    assert_second_order(lambda x: x[INDICES[name]] ** 2, X)


def test_parts_of_one_array_add_up():
    fun = lambda x: anp.sum(x[0] ** 2) + anp.sum(x[1:] ** 3) + anp.sum(x[np.array([0, 0])]) + x[3, 2]
    assert_like(ours(fun, X), autograds(fun, X), [X], 1e-13)


def test_an_index_of_a_vector_and_of_one_element():
    for x, index in [
        (np.array([1.0, 2.0]), 1),
        (np.array([3.0]), 0),
        (np.array(4.0), ()),
        (np.array(4.0), None),
    ]:
        fun = weighted(lambda x, index=index: x[index])
        assert_like(ours(fun, x), autograds(fun, x), [x], 1e-13)


def test_place_adds_up_what_stands_in_one_place():
    g = np.array([1.0, 2.0, 4.0], np.float32)
    got = scatter(g, np.array([0, 2, 0]), (3,))
    np.testing.assert_array_equal(got, [5, 0, 2])
    assert got.dtype == np.float32


@pytest.mark.parametrize(
    "index",
    [
        2,
        -1,
        slice(None, None, 2),
        (slice(1, 3), 0),
        (Ellipsis, 1),
        (None, 3),
        (1, [0, 0, 1]),
        [True, False, True, True],
    ],
    ids=str,
)
def test_place_is_the_same_whether_elements_can_be_read_twice_or_not(index):
    g = draw(X[index].shape)
    expected = np.zeros_like(X)
    np.add.at(expected, index, g)
    np.testing.assert_array_equal(scatter(g, index, X.shape), expected)


@pytest.mark.parametrize(
    ("index", "shape"), [(slice(1, 3), (4, 3)), (np.array([0, 0, 2]), (4, 3)), ((Ellipsis, 1), (4, 3))]
)
def test_place_has_derivatives(index, shape):
    g = draw(np.zeros(shape)[index].shape)
    check_grads(lambda g: scatter(g, index, shape) ** 2, modes=["rev"], order=2)(g)


# ---------------------------------------------------------------- autograd is left as it is


def test_npflow_has_derivatives_of_its_own_for_these():
    assert set(DERIVATIVES) >= {anp.add, anp.subtract, anp.multiply, anp.true_divide}
    assert len(DERIVATIVES) == 9


CONDITION = X > 0
CHOICES = {
    "where": lambda a, b: anp.where(CONDITION, a, b),
    "clip": lambda a, b: anp.clip(X.astype(a.dtype) - 1, a - 2, b),
    "clip of a": lambda a, b: anp.clip(a, anp.minimum(b, 1.0), 1.5),
    "broadcast_to": lambda a, b: anp.broadcast_to(a, X.shape) * b,
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("shapes", [((4, 3), (4, 3)), ((3,), (4, 1)), ((), (4, 3)), ((1, 3), ())])
def test_a_choice_sums_over_broadcast_axes(name, shapes, dtype):
    if name == "clip of a":  # the result has the shape of both
        shapes = shapes[0], shapes[0]
    a, b = (draw(shape, seed=seed) for seed, shape in enumerate(shapes))
    fun = lambda params: anp.sum(anp.sin(CHOICES[name](params["a"], params["b"])))
    params = {"a": a.astype(dtype), "b": b.astype(dtype)}
    _, gradient = value_and_grad(fun)(params)
    _, replayed = record(fun, params)(params)
    assert replayed.tobytes() == tree.Layout(params).pack(gradient).tobytes()
    for path, value in (("a", a), ("b", b)):
        if gradient[path] is None:
            continue
        assert (gradient[path].shape, gradient[path].dtype) == (value.shape, dtype)
        way, step = np.random.default_rng(2).standard_normal(value.shape), 1e-6
        high, low = (fun({"a": a, "b": b, path: value + sign * step * way}) for sign in (1, -1))
        assert np.sum(gradient[path] * way) == pytest.approx((high - low) / (2 * step), rel=1e-4, abs=1e-4)


PROMOTING = {
    **{name: getattr(anp, name) for name in ("mean", "var", "std", "max", "min", "log2", "log10", "exp2")},
    "maximum": lambda x: anp.maximum(x, 1.0),
    "fmin": lambda x: anp.fmin(x, 1.0),
    "a power of an integer": lambda x: x ** np.arange(3),
    "trace": lambda x: anp.trace(x[:3]),
    "einsum": lambda x: anp.einsum("ij->i", x),
}


@pytest.mark.parametrize("name", PROMOTING)
def test_derivatives_of_autograds_that_promote_are_kept_in_the_dtype(name):
    loss = lambda params: anp.sum(PROMOTING[name](params["x"]))
    single, double = (value_and_grad(loss)({"x": draw((4, 3), dtype)})[1]["x"] for dtype in "fd")
    assert (single.dtype, double.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single, double, rtol=1e-5)


def test_a_derivative_of_another_shape_than_its_argument_is_refused():
    loss = lambda params: anp.sum(anp.linalg.norm(params["x"], axis=1, keepdims=True))
    with pytest.raises(NotImplementedError, match="VJP of norm has shape"):
        value_and_grad(loss)({"x": X})


def test_autograds_own_derivatives_are_what_they_were():
    for function, own in DERIVATIVES.items():
        assert function in primitive_vjps
        assert primitive_vjps[function] is not own
    assert all(
        maker.__module__.startswith("autograd") for fun, maker in primitive_vjps.items() if fun in DERIVATIVES
    )


def test_autograd_uses_its_own_derivatives():
    def boom(*args):
        raise AssertionError("npflow's derivative ran under autograd")

    before = dict(DERIVATIVES)
    DERIVATIVES.update(dict.fromkeys(DERIVATIVES, boom))
    try:
        fun = lambda x: anp.sum((x[1:] * x[:-1] + x[0]) / 2 - 1)
        expected = np.zeros(4)
        for i in range(3):
            expected[i] += [2.0, 4.0, 8.0][i] / 2
            expected[i + 1] += [1.0, 2.0, 4.0][i] / 2
        expected[0] += 1.5
        np.testing.assert_allclose(autograd.grad(fun)(np.array([1.0, 2.0, 4.0, 8.0])), expected)
        with pytest.raises(AssertionError, match="npflow's derivative ran"):
            value_and_grad(fun)(np.ones(4))  # the same under npflow would
    finally:
        DERIVATIVES.update(before)


def test_nodes_of_autograd_and_of_npflow_do_not_mix():
    # a gradient of autograd's inside of npflow's, and the other way round
    w = draw((3,))
    inner = lambda x: anp.sum(x[:2] * x[1:] ** 2)
    one = value_and_grad(lambda p: anp.sum(autograd.grad(inner)(p["w"]) ** 2))({"w": w})[1]["w"]
    other = autograd.grad(lambda w: anp.sum(value_and_grad(lambda p: inner(p["w"]))({"w": w})[1]["w"] ** 2))(
        w
    )
    plain = autograd.grad(lambda w: anp.sum(autograd.grad(inner)(w) ** 2))(w)
    np.testing.assert_allclose(one, plain, rtol=1e-12)
    np.testing.assert_allclose(other, plain, rtol=1e-12)
    assert VJPNode.__init__.__module__ == "autograd.core"


def test_gradients_are_arrays_of_their_own():
    # a derivative that hands its gradient on must not let two leaves share memory that one writes to
    params = {"a": X.copy(), "b": X.copy()}
    _, gradient = value_and_grad(lambda p: anp.sum(p["a"] + p["b"]) + anp.sum(p["a"] * 2))(params)
    for path, expected in (("a", 3.0), ("b", 1.0)):
        np.testing.assert_array_equal(dict(tree.items(gradient))[path], np.full((4, 3), expected))


def test_a_real_argument_of_a_complex_product_has_a_real_gradient():
    x = np.array([1.0, 2.0, 3.0])
    fun = lambda params: anp.sum(anp.real((params["w"] * 1j + x) * anp.exp(1j * params["w"])))
    _, gradient = value_and_grad(fun)({"w": x})
    expected = autograd.grad(lambda w: fun({"w": w}))(x)
    assert gradient["w"].dtype == np.float64
    np.testing.assert_allclose(gradient["w"], expected, rtol=1e-12)


# ---------------------------------------------------------------- transposes


@pytest.mark.parametrize("axes", [None, (0, 1, 2), (2, 0, 1), (1, 2, 0), (-1, 0, -2), [0, 2, 1]], ids=str)
def test_the_derivative_of_a_transpose_puts_the_axes_back(axes):
    fun = lambda x: anp.transpose(x, axes)
    x = draw((2, 3, 4))
    (gradient,) = ours(weighted(fun), x)
    np.testing.assert_array_equal(fun(gradient), weights(fun(x).shape, x.dtype) * np.cos(fun(x)))
    assert_second_order(fun, x)
