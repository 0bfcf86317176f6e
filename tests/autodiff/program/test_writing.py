"""The source: two functions, one call a line, and exactly what runs."""

import ast
import bdb
import gc
import linecache
import re
import sys
import traceback

import autograd.numpy as anp
import numpy as np
import pytest
from autograd.extend import defvjp, primitive
from hypothesis import given, settings
from hypothesis import strategies as st
from tapes import functions, inputs

from npflow.autodiff.primitives import solve_triangular
from npflow.autodiff.program import record
from npflow.models import glow
from npflow.networks import MLP

PARAMS = {"w": np.array([0.3, -1.7, 2.9]), "s": np.array(0.7)}
X = np.random.default_rng(0).standard_normal((4, 3))


def loss(params, x):
    h = anp.exp(params["w"]) * x
    return anp.sum(h * h) * params["s"]


@pytest.fixture(scope="module")
def glow_program():
    flow = glow(2, steps=2, network=MLP((4, 4)))
    x = np.random.default_rng(0).standard_normal((6, 2))
    params = flow.init(np.random.default_rng(1), x)
    return record(lambda params, x: -anp.mean(flow.log_prob(params, x)), params, x)


def statements(program):
    """The statements of each function, but for docstrings and names given to what is read."""
    functions = [node for node in ast.parse(program.source).body if isinstance(node, ast.FunctionDef)]
    sources = {"parameters", "data", "saved"}
    is_read = lambda node: (
        isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Subscript)
        and getattr(node.value.value, "id", "") in sources
    )
    return {
        function.name: [node for node in function.body[1:] if not is_read(node)] for function in functions
    }


def test_forward_and_backward_are_two_functions(glow_program):
    assert list(statements(glow_program)) == ["forward", "backward"]
    assert "forward" in glow_program.forward.__code__.co_name
    assert glow_program.backward.__code__.co_filename == glow_program.filename


def test_without_a_gradient_there_is_only_forward():
    program = record(lambda params, x: anp.exp(x), {}, X, gradient=False)
    assert list(statements(program)) == ["forward"]
    assert program.backward is None


def is_a_line_of_numpy(node):
    """Whether a statement is one call, or one index, whose arguments are names, constants and transposes."""
    if isinstance(node, ast.Return):
        return True
    value = node.value
    inner = [*value.args, *(word.value for word in value.keywords)] if isinstance(value, ast.Call) else []
    return isinstance(value, (ast.Call, ast.Subscript)) and not any(
        isinstance(deeper, ast.Call) and getattr(deeper.func, "id", "") not in ("slice", "float")  # constants
        for argument in inner
        for deeper in ast.walk(argument)
    )


def test_every_line_is_one_call(glow_program):
    for body in statements(glow_program).values():
        assert all(map(is_a_line_of_numpy, body))
        lines = [node.lineno for node in body]
        assert len(set(lines)) == len(lines)


@settings(deadline=None, max_examples=10)
@given(functions, st.sampled_from([np.float32, np.float64]))
def test_lines_are_one_call_each_whatever_was_recorded(fun, dtype):
    program = record(fun, *inputs(dtype))
    for body in statements(program).values():
        assert all(map(is_a_line_of_numpy, body))


def test_the_calls_are_as_many_as_are_counted():
    program = record(loss, PARAMS, X)
    body = [node for nodes in statements(program).values() for node in nodes]
    written = sum(isinstance(node, ast.Assign) for node in body)  # not `return`, not copies of gradients
    assert written == program.lines


def test_each_layer_starts_with_a_comment(glow_program):
    forward, backward = glow_program.source.split("def backward")
    comments = lambda text: re.findall(r"^    # ---- (\w+)", text, re.MULTILINE)
    names = [f"layer0{number}" for number in range(7)]
    assert comments(forward) == [*names, "prior", "outside"]
    assert comments(backward)[: len(names)] == ["prior", *reversed(names[1:])]


def test_lines_of_names_and_comments_are_not_longer_than_a_page_is_wide(glow_program):
    plain = [
        line for line in glow_program.source.splitlines() if "np." not in line and not line.startswith("#")
    ]
    assert max(map(len, plain)) <= 110


def test_only_what_is_read_is_saved(glow_program):
    forward, backward = (
        next(node for node in ast.parse(glow_program.source).body if getattr(node, "name", "") == name)
        for name in ("forward", "backward")
    )
    saved = [name.id for name in forward.body[-1].value.elts[1].elts]
    read = {node.id for node in ast.walk(backward) if isinstance(node, ast.Name)}
    assert saved
    assert set(saved) <= read


def test_the_source_is_what_runs():
    program = record(loss, PARAMS, X)
    changed = program.source.replace("np.exp(", "np.expm1(")
    namespace = {}
    exec(program.source, namespace)
    assert namespace["forward"].__code__.co_code == program.forward.__code__.co_code
    exec(changed, namespace)
    assert namespace["forward"].__code__.co_names != program.forward.__code__.co_names
    assert "".join(linecache.getlines(program.filename)) == program.source
    linecache.checkcache()  # what a debugger does
    assert "".join(linecache.getlines(program.filename)) == program.source


def test_a_traceback_shows_the_programs_own_line():
    params = {"matrix": np.eye(3) + 0.1}
    program = record(lambda params, x: anp.sum(solve_triangular(x, params["matrix"], True)), params, X)
    with pytest.raises(np.linalg.LinAlgError) as caught:
        program({"matrix": np.zeros((3, 3))}, X)
    frames = [
        frame
        for frame in traceback.extract_tb(caught.value.__traceback__)
        if frame.filename == program.filename
    ]
    assert [frame.name for frame in frames] == ["forward"]
    assert "= solve_triangular(x, matrix, True)" in frames[0].line
    assert frames[0].line == program.source.splitlines()[frames[0].lineno - 1].strip()


@primitive
def fragile(x):
    return x * 2


@primitive
def fragile_derivative(g):
    if np.max(np.abs(g)) > 1e10:
        raise ArithmeticError("too steep")
    return g * 2


defvjp(fragile, lambda y, x: lambda g: fragile_derivative(g))


def test_an_error_in_the_backward_pass_shows_its_line_and_leaves_the_program_usable():
    program = record(lambda params, x: anp.sum(fragile(params["w"]) * x), PARAMS, X)
    before = program(PARAMS, X)
    with pytest.raises(ArithmeticError, match="too steep") as caught:
        program(PARAMS, X * 1e20)
    frame = next(
        f for f in traceback.extract_tb(caught.value.__traceback__) if f.filename == program.filename
    )
    assert frame.name == "backward"
    assert "fragile_derivative(" in frame.line
    after = program(PARAMS, X)
    assert after[0] == before[0]
    np.testing.assert_array_equal(after[1], before[1])


def test_gradients_are_written_to_their_places_or_copied_there_as_soon_as_they_are_made():
    params = {"flat": np.ones((2, 6)), "turned": np.ones((3, 2))}

    def loss(params, x):
        return anp.sum(anp.exp(anp.reshape(params["flat"], (3, 4)))) + anp.sum(anp.exp(params["turned"].T))

    backward = record(loss, params, X).source.split("def backward")[1]
    assert "out=gradient[0].reshape((3, 4)))\n" in backward
    assert re.search(r" grad_turned = .*\n    np.copyto\(gradient\[1\], grad_turned\)\n", backward)
    assert "elsewhere" not in backward


@primitive
def paired(w, h):
    return np.sum(w * h.T)


defvjp(paired, lambda _, w, h: lambda g: h.T, lambda _, w, h: lambda g: w.T)


def test_a_gradient_that_is_data_turned_round_is_copied_once_the_data_has_its_name():
    params = {"w": np.ones((3, 4))}
    value, gradient = record(lambda params, x: paired(params["w"], x), params, X)(params, X)
    assert value == pytest.approx(np.sum(X))
    np.testing.assert_array_equal(gradient, X.T.ravel())


def test_a_tracer_sees_every_line():
    program = record(loss, PARAMS, X)
    seen = []

    def trace(frame, event, arg):
        if frame.f_code.co_filename == program.filename and event == "line":
            seen.append(linecache.getline(program.filename, frame.f_lineno).strip())
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        program(PARAMS, X)
    finally:
        sys.settrace(before)
    lines = [line.strip() for line in program.source.splitlines()]
    calls = [line for line in lines if "np." in line and " = " in line and not line.startswith("#")]
    body = [line for line in calls if line in seen]
    assert body == [line for line in seen if line in calls]
    assert len(body) >= 5


def test_a_debugger_stops_at_a_line():
    program = record(loss, PARAMS, X)
    number = next(n for n, text in enumerate(program.source.splitlines(), 1) if "np.exp(" in text)
    values = []

    class Debugger(bdb.Bdb):
        def user_line(self, frame):
            if frame.f_lineno == number and frame.f_code.co_filename == program.filename:
                values.append(frame.f_locals["w"].copy())
            self.set_continue()

    debugger = Debugger()
    before = sys.gettrace()
    try:
        assert debugger.set_break(program.filename, number) is None  # it finds the line
        debugger.runcall(program, PARAMS, X)
    finally:
        sys.settrace(before)
        debugger.clear_all_breaks()
    np.testing.assert_array_equal(values, [PARAMS["w"]])


def test_the_text_goes_when_the_program_goes():
    program = record(loss, PARAMS, X)
    filename = program.filename
    assert filename in linecache.cache
    del program
    gc.collect()
    assert filename not in linecache.cache


def test_two_programs_have_two_files():
    programs = [record(loss, PARAMS, X) for _ in range(2)]
    assert programs[0].filename != programs[1].filename
    assert "loss" in programs[0].filename


@pytest.mark.parametrize(
    ("fun", "line"),
    [
        (lambda x: anp.where(x > 0, x, 0.0), "np.where("),
        (lambda x: anp.linalg.inv(anp.dot(x.T, x)), "np.linalg.inv("),
        (lambda x: anp.sum(x), ".sum("),
        (lambda x: anp.reshape(x, (12,)), ".reshape("),
        (lambda x: x[1:], "x[1:]"),
        (lambda x: anp.tril(x), "np.tril("),
        (lambda x: anp.sort(x), "np.sort("),
    ],
)
def test_what_cannot_write_to_a_place_is_given_none(fun, line):
    program = record(lambda params, x: anp.sum(fun(x)), {}, X, gradient=False)
    (found,) = [text for text in program.source.splitlines() if line in text and " = " in text][:1]
    assert "out=" not in found


def test_the_head_tells_what_the_program_is_for():
    head = record(loss, PARAMS, X).source.split("import numpy")[0]
    assert all(line.startswith("#") for line in head.splitlines() if line)
    assert "loss and its gradient, of x float64 (4, 3)" in head
    assert "s float64 ()" not in head  # parameters are many


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        (lambda params, x: params["s"], 0.7),
        (lambda params, x: 3.0, 3.0),
        (lambda params, x: np.float64(2.5), 2.5),
        (lambda params, x: anp.sum(np.ones(3)), 3.0),
    ],
)
def test_a_value_that_no_call_makes_is_returned_as_it_is(fun, expected):
    value, gradient = record(fun, PARAMS, X)(PARAMS, X)
    assert value == expected
    np.testing.assert_array_equal(gradient[1:], 0)


@pytest.mark.parametrize(
    ("fun", "expected"),
    [
        # the gradient is an input, a result of the forward pass, a part of one, another parameter
        (lambda params, x: anp.dot(params["w"], x[0]), X[0]),
        (lambda params, x: anp.dot(params["w"], anp.exp(x)[0]), np.exp(X)[0]),
        (lambda params, x: anp.dot(params["w"], anp.exp(x[0])), np.exp(X[0])),
        (lambda params, x: anp.sum(params["w"]), np.ones(3)),
        (lambda params, x: anp.sum(x), np.zeros(3)),
    ],
)
def test_a_gradient_that_the_backward_pass_does_not_make_is_copied(fun, expected):
    _, gradient = record(fun, PARAMS, X)(PARAMS, X)
    np.testing.assert_array_equal(gradient, [0, *expected])
