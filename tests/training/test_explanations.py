"""What is said of an error in a step, with a program and without."""

from dataclasses import dataclass
from inspect import getsourcelines

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.tracer import isbox
from helpers import refusal
from runs import data, run

from npflow import InputError
from npflow.layers import ActNorm, Affine, Chain, Layer


@dataclass(frozen=True)
class Branching(Layer):
    """A layer that looks at the values of its rows."""

    def init(self, rng, x):
        return {"a": np.ones(1, x.dtype)}

    def forward(self, params, x):
        factor = 2.0 if anp.sum(x) > 0 else 1.0
        return factor * params["a"] * x, 2 * anp.log(factor * params["a"]) * np.ones(len(x))

    def inverse(self, params, z):
        raise NotImplementedError


def test_a_layer_that_cannot_be_recorded_is_named_by_its_line_and_trains_without_a_program():
    lines, first = getsourcelines(Branching)
    line = next(number for number, text in enumerate(lines, first) if "if anp.sum" in text)
    layer = Chain([ActNorm(), Branching()])
    sentence = refusal(run, data(), layer)
    assert f"{__file__}:{line} (factor = 2.0 if " in sentence
    assert sentence.endswith("fit(..., record=False) runs it without a program")
    _, history = run(data(), layer, record=False)
    assert history.loss[-1] < history.loss[0]


@pytest.mark.parametrize("record", [True, False])
def test_an_error_of_a_layers_own_stays_as_it_is(record):
    @dataclass(frozen=True)
    class Picky(Affine):
        def forward(self, params, x):
            if len(x) < 16:
                raise InputError("expected at least 16 rows")
            return super().forward(params, x)

    assert refusal(run, data(), Picky(), record=record) == "expected at least 16 rows"


def test_a_step_that_runs_out_of_memory_is_not_computed_again():
    rows_seen = []

    @dataclass(frozen=True)
    class Huge(Affine):
        def forward(self, params, x):
            rows_seen.append(len(x))
            if isbox(params["mean"]):  # in a step
                raise MemoryError
            return super().forward(params, x)

    with pytest.raises(MemoryError):
        run(data(), Huge(), record=False, batch_size=17)
    assert rows_seen.count(17) == 1


@pytest.mark.parametrize("record", [True, False])
def test_a_layer_whose_gradient_fails_is_not_told_to_run_without_a_program(record):
    @dataclass(frozen=True)
    class NoDerivative(Affine):
        def forward(self, params, x):
            z, log_det = super().forward(params, x)
            return z + anp.nextafter(z, z), log_det

    with pytest.raises((InputError, NotImplementedError)) as caught:
        run(data(), NoDerivative(), record=record)
    assert "record=False" not in str(caught.value)


@pytest.mark.parametrize("record", [True, False])
def test_the_line_of_a_derivative_is_named(record):
    """None of the layer's code runs while its derivative is computed."""

    @dataclass(frozen=True)
    class NoDerivative(Affine):
        def forward(self, params, x):
            z, log_det = super().forward(params, x)
            return z + anp.nextafter(z, z), log_det  # here

    lines, first = getsourcelines(NoDerivative)
    line = next(number for number, text in enumerate(lines, first) if "# here" in text)
    assert f"{__file__}:{line} (return z + anp.nextafter" in refusal(
        run, data(), NoDerivative(), record=record
    )
