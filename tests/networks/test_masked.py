"""Masks of causal convolutions."""

import numpy as np
import pytest

from npflow.networks.masked import causal_mask, groups_of


def test_a_group_depends_on_earlier_groups_at_its_pixel_and_on_its_own_with_mask_b():
    a, b = (causal_mask(kind, (5, 3, 6), 3, np.dtype(float)) for kind in "AB")
    np.testing.assert_array_equal(a[:4], 1)
    np.testing.assert_array_equal(a[4], [[0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1], [0] * 6])
    np.testing.assert_array_equal(b[:4], 1)
    np.testing.assert_array_equal(b[4], [[1] * 6, [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(groups_of(5, 3), [0, 0, 1, 1, 2])


def test_masks_are_cached_and_read_only():
    first, again = (causal_mask("A", (5, 3, 6), 3, np.dtype(np.float32)) for _ in range(2))
    assert first is again
    with pytest.raises(ValueError, match="read-only"):
        first[0, 0, 0] = 5
