"""``npflow score``: bits/dim of all held-out images."""

import numpy as np

from npflow.cli.parsing import add_command, add_place, place_of
from npflow.datasets import IMAGES
from npflow.errors import InputError
from npflow.validation import check_count

MOST_DRAWS = 10_000
ROUND_TRIPS = 100  # images: the inverse of a MintNet takes many times as long as its density


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "score",
        run,
        "score a run on all held-out images",
        "Prints the mean and standard error of bits/dim, and for a flow the error of encoding and decoding.",
        "npflow score runs/glow --draws 16",
    )
    parser.add_argument("data", nargs="?", choices=IMAGES, metavar="DATA", help="by default the run's")
    add_place(parser)
    parser.add_argument(
        "--draws",
        type=int,
        default=1,
        help="draws of the noise of each image, for a flow: more give a tighter bound on bits/dim "
        "(default %(default)s)",
    )


def run(arguments):
    """Print bits/dim, and for a flow the reconstruction error."""
    draws = check_count(arguments.draws, "--draws", most=MOST_DRAWS)
    trained = arguments.folder.trained()
    data = trained.data(arguments.data, **place_of(arguments))
    context, model = trained.settings.context(data.test_labels), trained.model
    score = Score(bits_per_dim(model, trained.params, data.test, context, draws))
    print(
        f"{trained.settings.model} on {data.name}: {score} on all {len(data.test):,} held-out images",
        flush=True,
    )
    if model.invertible:
        x, context = data.test[:ROUND_TRIPS], None if context is None else context[:ROUND_TRIPS]
        error = model.reconstruction_error(trained.params, x, context)
        unchanged = f"{np.mean(error < 0.5):.4%} of the pixel values of {len(x):,} images are unchanged"
        print(f"encoded and decoded: {unchanged}, the largest error is {error.max():.2g} levels")
    return 0


class Score:
    """Mean and standard error of bits/dim over images; a single image has no standard error, None."""

    def __init__(self, bits):
        self.mean = float(np.mean(bits))
        self.standard_error = float(np.std(bits, ddof=1) / np.sqrt(len(bits))) if len(bits) > 1 else None

    def __str__(self):
        error = "" if self.standard_error is None else f" ± {self.standard_error:.3f}"
        return f"{self.mean:.3f}{error} bits/dim"


def bits_per_dim(model, params, x, context, draws=1):
    """Bits/dim of each image, shape (n,), with the same noise at every call."""
    if model.noisy:
        return model.bits_per_dim(params, x, context, rng=np.random.default_rng(0), draws=draws)
    if draws != 1:
        raise InputError("expected --draws for a model with noise only, got it for one without")
    return model.bits_per_dim(params, x, context)
