"""``npflow complete``: a picture of images whose lower half is drawn."""

from npflow.cli.answers import add_options, draw, picture_of
from npflow.cli.parsing import add_command
from npflow.errors import InputError

MODELS = ("complete", "pixelcnn")


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "complete",
        run,
        "draw the lower half of images",
        "The run is one of npflow train complete, or of pixelcnn. Each row has the upper half of an image, answers to it, "
        "and the image.",
        "npflow train complete --data digits --steps 1000 --out runs/complete\n"
        "  npflow complete runs/complete --n 4\n"
        "  npflow complete runs/complete --input half.png",
        seed="the choice of images, and of the answers",
        picture=True,
    )
    add_options(parser, "a picture as large as the images, whose upper half is used")


def run(arguments):
    """Draw the lower half of images."""
    trained = arguments.folder.trained()
    if trained.settings.model not in MODELS:
        raise InputError(
            f"expected a run of npflow train {' or '.join(MODELS)}, got one of {trained.settings.model}"
        )
    if arguments.input is None:
        return draw(arguments, trained)
    if trained.settings.conditional:
        raise InputError("expected a run without --conditional for --input, as a picture has no class")
    return draw(arguments, trained, picture_of(arguments.input, trained.model.event_shape))
