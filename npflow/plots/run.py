"""Figures of a training run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from npflow.errors import InputError, kind_of
from npflow.plots.canvas import check_axes, drawing
from npflow.plots.style import BLACK, BLUE, VERMILLION
from npflow.validation import check_number

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from npflow.training.history import History


@drawing
def history(
    history: History,
    ax: Axes | None = None,
    *,
    limit: float | None = None,
    limit_label: str = "entropy of the data",
) -> Axes:
    """Draw the loss of each step of a training run, and its running median.

    The y axis spans the middle 90 % of the losses and at most as much again above and below, so that a spike
    does not flatten the rest. If losses are cut off, the legend gives their maximum.

    Parameters
    ----------
    history : npflow.training.History
        With at least one finite loss.
    limit : float, optional
        The lowest possible loss in nats, if known: drawn as a dashed line.
    limit_label : str
        The name of the limit in the legend.

    Examples
    --------
    >>> import npflow
    >>> from npflow.plots import history
    >>> run = npflow.training.History(loss=[2.0, 1.5, 1.25])
    >>> ax = history(run, limit=1.0)
    """
    from matplotlib.ticker import MaxNLocator
    from scipy.ndimage import median_filter

    loss, validation = _check_history(history)
    if limit is not None:
        check_number(limit, "limit")
    low, high = _loss_range(np.concatenate([loss, validation]), limit)
    step = np.arange(1, len(loss) + 1)
    # About a thirtieth of the run; odd, so that it is centred; at most 201, since the filter is slow.
    window = min(len(loss) // 30, 200) | 1
    style = {"alpha": 0.35, "linewidth": 0.6} if window > 1 else {"marker": "."}

    ax = check_axes(ax)
    label = f"each step (up to {loss.max():.4g})" if loss.max() > high else "each step"
    ax.plot(step, loss, color=BLUE, label=label, **style)
    if window > 1:
        median = median_filter(loss, window, mode="reflect")
        ax.plot(step, median, color=BLUE, linewidth=1.6, label=f"median of {window} steps")
    if len(validation):
        ax.plot(history.validation_step, validation, "o", color=VERMILLION, markersize=3.5, label="held out")
    if limit is not None:
        ax.axhline(limit, color=BLACK, linestyle="--", linewidth=1, label=limit_label)
    ax.set(xlabel="step", ylabel="negative log-likelihood [nats]", ylim=(low, high))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.legend(loc="upper right", fontsize=8)
    return ax


def _loss_range(losses, limit):
    """The limits of the y axis; see `history`."""
    losses = losses[np.isfinite(losses)]
    bottom, top = np.percentile(losses, [5, 95])
    low, high = max(losses.min(), 2 * bottom - top), min(losses.max(), 2 * top - bottom)
    if limit is not None:
        low, high = min(low, limit), max(high, limit)
    margin = 0.05 * (high - low) or 0.5
    return low - margin, high + margin


def _check_history(history):
    if not hasattr(history, "validation_loss"):
        raise InputError(f"expected an npflow.training.History, got {kind_of(history)}")
    loss, validation = np.array(history.loss, float), np.array(history.validation_loss, float)
    if not np.isfinite(loss).any():
        raise InputError(f"expected a History with a finite loss, got {len(loss)} steps without one")
    if len(validation) != len(history.validation_step):
        raise InputError(
            f"expected a validation loss for each of {len(history.validation_step)} validation steps, "
            f"got {len(validation)}"
        )
    return loss, validation
