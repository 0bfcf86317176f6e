"""Figures in the plane: points, points layer by layer, densities, deformed grids."""

import math
import textwrap

import numpy as np

from npflow.autodiff.gpu.devices import fetch, to_host
from npflow.errors import InputError
from npflow.plots.canvas import BLUE, VERMILLION, check_axes, color_bar, ink
from npflow.validation import check_count, check_rows

# The shares of the mass that `density` draws contours around: those that are wanted first come first.
SHARES = (0.5, 0.9, 0.99, 0.75, 0.25, 0.1)


def samples(x, ax=None, *, limits=None, title=None, **scatter):
    """Points in the plane.

    Parameters
    ----------
    x : ndarray, shape (n, 2)
        One point a row.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    limits : ((left, right), (bottom, top)), optional
        The part of the plane to show; None shows all points.
    title : str, optional
    **scatter
        Passed on to `Axes.scatter`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    x = to_host(check_rows(x, (2,)))
    limits = None if limits is None else _check_limits(limits)
    ax = check_axes(ax)
    if not {"c", "color"} & scatter.keys():
        scatter["color"] = BLUE
    ax.scatter(x[:, 0], x[:, 1], **{"s": 5, "linewidths": 0, "alpha": 0.6} | scatter)
    ax.set_aspect("equal")
    if limits is not None:
        ax.set(xlim=limits[0], ylim=limits[1])
    if title is not None:
        ax.set_title(title)
    return ax


def steps(arrays, axes=None, *, names=None, columns=6):
    """The same points after each step, one small panel a step: how layers turn data into noise.

    A point keeps its colour from panel to panel: the angle at which it lies, in the first panel, around
    the mean. Every panel has limits of its own, for the scale may change from layer to layer, and shows the
    middle 99 % of either coordinate and some more; both axes of a panel have one scale, so that shapes are
    true.

    Parameters
    ----------
    arrays : list of ndarray, shape (n, 2)
        The points after each step, such as ``[x] + [step.output for step in chain.trace(params, x)]``.
    axes : array of matplotlib.axes.Axes, optional
        At least one for each array; None makes a new figure.
    names : list of str, optional
        Titles of the panels.
    columns : int
        How many panels a new figure has in a row.

    Returns
    -------
    ndarray of matplotlib.axes.Axes
        The axes given, or those of the new figure, row by row; those left over are switched off.
    """
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    arrays = _check_steps(arrays)
    columns = min(check_count(columns, "columns"), len(arrays))
    names = [""] * len(arrays) if names is None else [textwrap.fill(str(name), 22) for name in names]
    if len(names) != len(arrays):
        raise InputError(f"expected a name for each of {len(arrays)} arrays, got {len(names)}")
    axes = _panels(len(arrays), columns) if axes is None else np.asarray(axes)
    if axes.size < len(arrays):
        raise InputError(f"expected axes for each of {len(arrays)} arrays, got {axes.size}")

    # Cyclic, like the angle, and darkened, so that its light part shows on white.
    colors = ListedColormap(0.85 * colormaps["twilight"](np.linspace(0, 1, 256))[:, :3])
    offset = arrays[0] - arrays[0].mean(axis=0)
    angle = np.arctan2(offset[:, 1], offset[:, 0])
    for ax, x, name in zip(axes.flat, arrays, names):
        samples(x, ax, s=3, c=angle, cmap=colors, vmin=-np.pi, vmax=np.pi, alpha=1)
        ax.set_title(name, fontsize=8)
        # A single stray point must not shrink the rest of its panel to a dot.
        low, high = np.percentile(x, [0.5, 99.5], axis=0)
        center, half = (low + high) / 2, 0.65 * np.max(high - low) or 1.0
        ax.set(xlim=(center[0] - half, center[0] + half), ylim=(center[1] - half, center[1] + half))
        ax.tick_params(labelsize=6)
        ax.locator_params(nbins=4)
    for ax in axes.flat[len(arrays) :]:
        ax.set_axis_off()
    return axes


def density(log_prob, ax=None, *, limits=((-1.5, 2.5), (-1.0, 1.5)), resolution=200, contours=6):
    """A density in the plane, with contour lines around given shares of its mass.

    The contour of 90 % is where the density has the level t for which {x : p(x) >= t}, the smallest region
    of its mass, holds 90 % of it. Masses are sums over the grid; a contour whose mass the limits do not
    hold is left out. The shares stand to the left of the colour bar, each beside its contour's level.

    Parameters
    ----------
    log_prob : callable
        Takes points, float64, shape (m, 2), and returns their log densities in nats, shape (m,).
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    limits : ((left, right), (bottom, top))
        The part of the plane to show.
    resolution : int
        How many grid points each way.
    contours : int
        How many contours, at most 6: the first so many of 50, 90, 99, 75, 25 and 10 %.

    Returns
    -------
    matplotlib.axes.Axes
    """
    limits = _check_limits(limits)
    check_count(resolution, "resolution", least=2)
    check_count(contours, "contours", least=0, most=len(SHARES))
    # Centres of the image's pixels, so that the sum over pixels is the midpoint rule.
    widths = (limits[:, 1] - limits[:, 0]) / resolution
    x, y = limits[:, :1] + widths[:, None] * (np.arange(resolution) + 0.5)
    p = np.exp(_check_log_densities(log_prob(_mesh(x, y)), resolution**2)).reshape(resolution, resolution)

    ax = check_axes(ax)
    image = ax.imshow(p, cmap="cividis", origin="lower", extent=limits.ravel(), interpolation="nearest")
    image.set_clim(vmin=0)
    ax.locator_params(nbins=5)
    bar = color_bar(image, pad=0.5, label="density")
    levels = mass_levels(p, widths.prod(), SHARES[:contours])
    levels = {share: level for share, level in levels.items() if p.min() < level < p.max()}
    if levels:
        heights = sorted(set(levels.values()))
        colors = [ink(image, height) for height in heights]
        lines = ax.contour(x, y, p, heights, colors=colors, linewidths=0.6)
        bar.add_lines(lines)
        _label_shares(bar.ax, levels, top=p.max())
    return ax


def mass_levels(p, cell, shares):
    """The level t of each share of the mass for which {p >= t} holds that share: a dict.

    Parameters
    ----------
    p : ndarray
        Densities on a grid.
    cell : float
        The area that one of them stands for.
    shares : sequence of float
        Shares of 1; those that the grid does not hold are left out.
    """
    descending = np.sort(p, axis=None)[::-1]
    mass = np.cumsum(descending) * cell
    return {share: descending[np.searchsorted(mass, share)] for share in shares if share <= mass[-1]}


def grid(map, ax=None, *, limits=((-2, 2), (-2, 2)), lines=21, resolution=200):
    """A square grid as a map deforms it: lines that were horizontal blue, verticals vermillion.

    Parameters
    ----------
    map : callable
        Takes points, float64, shape (m, 2), and returns where they go, shape (m, 2).
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    limits : ((left, right), (bottom, top))
        Where the grid is before it is deformed.
    lines : int
        How many lines each way.
    resolution : int
        How many points a line is drawn through.

    Returns
    -------
    matplotlib.axes.Axes
        Its two collections of lines are labelled, for `Axes.legend`.
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
    for image, color, label in zip(deformed, (BLUE, VERMILLION), ("horizontals", "verticals")):
        ax.add_collection(LineCollection(image, colors=color, linewidths=0.8, label=label))
    ax.autoscale_view()
    ax.set_aspect("equal")
    return ax


def _panels(count, columns):
    import matplotlib.pyplot as plt

    rows = math.ceil(count / columns)
    size = (1.8 * columns, 2 * rows)
    return plt.subplots(rows, columns, squeeze=False, figsize=size, layout="constrained")[1]


def _mesh(x, y):
    """All points of a grid, x running fastest, shape (len(y) len(x), 2)."""
    return np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)


def _label_shares(bar, levels, top):
    """Write each share beside its level, to the left of the colour bar."""
    gap = 0.05  # the height of a line of small print, where the bar is 1 high
    shares = sorted(levels, reverse=True)
    offsets = gap * np.arange(len(shares))
    # Raised where they would overlap, and no higher than that the last one ends with the bar.
    places = np.array([levels[share] / top for share in shares]) - offsets
    places = np.minimum(np.maximum.accumulate(places), 1 - offsets[-1]) + offsets
    style = {"transform": bar.transAxes, "ha": "right", "fontsize": 7}
    bar.text(-0.3, 1 + 0.8 * gap, "mass\ninside", va="bottom", **style)
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
    arrays = list(arrays)
    if not arrays:
        raise InputError("expected at least one array of points, got none")
    for index, x in enumerate(arrays):
        check_rows(x, (2,), name=f"arrays[{index}]")
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
