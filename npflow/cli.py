"""The ``npflow`` command."""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

import npflow
from npflow.errors import InputError
from npflow.verify import check
from npflow.verify.cases import select


def main(argv=None):
    """Run the command; return its exit status: 0, 1 where a layer failed, 2 where a name is unknown."""
    parser = argparse.ArgumentParser(prog="npflow", description="Normalizing flows in NumPy.")
    parser.add_argument("--version", action="version", version=npflow.__version__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    verify = commands.add_parser(
        "verify",
        help="hold every layer against its numerical Jacobian",
        description="Hold layers against their numerical Jacobians. Exits with 1 where one fails.",
    )
    verify.add_argument("names", nargs="*", metavar="NAME", help="layers, such as Conv1x1; by default all")
    verify.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw each Jacobian as a heat map into DIR"
    )
    verify.add_argument("--json", action="store_true", help="print the reports as JSON instead of a table")
    verify.set_defaults(run=run_verify)

    arguments = parser.parse_args(argv)
    try:
        return arguments.run(arguments)
    except InputError as error:
        print(f"npflow: {error}", file=sys.stderr)
        return 2


def run_verify(arguments):
    """``npflow verify``: a line for each layer, the whole report where it failed."""
    reports = {}
    cases = select(arguments.names)
    if arguments.figures is not None:
        try:
            arguments.figures.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"expected a folder for the figures, got {arguments.figures}: {error}"
            ) from error
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
        print(f"npflow: {len(reports)} figures in {arguments.figures}", file=sys.stderr)
    failed = [name for name, report in reports.items() if not report.passed]
    if arguments.json:
        print(json.dumps([report.as_dict() for report in reports.values()], indent=2))
    else:
        print(f"{len(reports) - len(failed)} of {len(reports)} passed")
    return 1 if failed else 0


def summary(report, seconds):
    """One line: the largest log-det errors of both directions; the report below it where it failed."""
    differences, autograd = map(report.log_det_error, ("finite differences", "autograd"))
    line = f"{report.subject:24}{differences:12.1e}{autograd:10.1e}{seconds:9.2f}"
    return f"{line}  passed" if report.passed else f"{line}  FAILED\n{report}"


def draw_jacobians(reports, folder):
    """A picture for each report: both directions, numerical beside closed form."""
    import matplotlib.pyplot as plt

    from npflow import plots

    for name, report in reports.items():
        figure = plots.jacobians(report)[0, 0].figure
        figure.savefig(folder / f"{name.replace('/', '_')}.png", dpi=100)
        plt.close(figure)
