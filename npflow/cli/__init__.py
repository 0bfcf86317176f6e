"""The ``npflow`` command."""

import argparse
import sys
import warnings
from contextlib import contextmanager

import npflow
from npflow.cli import (
    complete,
    edit,
    exercise,
    interpolate,
    sample,
    score,
    step,
    train,
    translate,
    upscale,
    verify,
)
from npflow.cli.parsing import flush_stderr, say
from npflow.errors import ConvergenceError, InputError, NonFiniteError

COMMANDS = (
    train,
    sample,
    score,
    interpolate,
    edit,
    translate,
    upscale,
    complete,
    step,
    verify,
    exercise,
)


def main(argv=None):
    """Run the command; return its exit status.

    It is 0 on success, 1 if a run or a layer failed, 2 if the arguments cannot be used, 130 after Ctrl-C, and 141 if
    the reader of the output has gone. An error is printed on stderr, as one sentence.
    """
    parser = argparse.ArgumentParser(prog="npflow", description="Normalizing flows in NumPy.")
    parser.add_argument("--version", action="version", version=npflow.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    with warnings.catch_warnings():
        # The command's own: a full disk, samples that cannot be drawn, a damaged summary. Print each one.
        warnings.filterwarnings("always", "expected (to write|samples|the scores)")
        warnings.showwarning = lambda message, *_: say(message)
        try:
            with output_written():
                arguments = parser.parse_args(argv)
                return arguments.run(arguments)
        except InputError as error:
            say(error)
            return 2
        except BrokenPipeError:  # as in `npflow verify | head`
            return 141
        except (NonFiniteError, ConvergenceError, MemoryError, OSError) as error:
            say(str(error) or "there is not enough memory")
            return 1
        except KeyboardInterrupt:
            say("interrupted")
            return 130


@contextmanager
def output_written():
    """Write what is printed to the end, on a terminal of any encoding; raise `OSError` if that is not possible."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # the ± of a score, or the name of a file
    try:
        yield
    finally:
        flush_stderr()  # argparse leaves there what it could not write
        try:
            print(end="", flush=True)
        except OSError as error:
            sys.stdout = None  # Python would try again as it ends
            raise type(error)(f"expected to print on standard output, got: {error}") from error
