"""From a function to its program: record, shorten, write, compare."""

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import as_array, device_of, fetch, is_array
from npflow.autodiff.gradient import value_and_grad
from npflow.autodiff.mistakes import explain, explaining, read_only
from npflow.autodiff.program import passes
from npflow.autodiff.program.naming import name_values
from npflow.autodiff.program.program import Program
from npflow.autodiff.program.recording import Recording, one_at_a_time
from npflow.autodiff.program.threads import one_blas_thread
from npflow.errors import InputError
from npflow.typing import Params
from npflow.validation import check_callable


def record(fun: Callable, params: Params, *args, gradient: bool = True, reuse: bool = True) -> Program:
    """Record a function and its gradient once, as a program that repeats them in plain NumPy.

    autograd's bookkeeping takes several times as long as the arithmetic of a small layer, and is the same at
    every step, as the operations depend on shapes alone. A program has the operations of both passes without
    the bookkeeping, and gives the same bits.

    Parameters
    ----------
    fun : callable
        ``fun(params, *args)``, written with `autograd.numpy` and npflow's primitives. It returns a scalar, or
        an array if `gradient` is False.
    params : tree of ndarray
        Float leaves are the parameters of the program, integer and boolean leaves are constants.
    *args : tree of ndarray
        Arrays are the data of the program, all other values are constants.
    gradient : bool
        Whether to record the gradient in the float leaves of `params` too.
    reuse : bool
        Whether to write over results that are not read later. With False each name keeps its value to the
        end, for debugging; that takes several times the memory.

    Returns
    -------
    Program

    Raises
    ------
    InputError
        If the operations are not the same for every batch of these shapes: a branch on the values of an
        array, a number read off an array, a function that autograd does not know. The error names the line.
        Also if the function gives another result when it is called again, because it draws random numbers or
        keeps state.

    Notes
    -----
    Values that the function does not read from its arguments, such as globals and attributes, stay as they
    were in the recording.

    Examples
    --------
    >>> import autograd.numpy as np
    >>> from npflow.autodiff import record
    >>> loss = lambda params, x: np.sum(np.exp(params["scale"]) * x)
    >>> params, x = {"scale": np.zeros(2)}, np.array([[1.0, 2.0], [3.0, 4.0]])
    >>> program = record(loss, params, x)
    >>> program(params, x)
    (np.float64(10.0), array([4., 6.]))
    """
    names = names_of(check_callable(fun, "the function to record"), len(args))
    device_of({"params": params, **dict(zip(names, args))})  # raises if there are several
    with one_at_a_time():  # the plain function runs here too
        recording, tape = make_tape(fun, params, args, names, gradient)
        name_values((*tape.parameters, *tape.data), tape.calls, recording.gradient_of)
        for change in passes.ALL:
            tape = change(tape)
        program = Program(fun, params, args, names, tape, reuse)
        with explaining():
            trial = disproof(program, fun, params, args)
        if trial is not None:
            again = Recording()
            with suppress(Exception):  # on other values it may be refused
                again.record(fun, trial[0], trial[1:], names, gradient)
            line = recording.first_difference(again)
            raise InputError(
                f"expected {program.name} to give the same result for the same values, as a program does, "
                "got another: it draws random numbers, keeps state, or reads the values of arrays"
                + (f", at {line}" if line else "")
            )
    return program


def make_tape(fun, params, args=(), names=(), gradient=True):
    """The recording of a function, and its tape; an error names the line."""
    recording = Recording()
    try:
        return recording, recording.record(fun, params, args, names, gradient)
    except InputError:
        raise
    except Exception as error:
        _explain(error, recording, fun, params, args, gradient)


def names_of(fun, count):
    """A name for each of `count` arguments of a function after its first; ``*batch`` is batch_0, batch_1, ..."""
    names, rest = [], "argument"
    for parameter in list(inspect.signature(fun).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = parameter.name
        else:
            names.append(parameter.name)
    more = count - len(names)
    return [*names[:count], *([rest] if more == 1 else [f"{rest}_{number}" for number in range(more)])]


def _explain(error, recording, fun, params, args, gradient):
    """Raise the function's own error, if it fails on plain arrays too, or an error that names the line."""
    with explaining():
        fun(params, *args)
    line = recording.line_of_error(error)
    named = explain(error, line)
    if named is not error:
        raise named from error
    derivatives = ", and that have a derivative" if gradient else ""
    raise InputError(
        f"expected functions that a recording sees, those of autograd.numpy and primitives{derivatives}, "
        f"got another ({type(error).__name__}: {error}) at {line}"
    ) from error


def disproof(program, fun, params, args):
    """Parameters and arguments on which a program does not give the function's results; None if none are found.

    Results are compared to the bit, if the device of the program is exact. A number that was read off an array
    unnoticed would stay what it was, so other values than the recorded ones are tried. Only finite results
    count: a wrong program may be nan where the function is. The program runs first, as it is faster.
    """
    failed, compared = None, False
    with one_blas_thread(), np.errstate(all="ignore"):
        for trials in _trials(params, args, program.device.exact):
            for trial in trials:
                as_recorded, trial = trial[0] is params, read_only(trial)
                try:
                    same = _same(program, fun, trial, as_recorded)
                except Failed as error:
                    failed, same = error.__cause__, None
                if same is False:
                    return trial
                del trial  # before the next one is made: for a large model each is
                if same:
                    compared = True
                    break
    if not compared:
        raise failed
    return None


class Failed(Exception):
    """The function fails on a trial."""


def _same(program, fun, trial, as_recorded):
    """Whether a program gives the function's results on a trial; None where that says nothing.

    Raises
    ------
    Failed
        From the error of the function.
    """
    try:
        got = program(*trial) if program.with_gradient else (program(*trial),)
    except MemoryError:
        raise
    except Exception:  # such as an array whose shape depends on values
        got = None
    if got and not np.isfinite(fetch(got[0])).all() and not as_recorded:
        return None
    try:
        value, gradient = value_and_grad(fun)(*trial) if program.with_gradient else (fun(*trial), None)
    except Exception as error:  # such as a matrix that is not positive definite
        raise Failed from error
    agree = partial(np.array_equal, equal_nan=True) if program.device.exact else _agree
    if not got or not agree(fetch(value), fetch(got[0])):
        return False
    if gradient is None:
        return True
    layout = tree.Layout(trial[0])
    if not program.device.exact:
        return agree(fetch(layout.pack(gradient)), fetch(got[1]))
    # Leaf by leaf, as one more vector of a large model takes as much memory as all else in a step.
    leaves = (
        (leaf, part) for leaf, (_, part) in zip(layout.leaves, tree.items(gradient)) if leaf.offset >= 0
    )
    return all(
        not fetch(leaf.view(got[1])).any()
        if part is None
        else agree(fetch(part).astype(got[1].dtype, copy=False), fetch(leaf.view(got[1])))
        for leaf, part in leaves
    )


def _agree(expected, got):
    """Whether two results agree up to rounding, for a device that may round in two ways."""
    with np.errstate(all="ignore"):
        scale = np.max(np.abs(expected), initial=0, where=np.isfinite(expected))
        tolerance = 1e3 * np.finfo(expected.dtype).eps if expected.dtype.kind == "f" else 0.0
        return np.allclose(expected, got, rtol=tolerance, atol=tolerance * scale, equal_nan=True)


# The factors of trial values, in turn. Uneven ones change counts, ranks and ratios too, and some are zero.
NEAR, AS_MUCH, SMALLER, OPPOSITE, LARGER = 1 + 2**-10, 1, 1 / 16, -1 / 16, -8
SAME_SIGN = np.abs(np.cos(1.5 * np.arange(61) ** 2)) ** 3
UNEVEN = np.sign(np.cos(1.5 * np.arange(61) ** 2)) * np.where(SAME_SIGN < 1 / 32, 0, SAME_SIGN)


def _trials(params, args, exact):
    """Groups of parameters and arguments to compare on; one of each group is enough.

    In each group those come first that differ most from the recorded ones; later ones stay within bounds that
    the data may have, such as 0 and 1. Uneven values need an exact device: they make roundings large.
    """
    even = (
        (OPPOSITE, LARGER),
        (SMALLER, OPPOSITE),
        (SMALLER, SMALLER),
        (NEAR, AS_MUCH),
        (NEAR, None),
        (None, None),
    )
    uneven = (4 * UNEVEN, UNEVEN / 4), (0.9 * SAME_SIGN, 0.9 * SAME_SIGN)
    for factors in (even, uneven) if exact else (even,):
        yield ((_changed(params, of_params), *_turned(args, of_args)) for of_params, of_args in factors)


def _changed(params, factors):
    changed = lambda _, leaf: _times(as_array(leaf), factors) if tree.is_trained(leaf) else leaf
    return params if factors is None else tree.build(changed, params)


def _turned(args, factors):
    """Arguments with their rows in reverse, and other numbers."""
    turned = lambda _, leaf: _times(leaf[::-1] if leaf.ndim else leaf, factors) if is_array(leaf) else leaf
    return args if factors is None else [tree.build(turned, arg) for arg in args]


def _times(leaf, factors):
    """An array times factors, in the same order in memory."""
    leaf, send = leaf.copy("K"), device_of(leaf).send
    if leaf.dtype.kind in "fc":
        if not np.any(fetch(leaf)):
            leaf += leaf.dtype.type(1 / 16)
        leaf *= send(np.resize(np.asarray(factors, leaf.real.dtype), leaf.shape))
    elif np.ndim(factors) and leaf.dtype.kind == "b":
        leaf ^= send(np.resize(factors > 0.9 * np.max(factors), leaf.shape))
    elif np.ndim(factors) and leaf.dtype.kind in "iu":
        leaf //= 2  # labels and pixels stay in their range
    return leaf
