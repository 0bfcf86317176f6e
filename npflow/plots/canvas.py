"""Shared by the figures: axes, colours, a colour bar."""

import numpy as np

from npflow.errors import InputError, kind_of

# Okabe & Ito 2008, Color Universal Design, https://jfly.uni-koeln.de/color/
BLUE, VERMILLION, BLACK = "#0072B2", "#D55E00", "#000000"


def check_axes(ax):
    """Return `ax`, or the axes of a new figure if it is None; raise `InputError` unless it is axes."""
    from matplotlib.axes import Axes

    if ax is None:
        import matplotlib.pyplot as plt

        _, ax = plt.subplots(layout="constrained")
    if not isinstance(ax, Axes):
        raise InputError(f"expected ax to be matplotlib axes, got {kind_of(ax)}")
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
