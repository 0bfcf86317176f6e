"""Functions of many rows or long vectors, in chunks whose intermediate results stay in the cache."""

from collections import OrderedDict
from dataclasses import fields, is_dataclass
from functools import lru_cache
from threading import Lock, Thread

import numpy as np
from autograd.tracer import isbox

from npflow.autodiff import tree
from npflow.autodiff.forks import in_forked_child
from npflow.autodiff.gpu.devices import HOST, device_of
from npflow.autodiff.program import record
from npflow.autodiff.program.threads import available_cores, one_blas_thread
from npflow.errors import InputError

CACHE_BYTES = 2**21  # roughly a core's share of the caches; chunks are the same on every machine
FEWEST, MOST = 16, 2**11  # rows of a chunk
DEVICE_ROWS = 64  # times as many rows on a device: its memory is as fast as a cache, and its calls are slow
WORTH_RECORDING = 16  # chunks; a recording takes as long as about ten of them
# Calls. A recording of one row takes as long as 100 to 400 of them, of 1,000 rows as 10 to 100.
OFTEN = 30
WORTH_HALVES, FEWEST_IN_HALF = (
    2**15,
    256,
)  # numbers in the widest layer, and rows: a half has to be worth a thread
REMEMBERED = 256  # calls that are counted, and trees whose chunks are known
NUMBERS = 2**17  # of a vector in a chunk; chunks of four float32 vectors fill a core's cache, roughly
WORTH_THREADS = 2**20  # numbers; with fewer, threads take longer to start than they save

# The programs used last; None for functions that cannot be recorded.
PROGRAMS, KEPT, LOCK = OrderedDict(), 16, Lock()
TRUSTED = {}  # those of calls that come often
USES, SIZES = {}, {}  # how often a call has come that has no program; the size of its chunks


@in_forked_child
def _new_lock():
    global LOCK
    LOCK = Lock()


def map_rows(fun, params, *arrays):
    """``fun(params, *arrays)`` for a function that treats each row by itself.

    Few rows are one call, more are two halves, and many are cut into chunks. All bounds depend on the shapes of
    `arrays` and `params` alone. Very many chunks are evaluated by a recorded program on all cores, and so are fewer
    once there is a program. A call that comes often is recorded too, where all classes in `fun` are npflow's. A program
    gives the bits of the plain function, so the result does not depend on the choice. On a device chunks are larger,
    and nothing is recorded.

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
    kind, leaves = tree.flattened(params)
    if any(map(isbox, arrays)) or (kind is None and any(isbox(leaf) for _, leaf in tree.items(params))):
        return fun(params, *arrays)
    n, host = len(arrays[0]), device_of(arrays[0]) is HOST
    rows, width = size_of_chunks(kind, params, arrays)
    rows *= 1 if host else DEVICE_ROWS
    halves = host and n * width >= 2 * WORTH_HALVES and n // 2 >= FEWEST_IN_HALF and n <= rows
    rows = -(-n // 2) if halves else min(rows, n)
    # Where each chunk starts, and where what it adds begins: the last half starts early if the number of rows is odd.
    starts = [(0, 0), (n - rows, rows)] if halves else [(at, at) for at in range(0, n - rows + 1, rows)]
    with one_blas_thread():
        chunk = arrays if rows == n else _rows(arrays, 0, rows)
        program = program_of_often(fun, params, kind, chunk, len(starts)) if host else None
        if program is not None and rows == n:
            with program.workspace() as workspace:
                return program.run(trained(leaves), arrays, workspace).copy()  # it may lie in the workspace
        if program is not None:
            result, ahead = np.empty((n, *program.value_shape[1:]), program.value_dtype), 0
        else:
            first = fun(params, *chunk)
            if rows == n:
                return first
            result, ahead = np.empty_like(first, shape=(n, *first.shape[1:]), order="C"), 1
            result[:rows] = first
            if host and kind is not None and not halves:
                program = program_for(fun, params, kind, chunk, first, len(starts) > WORTH_RECORDING)
        if program is not None:
            _run(program, trained(leaves), arrays, starts[ahead:], rows, result)
            if not halves:
                program.drop_workspaces()  # a program that is kept holds little memory
        else:
            for start, begin in starts[1:]:
                part = fun(params, *_rows(arrays, start, start + rows))
                result[begin : start + rows] = part[begin - start :]
        done = starts[-1][0] + rows
        if done < n:
            result[done:] = fun(params, *_rows(arrays, done, None))
    return result


def trained(leaves):
    """The leaves of a tree that a program takes as its parameters."""
    return tuple(leaf for leaf in leaves if leaf.dtype.kind == "f")


def _rows(arrays, start, stop):
    return tuple(array[start:stop] for array in arrays)


def size_of_chunks(kind, params, arrays):
    """The rows of a chunk, and roughly the numbers of a row in the widest layer; remembered by shapes."""
    key = kind, *((array.shape[1:], array.dtype) for array in arrays)
    if kind is None or key not in SIZES:
        rows = min(rows_in_cache(params, array) for array in arrays)
        size = rows, max(widest_row(params, array) for array in arrays)
        if kind is None:
            return size
        if len(SIZES) >= REMEMBERED:
            SIZES.clear()
        SIZES[key] = size
    return SIZES[key]


def rows_in_cache(params, x):
    """The number of rows of a chunk: a few arrays as wide as the widest layer fit into the cache."""
    dtype = x.dtype if x.dtype.kind == "f" else tree.Layout(params).dtype  # integers are converted to it
    rows = CACHE_BYTES // (4 * widest_row(params, x) * dtype.itemsize)
    return min(max(rows, FEWEST), MOST)


def widest_row(params, x):
    """Roughly the numbers of a row in the widest layer: the longest last axis of a parameter times pixels."""
    widest = max([x.shape[-1], *(np.shape(leaf)[-1] for _, leaf in tree.items(params) if np.ndim(leaf))])
    return widest * int(np.prod(x.shape[1:-1]))


def program_for(fun, params, kind, arrays, first, worth):
    """The program of a function for chunks like `arrays`: a kept one, or a new one if it is `worth` it; or None.

    A kept program is used only if it gives `first`, the function's own result, to the bit.
    """
    key = key_of(fun, kind, arrays)
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
        program = try_to_record(fun, params, arrays)
    keep(key, program)
    return program


def program_of_often(fun, params, kind, arrays, count):
    """The program of a call that comes often, in which the function meets `count` times arrays like these; or None.

    It is not compared with the function at each call, so all of the function's classes have to be npflow's: they are
    frozen and read nothing but their arguments.
    """
    key = None if kind is None else key_of(fun, kind, arrays)
    try:
        program = TRUSTED.get(key)
    except TypeError:  # the object has no hash
        return None
    if program is not None or key is None or not is_npflows(fun.__self__):
        return program
    with LOCK:
        if len(USES) >= REMEMBERED:
            USES.clear()
        USES[key] = uses = USES.get(key, 0) + count
        program = PROGRAMS.get(key)
    if uses < OFTEN:
        return None
    if uses - count < OFTEN:  # it is tried once
        program = program or try_to_record(fun, params, arrays)
        with LOCK:
            TRUSTED[key] = program
            if len(TRUSTED) > REMEMBERED:
                del TRUSTED[next(iter(TRUSTED))]
    return program


def key_of(fun, kind, arrays):
    """What a program depends on."""
    return fun.__self__, fun.__func__, tuple((array.shape, array.dtype) for array in arrays), kind


def try_to_record(fun, params, arrays):
    """The program of a function; None if it cannot be recorded, now or later."""
    try:
        return record(fun, params, *arrays, gradient=False)
    except InputError:
        return None


def keep(key, program):
    """Keep a program, or None; the ones that have not been used for longest are dropped."""
    with LOCK:
        PROGRAMS[key] = program
        PROGRAMS.move_to_end(key)
        while len(PROGRAMS) > KEPT:
            PROGRAMS.popitem(last=False)


@lru_cache(maxsize=256)
def is_npflows(thing):
    """Whether an object and everything in its fields are of npflow's classes, numbers or strings."""
    if is_dataclass(thing):
        inside = (getattr(thing, field.name) for field in fields(thing))
        return type(thing).__module__.startswith("npflow.") and all(map(is_npflows, inside))
    if isinstance(thing, tuple):
        return all(map(is_npflows, thing))
    return thing is None or type(thing) in (bool, int, float, str)


def _run(program, parameters, arrays, starts, rows, result):
    """Write the program's result of each chunk to its place, on all cores."""
    errors = np.geterr()  # which a new thread does not inherit

    def work(starts):
        with program.workspace() as workspace, np.errstate(**errors):
            for start, begin in starts:
                part = program.run(parameters, _rows(arrays, start, start + rows), workspace)
                result[begin : start + rows] = part[begin - start :]

    _share_out(work, starts, available_cores())


def _share_out(work, starts, threads):
    """Call `work` with a share of the starts of chunks in each of several threads."""
    threads, failures = max(min(threads, len(starts)), 1), []

    def caught(share):
        try:
            work(share)
        except BaseException as error:  # raised by the caller, once none writes any more
            failures.append(error)

    others = [Thread(target=caught, args=(starts[number::threads],)) for number in range(1, threads)]
    for thread in others:
        thread.start()
    caught(starts[::threads])
    for thread in others:
        thread.join()
    if failures:
        raise failures[0]


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
