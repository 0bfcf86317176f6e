"""Data to fit: two-dimensional toy densities, with all that is known of them, tables, and images."""

from npflow.datasets.cifar10 import CIFAR10_CLASSES, cifar10
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
from npflow.datasets.images import IMAGES, ImageData, digit_images, image_data, patches
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
    "CIFAR10_CLASSES",
    "DENSITIES",
    "IMAGES",
    "TABULAR",
    "TOY",
    "Banana",
    "Checkerboard",
    "Circles",
    "EightGaussians",
    "Funnel",
    "ImageData",
    "Moons",
    "Pinwheel",
    "Spirals",
    "ToyDensity",
    "banana",
    "checkerboard",
    "cifar10",
    "circles",
    "digit_images",
    "digits",
    "eight_gaussians",
    "funnel",
    "image_data",
    "moons",
    "patches",
    "pinwheel",
    "spirals",
    "split",
    "tabular",
]
