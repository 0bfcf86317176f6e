"""Images taken apart: means of blocks and details, and two halves that lie on each other."""

import numpy as np
import pytest
from helpers import refusal, rows, same_bits
from scipy.special import expit, logit

from npflow.layers import BlockMeans, Fold

SIDES = ("lower", "upper", "left", "right")


def means_of_blocks(y):
    n, height, width, channels = y.shape
    return y.reshape(n, height // 2, 2, width // 2, 2, channels).mean(axis=(2, 4))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-6), (np.float64, 1e-14)])
def test_the_first_channels_are_the_logits_of_the_means_of_blocks(dtype, tolerance):
    x = rows(5, 4, 6, 2, dtype=dtype)
    known, rest = BlockMeans().split(BlockMeans().forward({}, x)[0])
    assert (known.shape, rest.shape, known.dtype) == ((5, 2, 3, 2), (5, 2, 3, 6), dtype)
    np.testing.assert_allclose(expit(known), means_of_blocks(expit(x)), atol=tolerance)


def test_the_details_are_differences_of_logits_between_rows_and_within_them():
    p = np.array([[0.1, 0.2], [0.3, 0.6]])
    z, _ = BlockMeans().forward({}, logit(p)[None, ..., None])
    between = logit(p[0].mean()) - logit(p[1].mean())
    within = logit(p[:, 0]) - logit(p[:, 1])
    np.testing.assert_allclose(z[0, 0, 0], [logit(0.3), between, *within], rtol=1e-12)


@pytest.mark.parametrize("size", [1.0, 30.0, 1e4])
def test_whatever_the_details_are_a_block_keeps_its_mean(size):
    known, rest = rows(50, 2, 2, 1), size * rows(50, 2, 2, 3, seed=2)
    x, _ = BlockMeans().inverse({}, BlockMeans().join(known, rest))
    assert np.isfinite(x).all()
    np.testing.assert_allclose(means_of_blocks(expit(x)), expit(known), rtol=1e-12)


@pytest.mark.parametrize("missing", SIDES)
def test_pixels_that_meet_at_the_fold_lie_on_each_other(missing):
    x = rows(3, 4, 6, 2)
    known, rest = Fold(missing).split(Fold(missing).forward({}, x)[0])
    halves = {"upper": x[:, :2], "lower": x[:, 2:], "left": x[:, :, :3], "right": x[:, :, 3:]}
    other = dict(zip(SIDES, ("upper", "lower", "right", "left")))[missing]
    axis = 1 if missing in ("lower", "upper") else 2
    from_the_fold = lambda side: np.flip(halves[side], axis) if side in ("upper", "left") else halves[side]
    assert same_bits((known, rest), (from_the_fold(other), from_the_fold(missing)))


@pytest.mark.parametrize(
    ("call", "x", "sentence"),
    [
        (BlockMeans().forward, rows(2, 3, 4, 1), "expected images (n, height, width, channels) of even height and width"),
        (Fold().forward, rows(2, 3, 4, 1), "expected an even number of pixels along the folded axis, got 3"),
        (Fold("left").forward, rows(2, 4), "expected images (n, height, width, channels) to fold, got shape (2, 4)"),
        (BlockMeans().inverse, rows(2, 2, 2, 3), "expected images (n, height, width, channels) of a multiple of 4 channels"),
        (BlockMeans().inverse, rows(2, 4), "expected images (n, height, width, channels) of a multiple of 4 channels"),
        (Fold().inverse, rows(2, 2, 2, 3), "expected an even number of channels to unfold, got 3"),
    ],
)  # fmt: skip
def test_what_has_no_such_parts_is_refused(call, x, sentence):
    assert sentence in refusal(call, {}, x)
