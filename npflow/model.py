"""What `fit` trains: a loss with parameters."""

import autograd.numpy as np

from npflow.autodiff.program.chunks import map_rows
from npflow.description import Described, describe


class Model(Described):
    """A loss for each row of data, with parameters that make it small: a `Flow`, or whatever else is trained.

    A model is a frozen dataclass of hyper-parameters; its arrays live in `params`. The loss of a row may take,
    beside the row, a context and noise: a batch is the tuple of them, an array each, with as many rows.

    Attributes
    ----------
    noisy : bool
        Whether the loss takes noise, which `noise` draws afresh for every step.
    """

    noisy = False

    def check(self, params, x=None, name="x", context=None):
        """Raise `InputError` unless `params` are this model's, and `x`, called `name`, and `context` rows for them."""
        raise NotImplementedError

    def row_losses(self, params, *batch):
        """The loss of each row of a batch, in nats, shape (n,)."""
        raise NotImplementedError

    def losses(self, params, *batch):
        """The loss of each row of any number of rows, in chunks that stay in the cache."""
        return map_rows(self.row_losses, params, *batch)

    def loss_in_words(self, loss):
        """A mean loss, in nats, as the progress bar shows it."""
        return f"{loss:.4f}"

    def noise(self, rng, rows, dtype):
        """The noise of a batch, a tuple of arrays with `rows` rows."""
        return ()

    def loss(self, params, *batch):
        """The mean loss of a batch, in nats. It checks nothing, so that it is nothing but its arithmetic."""
        return np.sum(self.row_losses(params, *batch)) / len(batch[0])

    def explain(self, params, *batch):
        """What is the first to be not finite where a loss is not, as the end of a sentence."""
        return "the parameters are finite, the loss is not"

    def host_bound(self, error, params, *batch):
        """The error that names what cannot compute on a device, where an error came; None if it is another."""
        return None

    def settings(self):
        """What a run has to share with a checkpoint to go on from it, as plain data, by name."""
        return {"flow": describe(self)}

    @property
    def learned(self):
        """Whose the parameters are, which a checkpoint therefore holds: this model, or a part of it."""
        return self
