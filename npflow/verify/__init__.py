"""Verification: a layer's closed form held against its numerical Jacobian.

>>> import numpy as np
>>> from npflow.layers import AffineCoupling
>>> from npflow.verify import check
>>> rng = np.random.default_rng(0)
>>> check(AffineCoupling(), rng.normal(size=(8, 6))).passed
True
"""

from npflow.verify.assertion import assert_flow
from npflow.verify.check import check
from npflow.verify.functions import check_functions
from npflow.verify.report import Check, Report

__all__ = ["Check", "Report", "assert_flow", "check", "check_functions"]
