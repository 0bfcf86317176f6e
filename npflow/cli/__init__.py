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

    It is 0; 1 where a run failed or a layer did not pass; 2 where what was asked for cannot be; 130 after Ctrl-C. An
    error is one sentence on stderr.
    """
    parser = argparse.ArgumentParser(prog="npflow", description="Normalizing flows in NumPy.")
    parser.add_argument("--version", action="version", version=npflow.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_to(commands)
    arguments = parser.parse_args(argv)
    with warnings.catch_warnings():
        # Of a full disk, samples that cannot be drawn, a damaged summary: whatever else is shown.
        warnings.filterwarnings("always", "expected (to write|samples|the course)")
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
    """Print a sentence for the user on stderr."""
    print(f"npflow: {sentence}", file=sys.stderr)
