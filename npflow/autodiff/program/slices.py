"""The loss of a mini-batch and its gradient: by programs, on slices of the batch, or by the plain tape."""

import collections
import contextvars
import itertools
import math
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import HOST
from npflow.autodiff.program import record
from npflow.autodiff.program.chunks import in_chunks, widest_row
from npflow.autodiff.program.threads import one_blas_thread

# A slice has to be worth a thread of its own. Python lets one thread run at a time, and NumPy lets go of it
# during a call, so two threads pass it back and forth at every line: some 5 microseconds each time. On slices
# whose lines take three times that, two threads are well ahead of one; on smaller ones, they are behind.
SECONDS_A_LINE = 16e-6
FLOPS_A_SECOND, BYTES_A_SECOND = 80e9, 40e9  # a core's, roughly: the same everywhere, not exact
# And it has to be worth a gradient of its own: all parameters are read, and a number for each is written and added up.
# That takes some 6 nanoseconds a parameter; a slice is to take four times as long.
SECONDS_A_PARAMETER = 25e-9
MOST_SLICES = 16
# Rows times the parameters, or times the numbers of the widest layer: recording then takes hundreds of megabytes.
LARGE = 2**24


class ProgramGradient:
    """A loss that is a mean over rows, and its gradient, by recorded programs: one for each size of batch.

    A large batch is cut into slices that threads can work off side by side. How it is cut depends on its
    shape and the program alone, and the slices' gradients are added up in their order: the result is the
    same to the bit however many threads there are.

    Parameters
    ----------
    loss : callable
        `loss(params, *batch) -> scalar`, the mean of something over the rows of the batch's arrays.
    params : tree of ndarray
        Where they are read at each call: views that an optimizer changes in place.
    threads : int
        How many slices are worked on at a time.
    """

    def __init__(self, loss, params, threads=1):
        self.loss, self.params, self.threads = loss, params, threads
        self.plans = {}  # for each shape and dtype of a batch: its slices, with the program of each
        self.pool = None

    def __call__(self, batch, out):
        """The loss of a batch, an array or a tuple of them; the gradient is written to the vector `out`."""
        batch = arrays_of(batch)
        slices = self.slices(batch)
        if len(slices) == 1 or self.threads == 1:
            losses = [piece.run(batch) for piece in slices]
        else:
            # A copy of the context each: NumPy's error state is part of it, and a new thread has its own.
            self.pool = self.pool or ThreadPoolExecutor(self.threads)
            jobs = [self.pool.submit(contextvars.copy_context().run, piece.run, batch) for piece in slices]
            wait(jobs)  # all of them, also where one fails: none may still write when this returns
            losses = [job.result() for job in jobs]
        if len(slices) == 1:
            out[...] = slices[0].gradient.vector
            return losses[0]
        shares = [piece.share for piece in slices]
        in_chunks(
            lambda total, *parts: add_up(total, parts, shares),
            out,
            *(piece.gradient.vector for piece in slices),
        )
        return sum(share * loss for share, loss in zip(shares, losses))

    def slices(self, batch):
        """The slices of a batch like this one: planned, and their programs recorded, at the first of its kind."""
        batch = arrays_of(batch)
        kind = tuple((array.shape, array.dtype) for array in batch)
        if kind not in self.plans:
            self.plans[kind] = self.plan(batch)
        return self.plans[kind]

    def nbytes(self, batch):
        """How much memory the slices of a batch like this one take: a workspace for each thread, and their gradients."""
        slices = self.slices(batch)
        shares = collections.Counter(piece.program for piece in slices)
        workspaces = sum(min(self.threads, count) * program.peak_bytes for program, count in shares.items())
        return workspaces + sum(piece.gradient.vector.nbytes for piece in slices)

    def plan(self, batch):
        """The slices of a batch like this one.

        What a batch takes is seen from a program of all of it. Where that may be much, programs of one row and of two are
        made first: they tell how much memory the batch takes, before it is taken.

        Raises
        ------
        MemoryError
            Where that is more than is free.
        """
        rows, parameters = len(batch[0]), tree.Layout(self.params)
        a_row = max(parameters.size, *(widest_row(self.params, array) for array in batch))
        tried = (rows,) if rows * a_row < LARGE else (1, min(2, rows))
        with one_blas_thread():
            programs = {count: self.record(batch, 0, count) for count in tried}
            needs = lambda rows: forecast([Needs.of(programs[count]) for count in tried], rows)
            program = programs[tried[0]]
            count = min(slices_worth(program, needs(rows).seconds), rows)
            if rows not in tried:
                a_slice = needs(-(-rows // count))
                check_memory(program, a_slice, rows, count, min(self.threads, count), parameters)
            bounds = [rows * number // count for number in range(count + 1)]
            slices = []
            for start, stop in itertools.pairwise(bounds):
                if stop - start not in programs:
                    programs[stop - start] = self.record(batch, start, stop)
                slices.append(Slice(programs[stop - start], self.params, batch, start, stop))
            return slices

    def record(self, batch, start, stop):
        """The program of some rows of a batch."""
        return record(self.loss, self.params, *(array[start:stop] for array in batch))

    def close(self):
        """Let the threads go."""
        if self.pool is not None:
            self.pool.shutdown()
            self.pool = None


class Slice:
    """Some rows of a batch, and the program that computes their loss."""

    def __init__(self, program, params, batch, start, stop):
        self.program, self.rows, self.share = program, slice(start, stop), (stop - start) / len(batch[0])
        self.parameters, _ = program.read(params, *self.of(batch))
        self.gradient = program.new_gradient()

    def of(self, batch):
        """The rows of a batch that are in this slice."""
        return tuple(array[self.rows] for array in batch)

    def run(self, batch):
        """The loss of this slice of a batch; its gradient is left in `gradient`."""
        with self.program.workspace() as workspace:
            return self.program.run(self.parameters, self.of(batch), workspace, self.gradient)


def add_up(total, gradients, shares):
    """Write the sum of gradients, each times its share of the rows, to `total`; they are used up."""
    first, *others = gradients
    np.multiply(first, shares[0], out=total)
    for gradient, share in zip(others, shares[1:]):
        gradient *= share
        total += gradient


def arrays_of(batch):
    """The arrays of a batch, as many rows in each."""
    return batch if isinstance(batch, tuple) else (batch,)


class Needs(NamedTuple):
    """What a program takes: time, roughly, and the bytes of its workspace, and of a recording of it."""

    seconds: float
    workspace: float
    recording: float

    @classmethod
    def of(cls, program):
        """What a program takes."""
        cost = program.total_cost
        seconds = cost.flops / FLOPS_A_SECOND + cost.bytes / BYTES_A_SECOND
        return cls(seconds, program.peak_bytes, program.bytes_without_reuse)


def forecast(needs, rows):
    """What a program of so many rows takes, from what those of one row and of two take; or of that many themselves.

    What is made of the parameters alone is the same for any number of rows. The rest grows by as much for each.
    """
    first, last = needs[0], needs[-1]
    return Needs(*(one + (rows - 1) * (two - one) for one, two in zip(first, last)))


def slices_worth(program, seconds):
    """How many slices a batch is to be cut into that takes so many seconds; `program` is one of some of its rows."""
    if program.device is not HOST:  # a GPU shares the work of one call out itself
        return 1
    parameters = max(sum(map(math.prod, program.shapes)), 1)
    worth = min(seconds / (program.lines * SECONDS_A_LINE), seconds / (parameters * SECONDS_A_PARAMETER))
    return int(min(max(worth, 1), MOST_SLICES))


def check_memory(program, needs, rows, count, threads, parameters):
    """Raise unless there is memory for a batch of so many rows, cut into `count` slices that need as much each.

    A recording holds a gradient and what autograd's tape does, and is held against the function on nudged parameters;
    a step has a workspace for each thread and a gradient for each slice.
    """
    a_gradient = parameters.size * parameters.dtype.itemsize
    needed = max(needs.recording + 3 * a_gradient, threads * needs.workspace + count * a_gradient)
    free = program.device.free_bytes()
    if needed > free:
        raise MemoryError(
            f"expected {needed / 1e9:.1f} GB of free memory on {program.device} for batches of {rows} rows, got "
            f"{free / 1e9:.1f} GB: fewer rows at a time take less, and so does a smaller model"
        )
