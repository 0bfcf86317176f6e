"""Verification: a layer's closed form held against its numerical Jacobian.

>>> import numpy as np
>>> from npflow.layers import AffineCoupling
>>> from npflow.verify import check
>>> rng = np.random.default_rng(0)
>>> check(AffineCoupling(), rng.normal(size=(8, 6))).passed
True

========================================  =====================================================
``check(layer, x)``                       a layer, npflow's or your own
``check_functions(forward, inverse, x)``  two functions
``check_torch(transform, x)``             a module or transform of PyTorch
``check_jax(bijector, x)``                a bijector of JAX
``assert_flow(layer, x)``                 in a test: any of these; raises with the report
``npflow verify my_layers.py:MyLayer``    from the command line
========================================  =====================================================

PyTorch or JAX is imported when `check_torch` or `check_jax` is asked for.
"""

import importlib

from npflow.verify.assertion import assert_flow
from npflow.verify.check import check
from npflow.verify.functions import check_functions
from npflow.verify.report import Check, Report

__all__ = ["Check", "Report", "assert_flow", "check", "check_functions"]
MODULE_OF = {"check_torch": "torch", "check_jax": "jax"}


def __getattr__(name):
    """`check_torch` and `check_jax`, imported with their library when they are asked for."""
    if name not in MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULE_OF[name]}"), name)
