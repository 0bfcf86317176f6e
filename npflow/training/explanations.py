"""What went wrong in a training step: the sentences that are tried for an error, in order."""

from contextlib import contextmanager

from npflow.autodiff import value_and_grad
from npflow.autodiff.gpu.host_bound import host_bound
from npflow.autodiff.mistakes import explain
from npflow.autodiff.program import record
from npflow.autodiff.program.refusals import NUMPY
from npflow.errors import InputError


@contextmanager
def explaining_steps(model, params, batch):
    """A context that raises an explanation in place of an error in a step on a batch, or in its recording."""
    try:
        yield
    except MemoryError:  # the explanations compute the loss again
        raise
    except Exception as error:
        # An error of the loss itself comes first: its traceback has the line in the reader's code.
        cause = error_of(model.loss, params, *batch) or error
        for explanation in EXPLANATIONS:
            named = explanation(cause, model, params, batch)
            if named is not None:
                raise named from cause
        if cause is error:
            raise
        raise cause from error


def error_of(function, *arguments):
    """The error that a call raises; None where it returns."""
    try:
        function(*arguments)
    except Exception as error:
        return error
    return None


def of_the_device(error, model, params, batch):
    """A layer that does not compute on the device."""
    return host_bound(error, model.visits, params, *batch)


def of_the_reader(error, model, params, batch):
    """A mistake in a layer, a network or a prior of the reader's own."""
    named = explain(error)
    return None if named is error else named


def of_the_derivative(error, model, params, batch):
    """A mistake in a derivative, during which none of the reader's code runs: a recording knows the line."""
    if isinstance(error, InputError):
        return None
    named = error_of(record, model.loss, params, *batch)
    return named if isinstance(named, InputError) else None


def of_the_recording(error, model, params, batch):
    """A loss that cannot be recorded, but runs without a program and has a gradient."""
    # Without a program NumPy's functions may run by chance, slowly and in float64.
    if not isinstance(error, InputError) or NUMPY in error.sentence:
        return None
    if error_of(value_and_grad(model.loss), params, *batch):
        return None
    return InputError(f"{error.sentence}; fit(..., record=False) runs it without a program", error.place)


EXPLANATIONS = (of_the_device, of_the_reader, of_the_derivative, of_the_recording)
