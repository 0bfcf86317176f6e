"""Checkpoints: arrays and a JSON description in one `.npz`, replaced whole or not at all.

The file is NumPy's own `.npz`, not compressed, and is read with ``allow_pickle=False``: nothing in it is
ever executed, and no more is read than it has bytes. Its entry ``description`` is a JSON text, from which the
architecture itself is rebuilt. A save writes another file beside the old one, flushes it to the disk and
renames it over the old one, so that at every instant one of the two is there, whole. It knows no device: what
was saved on one is loaded on the host, and a run goes on on any.
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
from npflow.errors import InputError
from npflow.files import written_aside
from npflow.model import Model
from npflow.training.options import check_path

FORMATS = ("npflow checkpoint 1", "npflow checkpoint 2")  # in 1, Adam's m and v had the factors 1 - beta
FORMAT = FORMATS[-1]
ENTRY = re.compile(r"(description|params|constant:.*|run:.*)\.npy")


@dataclass(repr=False)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes
    ----------
    flow : Flow or Model
        The architecture, rebuilt from its description.
    params : tree of ndarray
        The parameters to use: after training, the ones that `fit` returns.
    run : dict
        What `fit` needs to go on: plain data. Empty where none was saved.
    arrays : dict of ndarray
        The arrays that go with `run`.
    format : str
        The format that the file has; an older one is read, the newest is written.
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
        Where to; a file that is there is replaced once the new one is complete.
    flow : Flow or Model
    params : tree of ndarray
        Its parameters.

    Raises
    ------
    InputError
        If the parameters are another architecture's, if the flow holds hyper-parameters that are not
        plain data, or if the path does not end in ``.npz``.
    """
    path = check_path(path)
    if not isinstance(flow, Model):
        raise InputError(
            f"expected a path, a Flow and its parameters, in this order, got a {type(flow).__name__}"
        )
    flow.check(params)
    write(path, flow, params, {}, {})


def write(path, flow, params, run, arrays):
    """Write a checkpoint with the state of a training run: plain data in `run`, and its arrays."""
    params = to_host(params)
    layout = Layout(params)
    description = {"format": FORMAT, "flow": describe(flow), "params": _skeleton(params), "run": run}
    contents = {"description": np.array(json.dumps(description)), "params": layout.pack(params)}
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
        With the flow, rebuilt, in ``flow`` and its parameters in ``params``.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    InputError
        If the file is cut short, damaged, or not a checkpoint of npflow's, if it is compressed, if it describes
        a layer whose class is not defined, or if a permutation in it is none.

    Examples
    --------
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
            # Without NumPy's own words, which may advise to load a file that is not trusted by pickle.
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
    """Read the checkpoint of a training run; raise `InputError` where it has no state to go on from."""
    saved = load(path)
    if not isinstance(saved.run, dict) or not {"settings", "step"} <= saved.run.keys():
        raise InputError(f"expected the checkpoint of a training run at {path}, got one without its state")
    return saved


def with_prefix(contents, prefix):
    """The entries of a dict whose names begin with a prefix, under their names without it."""
    return {name.removeprefix(prefix): value for name, value in contents.items() if name.startswith(prefix)}


def _read_entries(file):
    """The arrays in an open `.npz`; none is read unless all are such as npflow writes, in a file of this size."""
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
    """Raise unless integer leaves of that name are permutations: no layer looks at them before it uses them."""
    for path, leaf in tree.items(params):
        if path.endswith("permutation") and not tree.is_trained(leaf):
            numbers = np.arange(leaf.shape[-1])
            if not np.can_cast(leaf.dtype, numbers.dtype) or np.any(np.sort(leaf) != numbers):
                raise InputError(f"expected each number below {len(numbers)} once at {path!r}, got others")


def _skeleton(params):
    """The tree as JSON: dicts, lists and tuples told apart, a shape for each leaf."""
    if isinstance(params, dict):
        return {"dict": {key: _skeleton(branch) for key, branch in params.items()}}
    if isinstance(params, (list, tuple)):
        return {type(params).__name__: [_skeleton(branch) for branch in params]}
    return {"shape": list(np.shape(params)), "trained": bool(tree.is_trained(params))}


def _fill(skeleton, vector, constants):
    """The tree of a skeleton: trained leaves as views of the vector, constants as they were saved."""

    def leaf(path, blank):
        return blank if blank is not None else constants[path]

    def blank(part):
        (kind, branches), *_ = part.items()
        if kind == "dict":
            return {key: blank(branch) for key, branch in branches.items()}
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](blank(branch) for branch in branches)
        # One number seen in that shape: whatever shape a file speaks of, no memory is taken for it.
        return np.broadcast_to(np.zeros((), vector.dtype), branches) if part["trained"] else None

    params = tree.build(leaf, blank(skeleton))
    return Layout(params).unpack(vector, params)
