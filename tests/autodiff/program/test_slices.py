"""The loss of a batch and its gradient, by programs on slices of the batch."""

import pickle
import threading
import time
from types import SimpleNamespace

import autograd.numpy as anp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npflow.autodiff import Layout, value_and_grad
from npflow.autodiff.gpu.devices import HOST
from npflow.autodiff.program import slices
from npflow.autodiff.program.slices import MOST_SLICES, ProgramGradient, forecast, needs_of, slices_worth
from npflow.autodiff.program.statistics import Cost
from npflow.autodiff.program.threads import one_blas_thread
from npflow.models import PixelCNN, glow, image_glow, maf
from npflow.networks import MADE, MLP, ConvNet, MaskedConvNet

FLOW = glow(4, steps=2, network=MLP((8,), "tanh"))


@pytest.fixture(autouse=True)
def blas_as_in_fit():
    with one_blas_thread():
        yield


@pytest.fixture
def cut(monkeypatch):
    """Cut every batch into the given number of slices, or into its rows, where there are fewer."""

    def cut(count):
        monkeypatch.setattr(slices, "SECONDS_A_LINE", 1e-15)
        monkeypatch.setattr(slices, "SECONDS_A_PARAMETER", 1e-15)
        monkeypatch.setattr(slices, "MOST_SLICES", count)

    return cut


def rows(n, dtype=np.float64, seed=1):
    return np.random.default_rng(seed).normal(0.5, 1.5, (n, 4)).astype(dtype)


def training_params(dtype=np.float64):
    """A parameter vector, and the tree of its views, as a training run has them."""
    start = FLOW.init(np.random.default_rng(0), rows(50, dtype))
    layout = Layout(start)
    vector = layout.pack(start)
    vector += 0.1 * np.random.default_rng(2).standard_normal(layout.size).astype(dtype)
    return vector, layout.unpack(vector, start)


def loss_and_gradient(loss_of, x, size):
    gradient = np.full(size, np.nan, x.dtype)  # what is not written stays nan
    return loss_of((x,), gradient), gradient


def program_results(params, x, size, threads=1):
    loss_of = ProgramGradient(FLOW.loss, params, threads)
    try:
        return loss_and_gradient(loss_of, x, size)
    finally:
        loss_of.close()


def plain_results(params, x):
    loss, gradient = value_and_grad(FLOW.loss)(params, x)
    return loss, Layout(params).pack(gradient)


def same_bits(first, second):
    return all(np.asarray(a).tobytes() == np.asarray(b).tobytes() for a, b in zip(first, second))


# ---------------------------------------------------------------- what they compute


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [1, 7, 64])
def test_a_batch_in_one_slice_has_the_bits_of_the_plain_path(n, dtype):
    vector, params = training_params(dtype)
    x = rows(n, dtype)
    by_program = program_results(params, x, vector.size, threads=3)
    plain = plain_results(params, x)
    assert same_bits(by_program, plain)
    assert by_program[0].dtype == plain[0].dtype == dtype
    assert np.isfinite(plain[1]).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("n", "count"), [(37, 16), (32, 3), (1, 16)])
def test_slices_give_the_plain_loss_and_gradient_to_rounding_and_the_same_bits_for_any_threads(
    n, count, dtype, cut
):
    cut(count)
    vector, params = training_params(dtype)
    x = rows(n, dtype)
    loss_of = ProgramGradient(FLOW.loss, params)
    loss, gradient = loss_and_gradient(loss_of, x, vector.size)
    plain_loss, plain_gradient = plain_results(params, x)
    tolerance = 200 * np.finfo(dtype).eps
    assert loss.dtype == dtype
    np.testing.assert_allclose(loss, plain_loss, rtol=tolerance)
    np.testing.assert_allclose(
        gradient, plain_gradient, rtol=0, atol=tolerance * np.abs(plain_gradient).max()
    )
    for threads in (2, 5):
        loss_of.threads = threads
        assert same_bits((loss, gradient), loss_and_gradient(loss_of, x, vector.size))
        loss_of.close()


@pytest.mark.parametrize(("count", "threads"), [(1, 1), (3, 2)])
def test_parameters_that_change_in_place_are_seen_and_a_call_leaves_nothing_to_the_next(count, threads, cut):
    cut(count)
    vector, params = training_params()
    loss_of = ProgramGradient(FLOW.loss, params, threads)
    x, other = rows(9), rows(9, seed=2)
    first = loss_and_gradient(loss_of, x, vector.size)
    vector *= 1.1
    moved = loss_and_gradient(loss_of, x, vector.size)
    assert same_bits(moved, program_results(params, x, vector.size))
    assert not np.isclose(moved[0], first[0], rtol=1e-6)
    assert same_bits(
        loss_and_gradient(loss_of, other, vector.size), program_results(params, other, vector.size)
    )
    vector /= 1.1
    again = loss_and_gradient(loss_of, x, vector.size)
    np.testing.assert_allclose(again[1], first[1], rtol=1e-9, atol=1e-12)
    loss_of.close()


# ---------------------------------------------------------------- how a batch is cut


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 200), count=st.integers(1, 20))
def test_slices_cover_every_row_once_and_differ_by_one_row_at_most(n, count):
    class Whole:
        """A program of no arithmetic: only its slices are looked at."""

        cost_once, peak_bytes, bytes_without_reuse = Cost(1, 0, 0), 0, 0

        def read(self, params, x):
            return (), (x,)

        def new_gradient(self):
            return None

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "record", lambda loss, params, x: Whole())
        patch.setattr(slices, "slices_worth", lambda program, seconds: count)
        made = ProgramGradient(None, {}).slices((np.zeros((n, 1)),))
    covered = [row for one in made for row in range(n)[one.rows]]
    sizes = [one.rows.stop - one.rows.start for one in made]
    assert covered == list(range(n))
    assert len(made) == min(n, count)
    assert max(sizes) - min(sizes) <= 1
    assert [one.share for one in made] == [size / n for size in sizes]


def test_how_a_batch_is_cut_depends_on_neither_threads_nor_cores_nor_values(monkeypatch, cut):
    cut(4)
    vector, params = training_params()
    plans = []
    for threads, cores in ((1, 1), (2, 64), (7, 2)):
        monkeypatch.setattr("os.cpu_count", lambda cores=cores: cores)
        monkeypatch.setattr("os.sched_getaffinity", lambda pid, cores=cores: set(range(cores)), raising=False)
        loss_of = ProgramGradient(FLOW.loss, params, threads)
        for _ in range(2):  # nor on how long the calls before took
            loss_and_gradient(loss_of, rows(30, seed=threads), vector.size)
        plans.append([piece.rows for piece in loss_of.slices((rows(30),))])
        loss_of.close()
    assert len(plans[0]) == 4
    assert plans[0] == plans[1] == plans[2]


@given(
    lines=st.integers(1, 10**4),
    size=st.integers(0, 10**7),
    seconds=st.floats(0, 10),
    more=st.floats(0, 10),
)
def test_what_takes_longer_is_never_cut_into_fewer_slices(lines, size, seconds, more):
    program = SimpleNamespace(device=HOST, lines=lines, shapes=[(2, size)])
    few, many = (slices_worth(program, longer) for longer in (seconds, seconds + more))
    assert 1 <= few <= many <= MOST_SLICES
    assert isinstance(many, int)


def test_a_usual_batch_stays_whole_and_a_large_one_is_cut():
    flow = glow(2, steps=1)
    counts = []
    for n in (64, 256, 10_000):
        x = np.random.default_rng(0).standard_normal((n, 2)).astype(np.float32)
        params = flow.init(np.random.default_rng(0), x)
        program = slices.record(flow.loss, params, x)
        counts.append(slices_worth(program, needs_of(program)[0]))
    assert counts[:2] == [1, 1]  # so that the default of `fit` has the bits of the plain path
    assert counts[2] > 1


def test_a_model_of_many_parameters_is_cut_less():
    """Each slice has a gradient of its own: 20 million numbers are written for it, and added up."""
    counts = [
        slices_worth(SimpleNamespace(device=HOST, lines=5000, shapes=[(size,)]), seconds=1.275)
        for size in (10**4, 2 * 10**7)
    ]
    assert counts == [15, 2]


# ---------------------------------------------------------------- which programs there are


def test_there_is_one_program_for_each_shape_of_a_batch(recordings):
    vector, params = training_params()
    loss_of = ProgramGradient(FLOW.loss, params, threads=2)
    for n in (8, 3, 8, 8, 3, 5):
        loss_and_gradient(loss_of, rows(n), vector.size)
    assert recordings == [8, 3, 5]


def test_slices_of_one_size_share_a_program(recordings, cut):
    cut(4)
    vector, params = training_params()
    loss_of = ProgramGradient(FLOW.loss, params)
    for _ in range(2):
        loss_and_gradient(loss_of, rows(30), vector.size)
    assert recordings == [30, 7, 8]
    programs = {piece.program for piece in loss_of.slices((rows(30),))}
    gradients = {id(piece.gradient) for piece in loss_of.slices((rows(30),))}
    assert (len(programs), len(gradients)) == (2, 4)  # but no gradient: these are added up in the end


def test_a_large_model_is_tried_on_a_row_and_on_two_and_its_memory_known_before_it_is_taken(
    recordings, cut, monkeypatch
):
    cut(2)
    vector, params = training_params()
    x, gradient = rows(12), np.empty_like(vector)
    expected = loss_and_gradient(ProgramGradient(FLOW.loss, params), x, vector.size)
    monkeypatch.setattr(slices, "LARGE", 12 * vector.size)
    recordings.clear()
    loss_of = ProgramGradient(FLOW.loss, params)
    assert loss_of((x,), gradient) == expected[0]
    np.testing.assert_array_equal(gradient, expected[1])
    assert recordings == [1, 2, 6]
    program = loss_of.slices((x,))[0].program
    assert loss_of.nbytes((x,)) == program.peak_bytes + vector.nbytes
    loss_of.threads = 7  # of which two have something to do
    assert loss_of.nbytes((x,)) == 2 * program.peak_bytes + vector.nbytes

    monkeypatch.setattr(HOST, "free_bytes", lambda: 5000, raising=False)
    refused = ProgramGradient(FLOW.loss, params)
    with pytest.raises(MemoryError, match=r"GB of free memory on cpu for batches of 12 rows, got 0\.0 GB"):
        refused((x,), gradient)
    assert recordings == [1, 2, 6, 1, 2]


LARGE_ONES = {
    "masks that the parameters are multiplied by": (maf(8, 2, MADE((64, 64))), (64, 8)),
    "pixels": (image_glow((8, 8, 1), 1, 1, ConvNet((16, 16))), (24, 8, 8, 1)),
    "classes": (PixelCNN((4, 4, 1), 256, MaskedConvNet(4, 1)), (32, 4, 4, 1)),
}


@pytest.mark.parametrize("kind", LARGE_ONES)
def test_what_many_rows_take_is_seen_from_one_and_two(kind):
    model, shape = LARGE_ONES[kind]
    x = np.random.default_rng(0).integers(2, size=shape)
    x = x if isinstance(model, PixelCNN) else (x + np.random.default_rng(0).random(shape)) / 2
    params = model.init(np.random.default_rng(0), x)
    one, two, all_rows = (slices.record(model.loss, params, x[:n]) for n in (1, 2, len(x)))
    assert forecast(one, two, len(x)) / needs_of(all_rows) == pytest.approx(1, abs=0.2)


def test_a_batch_whose_pixels_are_many_is_tried_first_however_few_the_parameters_are(recordings, monkeypatch):
    model = PixelCNN((16, 16, 1), 256, MaskedConvNet(4, 1))
    x = np.zeros((8, 16, 16, 1), np.uint8)
    params = model.init(np.random.default_rng(0), x)
    monkeypatch.setattr(slices, "LARGE", len(x) * 16 * 16 * 256)
    assert Layout(params).size < 16 * 16 * 256
    ProgramGradient(model.loss, params).slices((x,))
    assert recordings[:2] == [1, 2]


def test_a_batch_of_another_dtype_does_not_run_the_program_of_the_first(recordings):
    vector, params = training_params()
    loss_of = ProgramGradient(FLOW.loss, params)
    loss_and_gradient(loss_of, rows(8), vector.size)
    integers = np.arange(32).reshape(8, 4)
    loss = loss_of((integers,), np.empty_like(vector))
    assert recordings == [8, 8]
    assert loss == pytest.approx(float(FLOW.loss(params, integers)))


# ---------------------------------------------------------------- threads


def overflowing(params, x):
    """A loss that is beyond float64 where a row is large."""
    return anp.sum(anp.exp(params["a"] * x)) / len(x)


def test_the_error_state_of_the_caller_reaches_the_threads_and_their_errors_reach_the_caller(
    cut, monkeypatch
):
    """Warnings are errors here: one from a thread whose NumPy was not told would be raised by the call."""
    cut(3)
    workers, run = [], slices.Slice.run

    def watched(piece, *args):
        workers.append(threading.current_thread())
        return run(piece, *args)

    monkeypatch.setattr(slices.Slice, "run", watched)
    loss_of, x, gradient = ProgramGradient(overflowing, {"a": np.ones(1)}, 2), np.ones((9, 1)), np.zeros(1)
    x[4] = 1e4  # in the second slice of three
    with np.errstate(all="ignore"):
        assert loss_of((x,), gradient) == np.inf
    assert len(workers) == 3
    assert threading.current_thread() not in workers
    with np.errstate(all="raise"), pytest.raises(FloatingPointError, match="overflow"):
        loss_of((x,), gradient)
    with pytest.warns(RuntimeWarning, match="overflow"):
        loss_of((x,), gradient)
    with np.errstate(all="raise"):  # and the threads go on after an error
        assert loss_of((np.ones((9, 1)),), gradient) == pytest.approx(np.e)
    loss_of.close()


def test_close_ends_the_threads_and_one_slice_or_one_thread_starts_none(cut):
    vector, params = training_params()
    before = set(threading.enumerate())
    cut(1)
    whole = ProgramGradient(FLOW.loss, params, threads=3)
    loss_and_gradient(whole, rows(12), vector.size)
    cut(4)
    alone, several = (ProgramGradient(FLOW.loss, params, threads) for threads in (1, 3))
    loss_and_gradient(alone, rows(12), vector.size)
    assert set(threading.enumerate()) == before
    loss_and_gradient(several, rows(12), vector.size)
    assert 1 <= len(set(threading.enumerate()) - before) <= 3
    for loss_of in (whole, alone, several):
        loss_of.close()
    assert set(threading.enumerate()) == before


def test_no_slice_still_runs_when_the_error_of_another_reaches_the_caller(cut, monkeypatch):
    cut(4)
    vector, params = training_params()
    loss_of = ProgramGradient(FLOW.loss, params, threads=2)
    loss_and_gradient(loss_of, rows(32), vector.size)
    running, run = [], slices.Slice.run

    def slow_or_broken(piece, *args):
        if piece.rows.start == 0:
            raise ZeroDivisionError
        running.append(piece)
        time.sleep(0.05)
        loss = run(piece, *args)
        running.remove(piece)
        return loss

    monkeypatch.setattr(slices.Slice, "run", slow_or_broken)
    with pytest.raises(ZeroDivisionError):
        loss_of((rows(32),), np.empty_like(vector))
    assert not running
    loss_of.close()


def test_a_loss_is_a_number_that_the_next_batch_does_not_change():
    mean = lambda params, x: anp.reshape(anp.sum(params["a"] * x) / len(x), ())
    loss_of = ProgramGradient(mean, {"a": np.ones(2)})
    first = loss_of((np.ones((3, 2)),), np.empty(2))
    loss_of((2 * np.ones((3, 2)),), np.empty(2))
    assert first == 2


def test_a_copy_records_its_own_programs(cut):
    vector, params = training_params()
    cut(3)
    loss_of = ProgramGradient(FLOW.loss, params, threads=2)
    loss, gradient = loss_and_gradient(loss_of, rows(12), vector.size)
    other = pickle.loads(pickle.dumps(loss_of))
    copied_loss, copied_gradient = loss_and_gradient(other, rows(12), vector.size)
    assert (copied_loss, copied_gradient.tobytes()) == (loss, gradient.tobytes())
    loss_of.close()
    other.close()
