"""How far a run of ``npflow train`` is: a score, a summary and pictures at each checkpoint."""

import warnings
from dataclasses import replace

import numpy as np

from npflow.cli.drawing import answer_figure, sample_figure, write_figure
from npflow.cli.folder import Trained, write_json
from npflow.cli.parsing import tell
from npflow.cli.score import Score, bits_per_dim
from npflow.errors import ConvergenceError

SAMPLES, TEMPERATURE = 49, 0.7
ROWS, ANSWERS = 6, 8  # of a model of images given a part of each


class Progress:
    """Called after each checkpoint of a `Job`: scores held-out images, and writes the summary and the pictures.

    `score` is the last score, `scores` the step and bits/dim of each checkpoint since the run was started.
    """

    def __init__(self, job):
        self.job, self.score = job, None
        self.scores = job.folder.scores() if job.folder.checkpoint.exists() else []

    def __call__(self, params, history):
        """Score and write. If the disk is full, warn; after the last step, raise."""
        if not history.steps:  # interrupted before the first
            return
        ended = history.interrupted or history.steps == self.job.settings.steps
        try:
            self.write(params, history)
        except OSError as error:
            what = f"the pictures of step {history.steps}"
            sentence = f"expected to write {what}, got: {error}; the checkpoint is written"
            if ended:
                raise OSError(sentence) from error
            warnings.warn(sentence, stacklevel=2)

    def write(self, params, history):
        """Score held-out images, and write the summary and the pictures."""
        job = self.job
        settings, folder, steps = job.settings, job.folder, history.steps
        labels = job.data.test_labels
        context = settings.context(None if labels is None else labels[: len(job.held_out)])
        self.score = Score(bits_per_dim(job.model, params, job.held_out, context))
        entry = {"step": steps, "bits_per_dim": self.score.mean}
        self.scores = [*(old for old in self.scores if old["step"] < steps), entry]
        if steps < settings.steps:  # the job prints the last one
            tell(f"step {steps:,}: {self.score} on held-out images")
        summary = {
            "steps": steps,
            "of": settings.steps,
            "seconds": history.seconds[-1],
            "parameters": job.size,
            "peak_bytes": history.peak_bytes,
            "held_out_images": len(job.held_out),
            "bits_per_dim": self.score.mean,
            "standard_error": self.score.standard_error,
            "held_out": self.scores,
        }
        write_json(folder.summary, summary)
        write_figure(folder.path / "history.png", self.history_figure(history))
        rng = np.random.default_rng(0)  # the same z each time, so that pictures can be compared
        try:
            trained = Trained(settings, job.model, params)
            if hasattr(job.model, "sample"):
                samples = sample_figure(trained, rng, SAMPLES, TEMPERATURE)
            else:
                samples = answer_figure(trained, rng, job.held_out[:ROWS], ANSWERS, TEMPERATURE)
        except ConvergenceError as error:  # a MintNet that has not learned much yet
            warnings.warn(f"expected samples of step {steps}, got none: {error}", stacklevel=2)
        else:
            write_figure(folder.path / "samples.png", samples)

    def better_before(self):
        """The best score, if it is better than the last by more than the standard error; otherwise None."""
        best = min(self.scores, key=lambda entry: entry["bits_per_dim"])
        error = self.score.standard_error or 0.0
        return best if best["bits_per_dim"] < self.score.mean - error else None

    def history_figure(self, history):
        """A figure of the losses and of the scores, in nats and in bits/dim."""
        from matplotlib import rc_context
        from matplotlib.figure import Figure

        from npflow.plots import STYLE

        nats = self.job.model.dims * np.log(2)  # of one bit/dim
        steps = [entry["step"] for entry in self.scores]
        losses = [nats * entry["bits_per_dim"] for entry in self.scores]
        with rc_context(STYLE):
            figure = Figure(layout="constrained")
            ax = replace(history, validation_step=steps, validation_loss=losses).plot(figure.subplots())
        bits = ax.secondary_yaxis("right", functions=(lambda loss: loss / nats, lambda bits: bits * nats))
        bits.set_ylabel("loss [bits/dim]")
        ax.set_title(f"{self.job.settings.model} on {self.job.data.name}")
        return figure
