"""A training step in one library, and the process that serves it to `side_by_side`."""

import itertools
import json
import sys
import time

import numpy as np

BATCHES = 4  # that the steps go through, again and again


class Contender:
    """A training step in one library.

    Parameters
    ----------
    arrays : dict of ndarray
        The parameters by their paths, and the data as ``"x"``.
    model : object
        Its hyper-parameters, as JSON has them.
    device : {"cpu", "cuda"}

    Attributes
    ----------
    name : str
        What a table calls it.
    module : str
        What has to be installed for it.
    version : str
    gpu : str or None
        What the library calls the GPU; None on the host.
    finds_gpu : str
        What fails, after the import, where the library finds none.
    """

    name = module = version = finds_gpu = ""
    gpu = latest = None

    def send(self, batch):
        """A batch of NumPy's, where the steps are made."""
        return batch

    def prepare(self, batches):
        """What comes once, before the first step; the batches are NumPy's."""

    def step(self, batch):
        """A step, which on a GPU is not waited for."""
        raise NotImplementedError

    def loss(self):
        """The loss of the last step."""
        return float(self.latest)

    def wait(self):
        """Return when all steps so far have been made."""


def save_arrays(file, x, params, rng, scale):
    """Write data, and parameters away from where a flow starts by noise of a scale, for everyone to load."""
    from npflow.autodiff import tree

    arrays = {"x": x}
    for path, leaf in tree.items(params):
        noise = scale * rng.standard_normal(leaf.shape).astype(np.float32) if tree.is_trained(leaf) else 0
        arrays[path] = (leaf + noise).astype(leaf.dtype)
    np.savez(file, **{path.replace("/", "|"): array for path, array in arrays.items()})


def load_arrays(file):
    """What `save_arrays` wrote, by its paths."""
    with np.load(file) as archive:
        return {path.replace("|", "/"): archive[path] for path in archive.files}


# ---------------------------------------------------------------- a process of its own


def serve(contenders, name, file):
    """Serve one library of a dict of them by name: a line of JSON in for each order, a line out."""
    arrays = load_arrays(file)
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "start":
            contender = contenders[name](arrays, order["model"], order["device"])
            size = order["batch"]
            slices = [slice(number * size, (number + 1) * size) for number in range(BATCHES)]
            batches = [arrays["x"][rows].copy() for rows in slices]
            clock = time.perf_counter()
            contender.prepare(batches)
            contender.wait()
            seconds, losses = time.perf_counter() - clock, []
            batches = list(map(contender.send, batches))
            for batch in batches:
                contender.step(batch)
                losses.append(contender.loss())
            answer = {
                "version": contender.version,
                "gpu": contender.gpu,
                "losses": losses,
                "seconds": seconds,
            }
        else:
            answer = {"median": median_step(contender, batches, order["blocks"], order["steps"])}
        answer["peak_bytes"] = peak_bytes()
        print(json.dumps(answer), flush=True)


def median_step(contender, batches, blocks, steps):
    """The seconds of a step: the median over blocks of steps, each waited for at its start and its end alone."""
    batches, times = itertools.cycle(batches), []
    for _ in range(blocks):
        contender.wait()
        clock = time.perf_counter()
        for batch in itertools.islice(batches, steps):
            contender.step(batch)
        contender.wait()
        times.append((time.perf_counter() - clock) / steps)
    return float(np.median(times))


def peak_bytes():
    """The most memory that was ever resident in this process; macOS counts it in bytes, others in KiB."""
    from resource import RUSAGE_SELF, getrusage

    return getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
