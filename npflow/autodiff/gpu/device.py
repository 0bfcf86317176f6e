"""The host and a GPU: what NumPy's functions do not do for arrays that live there."""

import importlib
from pathlib import Path

import numpy as np

from npflow.errors import InputError

ALIGNMENT = 64  # bytes: a cache line, and the widest vector register


class Device:
    """Where arrays live, and the operations that depend on it. This one is the host; others override it.

    Attributes
    ----------
    name : str
        Its name, such as ``"cuda"``.
    array_type : type
        The class of its arrays.
    module : module
        The module with NumPy's functions for its arrays: NumPy or CuPy.
    alias : str
        The name of the module in the source of a program.
    scipys : str
        The name of the package with SciPy's functions for its arrays.
    exact : bool
        Whether the same matrix product gives the same bits wherever its arrays lie in memory.
    files : tuple of str
        The folders of its code: names and errors of a recording skip their lines.
    """

    name, alias, scipys, exact, files = "cpu", "np", "scipy", True, ()
    array_type, module = np.ndarray, np

    def __reduce__(self):  # there is one of each name, also after a copy and in another process
        from npflow.autodiff.gpu.devices import find_device

        return find_device, (self.name,)

    def send(self, array):
        """A NumPy array as an array of this device."""
        return array

    def fetch(self, array):
        """An array of this device as NumPy's."""
        return array

    def generator(self, rng):
        """A generator that draws on this device, seeded from the host's generator `rng`."""
        return rng

    def scipy(self, name):
        """SciPy's function of a name such as ``"linalg.solve_triangular"``, for arrays of this device."""
        module, _, function = name.rpartition(".")
        return getattr(importlib.import_module(f"{self.scipys}.{module}"), function)

    def queue(self):
        """The queue that calls made now join: a GPU and its stream; None on the host."""
        return None

    def free_bytes(self):
        """The number of bytes of free memory."""
        import psutil

        return psutil.virtual_memory().available

    def memory(self, size):
        """An uninitialized vector of `size` bytes, which begins at a multiple of `ALIGNMENT`."""
        memory = np.empty(size + ALIGNMENT, np.uint8)
        start = -memory.ctypes.data % ALIGNMENT
        return memory[start : start + size]

    def array_at(self, memory, offset, shape, dtype, strides):
        """The array that begins at byte `offset` of the vector `memory`."""
        return np.ndarray(shape, dtype, memory, offset, strides)

    def __repr__(self):
        return self.name


class Cuda(Device):
    """CuPy's current GPU."""

    name, alias, scipys = "cuda", "cupy", "cupyx.scipy"
    exact = False  # cuBLAS chooses its algorithm by the addresses too

    def __init__(self):
        try:
            import cupy

            self.array_type, self.module = cupy.ndarray, cupy  # AttributeError: a folder with the name cupy
        except (ImportError, AttributeError) as error:
            raise InputError(
                f"expected CuPy for the device 'cuda', got none ({error}): pip install 'cupy-cuda12x[ctk]', or "
                "'cupy-cuda13x[ctk]' where the driver is one for CUDA 13"
            ) from error
        try:
            count, found = cupy.cuda.runtime.getDeviceCount(), "none"
        except Exception as error:  # CuPy's error without a driver
            count, found = 0, f"none ({error})"
        if not count:
            raise InputError(
                f"expected a GPU for the device 'cuda', CuPy {cupy.__version__} found {found}; "
                "see `nvidia-smi`, and install an NVIDIA driver for CUDA 12 or 13"
            )
        self.files = tuple(
            f"{Path(cupy.__file__).parents[1].as_posix()}/{name}/" for name in ("cupy", "cupyx")
        )

    def send(self, array):
        return self.module.asarray(array)

    def fetch(self, array):
        return self.module.asnumpy(array)

    def generator(self, rng):
        # Philox: CuPy's default generator is slow to start. It uses 32 bits of a seed.
        random = self.module.random
        return random.Generator(random.Philox4x3210(int(rng.integers(2**32))))

    def queue(self):
        return self.module.cuda.runtime.getDevice(), self.module.cuda.get_current_stream().ptr

    def free_bytes(self):
        return self.module.cuda.runtime.memGetInfo()[0] + self.module.get_default_memory_pool().free_bytes()

    def memory(self, size):
        return self.module.empty(size, np.uint8)  # CuPy's memory begins at multiples of 512 bytes

    def array_at(self, memory, offset, shape, dtype, strides):
        return self.module.ndarray(shape, dtype, memory.data + offset, strides)
