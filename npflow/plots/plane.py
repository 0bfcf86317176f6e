"""Figures in the plane: points, points step by step, densities, deformed grids."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy import ndarray
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import fetch, to_host
from npflow.errors import InputError
from npflow.plots.canvas import check_axes, color_bar, drawing, ink, new_axes
from npflow.plots.style import BLUE, ORANGE
from npflow.typing import Limits
from npflow.validation import check_count, check_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The shares of the mass that the contours of `density` enclose, the most important first.
SHARES = (0.5, 0.9, 0.99, 0.75, 0.25, 0.1)


@drawing
def samples(
    x: ArrayLike, ax: Axes | None = None, *, limits: Limits | None = None, title: str | None = None, **scatter
) -> Axes:
    """Draw points in the plane.

    Parameters
    ----------
    x : ndarray, shape (n, 2)
        Finite.
    limits : ((left, right), (bottom, top)), optional
        The part of the plane to show; by default all points.
    **scatter
        Passed on to `Axes.scatter`.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.plots import samples
    >>> rng = np.random.default_rng(0)
    >>> ax = samples(npflow.datasets.moons(500, rng=rng), title="two moons")
    """
    x = to_host(check_rows(x, (2,)))
    limits = None if limits is None else _check_limits(limits)
    ax = check_axes(ax, title)
    if not {"c", "color"} & scatter.keys():
        scatter["color"] = BLUE
    ax.scatter(x[:, 0], x[:, 1], **{"s": 5, "linewidths": 0, "alpha": 0.6} | scatter)
    ax.set_aspect("equal")
    if limits is not None:
        ax.set(xlim=limits[0], ylim=limits[1])
    return ax


@drawing
def steps(
    arrays: Sequence[ArrayLike],
    axes: ndarray | None = None,
    *,
    names: Sequence[str] | None = None,
    columns: int = 6,
) -> ndarray:
    """Draw the same points after each step, one panel per step: how layers turn data into noise.

    A point keeps its colour from panel to panel: its angle around the mean in the first panel. Every panel
    has its own limits, since layers may change the scale; it shows the middle 99 % of both coordinates and a
    margin. The two axes of a panel have the same scale.

    Parameters
    ----------
    arrays : list of ndarray, shape (n, 2)
        The points after each step, such as ``[x] + [step.output for step in chain.trace(params, x)]``.
    axes : array of matplotlib.axes.Axes, optional
        At least one for each array; by default those of a new figure.
    names : list of str, optional
        Titles of the panels.
    columns : int
        The number of panels in a row of a new figure.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        Axes without a panel are switched off.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> from npflow.plots import steps
    >>> rng = np.random.default_rng(0)
    >>> x = npflow.datasets.moons(500, rng=rng)
    >>> axes = steps([x, 2 * x, 2 * x[:, ::-1]], names=["data", "scaled", "reversed"])
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    arrays = _check_steps(arrays)
    columns = min(check_count(columns, "columns"), len(arrays))
    names = [""] * len(arrays) if names is None else [textwrap.fill(str(name), 22) for name in names]
    if len(names) != len(arrays):
        raise InputError(f"expected a name for each of {len(arrays)} arrays, got {len(names)}")
    if axes is None:
        rows = math.ceil(len(arrays) / columns)
        axes = new_axes(rows, columns, squeeze=False, figsize=(1.65 * columns, 1.9 * rows + 0.3))
        note = "dots: the same points in each panel; colour: the angle in the first panel"
        axes[0, 0].figure.supxlabel(note, fontsize=8)
    axes = np.asarray(axes)
    if axes.size < len(arrays):
        raise InputError(f"expected axes for each of {len(arrays)} arrays, got {axes.size}")

    # A cyclic map for an angle, darkened so that its light part is visible on white.
    colors = ListedColormap(0.85 * colormaps["twilight"](np.linspace(0, 1, 256))[:, :3])
    offset = arrays[0] - arrays[0].mean(axis=0)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    for ax, x, name in zip(axes.flat, arrays, names):
        samples(x, ax, s=3, c=angle, cmap=colors, vmin=-np.pi, vmax=np.pi, alpha=1)
        ax.set_title(name, fontsize=8)
        # An outlier must not shrink the rest of the panel to a dot.
        low, high = np.percentile(x, [0.5, 99.5], axis=0)
        center, half = (low + high) / 2, 0.65 * np.max(high - low) or 1.0
        ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
        ax.tick_params(labelsize=7)
        ax.locator_params(nbins=4)
    for ax in axes.flat[len(arrays) :]:
        ax.set_axis_off()
    return axes


@drawing
def density(
    log_prob: Callable,
    ax: Axes | None = None,
    *,
    limits: Limits = ((-1.5, 2.5), (-1.0, 1.5)),
    resolution: int = 200,
    contours: int = 3,
    bar: bool = True,
) -> Axes:
    """Draw a density in the plane, with contours that enclose given shares of its mass.

    The 90 % contour is at the level t where {x : p(x) >= t} contains 90 % of the mass; it is the smallest
    region that does. Masses are sums over the grid, and a contour that the limits do not contain is left out.
    So are loops of less than a fiftieth of the axes, which would look like points. Each share is written to the
    left of the colour bar, at the level of its contour.

    Parameters
    ----------
    log_prob : callable
        Maps points, float64, shape (m, 2), to log densities in nats, shape (m,), below infinity.
    limits : ((left, right), (bottom, top))
        The part of the plane to show.
    resolution : int
        The number of grid points along each axis.
    contours : int
        The number of contours, at most 6, taken in turn from 50, 90, 99, 75, 25 and 10 %; the labels of more than
        3 need axes of two inches.
    bar : bool
        Whether to add the colour bar with the shares.

    Examples
    --------
    >>> import npflow
    >>> from npflow.plots import density
    >>> prior = npflow.priors.Normal(2)
    >>> ax = density(lambda x: prior.log_prob({}, x), limits=((-3, 3), (-3, 3)), resolution=50)
    """
    limits = _check_limits(limits)
    check_count(resolution, "resolution", least=2)
    check_count(contours, "contours", least=0, most=len(SHARES))
    # The centres of the image's pixels: summing over pixels is the midpoint rule.
    widths = (limits[:, 1] - limits[:, 0]) / resolution
    x, y = limits[:, :1] + widths[:, None] * (np.arange(resolution) + 0.5)
    p = np.exp(_check_log_densities(log_prob(_mesh(x, y)), resolution**2)).reshape(resolution, resolution)

    ax = check_axes(ax)
    image = ax.imshow(p, cmap="cividis", origin="lower", extent=limits.ravel(), interpolation="nearest")
    image.set_clim(vmin=0)
    ax.locator_params(nbins=5)
    bar = color_bar(image, pad=0.5, label="density") if bar else None
    levels = mass_levels(p, widths.prod(), SHARES[:contours])
    levels = {share: level for share, level in levels.items() if p.min() < level < p.max()}
    if levels:
        heights = sorted(set(levels.values()))
        colors = [ink(image, height) for height in heights]
        lines = ax.contour(x, y, p, heights, colors=colors, linewidths=0.7)
        _leave_out_small_loops(lines, np.ptp(limits, axis=1) / 50)
        if bar:
            bar.add_lines(lines)
            _label_shares(bar.ax, levels, top=p.max())
    return ax


def mass_levels(p: ndarray, cell: float, shares: Sequence[float]) -> dict[float, float]:
    """Compute the level t at which {p >= t} contains each share of the mass.

    Parameters
    ----------
    p : ndarray
        Densities on a grid.
    cell : float
        The area of a grid cell.
    shares : sequence of float
        Between 0 and 1.

    Returns
    -------
    levels : dict
        The level of each share that the grid contains.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.plots import mass_levels
    >>> levels = mass_levels(np.array([0.1, 0.6, 0.2, 0.1]), cell=1.0, shares=(0.5, 0.75))
    >>> {share: float(level) for share, level in levels.items()}
    {0.5: 0.6, 0.75: 0.2}
    """
    descending = np.sort(p, axis=None)[::-1]
    mass = np.cumsum(descending) * cell
    return {share: descending[np.searchsorted(mass, share)] for share in shares if share <= mass[-1]}


@drawing
def grid(
    map: Callable,
    ax: Axes | None = None,
    *,
    limits: Limits = ((-2, 2), (-2, 2)),
    lines: int = 21,
    resolution: int = 200,
) -> Axes:
    """Draw a square grid deformed by a map, horizontal lines in blue and vertical ones, wider, in orange.

    Parameters
    ----------
    map : callable
        Maps points, float64, shape (m, 2), to finite points, shape (m, 2).
    limits : ((left, right), (bottom, top))
        The area of the grid before it is deformed.
    lines : int
        The number of lines in each direction.
    resolution : int
        The number of points on a line.

    Returns
    -------
    matplotlib.axes.Axes
        The two collections of lines have labels for `Axes.legend`.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.plots import grid
    >>> ax = grid(np.sinh, lines=5)
    """
    from matplotlib.collections import LineCollection

    limits = _check_limits(limits)
    check_count(lines, "lines", least=2)
    check_count(resolution, "resolution", least=2)
    (x, y), (x_of_line, y_of_line) = (
        [np.linspace(low, high, count) for low, high in limits] for count in (resolution, lines)
    )
    horizontals = _mesh(x, y_of_line).reshape(lines, resolution, 2)
    verticals = _mesh(x_of_line, y).reshape(resolution, lines, 2).swapaxes(0, 1)
    deformed = [_check_points(map(line.reshape(-1, 2)), line.shape) for line in (horizontals, verticals)]

    ax = check_axes(ax)
    # The wide lines are below the thin ones, so that both are seen where they run side by side.
    for image, label, color, width in (
        (deformed[0], "horizontals", BLUE, 0.6),
        (deformed[1], "verticals", ORANGE, 1.6),
    ):
        lines = LineCollection(image, colors=color, linewidths=width, label=label, zorder=2 - width / 10)
        ax.add_collection(lines)
    ax.autoscale_view()
    ax.set_aspect("equal")
    return ax


def _mesh(x, y):
    """All points of a grid, shape (len(y) * len(x), 2), x varying fastest."""
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _leave_out_small_loops(lines, least):
    """Keep the pieces of contours that are at least as wide or as high as `least`, a pair."""
    from matplotlib.path import Path

    nothing = Path(np.empty((0, 2)))
    pieces = [
        [Path(piece) for piece in level if (np.ptp(piece, axis=0) >= least).any()] for level in lines.allsegs
    ]
    lines.set_paths([Path.make_compound_path(*level) if level else nothing for level in pieces])


def _label_shares(bar, levels, top):
    """Write each share at its level, to the left of the colour bar."""
    gap = 0.1  # the height of a line of text, in units of the bar's height, which is an inch or more
    shares = sorted(levels, reverse=True)
    offsets = gap * np.arange(len(shares))
    # Raise labels that would overlap; the last one must not exceed the bar.
    places = np.array([levels[share] / top for share in shares]) - offsets
    places = np.minimum(np.maximum.accumulate(places), 1 - offsets[-1]) + offsets
    style = {"transform": bar.transAxes, "ha": "right", "fontsize": 8}
    bar.text(-0.3, 1 + 0.6 * gap, "mass\ninside", va="bottom", **style)
    for share, place in zip(shares, places):
        bar.text(-0.3, place, f"{share:.0%}", va="center", **style)


def _check_limits(limits):
    try:
        array = np.array(limits, float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (2, 2) or not np.isfinite(array).all() or not (array[:, 0] < array[:, 1]).all():
        raise InputError(f"expected limits as ((left, right), (bottom, top)), ascending, got {limits!r}")
    return array


def _check_steps(arrays):
    arrays = [check_rows(x, (2,), name=f"arrays[{index}]") for index, x in enumerate(arrays)]
    if not arrays:
        raise InputError("expected at least one array of points, got none")
    for index, x in enumerate(arrays):
        if len(x) != len(arrays[0]):
            raise InputError(
                f"expected the same points in every array, {len(arrays[0])} rows, "
                f"got {len(x)} in arrays[{index}]"
            )
    return to_host(arrays)


def _check_points(points, shape):
    points = to_host(check_rows(points, (2,), name="what map returned"))
    if points.size != math.prod(shape):
        raise InputError(f"expected map to return {math.prod(shape[:-1])} points, got {len(points)}")
    return points.reshape(shape)


def _check_log_densities(values, count):
    values = fetch(values)
    if values.shape != (count,):
        raise InputError(f"expected log_prob to return an array of shape ({count},), got {values.shape}")
    if np.isnan(values).any() or np.isposinf(values).any():
        raise InputError(f"expected log densities below infinity, got {values[~(values < np.inf)][0]}")
    return values
