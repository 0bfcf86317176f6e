"""Digits, patches and CIFAR-10 as images of integers, in two disjoint parts."""

import numpy as np
import pytest
import sklearn.datasets
from numpy.random import default_rng

from npflow.datasets import IMAGES, cifar10, digit_images, digits, faces, image_data, patches
from npflow.datasets.cifar10 import FILES
from npflow.datasets.tabular import split as in_three
from npflow.errors import InputError


def test_the_split_of_digits_is_fixed():
    (train, train_labels), (test, test_labels) = digit_images("train"), digit_images("test")
    assert train.shape == (1437, 8, 8, 1)
    assert test.shape == (360, 8, 8, 1)
    assert train.dtype == test.dtype == np.uint8
    assert train_labels.dtype == test_labels.dtype == np.int64
    levels, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = default_rng(0).permutation(1797)
    np.testing.assert_array_equal(np.concatenate([train, test]).reshape(-1, 64), levels[order])
    np.testing.assert_array_equal(np.concatenate([train_labels, test_labels]), labels[order])
    np.testing.assert_array_equal(test.reshape(-1, 64), in_three(levels, rng=default_rng(0)).test)


def test_digits_as_features_are_the_same_digits():
    x, labels = digits(rng=default_rng(0))
    images, their_labels = (np.concatenate(part) for part in zip(digit_images("train"), digit_images("test")))
    order = default_rng(0).permutation(1797)
    np.testing.assert_array_equal(np.floor(17 * x)[order], images.reshape(-1, 64))
    np.testing.assert_array_equal(labels[order], their_labels)


@pytest.fixture
def places(monkeypatch):
    """Photographs whose pixels are their places: row, column modulo 256, 2 * photograph + column // 256."""
    row, column = np.mgrid[:256, :512]
    photographs = [np.stack([row, column % 256, 2 * k + column // 256], -1).astype(np.uint8) for k in (0, 1)]
    monkeypatch.setattr(
        sklearn.datasets, "load_sample_images", lambda: sklearn.utils.Bunch(images=photographs)
    )


@pytest.mark.parametrize(("part", "first", "last"), [("train", 0, 383), ("test", 384, 511)])
def test_patches_come_from_their_part_of_the_photographs(places, part, first, last):
    x = patches(default_rng(0), 4000, size=16, split=part)
    assert x.shape == (4000, 16, 16, 3)
    assert x.dtype == np.uint8
    assert x.flags.c_contiguous
    row, column, more = np.moveaxis(x.astype(int), -1, 0)
    photograph, column = more // 2, column + 256 * (more % 2)
    i, j = np.mgrid[:16, :16]
    for place, right in ((row, i), (column, j), (photograph, 0 * i)):
        np.testing.assert_array_equal(place, place[:, :1, :1] + right)
    # They reach from edge to edge, and both photographs are equally likely.
    assert (row.min(), row.max()) == (0, 255)
    assert (column.min(), column.max()) == (first, last)
    assert photograph.mean() == pytest.approx(0.5, abs=0.05)


def test_patches_are_drawn_from_the_rng_alone():
    np.testing.assert_array_equal(patches(default_rng(3), 5), patches(default_rng(3), 5))
    assert not np.array_equal(patches(default_rng(3), 5), patches(default_rng(4), 5))
    assert patches(default_rng(0), 2, 160, "test").shape == (2, 160, 160, 3)


def test_image_data_has_both_parts_of_each_data_set(tmp_path):
    data = image_data()
    assert (data.name, data.levels) == ("digits", 17)
    np.testing.assert_array_equal(data.train, digit_images("train")[0])
    np.testing.assert_array_equal(data.test_labels, digit_images("test")[1])

    data = image_data("patches", rng=default_rng(0), n=50, size=8)
    assert (data.name, data.levels, data.train_labels, data.test_labels) == ("patches", 256, None, None)
    generator = default_rng(0)
    np.testing.assert_array_equal(data.train, patches(generator, 50, 8, "train"))
    np.testing.assert_array_equal(data.test, patches(generator, 5, 8, "test"))

    data = image_data("faces", rng=default_rng(0), n=20)
    assert (data.name, data.levels) == ("faces", 256)
    generator = default_rng(0)
    for found, n in ((data[2:4], 20), (data[4:], 2)):
        x, attributes = faces(n, generator)
        np.testing.assert_array_equal(found[0], x)
        np.testing.assert_array_equal(found[1], attributes["glasses"])
        assert found[1].dtype == np.int64

    for name in FILES:
        if name.endswith(".bin"):
            records = default_rng(len(name)).integers(10, size=(2, 1 + 3 * 32 * 32), dtype=np.uint8)
            (tmp_path / name).write_bytes(records.tobytes())
    data = image_data("cifar10", tmp_path, complete=False)
    assert (data.name, data.levels) == ("cifar10", 256)
    for found, split in ((data[2:4], "train"), (data[4:], "test")):
        for array, right in zip(found, cifar10(tmp_path, split, complete=False), strict=True):
            np.testing.assert_array_equal(array, right)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_levels_are_below_their_number(name):
    data = image_data(name, rng=default_rng(0), n=500)
    for part in (data.train, data.test):
        assert part.dtype == np.uint8
        assert part.max() == data.levels - 1
        assert part.min() == 0


def test_bad_input(tmp_path):
    assert IMAGES == ("digits", "patches", "faces", "cifar10")
    with pytest.raises(InputError, match="one of 'digits', 'patches', 'faces', 'cifar10', got 'mnist'"):
        image_data("mnist")
    with pytest.raises(InputError, match=r"expected rng .*Generator, got a NoneType"):
        image_data("patches")
    with pytest.raises(InputError, match="number of patches to be at least 10, got 9"):
        image_data("patches", rng=default_rng(0), n=9)
    with pytest.raises(InputError, match="number of faces to be at least 10, got 9"):
        image_data("faces", rng=default_rng(0), n=9)
    with pytest.raises(InputError, match="number of patches to be at least 1, got 0"):
        patches(default_rng(0), 0)
    with pytest.raises(InputError, match="size of a patch to be at most 160, got 161"):
        patches(default_rng(0), 1, 161)
    with pytest.raises(InputError, match="got nothing there"):
        image_data("cifar10", tmp_path)
    for draw in (digit_images, lambda split: patches(default_rng(0), 1, split=split)):
        with pytest.raises(InputError, match="one of 'train', 'test', got 'all'"):
            draw("all")
