"""Shared by the figures: axes, a colour bar, ink."""

import numpy as np

from npflow.docstrings import documented
from npflow.errors import InputError, kind_of
from npflow.plots.style import STYLE

# A decorator that adds to the docstring of a figure what most figures share.
drawing = documented(
    """
    Parameters
    ----------
    ax : matplotlib.axes.Axes, optional
        The axes to draw into; by default those of a new figure.
    title : str, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    InputError
        If an argument is not as described above. Nothing is drawn then.
    """
)


def new_axes(rows=1, columns=1, **figure):
    """Make a figure in the style of npflow; return its axes, as `subplots` of Matplotlib does."""
    import matplotlib.pyplot as plt

    with plt.rc_context(STYLE):
        return plt.subplots(rows, columns, layout="constrained", **figure)[1]


def check_axes(ax, title=None):
    """Give `ax`, or the axes of a new figure if it is None, a title; raise `InputError` unless it is axes."""
    from matplotlib.axes import Axes

    if ax is None:
        ax = new_axes()
    if not isinstance(ax, Axes):
        raise InputError(f"expected ax to be matplotlib axes, got {kind_of(ax)}")
    if title is not None:
        ax.set_title(title)
    return ax


def color_bar(image, pad, label=None):
    """Add a colour bar of the height of the axes, `pad` inches to their right.

    `Figure.colorbar` alone makes one of the height of the grid cell, which axes of equal aspect do not fill.
    """
    from matplotlib.transforms import ScaledTranslation, blended_transform_factory

    ax = image.axes
    inches_from_right = ax.figure.dpi_scale_trans + ScaledTranslation(1, 0, ax.transAxes)
    place = blended_transform_factory(inches_from_right, ax.transAxes)
    return ax.figure.colorbar(image, cax=ax.inset_axes([pad, 0, 0.15, 1], transform=place), label=label)


def ink(image, value):
    """Return "black" or "white", whichever is readable on the colour of a value in an image."""
    return "black" if image.to_rgba(value)[:3] @ np.array([0.299, 0.587, 0.114]) > 0.5 else "white"
