"""Layers made of layers: one method says how, and everything that looks inside uses it."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np

from npflow.autodiff.program.frames import follows_steps
from npflow.errors import InputError
from npflow.layers.layer import Layer, check_layer, given, takes_context, zeros_per_row
from npflow.validation import check_sequence


class Step(NamedTuple):
    """One application of an inner layer.

    Attributes
    ----------
    name : int, str or None
        Where the inner layer's parameters are in those of the composite, and what it is called: ``params[name]``.
        None: the parameters of the composite are those of the inner layer.
    layer : Layer
    x : ndarray, shape (n, ...)
        Its input.
    direction : {"forward", "inverse"}
    context : ndarray, shape (n, context features), optional
    """

    name: object
    layer: object
    x: object
    direction: str = "forward"
    context: object = None

    def params(self, params):
        """The inner layer's parameters, in those of the composite."""
        return params if self.name is None else params[self.name]

    def apply(self, params):
        """The inner layer's output and log-det, from its parameters."""
        method = getattr(self.layer, self.direction)
        return method(params, self.x, **given(self.layer, self.context))


class Composite(Layer):
    """A layer made of layers.

    A subclass writes one method, `steps`, a generator. It yields a `Step` to apply an inner layer, is sent the
    layer's output, and returns its own. ``init``, ``forward``, ``inverse`` and the log-det, which is the sum of those
    of the steps, follow from it. So do traces, the names of layers in errors and in programs, and the checks of
    `npflow.verify`.

    Examples
    --------
    >>> from dataclasses import dataclass
    >>> from npflow.layers import ActNorm, Composite, Conv1x1, Layer, Step
    >>> @dataclass(frozen=True)
    ... class Both(Composite):
    ...     first: Layer
    ...     second: Layer
    ...
    ...     def steps(self, x, direction, context=None):
    ...         order = ("first", "second") if direction == "forward" else ("second", "first")
    ...         for name in order:
    ...             x = yield Step(name, getattr(self, name), x, direction, context)
    ...         return x
    >>> layer, x = Both(ActNorm(), Conv1x1()), rng.normal(3, 2, (100, 2))
    >>> params = layer.init(rng, x)
    >>> list(params), [step.name for step in layer.trace(params, x)]
    (['first', 'second'], ['first (ActNorm)', 'second (Conv1x1)'])
    """

    def check_params(self, params):
        """Raise `InputError` unless there are parameters for each step, and no others; accepts any by default."""

    def steps(self, x, direction, context=None):
        """Yield a `Step` for each inner layer, receive its output, and return the output of the whole.

        Parameters
        ----------
        x : ndarray, shape (n, ...)
            The input: z where `direction` is "inverse".
        direction : {"forward", "inverse"}
        context : ndarray, shape (n, context features), optional
        """
        raise NotImplementedError

    def init(self, rng, x, context=None):
        """Parameters of the inner layers, each started on what those before it make of the batch."""
        params = {}

        def start(step):
            try:
                params[step.name] = step.layer.init(rng, step.x, **given(step.layer, step.context))
                return step.apply(params[step.name])[0]
            except InputError as error:
                if step.name is None:
                    raise
                raise error.inside(step.name, step.layer) from error

        follow(self.steps(x, "forward", context), start)
        return joined(params)

    def forward(self, params, x, context=None):
        return self._apply(params, x, "forward", context)

    def inverse(self, params, z, context=None):
        return self._apply(params, z, "inverse", context)

    @follows_steps
    def _apply(self, params, x, direction, context=None):
        """The output of all steps, and the sum of their log-dets."""
        self.check_params(params)
        steps, output, total = self.steps(x, direction, context), None, None
        while True:
            try:
                step = steps.send(output)
            except StopIteration as end:
                return end.value, zeros_per_row(x) if total is None else total
            method = getattr(step.layer, step.direction)
            output, log_det = method(step.params(params), step.x, **given(step.layer, step.context))
            total = log_det if total is None else total + log_det

    def trace(self, params, x, context=None):
        """Every step from x to z, as a list of `Traced`."""
        return self._trace(params, self.steps(x, "forward", context))

    def trace_inverse(self, params, z, context=None):
        """Every step from z to x, as a list of `Traced`."""
        return self._trace(params, self.steps(z, "inverse", context))

    def _trace(self, params, steps):
        traced = []
        self.check_params(params)

        def note(step):
            name = type(step.layer).__name__ if step.name is None else name_of(step.name, step.layer)
            traced.append(Traced(name, *step.apply(step.params(params))))
            return traced[-1].output

        follow(steps, note)
        return traced


class Traced(NamedTuple):
    """What an inner layer did: its name, its output, and its log-det, shape (n,)."""

    name: str
    output: np.ndarray
    log_det: np.ndarray


def follow(steps, take):
    """Run the generator `steps`, with ``take(step)`` as the output of each step; return what it returns."""
    output = None
    while True:
        try:
            step = steps.send(output)
        except StopIteration as end:
            return end.value
        output = take(step)


def joined(params):
    """Parameters by the names of steps as the tree of the composite: a list where the names are numbers."""
    if set(params) == {None}:
        return params[None]
    if all(isinstance(name, int) for name in params):
        return [params[name] for name in sorted(params)]
    return params


def name_of(path, layer):
    """What a layer is called in errors and traces: its path and its class, such as ``layer/1 (ActNorm)``."""
    return f"{path} ({type(layer).__name__})"


# ---------------------------------------------------------------- to look inside a layer


@dataclass
class Visit:
    """A call on the way through a model, which is made when its result is asked for.

    Attributes
    ----------
    name : str
        What is called, such as ``layer/1 (AffineCoupling)``.
    method : callable
    arguments : tuple
        The arguments of the call; the input is the last.
    options : dict
        Its keyword arguments.
    direction : str
        The name that the method is called by. Its own may differ, as in a layer with ``inverse = forward``.
    """

    name: str
    method: object
    arguments: tuple
    options: dict = field(default_factory=dict)
    direction: str = ""

    def __post_init__(self):
        self.direction = self.direction or self.method.__name__

    @cached_property
    def result(self):
        """What the call returns, as a tuple of arrays."""
        result = self.method(*self.arguments, **self.options)
        return result if isinstance(result, tuple) else (result,)


def walk(layer, params, x, direction="forward", context=None, path="layer"):
    """Go through a layer in the order of a pass: yield a `Visit` of each layer that is made of no others.

    Parameters
    ----------
    layer : Layer
    params : tree of ndarray
    x : ndarray, shape (n, ...)
    direction : {"forward", "inverse"}
    context : ndarray, shape (n, context features), optional
    path : str
        What `layer` is called; the names of the visits start with it.
    """
    if not isinstance(layer, Composite):
        method, options = getattr(layer, direction), given(layer, context)
        visit = Visit(name_of(path, layer), method, (params, x), options, direction)
        yield visit
        return visit.result[0]
    steps, output = layer.steps(x, direction, context), None
    while True:
        try:
            step = steps.send(output)
        except StopIteration as end:
            return end.value
        inner = path if step.name is None else f"{path}/{step.name}"
        output = yield from walk(step.layer, step.params(params), step.x, step.direction, step.context, inner)


def first_non_finite(visits):
    """The name of the first of the visits whose result is not finite; None if all are."""
    finite = lambda visit: all(bool(np.isfinite(array).all()) for array in visit.result)
    return next((visit.name for visit in visits if not finite(visit)), None)


# ---------------------------------------------------------------- without applying a layer


def dry_run(layer, x, visit, direction="forward", context=None):
    """Go through a layer on inputs of the right shape, and apply none.

    Parameters
    ----------
    layer : Layer
    x : ndarray, shape (n, ...)
    visit : callable
        ``visit(inner, x, context)`` is called for each layer that is made of no others.
    direction : {"forward", "inverse"}
    context : ndarray, shape (n, context features), optional

    Returns
    -------
    params : tree
        The results of `visit`, nested as the parameters are.
    output : ndarray, shape (n, ...)
        An array of the shape of the output; its values mean nothing.
    """
    if not isinstance(layer, Composite):
        shape = getattr(layer, "output_shape", lambda shape, direction: shape)(x.shape[1:], direction)
        return visit(layer, x, context), np.reshape(x, (len(x), *shape))
    params = {}

    def blank(step):
        params[step.name], output = dry_run(step.layer, step.x, visit, step.direction, step.context)
        return output

    output = follow(layer.steps(x, direction, context), blank)
    return joined(params), output


def uses_context(layer, event_shape, context_features=1):
    """Whether a layer or one of its inner layers takes the context; True if that is not known."""
    if not takes_context(type(layer)):
        return False
    x, context = np.zeros((1, *event_shape)), np.zeros((1, context_features))
    found = []

    def visit(inner, x, handed):
        found.append(handed is context and takes_context(type(inner)))

    try:
        dry_run(layer, x, visit, context=context)
    except InputError:  # of a shape that the layer does not take, which `init` tells
        return True
    return any(found)


def check_layers(layers, name):
    """Raise unless `layers` is a list of at least one layer; return it as a tuple."""
    layers = check_sequence(layers, name)
    if not layers:
        raise InputError(f"expected {name} to be at least one layer, got none")
    for index, layer in enumerate(layers):
        check_layer(layer, f"entry {index} of {name}")
    return layers
