"""Arithmetic on long vectors, piece by piece, so that what it reads and writes again stays in the cache."""

from concurrent.futures import ThreadPoolExecutor

from npflow.autodiff.devices import HOST, device_of
from npflow.autodiff.threads import available_cores

NUMBERS = 2**17  # of a piece: four vectors' pieces of float32 are a core's cache, roughly
WORTH_THREADS = 2**20  # numbers: with fewer, threads take longer to start than they save


def in_pieces(function, *vectors):
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
