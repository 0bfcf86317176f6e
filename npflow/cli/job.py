"""A run of ``npflow train``: a rehearsal, and then `fit` to the end."""

import sys
from dataclasses import dataclass, replace
from datetime import timedelta

import numpy as np

from npflow.autodiff import Layout
from npflow.cli.catalogue import MODELS
from npflow.cli.folder import FILES, Folder, Settings
from npflow.cli.parsing import duration, tell
from npflow.cli.report import Report
from npflow.datasets import ImageData
from npflow.errors import NonFiniteError
from npflow.model import Model
from npflow.training import Adam, WarmupCosine, fit
from npflow.validation import check_count

CLIP_NORM, AVERAGE = 100.0, 0.999
WARMUP = 500  # steps at most, of a long run; of a short one it is a fifth
LOOKS, NEXT_LOOK = 5, 5.0  # so many at the least, but the next one no sooner than after so many seconds
REHEARSAL = 11  # steps
HELD_OUT = 500  # images of the test part that are looked at now and then


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
    seconds: float = 0.0  # that its steps are going to take, once there has been a rehearsal

    @classmethod
    def of(cls, folder, settings, data):
        """The model of the settings, with parameters started on the first images."""
        context = settings.context(data.train_labels)
        classes = 0 if context is None else context.shape[1]
        model = MODELS[settings.model].build(data, classes, **settings.sizes)
        rows = check_count(settings.batch_size, "--batch-size", most=len(data.train))
        rng = np.random.default_rng(settings.seed)
        first = None if context is None else context[:rows]
        params = model.init(rng, data.train[:rows], first)
        return cls(folder, settings, data, model, params, rng, context)

    def __str__(self):
        data = self.data
        return (
            f"{self.settings.model} on {data.name}: {len(data.train):,} images of "
            f"{' x '.join(map(str, data.train.shape[1:]))}, {data.levels} levels; {len(self.held_out):,} held out; "
            f"{self.size:,} parameters"
        )

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

    def rehearsed(self, done=0):
        """Make some steps whose result is thrown away, and say what a step takes; fix the number of steps.

        A run that is given minutes has as many steps as fit in. They are fixed here, before the first one: the schedule
        depends on them, and so does every bit of a run that is resumed. Of such a run `done` steps are made already.
        """
        settings = self.settings
        seconds, peak_bytes = self.rehearse()
        if settings.minutes is not None and not done:
            settings = replace(settings, steps=max(1, int(60 * settings.minutes / seconds)))
        left = settings.steps - done
        tell(f"a step takes {1000 * seconds:,.0f} ms and {peak_bytes / 1e6:,.0f} MB: "
              f"{left:,} steps in some {duration(left * seconds)}")  # fmt: skip
        return replace(self, settings=settings, seconds=left * seconds)

    def rehearse(self):
        """The seconds and the memory that a step takes."""
        size, x, context = self.settings.batch_size, self.data.train, self.context
        rows = size + len(x) % size  # batches of both sizes that the run has, in turn
        context = None if context is None else context[:rows]
        rng = np.random.default_rng(0)  # of its own: the run draws what it would have drawn
        _, history = self.fit(
            x[:rows],
            context,
            rng=rng,
            steps=REHEARSAL,
            optimizer=Adam(1e-6 * self.settings.rate),  # nothing is to be learned
            progress=False,
        )
        if history.interrupted:
            raise KeyboardInterrupt
        clock = history.seconds
        return float(np.median(np.subtract(clock[2::2], clock[1:-1:2]))), history.peak_bytes

    def train(self, every):
        """Train to the end, with a checkpoint and a look at it `every` so often, or more often if it is short; return the exit status."""
        settings = self.settings
        schedule = WarmupCosine(settings.rate, settings.steps, min(WARMUP, settings.steps // 5))
        every = min(every, timedelta(seconds=max(self.seconds / LOOKS, NEXT_LOOK)))
        report = Report(self)
        try:
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
        except NonFiniteError as error:
            hint = "with a lower --rate, in another --out, it may not come to that"
            raise NonFiniteError(f"{error}; {hint}", error.params, error.history) from error
        if history.interrupted:
            tell(f"interrupted after step {history.steps:,} of {settings.steps:,}: "
                 f"npflow train {settings.model} --out {self.folder.path} --resume goes on")  # fmt: skip
            return 130
        tell(f"{history.steps:,} steps in {duration(history.seconds[-1])}: {report.score} on "
              f"{len(self.held_out):,} held-out images")  # fmt: skip
        if (best := report.better_before()) is not None:
            tell(f"it was {best['bits_per_dim']:.3f} at step {best['step']:,}: fewer steps do better on images that it "
                 "has not seen")  # fmt: skip
        there = [name for name in FILES if (self.folder.path / name).exists()]
        tell(f"{self.folder.path}: {', '.join(there)}")
        return 0
