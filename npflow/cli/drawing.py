"""The pictures of the commands: images in named rows and columns."""

import math
import textwrap

import numpy as np

from npflow.errors import InputError
from npflow.files import prepare_to_write, written_aside

PAGE = 6.5, 9.0  # inches of a page that the images fill, if none is then larger or smaller than these
LARGEST, SMALLEST = 0.8, 0.25
LETTER = 0.08  # inches, the width of a letter
ROWS = 500  # of images at most: Matplotlib draws pictures of up to 2^16 pixels in height
LONG = 5  # letters: a longer name is wider than an image, so it is rotated
ROTATED = 0.05  # inches that each letter of a rotated name adds to the height


def figure_of(x, levels, columns, title, *, across="", down="", column_names=(), row_names=()):
    """A figure of images, shape (n, height, width, channels), `columns` in a row.

    `across` and `down` label the axes; each column and each row may have a name.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from npflow import plots

    rows = -(-len(x) // columns)
    longest, widest = (max(map(len, map(str, names)), default=0) for names in (column_names, row_names))
    rotated = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if longest > LONG else {}
    image = max(SMALLEST, min(LARGEST, PAGE[0] / columns, PAGE[1] / rows))
    width = max(4.6, image * columns + LETTER * widest + 0.2)
    title = textwrap.fill(title, int(width / LETTER))
    lines = 1 + title.count("\n") + bool(across) + bool(column_names)
    figsize = width, image * rows + 0.2 * lines + 0.2 + (ROTATED * longest if rotated else 0)
    with rc_context(plots.STYLE):
        figure = Figure(figsize=figsize, layout="constrained")
        ax = plots.images(x, figure.subplots(), levels=levels, columns=columns, title=title)
    height, width = x.shape[1:3]
    ax.set(xlabel=across, ylabel=down)
    ax.set_xticks(middles(width, len(column_names)), column_names, **rotated)
    ax.set_yticks(middles(height, len(row_names)), row_names)
    ax.tick_params(length=0)
    return figure


def answer_figure(trained, rng, x, answers, temperature=1.0, small=None, context=None):
    """A figure of what a model that completes images draws: in each row the given part, the answers, and the image.

    `x` are whole images; or None, and `small` are the given parts of images between 0 and 1.
    """
    model, levels = trained.model, trained.model.levels
    count = len(small) if x is None else len(x)
    repeated = lambda array: None if array is None else np.repeat(array, answers, axis=0)
    if x is None:
        drawn = levels * model.answers(trained.params, rng, repeated(small), temperature) - 0.5
        shown = levels * small - 0.5
    else:
        options = {} if context is None else {"context": repeated(context)}
        drawn = model.complete(trained.params, rng, repeated(x), temperature=temperature, **options)
        shown = given_part(model, x)
    drawn = drawn.reshape(count, answers, *drawn.shape[1:])
    times = drawn.shape[2] // shown.shape[1]
    shown = np.repeat(np.repeat(shown, times, axis=1), times, axis=2)[:, None]
    table = [shown, drawn] if x is None else [shown, drawn, x[:, None]]
    names = ["given", *map(str, range(1, answers + 1)), *(() if x is None else ("image",))]
    title = f"{trained.settings.model} on {trained.settings.data}, {answers} answers to each question"
    if temperature != 1:
        title += f" at temperature {temperature:g}"
    table = np.concatenate(table, axis=1)
    return figure_of(table.reshape(-1, *table.shape[2:]), levels, table.shape[1], title, column_names=names)


def given_part(model, x):
    """What a model sees of images: the means of blocks, or the upper half above grey; on the scale of the integers."""
    parting = getattr(model, "parting", None)
    if parting is not None and parting.averaged > 1:
        return model.levels * model.known(x) - 0.5
    rest = np.arange(x.shape[1])[:, None, None] >= x.shape[1] // 2
    return np.where(rest, (model.levels - 1) / 2, x)


def picture_path(arguments):
    """The path to write a picture to, which is `--out` or in the folder of the run.

    A command asks before it computes the picture: `InputError` unless `--out` is a PNG that can be written.
    """
    if arguments.out is None:
        return arguments.folder.path / arguments.picture
    if arguments.out.suffix.lower() != ".png":
        raise InputError(f"expected --out to be a file that ends in .png, got {arguments.out}")
    prepare_to_write(arguments.out, "--out")
    return arguments.out


def deliver(figure, path):
    """Write a figure and print its path; return the exit status."""
    write_figure(path, figure)
    print(path)
    return 0


def write_figure(path, figure):
    """Write a figure as PNG, whole or not at all."""
    with written_aside(path) as file:
        figure.savefig(file, format="png", dpi=150)


def middles(size, count):
    """The middles of `count` images of a size in pixels, with a line of background between them."""
    return np.arange(count) * (size + 1) + (size - 1) / 2


def sample_figure(trained, rng, n, temperature=1.0, label=None):
    """A figure of `n` samples.

    Samples of a conditional model are all of one label, or there is a column for each class; `n` is then
    rounded up.
    """
    settings, model, classes = trained.settings, trained.model, trained.settings.classes
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
