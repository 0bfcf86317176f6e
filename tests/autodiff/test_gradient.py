"""Value and gradient of a function of a parameter tree."""

import copy

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
from autograd import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout, tree, value_and_grad
from npflow.autodiff.primitives import dense, sum_event, tanh
from npflow.errors import InputError


def make_params(dtype=np.float64, seed=0):
    draw = np.random.default_rng(seed).standard_normal
    return {
        "weight": draw((3, 2)).astype(dtype),
        "inner": [draw(2).astype(dtype), (draw(()).astype(dtype),)],
        "order": np.array([2, 0, 1]),
        "unused": draw(4).astype(dtype),
    }


def make_rows(dtype=np.float64):
    return np.random.default_rng(1).standard_normal((5, 3)).astype(dtype)


def loss(params, x):
    bias, (log_scale,) = params["inner"]
    y = tanh(dense(x[:, params["order"]], params["weight"], bias)) * anp.exp(log_scale)
    return anp.sum(sum_event(y * y) ** 2) / len(x)


def numerical_gradient(fun, params):
    layout = Layout(params)
    vector, step = layout.pack(params), 1e-5

    def along(direction):
        high, low = (fun(layout.unpack(vector + sign * step * direction, params)) for sign in (1, -1))
        return (high - low) / (2 * step)

    return np.array([along(direction) for direction in np.eye(layout.size)])


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_the_gradient_equals_finite_differences(seed):
    params, x = make_params(seed=seed), make_rows()
    value, gradient = value_and_grad(loss)(params, x)
    assert value == loss(params, x)
    numerical = numerical_gradient(lambda p: loss(p, x), params)
    np.testing.assert_allclose(Layout(params).pack(gradient), numerical, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("path", ["weight", "inner/0", "inner/1/0"])
def test_the_gradient_of_each_leaf_equals_autograds_own(path):
    params, x = make_params(), make_rows()
    _, gradient = value_and_grad(loss)(params, x)

    def loss_of_leaf(leaf):
        return loss(tree.build(lambda at, other: leaf if at == path else other, params), x)

    expected = autograd.grad(loss_of_leaf)(dict(tree.items(params))[path])
    np.testing.assert_allclose(dict(tree.items(gradient))[path], expected, rtol=1e-14)


def test_the_gradient_equals_autograds_own_over_a_container():
    params = {"a": np.array([1.0, 2.0]), "b": [np.array(3.0), (np.array([[4.0]]),)]}
    fun = lambda p: anp.sum(anp.sin(p["a"]) * p["b"][0]) ** 2 + anp.sum(p["a"]) * anp.sum(p["b"][1][0] ** 3)
    value, gradient = value_and_grad(fun)(params)
    expected_value, expected = autograd.value_and_grad(fun)(params)
    assert value == expected_value
    layout = Layout(params)
    np.testing.assert_allclose(layout.pack(gradient), layout.pack(expected), rtol=1e-14)


def test_the_gradient_is_a_tree_like_the_parameters():
    params = make_params()
    _, gradient = value_and_grad(loss)(params, make_rows())
    assert list(gradient) == sorted(params)
    assert isinstance(gradient["inner"], list)
    assert isinstance(gradient["inner"][1], tuple)
    assert gradient["weight"].shape == (3, 2)
    assert gradient["inner"][1][0].shape == ()


def test_constants_and_leaves_without_influence_have_none():
    _, gradient = value_and_grad(loss)(make_params(), make_rows())
    assert gradient["order"] is None
    assert gradient["unused"] is None


def test_a_value_that_depends_on_no_parameter_has_no_gradient():
    value, gradient = value_and_grad(lambda params: 3.0)({"a": np.ones(2), "b": [np.ones(1)]})
    assert (value, gradient) == (3.0, {"a": None, "b": [None]})


def test_leaves_with_a_slash_in_their_key_keep_gradients_of_their_own():
    params = {"a/b": np.ones(1), "a": {"b": np.ones(1)}}
    _, gradient = value_and_grad(lambda p: anp.sum(5 * p["a/b"]) + anp.sum(3 * p["a"]["b"]))(params)
    assert gradient == {"a/b": np.array([5.0]), "a": {"b": np.array([3.0])}}


def test_a_leaf_that_stands_in_two_places_has_a_gradient_in_each():
    shared = np.array([2.0])
    _, gradient = value_and_grad(lambda p: anp.sum(p[0] ** 2 * p[1]))([shared, shared])
    assert gradient == [np.array([8.0]), np.array([4.0])]


def test_a_leaf_that_is_the_value_itself_has_gradient_one():
    value, gradient = value_and_grad(lambda p: p["a"])({"a": np.array(4.0)})
    assert (value, gradient["a"]) == (4.0, 1.0)


@pytest.mark.parametrize(
    ("fun", "shape"), [(lambda p: p["a"] * 2, "(3,)"), (lambda p: np.ones((1, 1)), "(1, 1)")]
)
def test_a_value_that_is_not_a_scalar_is_refused(fun, shape):
    with pytest.raises(InputError) as caught:
        value_and_grad(fun)({"a": np.ones(3)})
    assert str(caught.value) == f"expected a scalar to differentiate, got an array of shape {shape}"


def test_a_gradient_that_would_be_lost_is_refused():
    around = lambda params: anp.sum(checkpoint(lambda x: x * params["b"])(params["a"]))
    by_name = lambda params: anp.sum(checkpoint(lambda x, y: x * y)(params["a"], y=params["b"]))
    for fun in (around, by_name):
        with pytest.raises(InputError, match="whose gradient would be lost"):
            value_and_grad(fun)({"a": np.ones(3), "b": np.ones(3)})


def test_the_gradient_still_works_after_a_function_has_raised():
    def broken(params):
        raise KeyError("weight")

    with pytest.raises(KeyError):
        value_and_grad(broken)({"a": np.ones(2)})
    _, gradient = value_and_grad(lambda p: anp.sum(p["a"] ** 2))({"a": np.ones(2)})
    np.testing.assert_array_equal(gradient["a"], [2, 2])


def squared_gradient_norm(fun):
    def norm(params, *args):
        _, gradient = value_and_grad(fun)(params, *args)
        return sum(anp.sum(leaf * leaf) for _, leaf in tree.items(gradient) if leaf is not None)

    return norm


def test_the_gradient_of_a_squared_gradient_norm_has_its_closed_form():
    w, x = np.array([0.5, -2.0, 3.0]), np.array([1.0, 2.0, -1.0])
    value, gradient = value_and_grad(squared_gradient_norm(lambda p, x: anp.sum(x * p["w"] ** 3)))(
        {"w": w}, x
    )
    np.testing.assert_allclose(value, np.sum(9 * x**2 * w**4))
    np.testing.assert_allclose(gradient["w"], 36 * x**2 * w**3)


def test_the_gradient_of_a_squared_gradient_norm_equals_finite_differences():
    params, x = make_params(), make_rows()
    norm = squared_gradient_norm(loss)
    _, gradient = value_and_grad(norm)(params, x)
    numerical = numerical_gradient(lambda p: norm(p, x), params)
    np.testing.assert_allclose(Layout(params).pack(gradient), numerical, rtol=1e-5, atol=1e-6)


def test_an_inner_gradient_that_only_outer_parameters_influence_is_none():
    inner_gradients = []

    def outer(params):
        value, gradient = value_and_grad(lambda inner: anp.sum(params["a"] ** 2))({"b": np.ones(2)})
        inner_gradients.append(gradient)
        return value

    value, gradient = value_and_grad(outer)({"a": np.array([3.0])})
    assert (value, gradient, inner_gradients) == (9.0, {"a": np.array([6.0])}, [{"b": None}])


def test_float32_parameters_have_float32_values_and_gradients():
    params, x = make_params(np.float32), make_rows(np.float32)
    for fun in (loss, squared_gradient_norm(loss)):
        value, gradient = value_and_grad(fun)(params, x)
        assert value.dtype == np.float32
        assert {leaf.dtype for _, leaf in tree.items(gradient) if leaf is not None} == {np.dtype(np.float32)}


def test_the_parameters_are_left_as_they_were():
    params = make_params()
    before, leaves = copy.deepcopy(params), [leaf for _, leaf in tree.items(params)]
    value_and_grad(loss)(params, make_rows())
    assert all(leaf is kept for (_, leaf), kept in zip(tree.items(params), leaves))
    for (_, after), (_, expected) in zip(tree.items(params), tree.items(before)):
        np.testing.assert_array_equal(after, expected)


def test_the_function_returned_has_the_name_and_docstring_of_the_function_given():
    def energy(params):
        """Half the square."""

    assert (value_and_grad(energy).__name__, value_and_grad(energy).__doc__) == ("energy", "Half the square.")


def test_the_gradients_of_a_function_of_several_results_are_added_part_by_part():
    params = {"a": np.array([1.0, 2.0, 3.0])}
    split = lambda params: sum(anp.sum(part**2) for part in anp.array_split(params["a"], 2))
    assert np.array_equal(value_and_grad(split)(params)[1]["a"], [2.0, 4.0, 6.0])

    def both(matrix):
        sign, log_det = anp.linalg.slogdet(matrix)
        return sign * log_det

    matrix = np.array([[2.0, 1.0], [0.5, 3.0]])
    _, gradient = value_and_grad(lambda params: both(params["a"]))({"a": matrix})
    np.testing.assert_allclose(gradient["a"], np.linalg.inv(matrix).T, rtol=1e-12)


@pytest.mark.parametrize(
    ("fun", "params", "words"),
    [
        (None, {"w": np.ones(2)}, "the function to differentiate to be a function, got None"),
        (loss, None, "arrays of numbers in the parameter tree, got a NoneType"),
        (loss, {"w": "x"}, "arrays of numbers in the parameter tree, got a str of dtype <U1 at 'w'"),
    ],
)
def test_what_is_no_function_or_tree_of_arrays_is_refused(fun, params, words):
    with pytest.raises(InputError, match=words):
        value_and_grad(fun)(params, make_rows())
