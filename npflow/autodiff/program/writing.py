"""A tape and its buffer plan as the text of two Python functions."""

import itertools
import textwrap

import numpy as np

from npflow.autodiff.program.calls import Spelling, is_transpose
from npflow.autodiff.program.tape import Value

WIDTH = 110
INDENT = "    "


def write(tape, plan, head):
    """A tape as text, which begins with the comment `head`.

    Returns the source; a dict of what it names and does not define (NumPy, other functions, large constants);
    and the slots of its `buffers`.
    """
    inputs = (*tape.parameters, *tape.data)
    spelling = Spelling({value.name for value in (*inputs, *tape.calls)}, tape.device)
    buffers = {}  # the number of each slot of the workspace that is written to
    ahead = [call for call in tape.calls if not call.place.backward]
    behind = [call for call in tape.calls if call.place.backward]
    saved = _saved(ahead, behind, tape)

    sources = {"parameters": tape.parameters, "data": tape.data}
    lines = _body(ahead, plan, spelling, buffers, sources, [tape.value])
    value = spelling.argument(tape.value) + ("[()]" if isinstance(tape.value, np.generic) else "")
    signature = "forward(parameters, data, buffers)"
    if tape.gradients is None:
        functions = _function(signature, "The value.", [*lines, "", f"return {value}"])
    else:
        what = "The value, and the values that the backward pass reads."
        functions = _function(signature, what, [*lines, "", f"return {value}, {_tuple(saved)}"])
        lines = _body(behind, plan, spelling, buffers, sources | {"saved": saved}, tape.gradients)
        lines += _copies(tape, plan, spelling)
        signature = "backward(parameters, data, saved, buffers, gradient)"
        functions += _function(signature, "Write the gradient in each parameter to its place.", lines)
    top = [f"# {text}" for line in head.splitlines() for text in textwrap.wrap(line, WIDTH - 2)]
    text = [*top, "", _import(tape.device), "", *spelling.definitions, *functions, ""]
    return "\n".join(text), spelling.namespace, tuple(buffers)


def _saved(ahead, behind, tape):
    """The values of the forward pass that are read after it, in the order of their readers."""
    made = set(ahead)
    reads = [read for call in behind for read in _reads(call)]
    reads += [_origin(gradient) for gradient in tape.gradients or () if isinstance(gradient, Value)]
    return tuple(dict.fromkeys(value for value in reads if value in made))


def _reads(call):
    """The values that are named in the text of a call."""
    return [] if is_transpose(call) else [_origin(parent) for parent in call.parents]


def _origin(value):
    """A value, or the value that it is the transpose of: transposes have no names in the text."""
    return _origin(value.arguments[0]) if is_transpose(value) else value


def _body(calls, plan, spelling, buffers, sources, results):
    """Calls as lines. Each layer starts with a comment and names what it reads; results are named last."""
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
    """The text of a slot, or None; a slot of the workspace gets a number in `buffers`."""
    if slot is None:
        return None
    if slot.leaf is None:
        return f"buffers[{buffers.setdefault(slot, len(buffers))}]"
    same = slot.shape == parameters[slot.leaf].example.shape
    return f"gradient[{slot.leaf}]" if same else f"gradient[{slot.leaf}].reshape({slot.shape})"


def _unpacked(source, values, reads):
    """Lines that name the values that are read, one line for values in a row."""
    numbers = [number for number, value in enumerate(values) if value in reads]
    for _, stretch in itertools.groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        first, *_, last = [number for _, number in stretch] * 2
        if first == last:
            yield f"{values[first].name} = {source}[{first}]"
        else:
            yield f"{_tuple(values[first : last + 1])} = {source}[{first}:{last + 1}]"


def _copies(tape, plan, spelling):
    """Copies of the gradients that are constants, or values of the forward pass."""
    there = {slot.leaf for slot in plan.slots.values()}.union(*plan.copies.values())
    lines = [
        _copy(leaf, gradient, spelling) for leaf, gradient in enumerate(tape.gradients) if leaf not in there
    ]
    return ["", "# ---- gradients that are made elsewhere", *lines] if lines else []


def _copy(leaf, gradient, spelling):
    return (
        f"{spelling.alias}.copyto(gradient[{leaf}], {0 if gradient is None else spelling.argument(gradient)})"
    )


def _function(signature, what, lines):
    text = ["", "", f"def {signature}:", f'{INDENT}"""{what}"""']
    for line in lines:
        long = line.startswith(("(", "return")) and len(line) > WIDTH - len(INDENT)
        text += [f"{INDENT}{part}".rstrip() for part in (_wrapped(line) if long else [line])]
    return text


def _wrapped(line):
    """A long line with names in parentheses, as several lines."""
    before, _, rest = line.partition("(")
    names, _, after = rest.rpartition(")")
    inside = textwrap.wrap(names, WIDTH - 2 * len(INDENT))
    return [f"{before}(", *(f"{INDENT}{part}" for part in inside), f"){after}"]


def _import(device):
    name, alias = device.module.__name__, device.alias
    return f"import {name}" if name == alias else f"import {name} as {alias}"


def _tuple(values):
    names = ", ".join(value.name for value in values)
    return f"({names},)" if len(values) == 1 else f"({names})"
