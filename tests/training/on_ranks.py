"""What the ranks of MPI do in tests: ``mpiexec -n 2 python on_ranks.py CASE FOLDER``. Rank 0 prints JSON.

``same_bits`` without mpiexec gives the bits of one process.
"""

import json
import os
import re
import signal
import sys
import zlib
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np

from npflow import Dequantized, Flow, InputError, NonFiniteError, datasets, fit
from npflow.autodiff import Layout
from npflow.layers import Affine
from npflow.models import image_glow, maf
from npflow.networks import MADE, ConvNet
from npflow.priors import Normal
from npflow.training import Adam, together


def glow_on_digits():
    data = datasets.image_data("digits").train[:256]  # two batches; a table has a smaller one, too
    return Dequantized(image_glow((8, 8, 1), 2, 1, ConvNet((8, 8), (3, 1, 3))), 17), data


def maf_on_a_table():
    x = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    x[:, 1] += x[:, 0] ** 2
    return maf(4, 2, MADE((16,))), x


MODELS = {"Glow on digits": glow_on_digits, "MAF": maf_on_a_table}


def bits(params):
    return f"{zlib.crc32(Layout(params).pack(params)):08x}"


def trained(model, x, *, steps=6, seed=0, **options):
    """A run with every part of a state: clipping, an average, validation, an epoch whose last batch is smaller."""
    rng = np.random.default_rng(seed)
    params = model.init(np.random.default_rng(1), x[100:200])
    options = {"clip_norm": 5.0, "average": 0.9, "validation": x[:50], "threads": 1, "slices": 5} | options
    return fit(model, params, x, rng=rng, steps=steps, batch_size=128, progress=False, **options)


def same_bits(communicator, folder):
    """Each rank has the result of one process."""
    found = {}
    for name, make in MODELS.items():
        params, history = trained(*make(), communicator=communicator)
        found[name] = [bits(params), history.loss, history.validation_loss]
    return found


def differing(communicator, folder):
    """Ranks that differ are told so, all of them, and can go on."""
    model, x = maf_on_a_table()
    other = communicator.rank == 1
    changed = np.where(np.arange(len(x))[:, None] == 7, 1 + x, x) if other else x
    cases = {
        "data": ((model, changed), {}),
        "flow": ((maf(4, 2, MADE((8 if other else 16,))), x), {}),
        "steps": ((model, x), {"steps": 5 + communicator.rank}),
        "order of the rows": ((model, x), {"seed": communicator.rank}),
        "slices": ((model, x), {"slices": 2 + communicator.rank}),
    }
    found = {}
    for name, (arguments, options) in cases.items():
        try:
            trained(*arguments, communicator=communicator, **options)
        except InputError as error:
            found[name] = str(error)
    version = together.version
    together.version = lambda name: "0.0.1" if other and name == "numpy" else version(name)
    try:
        trained(model, x, communicator=communicator)
    except InputError as error:
        found["libraries"] = str(error)
    together.version = version
    return found


def common_errors(communicator, folder):
    """An error that every rank has can be caught on every rank."""
    flow, x = Flow(Affine(), Normal(2)), np.full((300, 2), 1e200)
    try:
        trained(flow, x, validation=None, communicator=communicator)
    except NonFiniteError as error:
        return [str(error), communicator.allgather(error.history.steps)]


def interrupted(communicator, folder):
    """Ctrl-C on rank 1 ends the run on both after the same step, with a checkpoint that rank 0 writes."""
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def interrupting(self, state, vector, gradient, step):
        if step == 3 and communicator.rank == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return update(self, state, vector, gradient, step)

    update, Adam.update = Adam.update, interrupting
    model, x = maf_on_a_table()
    path, calls = Path(folder) / "interrupted.npz", []
    saving = {"checkpoint": path, "checkpoint_every": 2}
    saving["on_checkpoint"] = lambda params, history: calls.append(history.steps)
    _, history = trained(model, x, communicator=communicator, **saving)
    Adam.update = update
    return communicator.allgather([history.steps, history.interrupted, calls])


def blocks():
    """The blocks of Python on the page of the guide."""
    page = Path(__file__).parents[2] / "docs" / "guide" / "many_machines.md"
    return re.findall(r"```python\n(.*?)```", page.read_text(), flags=re.DOTALL)


def shown(communicator, folder):
    """What the script on the page prints, with fewer steps."""
    os.chdir(folder)
    printed = StringIO()
    with redirect_stdout(printed):
        exec(blocks()[0].replace("steps=200", "steps=2"), {})
    return printed.getvalue()


def several(communicator, folder):
    """Those that come back, one after the other."""
    cases = (same_bits, differing, common_errors, interrupted, shown)
    return {case.__name__: case(communicator, folder) for case in cases}


def alone(communicator, folder):
    """An error of one rank, which the others do not have."""
    together.SECONDS = 0.2
    model, x = maf_on_a_table()
    if communicator.rank == 1:
        x = np.where(np.arange(len(x))[:, None] == 7, np.nan, x)
    trained(model, x, communicator=communicator)


def killed(communicator, folder):
    """Rank 1 is killed in step 5; the checkpoint of step 4 was the last."""

    def killing(self, state, vector, gradient, step):
        if step == 5 and communicator.rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return update(self, state, vector, gradient, step)

    update, Adam.update = Adam.update, killing
    saving = {"checkpoint": Path(folder) / "killed.npz", "checkpoint_every": 2}
    trained(*maf_on_a_table(), communicator=communicator, **saving)


def main(case, folder):
    from mpi4py import MPI

    found = globals()[case](MPI.COMM_WORLD, folder)
    if MPI.COMM_WORLD.rank == 0:
        print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
