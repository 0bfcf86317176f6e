"""What the tests of programs share: tapes, an interpreter of tapes that knows no pass, random functions."""

from dataclasses import replace

import autograd.numpy as anp
import numpy as np
from hypothesis import strategies as st

from npflow.autodiff.primitives import dense, leaky_relu, relu, sum_event, sum_rows, tanh
from npflow.autodiff.program.calls import is_ufunc, takes_out
from npflow.autodiff.program.naming import name_values
from npflow.autodiff.program.recording import Recording
from npflow.autodiff.program.tape import Tape, Value


def tape_of(fun, params, *args, gradient=True):
    """The tape of a recording, with names, before any pass."""
    recording, names = Recording(), [f"x{number}" for number in range(len(args))]
    tape = recording.record(fun, params, args, names, gradient)
    name_values((*tape.parameters, *tape.data), tape.calls, recording.gradient_of)
    return tape


def entry(example, name="x"):
    """An input of a tape made by hand."""
    return Value(np.asarray(example), name=name)


def call(function, *arguments, name="", **options):
    """A call of a tape made by hand; its example is what it gives for its arguments' examples."""
    result = function(*(a.example if isinstance(a, Value) else a for a in arguments), **options)
    return Value(result, function, arguments, options, name=name or function.__name__)


def line(inputs, *calls, value=None, gradients=None):
    """A tape made by hand, whose value is its last call."""
    return Tape((), tuple(inputs), tuple(calls), calls[-1] if value is None else value, gradients)


def interpret(tape, parameters, data):
    """What a tape returns, each call made in order, each result in memory of its own."""
    inputs = (*tape.parameters, *tape.data)
    known = dict(zip(inputs, (*parameters, *data), strict=True))
    look_up = lambda argument: known[argument] if isinstance(argument, Value) else argument
    for one in tape.calls:
        options = dict(one.options)
        if is_ufunc(one.function) and takes_out(one):
            options["out"] = np.empty_like(one.example)  # a comparison may write floats
        with np.errstate(all="ignore"):
            known[one] = one.function(*map(look_up, one.arguments), **options)
    return [look_up(result) for result in (tape.value, *(tape.gradients or ()))]


def examples(tape):
    """The arrays that a tape was recorded with."""
    return [v.example for v in tape.parameters], [v.example for v in tape.data]


def bits(thing):
    """Equal for results that are the same to the bit."""
    if thing is None:
        return None
    array = np.asarray(thing)
    return array.dtype.str, array.shape, array.tobytes()


def assert_same_results(one, other):
    """Whether two tapes return the same bits, on what they were recorded with and on other values."""
    parameters, data = examples(one)
    for factor in (1, 1.25):
        inputs = (
            [v * v.dtype.type(factor) for v in parameters],
            [v[::-1].copy() if v.ndim else v for v in data],
        )
        assert list(map(bits, interpret(one, *inputs))) == list(map(bits, interpret(other, *inputs)))


# ---------------------------------------------------------------- random functions

ROWS = 4  # of every matrix; three columns

# Products are bounded: ten of them in a row would overflow, and a nan has bits of its own.

UNARY = [
    lambda h: anp.exp(-h * h),
    lambda h: tanh(h * h + h),
    lambda h: -h,
    lambda h: h * 1,
    lambda h: anp.reshape(h, (ROWS, 3)),
    lambda h: anp.reshape(anp.reshape(h, (-1,)), (ROWS, 3)),
    lambda h: anp.transpose(anp.transpose(h)),
    lambda h: anp.reshape(h.T, (ROWS, 3)),
    lambda h: h[::-1],
    lambda h: h[:, [2, 0, 0]],
    lambda h: h[1:2] * anp.ones((ROWS, 1)),
    lambda h: anp.concatenate((h[:, 1:], h[:, :1]), axis=1),
    lambda h: (h > 0).astype(h.dtype) * h,
    lambda h: h - anp.mean(h, axis=0),
    lambda h: h / (1 + anp.sum(h * h, axis=1, keepdims=True)),
    lambda h: anp.zeros_like(h) + h,
    lambda h: anp.ones_like(h) * anp.sum(h),
    lambda h: h + sum_event(h)[:, None],
    lambda h: h + sum_rows(h),
    lambda h: anp.clip(h, -1.0, 1.0),
    lambda h: anp.where(h > 0, h, 2 * h),
    lambda h: anp.max(h, axis=1)[:, None] - h,
    tanh,
    relu,
    leaky_relu,
]
BINARY = [
    lambda a, b: a + b,
    lambda a, b: tanh(a * b),
    lambda a, b: a - b[0],
    lambda a, b: a / (1 + b * b),
    lambda a, b: tanh(anp.dot(a, tanh(anp.dot(b.T, a)))),
    lambda a, b: anp.maximum(a, b),
    lambda a, b: anp.concatenate((a[:, :1], b[:, 1:]), axis=-1),
    lambda a, b: a + anp.reshape(b[:, 0], (ROWS, 1)),
]
DENSE = [lambda h, p: dense(h, p["weight"], p["bias"]), lambda h, p: h * p["scale"] + p["bias"]]

unary = st.tuples(st.sampled_from(UNARY), st.integers(0, 30))
binary = st.tuples(st.sampled_from(BINARY), st.integers(0, 30), st.integers(0, 30))
layered = st.tuples(st.sampled_from(DENSE), st.integers(0, 30), st.none())
functions = st.lists(st.one_of(unary, binary, layered), min_size=1, max_size=10).map(
    lambda steps: lambda params, x: run_steps(steps, params, x)
)


def run_steps(steps, params, x):
    """A scalar, by steps each of which takes what an earlier one made."""
    made = [x, x + params["bias"]]
    for fun, first, *more in steps:
        a = made[first % len(made)]
        if not more:
            made.append(fun(a))
        elif more[0] is None:
            made.append(fun(a, params))
        else:
            made.append(fun(a, made[more[0] % len(made)]))
    # two of them, so that not only the last counts
    return anp.sum(tanh(made[-1])) + anp.sum(tanh(made[len(made) // 2]) ** 2) / 3


def inputs(dtype=np.float64, seed=0):
    """Parameters and data for a random function."""
    draw = lambda *shape: np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    return {"bias": draw(3), "scale": draw()[()] * np.ones((), dtype), "weight": draw(3, 3)}, draw(ROWS, 3)


def without(tape, *calls):
    """A tape without some calls."""
    return replace(tape, calls=tuple(one for one in tape.calls if one not in calls))
