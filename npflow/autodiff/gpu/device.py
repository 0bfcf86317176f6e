"""What can be done where arrays live, and by NumPy's functions alone cannot: on the host, and on a GPU."""

import importlib
from pathlib import Path

import numpy as np

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
        import psutil

        return psutil.virtual_memory().available

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
