"""``npflow step``: a page to step through a flow."""

from pathlib import Path

import numpy as np

from npflow.cli.folder import Folder
from npflow.cli.parsing import add_command
from npflow.errors import InputError, kind_of
from npflow.flow import Flow
from npflow.training import load
from npflow.validation import check_count, check_seed

POINTS, IMAGES = 500, 16  # as images have more numbers


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "step",
        run,
        "write a page to step through a flow, layer by layer and line by line",
        "The points are held-out images of the run, or for a checkpoint samples of the flow.\n"
        "The page is one file, which a browser shows without a network.",
        "npflow step moons.npz\n"
        "  npflow step moons.npz --data moons.npy --out page.html\n"
        "  npflow step runs/glow",
        folder=False,
        seed="the choice of points",
    )
    add = parser.add_argument
    add("run_or_checkpoint", type=Path, metavar="DIR", help="the folder of a run, or a checkpoint (.npz)")
    add("--data", type=Path, metavar="FILE.npy", help="the rows to show, for a checkpoint")
    add("--n", type=int, metavar="N", help=f"the number of points (default {POINTS}, or {IMAGES} images)")
    add("--out", type=Path, metavar="FILE.html", help="by default step.html in DIR, or beside the checkpoint")


def run(arguments):
    """Write the page and print its path."""
    from npflow.plots import step_page

    place = arguments.run_or_checkpoint
    rng = np.random.default_rng(check_seed(arguments.seed, "--seed"))
    n = None if arguments.n is None else check_count(arguments.n, "--n", most=10_000)
    if not place.exists():
        raise InputError(f"expected the folder of a run, or a checkpoint, got {place}, which does not exist")
    if place.is_file():
        title, folder, found = (
            place.stem,
            place.parent,
            of_checkpoint(place, arguments.data, rng, n or POINTS),
        )
    elif arguments.data is not None:
        raise InputError("expected --data with a checkpoint, got it with the folder of a run, which has data")
    else:
        title, folder, found = place.name, place, of_run(Folder(place), rng, n or IMAGES)
    flow, params, x, context = found
    path = folder / "step.html" if arguments.out is None else arguments.out
    if path.suffix.lower() != ".html":
        raise InputError(f"expected --out to be a file that ends in .html, got {path}")
    print(step_page(flow, params, x, path, context, title=f"{title}, step by step"))
    return 0


def of_checkpoint(path, data, rng, n):
    """The flow of a checkpoint, its parameters, and points: rows of `data`, or samples where it is None."""
    saved = load(path)
    if not isinstance(saved.flow, Flow) or saved.flow.context_features:
        got = "a conditional one" if isinstance(saved.flow, Flow) else kind_of(saved.flow)
        raise InputError(
            f"expected a Flow without a context at {path}, got {got}: "
            "call npflow.plots.step_page with rows of yours"
        )
    if data is None:
        return saved.flow, saved.params, saved.flow.sample(saved.params, rng, n), None
    try:
        with data.open("rb") as file:
            x = np.lib.format.read_array(file, allow_pickle=False)
        x = x[np.sort(rng.permutation(len(x))[:n])]
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise InputError(f"expected rows in {data}, an array that numpy.save wrote, got: {error}") from error
    return saved.flow, saved.params, x, None


def of_run(folder, rng, n):
    """The flow of a run, its parameters, held-out images at the middle of their cells, and their context."""
    trained = folder.trained()
    trained.check_flow()
    data = trained.data()
    chosen = rng.permutation(len(data.test))[:n]
    labels = None if data.test_labels is None else data.test_labels[chosen]
    model, images = trained.model, data.test[chosen]
    x = model.dequantize(images, np.full(images.shape, 0.5, model.check(trained.params).dtype))
    return model.flow, trained.params, x, trained.settings.context(labels)
