"""Where in the code a value is made, read off Python's stack."""

import sys
from pathlib import Path

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy
from tapes import tape_of

from npflow import Flow, autodiff, layers
from npflow.autodiff.program import frames
from npflow.autodiff.program.tape import Place
from npflow.layers import ActNorm, Chain
from npflow.priors import Normal

X = np.random.default_rng(0).standard_normal((6, 2))


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (__file__, True),
        (layers.__file__, True),
        ("<stdin>", True),
        (autodiff.__file__, False),
        (frames.__file__, False),
        (autograd.__file__, False),
        (np.__file__, False),
        (scipy.__file__, False),
        (str(Path(autograd.__file__).parent) + "_of_mine/code.py", True),  # begins alike, lies elsewhere
    ],
)
def test_code_is_what_is_not_machinery(filename, expected):
    assert frames.is_code(filename) is expected


def test_frames_are_given_innermost_first_up_to_the_last():
    def inner():
        running = list(frames.frames_of_code(outermost.__code__))
        return [frame.f_code.co_name for frame in running]

    def outermost():
        return (lambda: inner())()

    assert outermost() == ["inner", "<lambda>"]


def test_a_line_is_told_with_its_file_number_and_code():
    frame = sys._getframe()
    text = frames.line_at(frames.spot_of([frame]))  # this very line
    assert text.startswith(f"{__file__}:")
    assert text.endswith("(text = frames.line_at(frames.spot_of([frame]))  # this very line)")


def test_without_frames_the_line_is_unknown():
    assert frames.line_at(frames.spot_of([])) == "an unknown line"


def test_without_frames_a_place_is_nowhere():
    assert frames.place_of([], {}) == Place()


def places(fun, params=None):
    return [one.place for one in tape_of(fun, params or {}, X, gradient=False).calls]


def test_a_place_knows_the_variables_that_its_statement_assigns():
    class Thing:
        pass

    def fun(params, x):
        thing = Thing()
        a = anp.exp(x)
        b, c = anp.sin(a), anp.cos(a)
        thing.total = anp.sum(b)
        d: object = anp.sum(c)
        d += thing.total
        (e,) = [anp.abs(d)]
        f = g = anp.sqrt(e)  # which of the two?
        return anp.multiply(
            f,
            g,
        )

    assert [place.variables for place in places(fun)] == [
        ("a",),
        ("b", "c"),
        ("b", "c"),
        ("total",),
        ("d",),
        ("d",),
        ("e",),
        ("fun",),
        ("fun",),
    ]


def test_lines_of_one_statement_have_one_place_and_its_next_run_another():
    def fun(params, x):
        for _ in range(2):
            x = anp.exp(
                anp.sin(x)
            )  # fmt: skip
        return x

    seen = [place.statement for place in places(fun)]
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_code_without_a_file_has_places_too():
    namespace = {"anp": anp}
    exec("def fun(params, x):\n    y = anp.exp(x)\n    return y", namespace)
    assert [place.variables for place in places(namespace["fun"])] == [("fun",)]


def test_a_layer_is_known_by_its_title_and_prefix():
    flow = Flow(Chain([ActNorm(), ActNorm()]), Normal(2))
    params = flow.init(np.random.default_rng(0), X)
    seen = {place.prefix: place.title for place in places(flow.log_prob, params)}
    assert seen["layer00_norm"] == "layer00 norm: ActNorm()"
    assert seen["layer01_norm"] == "layer01 norm: ActNorm()"
    assert seen["prior"].startswith("prior: Normal(")
    assert seen[""] == ""


def test_what_the_chain_adds_up_belongs_to_the_layer_before():
    flow = Flow(Chain([ActNorm(), ActNorm(), ActNorm()]), Normal(2))
    params = flow.init(np.random.default_rng(0), X)
    seen = [place for place in places(flow.log_prob, params) if place.variables == ("total",)]
    assert [place.prefix for place in seen] == ["layer01_norm", "layer02_norm"]


def test_the_same_layer_twice_is_two_layers():
    norm = ActNorm()
    flow = Flow(Chain([norm, norm]), Normal(2))
    params = flow.init(np.random.default_rng(0), X)
    prefixes = {place.prefix for place in places(flow.log_prob, params)}
    assert {"layer00_norm", "layer01_norm"} <= prefixes


def test_a_method_of_anything_else_is_no_layer():
    class Helper:
        def loss(self, params, x):
            y = anp.exp(x)
            return y

    assert [(place.prefix, place.title) for place in places(Helper().loss)] == [("", "")]
