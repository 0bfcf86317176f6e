"""``npflow train``: a model of images, trained for minutes or days, in a folder that says how it goes."""

import argparse
import signal
import threading
from contextlib import contextmanager
from dataclasses import fields, replace
from datetime import timedelta
from pathlib import Path

from npflow.cli.catalogue import MODELS, load_data
from npflow.cli.folder import Folder, Settings
from npflow.cli.job import Job
from npflow.cli.parsing import add_command, add_place, make_folder, option, tell
from npflow.datasets import IMAGES
from npflow.errors import InputError
from npflow.validation import check_number


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a model of images",
        "In DIR it keeps a checkpoint, samples, the course of the run, and bits/dim of held-out images.",
        "npflow train glow --data digits --steps 1000 --out runs/glow\n"
        "  npflow train glow --out runs/glow --resume\n"
        "  npflow train glow --help  # the options, which each model has",
    )
    names = parser.add_subparsers(title="models", required=True, metavar="MODEL", dest="model")
    for name, entry in MODELS.items():
        add_model(names, name, entry)


def add_model(names, name, entry):
    """Add a model, with the sizes that it has.

    What is not given is not in the arguments: a resumed run has what it was started with.
    """
    parser = names.add_parser(
        name,
        help=entry.paper,
        description=f"Train a model of images: {entry.paper}.",
        epilog=f"example:\n  npflow train {name} --data digits --steps 1000 --out runs/{name}\n"
        f"  npflow train {name} --out runs/{name} --resume",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--out", type=Folder, metavar="DIR", required=True, help="the folder of the run")
    add("--data", choices=IMAGES, help="what to train on (default digits)")
    add_place(parser)
    add("--download", action="store_true", default=False, help="fetch CIFAR-10 where it is not there")
    add("--conditional", action="store_true", help="condition the model by the class")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="how many steps (default 1000)")
    length.add_argument("--minutes", type=float, help="how long: the steps that fit in, by a rehearsal")
    add("--batch-size", type=int, metavar="N", help="images a step (default 32)")
    add(
        "--rate",
        type=float,
        help=f"the peak of the learning rate, after a warm-up (default {entry.rate:g}; wide networks want less)",
    )
    add("--seed", type=int, help="draws all that is random (default 0)")
    add("--resume", action="store_true", default=False, help="go on from the checkpoint in DIR")
    add(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="from one checkpoint and its pictures to the next (default %(default)s)",
    )
    sizes = parser.add_argument_group("sizes of the model")
    for size, (default, meaning) in entry.sizes.items():
        sizes.add_argument(option(size), type=int, metavar="N", help=f"{meaning} (default {default})")


def run(arguments):
    """Train, or go on training."""
    folder, given = arguments.out, vars(arguments)
    minutes = check_number(arguments.checkpoint_minutes, "--checkpoint-minutes", above=0, below=10**9)
    settings = (settings_of_folder if arguments.resume else new_settings)(folder, given)
    path = given.get("path", settings.path)
    data = load_data(settings.data, path, settings.part, settings.seed, arguments.download)
    job = Job.of(folder, settings, data)
    make_folder(folder.path, "the run")
    with folder.held(), terminated_as_interrupted():
        folder.clear()
        tell(job)
        if arguments.resume:
            done = folder.step()
            tell(f"resumed at step {done:,} of {settings.steps:,}")
            if done < settings.steps:
                job = job.rehearsed(done)
        else:
            folder.check_new()  # another run may have been in it until now
            job = job.rehearsed()
            folder.write_settings(job.settings)
        return job.train(timedelta(minutes=minutes))


@contextmanager
def terminated_as_interrupted():
    """SIGTERM, by which a batch system or a computer that is shut down ends a run, is as Ctrl-C: a checkpoint is written."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is sent signals
        return
    interrupt = lambda *_: signal.raise_signal(signal.SIGINT)
    before = signal.signal(signal.SIGTERM, interrupt) or signal.SIG_DFL  # None: one that is not Python's
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def new_settings(folder, given):
    """The settings of a new run: what is given, and defaults."""
    folder.check_new()
    sizes = {name: given.get(name, default) for name, (default, _) in MODELS[given["model"]].sizes.items()}
    names = {field.name for field in fields(Settings)}
    given = {"rate": MODELS[given["model"]].rate} | given
    settings = Settings(sizes=sizes, **{name: value for name, value in given.items() if name in names})
    # A run may be resumed from another folder.
    place = None if settings.path is None else str(Path(settings.path).expanduser().absolute())
    return replace(settings, path=place)


def settings_of_folder(folder, given):
    """The settings of a run that is resumed; what is given again has to be the same."""
    if not folder.checkpoint.exists():
        raise InputError(
            f"expected a checkpoint in {folder.path} to resume, got none: without --resume a run begins"
        )
    settings = folder.settings()
    started_with = vars(settings) | settings.sizes
    for name in given.keys() & started_with.keys() - {"path"}:  # data may have moved
        if given[name] != started_with[name]:
            raise InputError(
                f"expected the {name if name == 'model' else option(name)} that the run in {folder.path} was started with, "
                f"{started_with[name]}, got {given[name]}: another --out begins another run"
            )
    return settings
