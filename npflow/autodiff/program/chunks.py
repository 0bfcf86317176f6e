"""Functions of many rows or long vectors, in chunks whose intermediate results stay in the cache."""

from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import numpy as np
from autograd.tracer import isbox

from npflow.autodiff import tree
from npflow.autodiff.forks import in_forked_child
from npflow.autodiff.gpu.devices import HOST, device_of
from npflow.autodiff.program import record
from npflow.autodiff.program.threads import available_cores, one_blas_thread
from npflow.errors import InputError

CACHE_BYTES = 2**21  # roughly a core's share of the caches; chunks are the same on every machine
FEWEST, MOST = 16, 2**14  # rows of a chunk
DEVICE_ROWS = 64  # times as many rows on a device: its memory is as fast as a cache, and its calls are slow
WORTH_RECORDING = 16  # chunks; a recording takes as long as about ten of them
NUMBERS = 2**17  # of a vector in a chunk; chunks of four float32 vectors fill a core's cache, roughly
WORTH_THREADS = 2**20  # numbers; with fewer, threads take longer to start than they save

# The programs used last; None for functions that cannot be recorded.
PROGRAMS, KEPT, LOCK = OrderedDict(), 16, Lock()


@in_forked_child
def _new_lock():
    global LOCK
    LOCK = Lock()


def map_rows(fun, params, *arrays):
    """``fun(params, *arrays)`` for a function that treats each row by itself.

    Few rows are one call. Many are cut into chunks, whose size depends on the shapes of `arrays` and `params`
    alone. Very many are evaluated by a recorded program on all cores, and so are fewer once there is a
    program. A program gives the bits of the plain function, so the result does not depend on the choice. On a
    device chunks are larger, and nothing is recorded.

    Parameters
    ----------
    fun : method
        ``fun(params, *arrays)`` returns an array of shape (n, ...). Equal objects share programs; without a
        hash there are none.
    params : tree of ndarray
    *arrays : ndarray, shape (n, ...)
        The same number of rows in each.

    Returns
    -------
    ndarray, shape (n, ...)
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
            program.drop_workspaces()  # a program that is kept holds no memory
        rest = len(x) % rows
        if rest:
            result[-rest:] = fun(params, *_rows(arrays, -rest, None))
    return result


def _rows(arrays, start, stop):
    return tuple(array[start:stop] for array in arrays)


def rows_in_cache(params, x):
    """The number of rows of a chunk: a few arrays as wide as the widest layer fit into the cache."""
    dtype = x.dtype if x.dtype.kind == "f" else tree.Layout(params).dtype  # integers are converted to it
    rows = CACHE_BYTES // (4 * widest_row(params, x) * dtype.itemsize)
    return min(max(rows, FEWEST), MOST)


def widest_row(params, x):
    """Roughly the numbers of a row in the widest layer: the longest last axis of a parameter times pixels."""
    widest = max([x.shape[-1], *(np.shape(leaf)[-1] for _, leaf in tree.items(params) if np.ndim(leaf))])
    return widest * int(np.prod(x.shape[1:-1]))


def program_for(fun, params, arrays, first, worth):
    """The program of a function for chunks like `arrays`: a kept one, or a new one if it is `worth` it; or None.

    A kept program is used only if it gives `first`, the function's own result, to the bit.
    """
    kinds = tuple((array.shape, array.dtype) for array in arrays)
    key = (fun.__self__, fun.__func__, kinds, tuple(_kind(*item) for item in tree.items(params)))
    try:
        with LOCK:  # released before the recording, which may map rows of another flow
            known, program = key in PROGRAMS, PROGRAMS.get(key)
    except TypeError:  # the object has no hash
        return None
    if program is not None:  # objects that are not frozen may change
        known = np.array_equal(program(params, *arrays), first, equal_nan=True)
    if not known:
        if not worth:
            return None
        try:
            program = record(fun, params, *arrays, gradient=False)
        except InputError:  # it cannot be recorded, now or later
            program = None
    with LOCK:
        PROGRAMS[key] = program
        PROGRAMS.move_to_end(key)
        while len(PROGRAMS) > KEPT:
            PROGRAMS.popitem(last=False)
    return program


def _kind(path, leaf):
    """What a program depends on in a leaf: its path, type, shape and dtype, and the values of a constant."""
    array = np.asarray(leaf)
    values = None if tree.is_trained(leaf) else array.tobytes()
    return path, type(leaf), array.shape, array.dtype, values


def _run(program, params, arrays, starts, rows, result):
    """Write the program's result of each chunk to its place, on all cores."""
    parameters, _ = program.read(params, *_rows(arrays, 0, rows))
    errors = np.geterr()  # which a new thread does not inherit

    def work(starts):
        with program.workspace() as workspace, np.errstate(**errors):
            for start in starts:
                chunk = _rows(arrays, start, start + rows)
                result[start : start + rows] = program.run(parameters, chunk, workspace)

    _share_out(work, starts, available_cores())


def _share_out(work, starts, threads):
    """Call `work` with a share of the starts of chunks in each of several threads."""
    threads = min(threads, len(starts))
    if threads <= 1:
        work(starts)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [starts[number::threads] for number in range(threads)]))


def in_chunks(function, *vectors):
    """Call ``function(*chunks)`` on one chunk of all vectors after the other, on all cores if they are long.

    It works in place and treats each number by itself, so the chunks do not show in the result. Ten lines on
    vectors of millions of numbers go through memory ten times; in chunks they go through it once. On a device
    it is one call.
    """
    size = len(vectors[0])
    if size <= NUMBERS or device_of(vectors[0]) is not HOST:
        function(*vectors)
        return

    def work(starts):
        for start in starts:
            function(*(vector[start : start + NUMBERS] for vector in vectors))

    _share_out(work, range(0, size, NUMBERS), available_cores() if size >= WORTH_THREADS else 1)
