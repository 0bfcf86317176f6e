"""A program gives what the plain function gives, to the bit, and refuses what it was not recorded for."""

import copy
import itertools
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import autograd.numpy as anp
import autograd.scipy.special
import autograd.scipy.stats
import numpy as np
import pytest
from autograd import builtins, checkpoint, elementwise_grad, grad, hessian, jacobian, make_jvp
from autograd.extend import defvjp, primitive
from autograd.misc import flatten
from autograd.misc.fixed_points import fixed_point
from autograd.misc.tracers import const_graph
from helpers import refusal
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import bits, functions, inputs

from npflow.autodiff import Layout, tree, value_and_grad
from npflow.autodiff.program import record
from npflow.errors import InputError
from npflow.models import glow
from npflow.networks import MLP

rng = np.random.default_rng(0)
PARAMS = {"w": rng.standard_normal((3, 2)), "v": rng.standard_normal(3), "s": np.array(0.7)}
X = rng.standard_normal((4, 3))
MATRIX = rng.standard_normal((3, 3)) + 4 * np.eye(3)


def loss(params, x):
    return anp.sum(anp.tanh(anp.dot(x, params["w"])) ** 2) * params["s"]


def scaled(thing, factor):
    """A tree with its float arrays multiplied, to the dtype they have."""
    scale = lambda _, leaf: leaf * leaf.dtype.type(factor) if np.asarray(leaf).dtype.kind == "f" else leaf
    return tree.build(scale, thing)


def assert_repeats(fun, params, *args, gradient=True):
    """A program of the function gives the function's bits, again and again, on other values too."""
    program, results = record(fun, params, *args, gradient=gradient), []
    for factor in (1, 1.125, 0.75):
        inputs = scaled(params, factor), *scaled(args, factor)
        before = [bits(leaf) for _, leaf in tree.items(inputs)]
        got = program(*inputs)
        if gradient:
            value, leaves = value_and_grad(fun)(*inputs)
            expected = value, Layout(params).pack(leaves)
        else:
            got, expected = (got,), (fun(*inputs),)
        assert list(map(bits, got)) == list(map(bits, expected))
        assert [bits(leaf) for _, leaf in tree.items(inputs)] == before  # nothing was written to
        results.append((got, list(map(bits, expected))))
    for got, expected in results:  # nothing was written over since
        assert list(map(bits, got)) == expected
    assert program.peak_bytes <= program.bytes_without_reuse
    return program


# ---------------------------------------------------------------- the same bits


@settings(deadline=None, max_examples=25)
@given(functions, st.sampled_from([np.float32, np.float64]))
def test_a_program_repeats_any_function_to_the_bit(fun, dtype):
    assert_repeats(fun, *inputs(dtype))


def test_a_gradient_of_parameters_in_float32_may_be_computed_in_float64():
    def fun(params, x):
        wide = (x + params["bias"])[1:2] * anp.ones((4, 1))  # ones in float64
        return anp.sum(anp.tanh(wide)) + anp.sum(anp.tanh(x + params["bias"]) ** 2) / 3

    assert_repeats(fun, *inputs(np.float32))


DIVERSE = {
    "all in one": lambda p, x: anp.sum(anp.exp(anp.dot(x, p["w"]))) + anp.sum(p["v"] * p["v"] + p["v"]),
    "used twice": lambda p, x: anp.sum(p["v"] * x) * anp.sum(p["v"] + x),
    "stack": lambda p, x: anp.sum(anp.stack([p["v"], p["v"] * 2, x[0]], axis=1) ** 2),
    "vstack": lambda p, x: (
        anp.sum(anp.vstack((p["v"], x[0])) ** 2) + anp.sum(anp.hstack((p["v"], x[0])) ** 3)
    ),
    "array": lambda p, x: anp.sum(anp.array([p["s"], p["s"] ** 2, 1.0]) ** 2),
    "einsum": lambda p, x: anp.sum(anp.einsum("ij,jk->ik", x, p["w"]) ** 2),
    "outer": lambda p, x: anp.sum(anp.outer(p["v"], x[0]) ** 2) + anp.inner(p["v"], x[0]),
    "where": lambda p, x: anp.sum(anp.where(x > 0, x * p["v"], x)),
    "clip": lambda p, x: anp.sum(anp.clip(x * p["v"], -0.5, 0.5) ** 2),
    "max": lambda p, x: anp.sum(anp.max(x * p["v"], axis=0)) + anp.max(p["w"]),
    "min": lambda p, x: anp.sum(anp.min(x * p["v"], axis=1, keepdims=True) * p["v"]),
    "mean": lambda p, x: anp.mean(x * p["v"]) + anp.sum(anp.mean(x * p["v"], axis=0)),
    "var": lambda p, x: anp.var(x * p["v"]) + anp.sum(anp.std(x * p["v"], axis=0)),
    "cumsum": lambda p, x: anp.sum(anp.cumsum(x * p["v"], axis=0) ** 2) + anp.sum(anp.cumsum(p["v"]) ** 2),
    "prod": lambda p, x: anp.prod(p["v"]) + anp.sum(anp.prod(x * p["v"], axis=0)),
    "power": lambda p, x: anp.sum(anp.abs(p["v"]) ** 2.5 + p["v"] ** 3 + 2.0 ** p["v"]),
    "repeat": lambda p, x: anp.sum(anp.tile(p["v"], (2, 2)) ** 2) + anp.sum(anp.repeat(p["v"], 3) ** 2),
    "pad": lambda p, x: anp.sum(anp.pad(p["v"], (1, 2), "constant") ** 2) + anp.sum(anp.roll(p["v"], 1) * x),
    "axes": lambda p, x: anp.sum(anp.swapaxes(p["w"], 0, 1)[:, None] * x[:, None, :2].mean()),
    "transposes": lambda p, x: anp.sum(anp.dot(p["w"].T, x.T)) + anp.sum(anp.dot(x.T.T, p["w"].T.T)),
    "rows": lambda p, x: sum(anp.sum(row**2) for row in p["w"]),
    "unpacked": lambda p, x: (lambda a, b, c: a * b + c)(*p["v"]),
    "repeated index": lambda p, x: anp.sum(p["w"][np.array([0, 1, 1, 2])] ** 2 * x[:, :1]),
    "index lists": lambda p, x: anp.sum(p["w"][[0, 1, 1], 0] ** 2) + anp.sum(p["w"][:, (0, 1)][(0, 0), :]),
    "integer": lambda p, x: anp.sum((x > 0).astype(int) * p["v"]) + anp.sum((x == x).astype("f4") * p["v"]),
    "argmax": lambda p, x: anp.sum(p["w"][anp.argmax(anp.dot(x, p["w"]), axis=1)]),
    "scalars": lambda p, x: p["s"] * 2 + p["s"] ** 2 / 3 - anp.exp(p["s"]) * p["s"],
    "a row of scalars": lambda p, x: anp.sum(p["s"] * np.ones(3) + p["s"] * np.ones(3) + x),
    "softmax": lambda p, x: anp.sum(autograd.scipy.special.logsumexp(x * p["v"], axis=1)),
    "keyword shape": lambda p, x: anp.sum(anp.reshape(p["v"], shape=(3,)) ** 2),
    "view as value": lambda p, x: anp.reshape(anp.sum(x * p["v"], keepdims=True) * 2, ()),
    "parameter as value": lambda p, x: p["s"],
    "data as value": lambda p, x: anp.sum(x),
    "constant as value": lambda p, x: 3.0,
    "negative zeros": lambda p, x: anp.sum(1 / (anp.where(x[0] > 0, p["v"], np.full(3, -0.0)) * 0.0 + x[0])),
}


@pytest.mark.parametrize("name", DIVERSE)
def test_a_program_repeats_functions_of_all_kinds(name):
    assert_repeats(DIVERSE[name], PARAMS, X)


def a_square():
    square = primitive(lambda x: x * x)
    defvjp(square, lambda ans, x: lambda g: 2 * g * x)
    return square


def a_maximum():
    largest = primitive(lambda x: float(np.max(x)))
    defvjp(largest, lambda ans, x: lambda g: g * (x == ans))
    return largest


tanh_of_product = lambda h, v: anp.tanh(h * v)
far = lambda x, y: np.max(np.abs(x - y))
WRAPPED = {
    "checkpoint": lambda p, x: anp.sum(checkpoint(tanh_of_product)(x, p["v"])),
    "checkpoint in another": lambda p, x: anp.sum(
        checkpoint(lambda h, v: checkpoint(tanh_of_product)(h, v) * v)(x, p["v"])
    ),
    "primitive in the function": lambda p, x: anp.sum(a_square()(x * p["v"])),
    "primitive that returns a Python number": lambda p, x: a_maximum()(x * p["v"]) * anp.sum(p["v"]),
    "fixed_point": lambda p, x: anp.sum(
        fixed_point(lambda a: lambda z: anp.tanh(z) / 2 + a, x * p["v"], np.zeros((4, 3)), far, 1e-12)
    ),
    "list": lambda p, x: anp.sum(builtins.list([x * p["v"], x])[0] ** 2),
    "tuple": lambda p, x: anp.sum((builtins.tuple([x * p["v"], x]) + builtins.tuple([x]))[1] * p["v"]),
    "dict": lambda p, x: sum(anp.sum(one**2) for one in builtins.dict({"a": x * p["v"], "b": x}).values()),
    "isinstance": lambda p, x: anp.sum(x * p["v"]) * (2 if builtins.isinstance(x, np.ndarray) else 3),
    "grad": lambda p, x: anp.sum(grad(lambda y: anp.sum(anp.tanh(y * p["v"])))(x) ** 2),
    "grad in a tree": lambda p, x: sum(
        anp.sum(one**2) for one in grad(lambda q: anp.sum(anp.tanh(x * q["v"])) * q["s"])(p).values()
    ),
    "elementwise_grad": lambda p, x: anp.sum(elementwise_grad(lambda y: anp.tanh(y * p["v"]) + y)(x) ** 2),
    "jacobian": lambda p, x: anp.linalg.slogdet(jacobian(lambda y: anp.tanh(y * p["v"]) + y)(x[0]))[1],
    "hessian": lambda p, x: anp.sum(hessian(lambda y: anp.sum(anp.tanh(y * p["v"])))(x[0]) ** 2),
    "make_jvp": lambda p, x: anp.sum(make_jvp(lambda y: anp.tanh(y * p["v"]))(x)(x)[1]),
    "const_graph": lambda p, x: const_graph(lambda y: anp.sum(anp.tanh(y * p["v"])))(x),
    "flatten": lambda p, x: anp.sum(flatten(p)[1](flatten(p)[0] * 2)["v"] * x),
    "fft": lambda p, x: anp.sum(anp.abs(anp.fft.fft(x * p["v"])) ** 2),
    "norms": lambda p, x: anp.linalg.norm(x * p["v"]) + anp.sum(anp.linalg.norm(x * p["v"], axis=1)),
    "scipy": lambda p, x: anp.sum(autograd.scipy.stats.norm.logpdf(x, p["v"], anp.exp(p["s"]))),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_a_program_repeats_what_is_wrapped_in_autograds_functions(name):
    program = assert_repeats(WRAPPED[name], PARAMS, X)
    assert list(map(bits, copy.deepcopy(program)(PARAMS, X))) == list(map(bits, program(PARAMS, X)))


@pytest.mark.parametrize(
    "fun",
    [
        lambda p: anp.sum(anp.linalg.solve(p["a"], X.T) ** 2),
        lambda p: anp.sum(anp.linalg.inv(p["a"])) + anp.linalg.det(p["a"]),
        lambda p: anp.linalg.slogdet(p["a"])[1] + anp.linalg.norm(p["a"]),
        lambda p: anp.sum(anp.linalg.cholesky(anp.dot(p["a"], p["a"].T))),
    ],
)
def test_a_program_repeats_linear_algebra(fun):
    assert_repeats(fun, {"a": MATRIX})


wide = rng.standard_normal((9, 6))


@pytest.mark.parametrize(
    "x",
    [
        X[:1],  # one row
        X[:0],  # no row
        np.zeros((4, 3)),
        np.asfortranarray(rng.standard_normal((500, 3))),  # summed in another order
        wide[:, ::2],
        wide[::2, ::-2],
        wide[:3, :4].T,
    ],
    ids=lambda x: f"{x.shape} {x.strides}",
)
def test_a_program_reads_data_of_any_layout(x):
    assert_repeats(lambda p, x: anp.sum(anp.sum(anp.exp(x * p["v"]), axis=1) ** 2), PARAMS, x)


def test_data_in_fortran_order_is_tried_in_that_order_too():
    # Tried in another, sums would differ in their last bits, and the function seem to draw random numbers.
    x = np.asfortranarray(rng.standard_normal((70, 3)))
    assert_repeats(lambda p, x: anp.sum(anp.dot(anp.exp(x * p["v"]), p["w"])), PARAMS, x)
    assert_repeats(lambda p, x: anp.sum(anp.exp(x * p["v"])), PARAMS, x)


@pytest.mark.parametrize("leaf", [np.asfortranarray(MATRIX), wide[:3, :3], wide[3:6, 5:2:-1], wide[:3, :3].T])
def test_a_program_reads_parameters_of_any_layout(leaf):
    assert_repeats(lambda p, x: anp.sum(anp.tanh(anp.dot(x, p["a"])) + anp.exp(p["a"])[0]), {"a": leaf}, X)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_program_keeps_the_dtype(dtype):
    params, x = tree.build(lambda _, leaf: leaf.astype(dtype), PARAMS), X.astype(dtype)
    program = assert_repeats(loss, params, x)
    value, gradient = program(params, x)
    assert (value.dtype, gradient.dtype) == (dtype, dtype)


def test_a_number_spread_as_another_dtype_promotes_as_it_does_without_a_program():
    x = X[0].astype(np.float32)
    params = {"s": np.array(0.3, np.float32)}
    assert_repeats(lambda p, x: p["s"] * np.ones(3) + x, params, x, gradient=False)


@pytest.mark.parametrize("shape", [(0,), (0, 2), (3, 0)])
def test_a_parameter_without_elements_is_no_obstacle(shape):
    params = {"none": np.zeros(shape), "s": np.array(2.0)}
    assert_repeats(lambda p, x: anp.sum(anp.exp(p["none"])) + p["s"] * anp.sum(x), params, X)


# ---------------------------------------------------------------- the gradient


def test_the_gradient_is_one_vector_in_the_order_of_the_tree():
    params = {"b": np.ones(2), "a": [np.ones((2, 2)), (np.ones(()),)], "n": np.array([1, 0])}
    fun = lambda p: (
        1.0 * anp.sum(p["a"][0]) + 2.0 * p["a"][1][0] + 3.0 * anp.sum(p["b"][p["n"]] * np.array([1, 2]))
    )
    value, gradient = record(fun, params)(params)
    assert value == 4 + 2 + 9
    np.testing.assert_array_equal(gradient, [1, 1, 1, 1, 2, 6, 3])


def test_a_leaf_without_influence_has_zeros():
    _, gradient = record(lambda p, x: anp.sum(p["v"] * x), PARAMS, X)(PARAMS, X)
    layout = Layout(PARAMS)
    leaves = layout.unpack(gradient, PARAMS)
    np.testing.assert_array_equal(leaves["w"], np.zeros((3, 2)))
    assert leaves["s"] == 0
    np.testing.assert_allclose(leaves["v"], X.sum(axis=0))


def test_two_parameters_may_have_one_gradient():
    params = {"a": X, "b": X.copy()}
    program = assert_repeats(lambda p: anp.sum(anp.exp(p["a"] + p["b"])), params)
    _, gradient = program(params)
    np.testing.assert_array_equal(gradient[:12], gradient[12:])


def test_the_same_array_may_be_two_leaves():
    assert_repeats(lambda p: anp.sum(p[0] ** 2 * p[1]), [X, X])


@pytest.mark.parametrize("params", [{}, [], {"order": np.array([1, 0, 2])}])
def test_without_parameters_there_is_a_value_and_an_empty_gradient(params):
    value, gradient = record(lambda p, x: anp.sum(x**2), params, X)(params, X)
    assert value == np.sum(X**2)
    assert gradient.shape == (0,)


# ---------------------------------------------------------------- arrays, without a gradient


@pytest.mark.parametrize(
    "params", [PARAMS, {}, {"order": np.array([1, 0, 2])}], ids=["floats", "none", "integers"]
)
@pytest.mark.parametrize(
    "fun",
    [
        lambda p, x: anp.exp(x) * 2 + 1,
        lambda p, x: (anp.exp(x) * 2).T,
        lambda p, x: (anp.exp(x) * 2)[1:],
        lambda p, x: anp.reshape(anp.exp(x), (12,)),
        lambda p, x: anp.broadcast_to(anp.exp(x)[0], (2, 3)),
        lambda p, x: x,
        lambda p, x: x.T,
        lambda p, x: x * 1,
        lambda p, x: np.ones(3),
        lambda p, x: anp.sum(x, axis=0),
        lambda p, x: x[0, 0],
        lambda p, x: x > 0,
    ],
)
def test_an_array_is_returned_in_memory_of_its_own(fun, params):
    program = assert_repeats(fun, params, X, gradient=False)
    got = program(params, X)
    if isinstance(got, np.ndarray):
        assert got.flags.writeable
        assert not np.may_share_memory(got, X)
        got[...] = -1  # what the caller does with it is no concern of the next call
    assert bits(program(params, X)) == bits(fun(params, X))


@pytest.mark.parametrize("name", PARAMS)
def test_a_parameter_may_be_what_is_returned(name):
    assert_repeats(lambda p, x: p[name], PARAMS, X, gradient=False)


# ---------------------------------------------------------------- what a call is checked for


@pytest.fixture(scope="module")
def program():
    params = PARAMS | {"order": np.array([2, 0, 1])}
    fun = lambda params, x, power, pair: (
        anp.sum(anp.dot(x[:, params["order"]], params["w"]) ** power) * pair["a"]
        + anp.sum(pair["b"] * params["v"])
    )
    return record(fun, params, X, 2, {"a": 0.0, "b": X[0]})


def arguments():
    return [PARAMS | {"order": np.array([2, 0, 1])}, X, 2, {"a": 0.0, "b": X[0]}]


def changed(number, **entries):
    given = arguments()
    given[number] = given[number] | entries if isinstance(given[number], dict) else entries["leaf"]
    return given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (changed(1, leaf=X[:2]), "float64 of shape (4, 3) for 'x', got float64 of shape (2, 3)"),
        (changed(1, leaf=X.astype(np.float32)), "for 'x', got float32 of shape (4, 3)"),
        (changed(0, w=np.ones(3)), "for 'w', got float64 of shape (3,)"),
        (changed(0, s=np.ones(1)), "expected float64 of shape () for 's', got float64 of shape (1,)"),
        (changed(0, v=np.ones(3, int)), "for 'v', got int64 of shape (3,)"),
        (changed(3, b=X), "for 'pair/b', got float64 of shape (4, 3)"),
        (changed(0, order=np.array([0, 1, 2])), "array([2, 0, 1]), got array([0, 1, 2])"),
        (changed(2, leaf=3), "expected 'power' to be the constant of the recording, 2, got 3"),
        (changed(2, leaf=2.0), "2, got 2.0"),  # promotes, unlike 2
        (changed(2, leaf=True), "2, got True"),
        (changed(3, a=-0.0), "0.0, got -0.0"),
        (changed(0, z=X), "expected no 'z' for Program("),
        (arguments()[:3], "expected 3 arguments after params for Program("),
        ([*arguments(), 1], ", got 4"),
    ],
)
def test_what_a_program_was_not_recorded_for_is_refused(program, given, message):
    assert message in refusal(program, *given)


@pytest.mark.parametrize("path", ["w", "order"])
def test_a_leaf_that_is_missing_is_named(program, path):
    given = arguments()
    del given[0][path]
    with pytest.raises(InputError, match=f"expected '{path}' for Program.*, got none"):
        program(*given)


def test_what_it_was_recorded_for_is_accepted_also_as_another_object(program):
    given = arguments()
    assert bits(program(*given)[1]) == bits(program(*arguments())[1])


def test_a_constant_that_is_changed_in_place_is_noticed():
    params = {"v": X[0], "order": np.array([2, 0, 1])}
    program = record(lambda p, x: anp.sum(x[:, p["order"]] * p["v"]), params, X)
    params["order"][:] = [0, 1, 2]
    with pytest.raises(InputError, match="expected 'order' to be the constant"):
        program(params, X)


@pytest.mark.parametrize(
    "constant", [float("nan"), np.float32(2), 2 + 1j, "mode", None, np.array([1, 2]), MLP((3,))]
)
def test_any_constant_is_accepted_again(constant):
    args = [constant.copy()] if isinstance(constant, np.ndarray) else [constant]
    program = record(lambda p, x, k: anp.sum(p["v"] * x), PARAMS, X, *args)
    assert np.isfinite(program(PARAMS, X, *args)[0])


def test_a_parameter_is_an_array_as_a_plain_number_would_not_promote():
    fun = lambda p, x: anp.sum(p["a"] * x)
    with pytest.raises(InputError, match="expected an array to train at 'a', got a float"):
        record(fun, {"a": 2.0}, X)
    value, gradient = record(fun, {"a": np.float64(2.0)}, X)({"a": np.float64(3.0)}, X)
    assert (value, gradient) == (np.sum(3.0 * X), [pytest.approx(X.sum())])


def test_a_large_constant_stays_what_it_was(rng=np.random.default_rng(0)):  # noqa: B008
    constant = rng.standard_normal(40)
    program = record(lambda p, x: anp.sum(p["a"] * x * constant), {"a": np.ones(1)}, np.ones(40))
    before, _ = program({"a": np.ones(1)}, np.ones(40))
    constant[:] = 0
    assert program({"a": np.ones(1)}, np.ones(40))[0] == before
    assert "# constant_1 = program.constants['constant_1'], float64 of shape (40,)" in program.source


@primitive
def sometimes_the_same(x):
    """A copy where something is negative, its argument itself where nothing is."""
    return x if (x >= 0).all() else np.abs(x)


defvjp(sometimes_the_same, lambda y, x: lambda g: g)


def test_the_place_of_an_argument_that_a_function_may_give_back_is_not_written_again():
    fun = lambda p, x: anp.sum(sometimes_the_same(p["a"] * x) * anp.exp(x + 1.0))
    params, x = {"a": np.ones(1)}, np.linspace(0.5, 1, 6)
    mixed = x * [1, -1, 1, 1, 1, 1]
    value, gradient = record(fun, params, mixed)(params, x)
    expected, leaves = value_and_grad(fun)(params, x)
    assert (value, gradient) == (expected, leaves["a"])


def test_without_reuse_every_result_keeps_its_value():
    program = record(lambda p, x: anp.sum(anp.tanh(p["a"] * x + 1.0) ** 2), {"a": np.ones(1)}, X, reuse=False)
    assert program.peak_bytes == program.bytes_without_reuse
    places = [line.split("out=")[1] for line in program.source.splitlines() if "out=buffers" in line]
    assert len(places) == len(set(places)) > 3


# ---------------------------------------------------------------- several threads


def test_a_program_runs_in_several_threads_at_once():
    rows = np.random.default_rng(1).standard_normal((64, 3))
    program = record(loss, PARAMS, rows)
    batches = [rows * (1 + number / 8) for number in range(8)]
    expected = [tuple(map(bits, program(PARAMS, batch))) for batch in batches]
    start = threading.Barrier(4)

    def work(first):
        start.wait()
        order = itertools.islice(itertools.cycle(range(8)), first, first + 80)
        return [(number, tuple(map(bits, program(PARAMS, batches[number])))) for number in order]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    assert all(got == expected[number] for result in results for number, got in result)


def test_a_workspace_is_used_again():
    program = record(loss, PARAMS, X)
    program(PARAMS, X)
    with program.workspace() as first, program.workspace() as second:
        assert first is not second
        assert all(buffer.ctypes.data % 64 == 0 for buffer in second)
    with program.workspace() as again:  # the one that was used last
        assert again is first


def test_an_error_in_a_call_gives_the_workspace_back():
    program = record(lambda p, x: anp.sum(anp.linalg.inv(p["a"])), {"a": MATRIX}, X)
    with program.workspace() as workspace:
        pass
    with pytest.raises(np.linalg.LinAlgError):
        program({"a": np.zeros((3, 3))}, X)
    with program.workspace() as again:
        assert again is workspace


def test_a_gradient_is_the_callers_own():
    program = record(loss, PARAMS, X)
    _, first = program(PARAMS, X)
    kept = first.copy()
    program(PARAMS, 2 * X)
    np.testing.assert_array_equal(first, kept)


# ---------------------------------------------------------------- what it says of itself


def test_the_table_shows_what_the_attributes_say():
    program = record(loss, PARAMS, X)
    text = str(program)
    last = next(line for line in text.splitlines() if line.startswith("all "))
    columns = [float(word) for word in last.split()[1:]]
    assert columns[0] + columns[4] == program.lines == program.total_cost.lines
    assert f"workspace {program.peak_bytes / 1e6:.2f} MB" in text
    assert f"without reuse {program.bytes_without_reuse / 1e6:.2f} MB" in text
    assert text.startswith("loss and its gradient, of x float64 (4, 3)")
    assert program.total_cost.peak <= program.peak_bytes


def test_what_is_held_at_the_peak_is_the_workspace():
    program = record(lambda p, x: anp.sum(anp.exp(anp.dot(x, p["w"])) ** 2), PARAMS, X, gradient=False)
    assert program.total_cost.peak == program.peak_bytes == 64


def test_a_program_of_nothing_can_be_printed():
    program = record(lambda p: p["s"], PARAMS)
    assert program.lines == 0
    assert "0.0 Mflop" in str(program)


def test_arguments_without_a_name_are_numbered():
    program = record(lambda params, *batch: anp.sum(batch[0] * batch[1] * params["s"]), PARAMS, X, X)
    value, _ = program(PARAMS, X, X)
    assert value == np.sum(X * X * 0.7)
    assert "for 'batch_1'" in refusal(program, PARAMS, X, X[:2])
    program = record(lambda params, *batch: anp.sum(batch[0] * params["s"]), PARAMS, X)
    assert "for 'batch'" in refusal(program, PARAMS, X[:2])


def test_glow_at_a_batch_of_1024_needs_half_of_what_it_would_without_reuse():
    flow = glow(2, steps=2)
    x = np.random.default_rng(0).standard_normal((1024, 2)).astype(np.float32)
    params = flow.init(np.random.default_rng(1), x)
    program = record(lambda params, x: -anp.mean(flow.log_prob(params, x)), params, x)
    assert program.peak_bytes <= program.bytes_without_reuse / 2
    value, gradient = value_and_grad(lambda params, x: -anp.mean(flow.log_prob(params, x)))(params, x)
    got, vector = program(params, x)
    assert (bits(got), bits(vector)) == (bits(value), bits(Layout(params).pack(gradient)))


# ---------------------------------------------------------------- copies


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_a_copy_is_the_same_program(copied):
    flow, rng = glow(2, steps=2, network=MLP((8,))), np.random.default_rng(0)  # whose primitives are called
    x = rng.standard_normal((20, 2)).astype(np.float32)
    params = flow.init(rng, x)
    program = record(flow.loss, params, x)
    other = copied(program)
    assert (str(other), other.source, other.device) == (str(program), program.source, program.device)
    assert list(map(bits, other(params, 2 * x))) == list(map(bits, program(params, 2 * x)))
    assert "float64" in refusal(other, params, x.astype(float))


def test_a_copy_needs_functions_that_can_be_pickled():
    program = record(WRAPPED["primitive in the function"], PARAMS, X)
    with pytest.raises((AttributeError, pickle.PicklingError), match=r"a_square\.<locals>"):
        pickle.dumps(program)
