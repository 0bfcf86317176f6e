"""The state of a run in a checkpoint: a part that is missing, foreign or impossible is refused."""

import json

import numpy as np
import pytest
from helpers import refusal
from stored import rewrite, with_contents

from npflow import load
from npflow.training.run_state import check_random_state


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run: run.pop("epoch_rng"), "got none of ['epoch_rng']"),
        (lambda run: run.pop("step"), "got none of ['step']"),
        (lambda run: run.update(step="x"), "the step of the run to be an integer"),
        (lambda run: run.update(step=True), "the step of the run to be an integer"),
        (lambda run: run.update(step=-1), "the step of the run to be at least 0"),
        (lambda run: run.update(step=11), "float64 of shape (11,) in 'run:history:"),
        (lambda run: run.update(settings=[]), "the settings of the run"),
        (lambda run: run["settings"].update(average=None), "expected no entry 'run:average'"),
        (lambda run: run.update(position=2.5), "the position in the epoch"),
        (lambda run: run.update(best_loss=float("nan")), "the best validation loss"),
        (lambda run: run.update(best_loss=None), "expected no entry 'run:best'"),
        (lambda run: run.update(noise_seed=None), "the seed of the noise"),
        (lambda run: run.update(epoch_rng=[1]), "the state of the random generator"),
        (lambda run: run["epoch_rng"].pop("bit_generator"), "the kind of generator"),
        (lambda run: run["epoch_rng"].pop("state"), "generator PCG64, got one that it refuses: KeyError"),
        (lambda run: run["epoch_rng"]["state"].update(inc=2**200), "got one that it"),
        (lambda run: run["epoch_rng"].update(more=1), "got one that it cannot be in"),
    ],
)
def test_a_foreign_state_gets_a_sentence(change, words, trained):
    rewrite(trained, lambda description: change(description["run"]))
    words_said = refusal(load, trained)
    assert words in words_said
    assert str(trained) in words_said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.pop("run:vector"), "expected an entry 'run:vector', got none"),
        (lambda c: c.pop("run:average"), "expected an entry 'run:average', got none"),
        (lambda c: c.pop("run:best"), "expected an entry 'run:best', got none"),
        (lambda c: c.pop("run:history:seconds"), "'run:history:seconds' missing or unknown"),
        (lambda c: c.update({"run:x": np.zeros(2)}), "'run:x' missing or unknown"),
        (lambda c: c.update({"run:vector": c["run:vector"][:-1]}), "in 'run:vector', got float64 of shape"),
        (lambda c: c.update({"run:best": c["run:best"][None]}), "in 'run:best', got float64 of shape (1, "),
        (lambda c: c.update({"run:moment:m": np.zeros(3)}), "in 'run:moment:m', got float64 of shape (3,)"),
        (lambda c: c.update({"run:moment:v": c["run:moment:v"] > 0}), "in 'run:moment:v', got bool"),
        (
            lambda c: c.update({"run:history:loss": np.zeros(11)}),
            "float64 of shape (12,) in 'run:history:loss'",
        ),
        (
            lambda c: c.update({"run:history:validation_loss": np.zeros(9)}),
            "in 'run:history:validation_loss'",
        ),
        (lambda c: c["run:history:validation_step"].fill(np.nan), "validations after steps 1 to 12"),
        (lambda c: c["run:history:validation_step"].fill(13), "validations after steps 1 to 12"),
    ],
)
def test_arrays_that_do_not_fit_each_other_get_a_sentence(change, words, trained):
    with_contents(trained, change)
    assert words in refusal(load, trained)


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        (np.random.MT19937, lambda state: state["state"].update(pos=10**6)),
        (np.random.MT19937, lambda state: state["state"].update(pos=-1)),
        (np.random.MT19937, lambda state: state["state"]["key"].pop()),
        (np.random.Philox, lambda state: state.update(buffer_pos=-5)),
        (np.random.SFC64, lambda state: state["state"]["state"].__setitem__(0, -1)),
    ],
)
def test_a_state_that_a_generator_cannot_be_in_is_refused(kind, change):
    """NumPy takes some of them, and then reads numbers behind the end of its own."""
    state = kind(0).state
    state = json.loads(json.dumps(state, default=lambda array: array.tolist()))
    check_random_state(state)
    change(state)
    assert f"the state of a random generator {kind.__name__}" in refusal(check_random_state, state)
