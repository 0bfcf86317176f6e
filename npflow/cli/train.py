"""``npflow train``: train a model of images for minutes or days, in a folder that shows its progress."""

import argparse
import signal
import threading
from contextlib import contextmanager, nullcontext
from dataclasses import fields, replace
from datetime import timedelta
from functools import partial
from pathlib import Path

from npflow.cli.catalogue import MODELS, load_data
from npflow.cli.folder import Folder
from npflow.cli.job import Job
from npflow.cli.mpiexec import find_ranks, speak_once
from npflow.cli.parsing import add_command, add_place, make_folder, tell
from npflow.cli.settings import Settings, option
from npflow.datasets import IMAGES
from npflow.errors import InputError
from npflow.training.together import together
from npflow.validation import check_number


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a model of images",
        "DIR receives checkpoints, samples, a plot of the losses, and bits/dim of held-out images.",
        "npflow train glow --data digits --steps 1000 --out runs/glow\n"
        "  npflow train glow --out runs/glow --resume\n"
        "  npflow train glow --help  # the options, some of which depend on the model",
        folder=False,
    )
    names = parser.add_subparsers(title="models", required=True, metavar="MODEL", dest="model")
    for name, entry in MODELS.items():
        add_model(names, name, entry)


def add_model(names, name, entry):
    """Add a model and its sizes.

    An option that is not given is not in the arguments: a resumed run takes its settings from its folder.
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
    add("--data", choices=IMAGES, help=f"what to train on (default {Settings.data})")
    add_place(parser)
    add("--download", action="store_true", default=False, help="download CIFAR-10 if it is not there")
    add("--conditional", action="store_true", help="condition the model on the class")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help=f"the number of steps (default {Settings.steps})")
    length.add_argument(
        "--minutes", type=float, help="train for about this long; a rehearsal finds the number of steps"
    )
    add("--batch-size", type=int, metavar="N", help=f"images in a batch (default {Settings.batch_size})")
    add(
        "--slices",
        type=int,
        metavar="N",
        help="slices that a batch is cut into for the cores and the ranks of mpiexec (default: as its shapes say)",
    )
    add(
        "--rate",
        type=float,
        help=f"the peak of the learning rate (default {entry.rate:g}; wide networks need less)",
    )
    add(
        "--reversible",
        action="store_true",
        help="keep nothing of the layers for the gradient: less memory, and steps that take a third longer",
    )
    add("--seed", type=int, help=f"the seed of all random numbers (default {Settings.seed})")
    add("--resume", action="store_true", default=False, help="continue from the checkpoint in DIR")
    add(
        "--checkpoint-minutes",
        type=float,
        default=5.0,
        metavar="M",
        help="minutes between checkpoints, each with new pictures (default %(default)s)",
    )
    sizes = parser.add_argument_group("sizes of the model")
    for size, (default, meaning) in entry.sizes.items():
        sizes.add_argument(option(size), type=int, metavar="N", help=f"{meaning} (default {default})")


def run(arguments):
    """Train, or resume training, on all ranks of mpiexec."""
    ranks = find_ranks()
    speak_once(ranks)
    with together(ranks.communicator):
        return train(arguments, ranks)


def train(arguments, ranks):
    """Train, or resume training; rank 0 alone writes to the folder."""
    folder, given = arguments.out, vars(arguments)
    folder.lock()  # raises before any work if filelock is missing
    minutes = check_number(arguments.checkpoint_minutes, "--checkpoint-minutes", least=1e-6, below=10**9)
    settings = resumed_settings(folder, given) if arguments.resume else new_settings(folder, given)
    path = given.get("path", settings.path)
    load = partial(load_data, settings.data, path, settings.part, settings.seed)
    if arguments.download and ranks.is_first:
        load(download=True)
    ranks.first(None)  # the others wait for what it downloads
    data = load()
    if not arguments.resume and "batch_size" not in given:
        settings = replace(settings, batch_size=min(settings.batch_size, len(data.train)))
    job = Job.of(folder, settings, data, ranks)
    make_folder(folder.path, "the run")
    with folder.held() if ranks.is_first else nullcontext(), as_ctrl_c("SIGTERM", "SIGHUP"):
        if ranks.is_first:
            folder.clear()
        tell(job)
        if arguments.resume:
            done = folder.step()
            tell(f"resumed at step {done:,} of {settings.steps:,}")
            if done < settings.steps:
                job = job.rehearsed(done)
        else:
            if ranks.is_first:
                folder.check_new()  # another run may have been in it until now
            job = job.rehearsed()
            if ranks.is_first:
                folder.write_settings(job.settings)
        return job.train(timedelta(minutes=minutes))


@contextmanager
def as_ctrl_c(*names):
    """Treat signals as Ctrl-C, so that a run that a batch system or a shutdown ends writes a checkpoint.

    One that is ignored, as SIGHUP is by nohup, or that the caller handles, stays as it is.
    """
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]  # Windows has no SIGHUP
    if threading.current_thread() is not threading.main_thread():
        numbers = []  # only the main thread receives signals
    numbers = [number for number in numbers if signal.getsignal(number) is signal.SIG_DFL]
    try:
        for number in numbers:
            signal.signal(number, signal.default_int_handler)
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


def new_settings(folder, given):
    """The settings of a new run: those given, and defaults."""
    folder.check_new()
    entry = MODELS[given["model"]]
    sizes = {name: given.get(name, size.default) for name, size in entry.sizes.items()}
    settings = {"rate": entry.rate} | {f.name: given[f.name] for f in fields(Settings) if f.name in given}
    if "path" in given:  # the run may be resumed from another folder
        settings["path"] = str(Path(given["path"]).expanduser().absolute())
    return Settings(sizes=sizes, **settings)


def resumed_settings(folder, given):
    """The settings of a run that is resumed; raise `InputError` if one is given that differs."""
    if not folder.checkpoint.exists():
        raise InputError(
            f"expected a checkpoint to resume in {folder.path}, got none: start a run without --resume"
        )
    settings = folder.settings()
    before = vars(settings) | settings.sizes
    for name, value in before.items():
        if given.get(name, value) != value and name != "path":  # data may have moved
            raise InputError(
                f"expected {settings._name_of(name)} {value}, with which the run in {folder.path} was started, "
                f"got {given[name]}: start a new run with another --out"
            )
    return settings
