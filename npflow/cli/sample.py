"""``npflow sample``: a picture of samples."""

import numpy as np

from npflow.cli.drawing import ROWS, deliver, picture_path, sample_figure
from npflow.cli.parsing import add_command
from npflow.errors import InputError
from npflow.validation import check_count, check_number, check_seed


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "sample",
        run,
        "draw samples from the model of a run",
        "For a conditional model each column is a class, and N is rounded up to whole rows.",
        "npflow sample runs/glow --n 100 --temperature 0.7",
        seed="the samples",
        picture=True,
    )
    parser.add_argument(
        "--n", type=int, default=64, metavar="N", help="the number of samples (default %(default)s)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.7,
        help="1 for the model's distribution, less for likelier images (default %(default)s)",
    )
    parser.add_argument("--label", help="the class of all samples, by name or number")


def run(arguments):
    """Draw samples."""
    path = picture_path(arguments)
    trained = arguments.folder.trained()
    trained.check_samples()
    label = arguments.label
    if label is not None:
        if not trained.settings.conditional:
            raise InputError("expected a run with --conditional for --label, got one without")
        label = trained.settings.label(label)
    rng = np.random.default_rng(check_seed(arguments.seed, "--seed"))
    n = check_count(arguments.n, "--n", most=10 * ROWS)
    temperature = check_number(arguments.temperature, "--temperature", least=0, below=1000)
    figure = sample_figure(trained, rng, n, temperature, label)
    return deliver(figure, path)
