"""What the commands share: how one is described, the folder that it writes to, a line that it prints."""

import argparse

from npflow.errors import InputError


def add_command(commands, name, run, summary, more, example):
    """Add a command to subparsers: what it does as a phrase, more about it, and an example for its ``--help``.

    `run` takes the arguments and returns the exit status.
    """
    parser = commands.add_parser(
        name,
        help=summary,
        description=f"{summary[0].upper()}{summary[1:]}. {more}",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def add_place(parser):
    """Add the options that say where CIFAR-10 is; those that are not given are not in the arguments."""
    add = parser.add_argument
    add("--path", default=argparse.SUPPRESS, help="where CIFAR-10 is, a folder or an archive")
    add(
        "--part",
        action="store_true",
        default=argparse.SUPPRESS,
        help="take batches of CIFAR-10 with fewer images than the official ones",
    )


def place_of(arguments):
    """What was given of the options of `add_place`, by name."""
    return {name: value for name, value in vars(arguments).items() if name in ("path", "part")}


def option(name):
    """The option that sets a hyper-parameter or setting."""
    return f"--{name.replace('_', '-')}"


def make_folder(folder, purpose):
    """Make a folder where there is none; raise `InputError` where that cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"expected a folder for {purpose}, got {folder}: {error}") from error


def tell(line):
    """Print a line at once, also into a file that somebody watches."""
    print(line, flush=True)


def duration(seconds):
    """A length of time in words, in seconds, minutes or hours."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
