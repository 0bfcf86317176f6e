"""The ``npflow`` command."""

import argparse
import sys
import warnings

import npflow
from npflow.cli import edit, interpolate, sample, score, train, verify
from npflow.errors import ConvergenceError, InputError, NonFiniteError

COMMANDS = (train, sample, score, interpolate, edit, verify)


def main(argv=None):
    """Run the command; return its exit status.

    It is 0 on success, 1 if a run or a layer failed, 2 if the arguments cannot be used, and 130 after Ctrl-C.
    An error is printed on stderr, as one sentence.
    """
    parser = argparse.ArgumentParser(prog="npflow", description="Normalizing flows in NumPy.")
    parser.add_argument("--version", action="version", version=npflow.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    arguments = parser.parse_args(argv)
    with warnings.catch_warnings():
        # The command's own: a full disk, samples that cannot be drawn, a damaged summary. Print each one.
        warnings.filterwarnings("always", "expected (to write|samples|the scores)")
        warnings.showwarning = lambda message, *_: say(message)
        try:
            return arguments.run(arguments)
        except InputError as error:
            say(error)
            return 2
        except (NonFiniteError, ConvergenceError, MemoryError, OSError) as error:
            say(str(error) or "there is not enough memory")
            return 1
        except KeyboardInterrupt:
            say("interrupted")
            return 130


def say(sentence):
    """Print a sentence on stderr."""
    print(f"npflow: {sentence}", file=sys.stderr)
