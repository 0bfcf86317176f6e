"""The training loop."""

import signal
import threading
from contextlib import closing, contextmanager

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import device_of, find_device
from npflow.autodiff.program.slices import PlainGradient, ProgramGradient
from npflow.autodiff.program.threads import available_cores, one_blas_thread
from npflow.description import describe
from npflow.errors import InputError
from npflow.training.adam import Adam
from npflow.training.checkpoint import check_path
from npflow.training.data import Batches
from npflow.training.run import Run, fingerprint
from npflow.training.saver import Saver, check_interval
from npflow.training.stepper import Stepper
from npflow.validation import check_count, check_number


def train(
    model,
    params,
    arrays,
    *,
    rng,
    steps,
    batch_size,
    optimizer=None,
    clip_norm=None,
    average=None,
    validation=None,
    checkpoint=None,
    checkpoint_every=100,
    on_checkpoint=None,
    device=None,
    record=True,
    threads=None,
    progress=True,
):
    """Minimize a model's mean loss; `fit`, which says what the arguments are, and `distill` call it.

    Parameters
    ----------
    model : Model
    params : tree of ndarray
    arrays : tuple of ndarray
        The data: rows, context; none where the model's noise is all that its loss takes.
    validation : tuple of ndarray, optional
        Held-out data, as many arrays.

    Returns
    -------
    params : tree of ndarray
    history : History
    """
    steps = check_count(steps, "steps")
    rows = len(arrays[0]) if arrays else None
    batch_size = check_count(batch_size, "batch_size", most=rows, because=f", the {rows} rows of data")
    checkpoint_every = check_interval(checkpoint_every)
    clip_norm = None if clip_norm is None else check_number(clip_norm, "clip_norm", above=0)
    average = None if average is None else check_number(average, "average", least=0, below=1)
    threads = available_cores() if threads is None else check_count(threads, "threads")
    optimizer = Adam() if optimizer is None else optimizer
    if not isinstance(optimizer, Adam):
        raise InputError(f"expected an optimizer such as Adam(1e-3), got {optimizer!r}")
    here = device_of(params if any(tree.items(params)) else arrays)  # a tree without arrays lives nowhere
    device = here if device is None else find_device(device)

    # Where there is no data, each step is an epoch of one batch.
    run = Run.start(model, params, device, rows or batch_size, rng, optimizer, average, batch_size)
    if checkpoint is not None:
        checkpoint = check_path(checkpoint)
        settings = settings_of(model, optimizer, batch_size, clip_norm, average, arrays, validation)
        saver = Saver(run, checkpoint, settings, checkpoint_every, on_checkpoint)
    elif on_checkpoint is not None:
        raise InputError("expected a checkpoint beside on_checkpoint, got none")
    if checkpoint is not None and checkpoint.exists():
        run.resume(checkpoint, settings, steps)
    else:
        run.draw_order()

    loss_of = (
        ProgramGradient(model.loss, run.params, threads) if record else PlainGradient(model.loss, run.params)
    )
    stepper = Stepper(run, Batches(run, arrays), loss_of, clip_norm)
    validation = None if validation is None else Batches(run, validation)
    with (
        ctrl_c() as interrupted,
        one_blas_thread(),
        closing(loss_of),
        progress_bar(steps, run.step, progress) as bar,
        np.errstate(all="ignore"),
    ):
        run.history.peak_bytes = stepper.prepare(steps, validated=validation is not None)
        if run.history.peak_bytes is not None:
            bar.set_description(f"{run.history.peak_bytes / 1e6:,.0f} MB")
        while run.step < steps and not interrupted.is_set():
            rate = stepper.step()
            if validation is not None and (run.epoch_is_over or run.step == steps):
                stepper.readings.read()
                run.validate(validation)
            run.history.seconds.append(stepper.elapsed())
            loss = model.loss_in_words(run.history.loss[-1]) if run.history.loss else "not read yet"
            bar.set_postfix(loss=loss, rate=f"{rate:.1e}", refresh=False)
            bar.update()
            if checkpoint is not None and run.step < steps and saver.is_due():
                stepper.readings.read()
                run.check_parameters(stepper.data)
                saver.try_to_save()
        stepper.readings.read()
        run.history.interrupted = run.step < steps
        run.check_parameters(stepper.data)
        if checkpoint is not None:
            saver.save()
    return run.result(), run.history


def settings_of(model, optimizer, batch_size, clip_norm, average, arrays, validation):
    """What a run has to share with a checkpoint to go on from it, as plain data."""
    data = list(map(fingerprint, arrays))
    held_out = [] if validation is None else list(map(fingerprint, validation))
    settings = {
        **model.settings(),
        "optimizer": describe(optimizer),
        "batch_size": batch_size,
        "clip_norm": clip_norm,
        "average": average,
        "data": data[0] if data else None,  # a model may be trained on noise alone
        "validation": held_out[0] if held_out else None,
    }
    if len(data) > 1:
        settings |= {"context": data[1:], "validation_context": held_out[1:]}
    return settings


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
    """tqdm's bar: the memory that a run takes, steps made, time left, steps a second, and what the loop adds."""
    from tqdm.auto import tqdm

    return tqdm(total=steps, initial=done, disable=not show, unit="step")
