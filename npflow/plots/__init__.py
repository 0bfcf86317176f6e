"""Figures: samples, steps, densities, deformed grids, Jacobians, spectra, images, training runs.

Every function draws into the matplotlib axes it is given, or makes a new figure, and returns the axes; `step_page`
writes a page for a browser.
`STYLE` holds the colours and sizes of all figures; ``matplotlib.pyplot.style.use(npflow.plots.STYLE)`` gives them to
figures of your own. The first figure imports matplotlib; npflow alone does not.
"""

from npflow.plots.matrix import jacobian, jacobians
from npflow.plots.page import step_page
from npflow.plots.pictures import images
from npflow.plots.plane import density, grid, mass_levels, samples, steps
from npflow.plots.run import history
from npflow.plots.spectrum import spectrum
from npflow.plots.style import STYLE

__all__ = [
    "STYLE",
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
