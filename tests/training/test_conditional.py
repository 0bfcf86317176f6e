"""Training a conditional flow: its context goes with the rows."""

import numpy as np
import pytest
from helpers import assert_agrees, refusal, rows, same_bits

from npflow import fit, models, to_device
from npflow.networks import MLP

FLOW = models.real_nvp(2, 2, MLP((8,), "tanh"), context_features=3)
RNG = np.random.default_rng(0)
X, C = rows(70, 2), rows(70, 3, seed=2)
PARAMS = FLOW.init(np.random.default_rng(1), X, C)
OPTIONS = {"steps": 12, "batch_size": 16, "progress": False}


def trained(x=X, context=C, params=PARAMS, **options):
    return fit(FLOW, params, x, context, rng=np.random.default_rng(2), **OPTIONS | options)


def test_the_context_of_a_row_goes_with_it():
    params, history = trained(steps=1, batch_size=70)
    assert history.loss[0] == pytest.approx(FLOW.loss(PARAMS, X, C), rel=1e-12)
    order = np.random.default_rng(3).permutation(70)
    assert FLOW.loss(params, X[order], C[order]) == pytest.approx(FLOW.loss(params, X, C), rel=1e-12)
    assert FLOW.loss(params, X, C[order]) != pytest.approx(FLOW.loss(params, X, C), rel=1e-6)


def test_with_and_without_a_program_and_with_any_number_of_threads_the_bits_are_the_same():
    one, history = trained()
    for options in ({"record": False}, {"threads": 2}):
        other, again = trained(**options)
        assert same_bits(one, other)
        assert history.loss == again.loss


def test_the_best_parameters_on_held_out_rows_with_their_context_are_returned():
    params, history = trained(validation=X[:20], validation_context=C[:20])
    assert -FLOW.log_prob(params, X[:20], C[:20]).mean() == pytest.approx(
        min(history.validation_loss), rel=1e-12
    )


def test_a_checkpoint_of_another_context_is_refused(tmp_path):
    trained(steps=1, checkpoint=tmp_path / "run.npz")
    words = refusal(trained, context=C[::-1].copy(), steps=1, checkpoint=tmp_path / "run.npz")
    assert "another context" in words


def test_on_a_device_it_is_trained_to_what_it_is_on_the_host(device):
    there = to_device((PARAMS, X, C), device.name)
    learned, _ = fit(FLOW, *there, rng=np.random.default_rng(2), **OPTIONS)
    assert_agrees(device, learned, trained()[0])


def test_many_rows_are_worked_off_in_chunks_with_their_context():
    rng = np.random.default_rng(4)
    x, context = rng.standard_normal((40_000, 2)), rng.standard_normal((40_000, 3))
    params, _ = trained()
    some = rng.integers(40_000, size=50)
    np.testing.assert_allclose(
        FLOW.log_prob(params, x, context)[some], FLOW.log_prob(params, x[some], context[some]), rtol=1e-9
    )


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: FLOW.log_prob(PARAMS, X), "expected a context of 3 features for each of"),
        (lambda: FLOW.log_prob(PARAMS, X, C[:5]), "expected a row of context for each of 70 rows, got 5"),
        (
            lambda: FLOW.log_prob(PARAMS, X, C[:, :2]),
            "expected context with rows of 3 features, got rows of 2",
        ),
        (
            lambda: FLOW.log_prob(PARAMS, X, C.astype(np.float32)),
            "expected context in float64, the dtype of the parameters, got float32",
        ),
        (lambda: FLOW.sample(PARAMS, RNG, 4, C[:3]), "expected a row of context for each of 4 rows, got 3"),
        (lambda: trained(context=None), "expected a context of 3 features for each of"),
        (lambda: trained(validation=X), "expected a validation_context of 3 features for each of"),
        (lambda: trained(validation_context=C), "expected validation beside validation_context, got none"),
        (
            lambda: models.glow(2).init(RNG, X, C),
            "expected no context for a flow with context_features=0, got one",
        ),
        (
            lambda: models.glow(2, context_features=-1),
            "context_features to be at least 0, got -1",
        ),
    ],
)
def test_a_context_that_is_missing_or_another_is_refused(call, words):
    assert words in refusal(call)
