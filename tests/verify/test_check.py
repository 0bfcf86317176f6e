"""`check` and `check_functions`: what a report says, and what they refuse."""

import copy
import inspect
import json
import math

import autograd.numpy as np
import numpy as onp
import pytest
from helpers import rows, same_bits
from scipy.stats import ortho_group

from npflow import InputError, VerificationError, layers, to_device
from npflow.layers import ActNorm, AffineCoupling, Conv1x1, Layer
from npflow.models import glow
from npflow.networks import MLP
from npflow.verify import check, check_functions

coupling = AffineCoupling(MLP((8,), "tanh"))


@pytest.fixture
def x():
    return rows(12, 4)


class Identity(Layer):
    """The right layer that those below change."""

    def forward(self, params, x):
        return x, np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        return z, np.zeros(len(z), z.dtype)


def test_a_report_prints_as_a_table_with_a_verdict_for_each_check(x):
    report = check(coupling, x)
    lines = str(report).splitlines()
    assert lines[0] == "AffineCoupling: passed"
    assert len(lines) == 2 + len(report.checks)
    assert all(line.endswith("ok") for line in lines[2:])
    assert report.raise_if_failed() is None


def test_a_failed_report_raises_with_its_table(x):
    class Wrong(AffineCoupling):
        def forward(self, params, x):
            z, log_det = super().forward(params, x)
            return z, 2 * log_det

    report = check(Wrong(MLP((8,), "tanh")), x)
    assert [failure.name for failure in report.failures]
    with pytest.raises(VerificationError) as raised:
        report.raise_if_failed()
    assert str(report) in str(raised.value)
    assert isinstance(raised.value, AssertionError)


def test_a_report_is_plain_data_for_strict_json(x):
    data = check(coupling, x).as_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["passed"] is True

    json.dumps(check(Layer(), x).as_dict(), allow_nan=False)  # each call raises NotImplementedError


def test_a_check_repeats_itself_and_changes_neither_batch_nor_parameters(x, rng):
    given = {"x": x, "params": coupling.init(rng, x)}
    before = copy.deepcopy(given)
    assert check(coupling, **given).as_dict() == check(coupling, **given).as_dict()
    assert same_bits(given, before)


def test_the_jacobians_of_a_report_are_those_of_the_layer(x):
    report = check(coupling, x)
    numerical, exact, log_abs_det, log_det = report.jacobians["forward"]
    inverse = report.jacobians["inverse"].numerical
    assert log_abs_det == pytest.approx(onp.linalg.slogdet(exact)[1]) == pytest.approx(log_det)
    onp.testing.assert_allclose(numerical, exact, atol=1e-9)
    onp.testing.assert_allclose(inverse @ numerical, onp.eye(4), atol=1e-9)
    assert onp.array_equal(exact[:2, :2], onp.eye(2))  # the half that stays
    assert not exact[:2, 2:].any()


def test_parameters_passed_in_are_looked_at_too(x):
    """A layer that is wrong at one value of its parameter alone, exactly the one passed in."""

    class WrongAtSeven(ActNorm):
        def log_det(self, params, x):
            wrong = (params["bias"][0] == 7.0).astype(x.dtype)
            return super().log_det(params, x) + wrong

    params = {"bias": onp.full(4, 7.0), "log_scale": onp.zeros(4)}
    assert check(WrongAtSeven(), x).passed
    assert not check(WrongAtSeven(), x, params=params).passed


def test_fresh_parameters_passed_in_do_not_hide_an_error(x):
    class Wrong(AffineCoupling):
        def forward(self, params, x):
            z, log_det = super().forward(params, x)
            return z, -log_det

    layer = Wrong(MLP((8,), "tanh"))
    fresh = layer.init(onp.random.default_rng(0), x)
    assert not layer.forward(fresh, x)[1].any()  # the identity: any sign would do
    assert not check(layer, x, params=fresh).passed


def test_an_object_that_is_no_layer_of_npflows_is_checked_by_its_three_methods(x):
    class Own:
        def init(self, rng, x):
            return {"log_scale": np.zeros(x.shape[1])}

        def forward(self, params, x):
            return x * np.exp(params["log_scale"]), np.sum(params["log_scale"]) * np.ones(len(x))

        def inverse(self, params, z):
            return z * np.exp(-params["log_scale"]), -np.sum(params["log_scale"]) * np.ones(len(z))

    report = check(Own(), x)
    # One promise is broken: np.ones is float64, and init does not look at the dtype of x.
    assert [failure.name for failure in report.failures] == ["float32 kept"]
    assert report.notes == ("the layer is no frozen dataclass of hyper-parameters, as the contract asks",)
    assert not check(ActNorm(), x).notes


def test_parameters_may_be_one_array(x):
    class Bare(Identity):
        def init(self, rng, x):
            return np.zeros(x.shape[1])

    assert (
        "x, float32, got float64: make them with dtype=x.dtype" in check(Bare(), x)["float32 kept"].sentence
    )


def test_a_numpy_scalar_of_float64_is_named(x):
    class Log(Identity):
        def forward(self, params, x):
            return x, 0 * x[:, 0] + np.log(1.0)

    assert "a NumPy scalar, such as np.log(2.0), is float64 too" in check(Log(), x)["float32 kept"].sentence


@pytest.mark.parametrize("log_det", [lambda x: np.sum(x) * 0, lambda x: np.zeros(2, x.dtype)])
def test_a_log_det_of_another_shape_is_one_failure(log_det, x):
    class Shape(Identity):
        forward = lambda self, params, x: (x, log_det(x))
        inverse = lambda self, params, z: (z, log_det(z))

    assert [failure.name for failure in check(Shape(), x).failures] == ["shapes"]


def test_a_transposed_matrix_and_a_permutation_that_is_not_undone_are_named(x):
    class Transposed(Identity):
        def init(self, rng, x):
            return {"w": np.eye(4, dtype=x.dtype)}

        def forward(self, params, x):
            return x @ params["w"], np.linalg.slogdet(params["w"])[1] + 0 * x[:, 0]

        def inverse(self, params, z):
            return z @ np.linalg.inv(params["w"]).T, 0 * z[:, 0] - np.linalg.slogdet(params["w"])[1]

    class Swapped(Identity):
        def forward(self, params, x):
            return x[:, ::-1], 0 * x[:, 0]

    assert "the matrix of one of them is transposed" in check(Transposed(), x).cause
    assert "is a permutation or transpose undone?" in check(Swapped(), x).cause


def test_hyper_parameters_may_have_any_name(x):
    class Deep(ActNorm):
        layers, layer = 3, "tanh"

    check(Deep(), x).raise_if_failed()


def test_beyond_the_ends_of_a_bounded_domain_nothing_hides():
    """Far out is at its ends, where the log-det is still held against the Jacobian."""

    class Wrong(layers.Logit):
        def forward(self, params, x):
            z, log_det = super().forward(params, x)
            return z, np.where(np.max(x, axis=1) > 1, log_det + 1, log_det)

    x = onp.random.default_rng(0).uniform(size=(12, 3))
    assert "log-det forward, far out" in [failure.name for failure in check(Wrong(), x).failures]


def test_what_a_layer_raises_is_in_its_report(x):
    class Raising(Identity):
        def inverse(self, params, z):
            raise RuntimeError("not written yet")

    report = check(Raising(), x)
    line = inspect.getsourcelines(Raising.inverse)[1] + 1
    assert (
        report["shapes"].sentence
        == f"could not be run: RuntimeError in inverse, test_check.py:{line}: not written yet"
    )
    assert not report["log-det forward, finite differences"].passed


@pytest.mark.parametrize(
    ("result", "check_name", "sentence"),
    [
        (lambda x: x, "shapes", "expected forward to return a pair, array and log_det, got an ndarray"),
        (
            lambda x: (x[:, :2], np.zeros(len(x))),
            "shapes",
            "a layer keeps the number of rows and of components",
        ),
        (lambda x: (x, np.zeros(3)), "x -> z -> x", ""),
    ],
)
def test_results_of_another_form_are_reported(result, check_name, sentence, x):
    report = check_functions(result, lambda z: (z, np.zeros(len(z))), x)
    assert not report.passed
    assert sentence in report[check_name].sentence


def test_a_map_that_is_not_finite_never_passes(x):
    report = check_functions(
        lambda x: (x * np.nan, np.full(len(x), np.nan)), lambda z: (z * np.nan, np.full(len(z), np.nan)), x
    )
    assert [failure.name for failure in report.failures] == ["finite"]
    assert "the array of forward is nan in row 0" in report.cause
    assert report["log-det forward, finite differences"].status == "not run"


def test_a_map_without_a_derivative_is_not_resolved_and_never_passes(x):
    class Steps(Identity):
        def forward(self, params, x):
            return x + 1e-3 * np.floor(x * 1e6), np.zeros(len(x), x.dtype)

    report = check(Steps(), x[:, :1])
    for name in ("log-det {}, finite differences", "derivative of {}"):
        assert not report[name.format("forward")].passed


# ---------------------------------------------------------------- right layers are not accused


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize(("mean", "std"), [(1e6, 1.0), (0.0, 1e4), (0.0, 1e-4)])
def test_data_in_other_units_is_fine(mean, std, seed):
    x = onp.random.default_rng(seed).normal(mean, std, (16, 3))
    check(ActNorm(), x, rng=onp.random.default_rng(seed)).raise_if_failed()


def test_a_chain_of_kinked_layers_is_fine():
    layer = glow(2, steps=3, network=MLP((16, 16))).layer
    check(layer, rows(8, 2), rng=onp.random.default_rng(1)).raise_if_failed()


def test_a_layer_of_a_bounded_domain_passes_when_what_is_beyond_it_is_skipped(rng):
    class Logit(Layer):  # from (0, 1) to all of R, which it does not say
        def forward(self, params, x):
            return np.log(x) - np.log1p(-x), -np.sum(np.log(x) + np.log1p(-x), axis=1)

        def inverse(self, params, z):
            x = 1 / (1 + np.exp(-z))
            return x, np.sum(np.log(x) + np.log1p(-x), axis=1)

    x = rng.uniform(0.05, 0.95, (8, 3))
    report = check(Logit(), x, skip=["finite for large inputs"])
    report.raise_if_failed()
    assert "skipped: finite for large inputs" in str(report)
    assert not check(Logit(), x).passed


def test_a_layer_of_one_component_and_parameters_in_a_tuple_are_fine():
    class Shift(Layer):
        def init(self, rng, x):
            return (np.zeros(x.shape[1:], x.dtype), ())

        def forward(self, params, x):
            return x + params[0], np.zeros(len(x), x.dtype)

        def inverse(self, params, z):
            return z - params[0], np.zeros(len(z), z.dtype)

    check(Shift(), rows(4, 1)).raise_if_failed()


def test_what_is_skipped_has_to_be_a_check(x):
    with pytest.raises(InputError, match=r"expected a list of checks to skip among .*, got .'everything'."):
        check(ActNorm(), x, skip=["everything"])


def test_a_report_is_asked_for_checks_by_name(x):
    report = check(coupling, x)
    assert report["shapes"].passed
    with pytest.raises(KeyError, match=r"expected one of .*'shapes'.*, got 'colour'"):
        report["colour"]


# ---------------------------------------------------------------- plain functions


def rotation_functions():
    rotation = ortho_group.rvs(4, random_state=0) * 1.5
    log_det = 4 * math.log(1.5)

    def forward(x):
        return x @ rotation, np.full(len(x), log_det)

    def inverse(z):
        return np.linalg.solve(rotation.T, z.T).T, np.full(len(z), -log_det)

    return forward, inverse


def test_two_right_functions_pass(x):
    report = check_functions(*rotation_functions(), x)
    report.raise_if_failed()
    assert report.subject == "forward and inverse"
    assert report["log-det forward, finite differences"].error < 1e-10


def test_functions_need_not_be_known_to_autograd(x):
    def erf_like(x):  # numpy alone, in place, on a copy
        y = onp.array(x)
        onp.arcsinh(y, out=y)
        return y, -0.5 * onp.sum(onp.log1p(x**2), axis=1)

    def back(z):
        return onp.sinh(z), onp.sum(onp.log(onp.cosh(z)), axis=1)

    check_functions(erf_like, back, x).raise_if_failed()


def test_a_wrong_sign_in_a_function_is_caught(x):
    forward, inverse = rotation_functions()
    report = check_functions(lambda x: (forward(x)[0], -forward(x)[1]), inverse, x)
    assert "opposite sign" in report["log-det forward, finite differences"].sentence
    assert not report["log-dets cancel"].passed
    assert report["log-det inverse, finite differences"].passed


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("x", "sentence"),
    [
        (onp.zeros((1, 4)), "expected x to have at least two rows, .* got one"),
        (onp.zeros((3, 4), complex), "expected x in float32 or float64, got complex128"),
        (onp.full((3, 4), onp.inf), "expected x to be finite, got inf in row 0"),
    ],
)
def test_bad_batches_get_a_sentence(x, sentence):
    with pytest.raises(InputError, match=sentence):
        check(ActNorm(), x)
    with pytest.raises(InputError, match=sentence):
        check_functions(*rotation_functions(), x)


def test_a_layer_takes_features_or_images():
    with pytest.raises(InputError, match="expected x of shape"):
        check(ActNorm(), onp.zeros(4))


def test_an_object_without_the_methods_gets_a_sentence(x):
    with pytest.raises(
        InputError, match="expected the layer to be an object with init, forward and inverse, got 3"
    ):
        check(3, x)
    with pytest.raises(InputError, match=r"expected rng to be a numpy.random.Generator"):
        check(ActNorm(), x, rng=0)


def test_a_gradient_that_is_not_finite_is_reported(x):
    class Corner(Identity):
        def init(self, rng, x):
            return {"a": np.zeros(1, x.dtype)}

        def forward(self, params, x):
            return x + 0 * np.sqrt(params["a"] * 0), np.zeros(len(x), x.dtype)

    assert "in the parameter 'a' is not finite" in check(Corner(), x)["gradient of forward"].sentence


def test_gradients_that_differences_do_not_resolve_never_pass(x):
    class Rough(Identity):
        def forward(self, params, x):
            return x + 1e-3 * np.sign(np.sin(1e9 * x)), np.zeros(len(x), x.dtype)

    report = check(Rough(), x)
    assert not report["gradient of forward"].passed


def test_a_row_far_out_of_the_domain_is_not_held_against_a_layer():
    """The root has neither value nor derivative beyond 4, where most of the points far out lie."""

    class Root(Layer):
        def forward(self, params, x):
            return -np.sqrt(4 - x), -np.sum(np.log(2 * np.sqrt(4 - x)), axis=1)

        def inverse(self, params, z):
            return 4 - z * z, np.sum(np.log(2 * np.abs(z)), axis=1)

    x = onp.random.default_rng(0).uniform(0.5, 3.5, (8, 3))
    x[0] = 0.3  # three times as far is still inside
    report = check(Root(), x, skip=["z -> x -> z, any z", "finite for large inputs"])
    report.raise_if_failed()
    assert report.log_det_error("autograd") < 1e-9


def test_what_lives_on_a_device_is_fetched_and_checked(x, device):
    layer = Conv1x1()
    params = layer.init(onp.random.default_rng(0), x)
    report = check(layer, device.send(x), params=to_device(params, device.name))
    assert report.passed
    assert str(report) == str(check(layer, x, params=params))
