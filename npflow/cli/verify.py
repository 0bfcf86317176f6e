"""``npflow verify``: check every layer, or a reader's own, against its numerical Jacobian."""

import importlib.util
import json
import sys
import time
import traceback
from pathlib import Path

import numpy as np

from npflow.cli.parsing import add_command, make_folder, say
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.layers.layer import check_layer
from npflow.verify import check
from npflow.verify.cases import Case, select

GUESSES = ((4,), (2,), (4, 4, 1), (4, 4, 3), (8, 8, 1), (3,), (1,))  # shapes of a row, until one fits
FEW = 10  # cases that one process checks


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "verify",
        run,
        "check every layer, or one of your own, against its numerical Jacobian",
        "The exit status is 1 if one fails or cannot be decided.",
        "npflow verify my_layers.py:MyLayer --figures jacobians",
        folder=False,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="layers, such as Conv1x1, or path.py:name, where name is a layer, a "
        "Flow, or a class or function that makes one without arguments; by default all of npflow's",
    )
    parser.add_argument(
        "--shape",
        type=int,
        nargs="+",
        metavar="N",
        help="the shape of a row for path.py:name; by default it is guessed",
    )
    parser.add_argument(
        "--figures", type=Path, metavar="DIR", help="draw each Jacobian as a heat map into DIR"
    )
    parser.add_argument("--json", action="store_true", help="print the reports as JSON instead of a table")


def run(arguments):
    """Print a line for each layer, and the whole report where it failed."""
    reports = {}
    own = [name for name in arguments.names if ".py:" in name]
    named = [name for name in arguments.names if ".py:" not in name]
    cases = select(named) if named or not own else {}
    cases |= {name: own_case(name, arguments.shape) for name in own}
    if arguments.shape and not own:
        raise InputError("expected --shape beside path.py:name, got no such name")
    if arguments.figures is not None:
        make_folder(arguments.figures, "the figures")
    if not arguments.json:
        print(
            f"{'':24}{'log-det against':>22}{'':12}\n{'layer':24}{'differences':>12}{'autograd':>10}{'seconds':>9}"
        )
    for report, seconds in checked(cases):
        reports[report.subject] = report
        if not arguments.json:
            print(summary(report, seconds))
    if arguments.figures is not None:
        draw_jacobians(reports, arguments.figures)
        say(f"{len(reports)} figure{'s' * (len(reports) != 1)} in {arguments.figures}")
    failed = [name for name, report in reports.items() if not report.passed]
    if arguments.json:
        print(json.dumps([report.as_dict() for report in reports.values()], indent=2))
    else:
        print(f"{len(reports) - len(failed)} of {len(reports)} passed")
    return 1 if failed else 0


def checked(cases):
    """The report of each case, in order, and the seconds it took; many cases share the machine's cores."""
    from joblib import Parallel, delayed

    jobs = -1 if len(cases) > FEW else 1  # a process takes a second to start
    return Parallel(jobs, return_as="generator")(delayed(timed)(*case) for case in cases.items())


def timed(name, case):
    """The report of one case, and the seconds it took."""
    clock = time.perf_counter()
    report = check(case.layer, case.batch(np.random.default_rng(0)))
    report.subject = name
    return report, time.perf_counter() - clock


def summary(report, seconds):
    """One line with the largest log-det errors of both directions; below it the report of a failure."""
    differences, autograd = map(report.log_det_error, ("finite differences", "autograd"))
    line = f"{report.subject:24}{differences:12.1e}{autograd:10.1e}{seconds:9.2f}"
    return f"{line}  passed" if report.passed else f"{line}  {report.verdict.upper()}\n{report}"


def own_case(name, shape):
    """The reader's layer called ``path.py:name``, with the shape of a row that it takes."""
    layer = own_layer(*name.rsplit(":", 1))
    for guess in [tuple(shape)] if shape else GUESSES:
        case = Case(layer, guess)
        if shape:
            return case
        try:
            x = case.batch(np.random.default_rng(0))
            with np.errstate(all="ignore"):
                z, _ = layer.forward(layer.init(np.random.default_rng(0), x), x)
            if np.size(z) == x.size:
                return case
        except Exception:  # the check will say what is wrong, if it is not the shape
            continue
    return Case(layer, GUESSES[0])


def own_module(path):
    """What a reader's Python file defines; raise `InputError` unless it runs."""
    if not Path(path).is_file():
        raise InputError(f"expected a Python file, got {path!r}, which is not a file")
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    if spec is None:
        raise InputError(f"expected a Python file, whose name ends in .py, got {path!r}")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(spec.name, module)  # a dataclass looks its module up
    sys.path.insert(0, str(Path(path).resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        lines = [
            frame.lineno
            for frame in traceback.extract_tb(error.__traceback__)
            if frame.filename == spec.origin
        ]
        at = f", at line {lines[-1]}" if lines else ""  # Python names that of a syntax error
        raise InputError(f"expected {path} to run, got {type(error).__name__}: {error}{at}") from error
    finally:
        sys.path.pop(0)
    return module


def own_layer(path, name):
    """The layer that a file calls `name`: an object, the layer of a Flow, or what a class or function makes."""
    module = own_module(path)
    if not hasattr(module, name):
        known = ", ".join(one for one in vars(module) if not one.startswith("_"))
        raise InputError(f"expected a name in {path} among {known}; got {name!r}")
    made = getattr(module, name)
    if isinstance(made, type) or (not hasattr(made, "forward") and callable(made)):
        try:
            made = made()
        except Exception as error:
            raise InputError(
                f"expected {name} of {path} to make a layer without arguments, got {type(error).__name__}: {error}"
            ) from error
    return check_layer(made.layer if isinstance(made, Flow) else made, f"{name} of {path}")


def draw_jacobians(reports, folder):
    """Draw a picture for each report: both directions, numerical beside closed form."""
    import matplotlib.pyplot as plt

    from npflow import plots

    for name, report in reports.items():
        figure = plots.jacobians(report)[0, 0].figure
        figure.savefig(folder / f"{name.replace('/', '_').replace(':', '_')}.png", dpi=100)
        plt.close(figure)
