"""Where arrays live: on the host, or on a GPU through CuPy. The one place that chooses.

Layers never name a device: NumPy's functions reach an array wherever it lives, and what is made beside it is made
like it (`np.ones_like(x, shape=...)`). What dispatch cannot do, a `Device` does: send and fetch, random
numbers, SciPy's functions, memory. (Where the host is better served otherwise, by chunks that fit its cache or a look
at a number, `device_of(x) is HOST` is asked.) Nothing here imports CuPy before a device is asked for.
"""

import hashlib
import importlib
import math
from collections import OrderedDict
from pathlib import Path
from threading import Lock, RLock

import numpy as np
from autograd.tracer import getval

from npflow.autodiff import tree
from npflow.autodiff.cupy import register
from npflow.errors import InputError

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Device:
    """Where arrays live, and what can be done there alone.

    Attributes
    ----------
    name : str
        What it is called, such as ``"cuda"``.
    array_type : type
        Of its arrays.
    module : module
        What has NumPy's functions for its arrays: NumPy, CuPy.
    alias : str
        What a program's source calls the module.
    exact : bool
        Whether a product of the same numbers is the same to the bit wherever in memory they lie.
    files : tuple of str
        What the files of its code begin with: a line there is nobody's own.
    """

    name, alias, exact, files = "", "", True, ()
    array_type = module = None

    def send(self, array):
        """A NumPy array, here."""
        raise NotImplementedError

    def fetch(self, array):
        """An array from here, as NumPy's."""
        raise NotImplementedError

    def generator(self, rng):
        """A generator whose numbers are drawn here; what they are, the host's generator `rng` decides."""
        raise NotImplementedError

    def scipy(self, name):
        """The function for arrays from here that SciPy has under this name, such as ``"linalg.solve_triangular"``."""
        raise NotImplementedError

    def queue(self):
        """What works off the calls that are made now, in their order: a GPU and its stream; None on the host."""
        return None

    def free_bytes(self):
        """How much memory can be had."""
        raise NotImplementedError

    def memory(self, size):
        """A vector of `size` bytes, not set to anything, that begins at a multiple of `ALIGNMENT`."""
        return self.module.empty(size, np.uint8)

    def array_at(self, memory, offset, shape, dtype, strides):
        """The array that begins at byte `offset` of `memory`, a vector of bytes."""
        raise NotImplementedError

    def __repr__(self):
        return self.name


class Host(Device):
    """The machine's own memory: NumPy's arrays."""

    name, alias = "cpu", "np"
    array_type, module = np.ndarray, np

    def send(self, array):
        return array

    def fetch(self, array):
        return array

    def generator(self, rng):
        return rng

    def scipy(self, name):
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(f"scipy.{module}"), function)

    def free_bytes(self):
        return math.inf  # the operating system decides

    def memory(self, size):
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + size]

    def array_at(self, memory, offset, shape, dtype, strides):
        return np.ndarray(shape, dtype, memory, offset, strides)


class Cuda(Device):
    """CuPy's current GPU."""

    name, alias = "cuda", "cupy"
    exact = False  # cuBLAS chooses its algorithm by the addresses too

    def __init__(self):
        try:
            import cupy

            self.array_type, self.module = cupy.ndarray, cupy  # a folder of this name has no ndarray
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"expected CuPy for the device 'cuda', got none ({error}): pip install 'npflow[cuda12]', or "
                "'npflow[cuda13]' where the driver is one for CUDA 13"
            ) from error
        try:
            count, found = cupy.cuda.runtime.getDeviceCount(), "none"
        except Exception as error:  # CuPy's own, without a driver
            count, found = 0, f"none ({error})"
        if not count:
            raise InputError(
                f"expected a GPU for the device 'cuda', CuPy {cupy.__version__} found {found}; see `nvidia-smi`, and "
                "install an NVIDIA driver for CUDA 12 or 13"
            )
        self.files = tuple(
            f"{Path(cupy.__file__).parents[1].as_posix()}/{name}/" for name in ("cupy", "cupyx")
        )

    def send(self, array):
        return self.module.asarray(array)

    def fetch(self, array):
        return self.module.asnumpy(array)

    def generator(self, rng):
        # Philox, as NumPy's own counter-based generator: CuPy's default takes long to start. 32 bits are what it uses.
        random = self.module.random
        return random.Generator(random.Philox4x3210(int(rng.integers(2**32))))

    def queue(self):
        return self.module.cuda.runtime.getDevice(), self.module.cuda.get_current_stream().ptr

    def scipy(self, name):
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(f"cupyx.scipy.{module}"), function)

    def free_bytes(self):
        return self.module.cuda.runtime.memGetInfo()[0] + self.module.get_default_memory_pool().free_bytes()

    def array_at(self, memory, offset, shape, dtype, strides):
        return self.module.ndarray(shape, dtype, memory.data + offset, strides)


HOST = Host()
MAKERS = {"cpu": Host, "cuda": Cuda}
DEVICES = {np.ndarray: HOST}  # those in use, by the type of their arrays
LOCK = RLock()


def find_device(name):
    """The device of a name.

    Raises
    ------
    InputError
        If there is none of that name, no CuPy or no GPU; it says what to install.
    """
    if not isinstance(name, str) or name not in MAKERS:
        got = repr(name) if isinstance(name, (str, int, type(None))) else f"a {type(name).__name__}"
        raise InputError(f"expected a device among {', '.join(map(repr, MAKERS))}, got {got}")
    with LOCK:
        for used in DEVICES.values():
            if used.name == name:
                return used
        made = MAKERS[name]()
        register(made.module)
        DEVICES[made.array_type] = made
        return made


def is_array(value):
    """Whether a value is an array, of NumPy's or a device's."""
    kind = type(value)
    return kind in DEVICES or _device_of_type(kind) is not None


def as_array(value):
    """An array as it is; a number as an array of NumPy's."""
    return value if is_array(value) else np.asarray(value)


def fetch(value):
    """The numbers of an array, wherever it lives, or of a number, as an array of NumPy's."""
    there = _device_of_type(type(value)) or HOST
    return np.asarray(there.fetch(value))


def _device_of_type(kind):
    if kind in DEVICES:
        return DEVICES[kind]
    if kind.__module__.partition(".")[0] == "cupy" and kind.__name__ == "ndarray":
        return find_device("cuda")  # an array that was made with CuPy itself
    return HOST if issubclass(kind, np.ndarray) else None


def device_of(arrays):
    """The device that an array lives on, or the arrays of a tree; the host where there are none.

    Raises
    ------
    InputError
        If they do not all live on one.
    """
    alone = _device_of_type(type(getval(arrays)))
    if alone is not None:
        return alone
    found = {}
    for path, leaf in tree.items(arrays):
        of_leaf = _device_of_type(type(getval(leaf)))
        if of_leaf is not None:
            found.setdefault(of_leaf, path)
    if len(found) > 1:
        places = ", ".join(f"{one.name} at {path!r}" for one, path in found.items())
        raise InputError(f"expected all arrays on one device, got {places}; see npflow.to_device")
    return next(iter(found), HOST)


def to_device(arrays, name):
    """An array, or a tree of arrays, on a device.

    Parameters
    ----------
    arrays : ndarray or tree of ndarray
        Parameters, data; numbers count as arrays without axes. What is there already is not copied.
    name : {"cuda", "cpu"}
        The GPU that is CuPy's current one, or the host.

    Returns
    -------
    tree of cupy.ndarray
        A tree like `arrays`. Methods of layers, priors and flows take it as they take NumPy's arrays.

    Raises
    ------
    InputError
        If there is no CuPy or no GPU: it says what to install. If there is something that is no array.
    """
    there = find_device(name)

    def move(path, leaf):
        here = _device_of_type(type(leaf))
        if here is None and isinstance(leaf, np.generic | bool | int | float | complex):
            if there is HOST:
                return leaf
            here, leaf = HOST, np.asarray(leaf)
        if here is None or leaf.dtype.kind not in "biufc":
            place = f" at {path!r}" if path else ""
            raise InputError(f"expected arrays of numbers to move to {there}, got a {_kind_of(leaf)}{place}")
        return leaf if here is there else there.send(here.fetch(leaf))

    return tree.build(move, arrays)


def _kind_of(leaf):
    name = type(leaf).__name__
    return f"{name} of dtype {leaf.dtype}" if hasattr(leaf, "dtype") else name


def to_host(arrays):
    """An array, or a tree of arrays, as NumPy's; those that are NumPy's already are not copied."""
    return to_device(arrays, "cpu")


def constant(values, like):
    """Fixed values, such as a mask or a permutation, as an array where `like` lives.

    On a device an array is sent when it is first asked for, and then kept: no step waits for it.

    Parameters
    ----------
    values : array_like
    like : ndarray
        An array that says where.
    """
    there = device_of(like)
    if is_array(values) and device_of(values) is there:
        return values
    values = fetch(values)
    return values if there is HOST else CONSTANTS.get(there, values)


class Constants:
    """Arrays that were sent to a device, by their content: those used last, up to so many bytes."""

    def __init__(self, most=2**28):
        self.most, self.arrays, self.lock = most, OrderedDict(), Lock()

    def get(self, there, values):
        """The array on a device that holds these values."""
        content = hashlib.sha256(values.tobytes()).digest()
        key = (there.name, there.queue(), values.shape, values.dtype.str, content)
        with self.lock:
            if key not in self.arrays:
                self.arrays[key] = there.send(values)
            self.arrays.move_to_end(key)
            while len(self.arrays) > 1 and sum(array.nbytes for array in self.arrays.values()) > self.most:
                self.arrays.popitem(last=False)
            return self.arrays[key]


CONSTANTS = Constants()


def scipy_function(name, like):
    """SciPy's function of a name, or its counterpart in CuPy, for arrays that live where `like` lives.

    It knows nothing of autograd: a layer takes it within a primitive, which has a derivative.

    Parameters
    ----------
    name : str
        The function's module and name, such as ``"special.ndtri"`` or ``"linalg.solve_triangular"``.
    like : ndarray

    Raises
    ------
    InputError
        If there is no function of that name.

    Examples
    --------
    >>> from autograd.extend import defvjp, primitive
    >>> expit = primitive(lambda x: scipy_function("special.expit", like=x)(x))
    >>> defvjp(expit, lambda y, x: lambda g: g * y * (1 - y))
    >>> expit(np.zeros(2))
    array([0.5, 0.5])
    """
    try:
        return device_of(like).scipy(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"expected a function of SciPy's that {device_of(like)} has too, such as 'special.ndtri', "
            f"got {name!r} ({error})"
        ) from error
