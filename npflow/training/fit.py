"""The training loop."""

import signal
import threading
from contextlib import closing, contextmanager

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.batches import PlainGradient, ProgramGradient
from npflow.autodiff.devices import device_of, find_device
from npflow.autodiff.threads import available_cores, one_blas_thread
from npflow.description import describe
from npflow.errors import InputError
from npflow.flow import Flow
from npflow.training.adam import Adam
from npflow.training.checkpoint import check_path
from npflow.training.data import Data
from npflow.training.run import Run, fingerprint
from npflow.training.stepper import Stepper
from npflow.validation import check_count, check_number, check_rng, check_rows


def fit(
    flow,
    params,
    x,
    *,
    rng,
    steps=1000,
    batch_size=None,
    optimizer=None,
    clip_norm=None,
    average=None,
    validation=None,
    checkpoint=None,
    checkpoint_every=100,
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
    flow : Flow
    params : tree of ndarray
        Where to start, from ``flow.init``; left as it is.
    x : ndarray, shape (n, *event)
        The data, in the dtype of the parameters.
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
    checkpoint : path, optional
        An ``.npz`` to write every `checkpoint_every` steps, at the end, and at Ctrl-C. Where the file is
        there already, its run is continued: to the same parameters, bit for bit, as if it had not been
        interrupted; `params` then says no more than which architecture it is. `npflow.load` reads it.
    checkpoint_every : int
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
        Whether to show a progress bar with the loss and the learning rate.

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
    """
    check_rng(rng)
    if not isinstance(flow, Flow):
        raise InputError(f"expected a Flow to fit, got {flow!r}")
    flow.check(params, x)
    if validation is not None:
        check_rows(validation, flow.prior.event_shape, x.dtype, "validation")
    steps = check_count(steps, "steps")
    batch_size = min(256, len(x)) if batch_size is None else batch_size
    batch_size = check_count(batch_size, "batch_size", most=len(x), because=f", the {len(x)} rows of x")
    checkpoint_every = check_count(checkpoint_every, "checkpoint_every")
    clip_norm = None if clip_norm is None else check_number(clip_norm, "clip_norm", above=0)
    average = None if average is None else check_number(average, "average", least=0, below=1)
    threads = available_cores() if threads is None else check_count(threads, "threads")
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Adam):
        raise InputError(f"expected an optimizer such as Adam(1e-3), got {optimizer!r}")
    here = device_of(params if any(tree.items(params)) else x)  # a tree without arrays lives nowhere
    device = here if device is None else find_device(device)

    run = Run.start(flow, params, device, len(x), rng, optimizer, average, batch_size)
    if checkpoint is not None:
        checkpoint = check_path(checkpoint)
        settings = settings_of(flow, optimizer, batch_size, clip_norm, average, x, validation)
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint, settings, steps)
    else:
        run.draw_order()

    loss_of = (
        ProgramGradient(flow.nll, run.params, threads) if record else PlainGradient(flow.nll, run.params)
    )
    stepper = Stepper(run, Data(x, device), loss_of, clip_norm)
    validation = None if validation is None else Data(validation, device)
    with (
        ctrl_c() as interrupted,
        one_blas_thread(),
        closing(loss_of),
        progress_bar(steps, run.step, progress) as bar,
        np.errstate(all="ignore"),
    ):
        while run.step < steps and not interrupted.is_set():
            rate = stepper.step()
            if validation is not None and (run.epoch_is_over or run.step == steps):
                stepper.readings.read()
                run.validate(validation)
            run.history.seconds.append(stepper.elapsed())
            loss = f"{run.history.loss[-1]:.4f}" if run.history.loss else "not read yet"
            bar.set_postfix(loss=loss, rate=f"{rate:.1e}", refresh=False)
            bar.update()
            if checkpoint is not None and run.step % checkpoint_every == 0 and run.step < steps:
                stepper.readings.read()
                run.check_parameters(stepper.data)
                run.save(checkpoint, settings)
        stepper.readings.read()
        run.history.interrupted = run.step < steps
        run.check_parameters(stepper.data)
        if checkpoint is not None:
            run.save(checkpoint, settings)
    return run.result(), run.history


def settings_of(flow, optimizer, batch_size, clip_norm, average, x, validation):
    """What a run has to share with a checkpoint to go on from it, as plain data."""
    return {
        "flow": describe(flow),
        "optimizer": describe(optimizer),
        "batch_size": batch_size,
        "clip_norm": clip_norm,
        "average": average,
        "data": fingerprint(x),
        "validation": None if validation is None else fingerprint(validation),
    }


@contextmanager
def ctrl_c():
    """An event that Ctrl-C sets, so that no step is cut in two; a second Ctrl-C interrupts at once."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # only the main thread is sent Ctrl-C
        return

    def handle(number, frame):
        if interrupted.is_set():
            raise KeyboardInterrupt
        interrupted.set()

    before = signal.signal(signal.SIGINT, handle) or signal.SIG_DFL  # None: a handler that is not Python's
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def progress_bar(steps, done, show):
    """tqdm's bar: steps made, time left, steps a second, and what the loop adds."""
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, disable=not show, unit="step")
