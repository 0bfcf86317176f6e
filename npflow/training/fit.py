"""Maximum likelihood by mini-batches."""

from npflow.errors import InputError
from npflow.model import Model
from npflow.training.loop import train
from npflow.validation import check_rng


def fit(
    model,
    params,
    x,
    context=None,
    *,
    rng,
    steps=1000,
    batch_size=None,
    optimizer=None,
    clip_norm=None,
    average=None,
    validation=None,
    validation_context=None,
    checkpoint=None,
    checkpoint_every=100,
    on_checkpoint=None,
    device=None,
    record=True,
    threads=None,
    progress=True,
):
    """Minimize the mean negative log-likelihood of `x` by mini-batches; nats throughout.

    Each epoch goes through all rows once, in a new random order; its last mini-batch has the rows that
    are left. Ctrl-C ends the run after the step it is in and returns what has been learned so far.

    Parameters
    ----------
    model : Flow or Model
        A flow; of another model its own loss is minimized, such as the bound of a `Dequantized` flow.
    params : tree of ndarray
        Where to start, from ``model.init``; left as it is.
    x : ndarray, shape (n, *event)
        The data, in the dtype of the parameters; for a `Dequantized` flow or a `PixelCNN`, integers.
    context : ndarray, shape (n, context features), optional
        What a conditional flow takes beside each row.
    rng : numpy.random.Generator
        Draws the order of the rows; a checkpoint that is continued sets its state.
    steps : int
        How many steps the whole run has, those of a resumed checkpoint included.
    batch_size : int, optional
        Rows a step, at most n; by default 256, or all where there are fewer.
    optimizer : Adam, optional
        By default ``Adam(1e-3)``; ``Adam(WarmupCosine(...))`` for a schedule.
    clip_norm : float, optional
        Scale the whole gradient down to this Euclidean norm where it is longer.
    average : float, optional
        The decay of an exponential moving average of the parameters, such as 0.999. The average is then
        what is validated and returned. At step k the decay is at most (1 + k) / (10 + k), so that a short
        run's average does not remember its start.
    validation : ndarray, shape (m, *event), optional
        Held-out data, looked at after every epoch and at the end; the parameters that did best on it are
        returned.
    validation_context : ndarray, shape (m, context features), optional
        What a conditional flow takes beside each row of the held-out data.
    checkpoint : path, optional
        An ``.npz`` to write every `checkpoint_every` steps, at the end, and at Ctrl-C. Where the file is
        there already, its run is continued: to the same parameters, bit for bit, as if it had not been
        interrupted; `params` then says no more than which architecture it is. `npflow.load` reads it.
        Where it cannot be written (a full disk), the one before stays, a `RuntimeWarning` says so, and training
        goes on; at the end that is an error.
    checkpoint_every : int or datetime.timedelta
        How many steps, or how much time, from one checkpoint to the next.
    on_checkpoint : callable, optional
        `on_checkpoint(params, history)` is called after each checkpoint was written, the last one too: for pictures
        and scores of the run so far. `params` are those that `fit` would return now, a copy; the history is the
        run's own, to be read. What it does makes no difference to the run, unless it raises.
    device : {"cuda", "cpu"}, optional
        Where to train, by default where the parameters live; what is returned lives where they came from. On a
        GPU the data is sent once where it fits, otherwise batch by batch; and losses are read every 50 steps, so
        that a `NonFiniteError` comes up to 50 steps late, with what it would have had at once.
    record : bool
        Whether to record the gradient of each size of batch once and replay it as a program, several times as
        fast. False computes it anew at every step, through the layers themselves, for a debugger to step
        into; where no batch is large enough to be cut into slices, the results are the same to the bit.
    threads : int, optional
        How many threads work off the slices of a large batch, by default as many as there are cores; the
        result is the same to the bit for any number. Small batches are not cut, and without `record` none is.
    progress : bool
        Whether to show a progress bar with the memory that the run takes, the loss, and the learning rate.

    Returns
    -------
    params : tree of ndarray
        The best by validation, else the average, else the last.
    history : History

    Raises
    ------
    InputError
        Before any work, where an argument cannot be used, or the checkpoint is another run's; or at the first
        step, where a layer cannot be recorded (it branches on the values of arrays), or makes NumPy arrays on a
        device.
    NonFiniteError
        When a loss or a gradient is not finite: it names the first layer whose output was not finite, its
        `params` and `history` are what had been learned, and the last good checkpoint is left alone.
    MemoryError
        Before the first step, where a large model's batches would take more memory than is free.
    OSError
        Where the last checkpoint cannot be written.
    """
    check_rng(rng)
    if not isinstance(model, Model):
        raise InputError(f"expected a Flow to fit, got {model!r}")
    model.check(params, x, context=context)
    if validation is not None:
        model.check(params, validation, "validation", validation_context)
    elif validation_context is not None:
        raise InputError("expected validation beside validation_context, got none")
    return train(
        model,
        params,
        rows_of(x, context),
        rng=rng,
        steps=steps,
        batch_size=min(256, len(x)) if batch_size is None else batch_size,
        optimizer=optimizer,
        clip_norm=clip_norm,
        average=average,
        validation=None if validation is None else rows_of(validation, validation_context),
        checkpoint=checkpoint,
        checkpoint_every=checkpoint_every,
        on_checkpoint=on_checkpoint,
        device=device,
        record=record,
        threads=threads,
        progress=progress,
    )


def rows_of(x, context):
    """The arrays of a data set: its rows, and their context where there is one."""
    return (x,) if context is None else (x, context)
