"""The record of a training run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from npflow.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass
class History:
    """The record of a training run: one entry per step, or one per validation.

    Attributes
    ----------
    loss : list of float
        The mean loss of each step's batch before the step, in nats; for a flow, the negative log-likelihood.
    learning_rate : list of float
        The learning rate of each step.
    gradient_norm : list of float
        The Euclidean norm of each step's gradient before clipping.
    seconds : list of float
        The training time up to and including each step, in seconds; a resumed run continues the count. A
        device is read only now and then, and the time between two readings is divided equally among their
        steps.
    validation_step : list of int
        The number of steps made before each validation.
    validation_loss : list of float
        The mean loss of the validation data, in nats.
    interrupted : bool
        Whether Ctrl-C ended the run before its last step.
    peak_bytes : int, optional
        The memory that the steps take, known before the first step: the programs and all vectors as long as
        the parameters, including copies for checkpoints and for the best parameters by validation. It
        excludes the data and what NumPy allocates on its own, such as the result of `np.where`. None without
        programs.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = rng.standard_normal((100, 2))
    >>> flow = npflow.models.maf(features=2, steps=1)
    >>> params, history = npflow.fit(flow, flow.init(rng, x), x, rng=rng, steps=5, progress=False)
    >>> history.steps, len(history.loss)
    (5, 5)
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
        """Drop the entries of steps whose loss was never read."""
        for series in (self.learning_rate, self.gradient_norm, self.seconds):
            del series[len(self.loss) :]

    def share_out(self, first, now):
        """Divide the time up to `now` equally among the steps from index `first` on."""
        start, count = (self.seconds[first - 1] if first else 0.0), len(self.seconds) - first
        self.seconds[first:] = np.linspace(start, now, count + 1)[1:].tolist()

    @property
    def steps(self):
        """The number of steps made."""
        return len(self.loss)

    def __repr__(self):
        last = f", the last loss {self.loss[-1]:.4g} nats" if self.loss else ""
        return f"History({self.steps:,} steps{last})"

    def plot(self, ax: Axes | None = None, **kwargs) -> Axes:
        """Plot the run.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; by default a new figure.
        **kwargs
            Those of `npflow.plots.history`.

        Returns
        -------
        matplotlib Axes
        """
        from npflow import plots

        return plots.history(self, ax, **kwargs)

    def arrays(self):
        """Return the series as a dict of float arrays."""
        return {name: np.array(getattr(self, name), float) for name in self.SERIES}

    @classmethod
    def from_arrays(cls, arrays):
        """Rebuild a history from the dict that `arrays` returned.

        Raises
        ------
        InputError
            If a series is missing.
        """
        if any(name not in arrays for name in cls.SERIES):
            raise InputError(f"expected the series {', '.join(cls.SERIES)}, got {sorted(arrays)}")
        history = cls(**{name: arrays[name].tolist() for name in cls.SERIES})
        history.validation_step = [int(step) for step in history.validation_step]
        return history
