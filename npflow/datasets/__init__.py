"""Data to fit, from an explicit `rng`: two-dimensional toy densities, with all that is known of them, and tables."""

from npflow.datasets.densities import (
    DENSITIES,
    Banana,
    Checkerboard,
    Circles,
    EightGaussians,
    Funnel,
    Moons,
    Pinwheel,
    Spirals,
    ToyDensity,
)
from npflow.datasets.tabular import TABULAR, digits, split, tabular
from npflow.datasets.toy import (
    TOY,
    banana,
    checkerboard,
    circles,
    eight_gaussians,
    funnel,
    moons,
    pinwheel,
    spirals,
)

__all__ = [
    "DENSITIES",
    "TABULAR",
    "TOY",
    "Banana",
    "Checkerboard",
    "Circles",
    "EightGaussians",
    "Funnel",
    "Moons",
    "Pinwheel",
    "Spirals",
    "ToyDensity",
    "banana",
    "checkerboard",
    "circles",
    "digits",
    "eight_gaussians",
    "funnel",
    "moons",
    "pinwheel",
    "spirals",
    "split",
    "tabular",
]
