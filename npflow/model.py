"""What `fit` trains: a loss with parameters."""

import math

import autograd.numpy as np
from autograd.tracer import getval

from npflow.autodiff.primitives import where
from npflow.description import Described, describe
from npflow.errors import InputError, in_short


class Model(Described):
    """A loss for each row of data, and parameters that make it small: a `Flow`, or anything else that `fit` trains.

    A model is a frozen dataclass of hyper-parameters; its arrays live in `params`. A batch is a tuple of arrays with
    one row each: the data, a context where the model is conditional, and noise where its loss takes some.

    Attributes
    ----------
    noisy : bool
        Whether the loss takes noise, which `noise` draws for every step. The log-probability is then an estimate:
        ``log_prob(params, x, context, rng=rng, draws=1)``. It is ``log_prob(params, x, context)`` otherwise.
    invertible : bool
        Whether x and z are one to one, so that `encode` and `decode` take one to the other; z is distributed as
        `prior`.
    takes_rows : bool
        Whether it is trained on rows x; a model without them learns from its noise alone.
    domain : tuple of float
        The open interval that each component of x must lie in. Outside it the probability is 0.
    """

    noisy = False
    invertible = False
    takes_rows = True
    domain = (-math.inf, math.inf)

    def check(self, params):
        """Raise unless `params` are those of this model.

        Parameters
        ----------
        params : tree of ndarray

        Returns
        -------
        npflow.autodiff.Layout
            How their numbers lie in one vector.

        Raises
        ------
        InputError
            At the first place where the tree, a shape or a dtype is another model's.
        """
        raise NotImplementedError

    def check_batch(self, x, context=None, dtype=None, name="x"):
        """Convert a batch to arrays for this model.

        Parameters
        ----------
        x : array_like, shape (n, *event)
        context : array_like, shape (n, context features), optional
        dtype : dtype, optional
            That of the parameters; by default that of `x`.
        name : str
            What the caller calls `x`.

        Returns
        -------
        x : ndarray, shape (n, *event)
        context : ndarray, shape (n, context features), or None

        Raises
        ------
        InputError
            Unless they are rows that the model takes.
        """
        raise NotImplementedError

    def checked(self, params, x, context=None, name="x"):
        """The layout of `params`, and `x` and `context` as arrays for them."""
        layout = self.check(params)
        return layout, *self.check_batch(x, context, layout.dtype if layout.size else None, name)

    def losses(self, params, *batch):
        """Compute the loss of each row of a batch. It is pure arithmetic and checks nothing.

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            The data, a context where the model is conditional, and noise where it takes some.

        Returns
        -------
        ndarray, shape (n,)
            In nats.
        """
        raise NotImplementedError

    def loss(self, params, *batch):
        """Compute the mean loss of a batch: what `fit` minimizes and a program records.

        Parameters
        ----------
        params : tree of ndarray
        *batch : ndarray
            As `losses` takes it.

        Returns
        -------
        float
            In nats.
        """
        return np.sum(self.losses(params, *batch)) / len(batch[0])

    def noise(self, rng, rows, dtype):
        """Draw the noise of a batch.

        Parameters
        ----------
        rng : numpy.random.Generator
        rows : int
        dtype : dtype

        Returns
        -------
        tuple of ndarray
            Each with `rows` rows; empty where the loss takes no noise.
        """
        return ()

    def scoring_noise(self, rng, rows, dtype):
        """Draw the noise of `log_prob`: that of `noise`, unless a better estimate is worth more time."""
        return self.noise(rng, rows, dtype)

    def visits(self, params, *batch):
        """Go through the loss of a batch step by step, to find the step that goes wrong; see `Visit`."""
        return iter(())

    def reversible(self):
        """Return the same model with layers that keep nothing for the gradient; see `npflow.layers.Reversible`.

        Raises
        ------
        InputError
            If its loss does not come from invertible layers.
        """
        raise InputError(
            f"expected a model of invertible layers for reversible training, got {in_short(self)}"
        )

    def format_loss(self, loss):
        """A mean loss in nats as the progress bar shows it."""
        return f"{loss:.4f}"

    def settings(self):
        """What a run must share with a checkpoint in order to resume it: plain data by name."""
        return {"flow": describe(self)}

    @property
    def learned(self):
        """The model that a checkpoint stores: this one, or the part of it that has the parameters."""
        return self


def overflow_ignored():
    """A context without warnings of rows so far out that the arithmetic overflows; see `without_nan`."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def without_nan(log_prob, layout, params):
    """Log-probabilities with -inf for nan: a row so far out that the arithmetic overflows gives nan.

    Where a parameter is not finite, nan stays.
    """
    lost = np.isnan(log_prob)
    if getval(lost).any() and np.isfinite(layout.pack(params)).all():
        return where(lost, -math.inf, log_prob)
    return log_prob
