"""Ctrl-C, and the progress bar, of a run in any terminal or none."""

import signal
import sys
import threading
import warnings
from contextlib import contextmanager, suppress


@contextmanager
def ctrl_c():
    """An event that Ctrl-C sets, so that no step is interrupted half way; a second Ctrl-C interrupts at once.

    A handler of the caller's own is called too. SIGINT is left alone where it is ignored, as in a background job, or
    kills the process. Another signal ends the run like Ctrl-C where its handler is Python's own of Ctrl-C,
    `signal.default_int_handler`.
    """
    interrupted, handlers = threading.Event(), {}
    if threading.current_thread() is threading.main_thread():  # only this one receives signals
        handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}

    def handle(number, frame):
        again = number == signal.SIGINT and interrupted.is_set()  # closing a terminal sends SIGHUP twice
        interrupted.set()
        if again or handlers[number] is not signal.default_int_handler:
            handlers[number](number, frame)

    ours = [
        number
        for number, handler in handlers.items()
        if handler is signal.default_int_handler or (number == signal.SIGINT and callable(handler))
    ]
    try:
        for number in ours:
            signal.signal(number, handle)
        yield interrupted
    finally:
        for number in ours:
            signal.signal(number, handlers[number])


def import_tqdm():
    """tqdm's bar for a terminal or a notebook, without its warning where a notebook has no ipywidgets."""
    from tqdm import TqdmWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TqdmWarning)
        from tqdm.auto import tqdm
    return tqdm


def progress_bar(steps, done, show):
    """tqdm's bar: steps made, time left, steps a second, and what the loop adds."""
    tqdm = import_tqdm()
    hidden = not show or getattr(sys.stderr, "closed", sys.stderr is None)  # None: closed before Python began
    return tqdm(total=steps, initial=done, disable=hidden, unit="step", file=Forgiving(sys.stderr))


class Forgiving:
    """A stream that drops what cannot be written, as where its reader has gone, so that training goes on."""

    def __init__(self, stream):
        self.stream = stream

    def __getattr__(self, name):
        return getattr(self.stream, name)

    def __eq__(self, other):  # tqdm asks, to clear the bar while a line is printed
        return other is self.stream

    def write(self, text):
        """Write text past Python's buffer, which would keep what cannot be written and fail again as Python ends."""
        raw = getattr(getattr(self.stream, "buffer", None), "raw", None)
        with suppress(OSError, ValueError):
            if raw is None:  # there is no buffer, as in a notebook
                self.stream.write(text)
            else:
                self.stream.flush()  # what was printed before
                raw.write(text.encode(self.stream.encoding, self.stream.errors))

    def flush(self):
        with suppress(OSError, ValueError):
            self.stream.flush()
