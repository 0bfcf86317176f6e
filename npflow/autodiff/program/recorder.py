"""From a function to its program: record, shorten, write down, prove."""

import gc
import inspect
from contextlib import contextmanager

from npflow.autodiff.gpu.devices import device_of
from npflow.autodiff.program import passes
from npflow.autodiff.program.naming import name_values
from npflow.autodiff.program.program import Program
from npflow.autodiff.program.proof import is_proven
from npflow.autodiff.program.recording import LOCK, Recording
from npflow.errors import InputError


def record(fun, params, *args, gradient=True, reuse=True):
    """Record a function and its gradient, once, as a program that repeats them in plain NumPy.

    autograd's bookkeeping takes several times as long as the arithmetic of a small layer, and says the same
    at every step: which operations are performed depends on shapes alone. So they are written down here,
    backward pass and all, and run again without it, to the same bits.

    Parameters
    ----------
    fun : callable
        `fun(params, *args)`, written with `autograd.numpy` and npflow's primitives. It gives a scalar, or,
        where `gradient` is False, an array.
    params : tree of ndarray
        Its float leaves are the program's parameters; integer and boolean leaves are constants of it.
    *args : tree of ndarray
        Arrays are the program's data; anything else is a constant of it.
    gradient : bool
        Whether to record the gradient in the float leaves of `params` too.
    reuse : bool
        Whether results that nobody reads any more are written over. False gives each a place of its own, so
        that in a debugger a name keeps its value to the end; it takes several times the memory.

    Returns
    -------
    Program

    Raises
    ------
    InputError
        Where the operations would not be the same for every batch of these shapes: a branch on the values of
        an array, a number read off one, a function that autograd does not know. It names the line. And where the
        function gives another result when it is called again: it draws random numbers, or keeps state.

    Notes
    -----
    A program repeats what was done when it was recorded. What the function reads that is not among its
    arguments (a global, an attribute) stays as it was then.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> loss = lambda params, x: np.sum(np.exp(params["scale"]) * x)
    >>> params, x = {"scale": np.zeros(2)}, np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> program = record(loss, params, x)
    >>> program(params, x)
    (np.float64(10.0), array([4., 6.]))
    """
    names = list(inspect.signature(fun).parameters)[1 : 1 + len(args)]
    names += [f"argument{number}" for number in range(len(names) + 1, len(args) + 1)]
    device_of({"params": params, **dict(zip(names, args))})  # one, or its sentence
    recording = Recording()
    with LOCK, _no_collection():  # one at a time, as the plain function runs here too
        try:
            tape = recording.record(fun, params, args, names, gradient)
        except InputError:
            raise
        except Exception as error:
            _explain(error, recording, fun, params, args, gradient)
        name_values((*tape.parameters, *tape.data), tape.calls, recording.gradient_of)
        for change in passes.ALL:
            tape = change(tape)
        program = Program(fun, params, args, names, tape, reuse)
        if not is_proven(program, fun, params, args):
            again = Recording()
            again.record(fun, params, args, names, gradient)
            line = recording.first_difference(again)
            raise InputError(
                f"expected {program.name} to give the same result whenever it is called with the same values, as a "
                "program does, got another: it draws random numbers, keeps state, or reads the values of arrays"
                + (f", at {line}" if line else "")
            )
    return program


@contextmanager
def _no_collection():
    """While it is open, garbage is not looked for: thousands of nodes are made here, and all are still needed."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def _explain(error, recording, fun, params, args, gradient):
    """Raise what went wrong in a recording: the function's own error, if it has one on plain arrays."""
    fun(params, *args)
    line = recording.line_of_error(error)
    derivatives = ", and that have derivatives" if gradient else ""
    raise InputError(
        f"expected functions of autograd.numpy and primitives on every array, which a recording sees{derivatives}, "
        f"got another ({type(error).__name__}: {error}) at {line}"
    ) from error
