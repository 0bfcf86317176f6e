"""The tape, which a recording makes and passes change: values, and the calls that make them, in order."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from npflow.autodiff.gpu.devices import device_of, is_array


@dataclass(frozen=True)
class Place:
    """Where in the code a value was made."""

    prefix: str = ""  # the first part of the names of its values, such as "layer03_coupling"
    title: str = ""  # the layer, as the code that makes it; "" outside all layers
    variables: tuple = ("value",)  # the variables that the statement assigns, or the name of its function
    # Identifies one execution of a statement; in a derivative, the Value whose derivative was computed.
    statement: object = None
    backward: bool = False  # whether the value belongs to the backward pass
    again: object = None  # identifies one function that the backward pass runs once more, and its derivative

    @property
    def derivative_of(self):
        """The Value whose derivative was computed; None for a statement, in either pass."""
        return self.statement if isinstance(self.statement, Value) else None


@dataclass(eq=False, slots=True)
class Value:
    """An input of a program, or the result of one of its calls."""

    example: object  # its array or scalar in the recording; large arrays without their numbers
    function: Callable | None = None  # None for an input
    arguments: tuple = ()  # Values, and constants of any kind
    options: dict = field(default_factory=dict)  # keyword arguments, all constants
    views: tuple = ()  # the numbers of the arguments in whose memory the result lies
    place: Place = Place()
    name: str = ""

    @property
    def parents(self):
        """The values among the arguments."""
        return tuple(argument for argument in self.arguments if isinstance(argument, Value))

    @property
    def is_array(self):
        """Whether it is an array, and not a scalar or a tuple."""
        return is_array(self.example)


def example_of(argument):
    """The example of a Value; a constant as it is."""
    return argument.example if isinstance(argument, Value) else argument


@dataclass(frozen=True)
class Tape:
    """A straight line of calls."""

    parameters: tuple  # the Values that are inputs: parameters, and data
    data: tuple
    calls: tuple  # the Values that calls make, in order
    value: object  # what the function returns: a Value or a constant
    # The gradient in each parameter: a Value, a constant, or None for zeros. None without a backward pass.
    gradients: tuple | None = None

    @property
    def device(self):
        """Where the arrays live."""
        return device_of([value.example for value in (*self.parameters, *self.data)])

    @property
    def results(self):
        """The values that a program returns."""
        return tuple(result for result in (self.value, *(self.gradients or ())) if isinstance(result, Value))

    def rewrite(self, change):
        """The tape with ``change(call)`` in the place of each call, and in the arguments of later calls.

        `change` returns a call, old or new, or a constant; or a tuple of new calls, the last of which
        replaces the call.
        """
        became, calls = {}, {}  # `calls` is an ordered set
        where = lambda value: became.get(value, value) if isinstance(value, Value) else value
        for call in self.calls:
            moved = any(isinstance(argument, Value) and argument in became for argument in call.arguments)
            changed = change(replace(call, arguments=tuple(map(where, call.arguments))) if moved else call)
            new = changed if isinstance(changed, tuple) else (changed,)
            for value in new:
                if isinstance(value, Value) and value.function:
                    calls[value] = None
            if new[-1] is not call:
                became[call] = new[-1]
        gradients = None if self.gradients is None else tuple(map(where, self.gradients))
        return replace(self, calls=tuple(calls), value=where(self.value), gradients=gradients)
