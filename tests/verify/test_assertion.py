"""`assert_flow` takes layers, flows and functions."""

import numpy as np
import pytest
from helpers import rows

from npflow import Flow, InputError, VerificationError
from npflow.layers import Affine, Conv1x1
from npflow.priors import Normal
from npflow.verify import assert_flow


class Wrong(Affine):
    def log_det(self, params, x):
        return -super().log_det(params, x)


def test_right_ones_pass_and_give_their_report():
    x = rows(8, 3)
    assert assert_flow(Conv1x1(), x).subject == "Conv1x1"
    assert assert_flow(Flow(Conv1x1(), Normal(3)), x).passed
    assert assert_flow(lambda x: (x + 1, 0 * x[:, 0]), lambda z: (z - 1, 0 * z[:, 0]), x).passed
    assert assert_flow(lambda x: (x + 1, 0 * x[:, 0]), None, x).passed


def test_a_wrong_one_raises_with_its_first_cause():
    with pytest.raises(VerificationError, match="opposite sign"):
        assert_flow(Wrong(), rows(8, 3))
    with pytest.raises(AssertionError, match="opposite sign"):
        assert_flow(lambda x: (2 * x, np.full(len(x), -2 * np.log(2))), lambda z: (z / 2, np.full(len(z), -2 * np.log(2))),
                    rows(8, 2))  # fmt: skip


def test_anything_else_gets_a_sentence():
    with pytest.raises(InputError, match=r"expected a layer, a Flow, .* got 3"):
        assert_flow(3, rows(8, 3))
