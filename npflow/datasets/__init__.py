"""Data to fit: two-dimensional toy densities, drawn from an explicit `rng`."""

from npflow.datasets.toy import TOY, checkerboard, circles, eight_gaussians, moons, pinwheel, spirals

__all__ = ["TOY", "checkerboard", "circles", "eight_gaussians", "moons", "pinwheel", "spirals"]
