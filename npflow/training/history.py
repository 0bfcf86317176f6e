"""What happened during a training run."""

from dataclasses import dataclass, field

import numpy as np

from npflow.errors import InputError


@dataclass
class History:
    """The course of a training run; one entry a step, or one a validation.

    Attributes
    ----------
    loss : list of float
        The mean loss of each step's mini-batch, nats, before the step: of a flow, its negative log-likelihood.
    learning_rate : list of float
        Each step's learning rate.
    gradient_norm : list of float
        The Euclidean norm of each step's gradient, before clipping.
    seconds : list of float
        Seconds spent training up to and including each step; a resumed run adds to what it resumed. A device is
        looked at now and then: the steps between two looks are said to have taken the same time.
    validation_step : list of int
        After which steps the validation data was looked at.
    validation_loss : list of float
        Its mean loss then, nats.
    interrupted : bool
        Whether Ctrl-C ended the run before its last step.
    peak_bytes : int, optional
        How much memory the steps take, known before the first one: their programs, and all vectors as long as the
        parameters, those that are copied for a checkpoint and the best by validation too. Neither the data is in it, nor
        what NumPy makes elsewhere (the results of `np.where`, say). None without programs.
    """

    loss: list = field(default_factory=list)
    learning_rate: list = field(default_factory=list)
    gradient_norm: list = field(default_factory=list)
    seconds: list = field(default_factory=list)
    validation_step: list = field(default_factory=list)
    validation_loss: list = field(default_factory=list)
    interrupted: bool = False
    peak_bytes: int | None = None

    SERIES = ("loss", "learning_rate", "gradient_norm", "seconds", "validation_step", "validation_loss")

    def cut(self):
        """Forget what is known of steps whose loss is not: they were not made."""
        for series in (self.learning_rate, self.gradient_norm, self.seconds):
            del series[len(self.loss) :]

    def share_out(self, first, now):
        """Let the steps from number `first` on, made between two looks at a device, have taken the same time."""
        start, count = (self.seconds[first - 1] if first else 0.0), len(self.seconds) - first
        self.seconds[first:] = np.linspace(start, now, count + 1)[1:].tolist()

    @property
    def steps(self):
        """How many steps were made."""
        return len(self.loss)

    def __repr__(self):
        last = f", the last loss {self.loss[-1]:.4g} nats" if self.loss else ""
        return f"History({self.steps:,} steps{last})"

    def plot(self, ax=None, **kwargs):
        """Draw the run: see `npflow.plots.history`."""
        from npflow import plots

        return plots.history(self, ax, **kwargs)

    def arrays(self):
        """Each series as an array, by name."""
        return {name: np.array(getattr(self, name), float) for name in self.SERIES}

    @classmethod
    def from_arrays(cls, arrays):
        """The history that `arrays` gave."""
        if any(name not in arrays for name in cls.SERIES):
            raise InputError(f"expected the series {', '.join(cls.SERIES)}, got {sorted(arrays)}")
        history = cls(**{name: arrays[name].tolist() for name in cls.SERIES})
        history.validation_step = [int(step) for step in history.validation_step]
        return history
