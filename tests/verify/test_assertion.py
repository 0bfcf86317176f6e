"""`assert_flow` takes layers, flows and functions."""

import numpy as np
import pytest
from helpers import moved, rows

from npflow import Flow, InputError, VerificationError
from npflow.layers import Affine, AffineCoupling, Conv1x1
from npflow.networks import MLP
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


def test_a_flow_is_checked_with_parameters_of_its_own(rng):
    x, flow = rows(8, 3), Flow(Conv1x1(), Normal(3))
    assert assert_flow(flow, x, params=flow.init(rng, x)).passed
    with pytest.raises(InputError, match="expected the parameters of a flow"):
        assert_flow(flow, x, params=flow.init(rng, x)["layer"])


class ForgetsTheContext(AffineCoupling):
    """Its log-det is that without a context."""

    def forward(self, params, x, context=None):
        z, log_det = super().forward(params, x, context)
        return z, log_det if context is None else log_det - 0.1 * np.sum(context, axis=1)


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("context", [None, [2010.0, 1990.0]])
def test_a_conditional_flow_is_checked_at_a_context(context, trained, rng):
    x, network = rows(20, 3), MLP((4,), "tanh")
    options = {} if context is None else {"context": context}
    for layer, right in ((AffineCoupling(network), True), (ForgetsTheContext(network), False)):
        flow = Flow(layer, Normal(3), context_features=2)
        if trained:
            options["params"] = moved(flow.init(rng, x, rng.normal(2000, 10, (20, 2))))
        if right:
            assert assert_flow(flow, x, **options).passed
        else:
            with pytest.raises(VerificationError, match="log_det of forward is off"):
                assert_flow(flow, x, **options)


def test_a_context_of_another_width_is_refused():
    flow = Flow(AffineCoupling(MLP((4,))), Normal(3), context_features=2)
    with pytest.raises(InputError, match="context"):
        assert_flow(flow, rows(20, 3), context=[1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="expected no context for a flow"):
        assert_flow(Flow(Conv1x1(), Normal(3)), rows(20, 3), context=[1.0])


def test_a_wrong_one_raises_with_its_first_cause():
    with pytest.raises(VerificationError, match="opposite sign"):
        assert_flow(Wrong(), rows(8, 3))
    with pytest.raises(AssertionError, match="opposite sign"):
        assert_flow(lambda x: (2 * x, np.full(len(x), -2 * np.log(2))), lambda z: (z / 2, np.full(len(z), -2 * np.log(2))),
                    rows(8, 2))  # fmt: skip


def test_anything_else_gets_a_sentence():
    with pytest.raises(InputError, match=r"expected a layer, a Flow, .* got 3"):
        assert_flow(3, rows(8, 3))
