"""The training loop: what it learns, in which batches, by which programs, and how it stops."""

import gc
import threading
import weakref
from dataclasses import dataclass

import numpy as np
import pytest
from helpers import refusal, rows, same_bits, vector
from kill_and_resume import killed_and_left_alone, same_state
from runs import EVERYTHING, LAYER, SMALL, Exploding, data, failure, flow_and_params, run, same_history

from npflow import fit, load, save
from npflow.autodiff import tree
from npflow.autodiff.program import slices
from npflow.layers import Affine, AffineCoupling, Layer, Permutation
from npflow.layers.layer import zeros_per_row
from npflow.models import glow
from npflow.priors import GaussianMixture
from npflow.training import Adam, WarmupCosine

# ---------------------------------------------------------------- learning


def test_an_affine_layer_learns_the_maximum_likelihood_values():
    x = data()
    params, _ = run(x, Affine(), steps=400, batch_size=50, optimizer=Adam(WarmupCosine(0.1, steps=400)))
    np.testing.assert_allclose(params["layer"]["mean"], x.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(np.exp(params["layer"]["log_std"]), x.std(axis=0), atol=1e-4)


def test_a_trained_mixture_prior_finds_two_clusters(rng):
    x = np.concatenate([rng.normal(-3, 0.3, (100, 2)), rng.normal(3, 0.3, (100, 2))])
    prior = GaussianMixture(((-1.0, 0.0), (1.0, 0.0)), (1.0, 1.0), trained=True)
    flow, params = flow_and_params(x, AffineCoupling(SMALL), prior)
    _, history = fit(flow, params, x, rng=rng, steps=150, optimizer=Adam(0.05), progress=False)
    assert history.loss[-1] < history.loss[0] - 2


def test_the_loss_of_the_history_is_the_mean_negative_log_likelihood_of_the_batch():
    flow, params = flow_and_params(data())
    _, history = run(data(), steps=1, batch_size=50)
    assert history.loss[0] == pytest.approx(-np.mean(flow.log_prob(params, data())), rel=1e-12)


def test_parameters_passed_in_stay_and_constants_stay_in_a_copy():
    x = rows(40, 2, dtype=np.float32)
    flow = glow(2, steps=1, network=SMALL)
    params = flow.init(np.random.default_rng(0), x)
    before = tree.build(lambda _, leaf: leaf.copy(), params)
    fitted, _ = fit(flow, params, x, rng=np.random.default_rng(0), steps=5, batch_size=10, progress=False)
    assert same_bits(params, before)
    assert not np.array_equal(vector(fitted), vector(params))
    for (path, old), (_, new) in zip(tree.items(params), tree.items(fitted), strict=True):
        assert old.dtype == new.dtype
        assert not np.shares_memory(old, new), path
        if not tree.is_trained(old):
            assert np.array_equal(old, new), path


def test_the_same_seed_gives_the_same_bits():
    (a, first), (b, second), (c, _) = run(data()), run(data()), run(data(), seed=1)
    assert same_bits(a, b)
    assert first.loss == second.loss
    assert not same_bits(a, c)


# ---------------------------------------------------------------- batches


@dataclass(frozen=True)
class Recording(Layer):
    """The identity, which keeps the rows of each batch."""

    seen = []  # noqa: RUF012

    def init(self, rng, x):
        return {"a": np.zeros(1, x.dtype)}

    def forward(self, params, x):
        self.seen.append(x[:, 0].tolist())
        return x + params["a"], zeros_per_row(x)

    def inverse(self, params, z):
        return z - params["a"], zeros_per_row(z)


def batches_of(n, **options):
    """The first feature, a row's number, of the rows of each step."""
    x = np.stack([np.arange(float(n)), np.zeros(n)], axis=1)
    flow, params = flow_and_params(x, Recording())
    Recording.seen.clear()
    fit(flow, params, x, rng=np.random.default_rng(0), record=False, progress=False, **options)
    return list(Recording.seen)


def test_an_epoch_goes_through_all_rows_once_in_a_new_order():
    seen = batches_of(10, steps=6, batch_size=4)
    assert [len(batch) for batch in seen] == [4, 4, 2, 4, 4, 2]
    first, second = ([row for batch in epoch for row in batch] for epoch in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize(("n", "sizes"), [(300, [256, 44]), (50, [50, 50])])
def test_by_default_a_batch_has_256_rows_or_all_there_are(n, sizes):
    assert [len(batch) for batch in batches_of(n, steps=2)] == sizes


# ---------------------------------------------------------------- programs, slices and threads


@pytest.fixture
def cut(monkeypatch):
    """Every batch is cut into five slices, or into its rows where there are fewer."""
    monkeypatch.setattr(slices, "SECONDS_A_LINE", 1e-15)
    monkeypatch.setattr(slices, "SECONDS_A_PARAMETER", 1e-15)
    monkeypatch.setattr(slices, "MOST_SLICES", 5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_run_by_programs_has_the_bits_of_one_through_the_layers(dtype, recordings):
    x = data(dtype)
    options = EVERYTHING | {"validation": x[:7] + dtype(0.1)}
    plain, plain_history = run(x, record=False, **options)
    assert recordings == []
    by_program, history = run(x, **options)
    assert recordings == [16, 2]  # one for each size of batch
    assert same_bits(plain, by_program)
    assert same_history(plain_history, history)
    assert len(history.loss) == 20


def test_the_number_of_threads_makes_no_difference_to_a_bit(cut, recordings, tmp_path):
    """A run that is resumed with another number of threads neither."""
    x, path = data(), tmp_path / "run.npz"
    alone, history = run(x, threads=1, **EVERYTHING)
    assert recordings == [16, 3, 4, 2, 1]
    run(x, steps=7, threads=4, checkpoint=path, **EVERYTHING)
    for options in ({"threads": 3}, {"threads": None, "checkpoint": path}):
        params, other = run(x, **options, **EVERYTHING)
        assert same_bits(params, alone)
        assert same_history(history, other)
    plain, _ = run(x, record=False, **EVERYTHING)
    np.testing.assert_allclose(vector(plain), vector(alone), rtol=1e-6, atol=1e-9)


def test_threads_end_with_the_run_whether_it_ends_well_or_not(cut):
    run(data(), steps=1)  # the progress bar may start a thread of its own
    before = set(threading.enumerate())
    run(data(), threads=3, steps=3)
    failure(data(), Exploding(), steps=99, threads=3)
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("record", [True, False])
def test_a_flow_without_parameters_trains_nothing_and_fails_at_nothing(record):
    flow, params = flow_and_params(data(), Permutation())
    _, history = run(data(), Permutation(), steps=3, batch_size=50, record=record)
    assert history.loss == pytest.approx(3 * [-np.mean(flow.log_prob(params, data()))])


# ---------------------------------------------------------------- stopping


def test_a_run_killed_at_a_random_moment_ends_with_the_bits_of_one_left_alone(tmp_path):
    killed, alone, survived = killed_and_left_alone(tmp_path, kills=1, steps=60)
    assert same_state(killed, alone)
    assert survived[0] > 0


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model": LAYER}, "expected a Flow to fit, got a Chain"),
        ({"batch_size": 51}, "batch_size to be at most 50, the 50 rows of data, got 51"),
        ({"rng": 0}, "rng to be a numpy.random.Generator, got an int"),
        ({"validation": np.zeros((3, 5))}, "validation with rows of 2 features, got rows of 5"),
        ({"validation": np.zeros((3, 2), np.float32)}, "validation in float64"),
        ({"validation_context": np.zeros((3, 1))}, "validation beside validation_context, got none"),
        ({"patience": 3}, "validation beside patience, got none"),
        ({"x": np.zeros((0, 2))}, "x to have at least one row"),
        ({"x": np.zeros((50, 3))}, "x with rows of 2 features, got rows of 3"),
        ({"x": np.ones((50, 2), complex)}, "x in float32 or float64, got complex128"),
        ({"x": np.ones((50, 2), np.float32)}, "x in float64, the dtype of the parameters, got float32"),
        (
            {"x": np.where(np.arange(100).reshape(50, 2) == 35, np.nan, 1.0)},
            "x to be finite, got nan in row 17",
        ),
        ({"x": None}, "x as an array of numbers, got a NoneType"),
        ({"x": None, "context": np.zeros((50, 2))}, "x as an array of numbers, got a NoneType"),
        ({"context": np.zeros((50, 2))}, "no context for a flow with context_features=0, got one"),
    ],
)
def test_bad_input_gets_a_sentence_before_any_work(change, words, rng):
    flow, params = flow_and_params(data())
    arguments = {"model": flow, "params": params, "x": data(), "rng": rng, "progress": False} | change
    before = rng.bit_generator.state
    assert words in refusal(fit, **arguments)
    assert rng.bit_generator.state == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 8}, "another batch_size (16 there, 8 here)"),
        ({"optimizer": Adam(0.5)}, "another optimizer"),
        ({"average": 0.9}, "another average"),
        ({"x": data() + 1}, "another data"),
        ({"layer": Affine()}, "another flow"),
        ({"steps": 5}, "steps to be at least the 20 that"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_left_alone(options, words, tmp_path):
    path = tmp_path / "run.npz"
    run(data(), checkpoint=path)
    before = path.read_bytes()
    assert words in refusal(run, **{"x": data(), "checkpoint": path} | options)
    assert path.read_bytes() == before


def test_a_checkpoint_without_a_run_is_refused(tmp_path):
    flow, params = flow_and_params(data())
    save(tmp_path / "flow.npz", flow, params)
    assert "the checkpoint of a training run" in refusal(run, data(), checkpoint=tmp_path / "flow.npz")


def test_a_schedule_that_cannot_be_described_needs_no_checkpoint(tmp_path):
    adam = Adam(lambda step: 1e-3 / step)
    _, history = run(data(), optimizer=adam, steps=2)
    assert history.learning_rate == [1e-3, 5e-4]
    assert "hyper-parameters that are numbers" in refusal(
        run, data(), optimizer=adam, steps=2, checkpoint=tmp_path / "run.npz"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options", [{}, {"reversible": True}, {"record": False}, {"validation": True, "checkpoint": True}]
)
def test_no_vector_of_a_run_waits_for_the_garbage_collector(options, tmp_path):
    x = data()
    options = dict(options)
    if options.pop("checkpoint", False):
        options |= {"checkpoint": tmp_path / "run.npz", "validation": x}
    flow, params = flow_and_params(x, Affine())
    gc.collect()
    gc.disable()
    try:
        initial = weakref.ref(params["layer"]["log_std"])
        params, _ = fit(flow, params, x, rng=np.random.default_rng(0), steps=2, progress=False, **options)
        assert initial() is None
        save(tmp_path / "fitted.npz", flow, params)
        vector = weakref.ref(params["layer"]["log_std"].base)
        del params
        assert vector() is None
        loaded = load(tmp_path / "fitted.npz").params
        vector = weakref.ref(loaded["layer"]["log_std"].base)
        flow.log_prob(loaded, x)
        del loaded
        assert vector() is None
    finally:
        gc.enable()
