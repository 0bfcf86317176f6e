"""Checkpoints: arrays and a JSON description in one `.npz`, which is replaced as a whole or not at all.

The architecture is rebuilt from the JSON text of the entry ``description``, and the shapes of the parameters are compared
with it. No array is made of a size that only the description states. The parts of a run's state must fit each other.

A new checkpoint is written beside the old one, flushed to the disk, and renamed over it, so that a complete file is
there at any time. A checkpoint knows no device. It is loaded on the host, and its run goes on on any device.
"""

import json
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.devices import to_host
from npflow.description import describe, rebuild
from npflow.errors import InputError, in_short, kind_of
from npflow.files import written_aside
from npflow.model import Model
from npflow.training.npz import read_npz
from npflow.training.older_formats import FORMAT, check_format, convert_act_norms, convert_units
from npflow.training.options import check_path
from npflow.training.run_state import check_run
from npflow.training.skeleton import check_permutations, fill, skeleton_of
from npflow.typing import Params
from npflow.validation import check_instance


@dataclass(repr=False)
class Checkpoint:
    """The contents of a checkpoint.

    Attributes
    ----------
    flow : Flow or Model
        The architecture, rebuilt from its description.
    params : tree of ndarray
        After training, those that `fit` returns.
    run : dict
        The state of the training run as plain data; empty where `save` wrote the file.
    arrays : dict of ndarray
        The arrays of that state.
    format : str
        The format of the file. Older formats are read; the newest is written.
    """

    flow: Model
    params: dict
    run: dict = field(default_factory=dict)
    arrays: dict = field(default_factory=dict)
    format: str = FORMAT

    def __repr__(self):
        run = f"a run at step {self.run['step']}" if "step" in self.run else "no training run"
        return f"Checkpoint of {Layout(self.params).size} parameters and {run}:\n{self.flow!r}"


def save(path: str | PathLike, flow: Model, params: Params) -> None:
    """Write a flow, or another model, and its parameters to a file.

    Parameters
    ----------
    path : str or path
        It ends in ``.npz``. An existing file is replaced once the new one is complete, which keeps its permissions.
    flow : Flow or Model
    params : tree of ndarray

    Raises
    ------
    InputError
        If the parameters are another architecture's, if a hyper-parameter is not plain data, or if the path does not
        end in ``.npz``.
    OSError
        If the file cannot be written. The old one stays.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> import tempfile
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> params = flow.init(rng, rng.normal(size=(100, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     npflow.save(f"{folder}/moons.npz", flow, params)
    ...     npflow.load(f"{folder}/moons.npz").flow == flow
    True
    """
    path = check_path(path)
    if not isinstance(flow, Model):
        raise InputError(f"expected a path, a Flow and its parameters, in this order, got {kind_of(flow)}")
    flow.check(params)
    write(path, flow, params, {}, {})


def write(path, flow, params, run, arrays):
    """Write a checkpoint with the state of a training run: plain data in `run`, and arrays."""
    params = to_host(params)
    layout = Layout(params)
    description = {"format": FORMAT, "flow": describe(flow), "params": skeleton_of(params), "run": run}
    contents = {
        "description": np.array(json.dumps(description, default=lambda array: array.tolist())),
        "params": layout.pack(params),
    }
    for leaf, (_, value) in zip(layout.leaves, tree.items(params)):
        if leaf.offset < 0:
            contents[f"constant:{leaf.path}"] = np.asarray(value)
    contents |= {f"run:{name}": value for name, value in arrays.items()}
    with written_aside(path) as file:
        np.savez(file, **contents)


def load(path: str | PathLike) -> Checkpoint:
    """Read a checkpoint.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    Checkpoint
        It has the flow in ``flow`` and its parameters in ``params``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file is damaged, compressed, or no checkpoint of npflow. If the class of a layer is not defined, or the
        parameters are not those of the architecture. If a permutation in it is not one, or the parts of a run's state
        do not fit each other.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> import tempfile
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> params = flow.init(rng, rng.normal(size=(100, 2)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     npflow.save(f"{folder}/moons.npz", flow, params)
    ...     checkpoint = npflow.load(f"{folder}/moons.npz")
    >>> checkpoint.flow.sample(checkpoint.params, rng, 5).shape
    (5, 2)
    """
    try:
        path = Path(path)
        is_other = path.exists() and not path.is_file()  # a folder; a pipe, for which `open` would wait
    except TypeError:
        raise InputError(f"expected the path of a checkpoint, got {in_short(path)}") from None
    if is_other or "\0" in str(path):
        raise InputError(f"expected a checkpoint at {str(path)!r}, got what is not a file")
    contents = read_npz(path)
    try:
        description = json.loads(contents["description"].item())
        name, architecture = description["format"], description["flow"]
        check_format(name)
        flow = check_instance(rebuild(architecture), Model, "what is stored")
        params = fill(description["params"], contents["params"], with_prefix(contents, "constant:"))
        convert_units(name, architecture, params, flow)
        flow.check(params)
        check_permutations(params)
        arrays, run = with_prefix(contents, "run:"), check_instance(description["run"], dict, "the run")
        if run or arrays:
            check_run(run, arrays, contents["params"])
        convert_act_norms(name, architecture, params, arrays)
        return Checkpoint(flow, params, run, arrays, name)
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except Exception as error:  # a foreign description may fail anywhere
        raise InputError(
            f"expected a checkpoint of npflow at {path}, got another .npz: {type(error).__name__}: {error}"
        ) from error


def load_run(path):
    """Read the checkpoint of a training run; raise `InputError` where it has no state to resume."""
    saved = load(path)
    if not saved.run:
        raise InputError(f"expected the checkpoint of a training run at {path}, got one without its state")
    return saved


def with_prefix(contents, prefix):
    """The entries whose names start with a prefix, by their names without it."""
    return {name.removeprefix(prefix): value for name, value in contents.items() if name.startswith(prefix)}
