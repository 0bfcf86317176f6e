"""Adam: the paper's algorithm, memory, dtypes and denormal numbers."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow import InputError
from npflow.training import Adam, Constant, WarmupCosine


def algorithm_1(gradients, rate, beta1, beta2, epsilon):
    """Kingma & Ba 2015, algorithm 1, literally."""
    theta = m = v = 0.0
    for t, g in enumerate(gradients, start=1):
        m = beta1 * m + (1 - beta1) * g
        v = beta2 * v + (1 - beta2) * g**2
        m_hat = m / (1 - beta1**t)
        v_hat = v / (1 - beta2**t)
        theta = theta - rate * m_hat / (np.sqrt(v_hat) + epsilon)
    return theta


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    steps=st.integers(1, 30),
    beta1=st.floats(0, 0.99),
    beta2=st.floats(0, 0.999),
    epsilon=st.floats(1e-10, 1e-2),
)
def test_update_equals_algorithm_1_of_the_paper(seed, steps, beta1, beta2, epsilon):
    gradients = np.random.default_rng(seed).standard_normal((steps, 5))
    adam = Adam(0.01, beta1, beta2, epsilon)
    vector = np.zeros(5)
    state = adam.init(vector)
    for step, gradient in enumerate(gradients, start=1):
        assert adam.update(state, vector, gradient.copy(), step) == 0.01
    np.testing.assert_allclose(
        vector, algorithm_1(gradients, 0.01, beta1, beta2, epsilon), rtol=1e-9, atol=1e-12
    )


def test_the_first_step_has_the_size_of_the_learning_rate():
    vector = np.zeros(3)
    adam = Adam(0.1)
    adam.update(adam.init(vector), vector, np.array([5.0, -0.01, 100.0]), 1)
    np.testing.assert_allclose(vector, [-0.1, 0.1, -0.1], rtol=1e-5)


def test_a_step_allocates_no_vector():
    vector = np.zeros(200_000, np.float32)
    gradient = np.ones_like(vector)
    adam = Adam()
    state = adam.init(vector)
    tracemalloc.start()
    adam.update(state, vector, gradient, 1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < vector.nbytes / 10


def test_float32_stays_float32_and_follows_float64():
    gradients = np.random.default_rng(0).standard_normal((50, 4))
    vectors = {}
    for dtype in (np.float32, np.float64):
        vectors[dtype] = vector = np.zeros(4, dtype)
        adam = Adam(0.01)
        state = adam.init(vector)
        for step, gradient in enumerate(gradients, start=1):
            adam.update(state, vector, gradient.astype(dtype), step)
        assert vector.dtype == state["m"].dtype == state["v"].dtype == dtype
    np.testing.assert_allclose(vectors[np.float32], vectors[np.float64], rtol=1e-4)


@pytest.mark.parametrize(("dtype", "steps"), [(np.float32, 1600), (np.float64, 8000)])
def test_moments_decay_to_zero_and_are_never_denormal(dtype, steps):
    gradients = np.zeros((steps, 3))
    gradients[0], gradients[:, 1], gradients[steps // 2, 2] = [1, 1e-3, -1], 1e-3, 1
    adam, vector = Adam(0.01, beta2=0.9), np.zeros(3, dtype)
    state = adam.init(vector)
    for step, gradient in enumerate(gradients, start=1):
        adam.update(state, vector, gradient.astype(dtype), step)
        for moment in state.values():
            assert not ((moment != 0) & (abs(moment) < np.finfo(dtype).tiny)).any()
    assert state["m"][0] == state["v"][0] == 0
    assert state["m"][1] == pytest.approx(1e-2, rel=1e-5)
    expected = algorithm_1(gradients, 0.01, 0.9, 0.9, 1e-8)
    np.testing.assert_allclose(vector, expected, rtol=1e-3)


def test_it_takes_a_schedule_or_a_number():
    assert Adam(1e-2) == Adam(Constant(1e-2))
    vector = np.zeros(2)
    adam = Adam(WarmupCosine(1.0, steps=10, warmup=4))
    assert adam.update(adam.init(vector), vector, np.ones(2), 2) == 0.5


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"learning_rate": 0}, "Adam's learning_rate to be a finite number above 0, got 0"),
        ({"learning_rate": "fast"}, "Adam's learning_rate to be a number above 0, got 'fast'"),
        ({"beta1": 1.0}, "Adam's beta1 to be a finite number at least 0 below 1, got 1"),
        ({"beta2": -0.1}, "Adam's beta2 to be a finite number at least 0 below 1, got -0.1"),
        ({"epsilon": np.nan}, "Adam's epsilon to be a finite number above 0, got nan"),
    ],
)
def test_invalid_hyper_parameters_are_refused(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Adam(**arguments)
