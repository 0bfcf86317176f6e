"""Masks: the part of its input that a layer transforms."""

import numpy as np
import pytest
from helpers import rows
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.layers.masks import CHANNELS, CHECKERBOARDS, ChannelMask, Checkerboard, mask_of

NAMES = (*CHANNELS, *CHECKERBOARDS, (True, False, False))
few = settings(max_examples=10, deadline=None)


def test_a_checkerboard_by_hand():
    x = np.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    kept, changed = Checkerboard("checkerboard-odd").parts(x)
    np.testing.assert_array_equal(kept[0, :, :, 0], [[1, 0, 3], [0, 5, 0]])
    np.testing.assert_array_equal(changed, x)
    joined = Checkerboard("checkerboard-odd").join(kept, -x)
    np.testing.assert_array_equal(joined[0, :, :, 0], [[1, -2, 3], [-4, 5, -6]])
    assert [mask_of(board).log_det(x).tolist() for board in CHECKERBOARDS] == [[2 + 4 + 6], [1 + 3 + 5]]


@pytest.mark.parametrize(
    ("transformed", "kept", "changed"),
    [
        ("first", [4, 5], [1, 2, 3]),
        ("second", [1, 2, 3], [4, 5]),
        ("odd", [1, 3, 5], [2, 4]),
        ("even", [2, 4], [1, 3, 5]),
        ((True, False, False, True, True), [2, 3], [1, 4, 5]),
    ],
)
def test_channels_by_hand(transformed, kept, changed):
    parts = ChannelMask(transformed).parts(np.arange(1.0, 6.0)[None])
    assert [part[0].tolist() for part in parts] == [kept, changed]
    assert ChannelMask(transformed).log_det(parts[1]) == sum(changed)


@pytest.mark.parametrize("name", NAMES)
@few
@given(st.integers(1, 4), st.integers(2, 4), st.sampled_from([np.float32, np.float64]))
def test_both_parts_together_are_what_was_taken_apart_to_the_bit(name, height, width, dtype):
    x = rows(2, height, width, 3, dtype=dtype)
    x[:, 0, :2] = -0.0
    joined = mask_of(name).join(*mask_of(name).parts(x))
    assert (joined.dtype, joined.shape) == (x.dtype, x.shape)
    assert joined.tobytes() == x.tobytes()
    assert not np.signbit(mask_of(name).parts(np.abs(x))[0]).any()


@few
@given(st.integers(1, 4), st.integers(2, 4))
def test_what_one_mask_transforms_its_opposite_leaves(height, width):
    x = rows(2, height, width, 3)
    for one, other in (("first", "second"), ("odd", "even"), CHECKERBOARDS):
        if one == "first":
            x = x[..., :2]
        changed = [
            mask.join(mask.parts(x)[0], mask.parts(x)[1] + 1) != x for mask in map(mask_of, (one, other))
        ]
        assert (changed[0] != changed[1]).all()
