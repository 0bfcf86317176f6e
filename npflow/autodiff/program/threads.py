"""The number of threads: BLAS's, and ours."""

import os
import sys
from contextlib import contextmanager
from threading import Lock, get_ident

from npflow.autodiff.forks import in_forked_child

LOCK = Lock()
inside, limit = [], None  # the threads of open contexts, and the limit that the first one set
found = None  # the number of imported modules, and the BLAS libraries that were loaded with them


@contextmanager
def one_blas_thread():
    """A context in which BLAS uses one thread.

    The products of a batch are too small to share: threads gain nothing on free cores, and on busy ones they
    wait for each other many times longer than they compute. Results also do not depend on the number of
    cores, so that a run can be resumed on another machine.

    BLAS has one number for the whole process. If several threads are inside, the last to leave restores what
    the first found.
    """
    global limit
    import scipy.linalg  # noqa: F401 (it has its own BLAS, which can be limited once it is loaded)

    with LOCK:
        inside.append(get_ident())
        limit = limit or libraries().limit(limits=1, user_api="blas")
    try:
        yield
    finally:
        with LOCK:
            inside.remove(get_ident())
            if not inside:
                limit.restore_original_limits()
                limit = None


def libraries():
    """The BLAS libraries that are loaded; they are looked for again once another module has been imported.

    To look for them takes a millisecond, to limit those that are known a hundredth of that.
    """
    global found
    from threadpoolctl import ThreadpoolController

    modules = len(sys.modules)
    if found is None or found[0] != modules:
        found = modules, ThreadpoolController()
    return found[1]


@in_forked_child
def leave_others():
    """Leave the contexts of other threads; the last of the others restores the number."""
    global LOCK
    LOCK, inside[:] = Lock(), [thread for thread in inside if thread == get_ident()]


def available_cores():
    """The number of cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
