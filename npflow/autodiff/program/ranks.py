"""The gradients of the slices of a batch, added up in one binary tree: by one process, or by the ranks of MPI.

A rounded sum depends on its order, and MPI's own `Allreduce` adds in another order on another number of ranks. So the
order is fixed here: slices are the leaves of a binary tree, neighbours are added first, then neighbouring pairs, and so
on. Each rank works on neighbouring slices, adds up the largest subtrees that lie within them, and sends those sums
alone. Every rank adds up what is left of the tree for its share of the vector, and sends the result to all.
"""

import os

import numpy as np

from npflow.autodiff.gpu.devices import HOST, device_of, fetch, to_device
from npflow.autodiff.program.chunks import in_chunks


class Ranks:
    """The processes that work on the slices of a batch: the ranks of a communicator, or this one alone.

    Every rank must call a method at the same place: it waits for the others.

    Parameters
    ----------
    communicator : mpi4py.MPI.Intracomm, optional
        By default there is one process.

    Attributes
    ----------
    rank, size : int
        The number of this process, and how many there are.
    """

    def __init__(self, communicator=None):
        self.communicator = communicator
        self.rank, self.size = (0, 1) if communicator is None else (communicator.rank, communicator.size)
        self.blocks = {}  # what `exchange` receives into

    @property
    def is_first(self):
        """Whether this is the rank that writes files and shows progress."""
        return self.rank == 0

    # ---------------------------------------------------------------- small messages

    def gather(self, value):
        """The values of all ranks, in order."""
        return [value] if self.size == 1 else self.communicator.allgather(value)

    def first(self, value):
        """The value of rank 0."""
        return value if self.size == 1 else self.communicator.bcast(value)

    def any(self, flag):
        """Whether the flag of some rank is set."""
        return any(self.gather(flag))

    def threads(self):
        """The number of threads for this rank: the cores of its machine, divided among the ranks there."""
        affinity = getattr(os, "sched_getaffinity", None)
        cores = affinity(0) if affinity else set(range(os.cpu_count() or 1))
        if self.size == 1:
            return len(cores)
        from mpi4py import MPI

        here = self.communicator.Split_type(MPI.COMM_TYPE_SHARED)
        cores, ranks = set().union(*here.allgather(cores)), here.size  # mpiexec may give each rank its own
        here.Free()
        return max(1, len(cores) // ranks)

    # ---------------------------------------------------------------- the sum

    def share(self, count, rank=None):
        """The numbers of the slices, of `count`, that a rank works on; by default this one."""
        rank = self.rank if rank is None else rank
        first, last = (-(-count * number // self.size) for number in (rank, rank + 1))
        return range(first, last)

    def add_up(self, gradients, shares, count, out):
        """Write the sum of the gradients of all slices, each times its share of the rows, to the vector `out`.

        `gradients` and `shares` are those of this rank's slices, of `count`. The gradients are changed. The first of
        them is `out`.
        """
        mine = self.share(count)
        trees = [slice(one.start - mine.start, one.stop - mine.start) for one in subtrees(mine, count)]

        def add_up(*parts):
            for part, share in zip(parts, shares):
                part *= share
            for one in trees:
                add_in_tree(list(parts[one]))

        if gradients:
            in_chunks(add_up, *gradients)
        if self.size > 1:
            sums, there = [gradients[one.start] for one in trees], device_of(out)
            if there is HOST:
                self.exchange(sums, count, out)
            else:  # by way of the host
                total = np.empty(out.shape, out.dtype)
                self.exchange([fetch(one) for one in sums], count, total)
                out[...] = to_device(total, there.name)

    def exchange(self, sums, count, out):
        """Write the sum of the whole tree to `out`, from the sums of each rank's subtrees."""
        owners = [list(subtrees(self.share(count, rank), count)) for rank in range(self.size)]
        bounds = [out.size * rank // self.size for rank in range(self.size + 1)]
        lengths, starts = np.diff(bounds), bounds[:-1]  # each rank adds up its share of the vector
        length = lengths[self.rank]
        key = count, length, out.dtype
        if key not in self.blocks:
            self.blocks[key] = np.empty((sum(map(len, owners)), length), out.dtype)
        block, received = self.blocks[key], {}
        for number in range(max(map(len, owners))):  # the first subtree of each rank, the second, ...
            senders = [rank for rank in range(self.size) if number < len(owners[rank])]
            rows = block[len(received) : len(received) + len(senders)]
            received |= {owners[rank][number].start: row for rank, row in zip(senders, rows)}
            sends = self.rank in senders
            counts = np.where(np.isin(range(self.size), senders), length, 0)
            self.communicator.Alltoallv(
                [sums[number] if sends else out, (lengths * sends, starts)],
                [rows, (counts, np.cumsum(counts) - counts)],
            )

        def add_up(*parts):
            places = dict(zip(received, parts))
            add_in_tree([places.get(number) for number in range(count)])

        in_chunks(add_up, *received.values())
        self.communicator.Allgatherv([received[0], length], [out, (lengths, starts)])

    def nbytes(self, count, vector):
        """The bytes that `exchange` takes for a vector of so many bytes: a share of it for each subtree."""
        if self.size == 1:
            return 0
        trees = sum(len(list(subtrees(self.share(count, rank), count))) for rank in range(self.size))
        return trees * vector // self.size


def add_in_tree(vectors):
    """Add vectors up in a binary tree, in place; the sum is in the first.

    None stands for a vector that has been added to the one before it in the tree.
    """
    step = 1
    while step < len(vectors):
        for left in range(0, len(vectors) - step, 2 * step):
            if vectors[left + step] is not None:
                vectors[left] += vectors[left + step]
        step *= 2


def subtrees(share, count):
    """Yield the largest subtrees, of a tree with `count` leaves, whose leaves are in a range, as ranges of leaves."""
    first = share.start
    while first < share.stop:
        size = 1
        while size < count and first % (2 * size) == 0 and min(first + 2 * size, count) <= share.stop:
            size *= 2
        yield range(first, min(first + size, share.stop))
        first += size
