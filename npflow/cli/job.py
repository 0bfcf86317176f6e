"""The work of ``npflow train``: a rehearsal, and then `fit`."""

import sys
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from npflow.autodiff import Layout
from npflow.autodiff.gpu.devices import HOST
from npflow.autodiff.program.ranks import Ranks
from npflow.cli.catalogue import MODELS
from npflow.cli.folder import FILES, Folder
from npflow.cli.parsing import tell
from npflow.cli.progress import Progress
from npflow.cli.settings import Settings, option
from npflow.datasets import ImageData
from npflow.errors import InputError, NonFiniteError
from npflow.model import Model
from npflow.rations import Rationed, TooLarge
from npflow.training import Adam, WarmupCosine, fit
from npflow.training.options import LONGEST
from npflow.validation import check_count

CLIP_NORM, AVERAGE = 100.0, 0.999
WARMUP = 500  # steps at most; a fifth of a short run
CHECKPOINTS, APART = 5, 5.0  # a short run has at least 5 checkpoints, but at least 5 seconds apart
REHEARSAL = 11  # steps
BYTES = 40  # of memory that a number of the parameters takes at least: float32, and ten vectors
HELD_OUT = 500  # images of the test part that are scored at each checkpoint


@dataclass(frozen=True)
class Job:
    """A run that is ready to begin: its folder, settings, data, model and first parameters."""

    folder: Folder
    settings: Settings
    data: ImageData
    model: Model
    params: dict
    rng: np.random.Generator
    context: np.ndarray | None
    ranks: Ranks
    seconds: float = 0.0  # how long the steps will take, once rehearsed

    @classmethod
    def of(cls, folder, settings, data, ranks=None):
        """The model of the settings, with parameters initialized on the first images."""
        context = settings.context(data.train_labels)
        classes = 0 if context is None else context.shape[1]
        model = MODELS[settings.model].build(data, classes, **settings.sizes)
        rows = check_count(settings.batch_size, "--batch-size", most=len(data.train))
        rng = Rationed(HOST.free_bytes() // BYTES, settings.seed)
        first = None if context is None else context[:rows]
        try:
            params = model.init(rng, data.train[:rows], first)
        except (TooLarge, MemoryError) as error:
            sizes = settings.sizes | {"batch_size": rows}
            got = ", ".join(f"{option(name)} {size}" for name, size in sizes.items())
            raise InputError(f"expected sizes for which there is enough memory, got {got}") from error
        rng = np.random.Generator(rng.bit_generator)  # without a ration
        return cls(folder, settings, data, model, params, rng, context, ranks or Ranks())

    def __str__(self):
        data = self.data
        return (
            f"{self.settings.model} on {data.name}: {len(data.train):,} images of "
            f"{' x '.join(map(str, data.train.shape[1:]))}, {data.levels} levels; "
            f"{len(self.held_out):,} held out; {self.size:,} parameters"
        )

    @property
    def size(self):
        """The number of parameters."""
        return Layout(self.params).size

    @property
    def held_out(self):
        """The images that are scored at each checkpoint."""
        return self.data.test[:HELD_OUT]

    def fit(self, x, context, **options):
        """`fit` with the options that the rehearsal and the run share."""
        return fit(
            self.model,
            self.params,
            x,
            context,
            batch_size=self.settings.batch_size,
            reversible=self.settings.reversible,
            clip_norm=CLIP_NORM,
            average=AVERAGE,
            slices=self.settings.slices,
            communicator=self.ranks.communicator,
            **options,
        )

    def rehearsed(self, done=0):
        """Measure what a step takes, and print it; fix the number of steps where `minutes` are given.

        The number is fixed before the first step: the schedule depends on it, and a resumed run must give the
        same bits. `done` is the number of steps that a resumed run has made.
        """
        settings = self.settings
        seconds, peak_bytes = self.ranks.first(self.rehearse())
        if settings.minutes is not None and not done:
            steps = int(60 * settings.minutes / seconds)
            settings = replace(settings, steps=min(max(1, steps), LONGEST))
        left = settings.steps - done
        tell(f"a step takes {1000 * seconds:,.0f} ms and {peak_bytes / 1e6:,.0f} MB: "
             f"{left:,} steps in about {duration(left * seconds)}")  # fmt: skip
        return replace(self, settings=settings, seconds=left * seconds)

    def rehearse(self):
        """The seconds and the bytes that a step takes, from a few steps whose result is thrown away."""
        size, x, context = self.settings.batch_size, self.data.train, self.context
        rows = size + len(x) % size  # batches of both sizes that the run has, in turn
        context = None if context is None else context[:rows]
        rng = np.random.default_rng(0)  # not the run's, which must draw the same as without a rehearsal
        _, history = self.fit(
            x[:rows],
            context,
            rng=rng,
            steps=REHEARSAL,
            optimizer=Adam(1e-6 * self.settings.rate),  # so small that nothing is learned
            progress=False,
        )
        if history.interrupted:
            raise KeyboardInterrupt
        clock = history.seconds
        return float(np.median(np.subtract(clock[2::2], clock[1:-1:2]))), history.peak_bytes

    def train(self, every):
        """Train to the end, with a checkpoint `every` length of time, or more often in a short run.

        Return the exit status.
        """
        settings, folder = self.settings, self.folder
        schedule = WarmupCosine(settings.rate, settings.steps, min(WARMUP, settings.steps // 5))
        every = min(every, timedelta(seconds=max(self.seconds / CHECKPOINTS, APART)))
        progress = Progress(self)  # called on rank 0 alone
        try:
            _, history = self.fit(
                self.data.train,
                self.context,
                rng=self.rng,
                steps=settings.steps,
                optimizer=Adam(schedule),
                checkpoint=folder.checkpoint,
                checkpoint_every=every,
                on_checkpoint=progress,
                progress=sys.stderr is not None and sys.stderr.isatty(),  # no bar in a log file
            )
        except NonFiniteError as error:
            hint = "try a lower --rate, with another --out"
            raise NonFiniteError(f"{error}; {hint}", error.params, error.history) from error
        if history.interrupted:
            tell(f"interrupted after step {history.steps:,} of {settings.steps:,}; to continue: "
                 f"npflow train {settings.model} --out {folder.path} --resume")  # fmt: skip
            return 130
        if not self.ranks.is_first:
            return 0
        tell(f"{history.steps:,} steps in {duration(history.seconds[-1])}: {progress.score} on "
             f"{len(self.held_out):,} held-out images")  # fmt: skip
        if (best := progress.better_before()) is not None:
            tell(f"it was {best['bits_per_dim']:.3f} at step {best['step']:,}: fewer steps generalize better")
        tell(f"{folder.path}: {', '.join(name for name in FILES if (folder.path / name).exists())}")
        return 0


def duration(seconds):
    """A length of time as text, in seconds, minutes or hours."""
    for unit, size in (("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
