"""A tape and its buffer plan as the text of two Python functions."""

import itertools
import textwrap
from dataclasses import dataclass

import numpy as np

from npflow.autodiff.program.calls import Spelling, is_transpose
from npflow.autodiff.program.tape import Value

WIDTH = 110
INDENT = "    "


@dataclass(frozen=True)
class Script:
    """What a program is compiled from.

    Attributes
    ----------
    source : str
        The text.
    namespace : dict
        What it mentions by name and does not define: NumPy, other functions, large constants.
    slots : tuple of Slot
        The arrays that its `buffers` are.
    """

    source: str
    namespace: dict
    slots: tuple


def write(tape, plan, head):
    """The text of a tape, `head` a comment to begin with."""
    inputs = (*tape.parameters, *tape.data)
    spelling = Spelling({value.name for value in (*inputs, *tape.calls)}, tape.device)
    buffers = {}  # the slots of the workspace that are written to, with their numbers
    ahead = [call for call in tape.calls if not call.place.backward]
    behind = [call for call in tape.calls if call.place.backward]
    saved = _saved(ahead, behind, tape)

    sources = {"parameters": tape.parameters, "data": tape.data}
    lines = _body(ahead, plan, spelling, buffers, sources, [tape.value])
    value = spelling.argument(tape.value) + ("[()]" if isinstance(tape.value, np.generic) else "")
    if tape.gradients is not None:
        lines += ["", f"return {value}, {_tuple(saved)}"]
    else:
        lines += ["", f"return {value}"]
    what = (
        "The value, and what the backward pass reads of the way there."
        if tape.gradients is not None
        else "The value."
    )
    functions = ["", "", *_function("forward(parameters, data, buffers)", what, lines)]
    if tape.gradients is not None:
        lines = _body(behind, plan, spelling, buffers, sources | {"saved": saved}, tape.gradients)
        lines += _copies(tape, plan, spelling)
        signature = "backward(parameters, data, saved, buffers, gradient)"
        what = "Write the gradient in each parameter to its place."
        functions += ["", "", *_function(signature, what, lines)]
    top = [f"# {piece}" for line in head.splitlines() for piece in textwrap.wrap(line, WIDTH - 2)] + [
        "",
        _import(tape.device),
        "",
    ]
    return Script(
        "\n".join([*top, *spelling.definitions, *functions]) + "\n", spelling.namespace, tuple(buffers)
    )


def _saved(ahead, behind, tape):
    """What the forward pass makes and the backward pass, or the gradient, reads, by its first reader."""
    made = set(ahead)
    reads = [read for call in behind for read in _reads(call)]
    reads += [_origin(gradient) for gradient in tape.gradients or () if isinstance(gradient, Value)]
    return tuple(dict.fromkeys(value for value in reads if value in made))


def _reads(call):
    """The values that the text of a call names."""
    return [] if is_transpose(call) else [_origin(parent) for parent in call.parents]


def _origin(value):
    """A value, or what it is the transpose of: transposes have no names in the text."""
    return _origin(value.arguments[0]) if is_transpose(value) else value


def _body(calls, plan, spelling, buffers, sources, results):
    """The calls as lines; where a layer starts, a comment, and names for what it reads; and for the results."""
    lines, named = [], set()
    for title, section in itertools.groupby(calls, key=lambda call: call.place.title):
        section = list(section)
        title = f"# ---- {title or 'outside the layers'}"
        lines += ["", textwrap.shorten(title, WIDTH - len(INDENT), placeholder=" ...")]
        reads = {read for call in section for read in _reads(call)}
        reads |= {_origin(call) for call in section if call in plan.copies}
        reads -= named
        named |= reads
        for source, values in sources.items():
            lines += _unpacked(source, values, reads)
        for call in section:
            if not is_transpose(call):
                out = _place(plan.slots.get(call), buffers, sources["parameters"])
                lines.append(f"{call.name} = {spelling.call(call, out)}")
            lines += [_copy(leaf, call, spelling) for leaf in plan.copies.get(call, ())]
    reads = {_origin(result) for result in results if isinstance(result, Value)} - named
    for source, values in sources.items():
        lines += _unpacked(source, values, reads)
    return lines


def _place(slot, buffers, parameters):
    """Where a call writes its result, or None; a slot of the workspace gets a number among the `buffers`."""
    if slot is None:
        return None
    if slot.leaf is None:
        return f"buffers[{buffers.setdefault(slot, len(buffers))}]"
    same = slot.shape == parameters[slot.leaf].example.shape
    return f"gradient[{slot.leaf}]" if same else f"gradient[{slot.leaf}].reshape({slot.shape})"


def _unpacked(source, values, reads):
    """Lines that give names to those of the values that are read, a line for each unbroken stretch."""
    numbers = [number for number, value in enumerate(values) if value in reads]
    for _, stretch in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        first, *_, last = [number for _, number in stretch] * 2
        if first == last:
            yield f"{values[first].name} = {source}[{first}]"
        else:
            yield f"{_tuple(values[first : last + 1])} = {source}[{first}:{last + 1}]"


def _copies(tape, plan, spelling):
    """The gradients that no call of the backward pass makes: the forward pass, or nothing but the recording."""
    there = {slot.leaf for slot in plan.slots.values()}.union(*plan.copies.values())
    lines = [
        _copy(leaf, gradient, spelling)
        for leaf, gradient in enumerate(tape.gradients)
        if gradient is not None and leaf not in there
    ]
    return ["", "# ---- gradients that are made elsewhere", *lines] if lines else []


def _copy(leaf, gradient, spelling):
    return f"{spelling.alias}.copyto(gradient[{leaf}], {spelling.argument(gradient)})"


def _function(signature, what, lines):
    text = [f"def {signature}:", f'{INDENT}"""{what}"""']
    for line in lines:
        long = line.startswith(("(", "return")) and len(line) > WIDTH - len(INDENT)
        text += [f"{INDENT}{piece}".rstrip() for piece in (_wrapped(line) if long else [line])]
    return text


def _wrapped(line):
    """A long line of names in parentheses as many."""
    before, _, rest = line.partition("(")
    names, _, after = rest.rpartition(")")
    inside = textwrap.wrap(names, WIDTH - 2 * len(INDENT))
    return [f"{before}(", *(f"{INDENT}{piece}" for piece in inside), f"){after}"]


def _import(device):
    name, alias = device.module.__name__, device.alias
    return f"import {name}" if name == alias else f"import {name} as {alias}"


def _tuple(values):
    names = ", ".join(value.name for value in values)
    return f"({names},)" if len(values) == 1 else f"({names})"
