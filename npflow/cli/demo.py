"""The options of every demo: a folder for its pictures, and a quick form."""

import argparse
import os
import sys
from pathlib import Path


def demo_options(name, description, more=None):
    """Parse the options of a demo, and make its folder.

    The quick form takes few steps on little data. NPFLOW_QUICK in the environment, set to any text, asks for it as
    ``--quick`` does. In a notebook this is the way, as ``sys.argv`` belongs to the kernel there and is not read.

    Parameters
    ----------
    name : str
        The folder is by default ``out/NAME``.
    description : str
        The first sentence of ``--help``.
    more : dict, optional
        Further options: the arguments of `ArgumentParser.add_argument` for each.

    Returns
    -------
    argparse.Namespace
        With `out`, `quick` and what `more` adds.

    Raises
    ------
    SystemExit
        If an option is wrong, or for ``--help``.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument(
        "--out", type=Path, default=Path("out", name), help="where pictures and summary.json go (%(default)s)"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        default=bool(os.environ.get("NPFLOW_QUICK")),
        help="few steps on little data, as with NPFLOW_QUICK=1 in the environment: shows that the demo runs",
    )
    for option, settings in (more or {}).items():
        parser.add_argument(option, **settings)
    is_script = "__file__" in vars(sys.modules["__main__"])  # a notebook has no file
    options = parser.parse_args(None if is_script else [])
    options.out.mkdir(parents=True, exist_ok=True)
    return options
