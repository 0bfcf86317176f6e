"""What a flow is made of, as a table: its layers, their shapes, parameters and log-determinants."""

import re
from itertools import count
from typing import NamedTuple

import numpy as np

from npflow.autodiff import tree
from npflow.docstrings import formulas_of
from npflow.errors import InputError, in_short
from npflow.layers.composite import dry_run, name_of
from npflow.model import Model
from npflow.tables import Table
from npflow.typing import Params
from npflow.validation import context_shape


def summary(flow: Model, params: Params | None = None) -> Table:
    """The layers of a flow as a table: what each makes of its input, its parameters and its log-det.

    Parameters
    ----------
    flow : Flow
    params : tree of ndarray, optional
        Those of `Flow.init` or of training. Without them, the table has no column of parameters.

    Returns
    -------
    Table
        It prints as text, and shows as HTML in a notebook. A row is a layer, on the way from x to z: its path and
        class, the shape of a row of its output, how many numbers are trained, and log|det J| as the docstring of its
        class states it, with the opposite sign where the flow applies its inverse. The last row is the prior.

    Raises
    ------
    InputError
        If `flow` is no flow, or the parameters are not its own.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> flow = npflow.models.glow(features=2, steps=1)
    >>> npflow.summary(flow, flow.init(rng, rng.normal(size=(100, 2))))
    Flow of rows of shape (2,), 8,592 parameters
    layer                     output  parameters  log|det J|
    layer/0 (Units)           (2,)             0  -H W sum(e) log 2
    layer/1 (ActNorm)         (2,)             4  H W sum(log_scale)
    layer/2 (AffineCoupling)  (2,)         8,578  sum(log_scale)
    layer/3 (Conv1x1)         (2,)            10  H W sum(log|s|)
    prior (Normal)                             0
    """
    if not all(hasattr(flow, name) for name in ("layer", "prior", "event_shape", "context_features")):
        raise InputError(f"expected a Flow to summarize, got {in_short(flow)}")
    if params is not None:
        flow.check(params)
    context = np.zeros((1, *context_shape(flow.context_features))) if flow.context_features else None
    places = count()
    visit = lambda layer, x, context, direction: Line(next(places), layer, x, direction)
    noted, _ = dry_run(flow.layer, np.zeros((1, *flow.event_shape)), visit, context=context)
    layers = sorted(_rows("layer", noted, None if params is None else params["layer"]))  # by place
    rows = [
        *(row for _, row in layers),
        (name_of("prior", flow.prior), "", _trained(params and params["prior"]), ""),
    ]
    columns = ("layer", "output", "parameters", "log|det J|")
    if params is None:
        columns, rows = (*columns[:2], columns[3]), [(*row[:2], row[3]) for row in rows]
    size = "" if params is None else f", {_trained(params):,} parameters"
    return Table(f"Flow of rows of shape {flow.event_shape}{size}", columns, tuple(rows))


class Line(NamedTuple):
    """A layer that is made of no others, and where it stands on the way from x to z."""

    place: int
    layer: object
    x: np.ndarray
    direction: str

    def row(self, path, params):
        """Its line of the table."""
        _, output = dry_run(self.layer, self.x, lambda *_: None, self.direction)
        log_dets = re.findall(r"log\|det J\| = (.*?)(?: {4,}|$)", formulas_of(type(self.layer)), re.MULTILINE)
        log_dets, name = [text.strip() for text in log_dets], type(self.layer).__name__
        if self.direction == "inverse":
            log_dets, name = map(_negated, log_dets), f"{name}, inverse"
        return f"{path} ({name})", str(output.shape[1:]), _trained(params), " or ".join(log_dets)


def _negated(formula):
    """Minus a formula."""
    if formula == "0":
        return formula
    if re.search(r" [-+] ", formula) and not re.fullmatch(r"sum\(.*\)", formula):
        return f"-({formula})"
    return formula[1:] if formula.startswith("-") else f"-{formula}"


def _rows(path, noted, params):
    """The rows of a tree of `Line`, each with its place."""
    if isinstance(noted, Line):
        yield noted.place, noted.row(path, params)
        return
    for key, inner in enumerate(noted) if isinstance(noted, list) else noted.items():
        yield from _rows(f"{path}/{key}", inner, None if params is None else params[key])


def _trained(params):
    """How many numbers of a tree are trained."""
    return sum(np.size(leaf) for _, leaf in tree.items(params or {}) if tree.is_trained(leaf))
