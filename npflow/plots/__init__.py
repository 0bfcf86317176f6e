"""Figures: samples, steps, densities, deformed grids, Jacobians, spectra, images, training runs.

Every function draws into the matplotlib axes it is given, or makes a new figure, and returns the axes; `step_page`
writes a page for a browser.
Densities use a perceptually uniform colour map (cividis), signed values one that is white at 0 (PuOr), and
lines colours that colour-blind readers can distinguish. The first figure imports matplotlib; npflow alone
does not.
"""

from npflow.plots.matrix import jacobian, jacobians
from npflow.plots.page import step_page
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
    "step_page",
    "steps",
]
