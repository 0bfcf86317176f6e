"""``npflow edit``: a picture of images moved along an attribute, in z."""

from pathlib import Path

import numpy as np

from npflow import latent
from npflow.cli.drawing import deliver, figure_of, picture_path
from npflow.cli.folder import Folder
from npflow.cli.parsing import add_command, add_place, place_of
from npflow.errors import InputError
from npflow.validation import check_count

STRENGTHS = (-0.5, 0.0, 0.5, 1.0, 1.5)
MOST = 1000  # images of a class that a vector is taken from


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "edit",
        run,
        "draw test images moved along attributes, in the z of a flow",
        "An attribute is the way from the mean z of one class to that of another, or of all others.",
        "npflow edit runs/glow --attribute 3-8 --attribute 0",
    )
    parser.add_argument("folder", type=Folder, metavar="DIR", help="the folder of the run")
    parser.add_argument(
        "--attribute",
        action="append",
        required=True,
        metavar="LABEL[-LABEL2]",
        help="classes by name or number: 3-8 makes threes of eights, 3 makes threes of all others; may be given again",
    )
    parser.add_argument("--n", type=int, default=6, help="images for each attribute (default %(default)s)")
    add_place(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.png", help="by default DIR/edit.png")


def run(arguments):
    """Draw edited images."""
    path = picture_path(arguments, "edit.png")
    trained = arguments.folder.trained()
    trained.check_flow()
    if trained.settings.conditional:
        raise InputError(
            "expected a run without --conditional, got one with it: its classes are in the context, not in z"
        )
    name, count = trained.settings.data, check_count(arguments.n, "--n")
    attributes = [attribute_of(text, trained.settings) for text in arguments.attribute]
    data = trained.data(place=place_of(arguments))
    moved, row_names = [], []
    for target, source in attributes:
        a = data.train[data.train_labels == target][:MOST]
        b = data.train[without(data.train_labels, target, source)][:MOST]
        vector = latent.attribute_vector(trained.model, trained.params, a, b)
        others = data.test[without(data.test_labels, target, source)]
        x = others[
            : check_count(count, "--n", most=len(others), because=", the held-out images of that class")
        ]
        columns = [
            latent.add_attribute(trained.model, trained.params, x, vector, strength) for strength in STRENGTHS
        ]
        moved.append(np.concatenate(np.stack(columns, axis=1)))
        name_of_source = "others" if source is None else trained.settings.classes[source]
        row_names += [f"{name_of_source} to {trained.settings.classes[target]}"] * len(x)
    figure = figure_of(
        np.concatenate(moved),
        trained.model.levels,
        len(STRENGTHS),
        f"{trained.settings.model} on {name}, test images moved in z",
        across="strength of the attribute; 0 is the image itself",
        column_names=[f"{strength:g}" for strength in STRENGTHS],
        row_names=row_names,
    )
    return deliver(figure, path)


def attribute_of(text, settings):
    """The labels of an attribute: the class to go to, and that to come from, or None for all others."""
    target, dash, source = text.partition("-")
    labels = settings.label(target), settings.label(source) if dash else None
    if labels[0] == labels[1]:
        raise InputError(f"expected an attribute of two classes, got {text!r}")
    return labels


def without(labels, target, source):
    """Which images have not the attribute: those of the class that it comes from."""
    return labels != target if source is None else labels == source
