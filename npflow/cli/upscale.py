"""``npflow upscale``: a picture of large images that shrink to given small ones."""

from npflow.cli.answers import add_options, draw, picture_of
from npflow.cli.parsing import add_command
from npflow.errors import InputError


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "upscale",
        run,
        "draw large images that shrink to given small ones",
        "The run is one of npflow train upscale. Each row has a small image, answers to it, and the original.",
        "npflow train upscale --data digits --steps 1000 --out runs/upscale\n"
        "  npflow upscale runs/upscale --n 4\n"
        "  npflow upscale runs/upscale --input small.png",
        seed="the choice of images, and of the answers",
        picture=True,
    )
    add_options(
        parser, "a picture as small as the given ones, or one as large as the answers, which is shrunk"
    )


def run(arguments):
    """Draw answers to small images."""
    trained = arguments.folder.trained()
    model = trained.model
    if trained.settings.model != "upscale":
        raise InputError(f"expected a run of npflow train upscale, got one of {trained.settings.model}")
    if arguments.input is None:
        return draw(arguments, trained)
    picture = picture_of(arguments.input, model.known_shape, model.event_shape)
    if picture.shape == model.known_shape:
        return draw(arguments, trained, small=((model.levels - 1) * picture[None] + 0.5) / model.levels)
    return draw(arguments, trained, picture)
