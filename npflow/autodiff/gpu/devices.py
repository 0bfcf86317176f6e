"""Where arrays live: on the host, or on a GPU through CuPy.

Layers never name a device: NumPy's functions dispatch on the array, and new arrays are made like an argument
(``np.ones_like(x, shape=...)``). A `Device` does the rest: transfers, random numbers, SciPy's functions,
memory. Code that is better for the host alone, such as chunks that fit into its cache, asks ``device_of(x) is
HOST``. CuPy is imported when a GPU is first asked for.
"""

import hashlib
from collections import OrderedDict
from threading import RLock

import numpy as np
from autograd.tracer import getval

from npflow.autodiff import tree
from npflow.autodiff.forks import in_forked_child
from npflow.autodiff.gpu.cupy import register
from npflow.autodiff.gpu.device import Cuda, Device
from npflow.errors import InputError, kind_of
from npflow.typing import Params

HOST = Device()
MAKERS = {"cpu": Device, "cuda": Cuda}
DEVICES = {np.ndarray: HOST}  # the devices in use, by the type of their arrays
CONSTANTS, MOST_BYTES = OrderedDict(), 2**28  # the arrays that `constant` sent last, by their content
LOCK = RLock()  # of DEVICES and CONSTANTS


@in_forked_child
def _new_lock():
    global LOCK
    LOCK = RLock()


def find_device(name):
    """The device of a name.

    Raises
    ------
    InputError
        If there is no device of that name, no CuPy or no GPU; the error says what to install.
    """
    if not isinstance(name, str) or name not in MAKERS:
        got = repr(name) if isinstance(name, (str, int, type(None))) else kind_of(name)
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
    """Whether a value is an array of NumPy's or of a device."""
    return _device_of_type(type(value)) is not None


def as_array(value):
    """An array as it is, a number as NumPy's array."""
    return value if is_array(value) else np.asarray(value)


def fetch(value):
    """An array of any device, or a number, as NumPy's array."""
    there = _device_of_type(type(value)) or HOST
    return np.asarray(there.fetch(value))


def _device_of_type(kind):
    if kind in DEVICES:
        return DEVICES[kind]
    if kind.__module__.partition(".")[0] == "cupy" and kind.__name__ == "ndarray":
        return find_device("cuda")  # an array made with CuPy itself
    return HOST if issubclass(kind, np.ndarray) else None


def device_of(arrays):
    """The device of an array, or of the arrays of a tree; the host if there are none.

    Raises
    ------
    InputError
        If they live on several devices.
    """
    alone = _device_of_type(type(getval(arrays)))
    if alone is not None:
        return alone
    if tree.flattened(arrays)[0] is not None:  # all are NumPy's
        return HOST
    found = {}
    for path, leaf in tree.items(arrays):
        of_leaf = _device_of_type(type(getval(leaf)))
        if of_leaf is not None:
            found.setdefault(of_leaf, path)
    if len(found) > 1:
        places = ", ".join(f"{one.name} at {path!r}" for one, path in found.items())
        raise InputError(f"expected all arrays on one device, got {places}; see npflow.to_device")
    return next(iter(found), HOST)


def to_device(arrays: Params, name: str) -> Params:
    """An array, or a tree of arrays, on a device.

    Parameters
    ----------
    arrays : ndarray or tree of ndarray
        Parameters or data. Numbers count as arrays without axes. Arrays of that device are not copied.
    name : {"cuda", "cpu"}
        CuPy's current GPU, or the host.

    Returns
    -------
    tree of cupy.ndarray
        A tree like `arrays`. Layers, priors and flows take it as they take NumPy's arrays.

    Raises
    ------
    InputError
        If there is no CuPy or no GPU (the error says what to install), or if a leaf is not an array of
        numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow import to_device
    >>> params = {"scale": np.ones(2)}
    >>> to_device(params, "cpu")["scale"] is params["scale"]
    True
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
            dtype = f" of dtype {leaf.dtype}" if hasattr(leaf, "dtype") else ""
            raise InputError(
                f"expected arrays of numbers to move to {there}, got {kind_of(leaf)}{dtype}{place}"
            )
        return leaf if here is there else there.send(here.fetch(leaf))

    return tree.build(move, arrays)


def to_host(arrays: Params) -> Params:
    """Move an array, or a tree of arrays, to the host.

    Parameters
    ----------
    arrays : ndarray or tree of ndarray

    Returns
    -------
    tree of ndarray
        A tree like `arrays`, of NumPy's arrays. Those that are NumPy's already are not copied.

    Raises
    ------
    InputError
        If a leaf is not an array of numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow import to_host
    >>> params = {"scale": np.ones(2)}
    >>> to_host(params)["scale"] is params["scale"]
    True
    """
    return to_device(arrays, "cpu")


def constant(values, like):
    """Fixed values, such as a mask or a permutation, as an array on the device of `like`.

    An array is sent to a device once and kept there, so that later steps do not wait for it.

    Parameters
    ----------
    values : array_like
    like : ndarray
    """
    there = device_of(like)
    if is_array(values) and device_of(values) is there:
        return values
    values = fetch(values)
    if there is HOST:
        return values
    content = hashlib.sha256(values.tobytes()).digest()
    key = (there.name, there.queue(), values.shape, values.dtype.str, content)
    with LOCK:
        if key not in CONSTANTS:
            CONSTANTS[key] = there.send(values)
        CONSTANTS.move_to_end(key)
        while len(CONSTANTS) > 1 and sum(array.nbytes for array in CONSTANTS.values()) > MOST_BYTES:
            CONSTANTS.popitem(last=False)
        return CONSTANTS[key]


def scipy_function(name, like):
    """SciPy's function of a name, or CuPy's version of it, for arrays on the device of `like`.

    autograd does not know its derivative: call it in a primitive that has one.

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
    >>> import numpy as np
    >>> from npflow.autodiff.gpu import scipy_function
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
            f"expected a function of SciPy's that {device_of(like)} has, such as 'special.ndtri', "
            f"got {name!r} ({error})"
        ) from error
