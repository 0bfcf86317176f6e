"""Drawn faces: each attribute changes what it names, and nothing else; what is set is drawn."""

import numpy as np
import pytest
from numpy.random import default_rng

from npflow.datasets import FACE_ATTRIBUTES, faces
from npflow.errors import InputError


def pair(name, n=20, ends=None):
    """The same faces at both ends of an attribute, without noise, as floats."""
    ends = FACE_ATTRIBUTES[name] if ends is None else ends
    return [faces(n, default_rng(0), attributes={name: end}, noise=0)[0].astype(float) for end in ends]


def test_attributes_are_uniform_in_their_ranges_and_glasses_are_there_or_not():
    images, attributes = faces(500, default_rng(0))
    assert images.shape == (500, 32, 32, 3)
    assert images.dtype == np.uint8
    assert list(attributes) == list(FACE_ATTRIBUTES)
    for name, (low, high) in FACE_ATTRIBUTES.items():
        values = attributes[name]
        assert (values.shape, values.dtype) == ((500,), np.float64)
        assert low <= values.min() < low + 0.02 * (high - low)
        assert high - 0.02 * (high - low) < values.max() <= high
        assert values.mean() == pytest.approx((low + high) / 2, abs=4 * (high - low) / 12**0.5 / 500**0.5)
    assert set(attributes["glasses"]) == {0, 1}
    correlation = np.corrcoef([*attributes.values()]) - np.eye(len(FACE_ATTRIBUTES))
    assert np.abs(correlation).max() < 4.5 / 500**0.5


def test_the_same_rng_draws_the_same_faces_whatever_is_set():
    images, attributes = faces(40, default_rng(1))
    again, drawn = faces(40, default_rng(1), attributes=attributes)
    np.testing.assert_array_equal(images, again)
    smiling, set_to = faces(40, default_rng(1), attributes={"smile": np.linspace(-1, 1, 40)})
    np.testing.assert_array_equal(set_to.pop("smile"), np.linspace(-1, 1, 40))
    for name, values in set_to.items():
        np.testing.assert_array_equal(values, drawn[name])
    # Above the mouth they are the same, to the noise.
    np.testing.assert_array_equal(smiling[:, :16], images[:, :16])
    assert not np.array_equal(faces(40, default_rng(2))[0], images)


@pytest.mark.parametrize("name", FACE_ATTRIBUTES)
def test_each_attribute_is_seen_in_each_face(name):
    low, high = pair(name)
    assert (np.abs(high - low).max(axis=(1, 2, 3)) > 30).all()


def test_a_smile_changes_the_mouth_alone_and_glasses_the_eyes():
    for name, rows in (("smile", slice(17, 30)), ("glasses", slice(9, 22))):
        low, high = pair(name)
        changed = np.abs(high - low).max(axis=3) > 8
        assert not np.delete(changed, np.arange(32)[rows], axis=1).any()
        assert changed.mean() < 0.25


def test_a_face_moves_turns_and_is_lit_as_its_attributes_say():
    middle = np.arange(32)

    def centre_of_change(name, axis):
        """Where the mouth is, from what opening it changes, at both ends of an attribute."""
        places = []
        for end in FACE_ATTRIBUTES[name]:
            still = dict.fromkeys(("tilt", "turn", "right", "down"), 0.0) | {name: end}
            shut, open_ = (faces(10, default_rng(0), attributes=still | {"smile": s}, noise=0)[0].astype(float)
                           for s in (-1, 1))  # fmt: skip
            weight = np.abs(open_ - shut).sum(axis=(0, axis, 3))
            places.append(np.sum(weight * middle) / weight.sum())
        return places[1] - places[0]

    assert centre_of_change("right", axis=1) == pytest.approx(2 * 0.06 * 16, abs=0.3)
    assert centre_of_change("down", axis=2) == pytest.approx(2 * 0.06 * 16, abs=0.3)
    assert centre_of_change("turn", axis=1) > 2
    left, right = pair("light", ends=(-1, 1))
    assert (
        left[:, 12:20, 9:13].mean(axis=(1, 2, 3)) > right[:, 12:20, 9:13].mean(axis=(1, 2, 3))
    ).mean() > 0.9


def test_noise_has_its_standard_deviation():
    clean, noisy = (faces(20, default_rng(0), noise=noise)[0].astype(float) for noise in (0, 3))
    inside = (clean > 12) & (clean < 243)
    assert (noisy - clean)[inside].std() == pytest.approx((3**2 + 2 / 12) ** 0.5, rel=0.02)  # rounded twice


def test_bad_input():
    for arguments, words in (
        (({}, 0), "the number of faces to be at least 1, got 0"),
        (({"smile": 2}, 3), "expected smile from -1 to 1, got 2"),
        (({"smile": [0, np.nan, 0]}, 3), "expected smile from -1 to 1, got nan"),
        (({"smile": [0, 1]}, 3), "expected smile as a number, or one for each of 3 faces, got shape"),
        (({"smile": "big"}, 3), "expected smile as numbers"),
        (({"smile": 0.5j}, 3), "expected smile as real numbers, got complex128"),
        (({"smile": np.array([0, None, 1])}, 3), "expected smile as real numbers, got object"),
        (({"nose": 1}, 3), "expected attributes among smile, glasses, .*, got 'nose'"),
        (([1], 3), "expected attributes"),
    ):
        attributes, n = arguments
        with pytest.raises(InputError, match=words):
            faces(n, default_rng(0), attributes=attributes)
    with pytest.raises(InputError, match="rng"):
        faces(3, 0)
    with pytest.raises(InputError, match="noise"):
        faces(3, default_rng(0), noise=-1)
