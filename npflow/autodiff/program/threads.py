"""How many threads run: BLAS's, and ours."""

import os
from contextlib import contextmanager
from threading import Lock

LOCK = Lock()
inside, limit = 0, None  # how many contexts are open, in all threads, and the limit that the first one set


@contextmanager
def one_blas_thread():
    """A context in which BLAS keeps to one thread.

    The products of a mini-batch are too small to share: threads gain nothing where the cores are free, and
    where they are not, they wait for each other many times longer than they compute. Results also no
    longer depend on the number of cores, so that a run resumed on another machine of the kind goes on alike.

    The number is one for the whole process. So where several threads are inside, the last to leave gives BLAS
    back what the first found.
    """
    global inside, limit
    import scipy.linalg  # noqa: F401 (it has a BLAS of its own, which can be held once it is there)
    from threadpoolctl import threadpool_limits

    with LOCK:
        inside += 1
        if inside == 1:
            limit = threadpool_limits(limits=1, user_api="blas")
    try:
        yield
    finally:
        with LOCK:
            inside -= 1
            if inside == 0:
                limit.restore_original_limits()


def available_cores():
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
