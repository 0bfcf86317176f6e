"""The loss of a batch and its gradient, by programs that run on slices of the batch."""

import collections
import contextvars
import ctypes
import itertools
import math
import os
import sys
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.gpu.devices import HOST, device_of
from npflow.autodiff.program import record
from npflow.autodiff.program.chunks import widest_row
from npflow.autodiff.program.ranks import Ranks
from npflow.autodiff.program.threads import one_blas_thread

# A slice must be worth a thread. Only one thread runs Python at a time, and NumPy releases Python's lock
# during a call, so threads wait for the lock at every line: about 5 microseconds. If lines take three times
# as long, two threads are well ahead of one; if they take less, they are behind.
SECONDS_A_LINE = 16e-6
FLOPS_A_SECOND, BYTES_A_SECOND = 80e9, 40e9  # roughly a core's; the same everywhere, so that results are too
# A slice must also be worth a gradient vector: all parameters are read, and a number for each is written and
# added up. That takes about 6 nanoseconds a parameter; a slice must take four times as long.
SECONDS_A_PARAMETER = 25e-9
MOST_SLICES = 16
# Rows times parameters, or times the numbers of a row in the widest layer. A recording takes hundreds of
# megabytes then.
LARGE = 2**24


class ProgramGradient:
    """A loss that is a mean over rows, and its gradient, by recorded programs: one for each size of batch.

    A large batch is cut into slices, which threads and ranks work on side by side. Their number is `count`, and by
    default depends on the shape of the batch and the program alone; their gradients are added up in one binary
    tree. So the result is the same to the bit for any number of `ranks` and of `threads`, which is how many slices
    run at a time on each rank.

    ``loss(params, *batch)`` is the mean over the rows of the batch. `params` are read at each call: they are
    views of a vector that an optimizer changes in place.
    """

    def __init__(self, loss, params, threads=1, count=None, ranks=None):
        self.loss, self.params, self.threads, self.count = loss, params, threads, count
        self.ranks = ranks or Ranks()
        self.plans = {}  # the `Plan` of a batch, by its shapes and dtypes
        self.vectors = []  # for the gradients of all slices of a batch but the first
        self.pool, self.process = None, None

    def __reduce__(self):
        # A copy records its own programs.
        return ProgramGradient, (self.loss, self.params, self.threads, self.count)

    def __call__(self, batch, out):
        """The loss of a batch, a tuple of arrays; the gradient is written to the vector `out`."""
        plan = self.plan_of(batch)
        slices = plan.slices
        while len(self.vectors) < len(slices) - 1:
            self.vectors.append(np.empty_like(out))
        gradients = [out, *self.vectors][: len(slices)]
        if len(slices) <= 1 or self.threads == 1 or device_of(out) is not HOST:
            losses = [part.run(batch, gradient) for part, gradient in zip(slices, gradients)]
        else:
            # Each job has a copy of the context, which includes NumPy's error state: a new thread has its
            # own.
            if self.process != os.getpid():  # a forked child has none of its parent's threads
                self.pool, self.process = ThreadPoolExecutor(self.threads), os.getpid()
            jobs = [
                self.pool.submit(contextvars.copy_context().run, part.run, batch, gradient)
                for part, gradient in zip(slices, gradients)
            ]
            wait(jobs)  # for all, even if one fails: none may still write when this returns
            losses = [job.result() for job in jobs]
        if plan.count == self.ranks.size == 1:
            return losses[0]
        shares = [part.share for part in slices]
        self.ranks.add_up(gradients, shares, plan.count, out)
        losses = self.ranks.gather([share * loss for share, loss in zip(shares, losses)])
        return sum(itertools.chain(*losses))

    def plan_of(self, batch):
        """The `Plan` of a batch like this one; it is made and recorded once for its shapes and dtypes."""
        kind = tuple((array.shape, array.dtype) for array in batch)
        if kind not in self.plans:
            self.plans[kind] = self.plan(batch)
        return self.plans[kind]

    def slices(self, batch):
        """The slices of a batch like this one that this rank works on."""
        return self.plan_of(batch).slices

    def rows_of(self, size):
        """The rows that this rank needs of a batch of `size` rows; None for all, also before there is a plan."""
        if self.ranks.size == 1:
            return None
        return next((plan.rows for kind, plan in self.plans.items() if kind[0][0][0] == size), None)

    def nbytes(self, batch):
        """The bytes for the slices of a batch like this one: a workspace for each thread, and more gradients."""
        slices = self.slices(batch)
        counts = collections.Counter(part.program for part in slices)
        workspaces = sum(min(self.threads, count) * program.peak_bytes for program, count in counts.items())
        layout = tree.Layout(self.params)
        vector = layout.size * layout.dtype.itemsize
        exchange = self.ranks.nbytes(self.plan_of(batch).count, vector)
        return workspaces + max(len(slices) - 1, 0) * vector + exchange

    def plan(self, batch):
        """How a batch like this one is cut, and the slices of it that this rank works on.

        A program of the whole batch tells what it needs. If that may be much, programs of one row and of two
        rows are recorded instead, and tell how much memory the batch needs before it is taken.

        Raises
        ------
        MemoryError
            If the batch needs more memory than is free.
        """
        rows, parameters = len(batch[0]), tree.Layout(self.params)
        a_row = max(parameters.size, *(widest_row(self.params, array) for array in batch))
        tried = (rows,) if rows * a_row < LARGE else (1, min(2, rows))
        with one_blas_thread():
            programs = {count: self.record(batch, 0, count) for count in tried}
            program, second = programs[tried[0]], programs[tried[-1]]
            needs = lambda rows: forecast(program, second, rows)
            seconds, _, _ = needs(rows)
            count = min(self.count or slices_worth(program, seconds), rows)
            mine = self.ranks.share(count)
            if rows not in tried:
                a_slice = needs(-(-rows // count))
                check_memory(program, a_slice, rows, len(mine), min(self.threads, len(mine)), parameters)
            bounds = [rows * number // count for number in range(count + 1)]
            slices = []
            for number in mine:
                start, stop = bounds[number], bounds[number + 1]
                if stop - start not in programs:
                    programs[stop - start] = self.record(batch, start, stop)
                slices.append(Slice(programs[stop - start], self.params, batch, start, stop))
            return Plan(count, slice(bounds[mine.start], bounds[mine.stop]), slices)

    def record(self, batch, start, stop):
        """The program of some rows of a batch."""
        program = record(self.loss, self.params, *(array[start:stop] for array in batch))
        give_back_memory()
        return program

    def close(self):
        """End the threads."""
        if self.pool is not None:
            self.pool.shutdown()
            self.pool, self.process = None, None


def give_back_memory():
    """Return memory that is free to the operating system, where the C library is glibc.

    It keeps what the many small objects of a recording took, and the arrays between them: of a large model a quarter
    of a gigabyte.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # musl has none
        if trim is not None:
            trim(0)


class Plan(NamedTuple):
    """How a batch is cut: into `count` slices, of which this rank works on some, whose `rows` it needs."""

    count: int
    rows: slice
    slices: list


class Slice:
    """The part of a batch that one thread works on, and the program of its loss."""

    def __init__(self, program, params, batch, start, stop):
        self.program, self.rows, self.share = program, slice(start, stop), (stop - start) / len(batch[0])
        self.parameters, _ = program.read(params, *self.of(batch))
        self.gradient = None

    def of(self, batch):
        """The rows of a batch in this slice."""
        return tuple(array[self.rows] for array in batch)

    def run(self, batch, vector):
        """The loss of this slice of a batch; its gradient is written to `vector`, mostly the same one."""
        if self.gradient is None or self.gradient.vector is not vector:
            self.gradient = self.program.new_gradient(vector)
        with self.program.workspace() as workspace:
            return self.program.run(self.parameters, self.of(batch), workspace, self.gradient)


def needs_of(program):
    """What a program needs: roughly the seconds, and the bytes of its workspace and of its recording.

    Calls that the backward pass makes once more do not count, so that reversible training has the same slices.
    """
    cost = program.cost_once
    seconds = cost.flops / FLOPS_A_SECOND + cost.bytes / BYTES_A_SECOND
    return np.array([seconds, program.peak_bytes, program.bytes_without_reuse])


def forecast(first, second, rows):
    """The needs of a program of `rows` rows, from programs of one row and of two; or from that very one twice.

    Calls on parameters alone need the same for any number of rows. All others need the same for each row.
    """
    return needs_of(first) + (rows - 1) * (needs_of(second) - needs_of(first))


def slices_worth(program, seconds):
    """The number of slices of a batch that takes `seconds`; `program` is a program of any of its rows."""
    if program.device is not HOST:  # a GPU divides the work of one call itself
        return 1
    parameters = max(sum(map(math.prod, program.shapes)), 1)
    worth = min(seconds / (program.lines * SECONDS_A_LINE), seconds / (parameters * SECONDS_A_PARAMETER))
    return int(min(max(worth, 1), MOST_SLICES))


def check_memory(program, needs, rows, count, threads, parameters):
    """Raise unless there is memory for `rows` rows, cut into `count` slices with these `needs` each.

    A recording holds the arrays of autograd's tape, a gradient, and changed parameters to compare the program
    on. A step has a workspace for each thread and a gradient for each slice.
    """
    _, workspace, recording = needs
    a_gradient = parameters.size * parameters.dtype.itemsize
    needed = max(recording + 3 * a_gradient, threads * workspace + count * a_gradient)
    free = program.device.free_bytes()
    if needed > free:
        raise MemoryError(
            f"expected {needed / 1e9:.1f} GB of free memory on {program.device} for batches of {rows} rows, "
            f"got {free / 1e9:.1f} GB: take fewer rows at a time, or a smaller model"
        )
