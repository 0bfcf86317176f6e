"""What ``npflow upscale`` and ``npflow complete`` share: the questions, and the picture of the answers."""

from pathlib import Path

import numpy as np

from npflow.cli.drawing import ROWS, answer_figure, deliver, picture_path
from npflow.cli.parsing import add_place, place_of
from npflow.errors import InputError
from npflow.validation import check_count, check_number, check_seed

IMAGES, MOST = 6, 20  # questions by default, and answers at most


def add_options(parser, picture):
    """Add the options; `picture` says what ``--input`` is."""
    add = parser.add_argument
    questions = parser.add_mutually_exclusive_group()
    questions.add_argument("--input", type=Path, metavar="FILE", help=picture)
    questions.add_argument(
        "--rows", type=int, nargs="+", metavar="ROW", help="held-out images by their index, from 0 on"
    )
    questions.add_argument(
        "--n", type=int, help=f"the number of held-out images, chosen at random (default {IMAGES}, or all)"
    )
    add("--answers", type=int, default=8, metavar="N", help="answers to each (default %(default)s)")
    add(
        "--temperature",
        type=float,
        default=0.9,
        help="1 for the model's distribution, less for likelier images (default %(default)s)",
    )
    add_place(parser)


def draw(arguments, trained, picture=None, small=None):
    """Draw the answers: to a `picture` between 0 and 1, to a `small` image, or to held-out images."""
    path = picture_path(arguments)
    rng = np.random.default_rng(check_seed(arguments.seed, "--seed"))
    answers = check_count(arguments.answers, "--answers", most=MOST)
    temperature = check_number(arguments.temperature, "--temperature", least=0, below=1000)
    x, context = None, None
    if picture is not None:
        x = np.rint((trained.model.levels - 1) * picture[None]).astype(np.uint8)
    elif small is None:
        x, context = held_out(arguments, trained, rng)
    figure = answer_figure(trained, rng, x, answers, temperature, small, context)
    return deliver(figure, path)


def held_out(arguments, trained, rng):
    """The held-out images that are asked for, and their context."""
    data = trained.data(**place_of(arguments))
    if arguments.rows is not None:
        last = len(data.test) - 1
        chosen = np.array([check_count(row, "each of --rows", least=0, most=last) for row in arguments.rows])
        check_count(len(chosen), "the number of --rows", most=ROWS)
    else:
        most = min(ROWS, len(data.test))
        n = min(IMAGES, most) if arguments.n is None else check_count(arguments.n, "--n", most=most)
        chosen = rng.permutation(len(data.test))[:n]
    labels = None if data.test_labels is None else data.test_labels[chosen]
    return data.test[chosen], trained.settings.context(labels)


def picture_of(path, *shapes):
    """The numbers of a picture in a file, from 0 to 1, in one of some shapes (height, width, channels).

    In one channel a picture is ink on paper, as all pictures of npflow are: black is 1.
    """
    from matplotlib.image import imread

    try:
        pixels = np.asarray(imread(path))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"expected a picture in {path}, got: {error}") from error
    if pixels.dtype.kind == "u":
        pixels = pixels / np.iinfo(pixels.dtype).max
    pixels = pixels.reshape(*pixels.shape[:2], -1).astype(float)
    if pixels.shape[2] in (2, 4):  # the last one says how opaque each pixel is, on white paper
        pixels = 1 - pixels[..., -1:] * (1 - pixels[..., :-1])
    if pixels.shape[:2] not in [shape[:2] for shape in shapes]:
        sizes = " or ".join(f"{height} x {width}" for height, width, _ in shapes)
        got = " x ".join(map(str, pixels.shape[:2]))
        raise InputError(f"expected a picture of {sizes} pixels, height by width, in {path}, got {got}")
    if shapes[0][2] == 1:
        return 1 - pixels.mean(axis=2, keepdims=True)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels
