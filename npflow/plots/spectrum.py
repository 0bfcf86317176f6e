"""The spectrum of a flow: the spread of the data along each dimension of z."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from npflow.autodiff.gpu.devices import fetch
from npflow.plots.canvas import check_axes, drawing
from npflow.plots.style import BLUE
from npflow.validation import check_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@drawing
def spectrum(log_scale: ArrayLike, ax: Axes | None = None, *, title: str | None = None, **plot) -> Axes:
    """Draw the spread exp(-log_scale) of each dimension, in descending order on a logarithmic axis.

    If all other layers preserve volume, as NICE's couplings do, a final `Scaling` gives the spread of the
    data along each dimension of z. It is the analogue of the spectrum of principal components: dimensions
    with a large spread carry the data, those with a small spread hardly vary.

    Parameters
    ----------
    log_scale : ndarray of floats
        Finite: the parameter of a `Scaling`, such as ``params["layer"][-1]["log_scale"]`` of a
        `npflow.models.nice`.
    **plot
        Passed on to `Axes.plot`, such as ``label="NICE"``.

    References
    ----------
    Dinh, Krueger, Bengio: NICE: Non-linear independent components estimation, 2014, section 3.3.
    https://arxiv.org/abs/1410.8516

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.plots import spectrum
    >>> ax = spectrum(np.array([0.5, -1.0, 2.0]), label="NICE")
    """
    from matplotlib.ticker import MaxNLocator

    values = check_rows(fetch(log_scale).reshape(1, -1), name="log_scale").ravel()
    spread = np.sort(np.exp(-values.astype(float)))[::-1]
    ax = check_axes(ax, title)
    if not {"c", "color"} & plot.keys():
        plot["color"] = BLUE
    ax.plot(np.arange(1, len(spread) + 1), spread, **{"marker": ".", "linewidth": 1.2} | plot)
    ax.set(xlabel="dimension, sorted", ylabel="spread, exp(-log_scale)", yscale="log")
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    return ax
