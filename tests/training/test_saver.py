"""When checkpoints are written, what is called then, and what a full disk does to a run."""

import errno
import os
import stat
from datetime import timedelta

import numpy as np
import pytest
from helpers import refusal, same_bits, vector

from npflow import CheckpointError, Dequantized, Flow, fit, load
from npflow.autodiff import tree
from npflow.layers import ActNorm, AffineCoupling, Chain, Conv1x1, Permutation
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import Adam, saver

LAYERS = Chain([ActNorm(), Permutation(), AffineCoupling(MLP((8,), "tanh")), Conv1x1()])


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(2.0, 0.5, (50, 2))


def run(x, *, steps=20, **options):
    flow = Flow(LAYERS, Normal(2))
    params = flow.init(np.random.default_rng(1), x)
    options = {"batch_size": 16, "average": 0.9, "progress": False} | options
    return fit(flow, params, x, rng=np.random.default_rng(0), steps=steps, **options)


@pytest.fixture
def clock(monkeypatch):
    """A clock that advances by a second whenever it is read."""
    seconds = iter(range(10**6))
    monkeypatch.setattr(saver.time, "monotonic", lambda: float(next(seconds)))


# ---------------------------------------------------------------- when


def steps_of_checkpoints(x, path, every, steps=20):
    seen = []
    run(
        x,
        steps=steps,
        checkpoint=path,
        checkpoint_every=every,
        on_checkpoint=lambda params, history: seen.append((history.steps, load(path).run["step"])),
    )
    assert all(called == written for called, written in seen)
    return [step for step, _ in seen]


def test_it_is_called_after_each_checkpoint_was_written_and_at_the_end(x, tmp_path):
    assert steps_of_checkpoints(x, tmp_path / "run.npz", 6) == [6, 12, 18, 20]


def test_between_two_checkpoints_can_be_a_time_for_resumed_runs_too(x, tmp_path, clock):
    path = tmp_path / "run.npz"
    # The clock is read after each step, and once more after each checkpoint.
    assert steps_of_checkpoints(x, path, timedelta(seconds=5)) == [5, 10, 15, 20]
    assert steps_of_checkpoints(x, path, timedelta(seconds=5), steps=32) == [25, 30, 32]


def test_a_resumed_run_does_not_write_its_checkpoint_again(x, tmp_path):
    path = tmp_path / "run.npz"
    assert steps_of_checkpoints(x, path, 4, steps=8) == [4, 8]
    assert steps_of_checkpoints(x, path, 4, steps=14) == [12, 14]


def test_what_is_called_makes_no_difference_to_a_bit(x, tmp_path):
    def spoil(params, history):
        for _, leaf in tree.items(params):
            leaf[...] = 0
        np.random.default_rng(0).normal(size=3)

    alone, history = run(x)
    watched, watched_history = run(
        x, checkpoint=tmp_path / "run.npz", checkpoint_every=3, on_checkpoint=spoil
    )
    assert same_bits(alone, watched)
    assert watched_history.loss == history.loss


def test_it_is_given_what_fit_would_return_then(x, tmp_path):
    given = {}

    def keep(params, history):
        given[history.steps] = vector(params)

    path = tmp_path / "run.npz"
    params, _ = run(x, checkpoint=path, checkpoint_every=8, on_checkpoint=keep)
    assert np.array_equal(given[8], vector(run(x, steps=8)[0]))
    assert np.array_equal(given[20], vector(params))


# ---------------------------------------------------------------- a full disk


@pytest.fixture
def full_disk(monkeypatch):
    """A disk that is full at some flushes, by their number from 1; a written checkpoint has two."""
    full, count, fsync = set(), [0], os.fsync

    def flush(number):
        count[0] += 1
        if count[0] in full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(number)

    monkeypatch.setattr(os, "fsync", flush)
    return full


def test_a_full_disk_leaves_the_checkpoint_before_and_training_goes_on(x, tmp_path, full_disk):
    path, seen = tmp_path / "run.npz", []
    full_disk |= {3}  # at step 8
    words = "expected to write the checkpoint of step 8 to .*No space left"
    with pytest.warns(RuntimeWarning, match=words) as warned:
        params, _ = run(
            x,
            checkpoint=path,
            checkpoint_every=4,
            on_checkpoint=lambda params, history: seen.append(history.steps),
        )
    assert seen == [4, 12, 16, 20]
    assert warned[0].filename == __file__  # the call of fit
    assert same_bits(params, run(x)[0])
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_that_is_full_at_the_end_loses_nothing(x, tmp_path, full_disk):
    path = tmp_path / "run.npz"
    full_disk |= {5}  # at step 20
    with pytest.raises(CheckpointError, match="No space left") as caught:
        run(x, checkpoint=path, checkpoint_every=8)
    assert isinstance(caught.value, OSError)
    whole, history = run(x)
    assert same_bits(caught.value.params, whole)
    assert caught.value.history.loss == history.loss
    assert load(path).run["step"] == 16
    assert same_bits(run(x, checkpoint=path)[0], whole)


def test_memory_that_ends_with_the_last_checkpoint_loses_nothing(x, tmp_path, monkeypatch):
    def no_memory(*_):
        raise MemoryError

    monkeypatch.setattr("npflow.training.run.write", no_memory)
    with pytest.raises(CheckpointError, match="not enough memory") as caught:
        run(x, checkpoint=tmp_path / "run.npz")
    assert same_bits(caught.value.params, run(x)[0])


# ---------------------------------------------------------------- where


@pytest.mark.parametrize(
    "name",
    [
        f"{240 * 'a'}.npz",
        "folder.npz",
        "a\0.npz",
        "nowhere/run.npz",
        "nowhere/../run.npz",
        "folder.npz/../folder.npz/",
    ],
)
def test_a_path_that_cannot_work_is_refused_before_the_first_step(x, name, tmp_path, monkeypatch):
    (tmp_path / "folder.npz").mkdir()
    monkeypatch.setattr(Adam, "update", lambda *_: pytest.fail("a step"))
    assert refusal(run, x, checkpoint=f"{tmp_path}/{name}").startswith("expected checkpoint ")
    assert [path.name for path in tmp_path.iterdir()] == ["folder.npz"]


def test_a_link_stays_and_the_file_that_it_points_at_is_written_and_resumed(x, tmp_path):
    (tmp_path / "disk").mkdir()
    link, target = tmp_path / "run.npz", tmp_path / "disk" / "run.npz"
    link.symlink_to(target)
    run(x, steps=8, checkpoint=link)
    assert link.is_symlink()
    assert load(target).run["step"] == 8
    assert same_bits(run(x, checkpoint=link)[0], run(x)[0])
    assert link.is_symlink()
    assert load(target).run["step"] == 20


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_private_checkpoint_stays_private(x, tmp_path):
    path = tmp_path / "run.npz"
    run(x, steps=4, checkpoint=path)
    path.chmod(0o600)
    run(x, steps=8, checkpoint=path)
    assert load(path).run["step"] == 8
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_relative_path_means_the_folder_at_the_start(x, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    go = lambda params, history: os.chdir(tmp_path / "elsewhere")
    run(x, checkpoint="run.npz", checkpoint_every=8, on_checkpoint=go)
    assert load(tmp_path / "run.npz").run["step"] == 20
    assert not list((tmp_path / "elsewhere").iterdir())


def test_leftovers_of_killed_runs_are_cleared_at_the_start(x, tmp_path):
    leftover, other = tmp_path / "run.npz.0123abcd.partial", tmp_path / "run2.npz.0123abcd.partial"
    leftover.touch()
    other.touch()
    run(x, steps=1, checkpoint=tmp_path / "run.npz")
    assert {path.name for path in tmp_path.iterdir()} == {"run.npz", other.name}


# ---------------------------------------------------------------- the memory, known before the first step


def test_the_memory_is_known_before_the_first_step_and_shown(x, tmp_path, capsys):
    noted = []
    _, history = run(
        x,
        checkpoint=tmp_path / "run.npz",
        checkpoint_every=1,
        on_checkpoint=lambda params, history: noted.append(history.peak_bytes),
        progress=True,
    )
    assert set(noted) == {history.peak_bytes}
    size = vector(run(x, steps=1)[0]).nbytes
    # Eight vectors: parameters, those before, average, m, v, the gradient, two for a checkpoint.
    assert history.peak_bytes > 8 * size
    assert f"memory {history.peak_bytes / 1e6:,.0f} MB: " in capsys.readouterr().err


def test_the_best_parameters_by_validation_take_memory_too(x):
    without, held = run(x, steps=1)[1], run(x, steps=1, validation=x[:4])[1]
    assert held.peak_bytes == without.peak_bytes + vector(run(x, steps=1)[0]).nbytes


def test_a_batch_of_another_size_takes_memory_only_where_the_run_comes_to_it(x, recordings):
    few, more = (run(x, steps=steps)[1].peak_bytes for steps in (3, 4))
    assert few < more
    assert recordings == [16, 16, 2]


def test_without_programs_it_is_not_known(x):
    assert run(x, steps=1, record=False)[1].peak_bytes is None


def test_a_model_of_integers_shows_its_loss_in_bits(x, capsys):
    model = Dequantized(Flow(LAYERS, Normal(2)), levels=4)
    x = np.random.default_rng(0).integers(4, size=(50, 2))
    params = model.init(np.random.default_rng(1), x)
    _, history = fit(model, params, x, rng=np.random.default_rng(0), steps=5)
    bits = history.loss[-1] / (2 * np.log(2))
    assert f"loss={bits:.4f} bits/dim" in capsys.readouterr().err
