"""The numbers of a run's steps: at once on the host, many steps at a time on a device."""

from types import SimpleNamespace

import numpy as np
import pytest
import stand_in
from npflow.training.readings import EVERY, Readings

from npflow.autodiff.gpu import devices
from npflow.training import History

LONGEST = 1e3


def readings_on(name, seen=None):
    """Readings of a run that has made no step, which note in `seen` what is checked, and at which step."""
    run = SimpleNamespace(device=devices.find_device(name), history=History(), step=0)

    def check(batch, loss, norm):
        if seen is not None:
            seen.append((run.step, batch, loss, norm))
        if not np.isfinite(loss):
            raise ArithmeticError(batch)

    return run, Readings(run, check, LONGEST, lambda: float(run.step))


def numbers(run, *values):
    return [run.device.send(np.asarray(value)) for value in values]


def test_on_the_host_each_step_is_read_at_once():
    run, readings = readings_on("cpu")
    readings.note(np.float32(2.5), 1.0, "rows")
    assert (run.history.loss, run.history.gradient_norm) == ([2.5], [1.0])
    assert readings.sound is None
    with pytest.raises(ArithmeticError):
        readings.note(np.nan, 1.0, "more rows")


def test_on_a_device_they_are_read_in_one_transfer_when_there_are_many():
    seen = []
    run, readings = readings_on("strict", seen)
    losses = np.random.default_rng(0).standard_normal(EVERY).astype(np.float32)
    pairs = [numbers(run, loss, 2.0 * number) for number, loss in enumerate(losses)]
    with stand_in.counted() as transfers:
        for number, (loss, norm) in enumerate(pairs[:-1]):
            readings.note(loss, norm, number)
            run.step += 1
    assert transfers == stand_in.Transfers(0, 0)
    assert run.history.loss == []
    with stand_in.counted() as transfers:
        readings.note(*pairs[-1], EVERY - 1)
    assert transfers == stand_in.Transfers(to_device=0, to_host=1)
    assert run.history.loss == losses.tolist()
    assert run.history.gradient_norm == [2.0 * number for number in range(EVERY)]
    assert [(step, batch) for step, batch, _, _ in seen] == [(number, number) for number in range(EVERY)]
    assert run.step == EVERY - 1


def test_what_is_left_is_read_when_it_is_asked_for_and_only_once():
    run, readings = readings_on("strict")
    for loss in (3.0, 2.0):
        readings.note(*numbers(run, loss, 1.0), "rows")
    readings.read()
    readings.read()
    assert run.history.loss == [3.0, 2.0]


@pytest.mark.parametrize(
    "unsound", [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf), (1.0, 2 * LONGEST)]
)
def test_once_a_step_cannot_be_made_no_later_one_is_sound(unsound):
    run, readings = readings_on("strict")
    sound = []
    for pair in [(1.0, 1.0), unsound, (1.0, 1.0)]:
        readings.note(*numbers(run, *pair), "rows")
        sound.append(bool(readings.sound))
    assert sound == [True, False, False]


def test_a_failure_is_found_at_its_step_with_what_was_before_it():
    run, readings = readings_on("strict")
    for number, loss in enumerate((3.0, 2.0, np.nan, 1.0)):
        readings.note(*numbers(run, loss, 1.0), number)
        run.step += 1
    with pytest.raises(ArithmeticError, match="2"):
        readings.read()
    assert run.step == 2
    assert run.history.loss == [3.0, 2.0]


def test_steps_between_two_readings_share_the_time_between_them():
    run, readings = readings_on("strict")
    run.history.seconds = [0.5]
    readings.timed = 1
    for _ in range(4):
        readings.note(*numbers(run, 1.0, 1.0), "rows")
        run.history.seconds.append(0.6)  # when it was asked for
    run.step = 2.5  # the clock of these tests
    readings.read()
    assert run.history.seconds == [0.5, 1.0, 1.5, 2.0, 2.5]
