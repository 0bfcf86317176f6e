"""A run on a device: the host's to the bit on the stand-in, which nothing waits for and whose losses are read late."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
import stand_in
from autograd.tracer import getval
from helpers import assert_agrees, refusal, rows
from runs import SMALL, Steep, data, failure, flow_and_params, run

from npflow import NonFiniteError, fit, load, to_device
from npflow.autodiff.gpu.devices import HOST, find_device
from npflow.layers import ActNorm, Chain, Layer, Permutation, Reverse
from npflow.models import glow
from npflow.training import Adam, WarmupCosine
from npflow.training.data import Batch
from npflow.training.on_device import EVERY, DeviceRun
from npflow.training.options import Options
from npflow.training.run import Run

X = rows(300, 2, dtype=np.float32)
X[:, 1] += X[:, 0] ** 2
FLOW = glow(2, steps=1, network=SMALL)
PARAMS = FLOW.init(np.random.default_rng(0), X)


def trained(device=None, steps=70, **options):
    """A run on data and parameters of the host."""
    return trained_on(PARAMS, X, steps=steps, device=device, **options)


def trained_on(params, x, **options):
    options = {"batch_size": 64, "progress": False, "rng": np.random.default_rng(3)} | options
    if "validation" in options:
        options["validation"] = x[: options["validation"]]
    return fit(FLOW, params, x, **options)


def assert_same_run(device, there, here, home=HOST):
    (params, history), (expected, expected_history) = there, here
    assert_agrees(home, params, expected)
    assert history.steps == expected_history.steps == len(history.seconds)
    for series in ("loss", "gradient_norm", "validation_loss", "validation_step", "learning_rate"):
        tolerance = 0 if device.exact else 1e-3
        np.testing.assert_allclose(
            getattr(history, series), getattr(expected_history, series), rtol=tolerance, atol=tolerance
        )


def steps_on(device, steps):
    """Fewer steps on a GPU, whose roundings drift apart from the host's."""
    return steps if device.exact else 10


# ---------------------------------------------------------------- the host's run


@pytest.mark.parametrize(
    "options",
    [
        {"clip_norm": 0.5, "average": 0.9},
        {"validation": 50, "optimizer": Adam(WarmupCosine(1e-2, 70, 10))},
        {"record": False, "steps": 10},
    ],
    ids=["clipped and averaged", "validated", "without a program"],
)
def test_a_run_on_a_device_is_the_hosts_and_comes_home(options, device):
    options = {"steps": steps_on(device, EVERY + 2)} | options
    assert_same_run(device, trained(device.name, **options), trained(**options))


def test_parameters_on_a_device_are_trained_there_and_stay(device):
    steps = steps_on(device, 20)
    there = trained_on(*to_device((PARAMS, X), device.name), steps=steps)
    assert_same_run(device, there, trained(steps=steps), home=device)


def test_a_data_set_that_does_not_fit_is_streamed(monkeypatch):
    strict = find_device("strict")
    monkeypatch.setattr(strict, "available", 1000, raising=False)
    with stand_in.counted() as streamed:
        there = trained("strict", steps=20, validation=200)
    assert_same_run(strict, there, trained(steps=20, validation=200))
    assert streamed.to_device > 20


@pytest.mark.parametrize(("first", "second"), [("device", "cpu"), ("cpu", "device")])
def test_a_checkpoint_knows_no_device(first, second, device, tmp_path):
    steps = steps_on(device, 24)
    names = {"device": device.name, "cpu": "cpu"}
    options = {"average": 0.9, "clip_norm": 1.0}
    whole = trained(steps=steps, **options)
    options |= {"checkpoint": tmp_path / "run.npz", "checkpoint_every": 5}
    trained(names[first], steps // 2, **options)
    assert_same_run(device, trained(names[second], steps, **options), whole)
    assert isinstance(load(tmp_path / "run.npz").params["layer"][1]["bias"], np.ndarray)


@pytest.mark.parametrize("layer", [Reverse(), Permutation()], ids=repr)
@pytest.mark.parametrize("record", [True, False])
def test_a_flow_that_trains_nothing_runs_on_a_device(layer, record, device):
    x = rows(20, 2)
    flow, params = flow_and_params(x, Chain([layer]))
    options = {"steps": 3, "average": 0.9, "record": record, "progress": False}
    _, expected = fit(flow, params, x, rng=np.random.default_rng(0), **options)
    there = to_device((params, x), device.name)
    for arguments, name in (((params, x), device.name), (there, None)):
        _, history = fit(flow, *arguments, rng=np.random.default_rng(0), device=name, **options)
        np.testing.assert_allclose(history.loss, expected.loss, rtol=1e-12)


# ---------------------------------------------------------------- no waiting


def test_a_step_waits_for_nothing_and_sends_nothing_but_the_order(monkeypatch):
    transfers, update = [], Run.update

    def watched(self, batch, gradient):
        rate = update(self, batch, gradient)
        transfers.append((stand_in.TRANSFERS.to_device, stand_in.TRANSFERS.to_host))
        return rate

    monkeypatch.setattr(Run, "update", watched)
    for batch_size, orders in ((300, 42), (10, 1)):  # each step an epoch, or one of thirty
        transfers.clear()
        trained("strict", steps=45, batch_size=batch_size, clip_norm=0.5, average=0.9)
        sent, read = np.diff(transfers[2:], axis=0).T  # the first two steps prepare
        assert (sent.sum(), read.sum()) == (orders, 0)


def a_run(device="strict"):
    """A run that has made no step, and a batch with a gradient for it."""
    flow, params = flow_and_params(data())
    options, rng = Options(optimizer=Adam(), average=0.9), np.random.default_rng(0)
    made = DeviceRun.start(flow, params, (data(),), options, rng, find_device(device), 16)
    made.draw_order()
    made.start_clock()
    return made


def step(run, loss, norm=1.0):
    """A step whose loss and norm are what a test says, and whose gradient is all ones."""
    batch = Batch(run.order, slice(0, 16), run.step + 1)
    gradient = run.device.send(np.ones(run.layout.size))
    run.note(batch, run.device.send(np.asarray(loss)), run.device.send(np.asarray(norm)), gradient)
    run.update(batch, gradient)
    run.history.learning_rate.append(1e-3)
    run.history.seconds.append(run.elapsed())


def test_losses_are_read_in_one_transfer_when_there_are_many():
    run, losses = a_run(), rows(EVERY)
    read = []
    for number, loss in enumerate(losses):
        before = stand_in.TRANSFERS.to_host
        step(run, loss, 2.0 * number)
        read.append(stand_in.TRANSFERS.to_host - before)
        assert len(run.history.loss) == (EVERY if number == EVERY - 1 else 0)
    assert read == [0] * (EVERY - 1) + [1]
    assert run.history.loss == losses.tolist()
    assert run.history.gradient_norm == [2.0 * number for number in range(EVERY)]


def test_what_is_left_is_read_when_it_is_asked_for_and_only_once():
    run = a_run()
    for loss in (3.0, 2.0):
        step(run, loss)
    run.read()
    run.read()
    assert run.history.loss == [3.0, 2.0]


def test_steps_between_two_readings_share_the_time_between_them(monkeypatch):
    run = a_run()
    step(run, 1.0)
    run.read()
    run.history.seconds = [0.5]
    run.timed = 1
    for _ in range(4):
        step(run, 1.0)
    monkeypatch.setattr(run, "elapsed", lambda: 2.5)
    run.read()
    assert run.history.seconds == [0.5, 1.0, 1.5, 2.0, 2.5]


# ---------------------------------------------------------------- failures, found late


@pytest.mark.parametrize(
    ("loss", "norm"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, np.inf), (1.0, 1e200)]
)
def test_from_a_step_that_cannot_be_made_nothing_changes(loss, norm):
    run = a_run()
    step(run, 3.0)
    state = [run.device.fetch(vector) for vector in (run.vector, run.before, run.average)]
    for pair in ((loss, norm), (1.0, 1.0)):  # no later step is sound either
        step(run, *pair)
        assert not bool(run.sound)
        for vector, expected in zip((run.vector, run.before, run.average), state):
            assert_agrees(run.device, vector, expected)
    with pytest.raises(NonFiniteError) as caught:
        run.read()
    assert run.history.loss == [3.0]
    assert len(run.history.seconds) == len(run.history.learning_rate) == 1
    assert_agrees(HOST, caught.value.params, run.tree_of(run.average))


def test_a_failure_found_late_is_the_one_found_at_once():
    options = {"optimizer": Adam(30.0), "clip_norm": 1.0, "average": 0.9}
    failures = []
    for name in ("cpu", "strict"):
        with pytest.raises(NonFiniteError) as caught:
            trained(name, **options)
        failures.append(caught.value)
    at_once, late = failures
    assert str(late) == str(at_once)
    assert_agrees(HOST, late.params, at_once.params)
    assert late.history.loss == at_once.history.loss
    assert len(late.history.seconds) == len(late.history.learning_rate) == late.history.steps


def test_a_gradient_that_is_not_finite_is_named_though_it_is_found_late():
    at_once, late = (str(failure(data(), Steep(), device=name)) for name in ("cpu", "strict"))
    assert late == at_once
    assert "finite gradient at step 1" in late
    assert "layer/scale" in late


# ---------------------------------------------------------------- layers that work on the host alone


@dataclass(frozen=True)
class HostBound(Layer):
    """A layer that makes an array on the host."""

    def forward(self, params, x):
        return x + np.zeros(x.shape, x.dtype), np.zeros(len(x), x.dtype)

    inverse = forward


@dataclass(frozen=True)
class Converting(Layer):
    """A layer that converts its input to NumPy's array."""

    def forward(self, params, x):
        return x + 0.0 * float(np.asarray(getval(x)).sum()), anp.zeros_like(x, shape=(len(x),))

    inverse = forward


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize(("layer", "cause"), [(HostBound(), ""), (Converting(), "Implicit conversion")])
def test_a_layer_that_does_not_compute_on_a_device_is_named(layer, cause, record):
    sentence = refusal(run, rows(20, 2), Chain([ActNorm(), layer]), device="strict", record=record)
    assert sentence.startswith(
        f"layer/1 ({type(layer).__name__}): expected forward to compute on strict alone"
    )
    assert cause in sentence
