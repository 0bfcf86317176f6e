"""What a recording sees, and what it refuses rather than record wrongly."""

import contextlib
import math
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import autograd
import autograd.numpy as anp
import numpy as np
import pytest
import scipy.special
from autograd.extend import defvjp, notrace_primitive, primitive
from autograd.tracer import Box, getval
from tapes import bits, tape_of

from npflow.autodiff import Layout, value_and_grad
from npflow.autodiff.primitives import leaky_relu
from npflow.autodiff.program import record
from npflow.autodiff.program.recording import Recording, sealed_boxes
from npflow.errors import InputError
from npflow.layers import Logit

PARAMS = {"w": np.array([0.3, -1.7, 2.9]), "s": np.array(0.7)}
X = np.random.default_rng(0).standard_normal((4, 3))


def functions_of(tape):
    return [getattr(one.function, "__name__", "") for one in tape.calls]


# ---------------------------------------------------------------- refused
# The line that is wrong ends in `# here`: each message has to name it, by its number.


def branches(params, x):
    y = anp.sum(x * params["w"])
    if y > 0:  # here
        return y
    return -y


def branches_on_data(params, x):
    y = anp.sum(params["w"])
    while anp.max(x) > 100:  # here
        y = y + 1
    return y


def chooses(params, x):
    return anp.sum(params["w"]) if x[0, 0] else anp.sum(x)  # here


def chains_comparisons(params, x):
    y = anp.sum(params["w"] * x)
    return y * (0 < y < 1)  # here


def calls_float(params, x):
    return anp.sum(x) * float(params["s"])  # here


def calls_int(params, x):
    return anp.sum(x * params["w"]) * int(x[0, 0])  # here


def calls_complex(params, x):
    return anp.sum(x) * abs(complex(params["s"]))  # here


def calls_item(params, x):
    return anp.sum(x) * params["s"].item()  # here


def calls_tolist(params, x):
    return anp.sum(x) * params["w"].tolist()[0]  # here


def calls_range(params, x):
    return sum(anp.sum(params["w"]) for _ in range(anp.argmax(x[0])))  # here


def calls_math(params, x):
    return anp.sum(x) * math.exp(params["s"])  # here


def leaves_for_numpy(params, x):
    return anp.sum(x) * np.asarray(params["w"])[0]  # here


def calls_plain_numpy(params, x):
    return anp.sum(np.sort(params["w"]) * x)  # here


def calls_plain_numpy_on_data(params, x):
    return anp.sum(params["w"]) * np.linalg.norm(x)  # here


def calls_scipy(params, x):
    return anp.sum(scipy.special.erfcx(x) * params["w"])  # here


def calls_scipy_code(params, x):
    # logsumexp is Python: the line that fails is SciPy's own, the one to tell is this
    return scipy.special.logsumexp(x * params["w"])  # here


def takes_by_mask(params, x):
    y = x * params["w"]
    return anp.sum(y[y > 0])  # here


def takes_nonzero(params, x):
    y = x * params["w"]
    return anp.sum(y[anp.nonzero(y > 0)])  # here


def takes_where(params, x):
    y = x * params["w"]
    return anp.sum(y) * len(anp.where(y > 0)[0])  # here


def counts_unique(params, x):
    return anp.sum(params["w"]) * len(anp.unique(x))  # here


def counts_bins(params, x):
    return anp.sum(params["w"]) * len(anp.bincount(anp.argmax(x, axis=0)))  # here


def makes_as_many_ones(params, x):
    return anp.sum(params["w"]) * anp.sum(anp.ones(anp.argmax(x[0])))  # here


def takes_a_shape_from_a_value(params, x):
    return anp.sum(anp.broadcast_to(params["w"][0], anp.argmax(x[0])))  # here


def slices_to_a_value(params, x):
    return anp.sum(params["w"][: anp.argmax(x[0])])  # here


@primitive
def of_a_list(x, others):
    return x * len(others)


def hides_a_box_in_a_list(params, x):
    return anp.sum(of_a_list(params["w"], [x, 1]))  # here


def hides_a_box_in_a_dict(params, x):
    return anp.sum(of_a_list(params["w"], {"x": (x,)}))  # here


def hides_a_box_in_an_index(params, x):
    return anp.sum(params["w"][(anp.argmax(x, axis=0),)])  # here


def hands_a_box_over_by_name(params, x):
    return anp.sum(of_a_list(x, others=params["w"])) + params["s"]  # here


def hides_a_box_around_a_checkpoint(params, x):
    return anp.sum(autograd.checkpoint(lambda h: h * params["w"])(x))  # here


def hides_a_box_around_a_primitive(params, x):
    largest = anp.max(x)
    scaled = primitive(lambda h: h * largest)
    defvjp(scaled, lambda ans, h: lambda g: g * largest)
    return anp.sum(scaled(x * params["w"]))  # here


def writes_to_data(params, x):
    x[0] = 0  # here
    return anp.sum(x * params["w"])


def derives_with_a_branch(params, x):
    # autograd's derivative of eigh looks at the eigenvalues; no line of ours runs then but in `record`
    w = anp.linalg.eigh(anp.dot(x.T, x) * params["s"])[0]  # here
    return anp.sum(w**2)


def derives_by_assignment(params, x):
    return anp.sum(ascending(params["w"]) * x)


def sorted_vjp(y, x):
    order, places = anp.argsort(x), np.zeros(len(x), int)

    def vjp(g):  # autograd's own derivative of sort does this
        places[order] = np.arange(len(x))  # here
        return g[places]

    return vjp


ascending = primitive(lambda x: np.sort(x))
defvjp(ascending, sorted_vjp)


REFUSED = [
    thing
    for name, thing in list(globals().items())
    if re.match(
        r"branches|chooses|chains|calls_|leaves_|takes_|counts_|slices_|makes_|hides_|hands_|writes_|derives_",
        name,
    )
]

IN_BACKWARD = [derives_with_a_branch, derives_by_assignment]  # without a gradient they can be recorded


@pytest.mark.parametrize(
    ("fun", "gradient"),
    [(fun, gradient) for fun in REFUSED for gradient in (True, False) if gradient or fun not in IN_BACKWARD],
)
def test_what_cannot_be_recorded_is_refused_with_its_line(fun, gradient):
    lines = Path(__file__).read_text().splitlines()
    first = fun.__code__.co_firstlineno
    number = next(n for n in range(first, first + 20) if lines[n - 1].endswith("# here"))
    with pytest.raises(InputError) as caught:
        record(fun, PARAMS, X, gradient=gradient)
    assert f"at {__file__}:{number} ({lines[number - 1].strip()})" in str(caught.value)
    assert str(caught.value).startswith("expected ")


def draws(params, x):
    return anp.sum(params["w"]) * random.random()


@pytest.mark.parametrize("gradient", [True, False])
def test_the_line_of_a_random_number_is_named(gradient):
    number = draws.__code__.co_firstlineno + 1
    with pytest.raises(InputError, match=re.escape(f"at {__file__}:{number} (return anp.sum(")):
        record(draws, PARAMS, X, gradient=gradient)


def draws_with_numpy(params, x, rng=np.random.default_rng(1)):  # noqa: B008
    return anp.sum(params["w"] * rng.standard_normal(3))


def counts_its_calls(params, x, calls=[]):  # noqa: B006
    calls.append(1)
    return anp.sum(params["w"]) * len(calls)


def reads_behind_the_boxes(params, x):
    while hasattr(x, "_value"):
        x = x._value
    return anp.sum(params["w"]) * x[0, 0]


def branches_behind_the_boxes(params, x):
    return anp.sum(params["w"] * x) if np.mean(getval(x)) > 0 else 5 * anp.sum(params["w"] * x)


@pytest.mark.parametrize(
    "fun",
    [draws, draws_with_numpy, counts_its_calls, reads_behind_the_boxes, branches_behind_the_boxes],
)
@pytest.mark.parametrize("gradient", [True, False])
def test_what_is_not_the_same_at_each_call_is_noticed(fun, gradient):
    with pytest.raises(InputError, match=f"expected {fun.__name__} to give the same result"):
        record(fun, PARAMS, X, gradient=gradient)


# ---------------------------------------------------------------- numbers read off an array unnoticed

READ = {
    "largest": lambda x: np.max(np.abs(x)),
    "norm": np.linalg.norm,
    "mean": np.mean,
    "first": lambda x: x.flat[0],
    "sign": lambda x: np.sign(np.sum(x)),
    "is above": lambda x: np.max(np.abs(x)) > 3 * LARGEST,
    "is below": lambda x: np.max(np.abs(x)) < LARGEST / 3,
}
READ_OFF_MANY = {
    "positive": lambda x: np.sum(x > 0),
    "not zero": np.count_nonzero,
    "different": lambda x: len(np.unique(x)),
    "rank": lambda x: np.argsort(x.ravel())[0],
    "ratio": lambda x: x.flat[0] / x.flat[-1],
    "spread": lambda x: np.std(x) / np.mean(np.abs(x)),
}
ROW = np.array([[0.4, -1.3, 0.9]])
LARGEST = 1.3
SAME_LINE = re.escape(f"at {__file__}:")


ARRAYS = ROW, np.concatenate([ROW, ROW / 2, -ROW / 3]), ROW[:, 1:2], ROW[0, 1]


@pytest.mark.parametrize(
    ("name", "x"),
    [
        (name, x)
        for name in (*READ, *READ_OFF_MANY)
        for x in ARRAYS
        if name in READ or np.size(x) >= (9 if name == "different" else 3)  # one number has no ratio
    ],
)
def test_a_number_read_off_unnoticed_is_noticed(name, x):
    read = (READ | READ_OFF_MANY)[name]
    off_data = lambda params, x: anp.sum(anp.tanh(x * params["w"])) * anp.cos(read(getval(getval(x))) + 0.1)
    off_params = lambda params: (
        anp.sum(anp.tanh(params["w"])) * anp.cos(read(getval(getval(params["w"]))) + 0.1)
    )
    for fun, *given in ((off_data, {"w": np.array(0.3)}, np.asarray(x)), (off_params, {"w": np.asarray(x)})):
        if fun is off_data or name != "is above":
            with pytest.raises(InputError, match=f"or reads the values of arrays, {SAME_LINE}"):
                record(fun, *given, gradient=np.size(x) > 1)


def one_hot(params, labels):
    return anp.sum(params["w"][labels] ** 2) / np.max(getval(labels))  # the number of classes, say


def inside(params, x):
    return anp.sum(Logit().forward({}, x)[0] * params["w"]) / np.max(getval(x))


def without_mask(params, x, mask):
    return anp.sum(x * mask * params["w"]) / (1 + np.sum(getval(mask)))


def through_notrace(params, x):
    return anp.sum(x * params["w"]) / notrace_primitive(np.max)(x)


def through_a_primitive(params, x):
    largest = np.max(getval(getval(x)))
    scaled = primitive(lambda h: h / largest)
    defvjp(scaled, lambda ans, h: lambda g: g / largest)
    return anp.sum(scaled(x * params["w"]))


def branches_unnoticed(params, x):
    if np.max(np.abs(getval(getval(x)))) < 5:
        return anp.sum(x * params["w"])
    return anp.sum(x * params["w"]) * 2


@pytest.mark.parametrize(
    ("fun", "data"),
    [
        (one_hot, [np.array([2, 1, 0, 2])]),
        (inside, [np.array([[0.2, 0.9, 0.5], [0.1, 0.3, 0.6]])]),
        (without_mask, [X, np.array([True, False, True])]),
        (through_notrace, [X]),
        (through_a_primitive, [X]),
        (branches_unnoticed, [X]),
        (lambda params, x: anp.sum(x * params["w"]) / (1 + np.max(getval(x))), [np.zeros((4, 3))]),
    ],
)
def test_it_is_noticed_whatever_the_data_may_be(fun, data):
    with pytest.raises(InputError, match=f"or reads the values of arrays, {SAME_LINE}"):
        record(fun, PARAMS, *data)


def within_levels(params, x):
    if not np.all(np.isin(getval(getval(x)), range(4))):
        raise InputError("expected levels")
    return anp.sum(x * params["w"])


@pytest.mark.parametrize(
    ("fun", "data"),
    [
        (within_levels, np.array([[0.0, 1.0, 3.0]])),
        (lambda params, x: anp.sum(anp.log(params["w"] ** 2) * anp.sqrt(x)), np.array([[0.1, 0.5, 0.2]])),
        (lambda params, x: anp.sum(anp.log1p(-x) * params["w"]), np.array([[0.1, 0.999, 0.0]])),
        (lambda params, x: anp.sum(anp.exp(x * params["w"])), 300 * X),
        (lambda params, x: anp.sum(x * params["w"]), np.full((4, 3), np.nan)),
        (lambda params, x: anp.sum((x / 1e30) ** 2 * params["w"]), np.float32(1e30) * X.astype("f4")),
    ],
)
def test_what_is_right_is_not_refused_for_what_it_gives_on_other_data(fun, data):
    params = {"w": PARAMS["w"].astype(data.dtype)}
    program = record(fun, params, data)
    assert bits(program(params, data)[0]) == bits(value_and_grad(fun)(params, data)[0])


def test_a_function_that_changes_its_data_is_refused_and_the_data_stays():
    def doubles(params, x):
        x *= 2
        return anp.sum(x * params["w"])

    data = X.copy()
    with pytest.raises(InputError, match="changed in place"):
        record(doubles, PARAMS, data)
    assert np.array_equal(data, X)


@pytest.mark.parametrize("result", [lambda y: (y, y), lambda y: [y], lambda y: {"y": y}])
def test_a_function_that_returns_several_arrays_is_refused(result):
    kind = type(result(1)).__name__
    with pytest.raises(
        InputError, match=f"expected one array from the function that is recorded, got an? {kind}"
    ):
        record(lambda params, x: result(x * params["w"]), PARAMS, X, gradient=False)


def test_a_gradient_of_an_array_is_refused():
    with pytest.raises(
        InputError, match=r"expected a scalar to differentiate, got an array of shape \(4, 3\)"
    ):
        record(lambda params, x: x * params["w"], PARAMS, X)


# ---------------------------------------------------------------- the function's own errors


class OwnError(Exception):
    pass


@pytest.mark.parametrize(
    "error", [OwnError("mine"), ValueError("bad"), InputError("expected a layer"), KeyError("a")]
)
def test_an_error_that_the_function_raises_without_a_recording_too_comes_as_itself(error):
    def broken(params, x):
        raise error

    with pytest.raises(type(error)) as caught:
        record(broken, PARAMS, X)
    assert caught.value is error


def test_an_error_of_numpy_comes_as_itself():
    with pytest.raises(np.linalg.LinAlgError):
        record(lambda params, x: anp.sum(anp.linalg.inv(params["w"][:, None] * anp.zeros((3, 3)))), PARAMS, X)


def test_data_that_the_function_cannot_take_in_reverse_is_no_obstacle():
    # The values that a program is tried on are the data's rows in reverse: no positive definite matrix.
    matrix = np.diag([1.0, 2.0, 3.0]) + 0.1
    program = record(lambda params, a: anp.sum(anp.linalg.cholesky(a)) * params["s"], PARAMS, matrix)
    assert program(PARAMS, matrix)[0] == np.sum(np.linalg.cholesky(matrix)) * 0.7


# ---------------------------------------------------------------- afterwards


def autograd_works():
    y = autograd.grad(lambda w: anp.sum(w**3) if anp.sum(w) > 0 else anp.sum(w))(PARAMS["w"])
    np.testing.assert_array_equal(y, 3 * PARAMS["w"] ** 2)
    assert isinstance(float(PARAMS["s"]), float)


@pytest.mark.parametrize(
    "fun", [branches, calls_float, takes_by_mask, lambda params, x: anp.sum(x * params["w"])]
)
def test_autograd_is_left_as_it_was_also_by_an_error(fun):
    before = dict(Box.type_mappings)
    with contextlib.suppress(InputError):
        record(fun, PARAMS, X)
    assert (Box.type_mappings, Recording.running) == (before, None)
    autograd_works()


def test_boxes_are_sealed_only_meanwhile():
    before = dict(Box.type_mappings)
    with pytest.raises(OwnError), sealed_boxes():
        assert Box.type_mappings != before
        raise OwnError
    assert Box.type_mappings == before


def test_a_box_that_outlives_its_recording_still_refuses_to_be_read():
    kept = []

    def keeps(params, x):
        kept.append(params["s"])
        return anp.sum(x * params["s"])

    record(keeps, PARAMS, X)
    with pytest.raises(InputError, match="a number read off it"):
        float(kept[0])


def test_the_function_is_recorded_with_autograds_stack_as_deep_as_it_was():
    # A recording inside of a differentiation by autograd itself, of what that does not look at.
    def outer(w):
        program = record(lambda params, x: anp.sum(x * params["w"]), PARAMS, X)
        return anp.sum(w) * program(PARAMS, X)[0]

    expected = np.full(3, np.sum(X * PARAMS["w"]))
    np.testing.assert_array_equal(autograd.grad(outer)(np.ones(3)), expected)


# ---------------------------------------------------------------- what is seen


def test_the_backward_pass_is_recorded_with_the_forward_pass():
    tape = tape_of(lambda params, x: anp.sum(anp.exp(params["w"]) * x), PARAMS, X)
    ahead = [one for one in tape.calls if not one.place.backward]
    assert [one.function.__name__ for one in ahead] == ["exp", "multiply", "sum"]
    assert len(tape.calls) > len(ahead)
    assert all(one.place.backward for one in tape.calls[len(ahead) :])
    assert [value.name for value in tape.parameters] == ["s", "w"]
    assert tape.gradients[0] is None


def test_without_a_gradient_there_is_no_backward_pass():
    tape = tape_of(lambda params, x: anp.exp(params["w"]) * x, PARAMS, X, gradient=False)
    assert functions_of(tape) == ["exp", "multiply"]
    assert tape.gradients is None


def test_a_transparent_primitive_is_recorded_call_by_call():
    tape = tape_of(lambda params, x: leaky_relu(x), {}, X, gradient=False)
    assert functions_of(tape) == ["multiply", "maximum"]


def test_integer_leaves_are_constants_and_no_calls():
    params = PARAMS | {"order": np.array([2, 0, 1])}
    tape = tape_of(lambda params, x: anp.sum(x[:, params["order"]] * params["w"]), params, X)
    assert len(tape.parameters) == 2
    index = tape.calls[0].arguments[1]
    np.testing.assert_array_equal(index[1], [2, 0, 1])


def test_a_view_remembers_which_argument_it_lies_in():
    tape = tape_of(lambda params, x: anp.reshape(x, (12,))[3:], {}, X, gradient=False)
    assert [one.views for one in tape.calls] == [(0,), (0,)]
    tape = tape_of(lambda params, x: anp.where(x > 0, x, 0.0), {}, X, gradient=False)
    assert [one.views for one in tape.calls] == [(), ()]


def test_the_gradient_of_a_squared_gradient_norm_is_recorded_right():
    def loss(params, x):
        return anp.sum(anp.tanh(x * params["w"]) ** 3) * params["s"]

    def norm(params, x):
        _, gradient = value_and_grad(loss)(params, x)
        return anp.sum(gradient["w"] ** 2) + gradient["s"] ** 2

    program = record(norm, PARAMS, X)
    value, gradient = value_and_grad(norm)(PARAMS, X)
    got, vector = program(PARAMS, X)
    assert bits(got) == bits(value)
    assert bits(vector) == bits(Layout(PARAMS).pack(gradient))
    # what the inner gradient computes is part of the function, so of its forward pass
    assert "np.tanh" in program.source.split("def backward")[0]


def test_autograds_own_gradient_can_be_a_part_of_the_function():
    def loss(params, x):
        slopes = autograd.grad(lambda w: anp.sum(w[0:2] ** 3) + anp.sum(w[np.array([0, 0, 1])]) ** 2)(
            params["w"]
        )
        return anp.sum(slopes**2)

    program = record(loss, PARAMS, X)
    value, gradient = value_and_grad(loss)(PARAMS, X)
    for _ in range(2):
        got, vector = program(PARAMS, X)
        assert (bits(got), bits(vector)) == (bits(value), bits(Layout(PARAMS).pack(gradient)))


def test_what_a_list_of_arrays_leads_back_to_is_part_of_the_backward_pass():
    # autograd gives the gradient in one part of a list as a sparse object, outside of all derivatives.
    tape = tape_of(lambda params, x: anp.sum(anp.array_split(params["w"], 2)[0] ** 2), PARAMS, X)
    (sparse,) = [one for one in tape.calls if one.function.__name__ == "sparse_add"]
    assert sparse.place.backward
    assert record(lambda params, x: anp.sum(anp.array_split(params["w"], 2)[0] ** 2), PARAMS, X).lines


# ---------------------------------------------------------------- several at once


def test_recordings_in_several_threads_do_not_disturb_each_other():
    def loss(number):
        def fun(params, x):
            h = x
            for _ in range(10):
                h = anp.tanh(h * params["w"] + number)
            return anp.sum(h)

        return fun

    start = threading.Barrier(4)

    def work(number):
        start.wait()
        return [record(loss(number), PARAMS, X)(PARAMS, X) for _ in range(2)]

    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(work, range(4)))
    for number, pairs in enumerate(results):
        value, gradient = value_and_grad(loss(number))(PARAMS, X)
        for got, vector in pairs:
            assert (bits(got), bits(vector)) == (bits(value), bits(Layout(PARAMS).pack(gradient)))


def test_a_recording_runs_the_function_only_while_no_other_thread_records():
    # The plain function too, when the program is tried on other values: autograd has one stack of traces.
    inside, together = [], []

    def fun(params, x):
        inside.append(threading.get_ident())
        time.sleep(0.005)  # in which another thread would come in
        together.append(len(set(inside)))
        inside.pop()
        return anp.sum(x * params["w"])

    with ThreadPoolExecutor(2) as pool:
        for recording in [pool.submit(record, fun, PARAMS, X) for _ in range(2)]:
            recording.result()
    assert together == [1] * 6


def test_a_function_that_is_recorded_may_record_another():
    inner = lambda params, x: anp.sum(x * params["w"])

    def outer(params, x):
        fixed = record(inner, PARAMS, X)(PARAMS, X)[0]
        return anp.sum(params["w"]) * fixed

    got = []
    thread = threading.Thread(target=lambda: got.append(record(outer, PARAMS, X)(PARAMS, X)[0]), daemon=True)
    thread.start()
    thread.join(10)  # it used to wait for itself
    assert got == [outer(PARAMS, X)]


def test_another_thread_may_branch_while_one_records():
    """Its arrays are in the same kind of boxes meanwhile."""
    recorded, done = threading.Event(), threading.Event()

    def waits(params, x):
        recorded.set()
        assert done.wait(10)
        return anp.sum(params["w"] * x)

    def branches_elsewhere(params):
        return anp.sum(params["w"]) if anp.sum(params["w"]) > 0 else anp.sum(params["w"] ** 2)

    thread = threading.Thread(target=record, args=(waits, PARAMS, X))
    thread.start()
    try:
        assert recorded.wait(10)
        value, gradient = value_and_grad(branches_elsewhere)({"w": np.ones(3)})
    finally:
        done.set()
        thread.join()
    assert value == 3
    assert np.array_equal(gradient["w"], np.ones(3))
