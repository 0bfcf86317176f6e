"""What a recording gives, and every pass takes and returns: values, and the calls that make them, in order."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from npflow.autodiff.gpu.devices import device_of, is_array


@dataclass(frozen=True)
class Place:
    """Where in the code a value was made.

    Attributes
    ----------
    prefix : str
        What names of values from there begin with, such as ``layer03_coupling``.
    title : str
        The layer, as the code that makes it; '' outside all layers.
    variables : tuple of str
        The variables that the statement assigns, or the name of the function that it is in.
    statement : object
        Which execution of which statement it was; in the backward pass, the Value whose derivative it was.
    backward : bool
        Whether the value belongs to the backward pass.
    """

    prefix: str = ""
    title: str = ""
    variables: tuple = ("value",)
    statement: object = None
    backward: bool = False


@dataclass(eq=False, slots=True)
class Value:
    """An input of a program, or the result of one of its calls.

    Attributes
    ----------
    example : object
        The array, or scalar, that it was when the program was recorded.
    function : callable or None
        What is called; None for an input.
    arguments : tuple
        Values, and constants of any kind.
    options : dict
        Keyword arguments: constants.
    views : tuple of int
        The numbers of the arguments in whose memory the result lies.
    place : Place
    name : str
        An input's name; for the result of a call a name that goes before the one its place gives.
    """

    example: object
    function: Callable | None = None
    arguments: tuple = ()
    options: dict = field(default_factory=dict)
    views: tuple = ()
    place: Place = Place()
    name: str = ""

    @property
    def parents(self):
        """The values among the arguments."""
        return tuple(argument for argument in self.arguments if isinstance(argument, Value))

    @property
    def is_array(self):
        """Whether it is an array, not a scalar, a tuple or the like."""
        return is_array(self.example)


def example_of(argument):
    """What an argument of a call was when it was recorded: a constant is what it is."""
    return argument.example if isinstance(argument, Value) else argument


@dataclass(frozen=True)
class Tape:
    """A straight line of calls.

    Attributes
    ----------
    parameters, data : tuple of Value
        The inputs.
    calls : tuple of Value
        The result of each call, in the order in which they are made.
    value : Value or constant
        What the function returns.
    gradients : tuple or None
        For each parameter the gradient: a Value, a constant, or None where it is zero. None where the tape has
        no backward pass.
    """

    parameters: tuple
    data: tuple
    calls: tuple
    value: object
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
        """The tape after `change(call)` of each call, whose arguments are what became of the earlier ones.

        `change` gives what goes in the call's place: a call, old or new, or a constant; or a tuple of new
        calls, the last of which does.
        """
        became, calls = {}, {}  # `calls` is a dict for its order and its quick look-up
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
