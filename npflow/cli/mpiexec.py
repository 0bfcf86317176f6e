"""The ranks that ``mpiexec -n 4 npflow train ...`` starts."""

import os
import sys
from pathlib import Path

from npflow.autodiff.program.ranks import Ranks
from npflow.errors import InputError

# How MPICH and its relatives, Open MPI and Slurm tell a process how many were started with it.
SIZES = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS")


def find_ranks():
    """The ranks that were started together, or this process alone; mpi4py is imported only where there are several.

    Raises
    ------
    InputError
        If several were started, and there is no mpi4py to join them.
    """
    size = max(int(os.environ.get(name) or 1) for name in SIZES)
    if size == 1:
        return Ranks()
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:  # without mpi4py, or without a library of MPI
        raise InputError(
            f"expected mpi4py, to join the {size} processes that were started, got none ({error}): "
            "pip install 'npflow[mpi]'"
        ) from error
    return Ranks(MPI.COMM_WORLD)


def speak_once(ranks):
    """Let rank 0 alone print: the others write to nowhere."""
    if not ranks.is_first:
        sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115 (until the process ends)
