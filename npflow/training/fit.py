"""Training by mini-batches: the loop and its step."""

import warnings
from contextlib import closing

import numpy as np
from numpy.random import Generator
from numpy.typing import ArrayLike

from npflow.autodiff import tree, value_and_grad
from npflow.autodiff.gpu.devices import HOST, device_of, fetch
from npflow.autodiff.program.slices import ProgramGradient
from npflow.autodiff.program.threads import one_blas_thread
from npflow.description import describe, fingerprint
from npflow.errors import InputError, in_short
from npflow.files import prepare_to_write
from npflow.model import Model
from npflow.training.clipping import clip, euclidean_norm
from npflow.training.explanations import explaining_steps
from npflow.training.history import History
from npflow.training.on_device import DeviceRun
from npflow.training.options import Options, takes_options
from npflow.training.run import Run
from npflow.training.saver import Saver, callers_level
from npflow.training.terminal import ctrl_c, progress_bar
from npflow.training.together import check_alike, together, versions
from npflow.typing import Params
from npflow.validation import check_count, check_domain, check_rng


@takes_options
def fit(
    model: Model,
    params: Params,
    x: ArrayLike | None,
    context: ArrayLike | None = None,
    *,
    rng: Generator,
    validation: ArrayLike | None = None,
    validation_context: ArrayLike | None = None,
    **options,
) -> tuple[Params, History]:
    """Minimize the mean negative log-likelihood of `x` by mini-batches.

    Each epoch goes through all rows once, in a new random order. The last mini-batch of an epoch may be smaller. Ctrl-C
    ends the run after the current step and returns what has been learned so far; a second Ctrl-C raises
    `KeyboardInterrupt` at once. Losses are in nats.

    Parameters
    ----------
    model : Flow or Model
        A flow, or another model with a loss of its own, such as the bound of a `Dequantized` flow.
    params : tree of ndarray
        Where to start, from ``model.init``; not changed.
    x : array_like, shape (n, *event)
        The data, in the dtype of the parameters, to which lists and integers are converted; integers for a
        `Dequantized` flow or a `PixelCNN`.
    context : array_like, shape (n, context features), optional
        For a conditional model, a context for each row; or integers of shape (n,), the class of each.
    rng : numpy.random.Generator
        Draws the order of the rows. Resuming a checkpoint sets its state.
    validation : array_like, shape (m, *event), optional
        Held-out data. It is evaluated after each epoch and at the end, and the parameters that did best on it are
        returned.
    validation_context : array_like, shape (m, context features), optional
        For a conditional model, a context for each row of the held-out data.
    steps : int
        The number of steps of the whole run, including those of a checkpoint that is resumed.
    batch_size : int, optional
        Rows of a mini-batch, at most n. The default is min(256, n).
    optimizer : Adam, optional
        By default ``Adam(1e-3)``. ``Adam(WarmupCosine(...))`` has a schedule.
    clip_norm : float, optional
        The largest Euclidean norm of the gradient. A longer gradient is scaled down.
    average : float, optional
        The decay of an exponential moving average of the parameters, such as 0.999. The average is then validated and
        returned. The decay at step k is at most (1 + k) / (10 + k), so that the average does not keep the initial
        parameters.
    patience : int, optional
        Stop when the validation loss has not improved for this many validations, such as epochs.
    checkpoint : path, optional
        An ``.npz`` that is written every `checkpoint_every` steps, at the end, and at Ctrl-C; `npflow.load` reads it.
        If the file exists, its run is resumed. The result is that of an uninterrupted run, to the bit; only the
        structure of `params` is then used. If writing fails, for example on a full disk, the previous file is kept and
        a `RuntimeWarning` is issued. If the last write fails, `CheckpointError` is raised. Where the path is a symbolic
        link, the file that it points at is written. A file that is replaced keeps its permissions. A relative path starts
        from the working directory at the call.
    checkpoint_every : int or datetime.timedelta
        The number of steps, or the time, between checkpoints.
    on_checkpoint : callable, optional
        ``on_checkpoint(params, history)`` is called after each checkpoint, including the last, for instance to draw
        pictures. `params` is a copy of what `fit` would return now. Do not modify `history`: it is the run's own.
    device : {"cuda", "cpu"}, optional
        Where to train; by default where the parameters live. The result lives where they came from. On a GPU the data
        is sent once if it fits, otherwise batch by batch, and losses are read every 50 steps. A `NonFiniteError` is
        raised up to 50 steps late, with the same contents.
    record : bool
        Whether to record the gradient once for each size of batch and replay it as a program, which is several times
        as fast. With False each step runs the layers themselves, so that a debugger can step into them. The results
        are the same to the bit where no batch is large enough to be cut into slices.
    reversible : bool
        Whether to keep nothing of the layers for the gradient: the backward pass computes the input of each layer from
        its output. The memory of a step then does not grow with the number of layers, and a step takes about a third
        longer. See `npflow.layers.Reversible`, which says how much the gradient differs by rounding.
    threads : int, optional
        How many threads work on the slices of a large batch; by default as many as there are cores. The result does
        not depend on it. Small batches are not cut, and with ``record=False`` none is. On several ranks, the default is
        a share of the cores of a rank's machine.
    slices : int, optional
        How many slices a batch is cut into. By default that depends on the shapes of the batch and the parameters alone,
        and on a GPU it is one. The last bits of a result depend on it.
    communicator : mpi4py.MPI.Intracomm, optional
        Ranks of MPI that share the work, as `MPI.COMM_WORLD`: each makes this call with the same arguments, and works on
        some slices of each batch. The result, which each gets, is that of one process, to the bit. Rank 0 alone writes
        checkpoints, calls `on_checkpoint` and shows progress. Ctrl-C on one rank ends the run on all.
    progress : bool
        Whether to show a progress bar with the memory of the run, the loss and the learning rate.

    Returns
    -------
    params : tree of ndarray
        The best by validation, else the average, else the last.
    history : History
        The loss, learning rate, gradient norm and time of each step, and the validation losses.

    Raises
    ------
    InputError
        Before any work, if an argument cannot be used, the checkpoint belongs to another run, or a rank differs from
        rank 0 in its data, model, options or libraries. At the first step, if a layer cannot be recorded because it
        branches on the values of arrays, or makes NumPy arrays on a GPU.
    NonFiniteError
        If a loss or a gradient is not finite. It names the first layer whose output is not finite, and has what had
        been learned in `params` and `history`. The last good checkpoint stays.
    MemoryError
        Before the first step, if the batches of a large model would take more memory than is free.
    CheckpointError
        If the last checkpoint cannot be written. It is an `OSError`, and has what has been learned in `params` and
        `history`.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> x = npflow.datasets.moons(500, rng=rng)
    >>> params, history = npflow.fit(flow, flow.init(rng, x), x, rng=rng, steps=10, progress=False)
    >>> len(history.loss)
    10
    """
    with together(options.get("communicator")) as ranks:
        check_rng(rng)
        options = Options.of(options, fit)
        if not isinstance(model, Model):
            raise InputError(f"expected a Flow to fit, got {in_short(model)}")
        _, x, context = model.checked(params, x, context)
        if model.takes_rows:
            check_domain(x, model.domain)
        arrays = tuple(array for array in (x, context) if array is not None)
        if validation is not None:
            _, *validation = model.checked(params, validation, validation_context, "validation")
            check_domain(validation[0], model.domain, "validation")
        elif validation_context is not None:
            raise InputError("expected validation beside validation_context, got none")
        if options.patience is not None and validation is None:
            raise InputError("expected validation beside patience, got none")
        held_out = tuple(array for array in validation or () if array is not None)
        if options.checkpoint is not None and ranks.is_first:
            prepare_to_write(options.checkpoint, "checkpoint")
        differentiated = model.reversible() if options.reversible else model
        run = start(model, params, arrays, options, rng)
        del params  # the run has a copy: one that the caller does not keep takes no memory any longer
        settings, saver = None, None
        if options.checkpoint is not None or ranks.size > 1:
            settings = settings_of(model, options, run.batch_size, arrays, held_out)
        if options.checkpoint is not None and options.checkpoint.exists():
            run.resume(options.checkpoint, settings, options.steps)
        else:
            run.draw_order()
        if options.checkpoint is not None:  # after `resume`, so that it knows which step was saved last
            every = options.checkpoint_every
            saver = Saver(run, options.checkpoint, settings, every, options.on_checkpoint, ranks)
        if ranks.size > 1:
            check_alike(ranks, settings | facts_of(run))

    gradient = np.empty_like(run.vector)
    value_and_gradient = value_and_grad(differentiated.loss)
    threads = options.threads or ranks.threads()
    programs = ProgramGradient(differentiated.loss, run.params, threads, options.slices, ranks)
    held_out = run.batches_of(held_out) if held_out else None
    with (
        together(options.communicator),
        ctrl_c() as interrupted,
        one_blas_thread(),
        closing(programs),
        progress_bar(options.steps, run.step, options.progress and ranks.is_first) as bar,
        np.errstate(all="ignore"),
    ):
        run.start_clock()
        if options.record:
            run.history.peak_bytes = prepare(run, programs, options.steps, held_out is not None)
            bar.set_description(f"memory {run.history.peak_bytes / 1e6:,.0f} MB")
        while run.step < options.steps and not run.has_stalled and not ranks.any(interrupted.is_set()):
            batch = run.next_batch()
            arrays = run.take(batch, programs.rows_of(batch.size))
            with explaining_steps(differentiated, run.params, arrays):
                if options.record:
                    loss = programs(arrays, out=gradient)
                else:
                    loss, leaves = value_and_gradient(run.params, *arrays)
                    run.layout.pack(leaves, out=gradient)
            norm = euclidean_norm(gradient)
            if saver is not None and saver.is_due():
                run.read()  # the parameters are good: their loss and gradient, those of the next step, are finite
                run.check_step(batch, float(fetch(loss)), float(fetch(norm)), gradient)
                saver.save()
            run.note(batch, loss, norm, gradient)
            if options.clip_norm is not None:
                clip(gradient, norm, options.clip_norm)
            rate = run.update(batch, gradient)
            run.history.learning_rate.append(float(rate))

            if held_out is not None and (run.epoch_is_over or run.step == options.steps):
                run.read()
                run.validate(held_out)
            run.history.seconds.append(run.elapsed())
            loss = model.format_loss(run.history.loss[-1]) if run.history.loss else "not read yet"
            bar.set_postfix(loss=loss, rate=f"{rate:.1e}", refresh=False)
            bar.update()
        run.read()
        run.history.interrupted = ranks.any(interrupted.is_set()) and run.step < options.steps
        run.check_parameters()
        if saver is not None:
            saver.save(last=True)
    return run.result(), run.history  # views of the run's own vector, as a copy would take as much memory


def start(model, params, arrays, options, rng):
    """A run that has not made a step."""
    rows = len(arrays[0]) if arrays else None
    batch_size = 256 if options.batch_size is None else options.batch_size
    if rows is not None and options.batch_size is None:
        batch_size = min(batch_size, rows)
    check_count(batch_size, "batch_size", most=rows, because=f", the {rows} rows of data")
    here = device_of(params if any(tree.items(params)) else arrays)  # a tree without arrays has no device
    device = options.device or here
    return (Run if device is HOST else DeviceRun).start(
        model, params, arrays, options, rng, device, batch_size
    )


def prepare(run, programs, steps, validated):
    """Record the programs of all steps until number `steps`; return the memory that the steps take, in bytes.

    That is the workspaces of the programs, the vectors of the run and the gradient, two copies of the parameters for a
    checkpoint, and where the run is `validated` the best ones.
    """
    sizes, counts = [], []
    for batch in run.sizes_to_come(steps):
        arrays = run.take(batch)
        with explaining_steps(run.model, run.params, arrays):
            sizes.append(programs.nbytes(arrays))
            counts.append(programs.plan_of(arrays).count)
    ranks = programs.ranks
    if ranks.is_first and max(counts, default=ranks.size) < ranks.size:
        warnings.warn(
            f"expected at least {ranks.size} slices for {ranks.size} ranks, got {max(counts)} of batches of "
            f"{run.batch_size} rows: a rank without one waits; take larger batches, or slices={ranks.size}",
            RuntimeWarning,
            stacklevel=callers_level(),
        )
    best = validated and run.best is None  # otherwise it is one of the run's vectors already
    return sum(sizes) + run.nbytes + (3 + best) * run.vector.nbytes


def settings_of(model, options, batch_size, arrays, held_out):
    """What a run must share with a checkpoint in order to resume it, as plain data."""
    data, held_out = list(map(fingerprint, arrays)), list(map(fingerprint, held_out))
    settings = {
        **model.settings(),
        "data": data[0] if data else None,  # a model may be trained on noise alone
        "validation": held_out[0] if held_out else None,
        "optimizer": describe(options.optimizer),
        "batch_size": batch_size,
        "clip_norm": options.clip_norm,
        "average": options.average,
        "slices": options.slices,
        "reversible": options.reversible or None,  # as in checkpoints from before there was a choice
    }
    if len(data) > 1:
        settings |= {"context": data[1:], "validation_context": held_out[1:]}
    return settings


def facts_of(run):
    """What ranks must share beside the settings of a run, as plain data."""
    options = run.options
    return {
        "libraries": versions(),
        "parameters": fingerprint(run.vector),
        "order of the rows": fingerprint(run.order),
        "step": run.step,
        "steps": options.steps,
        "patience": options.patience,
        "checkpoint": (options.checkpoint is not None) * str(options.checkpoint_every),
        "noise": run.noise_seed,
    }
