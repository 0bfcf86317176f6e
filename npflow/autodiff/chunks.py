"""A function of many rows, a chunk at a time, so that what it computes on the way stays in the cache."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from autograd.tracer import isbox

from npflow.autodiff import tree
from npflow.autodiff.program import record
from npflow.autodiff.threads import available_cores, one_blas_thread
from npflow.errors import InputError

CACHE_BYTES = 2**21  # a core's share of the caches, roughly; chunks are the same on every machine
FEWEST, MOST = 16, 2**14  # rows of a chunk
WORTH_RECORDING = 16  # chunks: a recording takes as long as some ten of them

PROGRAMS, KEPT, LOCK = OrderedDict(), 16, Lock()  # the programs used last


def map_rows(fun, params, x):
    """`fun(params, x)`, where each row of the result depends on the same row of `x` alone.

    Few rows are one call. Many are cut into chunks, whose size depends on the shapes of `x` and `params`
    alone; where there are very many, or have been before, by a recorded program, on all cores. A program gives
    the plain function's bits, so the result does not depend on which of the two it was.

    Parameters
    ----------
    fun : method
        `fun(params, x) -> ndarray`, of shape (n, ...), of an object that can be hashed.
    params : tree of ndarray
    x : ndarray, shape (n, ...)
    """
    rows = rows_in_cache(params, x)
    boxed = isbox(x) or any(isbox(leaf) for _, leaf in tree.items(params))
    if boxed or len(x) <= rows:
        return fun(params, x)
    with one_blas_thread():
        first = fun(params, x[:rows])
        result = np.empty((len(x), *first.shape[1:]), first.dtype)
        result[:rows] = first
        starts = range(rows, len(x) - rows + 1, rows)
        program = program_for(fun, params, x[:rows], worth=len(starts) >= WORTH_RECORDING)
        if program is None:
            for start in starts:
                result[start : start + rows] = fun(params, x[start : start + rows])
        else:
            _run(program, params, x, starts, rows, result)
        rest = len(x) % rows
        if rest:
            result[-rest:] = fun(params, x[-rest:])
    return result


def rows_in_cache(params, x):
    """How many rows a chunk has: such that a few arrays as wide as the widest layer fit into the cache."""
    pixels = int(np.prod(x.shape[1:-1]))
    widest = max([x.shape[-1], *(np.shape(leaf)[-1] for _, leaf in tree.items(params) if np.ndim(leaf))])
    rows = CACHE_BYTES // (4 * widest * pixels * x.dtype.itemsize)
    return min(max(rows, FEWEST), MOST)


def program_for(fun, params, x, worth):
    """The program of a function for chunks like `x`, if it is there already or worth a recording; or None."""
    key = (fun.__func__, fun.__self__, x.shape, x.dtype)
    with LOCK:  # not while recording: what is recorded may hold a flow whose rows are mapped in their turn
        program = PROGRAMS.get(key)
    try:
        if program is not None:
            program.read(params, x)
    except InputError:  # other constants, such as a permutation
        program = None
    try:
        if program is None and worth:
            program = record(fun, params, x, gradient=False)
    except InputError:  # it cannot be recorded: it runs as it is
        return None
    if program is not None:
        with LOCK:
            PROGRAMS[key] = program
            PROGRAMS.move_to_end(key)
            while len(PROGRAMS) > KEPT:
                PROGRAMS.popitem(last=False)
    return program


def _run(program, params, x, starts, rows, result):
    """Write the program's result of each chunk to its place, on all cores."""
    parameters, _ = program.read(params, x[:rows])

    def work(starts):
        workspace = program.take_workspace()
        with np.errstate(**errors):
            for start in starts:
                chunk = slice(start, start + rows)
                result[chunk] = program.run(parameters, (x[chunk],), workspace)
        program.give_workspace(workspace)

    errors, threads = np.geterr(), min(available_cores(), len(starts))
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[number::threads] for number in range(threads)]))
