"""The steps of a training run."""

import time

import numpy as np

from npflow.autodiff import value_and_grad
from npflow.autodiff.program.slices import PlainGradient
from npflow.errors import InputError
from npflow.training.clipping import clip, euclidean_norm
from npflow.training.readings import Readings


class Stepper:
    """Makes the steps of a run: the loss and its gradient on the next mini-batch, clipping, the update.

    Parameters
    ----------
    run : Run
        Which is moved on.
    data : Batches
    loss_of : ProgramGradient or PlainGradient
    clip_norm : float, optional
        The longest gradient; longer ones are scaled down.

    Attributes
    ----------
    readings : Readings
        The losses and norms; on a device some of them have still to be read.
    """

    def __init__(self, run, data, loss_of, clip_norm=None):
        self.run, self.data, self.loss_of, self.clip_norm = run, data, loss_of, clip_norm
        self.gradient = np.empty_like(run.vector)
        self.longest = run.longest_gradient if clip_norm is None else np.inf
        self.readings = Readings(run, self.check, self.longest, self.elapsed)
        self.start = time.perf_counter() - (run.history.seconds[-1] if run.history.seconds else 0.0)

    def prepare(self, steps, validated=False):
        """Record the programs of all steps until number `steps`; return how much memory these take, in bytes.

        That is the programs' workspaces, the run's vectors and the gradient, the two copies of the parameters that a
        checkpoint takes, and where the run is `validated` the best ones. None without programs: what the tape takes
        is not known before.
        """
        if isinstance(self.loss_of, PlainGradient):
            return None
        programs = [
            self.explained(self.loss_of.nbytes, self.data.take(batch))
            for batch in self.run.batches_to_come(steps)
        ]
        best = validated and self.run.best is None  # else it is one of the run's vectors already
        return sum(programs) + self.run.nbytes + (3 + best) * self.gradient.nbytes

    def elapsed(self):
        """Seconds since the run began, those of a run that it goes on from included."""
        return time.perf_counter() - self.start

    def step(self):
        """Make a step; return its learning rate."""
        batch = self.run.next_batch()
        loss = self.loss(self.data.take(batch))
        norm = euclidean_norm(self.gradient)
        self.readings.note(loss, norm, batch)
        if self.clip_norm is not None:
            clip(self.gradient, norm, self.clip_norm)
        rate = self.run.update(self.gradient, self.readings.sound)
        self.run.history.learning_rate.append(float(rate))
        return rate

    def check(self, batch, loss, norm):
        """Raise unless a step can be made with a loss and the norm of its gradient."""
        if np.isfinite(loss) and np.isfinite(norm) and norm <= self.longest:
            return
        arrays = self.data.take(batch)
        self.loss_of(arrays, self.gradient)  # on a device it was another step's in the meantime
        raise self.run.failure_of_step(arrays, loss, self.gradient, norm)

    def loss(self, arrays):
        """The loss of a batch, its gradient in `gradient`."""
        return self.explained(self.loss_of, arrays, self.gradient)

    def explained(self, compute, arrays, *out):
        """What `compute(arrays, *out)` gives of a batch; where it cannot be had, the reason."""
        try:
            return compute(arrays, *out)
        except InputError as error:
            if isinstance(self.loss_of, PlainGradient):
                raise
            raise self.reason(error, arrays) from error
        except Exception as error:
            named = self.run.model.host_bound(error, self.run.params, *arrays)
            if named is None:
                raise
            raise named from error

    def reason(self, error, arrays):
        """What to say where no program can be made."""
        model, params = self.run.model, self.run.params
        try:
            model.loss(params, *arrays)
        except Exception as own:  # the model's, with or without a program
            return model.host_bound(own, params, *arrays) or own
        try:
            value_and_grad(model.loss)(params, *arrays)
        except Exception:
            return error  # without a program it would not run either
        return InputError(f"{error.sentence}; fit(..., record=False) runs it without a program", error.place)
