"""The limit on what `init` may draw."""

import numpy as np
import pytest
from helpers import refusal, rows

from npflow import models
from npflow.rations import CALL, COUNT, Rationed, TooLarge, ration_for


@pytest.mark.parametrize("size", [None, 7, (2, 3), [2, 3], np.array([2, 3]), np.int64(4)])
def test_a_generator_draws_the_numbers_of_numpys_for_sizes_of_any_kind(size):
    rng, numpys = Rationed(10**4, seed=3), np.random.default_rng(3)
    for method in ("standard_normal", "normal", "uniform", "random"):
        assert np.array_equal(getattr(rng, method)(size=size), getattr(numpys, method)(size=size))
    assert np.array_equal(rng.permutation(5), numpys.permutation(5))


@pytest.mark.parametrize(
    "draw",
    [
        lambda rng: rng.standard_normal((100, 11)),
        lambda rng: rng.uniform(size=(10**30, 10**30)),
        lambda rng: rng.permutation(10**12),
        lambda rng: [rng.normal() for _ in range(1000 // CALL + 1)],
    ],
)
def test_what_is_above_the_ration_is_refused_before_it_is_made(draw):
    with pytest.raises(TooLarge):
        draw(Rationed(1000))


def test_a_hyper_parameter_far_above_the_size_of_the_parameters_is_refused():
    flow = models.maf(2, steps=1)
    layout = flow.check(flow.init(np.random.default_rng(0), rows(9, 2)))
    assert ration_for(flow, layout) > layout.size
    words = refusal(ration_for, models.maf(COUNT + 1, steps=1), layout)
    assert f"up to {COUNT:,} for {layout.size:,} parameters, got {COUNT + 1:,}" in words
