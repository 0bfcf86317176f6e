"""``npflow translate``: a picture of test images translated to another class, or to the data of another run."""

import numpy as np

from npflow import latent
from npflow.cli.drawing import ROWS, deliver, figure_of, picture_path
from npflow.cli.folder import Folder
from npflow.cli.parsing import add_command, add_place, place_of
from npflow.errors import InputError
from npflow.validation import check_count, check_seed

IMAGES = 8


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "translate",
        run,
        "draw test images translated to other classes, or to the data of another run",
        "Each is encoded as what it is, and its z is decoded as something else.",
        "npflow translate runs/digits --from 3 --to 5 --to 8\n  npflow translate runs/faces --onto runs/cifar10",
        seed="the choice of images",
        picture=True,
    )
    add = parser.add_argument
    add("--from", dest="source", metavar="LABEL", help="the class of the images, by name or number")
    add(
        "--to",
        action="append",
        metavar="LABEL",
        help="a class to decode as, by name or number; can be repeated (default all)",
    )
    add("--onto", type=Folder, metavar="DIR2", help="decode by the flow of another run")
    add("--n", type=int, metavar="N", help=f"the number of images (default {IMAGES}, or all)")
    add_place(parser)


def run(arguments):
    """Draw translations."""
    path = picture_path(arguments)
    start = arguments.folder.trained()
    start.check_flow()
    end = start
    if arguments.onto is not None:
        end = arguments.onto.trained()
        end.check_flow()
    elif not start.settings.conditional:
        raise InputError("expected a run with --conditional, or another run for --onto, got neither")
    targets = targets_of(end.settings, arguments.to)
    data = start.data(**place_of(arguments))
    chosen = images_of(data, start.settings, arguments)
    x, labels = data.test[chosen], None if data.test_labels is None else data.test_labels[chosen]
    source = (start.model, start.params, start.settings.context(labels))
    made = [latent.translate(x, source, (end.model, end.params, context)) for context in targets.values()]
    rows = [data.name] * len(x) if labels is None else [start.settings.classes[label] for label in labels]
    figure = figure_of(
        np.concatenate(np.stack([on_scale(x, start.model.levels, end.model.levels), *made], axis=1)),
        end.model.levels,
        1 + len(made),
        f"{start.settings.model} on {data.name}, test images translated",
        across="the image, and what it is decoded as",
        down="encoded as",
        column_names=["image", *targets],
        row_names=rows,
    )
    return deliver(figure, path)


def on_scale(x, levels, target):
    """Integers 0 ... levels - 1 on the scale of 0 ... target - 1."""
    return x if levels == target else x * ((target - 1) / (levels - 1))


def targets_of(settings, given):
    """The context of each class to decode as, by its name; that of a run without contexts is None."""
    if not settings.conditional:
        if given:
            raise InputError(
                f"expected a run with --conditional for --to, got one of {settings.data} without"
            )
        return {settings.data: None}
    labels = range(len(settings.classes)) if given is None else map(settings.label, given)
    return {settings.classes[label]: settings.context([label])[0] for label in labels}


def images_of(data, settings, arguments):
    """The places of the held-out images to translate."""
    order = np.random.default_rng(check_seed(arguments.seed, "--seed")).permutation(len(data.test))
    if arguments.source is not None:
        label = settings.label(arguments.source)
        order = order[data.test_labels[order] == label]
        if not len(order):
            raise InputError(
                f"expected images of {settings.classes[label]} among the held-out images, got none"
            )
    if arguments.n is None:
        return order[:IMAGES]
    most = min(ROWS, len(order))
    return order[: check_count(arguments.n, "--n", most=most, because=", the held-out images to start from")]
