"""A reader's own layer, network or prior with a mistake: every way in names it, its line, and the layer's path."""

import math
import re
from pathlib import Path

import autograd.numpy as np
import numpy as onp
import pytest
import scipy.special
from helpers import refusal, rows

import npflow
from npflow import Flow, InputError, fit
from npflow.layers import (
    ActNorm,
    AdditiveCoupling,
    AffineCoupling,
    Chain,
    ElementwiseCoupling,
    Inverse,
    Layer,
    MaskedAutoregressive,
    ScaleShift,
    SplineCoupling,
)
from npflow.layers.layer import zeros_per_row
from npflow.networks import MADE, MLP, Beside, Network
from npflow.priors import Normal, Prior
from npflow.verify import check

X = rows(16, 2, dtype=onp.float32)
MISTAKES = {}


class Right(Layer):
    """z = x exp(s)"""

    def init(self, rng, x):
        return {"s": onp.zeros(x.shape[1], x.dtype)}

    def forward(self, params, x):
        return x * np.exp(params["s"]), self.total(params, x)

    def inverse(self, params, z):
        return z * np.exp(-params["s"]), -self.total(params, z)

    def total(self, params, x):
        return zeros_per_row(x) + np.sum(params["s"])


class RightNetwork(Network):
    def init(self, rng, x, outputs):
        return {"w": onp.zeros((x.shape[-1], outputs), x.dtype)}

    def apply(self, params, x):
        return x @ params["w"]


class RightPrior(Normal):
    def init(self, rng, z):
        return {"m": onp.zeros(2, z.dtype)}

    def log_prob(self, params, z):
        return -0.5 * np.sum((z - params["m"]) ** 2, axis=1)


def mistake(words, method="forward", base=Right):
    """A method with a mistake, on the line that ends in "# here", in a class that is right otherwise."""

    def note(function):
        MISTAKES[function.__name__] = type(function.__name__, (base,), {method: function}), words
        return function

    return note


@mistake("NumPy's or SciPy's own")
def plain_numpy(self, params, x):
    return x * np.exp(params["s"]), onp.sum(params["s"]) * onp.ones_like(params["s"] @ x.T)  # here


@mistake("NumPy's or SciPy's own")
def scipys(self, params, x):
    return x * np.exp(scipy.special.erfcx(params["s"])), self.total(params, x)  # here


@mistake("got a float at 's'", "init")
def float_leaf(self, rng, x):
    return {"s": 0.0}  # here


@mistake("got an int at 's/0'", "init")
def list_leaf(self, rng, x):
    return {"s": [0, 0]}  # here


@mistake("got a NoneType: np.array", "init")
def init_of_nothing(self, rng, x):
    self.total({"s": x}, x)  # here


@mistake(r"expected init\(self, rng, x\), got .*takes 2 positional", "init")
def init(self, x):  # here
    return {"s": onp.zeros(2, x.dtype)}


@mistake("changed in place", "init")
def init_in_place(self, rng, x):
    x -= x.mean(axis=0)  # here
    return {"s": onp.zeros(2, x.dtype)}


@mistake("to return a pair, array and log_det, got an ndarray")
def only_z(self, params, x):
    return x * np.exp(params["s"])  # here


@mistake(r"one number for each row, got \(\)")
def scalar_log_det(self, params, x):
    return x * np.exp(params["s"]), np.sum(params["s"])  # here


@mistake(r"one number for each row, got \(16, 1\)")
def column_log_det(self, params, x):
    return x * np.exp(params["s"]), self.total(params, x)[:, None]  # here


@mistake("to keep the number of rows and of components")
def fewer_rows(self, params, x):
    return x[:1] * np.exp(params["s"]), self.total(params, x)  # here


@mistake("in place")
def in_place(self, params, x):
    x *= np.exp(params["s"])  # here
    return x, self.total(params, x)


@mistake("in place")
def assigned(self, params, x):
    z = x * np.exp(params["s"])
    z[:, 0] = x[:, 0] if isinstance(z, onp.ndarray) else 0  # here
    return z, self.total(params, x)


@mistake("in place")
def params_in_place(self, params, x):
    params["s"] *= 0.5  # here
    return x * np.exp(params["s"]), self.total(params, x)


@mistake("leave its parameters as they are, got another 's'")
def params_replaced(self, params, x):  # here
    params["s"] = np.tanh(params["s"])
    return x * np.exp(params["s"]), self.total(params, x)


@mistake("expected a key of the parameters that init returned, got 'scale'")
def wrong_key(self, params, x):
    return x * np.exp(params["scale"]), self.total(params, x)  # here


@mistake("expected float32 throughout, got float64 from multiply")
def ones(self, params, x):
    return x * np.exp(params["s"]), np.sum(params["s"]) * np.ones(len(x))  # here


@mistake("expected float32 throughout, got float64 from multiply")
def ones_beside_a_list_of_arrays(self, params, x):
    a, b = np.split(x, 2, axis=1)
    z = np.concatenate([a, b], axis=1) * np.exp(params["s"])
    return z, np.sum(params["s"]) + np.zeros(len(x)) * a[:, 0]  # here


@mistake("a number read off it")
def reads_a_float(self, params, x):
    return x * np.exp(params["s"]) + 0 * float(params["s"][0]), self.total(params, x)  # here


@mistake("a number read off it")
def reads_an_item(self, params, x):
    return x * np.exp(params["s"]) + 0 * params["s"][0].item(), self.total(params, x)  # here


@mistake("a number read off it")
def math_of_an_array(self, params, x):
    return x * math.exp(params["s"]), self.total(params, x)  # here


@mistake("a number read off it")
def rounds(self, params, x):
    return x * np.exp(params["s"]) + 0 * round(params["s"][0], 3), self.total(params, x)  # here


@mistake("got a branch on the value of an array")
def branches(self, params, x):
    return (x if x > 0 else -x), self.total(params, x)  # here


@mistake("got the attribute 'numpy' of an array")
def of_torch(self, params, x):
    return x * np.exp(params["s"].numpy()), self.total(params, x)  # here


@mistake("expected arrays whose shapes fit, got matmul")
def wrong_shapes(self, params, x):
    return x @ onp.eye(3, dtype=x.dtype), self.total(params, x)  # here


@mistake("expected code that runs, got NameError: name 'scale' is not defined")
def misspelt(self, params, x):
    return x * scale, self.total(params, x)  # noqa: F821  # here


@mistake("a derivative of, got nextafter")
def no_derivative(self, params, x):
    return x * np.exp(np.nextafter(params["s"], params["s"])), self.total(params, x)  # here


@mistake("a derivative of norm that has the shape of its argument")
def wrong_derivative(self, params, x):
    size = np.linalg.norm(x * np.exp(params["s"]), axis=1, keepdims=True)  # here
    return x * np.exp(params["s"]) + 0 * size, self.total(params, x)


@mistake("got a float at 'w'", "init", RightNetwork)
def network_of_a_float(self, rng, x, outputs):
    return {"w": 0.0}  # here


@mistake("expected float32 throughout, got float64 from astype", "apply", RightNetwork)
def promoting_network(self, params, x):
    return (x @ params["w"]).astype(onp.float64)  # here


@mistake(r"expected apply of \w+ to return an array of shape \(2, 2\), got None", "apply", RightNetwork)
def network_of_nothing(self, params, x):
    x @ params["w"]  # here


@mistake(r"expected apply of \w+ to return an array of shape \(2, 2\), got a tuple", "apply", RightNetwork)
def network_of_two(self, params, x):
    return x @ params["w"], x @ params["w"]  # here


@mistake(r"to return an array of shape \(2, 2\), got \[\[0.0, 0.0\], \[0", "apply", RightNetwork)
def network_of_a_list(self, params, x):
    return (x @ params["w"]).tolist()  # here


@mistake(r"to return an array of shape \(2, 2\), got shape \(2,\)", "apply", RightNetwork)
def network_of_one_row(self, params, x):
    return params["w"][0]  # here


@mistake("changed in place", "apply", RightNetwork)
def network_in_place(self, params, x):
    x *= 2  # here
    return x @ params["w"]


@mistake(r"one number for each row, got \(\)", "log_prob", RightPrior)
def scalar_prior(self, params, z):
    return -0.5 * np.sum((z - params["m"]) ** 2)  # here


@mistake(r"expected log_prob\(self, params, z\), got", "log_prob", RightPrior)
def log_prob(self, z):  # here
    return -0.5 * np.sum(z**2, axis=1)


def flow_of(kind):
    if issubclass(kind, Prior):
        return Flow(Chain([ActNorm()]), kind(2))
    return Flow(Chain([AffineCoupling(kind()) if issubclass(kind, Network) else kind()]), Normal(2))


def line_of(kind):
    """Where a mistake is, as a message names it."""
    source, functions = Path(__file__).read_text().splitlines(), vars(kind).values()
    code = next(one.__code__ for one in functions if getattr(one, "__module__", "") == __name__)
    number = next(n for n in range(code.co_firstlineno, len(source) + 1) if source[n - 1].endswith("# here"))
    return f"{__file__}:{number} ({source[number - 1].strip()})"


def start_and_fit(flow, record):
    rng = onp.random.default_rng(0)
    return fit(flow, flow.init(rng, X.copy()), X, rng=rng, steps=1, progress=False, record=record)


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_named_with_its_line_and_its_layer(name):
    kind, words = MISTAKES[name]
    flow, place = flow_of(kind), "prior (" if issubclass(kind, Prior) else "layer/0 ("
    for record in (True, False):
        said = refusal(start_and_fit, flow, record)
        assert line_of(kind) in said
        assert re.search(words, said)
        assert said.startswith(place) or "derivative" in said
        assert "record=False" not in said


def returning(value, base=MADE):
    """A network that returns a value."""
    return type("Odd", (base,), {"apply": lambda self, params, x, context=None: value})()


@pytest.mark.parametrize(
    "make",
    [
        AdditiveCoupling,
        AffineCoupling,
        SplineCoupling,
        ElementwiseCoupling,
        lambda network: AffineCoupling(Beside(network, network)),
        lambda network: MaskedAutoregressive(returning(network.apply({}, X))),
    ],
)
@pytest.mark.parametrize(
    ("value", "got"), [(None, "None"), ([1.0], "[1.0]"), ((X, X), "a tuple"), (X, "shape (16, 2)")]
)
def test_a_network_in_any_layer_is_named_with_what_it_returned(make, value, got, rng):
    said = refusal(Flow(Chain([ActNorm(), make(returning(value, MLP))]), Normal(2)).init, rng, X)
    assert said.startswith("layer/1 (")
    assert "expected apply of Odd to return an array of shape (2, " in said
    assert f"), got {got}, at {__file__}:" in said


@pytest.mark.parametrize(
    "make",
    [
        lambda t: t,
        lambda t: ElementwiseCoupling(transformer=t),
        lambda t: MaskedAutoregressive(transformer=t),
    ],
)
@pytest.mark.parametrize("direction", ["transform", "untransform"])
@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda x: x, "shape (2, 2)"),
        (lambda x: None, "None"),
        (lambda x: (x, None), "shape (2, 2) and None"),
        (lambda x: (x, x[:, :1]), "shape (2, 2) and shape (2, 1)"),
    ],
)
def test_an_elementwise_map_that_returns_no_two_arrays_is_named(make, direction, returned, got, rng):
    kind = type("Odd", (ScaleShift,), {direction: lambda self, raw, x: returned(x)})
    said = refusal(Flow(Chain([ActNorm(), make(kind())]), Normal(2)).init, rng, X)
    assert said.startswith("layer/1 (")
    assert (
        f"expected {direction} to return a pair, the array and its log-slopes, both of shape (2, 2), got {got}"
        in said
    )


@pytest.mark.parametrize("name", ["plain_numpy", "only_z", "in_place", "reads_a_float", "ones"])
def test_a_check_names_the_line_too(name):
    kind, words = MISTAKES[name]
    said = "\n".join(one.sentence for one in check(kind(), X).failures)
    assert line_of(kind) in said
    assert re.search(words.replace("16", "8"), said)


def test_a_check_of_parameters_that_are_no_arrays_names_the_line():
    kind, words = MISTAKES["float_leaf"]
    said = refusal(check, kind(), X)
    assert line_of(kind) in said
    assert re.search(words, said)


def test_the_original_error_stays_chained():
    with pytest.raises(InputError) as caught:
        flow_of(MISTAKES["wrong_key"][0]).init(onp.random.default_rng(0), X)
    causes, error = [], caught.value
    while error := error.__cause__:
        causes.append(type(error))
    assert KeyError in causes


def test_an_error_raised_on_purpose_stays_as_it_is():
    class Picky(Right):
        def forward(self, params, x):
            raise ValueError("my own")

        def inverse(self, params, z):
            if len(z): raise KeyError("mine too")  # fmt: skip  # noqa: E701

    with pytest.raises(ValueError, match=r"^my own$"):
        flow_of(Picky).init(onp.random.default_rng(0), X)
    flow = flow_of(Right)
    params = flow.init(onp.random.default_rng(0), X)
    with pytest.raises(KeyError, match="mine too"):
        flow_of(Picky).sample(params, onp.random.default_rng(0), 3)


CONTAINERS = {
    "layer": lambda layer: layer,
    "layer/1": lambda layer: Chain([ActNorm(), layer, AffineCoupling()]),
    "layer/0/0": lambda layer: Chain([Inverse(Inverse(Chain([layer])))]),
}


@pytest.mark.parametrize("rows", [2, 3])  # an array of two rows could be unpacked
@pytest.mark.parametrize("place", CONTAINERS)
@pytest.mark.parametrize(
    ("returned", "got"),
    [(lambda z: z, "an ndarray"), (lambda z: None, "a NoneType"), (lambda z: (z, z, z), "a tuple")],
)
def test_an_inverse_that_returns_no_pair_is_named_by_sample(returned, got, place, rows):
    class NoPair(Right):
        def inverse(self, params, z):
            return returned(z)

    flow, rng = Flow(CONTAINERS[place](NoPair()), Normal(2)), onp.random.default_rng(0)
    params = flow.init(rng, X)
    z = X[:rows]
    for call, arguments in (
        (flow.sample, (rng, rows)),
        (flow.sample_and_log_prob, (rng, rows)),
        (flow.decode, (z,)),
    ):
        said = refusal(call, params, *arguments)
        assert f"{place} (NoPair): expected inverse to return a pair, array and log_det, got {got}" in said


def test_a_forward_that_returns_no_pair_is_named_where_init_has_not_seen_it():
    class NoPair(Right):
        def forward(self, params, x):
            return x * np.exp(params["s"])

    params = Flow(Right(), Normal(2)).init(onp.random.default_rng(0), X)
    flow = Flow(NoPair(), Normal(2))
    for call in (flow.log_prob, flow.encode):
        said = refusal(call, params, X[:2])
        assert "layer (NoPair): expected forward to return a pair, array and log_det, got an ndarray" in said


def test_a_layer_in_another_without_a_flow_says_what_is_wrong():
    class NoPair(Right):
        def inverse(self, params, z):
            return z

    chain = Chain([NoPair()])
    params = chain.init(onp.random.default_rng(0), X)
    with pytest.raises(
        TypeError, match="expected inverse to return a pair, array and log_det, got an ndarray"
    ):
        chain.inverse(params, X[:2])


@pytest.mark.parametrize(
    ("returned", "got"),
    [(lambda z: None, "None"), (lambda z: [0.0] * len(z), "[0.0, 0.0"), (lambda z: 1.0, "1.0")],
)
@pytest.mark.parametrize("dtype", [onp.float32, onp.float64])  # to NumPy, None is float64
def test_a_result_that_is_no_array_is_shown(returned, got, dtype, rng):
    class Odd(RightPrior):
        def log_prob(self, params, z):
            return returned(z)

    class OddLogDet(Right):
        def forward(self, params, x):
            return x, returned(x)

    said = refusal(Flow(Right(), Odd(2)).init, rng, X.astype(dtype))
    assert said.startswith(f"prior (Odd): expected the result of log_prob as an array of numbers, got {got}")
    said = refusal(Flow(OddLogDet(), Normal(2)).init, rng, X.astype(dtype))
    assert said.startswith(
        f"layer (OddLogDet): expected the log_det of forward as an array of numbers, got {got}"
    )


@pytest.mark.parametrize(
    ("returned", "got"),
    [
        (lambda z: None, "None"),
        (lambda z: z[0], r"float64 of shape \(2,\)"),
        (lambda z: z.astype(onp.float32), "float32 of shape"),
        (lambda z: z[:, 2], "IndexError: .*"),
    ],
)
def test_a_prior_whose_draws_cannot_be_used_is_named(returned, got, rng):
    class Odd(RightPrior):
        def sample(self, params, rng, n, dtype=onp.float64, temperature=1.0):
            return returned(rng.standard_normal((n, 2), dtype))

    flow = Flow(Right(), Odd(2))
    params = flow.init(rng, X.astype(onp.float64))
    for sample in (flow.sample, flow.sample_and_log_prob):
        said = refusal(sample, params, rng, 3)
        assert re.search(f"^prior \\(Odd\\): expected .*, got {got}", said), said
        assert "return returned(rng" in said or "lambda z: z[:, 2]" in said


def test_a_layer_without_an_inverse_says_so():
    class NoInverse(Right):
        inverse = Layer.inverse

    flow = flow_of(NoInverse)
    params = flow.init(onp.random.default_rng(0), X)
    said = refusal(flow.sample, params, onp.random.default_rng(0), 3)
    assert "layer/0 (NoInverse): expected NoInverse to define inverse, got none, at " in said


def test_log_prob_of_a_layer_that_writes_to_its_input_leaves_the_input_as_it_is():
    flow, x = flow_of(MISTAKES["in_place"][0]), X.copy()
    refusal(flow.log_prob, {"layer": [{"s": onp.ones(2, X.dtype)}], "prior": {}}, x)
    assert onp.array_equal(x, X)


def test_a_function_that_is_recorded_is_explained_too():
    def loss(params, x):
        x *= params["s"]
        return np.sum(x)

    assert "changed in place" in refusal(npflow.autodiff.record, loss, {"s": onp.ones(2)}, onp.ones((3, 2)))
