"""Digits, patches and CIFAR-10 as images of whole numbers, in two parts that have nothing in common."""

import numpy as np
import pytest
import sklearn.datasets

from npflow.datasets import IMAGES, cifar10, digit_images, digits, image_data, patches
from npflow.datasets.cifar10 import FILES
from npflow.datasets.tabular import split as in_three
from npflow.errors import InputError


def rng(seed=0):
    return np.random.default_rng(seed)


def test_digits_are_splitonce_and_for_all():
    (train, train_labels), (test, test_labels) = digit_images("train"), digit_images("test")
    assert train.shape == (1437, 8, 8, 1)
    assert test.shape == (360, 8, 8, 1)
    assert train.dtype == test.dtype == np.uint8
    assert train_labels.dtype == test_labels.dtype == np.int64
    levels, labels = sklearn.datasets.load_digits(return_X_y=True)
    order = rng().permutation(1797)
    np.testing.assert_array_equal(np.concatenate([train, test]).reshape(-1, 64), levels[order])
    np.testing.assert_array_equal(np.concatenate([train_labels, test_labels]), labels[order])
    np.testing.assert_array_equal(test.reshape(-1, 64), in_three(levels, rng=rng()).test)


def test_digits_with_noise_are_the_same_digits():
    x, labels = digits(rng=rng())
    images, their_labels = (np.concatenate(part) for part in zip(digit_images("train"), digit_images("test")))
    order = rng().permutation(1797)
    np.testing.assert_array_equal(np.floor(17 * x)[order], images.reshape(-1, 64))
    np.testing.assert_array_equal(labels[order], their_labels)


@pytest.fixture
def places(monkeypatch):
    """Photographs whose pixels say where they are: row, column modulo 256, and 2 * photograph + column // 256."""
    row, column = np.mgrid[:256, :512]
    photographs = [np.stack([row, column % 256, 2 * k + column // 256], -1).astype(np.uint8) for k in (0, 1)]
    monkeypatch.setattr(
        sklearn.datasets, "load_sample_images", lambda: sklearn.utils.Bunch(images=photographs)
    )


@pytest.mark.parametrize(("part", "first", "last"), [("train", 0, 383), ("test", 384, 511)])
def test_patches_are_pieces_from_their_part_of_the_photographs(places, part, first, last):
    x = patches(rng(), 4000, size=16, split=part)
    assert x.shape == (4000, 16, 16, 3)
    assert x.dtype == np.uint8
    assert x.flags.c_contiguous
    row, column, more = np.moveaxis(x.astype(int), -1, 0)
    photograph, column = more // 2, column + 256 * (more % 2)
    i, j = np.mgrid[:16, :16]
    for place, right in ((row, i), (column, j), (photograph, 0 * i)):
        np.testing.assert_array_equal(place, place[:, :1, :1] + right)
    # From edge to edge, and each photograph as often.
    assert (row.min(), row.max()) == (0, 255)
    assert (column.min(), column.max()) == (first, last)
    assert photograph.mean() == pytest.approx(0.5, abs=0.05)


def test_patches_are_drawn_from_the_rng_alone():
    np.testing.assert_array_equal(patches(rng(3), 5), patches(rng(3), 5))
    assert not np.array_equal(patches(rng(3), 5), patches(rng(4), 5))
    assert patches(rng(), 2, 160, "test").shape == (2, 160, 160, 3)


def test_image_data_has_all_that_training_needs(tmp_path):
    data = image_data()
    assert (data.name, data.levels) == ("digits", 17)
    np.testing.assert_array_equal(data.train, digit_images("train")[0])
    np.testing.assert_array_equal(data.test_labels, digit_images("test")[1])

    data = image_data("patches", rng=rng(), n=50, size=8)
    assert (data.name, data.levels, data.train_labels, data.test_labels) == ("patches", 256, None, None)
    generator = rng()
    np.testing.assert_array_equal(data.train, patches(generator, 50, 8, "train"))
    np.testing.assert_array_equal(data.test, patches(generator, 5, 8, "test"))

    for name in FILES:
        if name.endswith(".bin"):
            records = rng(len(name)).integers(10, size=(2, 1 + 3 * 32 * 32), dtype=np.uint8)
            (tmp_path / name).write_bytes(records.tobytes())
    data = image_data("cifar10", tmp_path, complete=False)
    assert (data.name, data.levels) == ("cifar10", 256)
    for found, split in ((data[2:4], "train"), (data[4:], "test")):
        for array, right in zip(found, cifar10(tmp_path, split, complete=False), strict=True):
            np.testing.assert_array_equal(array, right)


@pytest.mark.parametrize("name", ["digits", "patches"])
def test_levels_are_below_their_number(name):
    data = image_data(name, rng=rng(), n=500)
    for part in (data.train, data.test):
        assert part.dtype == np.uint8
        assert part.max() == data.levels - 1
        assert part.min() == 0


def test_bad_input(tmp_path):
    assert IMAGES == ("digits", "patches", "cifar10")
    with pytest.raises(InputError, match=r"data set of images to be one of .*, got 'mnist'"):
        image_data("mnist")
    with pytest.raises(InputError, match=r"expected rng to be a numpy\.random\.Generator, got a NoneType"):
        image_data("patches")
    with pytest.raises(InputError, match="expected the number of patches to be at least 10, got 9"):
        image_data("patches", rng=rng(), n=9)
    with pytest.raises(InputError, match="expected the number of patches to be at least 1, got 0"):
        patches(rng(), 0)
    with pytest.raises(InputError, match="expected the size of a patch to be at most 160, got 161"):
        patches(rng(), 1, 161)
    with pytest.raises(InputError, match="got nothing there"):
        image_data("cifar10", tmp_path)
    for draw in (digit_images, lambda split: patches(rng(), 1, split=split)):
        with pytest.raises(InputError, match="expected split to be one of 'train', 'test', got 'all'"):
            draw("all")
