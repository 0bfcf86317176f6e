"""Jacobians as heat maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from npflow.errors import InputError
from npflow.plots.canvas import check_axes, color_bar, drawing, ink, new_axes
from npflow.validation import check_number, check_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from npflow.verify.report import Report


@drawing
def jacobian(
    matrix: ArrayLike, ax: Axes | None = None, *, title: str | None = None, limit: float | None = None
) -> Axes:
    """Draw a square matrix as a heat map, white at 0; a matrix of up to 8 x 8 with its numbers.

    Parameters
    ----------
    matrix : ndarray, shape (d, d)
        Finite. Rows are outputs, columns inputs: matrix[i, j] = dz_i / dx_j.
    limit : float, optional
        Colours run from -limit to limit. By default the largest absolute value; set it to compare several
        matrices.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.plots import jacobian
    >>> ax = jacobian(np.array([[1.0, 0.0], [0.5, 2.0]]), title="triangular")
    """
    from matplotlib.ticker import MaxNLocator

    if np.ndim(matrix) != 2 or np.shape(matrix)[0] != np.shape(matrix)[1]:
        raise InputError(f"expected the Jacobian as a square matrix, got shape {np.shape(matrix)}")
    matrix = check_rows(matrix, name="the Jacobian")
    if limit is None:
        limit = np.abs(matrix).max() or 1.0
    check_number(limit, "limit", above=0)

    ax = check_axes(ax, title)
    image = ax.imshow(matrix, cmap="PuOr", vmin=-limit, vmax=limit, interpolation="nearest")
    color_bar(image, pad=0.1)
    ax.set(xlabel="input", ylabel="output")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(integer=True))
    if len(matrix) <= 8:
        ax.set(xticks=range(len(matrix)), yticks=range(len(matrix)))
        _write_numbers(image, matrix)
    return ax


def jacobians(report: Report, axes: ndarray | None = None) -> ndarray:
    """Draw the Jacobians of a `verify.Report`: finite differences beside autograd, forward above inverse.

    The titles give log|det J| of the numerical Jacobian and the log_det of the layer's closed form.

    Parameters
    ----------
    report : npflow.verify.Report
    axes : array of matplotlib.axes.Axes, shape (2, 2), optional
        By default those of a new figure.

    Returns
    -------
    ndarray of matplotlib.axes.Axes, shape (2, 2)
        Axes without a Jacobian are switched off.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.plots import jacobians
    >>> rng = np.random.default_rng(0)
    >>> report = npflow.verify.check(npflow.layers.Conv1x1(), rng.standard_normal((8, 3)))
    >>> axes = jacobians(report)
    """
    if axes is None:
        axes = new_axes(2, 2, figsize=(8, 7))
        axes[0, 0].figure.suptitle(report.subject)
    for row, direction in zip(axes, ("forward", "inverse")):
        found = report.jacobians[direction]
        limit = None
        if found.numerical is not None and np.isfinite(found.numerical).all():
            limit = np.abs(found.numerical).max() or 1.0
        titles = (
            f"{direction}, by finite differences\nlog|det J| = {found.log_abs_det + 0.0:.9f}",
            f"{direction}, by autograd\nclosed form: log_det = {found.log_det + 0.0:.9f}",
        )
        for ax, matrix, title in zip(row, (found.numerical, found.exact), titles):
            if matrix is None or not np.isfinite(matrix).all():
                ax.set_axis_off()
                ax.set_title(f"{title}\n(none to show)")
            else:
                jacobian(matrix, ax, title=title, limit=limit)
    return axes


def _write_numbers(image, matrix):
    texts = [[f"{value:z.2f}" for value in row] for row in matrix]
    # The largest size at which the longest text fits its cell; a digit is about 0.6 of the size wide.
    box = image.axes.get_window_extent()
    cell = min(box.width, box.height) / len(matrix) * 72 / image.figure.dpi
    size = min(10, 0.8 * cell / (0.6 * max(len(text) for row in texts for text in row)))
    for (i, j), value in np.ndenumerate(matrix):
        color = ink(image, value)
        image.axes.text(j, i, texts[i][j], ha="center", va="center", color=color, fontsize=size)
