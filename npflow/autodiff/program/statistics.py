"""The cost of the calls of a program, by layer and direction: operations, bytes moved, memory held."""

from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from npflow.autodiff.gpu.devices import is_array
from npflow.autodiff.program.calls import ASTYPE, CONCATENATE, GETITEM, is_numpys, is_ufunc
from npflow.autodiff.program.tape import example_of

MOVES = {ASTYPE, *CONCATENATE, GETITEM, np.take, np.reshape, np.transpose, np.broadcast_to, np.copyto}


@dataclass
class Cost:
    """The cost of some calls of a program."""

    lines: int = 0  # the number of calls
    flops: int = 0  # operations: two for each product in a matrix product, otherwise one for each element
    bytes: int = 0  # read and written; views are free
    peak: int = 0  # the most bytes of the workspace that are in use during a call

    def __add__(self, other):
        return Cost(
            self.lines + other.lines,
            self.flops + other.flops,
            self.bytes + other.bytes,
            max(self.peak, other.peak),
        )


def is_view(call):
    """Whether a call only makes a view of its argument."""
    return bool(call.views) and is_numpys(call.function)


def flops(call):
    """The number of arithmetic operations of a call."""
    if call.function in MOVES or is_view(call):
        return 0
    if call.function in (np.dot, np.matmul):
        inner = np.shape(example_of(call.arguments[0]))
        return 2 * np.size(call.example) * (inner[-1] if inner else 1)
    if is_ufunc(call.function):
        return np.size(call.example)
    return max(map(np.size, _operands(call)), default=0)


def bytes_moved(call):
    """The number of bytes that a call reads and writes."""
    return 0 if is_view(call) else sum(operand.nbytes for operand in _operands(call))


def costs_by_layer(tape, live):
    """The forward and the backward Cost of each layer, by the layer's title."""
    costs = defaultdict(lambda: {False: Cost(), True: Cost()})
    for call in tape.calls:
        costs[call.place.title][call.place.backward] += Cost(1, flops(call), bytes_moved(call), live[call])
    return {title: (pair[False], pair[True]) for title, pair in costs.items()}


def total(costs):
    """The cost of all layers in both directions."""
    return sum((cost for pair in costs.values() for cost in pair), Cost())


def table(costs):
    """The costs by layer as text."""
    rows = [(title.split(":")[0] or "outside the layers", *pair) for title, pair in costs.items()]
    sums = [sum((row[side] for row in rows), Cost()) for side in (1, 2)]
    width = max((len(row[0]) for row in rows), default=3) + 2
    columns = f"{'lines':>8}{'Mflop':>9}{'MB moved':>10}{'MB held':>9}"
    text = [f"{'':{width}}{'forward':>36}{'backward':>38}", f"{'layer':{width}}{columns}  {columns}"]
    for name, ahead, behind in [*rows, ("all", *sums)]:
        text.append(f"{name:{width}}{_columns(ahead)}  {_columns(behind)}")
    return "\n".join(text)


def _columns(cost):
    return f"{cost.lines:8}{cost.flops / 1e6:9.3f}{cost.bytes / 1e6:10.3f}{cost.peak / 1e6:9.3f}"


def _operands(call):
    """The arrays and NumPy's scalars that a call reads and writes."""
    examples = map(example_of, (call, *call.arguments))
    return [example for example in examples if is_array(example) or isinstance(example, np.generic)]
