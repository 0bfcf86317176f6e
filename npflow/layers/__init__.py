"""The invertible layers, one idea a file."""

from npflow.layers.affine import ActNorm, Affine
from npflow.layers.coupling import AffineCoupling
from npflow.layers.layer import Chain, Inverse, Layer
from npflow.layers.linear import Conv1x1, Permutation, Reverse

__all__ = [
    "ActNorm",
    "Affine",
    "AffineCoupling",
    "Chain",
    "Conv1x1",
    "Inverse",
    "Layer",
    "Permutation",
    "Reverse",
]
