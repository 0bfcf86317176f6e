"""The tables: the split, the standardization, and the order of the random draws."""

import numpy as np
import pytest
import sklearn.datasets
from numpy.random import default_rng

from npflow.datasets import TABULAR, digits, split, tabular
from npflow.errors import InputError

SIZES = {"digits": (1257, 180, 360, 64), "breast_cancer": (398, 57, 114, 30), "wine": (124, 18, 36, 13)}


@pytest.fixture(params=TABULAR)
def name(request):
    return request.param


def test_digits_are_grey_levels_plus_noise_below_one_level():
    levels, expected = sklearn.datasets.load_digits(return_X_y=True)
    x, labels = digits(rng=default_rng(0))
    assert x.shape == (1797, 64)
    assert x.dtype == np.float64
    assert x.min() >= 0
    assert x.max() < 1
    np.testing.assert_array_equal(np.floor(17 * x), levels)
    np.testing.assert_array_equal(labels, expected)
    noise = 17 * x - levels
    assert noise.mean() == pytest.approx(0.5, abs=5 * np.sqrt(1 / 12 / x.size))
    assert noise.var() == pytest.approx(1 / 12, rel=0.01)


def test_a_split_contains_each_row_once_in_random_order():
    x = np.arange(101.0)[:, None] * np.ones((1, 3))
    parts = split(x, rng=default_rng(0))
    assert [len(part) for part in parts] == [70, 10, 21]
    rows = np.concatenate(parts)
    np.testing.assert_array_equal(np.sort(rows[:, 0]), np.arange(101))
    assert not np.array_equal(rows, x)
    np.testing.assert_array_equal(parts.train[:, 0], parts.train[:, 2])  # rows are not broken up


def test_images_can_be_split():
    assert split(np.zeros((20, 4, 4, 1)), rng=default_rng(0)).validation.shape == (2, 4, 4, 1)


def test_the_training_part_has_mean_0_and_std_1(name):
    train, validation, test = tabular(name, rng=default_rng(0))
    *rows, features = SIZES[name]
    assert [part.shape for part in (train, validation, test)] == [(n, features) for n in rows]
    assert {part.dtype for part in (train, validation, test)} == {np.dtype(np.float64)}
    np.testing.assert_allclose(train.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(train.std(axis=0), 1, atol=1e-12)


def test_all_parts_are_scaled_by_the_mean_and_std_of_the_training_part(name):
    parts = tabular(name, rng=default_rng(0))
    generator = default_rng(0)
    x = digits(rng=generator)[0] if name == "digits" else getattr(sklearn.datasets, f"load_{name}")().data
    recorded = split(x, rng=generator)
    mean, std = recorded.train.mean(axis=0), recorded.train.std(axis=0)
    for part, before in zip(parts, recorded):
        np.testing.assert_allclose(part * std + mean, before, rtol=1e-12, atol=1e-12)


def test_other_tables_draw_the_order_of_the_rows_only():
    generator = default_rng(5)
    tabular("wine", rng=generator)
    expected = default_rng(5)
    expected.permutation(178)
    assert generator.bit_generator.state == expected.bit_generator.state


def test_copies_of_digits_differ_in_their_noise_only():
    once, thrice = tabular("digits", rng=default_rng(0)), tabular("digits", rng=default_rng(0), copies=3)
    np.testing.assert_array_equal(once.validation, thrice.validation)
    np.testing.assert_array_equal(once.test, thrice.test)
    assert thrice.train.shape == (3 * 1257, 64)
    first, second, third = np.split(thrice.train, 3)
    np.testing.assert_array_equal(first, once.train)
    assert not np.array_equal(second, third)
    generator = default_rng(0)
    pixels = split(digits(rng=generator)[0], rng=generator).train
    for copy in (second, third):
        levels = 17 * (copy * pixels.std(axis=0) + pixels.mean(axis=0))
        np.testing.assert_array_equal(np.floor(levels + 1e-9), np.floor(17 * pixels))


def test_tables_without_noise_have_no_copies():
    np.testing.assert_array_equal(
        tabular("wine", rng=default_rng(0), copies=3).train, tabular("wine", rng=default_rng(0)).train
    )


def test_same_rng_same_parts(name):
    first, again, other = (np.concatenate(tabular(name, rng=default_rng(seed))) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_rows_of_published_figures_do_not_change():
    first = {name: tabular(name, rng=default_rng(0)).test[0, :2] for name in TABULAR}
    np.testing.assert_allclose(first["digits"], [-1.178316, -0.745623], atol=1e-6)
    np.testing.assert_allclose(first["breast_cancer"], [-1.550603, -1.124084], atol=1e-6)
    np.testing.assert_allclose(first["wine"], [-1.168079, -0.224129], atol=1e-6)


def test_bad_input():
    with pytest.raises(InputError, match="one of 'digits', 'breast_cancer', 'wine', got 'power'"):
        tabular("power", rng=default_rng(0))
    with pytest.raises(InputError, match=r"one of 'digits', 'breast_cancer', 'wine', got \['wine'\]"):
        tabular(["wine"], rng=default_rng(0))
    with pytest.raises(InputError, match="number of copies to be at least 1, got 0"):
        tabular("wine", rng=default_rng(0), copies=0)
    with pytest.raises(InputError, match=r"at least 10 rows .*, got 9"):
        split(np.zeros((9, 2)), rng=default_rng(0))
    for draw in (
        lambda: digits(rng=0),
        lambda: split(np.zeros((20, 2)), rng=0),
        lambda: tabular("wine", rng=0),
    ):
        with pytest.raises(InputError, match=r"expected rng .*Generator, got an int"):
            draw()
