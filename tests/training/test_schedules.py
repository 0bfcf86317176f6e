"""Learning-rate schedules."""

import math

import pytest

from npflow import InputError
from npflow.description import describe, rebuild
from npflow.training import Constant, WarmupCosine


def test_constant_is_constant():
    assert {Constant(0.1)(step) for step in (1, 10, 10**6)} == {0.1}


def test_warm_up_is_linear_and_the_cosine_falls_to_zero():
    schedule = WarmupCosine(2.0, steps=100, warmup=20)
    assert [schedule(step) for step in (1, 10, 20)] == [0.1, 1.0, 2.0]
    assert schedule(60) == pytest.approx(1.0)
    assert schedule(40) == pytest.approx(1 + math.cos(math.pi / 4))
    assert schedule(100) == schedule(1000) == 0
    falling = [schedule(step) for step in range(20, 101)]
    assert falling == sorted(falling, reverse=True)


def test_without_warm_up_it_starts_at_the_peak():
    assert WarmupCosine(1.0, steps=10**9)(1) == pytest.approx(1.0)


def test_a_schedule_survives_its_description():
    schedule = WarmupCosine(1e-3, steps=50, warmup=5)
    assert rebuild(describe(schedule)) == schedule


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Constant(-1), "Constant's rate to be a finite number above 0, got -1"),
        (lambda: WarmupCosine(0, 10), "WarmupCosine's peak to be a finite number above 0"),
        (lambda: WarmupCosine(1, 0), "WarmupCosine's steps to be at least 1, got 0"),
        (lambda: WarmupCosine(1, 10, -1), "WarmupCosine's warmup to be at least 0, got -1"),
        (lambda: WarmupCosine(1, 10, 10), "WarmupCosine's warmup to be less than its 10 steps, got 10"),
    ],
)
def test_invalid_hyper_parameters_are_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()
