"""``npflow interpolate``: a picture of images between pairs of images, in z."""

import numpy as np

from npflow import latent
from npflow.cli.drawing import ROWS, deliver, figure_of, picture_path
from npflow.cli.parsing import add_command, add_place, place_of
from npflow.errors import InputError
from npflow.validation import check_count, check_seed

SHARES = np.linspace(0, 1, 9)
PAIRS = 6


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "interpolate",
        run,
        "draw images between pairs of test images, in the z of a flow",
        "Each row goes from one image to another, on a straight line in z.",
        "npflow interpolate runs/glow --pairs 8",
        seed="the choice of images",
        picture=True,
    )
    parser.add_argument("--pairs", type=int, help=f"the number of pairs (default {PAIRS}, or all)")
    add_place(parser)


def run(arguments):
    """Draw interpolations."""
    path = picture_path(arguments)
    trained = arguments.folder.trained()
    trained.check_flow()
    data = trained.data(**place_of(arguments))
    seed = check_seed(arguments.seed, "--seed")
    most = min(ROWS, len(data.test) // 2)
    if most < 1:
        raise InputError(f"expected two held-out images at least, got {len(data.test)}")
    pairs = min(PAIRS, most)
    if arguments.pairs is not None:
        pairs = check_count(arguments.pairs, "--pairs", most=most)
    chosen = np.random.default_rng(seed).permutation(len(data.test))[: 2 * pairs]
    labels = None if data.test_labels is None else data.test_labels[chosen]
    context = trained.settings.context(labels)
    first, second = np.split(data.test[chosen], 2)
    contexts = (None, None) if context is None else np.split(context, 2)
    between = latent.interpolate(
        trained.model, trained.params, first, second, SHARES, context_a=contexts[0], context_b=contexts[1]
    )
    figure = figure_of(
        np.concatenate(np.swapaxes(between, 0, 1)),
        trained.model.levels,
        len(SHARES),
        f"{trained.settings.model} on {data.name}, between test images in z",
        across="share of the image on the right",
        column_names=[f"{share:.3g}" for share in SHARES],
        down="pair",
        row_names=range(1, pairs + 1),
    )
    return deliver(figure, path)
