"""``npflow train``: a model of images, trained for minutes or days, in a folder that says how it goes."""

import argparse
import json
import sys
import warnings
from dataclasses import dataclass, fields, replace
from datetime import timedelta

import numpy as np

from npflow.autodiff import Layout
from npflow.cli.catalogue import MODELS, load_data
from npflow.cli.drawing import sample_figure, write_figure
from npflow.cli.folder import Folder, Settings, Trained, write_json
from npflow.cli.parsing import add_command, make_folder
from npflow.cli.score import Score, bits_per_dim
from npflow.datasets import IMAGES, ImageData
from npflow.errors import InputError
from npflow.model import Model
from npflow.training import Adam, WarmupCosine, fit, load
from npflow.validation import check_count, check_number

CLIP_NORM, AVERAGE = 50.0, 0.999
WARMUP = 500  # steps at most, of a long run; of a short one it is a twentieth
HELD_OUT = 500  # images of the test part that are looked at now and then
SAMPLES, TEMPERATURE = 49, 0.7
REHEARSAL = 11  # steps


def add_to(commands):
    """Add the command to those of ``npflow``."""
    parser = add_command(
        commands,
        "train",
        run,
        "train a model of images",
        "In DIR it keeps a checkpoint, samples, the course of the run, and bits/dim of held-out images.",
        "npflow train glow --data digits --steps 1000 --out runs/glow\n"
        "  npflow train glow --out runs/glow --resume",
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
        description=f"Train {entry.paper} on images.",
        epilog=f"example:\n  npflow train {name} --data digits --steps 1000 --out runs/{name}\n"
        f"  npflow train {name} --out runs/{name} --resume",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    add = parser.add_argument
    add("--out", type=Folder, metavar="DIR", required=True, help="the folder of the run")
    add("--data", choices=IMAGES, help="what to train on (default digits)")
    add("--path", default=None, help="where CIFAR-10 is, a folder or an archive")
    add("--download", action="store_true", default=False, help="fetch CIFAR-10 where it is not there")
    add(
        "--part",
        action="store_true",
        help="take batches of CIFAR-10 with fewer images than the official ones",
    )
    add("--conditional", action="store_true", help="condition the model by the class")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--steps", type=int, help="how many steps (default 1000)")
    length.add_argument("--minutes", type=float, help="how long: the steps that fit in, by a rehearsal")
    add("--batch-size", type=int, metavar="N", help="images a step (default 64)")
    add("--rate", type=float, help="the peak of the learning rate, after a warm-up (default 1e-3)")
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


def tell(line):
    """Print a line at once, also into a file that somebody watches."""
    print(line, flush=True)


def option(name):
    """The option that sets a hyper-parameter or setting."""
    return f"--{name.replace('_', '-')}"


def run(arguments):
    """Train, or go on training."""
    folder, given = arguments.out, vars(arguments)
    every = timedelta(minutes=check_number(arguments.checkpoint_minutes, "--checkpoint-minutes", above=0))
    settings = (settings_of_folder if arguments.resume else new_settings)(folder, given)
    data = load_data(settings.data, arguments.path, settings.part, settings.seed, arguments.download)
    job = Job.of(folder, settings, data)
    tell(f"{settings.model} on {data.name}: {len(data.train):,} images of {' x '.join(map(str, data.train.shape[1:]))}, "
          f"{data.levels} levels; {len(job.held_out):,} held out; {job.size:,} parameters")  # fmt: skip
    if arguments.resume:
        tell(f"resumed at step {load(folder.checkpoint).run['step']:,} of {settings.steps:,}")
    else:
        make_folder(folder.path, "the run")
        job = job.rehearsed()
        folder.write_settings(job.settings)
    return job.train(every)


def new_settings(folder, given):
    """The settings of a new run: what is given, and defaults."""
    if folder.checkpoint.exists():
        raise InputError(
            f"expected a folder without a checkpoint, got {folder.path} with one: --resume goes on from it, "
            "another --out begins another run"
        )
    sizes = {name: given.get(name, default) for name, (default, _) in MODELS[given["model"]].sizes.items()}
    names = {field.name for field in fields(Settings)}
    settings = Settings(sizes=sizes, **{name: value for name, value in given.items() if name in names})
    check_count(settings.seed, "--seed", least=0)
    check_count(settings.steps, "--steps")
    if settings.minutes is not None:
        check_number(settings.minutes, "--minutes", above=0)
    return settings


def settings_of_folder(folder, given):
    """The settings of a run that is resumed; what is given again has to be the same."""
    if not folder.checkpoint.exists():
        raise InputError(
            f"expected a checkpoint in {folder.path} to resume, got none: without --resume a run begins"
        )
    settings = folder.settings()
    started_with = vars(settings) | settings.sizes
    for name in given.keys() & started_with.keys():
        if given[name] != started_with[name]:
            raise InputError(
                f"expected the {name if name == 'model' else option(name)} that the run in {folder.path} was started with, "
                f"{started_with[name]}, got {given[name]}: leave it out, or begin another run with another --out"
            )
    folder.clear()
    return settings


@dataclass(frozen=True)
class Job:
    """All that a run needs: its folder, settings, data, model and the parameters that it starts from."""

    folder: Folder
    settings: Settings
    data: ImageData
    model: Model
    params: dict
    rng: np.random.Generator
    context: np.ndarray | None

    @classmethod
    def of(cls, folder, settings, data):
        """The model of the settings, with parameters started on the first images."""
        trained = Trained(settings, None, None)
        context = trained.context(data.train_labels)
        classes = 0 if context is None else context.shape[1]
        model = MODELS[settings.model].build(data, classes, **settings.sizes)
        rows = check_count(settings.batch_size, "--batch-size", most=len(data.train))
        rng = np.random.default_rng(settings.seed)
        first = None if context is None else context[:rows]
        params = model.init(rng, data.train[:rows], first)
        return cls(folder, settings, data, model, params, rng, context)

    @property
    def size(self):
        """The number of parameters."""
        return Layout(self.params).size

    @property
    def held_out(self):
        """The images that are looked at now and then."""
        return self.data.test[:HELD_OUT]

    def fit(self, x, context, **options):
        """`fit` as it is for all these models."""
        return fit(
            self.model,
            self.params,
            x,
            context,
            batch_size=self.settings.batch_size,
            clip_norm=CLIP_NORM,
            average=AVERAGE,
            **options,
        )

    def rehearsed(self):
        """Make some steps whose result is thrown away, and say what a step takes; fix the number of steps.

        A run that is given minutes has as many steps as fit in. They are fixed here, before the first one: the schedule
        depends on them, and so does every bit of a run that is resumed.
        """
        size, x, context = self.settings.batch_size, self.data.train, self.context
        rows = size + len(x) % size  # batches of both sizes that the run has, in turn
        context = None if context is None else context[:rows]
        rng = np.random.default_rng(0)  # of its own: the run draws what it would have drawn
        _, history = self.fit(
            x[:rows],
            context,
            rng=rng,
            steps=REHEARSAL,
            optimizer=Adam(self.settings.rate / REHEARSAL),
            progress=False,
        )
        clock = history.seconds
        seconds = float(np.median(np.subtract(clock[2::2], clock[1:-1:2])))
        settings = self.settings
        if settings.minutes is not None:
            settings = replace(settings, steps=max(1, int(60 * settings.minutes / seconds)))
        tell(f"a step takes {1000 * seconds:,.0f} ms and {history.peak_bytes / 1e6:,.0f} MB: "
              f"{settings.steps:,} steps in some {settings.steps * seconds / 60:.1f} minutes")  # fmt: skip
        return replace(self, settings=settings)

    def train(self, every):
        """Train to the end; return the exit status."""
        settings = self.settings
        schedule = WarmupCosine(settings.rate, settings.steps, min(WARMUP, settings.steps // 20))
        report = Report(self)
        _, history = self.fit(
            self.data.train,
            self.context,
            rng=self.rng,
            steps=settings.steps,
            optimizer=Adam(schedule),
            checkpoint=self.folder.checkpoint,
            checkpoint_every=every,
            on_checkpoint=report,
            progress=sys.stderr.isatty(),  # a log of days is no place for a bar
        )
        if history.interrupted:
            tell(f"interrupted after step {history.steps:,} of {settings.steps:,}: --resume goes on")
            return 130
        tell(f"{history.steps:,} steps in {history.seconds[-1] / 60:.1f} minutes: {report.score} on "
              f"{len(self.held_out):,} held-out images")  # fmt: skip
        tell(f"{self.folder.path}: samples.png, history.png, summary.json, checkpoint.npz, run.json")
        return 0


class Report:
    """What is looked at whenever a checkpoint was written: held-out images, samples, the course of the run."""

    def __init__(self, job):
        self.job, self.score, self.course = job, None, []
        summary = job.folder.summary
        if job.folder.checkpoint.exists() and summary.exists():
            self.course = json.loads(summary.read_text("utf-8"))["held_out"]

    def __call__(self, params, history):
        """Write it all down; where the disk is full, say so, and at the end raise."""
        ended = history.interrupted or history.steps == self.job.settings.steps
        try:
            self.look(params, history)
        except OSError as error:
            if ended:
                raise
            warnings.warn(
                f"expected to write the pictures of step {history.steps}, got: {error}", stacklevel=2
            )

    def look(self, params, history):
        """Score held-out images, and write the summary and the pictures."""
        from tqdm.auto import tqdm

        job = self.job
        trained = Trained(job.settings, job.model, params)
        labels = job.data.test_labels
        context = trained.context(None if labels is None else labels[:HELD_OUT])
        self.score = Score(bits_per_dim(job.model, params, job.held_out, context))
        entry = {"step": history.steps, "bits_per_dim": self.score.mean}
        self.course = [*(old for old in self.course if old["step"] < history.steps), entry]
        tqdm.write(f"step {history.steps:,}: {self.score} held out")
        summary = {
            "steps": history.steps,
            "of": job.settings.steps,
            "seconds": history.seconds[-1],
            "parameters": job.size,
            "peak_bytes": history.peak_bytes,
            "held_out_images": len(job.held_out),
            "bits_per_dim": self.score.mean,
            "standard_error": self.score.standard_error,
            "held_out": self.course,
        }
        write_json(job.folder.summary, summary)
        rng = np.random.default_rng(0)  # the same z each time: pictures that can be compared
        write_figure(job.folder.path / "samples.png", sample_figure(trained, rng, SAMPLES, TEMPERATURE))
        write_figure(job.folder.path / "history.png", self.course_figure(history))

    def course_figure(self, history):
        """A figure of the losses and of the held-out images' bits/dim."""
        from matplotlib.figure import Figure

        nats = self.job.model.dims * np.log(2)  # of one bit/dim
        steps = [entry["step"] for entry in self.course]
        losses = [nats * entry["bits_per_dim"] for entry in self.course]
        figure = Figure(layout="constrained")
        ax = replace(history, validation_step=steps, validation_loss=losses).plot(figure.subplots())
        bits = ax.secondary_yaxis("right", functions=(lambda loss: loss / nats, lambda bits: bits * nats))
        bits.set_ylabel("bits/dim")
        ax.set_title(f"{self.job.settings.model} on {self.job.data.name}")
        return figure
