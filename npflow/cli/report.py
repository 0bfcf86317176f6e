"""How a run of ``npflow train`` goes: a score, a summary and pictures, now and then."""

import warnings
from dataclasses import replace

import numpy as np

from npflow.cli.drawing import sample_figure, write_figure
from npflow.cli.folder import Trained, write_json
from npflow.cli.score import Score, bits_per_dim
from npflow.errors import ConvergenceError

SAMPLES, TEMPERATURE = 49, 0.7


class Report:
    """What is looked at whenever a checkpoint was written: held-out images, samples, the course of the run.

    Parameters
    ----------
    job : Job

    Attributes
    ----------
    score : Score
        Bits/dim of the held-out images, when they were looked at last.
    course : list of dict
        The step and bits/dim of each time until now, those of a run that this one goes on from included.
    """

    def __init__(self, job):
        self.job, self.score = job, None
        self.course = job.folder.course() if job.folder.checkpoint.exists() else []

    def __call__(self, params, history):
        """Write it all down; where the disk is full, say so, and at the end raise."""
        ended = history.interrupted or history.steps == self.job.settings.steps
        try:
            self.look(params, history)
        except OSError as error:
            sentence = f"expected to write the pictures of step {history.steps}, got: {error}; the checkpoint is written"
            if ended:
                raise OSError(sentence) from error
            warnings.warn(sentence, stacklevel=2)

    def look(self, params, history):
        """Score held-out images, and write the summary and the pictures."""
        from tqdm.auto import tqdm

        job = self.job
        trained = Trained(job.settings, job.model, params)
        labels = job.data.test_labels
        context = job.settings.context(None if labels is None else labels[: len(job.held_out)])
        self.score = Score(bits_per_dim(job.model, params, job.held_out, context))
        entry = {"step": history.steps, "bits_per_dim": self.score.mean}
        self.course = [*(old for old in self.course if old["step"] < history.steps), entry]
        if history.steps < job.settings.steps:  # at the end the job says it
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
        write_figure(job.folder.path / "history.png", self.course_figure(history))
        rng = np.random.default_rng(0)  # the same z each time: pictures that can be compared
        try:
            samples = sample_figure(trained, rng, SAMPLES, TEMPERATURE)
        except ConvergenceError as error:  # of a MintNet that is still far from what it is to be
            warnings.warn(f"expected samples of step {history.steps}, got none: {error}", stacklevel=2)
        else:
            write_figure(job.folder.path / "samples.png", samples)

    def better_before(self):
        """The entry of the course that was better than the last by more than its standard error; None if there is none."""
        best = min(self.course, key=lambda entry: entry["bits_per_dim"])
        return best if best["bits_per_dim"] < self.score.mean - self.score.standard_error else None

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
