"""The pictures of the commands: images in rows and columns that have names."""

import math

import numpy as np

from npflow.errors import InputError
from npflow.files import written_aside
from npflow.validation import check_count

INCHES = 0.6  # of an image
LONG = 5  # letters of a name, with more it is wider than an image and is turned
TURNED = 0.05  # inches that each letter of a turned name adds to the height


def figure_of(x, levels, columns, title, *, across="", down="", column_names=(), row_names=()):
    """A figure of images, so many in a row.

    Parameters
    ----------
    x : ndarray, shape (n, height, width, channels)
    levels : int
    columns : int
    title : str
    across, down : str
        What the axes are.
    column_names, row_names : sequence of str
        The name of each column and of each row, or of none.

    Returns
    -------
    matplotlib.figure.Figure
    """
    from matplotlib.figure import Figure

    from npflow import plots

    rows = -(-len(x) // columns)
    longest = max(map(len, column_names), default=0)
    turned = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if longest > LONG else {}
    size = (max(5.0, INCHES * columns + 1), INCHES * rows + 1 + (TURNED * longest if turned else 0))
    figure = Figure(figsize=size, layout="constrained")
    ax = plots.images(x, figure.subplots(), levels=levels, columns=columns)
    ax.set_title(title, fontsize="medium")
    height, width = x.shape[1:3]
    ax.set(xlabel=across, ylabel=down)
    ax.set_xticks(middles(width, len(column_names)), column_names, **turned)
    ax.set_yticks(middles(height, len(row_names)), row_names)
    ax.tick_params(length=0)
    return figure


def picture_path(arguments, name):
    """Where a picture is asked to go, by default to a file of this name in the folder of the run.

    Raises
    ------
    InputError
        Where `--out` is not a PNG in a folder that is there. It is said before the picture is computed.
    """
    path = arguments.out or arguments.folder.path / name
    if path.suffix.lower() != ".png" or path.is_dir():
        raise InputError(f"expected --out to be a file with the ending .png, got {path}")
    if arguments.out and not path.parent.is_dir():
        raise InputError(f"expected --out in a folder that is there, got {path}")
    return path


def deliver(figure, path):
    """Write a figure to the path that was asked for, and say so; return the exit status."""
    write_figure(path, figure)
    print(path)
    return 0


def write_figure(path, figure):
    """Write a figure as PNG, whole or not at all."""
    with written_aside(path) as file:
        figure.savefig(file, format="png", dpi=150)


def middles(size, count):
    """Where the middles are of so many images of a size, a line of background between them."""
    return np.arange(count) * (size + 1) + (size - 1) / 2


def sample_figure(trained, rng, n, temperature=1.0, label=None):
    """A figure of `n` samples.

    Those of a conditional model are all of one label, or have a column for each class; as many of each, at least `n`.
    """
    settings, model, classes = trained.settings, trained.model, trained.settings.classes
    check_count(n, "the number of samples")
    columns, labels, names = math.ceil(math.sqrt(n)), None, {}
    title = f"{settings.model} on {settings.data}, samples"
    if label is not None:
        labels = np.full(n, label)
        title += f" of class {classes[label]}"
    elif settings.conditional:
        columns = len(classes)
        n = columns * math.ceil(n / columns)
        labels = np.arange(n) % columns
        names = {"across": "class", "column_names": classes}
    if temperature != 1:
        title += f" at temperature {temperature:g}"
    x = model.sample(trained.params, rng, n, settings.context(labels), temperature=temperature)
    return figure_of(x, model.levels, columns, title, **names)
