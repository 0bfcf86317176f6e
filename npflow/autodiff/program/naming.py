"""Names for the values of a program, which tell where a value comes from."""

import keyword
from collections import defaultdict


def input_name(path, prefix=""):
    """The name of an input from its path in the tree, and from the prefix of its readers' names.

    The parameter layer/3/0/weight of layer 3 of a chain, whose values are layer03_..., is called
    layer03_0_weight.
    """
    first, *rest = path.split("/")
    if rest and rest[0].isdigit() and prefix.startswith(f"{first}{int(rest[0]):02d}"):
        first, *rest = f"{first}{int(rest[0]):02d}", *rest[1:]
    return identifier("_".join([first, *rest]))


def identifier(text):
    """Text as a Python name."""
    text = "".join(letter if f"_{letter}".isidentifier() else "_" for letter in text)
    return text if text.isidentifier() and not keyword.iskeyword(text) else f"_{text}"


def unique(name, taken):
    """The name, with a number if it is `taken`; adds it to `taken`."""
    free, count = name, 1
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    taken.add(free)
    return free


def name_values(inputs, calls, gradient_of):
    """Give each value its name, in place.

    The values of one statement share the variable that it assigns: the last has its name, those before add
    the function that made them. Values of a statement that runs again, in a loop, are numbered. In the
    backward pass again_h is h where it is computed once more, and grad_h the gradient of the result in h. Values
    on the way there, in the vector-Jacobian product of the function that made h, are called vjp_h and the
    function that made them.
    """
    # The text uses these names.
    taken = {"np", "cupy", "slice", "parameters", "data", "saved", "buffers", "gradient"}

    def give(value, name):
        value.name = unique(name, taken)

    for value in inputs:
        give(value, input_name(value.name, value.place.prefix))
    statements = defaultdict(list)
    for value in (value for value in calls if not value.place.derivative_of):
        statements[value.place.statement].append(value)
    again = defaultdict(list)
    for key, values in statements.items():
        again[values[0].place.prefix, values[0].place.variables].append(key)
    for (prefix, variables), keys in again.items():
        for number, key in enumerate(keys, start=1):
            values = statements[key]
            last = [f"{name}{number}" if len(keys) > 1 else name for name in variables][-len(values) :]
            for value in values[: -len(last)]:
                give(value, identifier("_".join(filter(None, [prefix, last[-1], operation(value)]))))
            for name, value in zip(last, values[-len(last) :]):
                give(value, identifier("_".join(filter(None, [prefix, name]))))
    for value in calls:
        if value.place.derivative_of:
            origin = gradient_of.get(value)
            what = origin or value.place.statement
            give(value, f"grad_{what.name}" if origin else f"vjp_{what.name}_{operation(value)}")


def operation(value):
    """The name of the function that made a value."""
    name = getattr(value.function, "__name__", "call").strip("_")
    return {"getitem": "part", "concatenate_args": "concatenate", "array_from_args": "array"}.get(name, name)
