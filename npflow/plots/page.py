"""A page to step through a flow, layer by layer, and through its recorded program, line by line."""

import json
import math
import re
from collections.abc import Sequence
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from npflow.autodiff import record
from npflow.autodiff.gpu.devices import to_host
from npflow.autodiff.program.reading import lines_of, values_of
from npflow.docstrings import formulas_of
from npflow.errors import InputError, in_short, kind_of
from npflow.files import prepare_to_write, written_aside
from npflow.flow import Flow
from npflow.layers import Composite
from npflow.layers.composite import follow
from npflow.layers.layer import given
from npflow.layers.units import in_units
from npflow.typing import Params
from npflow.validation import check_count, check_domain
from npflow.verify.jacobians import by_autograd

MOST_NUMBERS = 64  # of a row: the Jacobian of each layer is drawn
MOST_MARKED = 12
ENTRIES = 150_000  # of all Jacobians that are stored; the rest of the page is then as large again
DIGITS = 6  # of a number on the page
ENDS = 8  # the numbers of a longer array that are shown, beside its least and its largest
LINES, POINTS = 13, 41  # of the grid, in each direction, and on a line
COLORS = 32


class Stage(NamedTuple):
    """A layer on the way from x to z: its path, what it did to all rows, and how it did it."""

    path: str
    layer: object
    direction: str
    apply: object  # maps rows and their context to the output and the log-det
    x: np.ndarray
    context: np.ndarray | None
    z: np.ndarray
    log_det: np.ndarray


def step_page(
    flow: Flow,
    params: Params,
    x: ArrayLike,
    path: str | PathLike,
    context: ArrayLike | None = None,
    *,
    marked: Sequence[int] | None = None,
    title: str | None = None,
) -> Path:
    """Write a page to step through a flow: one HTML file, which needs no server and no network.

    A slider goes through the layers from x to z and back. The points keep their colour, which is their place
    along the first component of z. In two dimensions a grid is deformed with them. Beside them stand the
    formula of the layer, its log-det and its Jacobian at the chosen point, and the sum that becomes log p(x).
    Below them stands the program of `npflow.autodiff.record`, line by line: the loss of one row and its
    gradient, with each line's formula, shape and value. Arrow keys go through layers and points, and a click
    chooses a point.

    The page computes nothing but the positions between two layers, which it calls interpolated. All other
    numbers are npflow's, to six digits.

    Parameters
    ----------
    flow : Flow
    params : tree of ndarray
    x : ndarray, shape (n, *event)
        The points: rows of at most 64 numbers. Images are shown as their numbers.
    path : str or path
        An existing file is replaced.
    context : ndarray, shape (n, context_features), optional
        As for `Flow.log_prob`.
    marked : sequence of int, optional
        The rows, at most 12, whose values are stored for each line of the program, and whose Jacobians are
        stored where those of all rows would be too many. By default rows at equal distances; fewer where
        their Jacobians are large.
    title : str, optional

    Returns
    -------
    pathlib.Path
        The path of the page.

    Raises
    ------
    InputError
        If an argument is not as described above.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> import npflow
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> x = npflow.datasets.moons(500, rng=rng)
    >>> flow = npflow.models.glow(features=2, steps=10)
    >>> params = flow.init(rng, x)
    >>> npflow.plots.step_page(flow, params, x, "moons.html")          # doctest: +SKIP
    PosixPath('moons.html')
    """
    if not isinstance(flow, Flow):
        raise InputError(f"expected a Flow to step through, got {kind_of(flow)}")
    if not isinstance(title, str | None):
        raise InputError(f"expected title to be a string or None, got {in_short(title)}")
    path = Path(path)
    prepare_to_write(path, "the path of the page")
    page = resources.files("npflow.plots").joinpath("page.html").read_text("utf-8")
    text = json.dumps(contents(flow, params, x, context, marked=marked, title=title), separators=(",", ":"))
    with written_aside(path) as file:
        file.write(page.replace('id="data">{}', 'id="data">' + text.replace("<", "\\u003c"), 1).encode())
    return path


def contents(flow, params, x, context=None, *, marked=None, title=None):
    """What a page shows, as plain data: everything that npflow computes for it."""
    _, x, context = flow.checked(params, x, context)
    params, x = to_host((params, x))
    context = None if context is None else to_host(context)
    check_domain(x, flow.domain)
    dims = math.prod(flow.event_shape)
    if dims > MOST_NUMBERS:
        raise InputError(
            f"expected rows of at most {MOST_NUMBERS} numbers, whose Jacobians can be drawn, got {dims}"
        )
    units = in_units(params, context)
    with np.errstate(all="ignore"):
        stages, z = stages_of(flow.layer, params["layer"], x, units)
        log_prior = flow.prior.log_prob(params["prior"], z)
        everywhere = dims**2 * len(x) * len(stages) <= ENTRIES
        rows = marked_rows(marked, len(x), 1 if everywhere else dims**2 * len(stages))
        jacobian_rows = np.arange(len(x)) if everywhere else rows
        layers, total = [], 0
        for stage in stages:
            total = total + stage.log_det
            layers.append(layer_of(stage, total, jacobian_rows))
        grid = grid_of(flow, params, x) if dims == 2 and context is None else None
    return {
        "title": title or f"{len(stages)} layers, {len(x):,} points",
        "dtype": str(x.dtype),
        "dims": dims,
        "marked": rows.tolist(),
        "everywhere": everywhere,
        "axes": axes_of(x),
        "colors": colors(),
        "color": shades(z),
        "x": numbers(x),
        "context": None if context is None else [numbers(row) for row in context],
        "layers": layers,
        "prior": {"name": type(flow.prior).__name__, "log_prob": numbers(log_prior)},
        "log_prob": numbers(flow.log_prob(params, x, context)),
        "grid": grid,
        "program": program_of(flow, params, x, context, rows, stages),
    }


# ---------------------------------------------------------------- the layers


def stages_of(layer, params, x, context, path="layer", direction="forward"):
    """The layers in a row from x to z, and z. A composite whose steps are no row, such as Split, is one."""

    def apply(x, context):
        return getattr(layer, direction)(params, x, **given(layer, context))

    if isinstance(layer, Composite):
        stages, last, in_a_row = [], x, True

        def take(step):
            nonlocal last, in_a_row
            in_a_row = in_a_row and step.x is last
            inner = path if step.name is None else f"{path}/{step.name}"
            more, last = stages_of(
                step.layer, step.params(params), step.x, step.context, inner, step.direction
            )
            stages.extend(more)
            return last

        if follow(layer, x, direction, context, take) is last and in_a_row and stages:
            return stages, last
    z, log_det = apply(x, context)
    return [Stage(path, layer, direction, apply, x, context, z, log_det)], z


def layer_of(stage, total, rows):
    """A layer as plain data: `total` is the sum of the log-dets up to it, and `rows` have a Jacobian."""
    context = None if stage.context is None else stage.context[rows]
    matrices = by_autograd(lambda x: stage.apply(x, context)[0], stage.x[rows])
    kind = type(stage.layer)
    number = stage.path.removeprefix("layer").lstrip("/")
    turned = ", inverse" if stage.direction == "inverse" else ""
    return {
        "name": f"{number} {kind.__name__}{turned}".strip(),
        "shape": list(stage.z.shape[1:]),
        "summary": (kind.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ").replace("`", ""),
        "formula": formulas_of(kind),
        "out": numbers(stage.z),
        "log_det": numbers(stage.log_det),
        "total": numbers(total),
        "jacobian": numbers(matrices),
        "structure": structure_of(matrices),
    }


def structure_of(matrices):
    """In words, which entries of the matrices are zero."""
    above, below = np.any(np.triu(matrices, 1)), np.any(np.tril(matrices, -1))
    if above and below:
        return "not triangular"
    return "upper triangular" if above else "lower triangular" if below else "diagonal"


def grid_of(flow, params, x):
    """A square grid around the points, and what each layer makes of it: numbers for each stage, x first."""
    rows = x.reshape(len(x), -1)
    low, high = rows.min(axis=0), rows.max(axis=0)
    margin = 0.08 * (high - low) + 1e-3 * (high == low)
    inside = np.array(flow.domain).clip(-np.finfo(x.dtype).max / 4, np.finfo(x.dtype).max / 4)
    gap = 1e-3 * (inside[1] - inside[0]) if np.isfinite(flow.domain).all() else 0
    low, high = np.maximum(low - margin, inside[0] + gap), np.minimum(high + margin, inside[1] - gap)
    along, across = (np.linspace(0, 1, count) for count in (POINTS, LINES))
    level, upright = np.meshgrid(across, along, indexing="ij")
    lines = np.stack(
        [np.stack([upright, level], -1), np.stack([level, upright], -1)]
    )  # horizontals, verticals
    points = (low + (high - low) * lines.reshape(-1, 2)).astype(x.dtype).reshape(-1, *x.shape[1:])
    stages, _ = stages_of(flow.layer, params["layer"], points, None)
    deformed = [points, *(stage.z for stage in stages)]
    return {"lines": LINES, "points": POINTS, "stages": [numbers(one, digits=4) for one in deformed]}


# ---------------------------------------------------------------- the program


def program_of(flow, params, x, context, rows, stages):
    """The program of the loss of one row, with the values of the marked rows; or why there is none."""
    batch = lambda row: tuple(array[row : row + 1] for array in (x, context) if array is not None)
    try:
        with np.errstate(all="ignore"):
            program = record(flow.loss, params, *batch(rows[0]), reuse=False)
    except InputError as error:
        return {"refused": str(error)}
    values = [values_of(program, params, *batch(row)) for row in rows]
    sections, lines = {}, []
    for line in lines_of(program):
        section = sections.setdefault((line.part, line.section), len(sections))
        read = line.name if line.name else copied(line.text)
        found = [value[read] for value in values] if read in values[0] else []
        shown = [summary(value) for value in found]
        if all(one == shown[0] for one in shown):
            shown = shown[:1]
        shape = "" if not found else " x ".join(map(str, found[0].shape)) or "scalar"
        lines.append([section, line.text, line.formula, shape, "" if again(line) else shown])
    paths = [re.findall(r"\d+", stage.path) for stage in stages]
    return {
        "head": f"{program.lines:,} calls, forward and backward, of one row",
        "sections": [[*key, stage_of(key[1], paths)] for key in sections],
        "lines": lines,
    }


def copied(text):
    """The value that a line copies to the gradient of a parameter, or None."""
    found = re.fullmatch(r"\w+\.copyto\(gradient\[\d+\], (\w+)\)", text)
    return found and found[1]


def again(line):
    """Whether a line of the backward pass names a value that stands in the forward pass."""
    return line.part == "backward" and bool(re.search(r" = (parameters|data|saved)\[", line.text))


def stage_of(section, paths):
    """The number, from 1, of the layer that a section of the program belongs to; the prior's is the last."""
    title = section.split(":")[0]
    if title.startswith("prior"):
        return len(paths) + 1
    places = [str(int(place)) for place in re.findall(r"layer(\d+)", title)]
    fits = [number for number, path in enumerate(paths, 1) if path == places[: len(path)]]
    return (
        fits[0] if fits and title and (places or len(paths) == 1) and section != "outside the layers" else 0
    )


def summary(value):
    """An array as a list of at most eight numbers, and where it has more its least and its largest."""
    listed = numbers(value)
    if len(listed) <= ENDS:
        return listed
    return [*listed[:ENDS], *numbers(np.array([np.min(value), np.max(value)]))]


# ---------------------------------------------------------------- numbers and colours


def numbers(array, digits=DIGITS):
    """The numbers of an array in one list, to some digits; see `plain`."""
    return [plain(value, digits) for value in np.asarray(array).ravel().tolist()]


def plain(value, digits):
    """A number of so many digits; text where it is not finite, which JSON has no number for."""
    if not math.isfinite(value):
        return str(value)
    value = float(f"{value:.{digits}g}")
    return int(value) if value.is_integer() and abs(value) < 10**digits else value


def marked_rows(marked, n, entries):
    """The rows that are marked, checked; by default as many as leave the Jacobians small."""
    if marked is None:
        count = min(MOST_MARKED, n, max(1, ENTRIES // entries))
        return np.unique(np.linspace(0, n - 1, count).astype(int))
    try:
        rows = list(marked)
    except TypeError:
        raise InputError(f"expected marked to be the numbers of rows, got {in_short(marked)}") from None
    check_count(len(rows), "the number of marked rows", most=MOST_MARKED)
    return np.array([check_count(row, "a marked row", least=0, most=n - 1) for row in rows])


def axes_of(x):
    """The two components to begin with: the first two, or of images the two that vary most."""
    rows = x.reshape(len(x), -1)
    axes = range(rows.shape[1]) if x.ndim == 2 else np.argsort(-np.var(rows, axis=0), kind="stable").tolist()
    return [axes[0], axes[min(1, len(axes) - 1)]]


def shades(z):
    """A shade for each point: its rank along the first component of z."""
    rank = np.argsort(np.argsort(z.reshape(len(z), -1)[:, 0], kind="stable"), kind="stable")
    return (rank * COLORS // len(z)).tolist()


def colors():
    """The shades of cividis that can be seen on white, and on black."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    ends = {"light": (0.0, 0.85), "dark": (0.25, 1.0)}
    return {
        theme: [to_hex(color) for color in colormaps["cividis"](np.linspace(*end, COLORS))]
        for theme, end in ends.items()
    }
