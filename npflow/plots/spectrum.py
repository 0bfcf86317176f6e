"""The spectrum of a flow: how much room it gives each of its dimensions."""

import numpy as np

from npflow.autodiff.gpu.devices import fetch
from npflow.errors import InputError
from npflow.plots.canvas import BLUE, check_axes


def spectrum(log_scale, ax=None, *, title=None, **plot):
    """The spread exp(-log_scale) that a scaling gives each dimension, sorted, the largest first.

    Between a flow's layers that keep volume, as NICE's couplings do, and its prior, a scaling alone says how far the
    data spreads along each dimension of z: what principal components say of a linear map. Dimensions on the left
    carry the data, those far down on the right hardly vary. The y axis is logarithmic.

    Parameters
    ----------
    log_scale : ndarray
        Of a `Scaling`: ``params["layer"][-1]["log_scale"]`` of a `npflow.models.nice`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; None makes a new figure.
    title : str, optional
    **plot
        Passed on to `Axes.plot`, such as ``label="NICE"``.

    Returns
    -------
    matplotlib.axes.Axes

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, section 3.3.
    https://arxiv.org/abs/1410.8516
    """
    values = _check_log_scale(log_scale)
    spread = np.sort(np.exp(-values.astype(float)))[::-1]
    ax = check_axes(ax)
    if not {"c", "color"} & plot.keys():
        plot["color"] = BLUE
    ax.plot(np.arange(1, len(spread) + 1), spread, **{"marker": ".", "linewidth": 1.2} | plot)
    ax.set(xlabel="dimension, sorted", ylabel="spread exp(-log_scale)", yscale="log")
    ax.xaxis.get_major_locator().set_params(integer=True)
    if title is not None:
        ax.set_title(title)
    return ax


def _check_log_scale(log_scale):
    values = fetch(log_scale).ravel()
    if values.dtype.kind != "f" or not values.size:
        raise InputError(
            f"expected log_scale as an array of floats, at least one, got {np.shape(log_scale)} of {values.dtype}"
        )
    if not np.isfinite(values).all():
        raise InputError(f"expected log_scale to be finite, got {values[~np.isfinite(values)][0]}")
    return values
