"""``npflow verify``: check every layer against its numerical Jacobian."""

import json
import time
from pathlib import Path

import numpy as np

from npflow.cli.parsing import add_command, make_folder, say
from npflow.verify import check
from npflow.verify.cases import select


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "verify",
        run,
        "check every layer against its numerical Jacobian",
        "The exit status is 1 if one fails.",
        "npflow verify Conv1x1 ActNorm --figures jacobians",
        folder=False,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="layers, such as Conv1x1; by default all")
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw each Jacobian as a heat map into DIR"
    )
    parser.add_argument("--json", action="store_true", help="print the reports as JSON instead of a table")


def run(arguments):
    """Print a line for each layer, and the whole report where it failed."""
    reports = {}
    cases = select(arguments.names)
    if arguments.figures is not None:
        make_folder(arguments.figures, "the figures")
    if not arguments.json:
        print(
            f"{'':24}{'log-det against':>22}{'':12}\n{'layer':24}{'differences':>12}{'autograd':>10}{'seconds':>9}"
        )
    for name, case in cases.items():
        clock = time.perf_counter()
        report = check(case.layer, case.batch(np.random.default_rng(0)))
        report.subject = name
        reports[name] = report
        if not arguments.json:
            seconds = time.perf_counter() - clock
            print(summary(report, seconds))
    if arguments.figures is not None:
        draw_jacobians(reports, arguments.figures)
        say(f"{len(reports)} figures in {arguments.figures}")
    failed = [name for name, report in reports.items() if not report.passed]
    if arguments.json:
        print(json.dumps([report.as_dict() for report in reports.values()], indent=2))
    else:
        print(f"{len(reports) - len(failed)} of {len(reports)} passed")
    return 1 if failed else 0


def summary(report, seconds):
    """One line with the largest log-det errors of both directions; below it the report of a failure."""
    differences, autograd = map(report.log_det_error, ("finite differences", "autograd"))
    line = f"{report.subject:24}{differences:12.1e}{autograd:10.1e}{seconds:9.2f}"
    return f"{line}  passed" if report.passed else f"{line}  FAILED\n{report}"


def draw_jacobians(reports, folder):
    """Draw a picture for each report: both directions, numerical beside closed form."""
    import matplotlib.pyplot as plt

    from npflow import plots

    for name, report in reports.items():
        figure = plots.jacobians(report)[0, 0].figure
        figure.savefig(folder / f"{name.replace('/', '_')}.png", dpi=100)
        plt.close(figure)
