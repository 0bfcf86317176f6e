"""How many threads run: BLAS's, and ours."""

import os


def one_blas_thread():
    """A context in which BLAS keeps to one thread.

    The products of a mini-batch are too small to share: threads gain nothing where the cores are free, and
    where they are not, they wait for each other many times longer than they compute. Results also no
    longer depend on the number of cores, so that a run resumed on another machine of the kind goes on alike.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")


def available_cores():
    """How many cores this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
