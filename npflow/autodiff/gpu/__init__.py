"""Support for CuPy: where arrays live, and what NumPy's dispatch cannot do for them."""

from npflow.autodiff.gpu.devices import constant, device_of, scipy_function, to_device, to_host

__all__ = ["constant", "device_of", "scipy_function", "to_device", "to_host"]
