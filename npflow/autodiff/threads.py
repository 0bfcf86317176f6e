"""How many threads BLAS may use."""


def one_blas_thread():
    """A context in which BLAS keeps to one thread.

    The products of a mini-batch are too small to share: threads gain nothing where the cores are free, and
    where they are not, they wait for each other many times longer than they compute. Results also no
    longer depend on the number of cores, so that a run resumed on another machine of the kind goes on alike.
    """
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1, user_api="blas")
