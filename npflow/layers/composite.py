"""Layers made of layers: one method says how, and everything that looks inside uses it."""

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy import ndarray

from npflow.autodiff.mistakes import pair_of
from npflow.autodiff.program.frames import follows_steps
from npflow.description import checked
from npflow.errors import InputError, in_short, kind_of
from npflow.layers.layer import (
    Layer,
    check_layer,
    domain_of,
    given,
    start_layer,
    takes_context,
    zeros_per_row,
)
from npflow.rations import SMALL
from npflow.typing import Params
from npflow.validation import check_domain, check_sequence


class Step(NamedTuple):
    """One application of an inner layer.

    Attributes
    ----------
    name : int, str or None
        The key of the inner layer's parameters, ``params[name]``, and its name in errors. None where the parameters of
        the composite are those of its only inner layer.
    layer : Layer
    x : ndarray, shape (n, ...)
        Its input.
    direction : {"forward", "inverse"}
    context : ndarray, shape (n, context features), optional

    Examples
    --------
    >>> import numpy as np
    >>> from npflow.layers import Shift, Step
    >>> step = Step("second", Shift(), np.zeros((1, 2)))
    >>> params = {"first": {}, "second": {"raw": np.array([1.0, 2.0])}}
    >>> step.apply(step.params(params))
    (array([[1., 2.]]), array([0.]))
    """

    name: object
    layer: object
    x: object
    direction: str = "forward"
    context: object = None

    def params(self, params):
        """Return the inner layer's parameters.

        Parameters
        ----------
        params : tree of ndarray
            Those of the composite.

        Returns
        -------
        tree of ndarray

        Raises
        ------
        InputError
            If there are none under the step's name.
        """
        try:
            return params if self.name is None else params[self.name]
        except (LookupError, TypeError):
            got = f"those of {list(params)}" if isinstance(params, dict) else kind_of(params)
            raise InputError(f"expected parameters for the step {self.name!r}, got {got}") from None

    def apply(self, params):
        """Apply the inner layer.

        Parameters
        ----------
        params : tree of ndarray
            Those of the inner layer.

        Returns
        -------
        output : ndarray, shape (n, ...)
        log_det : ndarray, shape (n,)
            In nats.
        """
        method = getattr(self.layer, self.direction)
        return method(params, self.x, **given(self.layer, self.context))


class Composite(Layer):
    """A layer made of layers.

    A subclass defines one method, the generator `steps`. It yields a `Step` to apply an inner layer; ``yield`` returns
    the layer's output. A name that comes twice has one set of parameters. The generator returns the output of the
    whole. Where `direction` is "inverse" it reverses the order, and it passes `direction` on. ``init``, ``forward``,
    ``inverse`` and the log-det, which is the sum of those of the steps, follow from it. So do traces, the names of
    layers in errors and in programs, and the checks of `npflow.verify`.

    Override `domain` where the layer that is applied to x first has one.

    Examples
    --------
    >>> import numpy as np
    >>> from dataclasses import dataclass
    >>> from npflow.layers import ActNorm, Composite, Conv1x1, Layer, Step
    >>> rng = np.random.default_rng(0)
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
        """Check the parameters of the steps, and raise `InputError`. The base class checks nothing."""

    def steps(self, x: ndarray, direction: str, context: ndarray | None = None) -> Iterator:
        """Yield a `Step` for each inner layer, receive its output, and return the output of the whole.

        Parameters
        ----------
        x : ndarray, shape (n, ...)
            The input: z where `direction` is "inverse".
        direction : {"forward", "inverse"}
        context : ndarray, shape (n, context features), optional
        """
        raise InputError(
            f"expected {type(self).__name__} to define steps(self, x, direction, context=None), got none"
        )

    def init(self, rng, x, context=None):
        params, layers = {}, {}  # of the inner layers; each starts on what those before it make of the batch

        @follows_steps
        def start(step):
            if layers.setdefault(step.name, step.layer) != step.layer or (None in layers and len(layers) > 1):
                raise InputError(
                    f"expected a name of its own for each inner layer, got {step.name!r} for {in_short(step.layer)}"
                )
            try:
                check_domain(step.x, domain_of(step.layer), "its input")
                known = params.get(step.name)  # a step that comes again has the same parameters
                params[step.name], z = start_layer(
                    step.layer, rng, step.x, step.context, step.direction, known
                )
                return z
            except InputError as error:
                if step.name is None:
                    raise
                raise error.inside(step.name, step.layer) from error

        follow(self, x, "forward", context, start)
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
            result = method(step.params(params), step.x, **given(step.layer, step.context))
            output, log_det = pair_of(method, result)
            total = log_det if total is None else total + log_det

    def trace(self, params: Params, x: ndarray, context: ndarray | None = None) -> "list[Traced]":
        """List every step from x to z.

        Parameters
        ----------
        params : tree of ndarray
        x : ndarray, shape (n, ...)
        context : ndarray, shape (n, context features), optional

        Returns
        -------
        list of Traced
            The name, the output and the log-det of each.
        """
        return self._trace(params, x, "forward", context)

    def trace_inverse(self, params: Params, z: ndarray, context: ndarray | None = None) -> "list[Traced]":
        """List every step from z to x.

        Parameters
        ----------
        params : tree of ndarray
        z : ndarray, shape (n, ...)
        context : ndarray, shape (n, context features), optional

        Returns
        -------
        list of Traced
            The name, the output and the log-det of each.
        """
        return self._trace(params, z, "inverse", context)

    def _trace(self, params, x, direction, context):
        traced = []
        self.check_params(params)

        def note(step):
            name = type(step.layer).__name__ if step.name is None else name_of(step.name, step.layer)
            traced.append(Traced(name, *step.apply(step.params(params))))
            return traced[-1].output

        follow(self, x, direction, context, note)
        return traced


@dataclass(frozen=True)
class Substituted(Composite):
    """A layer in which others, with the same parameters, stand in for some of its inner layers.

    A subclass defines `instead`.
    """

    layer: Layer = checked(check_layer)

    @property
    def domain(self):
        """That of the layer."""
        return domain_of(self.layer)

    def instead(self, layer):
        """What stands in for a layer that is made of no others: itself in most cases."""
        return layer

    def steps(self, x, direction, context=None):
        if not isinstance(self.layer, Composite):
            return (yield Step(None, self.instead(self.layer), x, direction, context))
        steps, output = self.layer.steps(x, direction, context), None
        while True:
            try:
                step = steps.send(output)
            except StopIteration as end:
                return end.value
            inner = step.layer
            inner = replace(self, layer=inner) if isinstance(inner, Composite) else self.instead(inner)
            output = yield step._replace(layer=inner)


class Traced(NamedTuple):
    """What an inner layer did: its name, its output, and its log-det, shape (n,)."""

    name: str
    output: np.ndarray
    log_det: np.ndarray


def follow(layer, x, direction, context, take):
    """Go through the steps of a composite, with ``take(step)`` as the output of each; return the output of the whole.

    Raises
    ------
    InputError
        If its method `steps` is not a generator that yields a `Step` each time and returns an array.
    """
    steps, output, name = layer.steps(x, direction, context), None, f"{type(layer).__name__}.steps"
    if not isinstance(steps, Generator):
        raise InputError(
            f"expected {name} to yield a Step for each inner layer, got {kind_of(steps)} and no yield"
        )
    while True:
        try:
            step = steps.send(output)
        except StopIteration as end:
            if end.value is None:
                raise InputError(f"expected {name} to return its output, got None") from None
            return end.value
        if not isinstance(step, Step):
            raise InputError(
                f"expected {name} to yield a Step(name, layer, x, direction), got {in_short(step)}"
            )
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


@follows_steps
def walk(layer, params, x, direction="forward", context=None, path="layer"):
    """Go through a layer in the order of a pass: yield a `Visit` of each layer that is made of no others.

    A visit's result is asked for on the way to the next one, so it need not be asked for before.

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
        ``visit(inner, x, context, direction)`` is called for each layer that is made of no others.
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
        return visit(layer, x, context, direction), np.reshape(x, (len(x), *shape))
    params = {}

    def blank(step):
        params[step.name], output = dry_run(step.layer, step.x, visit, step.direction, step.context)
        return output

    output = follow(layer, x, direction, context, blank)
    return joined(params), output


def uses_context(layer, event_shape, context_shape=(1,)):
    """Whether a layer or one of its inner layers takes the context; True if that is not known."""
    if not takes_context(type(layer)):
        return False
    if math.prod(event_shape) + math.prod(context_shape) > SMALL:  # not worth arrays of that size
        return True

    def handed(context):
        """The number of inner layers that are handed one and take it."""
        found, x = [], np.zeros((1, *event_shape))
        visit = lambda inner, x, context, _: found.append(context is not None and takes_context(type(inner)))
        dry_run(layer, x, visit, context=context)
        return sum(found)

    try:
        return handed(np.zeros((1, *context_shape))) > handed(None)
    except Exception:  # the container needs one, or it does not take the shape, as `init` will say
        return True


def check_layers(layers, name):
    """Raise unless `layers` is a list of at least one layer; return it as a tuple."""
    layers = check_sequence(layers, name)
    if not layers:
        raise InputError(f"expected {name} to be at least one layer, got none")
    for index, layer in enumerate(layers):
        check_layer(layer, f"entry {index} of {name}")
    return layers
