"""Data to fit, from an explicit `rng`: two-dimensional toy densities, and small tables of real data."""

from npflow.datasets.tabular import TABULAR, digits, split, tabular
from npflow.datasets.toy import TOY, checkerboard, circles, eight_gaussians, moons, pinwheel, spirals

__all__ = [
    "TABULAR",
    "TOY",
    "checkerboard",
    "circles",
    "digits",
    "eight_gaussians",
    "moons",
    "pinwheel",
    "spirals",
    "split",
    "tabular",
]
