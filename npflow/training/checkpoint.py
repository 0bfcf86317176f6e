"""Checkpoints: arrays and a JSON description in one `.npz`, which is replaced as a whole or not at all.

The file is an uncompressed `.npz` without pickles: no code in it is run, and no more memory is taken than the file has
bytes. Each entry is read to its end, so that its checksum is compared. The architecture is rebuilt from the JSON text
of the entry ``description``, and its parameters are compared with it by their shapes: nothing of a size that only the
description names is made. The parts of a run's state are held against each other.

A new checkpoint is written beside the old one, flushed to the disk, and renamed over it, so that a complete file is
there at any time. A checkpoint knows no device. It is loaded on the host, and its run goes on on any device.
"""

import json
import math
import os
import re
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout, tree
from npflow.autodiff.gpu.devices import to_host
from npflow.description import describe, rebuild
from npflow.errors import InputError, in_short, kind_of
from npflow.files import written_aside
from npflow.model import Model
from npflow.training.history import History
from npflow.training.options import check_path
from npflow.validation import check_count, check_instance, check_number, check_seed

# In 1, Adam's m and v have the factors 1 - beta. In 1 and 2, the bias of an ActNorm is in units of x, and a Units has no
# centers.
FORMATS = ("npflow checkpoint 1", "npflow checkpoint 2", "npflow checkpoint 3")
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
        If the file is damaged, compressed, or no checkpoint of npflow. If the class of a layer is not defined, or the
        parameters are not those of the architecture. If a permutation in it is not one, or the parts of a run's state
        do not fit each other.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> checkpoint = npflow.load("moons.npz")                          # doctest: +SKIP
    >>> checkpoint.flow.sample(checkpoint.params, rng, 100)            # doctest: +SKIP
    """
    try:
        path = Path(path)
        is_other = path.exists() and not path.is_file()  # a folder; a pipe, for which `open` would wait
    except TypeError:
        raise InputError(f"expected the path of a checkpoint, got {in_short(path)}") from None
    if is_other or "\0" in str(path):
        raise InputError(f"expected a checkpoint at {str(path)!r}, got what is not a file")
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
        description = json.loads(contents["description"].item())
        if description["format"] not in FORMATS:
            raise InputError(f"expected the format {FORMAT!r} in {path}, got {description['format']!r}")
        flow = check_instance(rebuild(description["flow"]), Model, "what is stored")
        params = _fill(description["params"], contents["params"], with_prefix(contents, "constant:"))
        if description["format"] in FORMATS[:2] and '"class": "Units"' in json.dumps(description["flow"]):
            _center_units(params)
        flow.check(params)
        _check_permutations(params)
        arrays, run = with_prefix(contents, "run:"), check_instance(description["run"], dict, "the run")
        if run or arrays:
            check_run(run, arrays, contents["params"])
        if description["format"] in FORMATS[:2]:
            _convert_act_norms(json.dumps(description["flow"]), params, arrays)
        return Checkpoint(flow, params, run, arrays, description["format"])
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
        if len({entry.filename for entry in entries}) < len(entries):
            raise InputError("expected the entries of a checkpoint, one of each name, got one twice")
        return {entry.filename.removesuffix(".npy"): _read_entry(archive, entry) for entry in entries}


def _read_entry(archive, entry):
    """The array of an entry, whose header must account for each of its bytes before anything is allocated."""
    with archive.open(entry) as stored:
        if np.lib.format.read_magic(stored) != (1, 0):
            raise ValueError("another version of NumPy's format")
        shape, _, dtype = np.lib.format.read_array_header_1_0(stored)
        if dtype.kind not in "fiubU" or not dtype.itemsize:
            raise InputError(f"expected numbers or a text in {entry.filename!r}, got {dtype}")
        size, left = math.prod(shape) * dtype.itemsize, entry.file_size - stored.tell()
        if size != left or min(shape, default=0) < 0:
            raise InputError(f"expected {size:,} bytes in {entry.filename!r}, which is damaged, got {left:,}")
    with archive.open(entry) as stored:
        array = np.lib.format.read_array(stored, allow_pickle=False)
        stored.read(1)  # the checksum is compared at the end of the entry
    return array.astype(dtype.newbyteorder("="), copy=False)


def _center_units(params):
    """Give each `Units` of a checkpoint of an older format centers that change nothing, in place."""
    branches = params.values() if isinstance(params, dict) else params if isinstance(params, list) else ()
    for branch in list(branches):
        _center_units(branch)
    if isinstance(params, dict) and set(params) == {"exponent"}:
        params["center"] = np.zeros(np.shape(params["exponent"]), np.int64)


def _convert_act_norms(architecture, params, arrays):
    """Turn z = (x + bias) exp(log_scale) into z = x exp(log_scale) + bias, in place: in parameters and a run's arrays.

    The bias is multiplied by exp(log_scale), so its gradient, of which Adam's moments are means, is divided by it.
    """
    names = (f'"class": "{name}"' for name in ("ActNorm", "VAE"))  # a VAE has one
    if len(_act_norms(params)) != sum(map(architecture.count, names)):
        raise InputError(
            "expected an ActNorm for each bias and log_scale of a checkpoint of an older format, got others: "
            "a layer of your own that has the same parameters cannot be told from one"
        )
    trees = {
        name: Layout(params).unpack(array, params) for name, array in arrays.items() if "history:" not in name
    }
    scales = [np.exp(norm["log_scale"]) for norm in _act_norms(trees.get("vector", params))]
    for name, branch in {"params": params, **trees}.items():
        for norm, scale in zip(_act_norms(branch), scales):
            if name.startswith("moment:"):
                norm["bias"] /= scale ** (2 if name == "moment:v" else 1)
            else:
                norm["bias"] *= np.exp(norm["log_scale"])


def _act_norms(params):
    """The dicts of a bias and a log_scale in a tree."""
    if isinstance(params, dict):
        if set(params) == {"bias", "log_scale"}:
            return [params]
        params = params.values()
    elif not isinstance(params, (list, tuple)):
        return []
    return [norm for branch in params for norm in _act_norms(branch)]


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
    if vector.dtype not in (np.float32, np.float64):
        raise InputError(f"expected parameters in float32 or float64, got {vector.dtype}")
    constants = dict(constants)

    def leaf(path, blank):
        if tree.is_trained(blank):
            return blank
        constant = constants.pop(path, None)
        if constant is None:
            raise InputError(f"expected an entry for the constant {path!r}, got none")
        if constant.shape != blank.shape or constant.dtype.kind not in "iub":
            raise InputError(
                f"expected integers of shape {blank.shape} at {path!r}, got {constant.dtype} of shape {constant.shape}"
            )
        return constant

    def blank(part):
        (kind, branches), *_ = part.items()
        if kind == "dict":
            return {key: blank(branch) for key, branch in branches.items()}
        if kind in ("list", "tuple"):
            return {"list": list, "tuple": tuple}[kind](blank(branch) for branch in branches)
        # A view of one number: a shape in a file takes no memory, however large it is.
        return np.broadcast_to(np.zeros((), vector.dtype if part["trained"] else int), branches)

    params = tree.build(leaf, blank(skeleton))
    params = Layout(params).unpack(vector, params)
    if constants:
        raise InputError(f"expected entries for constants of the architecture, got {min(constants)!r}")
    return params


# ---------------------------------------------------------------- the state of a run

NEEDED = {"settings", "step", "position", "best_loss", "epoch_rng"}
PER_STEP = ("loss", "learning_rate", "gradient_norm", "seconds")


def check_run(run, arrays, params):
    """Raise `InputError` unless the state of a run is whole, and its parts fit each other and the parameters.

    Parameters
    ----------
    run : dict
        Plain data.
    arrays : dict of ndarray
    params : ndarray, shape (d,)
        The parameters as one vector.
    """
    missing = sorted(NEEDED - run.keys())
    if missing:
        raise InputError(
            f"expected the state of a run, with {', '.join(sorted(NEEDED))}, got none of {missing}"
        )
    settings = check_instance(run["settings"], dict, "the settings of the run")
    step = check_count(run["step"], "the step of the run", least=0)
    check_count(run["position"], "the position in the epoch", least=0)
    check_seed(run.get("noise_seed", 0), "the seed of the noise")
    if run["best_loss"] is not None:
        check_number(run["best_loss"], "the best validation loss")
    check_random_state(run["epoch_rng"])

    vectors = {name for name in arrays if name in ("vector", "average", "best") or name.startswith("moment:")}
    wanted = {
        "vector": True,
        "average": settings.get("average") is not None,
        "best": run["best_loss"] is not None,
    }
    for name, there in wanted.items():
        if (name in vectors) != there:
            raise InputError(
                f"expected {'an' if there else 'no'} entry 'run:{name}', got {'none' if there else 'one'}"
            )
    series = {f"history:{name}" for name in History.SERIES}
    odd = sorted((arrays.keys() - vectors) ^ series)
    if odd:
        raise InputError(
            f"expected the vectors and the history of a run, got 'run:{odd[0]}' missing or unknown"
        )
    for name in vectors:
        check_kind(arrays[name], params.shape, params.dtype, name)
    validations = len(np.atleast_1d(arrays["history:validation_step"]))
    for name in History.SERIES:
        length = step if name in PER_STEP else validations
        check_kind(arrays[f"history:{name}"], (length,), np.float64, f"history:{name}")
    steps = arrays["history:validation_step"]
    if not np.isin(steps, np.arange(1, step + 1)).all() or np.any(np.diff(steps) < 0):
        raise InputError(f"expected validations after steps 1 to {step}, one after the other, got others")


def check_kind(array, shape, dtype, name):
    """Raise `InputError` unless an array of a run's state has a shape and a dtype."""
    if array.shape != shape or array.dtype != dtype:
        raise InputError(
            f"expected {np.dtype(dtype)} of shape {shape} in 'run:{name}', got {array.dtype} of shape {array.shape}"
        )


PLACES = {"pos": 624, "buffer_pos": 4}  # the largest indices into their buffers; NumPy does not check them


def check_random_state(state):
    """Raise `InputError` unless a state is one that NumPy's generator of its kind can have.

    Other libraries' generators are not known here.
    """
    expected = "expected the state of a random generator"
    check_instance(state, dict, "the state of the random generator")
    kind = getattr(np.random, check_instance(state.get("bit_generator"), str, "the kind of generator"), None)
    if not isinstance(kind, type) or not issubclass(kind, np.random.BitGenerator):
        return
    generator = kind(0)
    try:
        generator.state = state
        plain = json.loads(json.dumps(generator.state, default=lambda array: array.tolist()))
    except Exception as error:  # NumPy's own, which differ from kind to kind
        raise InputError(
            f"{expected} {kind.__name__}, got one that it refuses: {type(error).__name__}"
        ) from None
    inner = state["state"] if isinstance(state["state"], dict) else {}
    places = {name: value for name, value in (state | inner).items() if name in PLACES}
    if plain != state or any(not 0 <= place <= PLACES[name] for name, place in places.items()):
        raise InputError(f"{expected} {kind.__name__}, got one that it cannot be in")
