"""The parameter tree and its one flat vector."""

import copy
from collections import namedtuple

import numpy as np
import pytest
from helpers import assert_agrees

from npflow import to_device
from npflow.autodiff import Layout, tree
from npflow.errors import InputError

TREES = {
    "array": np.arange(6.0).reshape(2, 3),
    "nested": {
        "b": [np.arange(3), (np.arange(2.0), {"z": np.full((2, 1, 2), 3.0), "a": np.array(True)})],
        "a": {"0": np.float64(-1), "z1": np.arange(4.0).reshape(2, 2).T},
        "empty": [{}, (), np.zeros((0, 2))],
    },
    "float32": ([np.ones(3, np.float32)], {"scale": np.array(2, np.float32), "order": np.array([1, 0])}),
    "constants": {"permutation": np.arange(3), "mask": (np.zeros((2, 2), bool),)},
    "nothing": [{}, ()],
}
every_tree = pytest.mark.parametrize("params", TREES.values(), ids=TREES)


def skeleton(params):
    """The tree with its leaves taken out: what containers it is made of."""
    return tree.build(lambda path, leaf: None, params)


def trained(params):
    return [leaf for _, leaf in tree.items(params) if tree.is_trained(leaf)]


def assert_same_tree(actual, expected):
    assert skeleton(actual) == skeleton(expected)
    for (path, a), (_, b) in zip(tree.items(actual), tree.items(expected), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype, path
        np.testing.assert_array_equal(a, b, err_msg=path, strict=True)


@every_tree
def test_unpack_gives_back_the_tree_that_pack_laid_out(params):
    layout = Layout(params)
    assert_same_tree(layout.unpack(layout.pack(params), params), params)


@every_tree
def test_pack_lays_the_trained_leaves_out_in_the_order_of_items(params):
    layout = Layout(params)
    vector = layout.pack(params)
    flat = [np.ravel(leaf) for leaf in trained(params)]
    expected = np.concatenate(flat) if flat else np.empty(0)
    np.testing.assert_array_equal(vector, expected, strict=True)
    assert (layout.size, layout.dtype) == (expected.size, expected.dtype)


@every_tree
def test_unpacked_trained_leaves_are_views_of_the_vector(params):
    layout = Layout(params)
    vector = layout.pack(params)
    views = trained(layout.unpack(vector, params))
    assert all(np.shares_memory(view, vector) for view in views if view.size)
    vector[...] = np.arange(layout.size)
    seen = [number for view in views for number in view.ravel()]
    assert seen == list(range(layout.size))


@every_tree
def test_unpack_keeps_the_constants_of_the_tree_it_is_given(params):
    layout = Layout(params)
    unpacked = layout.unpack(np.zeros(layout.size, layout.dtype), params)
    pairs = zip(tree.items(params), tree.items(unpacked), strict=True)
    constants = [(before, after) for (_, before), (_, after) in pairs if not tree.is_trained(before)]
    assert all(before is after for before, after in constants)
    assert len(constants) + len(trained(params)) == len(layout.leaves)


@every_tree
def test_packing_and_unpacking_leave_the_tree_as_it_was(params):
    before = copy.deepcopy(params)
    layout = Layout(params)
    vector = layout.pack(params)
    vector += 1
    layout.unpack(vector, params)
    assert_same_tree(params, before)


@every_tree
def test_locate_names_the_leaf_that_holds_each_place(params):
    layout = Layout(params)
    names = layout.unpack(np.arange(layout.size, dtype=layout.dtype), params)
    expected = {
        int(place): path
        for path, leaf in tree.items(names)
        if tree.is_trained(leaf)
        for place in leaf.ravel()
    }
    assert {place: layout.locate(place) for place in range(layout.size)} == expected


@every_tree
def test_build_visits_the_same_paths_in_the_same_order_as_items(params):
    visited = []
    tree.build(lambda path, leaf: visited.append(path), params)
    assert visited == [path for path, _ in tree.items(params)]


@every_tree
def test_a_layout_does_not_differ_from_itself(params):
    assert Layout(params).difference(Layout(params)) is None


def test_dicts_are_walked_in_order_of_their_keys_and_paths_join_keys_and_places():
    params = {"b": [np.zeros(1), (np.zeros(2), np.zeros(3))], "a": {"z": np.zeros(4), "c": np.zeros(5)}}
    paths = [(path, leaf.size) for path, leaf in tree.items(params)]
    assert paths == [("a/c", 5), ("a/z", 4), ("b/0", 1), ("b/1/0", 2), ("b/1/1", 3)]


def test_the_order_in_which_a_dict_was_filled_does_not_change_its_vector():
    one = {"a": np.array([1.0]), "b": np.array([2.0])}
    other = {"b": np.array([2.0]), "a": np.array([1.0])}
    np.testing.assert_array_equal(Layout(one).pack(one), Layout(other).pack(other))


def test_a_bare_array_is_a_tree():
    layout = Layout(np.ones((2, 2)))
    assert layout.leaves[0].path == ""
    np.testing.assert_array_equal(layout.pack(np.full((2, 2), 3.0)), [3, 3, 3, 3])


def test_python_numbers_count_as_arrays_of_no_dimension():
    layout = Layout({"rate": 0.5, "count": 3})
    assert [(leaf.path, leaf.shape, leaf.offset) for leaf in layout.leaves] == [
        ("count", (), -1),
        ("rate", (), 0),
    ]


def test_a_tree_without_trained_leaves_has_an_empty_float64_vector():
    layout = Layout({"permutation": np.arange(3), "flag": np.array(True)})
    assert (layout.size, layout.dtype, layout.pack({"permutation": 0, "flag": 0}).shape) == (
        0,
        np.float64,
        (0,),
    )


def test_only_float_leaves_are_trained():
    assert tree.is_trained(np.zeros(2, np.float32))
    assert tree.is_trained(1.0)
    assert not tree.is_trained(np.zeros(2, np.int8))
    assert not tree.is_trained(np.zeros(2, bool))
    with pytest.raises(InputError, match="got a NoneType of dtype object at 'a/b'"):
        tree.is_trained(None, "a/b")


def test_none_counts_as_zeros_when_a_gradient_is_packed():
    params = {"a": np.ones(2), "b": np.ones((1, 2)), "n": np.arange(3)}
    gradient = {"a": None, "b": np.array([[5.0, 6.0]]), "n": None}
    np.testing.assert_array_equal(Layout(params).pack(gradient), [0, 0, 5, 6])


def test_pack_writes_over_the_vector_it_is_given():
    params = {"a": np.ones(2), "b": np.ones(1)}
    out = np.full(3, np.nan)
    assert Layout(params).pack({"a": None, "b": np.array([2.0])}, out=out) is out
    np.testing.assert_array_equal(out, [0, 0, 2])


def test_pack_refuses_a_tree_with_another_number_of_leaves():
    with pytest.raises(ValueError, match="shorter"):
        Layout({"a": np.ones(2), "b": np.ones(2)}).pack({"a": np.ones(2)})


def test_two_float_dtypes_in_one_tree_are_refused_with_their_places():
    with pytest.raises(InputError) as caught:
        Layout({"a": np.zeros(1, np.float32), "b": [np.zeros(1)], "n": np.arange(2)})
    assert str(caught.value) == (
        "expected the float leaves of the parameter tree in one dtype, got float32 at 'a', float64 at 'b/0'"
    )


@pytest.mark.parametrize(
    ("leaf", "words"),
    [
        (np.array(["x"]), "got an ndarray of dtype <U1 at 'layer/0'"),
        ("weights", "got a str of dtype <U7 at 'layer/0'"),
        (None, "got a NoneType of dtype object at 'layer/0'"),
        (np.zeros(2, complex), "got an ndarray of dtype complex128 at 'layer/0'"),
        (np.zeros(2, "datetime64[s]"), "of dtype datetime64[s] at 'layer/0'"),
    ],
)
def test_a_leaf_that_is_not_an_array_of_numbers_is_refused_with_its_place(leaf, words):
    with pytest.raises(InputError, match="expected arrays of numbers in the parameter tree") as caught:
        Layout({"layer": [leaf]})
    assert words in str(caught.value)


@pytest.mark.parametrize("key", [0, "", "a/b"])
def test_keys_that_cannot_be_part_of_a_path_are_refused_with_their_place(key):
    with pytest.raises(InputError) as caught:
        Layout({"layer": {key: np.zeros(1), "a": np.zeros(1)}})
    assert str(caught.value) == (
        "expected the keys of a parameter dict to be strings, not empty and without a slash, "
        f"got {[key, 'a']} at 'layer'"
    )


def test_locate_passes_over_constants_that_lie_before_the_trained_leaf():
    layout = Layout([np.arange(5), np.ones(2), np.arange(5), np.ones(3)])
    assert [layout.locate(place) for place in range(5)] == ["1", "1", "3", "3", "3"]


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"n": np.arange(3)}, "expected an array of shape (2, 3) at 'w', got none"),
        (
            {"n": np.arange(3), "w": np.zeros((3, 2))},
            "expected an array of shape (2, 3) at 'w', got shape (3, 2)",
        ),
        ({"n": np.zeros(3), "w": np.zeros((2, 3))}, "expected int64 at 'n', got float64"),
        ({"n": np.arange(3), "w": np.zeros((2, 3), int)}, "expected float64 at 'w', got int64"),
        (
            {"n": np.arange(3), "w": np.zeros((2, 3)), "x": np.zeros(4)},
            "expected no array at 'x', got one of shape (4,)",
        ),
        ({"n": np.arange(3, dtype=np.int8), "w": np.zeros((2, 3), np.float32)}, None),
    ],
    ids=["missing", "shape", "trained", "constant", "extra", "dtype"],
)
def test_difference_tells_the_first_leaf_that_differs_and_lets_dtypes_differ(other, sentence):
    layout = Layout({"n": np.arange(3), "w": np.zeros((2, 3))})
    assert layout.difference(Layout(other)) == sentence


def test_a_bare_array_differs_from_a_tree_of_nothing():
    assert Layout({}).difference(Layout(np.zeros(2))) == "expected no array at '', got one of shape (2,)"


@pytest.mark.parametrize("other", [[{"a": np.zeros(1)}], [{"a": np.zeros(1)}, []], ({"a": np.zeros(1)}, {})])
def test_the_same_arrays_in_other_containers_differ(other):
    layout = Layout([{"a": np.zeros(1)}, {}])
    assert layout.difference(Layout(other)) == (
        "expected the same dicts, lists and tuples around the arrays, got others"
    )


def test_arrays_and_vectors_of_another_size_are_refused():
    layout = Layout({"w": np.zeros((2, 3))})
    with pytest.raises(InputError, match=r"expected an array of shape \(2, 3\) at 'w', got shape \(3,\)"):
        layout.pack({"w": np.zeros(3)})
    with pytest.raises(InputError, match=r"expected a vector of 6 numbers, got shape \(7,\)"):
        layout.unpack(np.zeros(7), {"w": np.zeros((2, 3))})


def test_named_tuples_keep_their_kind():
    Pair = namedtuple("Pair", "a b")
    tree = Pair(np.zeros(2), [np.ones(1)])
    again = Layout(tree).unpack(np.arange(3.0), tree)
    assert isinstance(again, Pair)
    assert again.a.tolist() == [0, 1]
    assert again.b[0].tolist() == [2]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_on_a_device_the_vector_and_its_views_are_there(dtype, any_device):
    params = {
        "weight": np.arange(6, dtype=dtype).reshape(2, 3),
        "order": np.array([1, 0]),
        "bias": np.ones(2, dtype),
    }
    there = to_device(params, any_device.name)
    layout = Layout(there)
    vector = layout.pack(there)
    assert_agrees(any_device, vector, Layout(params).pack(params))
    views = layout.unpack(vector, there)
    vector += 1
    assert_agrees(any_device, views, params | {"weight": params["weight"] + 1, "bias": params["bias"] + 1})
    assert_agrees(
        any_device, layout.pack({"weight": None, "order": None, "bias": there["bias"]})[:2], params["bias"]
    )


def test_flattened_trees_have_one_key_where_a_program_serves_both():
    base = {"a": np.zeros((2, 3)), "b": [np.zeros(1), np.arange(3)]}
    key, leaves = tree.flattened(base)
    assert [leaf is mine for leaf, (_, mine) in zip(leaves, tree.items(base), strict=True)] == [True] * 3
    assert key == tree.flattened({"b": [np.ones(1), np.arange(3)], "a": np.ones((2, 3))})[0]
    others = [
        {"c": base["a"], "b": base["b"]},
        {"a": base["a"], "b": tuple(base["b"])},
        {"a": np.zeros((3, 2)), "b": base["b"]},
        {"a": np.zeros((2, 3), np.float32), "b": base["b"]},
        {"a": base["a"], "b": [np.zeros(1), np.arange(3)[::-1]]},
        {"a": base["a"], "b": [[np.zeros(1)], np.arange(3)]},
    ]
    assert len({key, *(tree.flattened(other)[0] for other in others)}) == 7
    for leaf in (1.0, np.float64(1), None):
        assert tree.flattened({"a": base["a"], "b": leaf})[0] is None
    assert tree.flattened({"a": base["a"], 1: base["a"]})[0] is None
