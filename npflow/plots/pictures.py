"""Images side by side."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import fetch
from npflow.errors import InputError
from npflow.plots.canvas import check_axes, drawing
from npflow.validation import check_count

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@drawing
def images(
    x: ArrayLike,
    ax: Axes | None = None,
    *,
    levels: int = 256,
    columns: int | None = None,
    title: str | None = None,
    cmap: str = "gray_r",
) -> Axes:
    """Draw images as a mosaic, with a line of background between them.

    Parameters
    ----------
    x : ndarray, shape (n, height, width, channels) or (rows, columns, height, width, channels)
        Numbers from 0 to levels - 1, in one channel or three; values beyond are clipped. An array of five
        axes is a table of images, whose rows and columns are kept.
    levels : int
        The number of levels, so that levels - 1 is full ink or light; 2 for floats from 0 to 1.
    columns : int, optional
        The number of images in a row; by default about the number of rows.
    cmap : str
        The colour map for images of one channel, by default black ink on white paper: level 0 is white. "gray" is
        the other way round.

    Examples
    --------
    >>> import npflow
    >>> from npflow.plots import images
    >>> data = npflow.datasets.image_data("digits")
    >>> ax = images(data.test[:20], levels=data.levels, columns=10)
    """
    x = fetch(x)
    if x.ndim not in (4, 5) or x.shape[-1] not in (1, 3) or not x.size:
        raise InputError(
            "expected images of shape (n, height, width, channels) or (rows, columns, height, width, channels) "
            f"with 1 or 3 channels, got shape {x.shape}"
        )
    levels = check_count(levels, "the number of levels", least=2)
    if x.ndim == 4:
        columns = check_count(math.ceil(math.sqrt(len(x))) if columns is None else columns, "columns")
        x = in_rows(x, columns)
    elif columns is not None:
        raise InputError(f"expected no columns for a table of {x.shape[1]} columns, got {columns}")
    ax = check_axes(ax, title)
    ax.imshow(mosaic(np.clip(x / (levels - 1), 0, 1)), cmap=cmap, vmin=0, vmax=1, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    return ax


def in_rows(x, columns):
    """Arrange images in rows: shape (n, ...) gives (rows, columns, ...), padded with nan."""
    rows = -(-len(x) // columns)
    table = np.full((rows * columns, *x.shape[1:]), np.nan)
    table[: len(x)] = x
    return table.reshape(rows, columns, *x.shape[1:])


def mosaic(table):
    """Join a table of images into one image, transparent where there is none."""
    rows, columns, height, width, channels = table.shape
    table = np.pad(table, ((0, 0), (0, 0), (0, 1), (0, 1), (0, 0)), constant_values=np.nan)
    side = table.swapaxes(1, 2).reshape(rows * (height + 1), columns * (width + 1), channels)[:-1, :-1]
    if channels == 1:
        return np.ma.masked_invalid(side[..., 0])
    there = np.isfinite(side[..., :1])
    return np.concatenate([np.where(there, side, 0), there], axis=-1)
