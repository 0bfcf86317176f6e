"""The invertible layers, one idea a file."""

from npflow.layers.affine import ActNorm, Affine, Scaling
from npflow.layers.autoregressive import MaskedAutoregressive
from npflow.layers.chain import Chain
from npflow.layers.composite import Composite, Step
from npflow.layers.continuous import Continuous
from npflow.layers.coupling import AdditiveCoupling, AffineCoupling, ElementwiseCoupling, SplineCoupling
from npflow.layers.elementwise import Elementwise, ScaleShift, Shift
from npflow.layers.gaussianization import Gaussianize
from npflow.layers.given import Given
from npflow.layers.injector import AffineInjector
from npflow.layers.inverse import Inverse
from npflow.layers.layer import Layer
from npflow.layers.linear import Conv1x1, Permutation, Reverse
from npflow.layers.logit import Logit
from npflow.layers.masked_convolution import MaskedConvolution
from npflow.layers.parting import BlockMeans, Fold
from npflow.layers.planar import Planar, Radial
from npflow.layers.reshape import Squeeze, Unsqueeze
from npflow.layers.residual import Residual
from npflow.layers.reversible import Reversible
from npflow.layers.rotation import Rotation
from npflow.layers.spline import Spline
from npflow.layers.split import Split
from npflow.layers.sylvester import Sylvester
from npflow.layers.units import Units

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "Affine",
    "AffineCoupling",
    "AffineInjector",
    "BlockMeans",
    "Chain",
    "Composite",
    "Continuous",
    "Conv1x1",
    "Elementwise",
    "ElementwiseCoupling",
    "Fold",
    "Gaussianize",
    "Given",
    "Inverse",
    "Layer",
    "Logit",
    "MaskedAutoregressive",
    "MaskedConvolution",
    "Permutation",
    "Planar",
    "Radial",
    "Residual",
    "Reverse",
    "Reversible",
    "Rotation",
    "ScaleShift",
    "Scaling",
    "Shift",
    "Spline",
    "SplineCoupling",
    "Split",
    "Squeeze",
    "Step",
    "Sylvester",
    "Units",
    "Unsqueeze",
]
