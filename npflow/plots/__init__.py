"""Figures: samples, layers step by step, densities, deformed grids, Jacobians, spectra, images, training runs.

Every function draws into matplotlib axes that it is given, or makes its own, and returns them. Densities
are in a colour map that is even to the eye and in greyscale (cividis), signed values in one that is
white at 0 (PuOr), lines in colours that colour-blind readers tell apart. matplotlib is imported when the
first figure is drawn, not with npflow.
"""

from npflow.plots.matrix import jacobian, jacobians
from npflow.plots.pictures import images
from npflow.plots.plane import density, grid, mass_levels, samples, steps
from npflow.plots.run import history
from npflow.plots.spectrum import spectrum

__all__ = [
    "density",
    "grid",
    "history",
    "images",
    "jacobian",
    "jacobians",
    "mass_levels",
    "samples",
    "spectrum",
    "steps",
]
