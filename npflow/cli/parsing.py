"""What the commands share: their help and some options, what they print, and the folder that one writes to."""

import argparse
import sys
from contextlib import suppress
from pathlib import Path

from npflow.cli.folder import Folder
from npflow.errors import InputError
from npflow.training.terminal import import_tqdm


def add_command(commands, name, run, summary, more, example, *, folder=True, seed=None, picture=False):
    """Add a command to subparsers: a summary (a phrase), more sentences, and an example for its ``--help``.

    `run` takes the arguments and returns the exit status. The command takes the `folder` of a run, a ``--seed``
    of what is named, and for a `picture` an ``--out``.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {more}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run, picture=f"{name}.png")
    if folder:
        parser.add_argument("folder", type=Folder, metavar="DIR", help="the folder of the run")
    if seed:
        parser.add_argument("--seed", type=int, default=0, help=f"the seed of {seed} (default %(default)s)")
    if picture:
        parser.add_argument("--out", type=Path, metavar="FILE.png", help=f"by default DIR/{name}.png")
    return parser


def add_place(parser):
    """Add the options that say where CIFAR-10 is; an option that is not given is not in the arguments."""
    add = parser.add_argument
    add(
        "--path",
        default=argparse.SUPPRESS,
        help="where CIFAR-10 is: a folder or an archive, of the binary or the Python version",
    )
    add(
        "--part",
        action="store_true",
        default=argparse.SUPPRESS,
        help="accept batches with fewer images than the official ones (binary version of CIFAR-10 only)",
    )


def place_of(arguments):
    """The options of `add_place` that were given, by name."""
    return {name: value for name, value in vars(arguments).items() if name in ("path", "part")}


def make_folder(folder, purpose):
    """Make a folder if there is none; raise `InputError` if that fails."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder for {purpose}, got {folder}: {error}") from error


def say(sentence):
    """Print a sentence on stderr, where it can be written."""
    if sys.stderr is not None:  # closed; `print` would take stdout
        with suppress(OSError):
            print(f"npflow: {sentence}", file=sys.stderr)
    flush_stderr()


def flush_stderr():
    """Write what is kept for stderr, or drop it: Python would try again as it ends, and change the exit status."""
    try:
        if sys.stderr is not None:
            sys.stderr.flush()
    except OSError:
        sys.stderr = None


def tell(line):
    """Print a line of a run at once, so that whoever watches a log file sees it.

    Where it cannot be written, as its reader has gone, the run goes on without.
    """
    with import_tqdm().external_write_mode():
        try:
            print(line, flush=True)
        except OSError as error:
            sys.stdout = None
            say(f"expected to print on standard output, got: {error}; the run goes on without")
