"""From numbers to sentences: each known mistake gets its own."""

import numpy as np
import pytest

from npflow.verify.diagnosis import of_log_det, of_round_trip

RNG = np.random.default_rng(0)
TRUE = RNG.normal(2.0, 1.0, 8)
PARTS = {"0 (ActNorm)": RNG.normal(0.5, 0.3, 8), "1 (Conv1x1)": RNG.normal(-0.7, 0.3, 8)}


@pytest.mark.parametrize(
    ("claimed", "words"),
    [
        (-TRUE, "has the opposite sign"),
        (TRUE / 6, "lacks the factor H W = 6"),
        (TRUE / 24, "is the mean over the 24 components, not their sum"),
        (np.full(8, TRUE.sum()), "is summed over the batch"),
        (np.full(8, TRUE.mean()), "is averaged over the batch"),
        (TRUE - PARTS["1 (Conv1x1)"], r"leaves out that of layer 1 (Conv1x1)"),
        (TRUE + PARTS["0 (ActNorm)"], r"counts that of layer 0 (ActNorm) twice"),
        (TRUE - 2 * PARTS["0 (ActNorm)"], r"takes that of layer 0 (ActNorm) with the opposite sign"),
        (TRUE + 0.25, "is off by 0.25 nats in every row"),
        (TRUE + 1e-7, "is off by 1e-07 nats in every row"),
        (np.roll(TRUE, 1), "has the rows in another order"),
        (TRUE + TRUE**2, "differently in each row"),
        (np.where(np.arange(8) == 5, np.nan, TRUE), "is nan in row 5"),
    ],
)
def test_a_wrong_log_det_is_named(claimed, words):
    sentence = of_log_det(claimed, TRUE, "forward", (2, 3, 4), PARTS)
    assert words in sentence
    assert sentence.startswith("log_det of forward")


def test_the_sign_of_an_inverse_is_told_as_the_inverses():
    assert "the inverse's is minus the forward's" in of_log_det(-TRUE, TRUE, "inverse", (4,), {})


@pytest.mark.parametrize(
    ("error", "words"),
    [(np.inf, "is not finite"), (1e-4, "the inverse is approximate"), (0.8, "off by up to 0.8")],
)
def test_a_broken_round_trip_is_named(error, words):
    assert words in of_round_trip(error, "x", "inverse(forward(x))")
