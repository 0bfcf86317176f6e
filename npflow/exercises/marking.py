"""How an exercise is marked: by `npflow.verify`, and against the library's own layer or function."""

import ast
import inspect
import re
import textwrap
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from npflow.autodiff import tree
from npflow.autodiff.mistakes import explain
from npflow.errors import InputError, in_short
from npflow.exercises.hints import COMMON, LAST
from npflow.layers import Given, Layer
from npflow.layers.layer import check_layer
from npflow.verify import check, check_functions
from npflow.verify.cases import Case
from npflow.verify.check import FORM

PAGES = Path(__file__).parent / "pages"
FORMAL = {*(name for name, _, _ in FORM), "float64 kept"}  # checks to pass before numbers can be compared
SECOND = ("inverse", "untransform")  # the methods that are written last
CLOSE = 1e-9  # how far an answer may be from the library's, relative to numbers above 1
DRAWS = 3  # of parameters: one permutation may be its own inverse


@dataclass(frozen=True)
class Mark:
    """The mark of an answer.

    Attributes
    ----------
    name : str
        The exercise.
    sentence : str
        What is wrong; empty where the answer is right.
    hint : str
        What helps with this mistake; for a right answer, where the library's own stands.

    Examples
    --------
    >>> import numpy as np
    >>> from npflow import exercises
    >>> given = exercises.mark("volume", lambda A: np.log(np.linalg.det(A)))
    >>> given.passed, given.hint.split(".")[0]
    (False, 'Half of all determinants are negative')
    """

    name: str
    sentence: str = ""
    hint: str = ""

    @property
    def passed(self):
        """Whether the answer is right."""
        return not self.sentence

    def __str__(self):
        if self.passed:
            return f"{self.name}: right. {self.hint}"
        return f"{self.name}: not yet. {self.sentence}.\nHint: {self.hint}"


class Fault(NamedTuple):
    """What is wrong with an answer, more that a hint may go by, and the hint itself where it is known."""

    sentence: str
    more: str = ""
    hint: str = ""


@dataclass(frozen=True)
class Exercise:
    """An exercise: its page, what the page asks for, and what may go wrong.

    Attributes
    ----------
    name : str
        Also that of the page.
    asked : str
        The name of the class or function to write.
    hints : tuple of (str, str)
        A pattern of what is wrong and the hint for it. They go before those that all exercises share.
    variants : tuple of (object, str)
        Layers or functions that make a typical mistake, with the hint for it.
    """

    name: str
    asked: str
    hints: tuple = ()
    variants: tuple = ()

    @property
    def page(self):
        """The text of the page."""
        return (PAGES / f"{self.name}.py").read_text("utf-8")

    @property
    def title(self):
        """What is asked, in one line: the first line of the page."""
        return self.page.partition("\n")[0].partition(": ")[2].rstrip(".")

    @property
    def solution(self):
        """Where the library's own stands, as the page says it."""
        return re.search(r"The library's own: .*?\.py", " ".join(self.page.split()))[0] + "."

    def mark(self, subject):
        """The `Mark` of an answer."""
        try:
            with np.errstate(all="ignore"):
                fault = self.judge(subject, first_blank(subject))
        except InputError as error:
            fault = Fault(str(error))
        except Exception as error:  # whatever an answer raises is its mark
            named = explain(error)
            fault = Fault(str(named) if named is not error else f"{type(error).__name__}: {error}")
        if fault is None:
            return Mark(self.name, hint=self.solution)
        sentence = re.sub(r"\bat [^(]*[/\\](?=[^/\\(]+\.py:\d)", "at ", fault.sentence.rstrip("."))
        return Mark(self.name, sentence, fault.hint or self.hint_for(f"{sentence} {fault.more}"))

    def hint_for(self, text):
        """The first hint whose pattern is found."""
        return next(hint for pattern, hint in (*self.hints, *COMMON, LAST) if re.search(pattern, text))


def as_they_are(params):
    """The parameters that the library's layer takes, where the page's are the same."""
    return params


@dataclass(frozen=True)
class LayerExercise(Exercise):
    """An exercise that asks for a layer.

    Attributes
    ----------
    own : Layer
        The library's.
    shape : tuple of int
        That of one row.
    starts : bool
        Whether `init` is to be written too: its parameters are then compared.
    translate : callable
        Makes parameters of the library's layer of those of the page's.
    context : tuple of float
        What both layers are conditioned on, where they take a context.
    spread : float
        A factor of the rows that the layer is tried on.
    """

    own: Layer = None
    shape: tuple = ()
    starts: bool = False
    translate: Callable = as_they_are
    context: tuple = ()
    spread: float = 1.0

    def judge(self, subject, blank):
        """The `Fault` of an answer; None where it is right."""
        if blank and blank.method not in SECOND:
            return Fault(blank.sentence)
        layer = self.given(check_layer(subject() if isinstance(subject, type) else subject, self.asked))
        own = self.given(self.own)
        x = self.spread * Case(own, self.shape).batch(np.random.default_rng(0))
        if self.starts and (sentence := start_differs(start(layer, x), start(own, x))):
            return Fault(sentence)
        if blank:
            forward = partial(layer.forward, moved(start(layer, x), 0))
            report = check_functions(forward, None, x, dtypes="float64")
        else:
            report = check(layer, x)
        first = report.failures[0].name if report.failures else ""
        if report.passed or (first and first not in FORMAL):
            if fault := self.compare(layer, x):
                return fault._replace(more=said(report))
            if first:
                known = said(report).partition(": the two directions")[0]  # a guess follows; hints know more
                return Fault(f"forward gives the right z. {known}")
            return Fault(f"forward is right. {blank.sentence}") if blank else None
        return Fault(said(report))

    def given(self, layer):
        """A layer at the exercise's context."""
        return Given(layer, self.context) if self.context else layer

    def compare(self, layer, x):
        """The fault of a `forward` whose z is not that of the library's layer."""
        for seed in range(DRAWS):
            params = moved(start(layer, x, seed), seed)
            z, own = layer.forward(params, x)[0], self.translate(params)
            expected, *others = (
                self.given(one).forward(own, x)[0] for one in (self.own, *(one for one, _ in self.variants))
            )
            if differs(z, expected):
                hints = [hint for (_, hint), other in zip(self.variants, others) if not differs(z, other)]
                if same_numbers(z, expected):
                    return Fault("forward gives the numbers of z in another order than the formula")
                return Fault(f"forward gives {another('z', z, expected)}", hint=next(iter(hints), ""))
        return None


@dataclass(frozen=True)
class FunctionExercise(Exercise):
    """An exercise that asks for a function.

    Attributes
    ----------
    own : callable
        The library's.
    arguments : callable
        ``arguments(rng)`` gives tuples of arguments to call both with.
    """

    own: Callable = None
    arguments: Callable = None

    def judge(self, subject, blank):
        """The `Fault` of an answer; None where it is right."""
        if blank:
            return Fault(blank.sentence)
        for arguments in self.arguments(np.random.default_rng(0)):
            found, expected = subject(*arguments), self.own(*arguments)
            if np.shape(found) != np.shape(expected):
                got = f"shape {np.shape(found)}" if np.ndim(found) else in_short(found)
                return Fault(f"expected an array of shape {np.shape(expected)} from {self.asked}, got {got}")
            if differs(found, expected):
                hints = [hint for one, hint in self.variants if not differs(found, one(*arguments))]
                sentence = f"{self.asked} gives {another('result', np.asarray(found), expected)}"
                return Fault(sentence, hint=next(iter(hints), ""))
        return None


# ---------------------------------------------------------------- lines to be completed


class Blank(NamedTuple):
    """A line of a page that is still `...`."""

    method: str
    line: int

    @property
    def sentence(self):
        """What is wrong with it."""
        return f"{self.method} still has ... in line {self.line}"


def first_blank(subject):
    """The first line of a class or function that is still `...`; None if there is none, or no source."""
    kind = subject if isinstance(subject, type) or inspect.isfunction(subject) else type(subject)
    functions = [kind] if inspect.isfunction(kind) else filter(inspect.isfunction, vars(kind).values())
    for function in functions:
        with suppress(OSError, SyntaxError):
            lines, first = inspect.getsourcelines(function)
            nodes = list(ast.walk(ast.parse(textwrap.dedent("".join(lines)))))
            indices = {
                id(part) for node in nodes if isinstance(node, ast.Subscript) for part in ast.walk(node.slice)
            }
            for node in nodes:
                if (
                    isinstance(node, ast.Constant) and node.value is ... and id(node) not in indices
                ):  # not x[..., 0]
                    return Blank(function.__name__, first + node.lineno - 1)
    return None


# ---------------------------------------------------------------- comparisons


def said(report):
    """The first cause of a report, without the name of the check; empty where it passed."""
    return report.failures[0].sentence if report.failures else report.cause


def start(layer, x, seed=0):
    """The parameters that a layer starts with."""
    return layer.init(np.random.default_rng(seed), x)


def moved(params, seed):
    """Parameters away from their start, where a layer is often the identity."""
    rng = np.random.default_rng(seed)
    move = lambda _, leaf: leaf + rng.normal(0, 0.5, leaf.shape) if tree.is_trained(leaf) else leaf
    return tree.build(move, params)


def start_differs(params, expected):
    """How parameters differ from those of the library's `init`; empty where they do not."""
    found, expected = dict(tree.items(params)), dict(tree.items(expected))
    if found.keys() != expected.keys():
        return f"init gives parameters named {sorted(found)}, expected {sorted(expected)}"
    wrong = [path for path in expected if differs(found[path], expected[path])]
    return f"init gives {another(wrong[0], found[wrong[0]], expected[wrong[0]])}" if wrong else ""


def differs(found, expected):
    """Whether two arrays differ by more than rounding; nan equals nan."""
    return np.shape(found) != np.shape(expected) or not np.allclose(
        found, expected, rtol=CLOSE, atol=CLOSE, equal_nan=True
    )


def same_numbers(found, expected):
    """Whether each row has the numbers that are expected, in whatever order."""
    in_order = (np.sort(np.reshape(one, (len(one), -1)), axis=1) for one in (found, expected))
    return not differs(*in_order)


def another(name, found, expected):
    """How an array differs from what is expected, in words."""
    if np.shape(found) != np.shape(expected):
        return f"{name} of shape {np.shape(found)}, expected {np.shape(expected)}"
    wrong = ~np.isclose(found, expected, CLOSE, CLOSE)
    lost = wrong & ~np.isfinite(found)  # tells most
    place = np.unravel_index(np.argmax(lost if lost.any() else wrong), expected.shape)
    index = f"[{', '.join(map(str, place))}]" if place else ""
    return f"{name}{index} = {found[place]:.6g}, expected {expected[place]:.6g}"
