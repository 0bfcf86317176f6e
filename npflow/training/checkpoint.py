"""Checkpoints: arrays and a JSON description in one `.npz`, which is replaced as a whole or not at all.

The file is an uncompressed `.npz`, read with ``allow_pickle=False``: no code in it is run, and no more memory is taken
than the file has bytes. The architecture is rebuilt from the JSON text of its entry ``description``. A new checkpoint
is written beside the old one, flushed to the disk, and renamed over it, so that a complete file is there at any time.
A checkpoint knows no device. It is loaded on the host, and its run goes on on any device.
"""

import json
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.devices import to_host
from npflow.description import describe, rebuild
from npflow.errors import InputError, kind_of
from npflow.files import written_aside
from npflow.model import Model
from npflow.training.options import check_path

FORMATS = ("npflow checkpoint 1", "npflow checkpoint 2")  # in 1, Adam's m and v have the factors 1 - beta
FORMAT = FORMATS[-1]
ENTRY = re.compile(r"(description|params|constant:.*|run:.*)\.npy")


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


def save(path, flow, params):
    """Write a flow, or another model, and its parameters to `path`, which ends in ``.npz``.

    Parameters
    ----------
    path : str or path
        An existing file is replaced once the new one is complete.
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
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.real_nvp(features=2, couplings=2)
    >>> params = flow.init(rng, rng.normal(size=(100, 2)))
    >>> npflow.save("moons.npz", flow, params)                         # doctest: +SKIP
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
    description = {"format": FORMAT, "flow": describe(flow), "params": _skeleton(params), "run": run}
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


def load(path):
    """Read a checkpoint.

    Returns
    -------
    Checkpoint
        It has the flow in ``flow`` and its parameters in ``params``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file is damaged, compressed, or no checkpoint of npflow, if the class of a layer is not defined, or if
        a permutation in it is not one.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> checkpoint = npflow.load("moons.npz")                          # doctest: +SKIP
    >>> checkpoint.flow.sample(checkpoint.params, rng, 100)            # doctest: +SKIP
    """
    path = Path(path)
    with path.open("rb") as file:
        try:
            contents = _read_entries(file)
        except InputError as error:
            raise InputError(f"{path} cannot be used: {error}") from error
        except Exception as error:  # a damaged archive raises almost anything
            # NumPy's own message is left out: it may advise to load the file with pickle.
            raise InputError(
                f"expected a checkpoint at {path}, got a file that is damaged, cut short or foreign: "
                f"{type(error).__name__}"
            ) from None
    try:
        description = json.loads(str(contents["description"]))
        if description["format"] not in FORMATS:
            raise InputError(f"expected the format {FORMAT!r} in {path}, got {description['format']!r}")
        flow = rebuild(description["flow"])
        constants = with_prefix(contents, "constant:")
        params = _fill(description["params"], contents["params"], constants)
        flow.check(params)
        _check_permutations(params)
        arrays = with_prefix(contents, "run:")
        return Checkpoint(flow, params, description["run"], arrays, description["format"])
    except InputError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"expected a checkpoint of npflow at {path}, got another .npz: {type(error).__name__}: {error}"
        ) from error


def load_run(path):
    """Read the checkpoint of a training run; raise `InputError` where it has no state to resume."""
    saved = load(path)
    if not isinstance(saved.run, dict) or not {"settings", "step"} <= saved.run.keys():
        raise InputError(f"expected the checkpoint of a training run at {path}, got one without its state")
    return saved


def with_prefix(contents, prefix):
    """The entries whose names start with a prefix, by their names without it."""
    return {name.removeprefix(prefix): value for name, value in contents.items() if name.startswith(prefix)}


def _read_entries(file):
    """The arrays in an open `.npz`; none is read unless npflow may have written all, and all fit into the file."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        for entry in entries:
            name = entry.filename[:80]
            if not ENTRY.fullmatch(entry.filename):
                raise InputError(f"expected the entries of a checkpoint of npflow, got one called {name!r}")
            if entry.compress_type != zipfile.ZIP_STORED:
                raise InputError(
                    f"expected entries that are not compressed, as npflow writes them, got {name!r}"
                )
        size, room = sum(entry.file_size for entry in entries), os.fstat(file.fileno()).st_size
        if size > room:
            raise InputError(f"expected entries that fit into the file of {room:,} bytes, got {size:,}")
        contents = {}
        for entry in entries:
            with archive.open(entry) as stored:
                name = entry.filename.removesuffix(".npy")
                contents[name] = np.lib.format.read_array(stored, allow_pickle=False)
        return contents


def _check_permutations(params):
    """Raise unless all leaves called permutation are permutations; layers use them without a check."""
    for path, leaf in tree.items(params):
        if path.endswith("permutation") and not tree.is_trained(leaf):
            numbers = np.arange(leaf.shape[-1])
            if not np.can_cast(leaf.dtype, numbers.dtype) or np.any(np.sort(leaf) != numbers):
                raise InputError(f"expected each number below {len(numbers)} once at {path!r}, got others")


def _skeleton(params):
    """The structure of a tree as JSON: dicts, lists and tuples, and the shape of each leaf."""
    if isinstance(params, dict):
        return {"dict": {key: _skeleton(branch) for key, branch in params.items()}}
    if isinstance(params, (list, tuple)):
        return {type(params).__name__: [_skeleton(branch) for branch in params]}
    return {"shape": list(np.shape(params)), "trained": bool(tree.is_trained(params))}


def _fill(skeleton, vector, constants):
    """The tree of a skeleton: its trained leaves are views of the vector."""

    def leaf(path, blank):
        return blank if blank is not None else constants[path]

    def blank(part):
        (kind, branches), *_ = part.items()
        if kind == "dict":
            return {key: blank(branch) for key, branch in branches.items()}
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](blank(branch) for branch in branches)
        # A view of one number: a shape in a file takes no memory, however large it is.
        return np.broadcast_to(np.zeros((), vector.dtype), branches) if part["trained"] else None

    params = tree.build(leaf, blank(skeleton))
    return Layout(params).unpack(vector, params)
