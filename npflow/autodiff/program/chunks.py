"""A function of many rows, a chunk at a time, so that what it computes on the way stays in the cache."""

import weakref
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from autograd.tracer import isbox

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import HOST, device_of
from npflow.autodiff.program import record
from npflow.autodiff.program.threads import available_cores, one_blas_thread
from npflow.errors import InputError

CACHE_BYTES = 2**21  # a core's share of the caches, roughly; chunks are the same on every machine
FEWEST, MOST = 16, 2**14  # rows of a chunk
DEVICE_ROWS = 64  # times as many on a device, whose memory is as fast as a cache, and calls are slow to tell
WORTH_RECORDING = 16  # chunks: a recording takes as long as some ten of them
NUMBERS = 2**17  # of a vector's chunk: four vectors' chunks of float32 are a core's cache, roughly
WORTH_THREADS = 2**20  # numbers: with fewer, threads take longer to start than they save

# The programs used last, or None where a function cannot be recorded, each with a reference to the function's
# object that does not keep it alive.
PROGRAMS, KEPT, LOCK = OrderedDict(), 16, Lock()


def map_rows(fun, params, *arrays):
    """`fun(params, *arrays)`, where each row of the result depends on the same row of each array alone.

    Few rows are one call. Many are cut into chunks, whose size depends on the shapes of `arrays` and
    `params` alone; where there are very many, or have been before, by a recorded program, on all cores. A program gives
    the plain function's bits, so the result does not depend on which of the two it was. On a device
    the chunks are larger, and no program is made for them.

    Parameters
    ----------
    fun : method
        `fun(params, *arrays) -> ndarray`, of shape (n, ...), of an object that weak references can point at.
    params : tree of ndarray
    *arrays : ndarray, shape (n, ...)
        As many rows in each.
    """
    boxed = any(map(isbox, arrays)) or any(isbox(leaf) for _, leaf in tree.items(params))
    x = arrays[0]
    host = device_of(x) is HOST
    rows = min(rows_in_cache(params, array) for array in arrays) * (1 if host else DEVICE_ROWS)
    if boxed or len(x) <= rows:
        return fun(params, *arrays)
    with one_blas_thread():
        first = fun(params, *_rows(arrays, 0, rows))
        result = np.empty_like(first, shape=(len(x), *first.shape[1:]), order="C")
        result[:rows] = first
        starts = range(rows, len(x) - rows + 1, rows)
        worth = len(starts) >= WORTH_RECORDING
        program = program_for(fun, params, _rows(arrays, 0, rows), first, worth) if host else None
        if program is None:
            for start in starts:
                result[start : start + rows] = fun(params, *_rows(arrays, start, start + rows))
        else:
            _run(program, params, arrays, starts, rows, result)
            program.drop_workspaces()  # a program that is kept for later keeps no memory for it
        rest = len(x) % rows
        if rest:
            result[-rest:] = fun(params, *_rows(arrays, -rest, None))
    return result


def _rows(arrays, start, stop):
    return tuple(array[start:stop] for array in arrays)


def rows_in_cache(params, x):
    """How many rows a chunk has: such that a few arrays as wide as the widest layer fit into the cache."""
    dtype = x.dtype if x.dtype.kind == "f" else tree.Layout(params).dtype  # that integers are turned into
    rows = CACHE_BYTES // (4 * widest_row(params, x) * dtype.itemsize)
    return min(max(rows, FEWEST), MOST)


def widest_row(params, x):
    """How many numbers a row of x is in the widest layer, roughly: for each pixel the longest last axis of a parameter."""
    widest = max([x.shape[-1], *(np.shape(leaf)[-1] for _, leaf in tree.items(params) if np.ndim(leaf))])
    return widest * int(np.prod(x.shape[1:-1]))


def program_for(fun, params, arrays, first, worth):
    """The program of a function for chunks like `arrays`, if there is one or it is worth a recording; or None.

    A program that is kept is used again only where it gives `first`, the function's own result, to the bit.
    """
    owner = fun.__self__
    constants = tuple(
        np.asarray(leaf).tobytes() for _, leaf in tree.items(params) if not tree.is_trained(leaf)
    )
    kinds = tuple((array.shape, array.dtype) for array in arrays)
    key = (id(owner), fun.__func__, kinds, constants)
    with LOCK:  # not while recording: what is recorded may hold a flow whose rows are mapped in their turn
        holder, program = PROGRAMS.get(key, (None, None))
    known = holder is not None and holder() is owner  # the number may be that of an object long gone
    if known and program is not None:
        known = _gives(program, params, arrays, first)
    if not known:
        if not worth:
            return None
        try:
            program = record(fun, params, *arrays, gradient=False)
        except InputError:  # it cannot be recorded: it runs as it is, now and later
            program = None
    with LOCK:
        PROGRAMS[key] = (weakref.ref(owner), program)
        PROGRAMS.move_to_end(key)
        for old in [old for old, (holder, _) in PROGRAMS.items() if holder() is None]:
            del PROGRAMS[old]
        while len(PROGRAMS) > KEPT:
            PROGRAMS.popitem(last=False)
    return program


def _gives(program, params, arrays, expected):
    """Whether a program gives the result that is expected, to the bit."""
    try:
        return np.array_equal(program(params, *arrays), expected, equal_nan=True)
    except InputError:  # it is for other shapes of parameters
        return False


def _run(program, params, arrays, starts, rows, result):
    """Write the program's result of each chunk to its place, on all cores."""
    parameters, _ = program.read(params, *_rows(arrays, 0, rows))

    def work(starts):
        with program.workspace() as workspace, np.errstate(**errors):
            for start in starts:
                chunk = _rows(arrays, start, start + rows)
                result[start : start + rows] = program.run(parameters, chunk, workspace)

    errors, threads = np.geterr(), min(available_cores(), len(starts)) or 1
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[number::threads] for number in range(threads)]))


def in_chunks(function, *vectors):
    """Call `function` on the same piece of each vector, piece by piece, on all cores where vectors are long.

    For functions that work in place and treat each number by itself, so that it makes no difference how
    vectors are cut. Ten lines on vectors of millions of numbers go through memory ten times; piece by piece
    they do once. A device, which has its own ways with long vectors, is called once.

    Parameters
    ----------
    function : callable
        `function(*pieces)`; what it returns is dropped.
    *vectors : ndarray, shape (d,)
    """
    size = len(vectors[0])
    if size <= NUMBERS or device_of(vectors[0]) is not HOST:
        function(*vectors)
        return

    def work(starts):
        for start in starts:
            function(*(vector[start : start + NUMBERS] for vector in vectors))

    starts = range(0, size, NUMBERS)
    threads = min(available_cores(), len(starts)) if size >= WORTH_THREADS else 1
    if threads == 1:
        work(starts)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[number::threads] for number in range(threads)]))
