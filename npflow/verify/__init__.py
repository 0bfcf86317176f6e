"""Verification: a layer's closed form held against its numerical Jacobian.

>>> import numpy as np
>>> from npflow.layers import AffineCoupling
>>> x = np.random.default_rng(0).standard_normal((8, 6))
>>> report = check(AffineCoupling(), x)
>>> report.passed
True
"""

from npflow.verify.check import check, check_functions
from npflow.verify.report import Check, Report

__all__ = ["Check", "Report", "check", "check_functions"]
