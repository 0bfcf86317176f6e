"""A training step in one library, and the process that serves it to `side_by_side`."""

import itertools
import json
import sys
import time

import numpy as np

BATCHES = 4  # the steps go through them again and again


class Contender:
    """A training step in one library.

    Parameters
    ----------
    arrays : dict of ndarray
        The parameters by their paths, and the data as ``"x"``.
    model : object
        The hyper-parameters, as JSON data.
    device : {"cpu", "cuda"}

    Attributes
    ----------
    name : str
        The library's name in the table.
    module : str
        The package that has to be installed.
    version : str
    gpu : str or None
        The library's name of the GPU; None on the host.
    finds_gpu : str
        A statement that fails, after the import, if the library finds no GPU.
    """

    name = module = version = finds_gpu = ""
    gpu = latest = None

    def send(self, batch):
        """A NumPy batch, moved to the device."""
        return batch

    def prepare(self, batches):
        """Get ready for the first step on the NumPy batches; return the seconds that this takes."""
        return 0.0

    def first_losses(self, batches):
        """Make a step on each batch; return its loss."""
        losses = []
        for batch in map(self.send, batches):
            self.step(batch)
            losses.append(float(self.latest))
        return losses

    def make_steps(self, batches):
        """Make a step on each batch of an iterator, which measures the time between two batches."""
        for batch in batches:
            self.step(batch)

    def step(self, batch):
        """Make a step without waiting for the GPU; store its loss in `latest`."""
        raise NotImplementedError

    def wait(self):
        """Return when all steps so far are finished."""


def save_arrays(file, x, params, rng, scale):
    """Write the data, and parameters plus noise of standard deviation `scale`, for all to load."""
    from npflow.autodiff import tree

    arrays = {"x": x}
    for path, leaf in tree.items(params):
        noise = scale * rng.standard_normal(leaf.shape).astype(np.float32) if tree.is_trained(leaf) else 0
        arrays[path] = (leaf + noise).astype(leaf.dtype)
    np.savez(file, **{path.replace("/", "|"): array for path, array in arrays.items()})


def load_arrays(file):
    """The arrays that `save_arrays` wrote, by their paths."""
    with np.load(file) as archive:
        return {path.replace("|", "/"): archive[path] for path in archive.files}


# ---------------------------------------------------------------- a process of its own


def serve(contenders, name, file):
    """Serve one library of a dict of them by name: each order is a line of JSON, and so is its answer."""
    arrays, order = load_arrays(file), json.loads(sys.stdin.readline())
    contender, size = contenders[name](arrays, order["model"], order["device"]), order["batch"]
    slices = [slice(number * size, (number + 1) * size) for number in range(BATCHES)]
    batches = [arrays["x"][rows].copy() for rows in slices]
    start = {
        "seconds": contender.prepare(batches),
        "losses": contender.first_losses(batches),
        "version": contender.version,
        "gpu": contender.gpu,
    }
    contender.make_steps(orders(contender, start, list(map(contender.send, batches))))


def orders(contender, start, batches):
    """Answer the start, then each order to time blocks of steps; yield a batch for each step to make.

    The answer is the median over blocks of the seconds per step. Only the start and the end of a block wait for
    the device.
    """
    say(**start)
    for line in sys.stdin:
        order, times, batches_in_turn = json.loads(line), [], itertools.cycle(batches)
        for _ in range(order["blocks"]):
            contender.wait()
            clock = time.perf_counter()
            yield from itertools.islice(batches_in_turn, order["steps"])
            contender.wait()
            times.append((time.perf_counter() - clock) / order["steps"])
        say(median=float(np.median(times)), peak_bytes=peak_bytes())


def say(**answer):
    """Answer an order."""
    print(json.dumps(answer), flush=True)


def peak_bytes():
    """The peak resident memory of this process; macOS reports bytes, other systems KiB."""
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
