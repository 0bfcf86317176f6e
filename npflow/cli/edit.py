"""``npflow edit``: a picture of images moved along an attribute, in z."""

import numpy as np

from npflow import latent
from npflow.cli.drawing import ROWS, deliver, figure_of, picture_path
from npflow.cli.parsing import add_command, add_place, place_of
from npflow.errors import InputError
from npflow.validation import check_count

STRENGTHS = (-0.5, 0.0, 0.5, 1.0, 1.5)
IMAGES = 6  # of an attribute
MOST = 1000  # images with and without an attribute, from which its vector is computed


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "edit",
        run,
        "draw test images moved along attributes, in the z of a flow",
        "An attribute is the difference of the mean z of one class and that of another, or of all others.",
        "npflow edit runs/glow --attribute 3-8 --attribute 0",
        picture=True,
    )
    parser.add_argument(
        "--attribute",
        action="append",
        required=True,
        metavar="LABEL[-LABEL2]",
        help="classes by name or number: 3-8 turns eights into threes, 3 all others; can be repeated",
    )
    parser.add_argument("--n", type=int, help=f"images for each attribute (default {IMAGES}, or all)")
    add_place(parser)


def run(arguments):
    """Draw edited images."""
    path = picture_path(arguments)
    trained = arguments.folder.trained()
    trained.check_flow()
    settings, model, params = trained
    if settings.conditional:
        raise InputError(
            "expected a run without --conditional, got one with it: its classes are in the context, not in z"
        )
    if arguments.n is not None:
        check_count(arguments.n, "--n", most=ROWS // len(arguments.attribute))
    attributes = [attribute_of(text, settings) for text in arguments.attribute]
    data = trained.data(**place_of(arguments))
    moved, row_names = [], []
    for target, source in attributes:
        name = settings.classes[target]
        start = "others" if source is None else settings.classes[source]
        others = f"classes other than {name}" if source is None else start
        a = images_of(name, data.train, data.train_labels == target, "training")[:MOST]
        b = images_of(others, data.train, without(data.train_labels, target, source), "training")[:MOST]
        vector = latent.attribute_vector(model, params, a, b)
        x = images_of(others, data.test, without(data.test_labels, target, source), "held-out")
        if arguments.n is None:
            x = x[:IMAGES]
        else:
            x = x[
                : check_count(arguments.n, "--n", most=len(x), because=", the held-out images to start from")
            ]
        columns = [latent.add_attribute(model, params, x, vector, s) for s in STRENGTHS]
        moved.append(np.concatenate(np.stack(columns, axis=1)))
        row_names += [f"{start} to {name}"] * len(x)
    figure = figure_of(
        np.concatenate(moved),
        model.levels,
        len(STRENGTHS),
        f"{settings.model} on {settings.data}, test images moved in z",
        across="strength of the attribute; 0 is the image itself",
        column_names=[f"{strength:g}" for strength in STRENGTHS],
        row_names=row_names,
    )
    return deliver(figure, path)


def attribute_of(text, settings):
    """The labels of an attribute: its class, and the class to start from, None for all others."""
    target, dash, source = text.partition("-")
    labels = settings.label(target), settings.label(source) if dash else None
    if labels[0] == labels[1]:
        raise InputError(f"expected an attribute of two different classes, got {text!r}")
    return labels


def images_of(name, images, chosen, part):
    """The chosen images of a part of the data; raise `InputError` if there are none."""
    if not chosen.any():
        raise InputError(f"expected images of {name} among the {part} images, got none")
    return images[chosen]


def without(labels, target, source):
    """Whether each image is without the attribute, one of those to start from."""
    return labels != target if source is None else labels == source
