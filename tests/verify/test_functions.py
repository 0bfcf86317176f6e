"""`check_functions`: plain functions, what is known of them, and what cannot be decided."""

import math

import numpy as np
import pytest
from helpers import rows
from scipy.special import expit

from npflow import InputError
from npflow.verify import check_functions

total = lambda a: np.sum(a, axis=1)


def sigmoid(x):
    return expit(x), total(np.log(expit(x) * expit(-x)))


def logit(z):
    return np.log(z) - np.log1p(-z), -total(np.log(z) + np.log1p(-z))


def clamped_logit(z):
    return logit(np.clip(z, 1e-12, 1 - 1e-12))


def raising_logit(z):
    if not ((z > 0) & (z < 1)).all():
        raise ValueError("outside the support")
    return logit(z)


def arcsinh(x):
    return np.arcsinh(x), -total(np.log1p(x * x)) / 2


def sinh(z):
    return np.sinh(z), total(np.log(np.cosh(z)))


def sticks(x):
    """R^D to the simplex; the log-det is that in the chart of the first D components."""
    share = expit(x)
    left = np.concatenate([np.ones((len(x), 1)), np.cumprod(1 - share, axis=1)], axis=1)
    z = np.concatenate([share, np.ones((len(x), 1))], axis=1) * left
    return z, total(np.log(share) + np.log(1 - share) + np.log(left[:, :-1]))


def unsticks(z):
    left = 1 - np.concatenate([np.zeros((len(z), 1)), np.cumsum(z[:, :-2], axis=1)], axis=1)
    x = np.log(z[:, :-1]) - np.log(left - z[:, :-1])
    return x, -sticks(x)[1]


@pytest.fixture
def x():
    return rows(60, 4)


# ---------------------------------------------------------------- a bounded range is no mistake


@pytest.mark.parametrize("inverse", [logit, clamped_logit, raising_logit])
def test_a_bounded_range_is_not_held_against_a_map(inverse, x):
    report = check_functions(sigmoid, inverse, 2 * x)
    report.raise_if_failed()
    assert "say codomain=" in report["z -> x -> z, any z"].sentence


@pytest.mark.parametrize("codomain", [(0, 1), ([0, 0, 0, 0], 1.0), lambda z: (z > 0) & (z < 1)])
def test_any_z_of_a_codomain_has_to_come_back(codomain, x):
    report = check_functions(sigmoid, raising_logit, x, codomain=codomain)
    report.raise_if_failed()
    assert not report["z -> x -> z, any z"].sentence
    off = lambda z: (np.where(z > 0.9, 5.0, logit(z)[0]), logit(z)[1])
    assert not check_functions(sigmoid, off, 0.1 * x, codomain=codomain).passed
    assert check_functions(sigmoid, off, 0.1 * x).passed


def test_a_function_that_raises_outside_its_domain_is_fine_inside(x):
    check_functions(raising_logit, sigmoid, expit(x), domain=(0, 1)).raise_if_failed()
    report = check_functions(lambda x: (raising_logit(x)[0], -raising_logit(x)[1]), sigmoid, expit(x))
    assert "opposite sign" in report.cause


def test_rows_of_z_that_are_handed_over_have_to_come_back(x):
    check_functions(sigmoid, raising_logit, x, z=expit(3 * x)).raise_if_failed()
    report = check_functions(sigmoid, raising_logit, x, z=1 + expit(x))
    assert [failure.name for failure in report.failures] == ["z -> x -> z, any z"]


def test_rows_may_be_a_list(x):
    check_functions(arcsinh, sinh, x.tolist()).raise_if_failed()


@pytest.mark.parametrize("dtypes", ["float32", "float64"])
@pytest.mark.parametrize("result", [None, np.ones((60, 4))])
def test_functions_that_return_no_pair_are_told_so(result, dtypes, x):
    report = check_functions(lambda x: result, sinh, x, dtypes=dtypes)
    assert "expected forward to return a pair, array and log_det" in report.cause


def test_where_all_rows_raise_the_first_error_is_shown(x):
    def fails(z):
        raise ValueError("one row is too few" if len(z) == 1 else "not written yet")

    assert "not written yet" in check_functions(arcsinh, fails, x).cause


def test_a_row_of_x_that_raises_is_named_with_its_reason(x):
    report = check_functions(raising_logit, sigmoid, np.vstack([expit(x), [[0.5, 0.5, 2.0, 0.5]]]))
    assert "nan in row 60, and not finite in 1 of 61 rows (it raised ValueError: outside" in report.cause


# ---------------------------------------------------------------- where errors hide


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("tail", "words"),
    [
        (lambda x, z: np.abs(x[:, 0]) > 2.2, r"those where \|x_0\| is above"),
        (lambda x, z: x[:, 3] < -2.2, "those where x_3 is below"),
        (lambda x, z: total(x * x) > 11, r"those where \|[xz]\| is above"),
    ],
)
def test_an_error_in_the_tails_of_many_rows_is_found(tail, words, seed):
    x = rows(1000, 4, seed=seed)

    def forward(x):
        z, log_det = arcsinh(x)
        return z, log_det + 0.5 * tail(x, z).astype(x.dtype)

    def inverse(z):
        x, log_det = sinh(z)
        return x, log_det - 0.5 * tail(x, z).astype(z.dtype)

    report = check_functions(forward, inverse, x)
    with pytest.raises(AssertionError, match=f"off by 0.5 nats in the others, {words}"):
        report.raise_if_failed()


def test_an_inverse_that_is_wrong_in_its_tail_is_found():
    def inverse(z):
        x, log_det = sinh(z)
        return np.where(z > 1.7, x + 0.1, x), log_det

    cause = check_functions(arcsinh, inverse, rows(1000, 4)).cause
    assert cause.startswith("x -> z -> x: inverse(forward(x)) is not x")
    assert "of 1000 rows" in cause


# ---------------------------------------------------------------- float32


def test_a_promotion_of_a_part_of_the_results_is_a_failure(x):
    promoted = lambda x: (arcsinh(x)[0], arcsinh(x)[1].astype(np.float64))
    report = check_functions(promoted, sinh, x)
    assert "the log_det of forward is float64 for float32 input" in report.cause


def test_constants_in_float64_are_held_against_functions_of_float32_alone(x):
    scale = np.array([0.5, 2.0, 3.0, 0.1])
    forward = lambda x: (x * scale, np.full(len(x), np.sum(np.log(scale))))
    inverse = lambda z: (z / scale, np.full(len(z), -np.sum(np.log(scale))))
    report = check_functions(forward, inverse, x)
    report.raise_if_failed()
    assert report["float32 kept"].status == "not decided"
    assert not check_functions(forward, inverse, x.astype(np.float32)).passed
    assert check_functions(forward, inverse, x.astype(np.float32), dtypes="float64").passed


def test_functions_of_float32_alone_are_judged_by_their_noise(x):
    def single(function):
        def run(a):
            assert a.dtype == np.float32
            return function(a)

        return run

    check_functions(single(arcsinh), single(sinh), x, dtypes="float32").raise_if_failed()
    wrong = lambda x: (arcsinh(x)[0], arcsinh(x)[1] * np.float32(1.02))
    assert not check_functions(wrong, single(sinh), x, dtypes="float32").passed


def test_the_noise_of_an_iterative_inverse_is_measured(x):
    def inverse(z, digits=1e-12):
        low, high = np.full_like(z, -40), np.full_like(z, 40)
        while np.max(high - low) > digits:
            middle = (low + high) / 2
            below = middle + np.tanh(middle) < z
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return low, -forward(low)[1]

    forward = lambda x: (x + np.tanh(x), total(np.log(2 - np.tanh(x) ** 2)))
    check_functions(forward, inverse, x, dtypes="float64").raise_if_failed()
    rough = lambda z: inverse(z, 1e-5)
    assert "the inverse is approximate" in check_functions(forward, rough, x, dtypes="float64").cause
    report = check_functions(forward, rough, x, dtypes="float64", tolerance=1e-4)
    assert not report.failures


def test_an_exact_jacobian_is_as_exact_as_the_tolerance(x):
    """As where a map is an integral by quadrature, and its derivative the integrand itself."""
    log_det = lambda x: total(np.log(1 + 0.5 * np.cos(x)))
    forward = lambda x: (x + 0.5 * np.sin(x) + 1e-6 * np.sin(30 * x), log_det(x))
    jacobian = lambda x: np.stack([np.diag(row) for row in 1 + 0.5 * np.cos(x)])
    known = {"jacobian": jacobian, "dtypes": "float64"}
    check = check_functions(forward, None, x, **known)["exact Jacobian of forward"]
    assert check.failed and "is not the Jacobian of this map" in check.sentence
    assert not check_functions(forward, None, x, tolerance=1e-3, **known).failures


# ---------------------------------------------------------------- shapes


def test_events_have_any_number_of_axes():
    exp = lambda x: (np.exp(x), np.sum(x.reshape(len(x), -1), axis=1))
    log = lambda z: (np.log(z), -np.sum(np.log(z).reshape(len(z), -1), axis=1))
    for shape in ((20,), (9, 1), (9, 2, 3), (9, 1, 2, 1, 2)):
        check_functions(exp, log, rows(*shape)).raise_if_failed()


def test_log_dets_of_another_shape_are_summed_when_that_is_asked_for(x):
    exp, log = lambda x: (np.exp(x), x.copy()), lambda z: (np.log(z), -total(np.log(z))[:, None])
    report = check_functions(exp, log, x)
    assert 'got (60, 4); log_det="sum" adds them up' in report.cause
    report = check_functions(lambda x: (x, np.zeros((60, 60))), None, x)  # (n, 1) + (n,): a sum would hide it
    assert report.cause.endswith("one number for each row, got (60, 60)")
    report = check_functions(exp, log, x, log_det="sum")
    report.raise_if_failed()
    assert "(n, 4): one for each element" in report.notes[0]
    assert "(n, 1)" in report.notes[1]


def test_a_map_to_a_surface_follows_a_convention_that_is_named(x):
    report = check_functions(sticks, unsticks, x)
    report.raise_if_failed()
    assert (
        "in the chart of the components 0, 1, 2, 3" in report["log-det forward, finite differences"].sentence
    )
    report = check_functions(sticks, unsticks, x, chart=lambda z: z[:, :-1])
    report.raise_if_failed()

    surface = lambda function, sign: lambda a: (function(a)[0], function(a)[1] + sign * np.log(5) / 2)
    report = check_functions(surface(sticks, 1), surface(unsticks, -1), x)
    report.raise_if_failed()
    assert "on the surface" in report["log-det forward, finite differences"].sentence
    assert not check_functions(surface(sticks, 1), surface(unsticks, -1), x, chart=lambda z: z[:, 1:]).passed
    wrong = lambda function, sign: lambda a: (function(a)[0], function(a)[1] + sign * 0.1)
    assert not check_functions(wrong(sticks, 1), wrong(unsticks, -1), x).passed


def test_the_forward_half_is_checked_without_an_inverse(x):
    report = check_functions(arcsinh, None, x)
    report.raise_if_failed()
    assert not [check.name for check in report.checks if "inverse" in check.name or "->" in check.name]
    assert "opposite sign" in check_functions(lambda x: (arcsinh(x)[0], -arcsinh(x)[1]), None, x).cause


def test_a_context_goes_with_its_rows(x):
    context = rows(60, 2, seed=3)
    forward = lambda x, c: (x * np.exp(c[:, :1]) + c[:, 1:], 4 * c[:, 0])
    inverse = lambda z, c: ((z - c[:, 1:]) * np.exp(-c[:, :1]), -4 * c[:, 0])
    check_functions(forward, inverse, x, context=context).raise_if_failed()
    wrong = lambda x, c: (forward(x, c)[0], 4 * c[:, 1])
    assert not check_functions(wrong, inverse, x, context=context).passed


def test_an_exact_jacobian_is_used_and_held_against_differences(x):
    exact = lambda x: (1 / np.sqrt(1 + x * x))[:, :, None] * np.eye(4)
    report = check_functions(arcsinh, sinh, x, jacobian=exact)
    report.raise_if_failed()
    assert report["log-det inverse, exact Jacobian"].error < 1e-9
    assert (
        "not the Jacobian of this map"
        in check_functions(arcsinh, sinh, x, jacobian=lambda x: 2 * exact(x)).cause
    )


def test_an_exact_jacobian_settles_what_quick_differences_confirm(x):
    calls = []

    def forward(x):
        calls.append(len(x))
        return arcsinh(x)

    check_functions(forward, sinh, x)
    without = len(calls)
    calls.clear()
    check_functions(forward, sinh, x, jacobian=lambda x: (1 / np.sqrt(1 + x * x))[:, :, None] * np.eye(4))
    assert len(calls) < without


@pytest.mark.parametrize("row", [0, -1])
def test_a_jacobian_that_is_wrong_as_the_log_det_is_excuses_nothing(x, row):
    end = np.sort(np.abs(x[:, 0]))[row] if row else 0.0
    wrong = lambda x: 0.5 * (np.abs(x[:, 0]) >= end)
    forward = lambda x: (arcsinh(x)[0], arcsinh(x)[1] + wrong(x))
    inverse = lambda z: (sinh(z)[0], sinh(z)[1] - wrong(np.sinh(z)))
    exact = lambda x: (np.exp(wrong(x)[:, None] / 4) / np.sqrt(1 + x * x))[:, :, None] * np.eye(4)
    report = check_functions(forward, inverse, x, jacobian=exact)
    assert "log-det forward, finite differences" in [failure.name for failure in report.failures]


# ---------------------------------------------------------------- statuses


def test_one_early_error_is_one_failure(x):
    def broken(x):
        raise RuntimeError("not written yet")

    report = check_functions(broken, sinh, x)
    assert len(report.failures) == 1
    assert "RuntimeError in broken" in report.cause
    assert {check.status for check in report.checks[1:]} <= {"not run", "not decided"}
    assert "not run" in str(report)


def test_what_rounding_hides_is_not_decided_and_does_not_pass(x):
    shift = lambda by: lambda a: (a + by, np.zeros(len(a), a.dtype))
    report = check_functions(shift(1.0), shift(-1.0), 1e-17 * x)
    assert report.verdict == "not decided"
    assert "nothing decided" in report.cause
    assert "standardize x" in report.cause
    with pytest.raises(AssertionError, match="nothing decided"):
        report.raise_if_failed()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"domain": (0, 1)}, "expected x inside the domain, got row 0 outside"),
        ({"domain": 3}, r"expected domain as a pair \(low, high\)"),
        ({"codomain": (1, 0)}, "with low < high"),
        ({"tolerance": -1}, "expected tolerance to be a finite number above 0"),
        ({"log_det": "mean"}, "expected log_det to be one of 'rows', 'sum'"),
        ({"dtypes": "float16"}, "expected each of dtypes to be float32 or float64, got 'float16'"),
        ({"dtypes": ()}, "expected dtypes among float32 and float64, got none"),
        ({"jacobian": 3}, "expected jacobian to be a function, got 3"),
        ({"context": np.zeros((3, 1))}, "expected a row of context for each of 60 rows"),
        ({"skip": ["colour"]}, "expected a list of checks to skip"),
    ],
)
def test_options_that_cannot_be_used_get_a_sentence(options, words, x):
    with pytest.raises(InputError, match=words):
        check_functions(arcsinh, sinh, x, **options)


def tanh(x):
    return np.tanh(x), total(2 * (math.log(2) - x - np.logaddexp(0, -2 * x)))


def test_a_map_too_flat_for_differences_is_not_decided_and_one_that_claims_less_is_singular():
    x = 20 + rows(20, 2)
    assert check_functions(tanh, None, x).verdict == "not decided"
    report = check_functions(lambda x: (np.tanh(x), 0 * x[:, 0]), None, x)
    assert "the Jacobian of forward is singular" in str(report)


def test_a_log_det_that_is_not_finite_in_float32_alone_is_told_with_both_numbers():
    def naive(x):
        return np.tanh(x), total(np.log(1 - np.tanh(x) ** 2))

    x = np.linspace(-12, 12, 40, dtype=np.float32).reshape(20, 2)
    exact = lambda x: np.stack([np.diag(one) for one in 1 / np.cosh(x) ** 2])
    report = check_functions(naive, None, x, jacobian=exact)
    assert "the log_det of forward is -inf in float32, and -43.99" in str(report)


def test_rows_that_raise_with_a_context_beside_them_are_not_decided(rng):
    def forward(x, context):
        z, log_det = raising_logit(x)
        return z * np.exp(context) + context, log_det + total(context)

    def inverse(z, context):
        x, log_det = sigmoid((z - context) * np.exp(-context))
        return x, log_det - total(context)

    x, context = rng.uniform(0.02, 0.98, (40, 3)), rng.normal(size=(40, 3))
    check_functions(forward, inverse, x, context=context).raise_if_failed()
    wrong = lambda z, context: (inverse(z, context)[0], inverse(z, context)[1] + total(context))
    assert "log_det of inverse is off" in check_functions(forward, wrong, x, context=context).cause
    report = check_functions(lambda x, c: forward(x, c[::-1]), inverse, x, context=context)
    assert "rows influence each other" in report.cause
