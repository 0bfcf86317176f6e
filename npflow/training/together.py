"""The ranks of a run, which begin with the same and end together."""

import sys
import time
import traceback
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version

from npflow.autodiff.program.ranks import Ranks
from npflow.description import difference
from npflow.errors import InputError, in_short

SECONDS = 5.0  # that a rank with an error waits for the others to have one too
LIBRARIES = ("npflow", "numpy", "scipy", "autograd")
SENTENCES = (
    ArithmeticError,
    InputError,
    KeyboardInterrupt,
    MemoryError,
    OSError,
)  # which say what went wrong


def check_communicator(value, name):
    """Raise `InputError` unless a value is a communicator of mpi4py; return it."""
    MPI = sys.modules.get("mpi4py.MPI")
    if MPI is None or not isinstance(value, MPI.Intracomm) or value == MPI.COMM_NULL:
        raise InputError(
            f"expected {name} to be one of mpi4py, such as MPI.COMM_WORLD, got {in_short(value)}"
        )
    return value


@contextmanager
def together(communicator):
    """A context that all ranks of a communicator leave together; as which it gives the `Ranks`.

    An error that every rank has, such as a loss that is not finite, is raised on every rank. If one rank alone has an
    error, the others wait for it in vain: it says so in one sentence, and ends them all.
    """
    if communicator is not None:
        check_communicator(communicator, "communicator")
    ranks = Ranks(communicator)
    if ranks.size == 1:
        yield ranks
        return
    apart = communicator.Dup()  # on which nothing is sent but this
    try:
        yield ranks
    except BaseException as error:
        everyone, start = apart.Ibarrier(), time.monotonic()
        while not everyone.Test():
            if time.monotonic() - start > SECONDS + 0.2 * communicator.rank:  # so that one rank says it
                end_all(communicator, error)
            time.sleep(0.01)
        apart.Free()
        raise
    apart.Free()


def end_all(communicator, error):
    """Say in one sentence what went wrong on this rank alone, and end all ranks."""
    what = str(error) or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        what = "interrupted"
    elif not isinstance(error, SENTENCES):  # a mistake in a program: its line matters
        traceback.print_exception(error, file=sys.__stderr__)
        what = f"{type(error).__name__}: {error}"
    print(
        f"npflow: rank {communicator.rank} of {communicator.size} ends the run on all: {what}",
        file=sys.__stderr__,
        flush=True,
    )
    time.sleep(1.0)  # mpiexec drops what it has not read by the time of the abort
    communicator.Abort(130 if isinstance(error, KeyboardInterrupt) else 1)


def check_alike(ranks, facts):
    """Raise `InputError`, on every rank, unless all ranks have the same `facts`, plain data by name."""
    first, *others = ranks.gather(facts)
    for rank, other in enumerate(others, 1):
        for name, value in first.items():
            if other.get(name) != value:
                raise InputError(
                    f"expected rank {rank} to have the {name} of rank 0, got another "
                    f"({difference(value, other.get(name))})"
                )


def versions():
    """What the last bits of a result depend on: the versions of libraries, and the kinds of processors."""
    from threadpoolctl import threadpool_info

    kinds = {info.get("architecture") for info in threadpool_info() if info["user_api"] == "blas"}
    found = {}
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):  # a folder on the path
            found[name] = version(name)
    return found | {"processor, as BLAS calls it": sorted(filter(None, kinds))}
