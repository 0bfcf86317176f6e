"""Ctrl-C and other signals, and the progress bar: in any terminal, or none."""

import errno
import io
import signal
import sys
import threading
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
from helpers import Failing, same_bits
from runs import data, run

from npflow import load
from npflow.training import Adam
from npflow.training.terminal import import_tqdm

pytestmark = pytest.mark.usefixtures("usual_signals")


class InterruptedAt(Adam):
    """Adam that is sent Ctrl-C in the middle of step 7, once or twice."""

    times = 1

    def update(self, state, vector, gradient, step):
        if step == 7:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return super().update(state, vector, gradient, step)


class InterruptedTwice(InterruptedAt):
    times = 2


def test_ctrl_c_returns_what_has_been_learned_and_keeps_it(tmp_path):
    before, path = signal.getsignal(signal.SIGINT), tmp_path / "interrupted.npz"
    params, history = run(data(), optimizer=InterruptedAt(), checkpoint=path)
    assert history.interrupted
    assert history.steps == load(path).run["step"] == 7
    assert signal.getsignal(signal.SIGINT) is before
    assert same_bits(params, run(data(), steps=7)[0])
    assert same_bits(params, load(path).params)


def test_a_second_ctrl_c_interrupts_at_once():
    with pytest.raises(KeyboardInterrupt):
        run(data(), optimizer=InterruptedTwice())
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_that_is_ignored_stays_ignored():
    """As in a background job of a script."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(data(), optimizer=InterruptedTwice())[1].steps == 20
    assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def test_a_handler_of_the_caller_s_own_is_called_too_and_stays():
    called = []
    own = lambda number, frame: called.append(number)
    signal.signal(signal.SIGINT, own)
    assert run(data(), optimizer=InterruptedTwice())[1].steps == 7
    assert called == [signal.SIGINT] * 2
    assert signal.getsignal(signal.SIGINT) is own


def test_another_signal_ends_the_run_where_it_has_the_handler_of_ctrl_c(monkeypatch):
    """However often it comes: a terminal that is closed sends it twice."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    update = Adam.update

    def terminated(self, *state):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        return update(self, *state)

    monkeypatch.setattr(Adam, "update", terminated)
    _, history = run(data())
    assert (history.steps, history.interrupted) == (1, True)
    assert signal.getsignal(signal.SIGTERM) is signal.default_int_handler


def test_it_trains_in_another_thread_too():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(data())))
    thread.start()
    thread.join()
    assert same_bits(results[0][0], run(data())[0])


# ---------------------------------------------------------------- the progress bar


def test_the_progress_bar_shows_loss_and_learning_rate_and_the_clock_goes_forward(capsys):
    _, history = run(data(), progress=True)
    shown = capsys.readouterr().err
    for words in ("20/20", f"loss={history.loss[-1]:.4f}", "rate=1.0e-03"):
        assert words in shown
    assert history.seconds[0] > 0
    assert history.seconds == sorted(history.seconds)


def closed():
    stream = io.StringIO()
    stream.close()
    return stream


@pytest.mark.parametrize(
    "stream", [lambda: None, lambda: Failing(errno.EPIPE), closed], ids=["none", "gone", "closed"]
)
def test_a_bar_that_cannot_be_shown_does_not_stop_training(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream())
    assert run(data(), progress=True)[1].steps == 20


def test_the_bar_stands_after_what_was_printed_before(tmp_path, monkeypatch):
    path = tmp_path / "log"
    with path.open("w", encoding="utf-8") as log:
        monkeypatch.setattr(sys, "stderr", log)
        print("before ±", end="|", file=log)
        run(data(), progress=True)
        print("after", file=log)
        monkeypatch.undo()
    text = path.read_text("utf-8")
    assert text.startswith("before ±|")
    assert "20/20" in text
    assert text.endswith("after\n")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_stderr_keeps_nothing_to_be_written_as_python_ends(monkeypatch):
    with Path("/dev/full").open("w") as full:  # closing it writes what it has kept
        monkeypatch.setattr(sys, "stderr", full)
        assert run(data(), progress=True)[1].steps == 20
        monkeypatch.undo()


def test_a_notebook_without_ipywidgets_gets_the_bar_of_a_terminal_and_no_warning(monkeypatch):
    import tqdm.std

    for name in ("tqdm.auto", "tqdm.autonotebook"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=object))
    monkeypatch.setattr("tqdm.notebook.IProgress", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert issubclass(import_tqdm(), tqdm.std.tqdm)
