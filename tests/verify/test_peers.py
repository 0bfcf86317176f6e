"""Conventions of other libraries, shown by small objects that follow them with NumPy's arrays."""

import functools
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from npflow.errors import InputError
from npflow.verify.peers import Peer, arrays_in, convention_of, copied, inside_of, joined, moved
from npflow.verify.report import Check, Report

SCALE = np.array([2.0, -3.0, 0.5])


class Plain(Peer):
    """NumPy as a library: its arrays are what comes, and all float arrays are trained."""

    kind = np.ndarray

    def array(self, array):
        return array

    def fresh(self, array):
        return array.copy()

    def cast_to(self, dtype):
        return lambda path, array: array.astype(dtype) if array.dtype.kind == "f" else array.copy()

    def trains(self, value):
        return {path for path, array in arrays_in(value, np.ndarray) if array.dtype.kind == "f"}

    def exact(self, function, rows):
        steps = 1e-30j * np.eye(rows.shape[1])
        return np.stack([function(rows + step).imag / 1e-30 for step in steps], axis=2)


def report_of(transform, rng, move=False, inverse=None, context=None, **known):
    x = rng.normal(size=(12, 3))
    return Plain(transform, inverse, x, context).check("it", move, **known)


class Scale:
    """What each object below does: x * scale."""

    def __init__(self):
        self.scale = SCALE.copy()

    def _call(self, x):
        return x * self.scale.astype(x.dtype), np.full(len(x), np.sum(np.log(np.abs(self.scale))), x.dtype)

    def _back(self, y):
        return y / self.scale.astype(y.dtype), np.full(len(y), -np.sum(np.log(np.abs(self.scale))), y.dtype)


class Pair(Scale):
    """As nflows and normflows do."""

    def forward(self, x, context=None):
        return self._call(x)

    def inverse(self, y, context=None):
        return self._back(y)


class Distribution(Scale):
    """As torch.distributions and numpyro do; log-dets for each element."""

    domain = SimpleNamespace(event_dim=0)

    def __call__(self, x):
        return self._call(x)[0]

    @property
    def inv(self):
        other = Distribution()
        other.scale = 1 / self.scale
        return other

    def log_abs_det_jacobian(self, x, y):
        return np.log(np.abs(self.scale)).astype(x.dtype) + 0 * x[:1]  # for all rows


class LogDets(Scale):
    """As distrax and normflows' whole flows do."""

    def forward_and_log_det(self, x):
        return self._call(x)

    def inverse_and_log_det(self, y):
        return self._back(y)


class Bijector(Scale):
    """As TensorFlow Probability does."""

    def forward(self, x):
        return self._call(x)[0]

    def inverse(self, y):
        return self._back(y)[0]

    def forward_log_det_jacobian(self, x, event_ndims):
        assert event_ndims == 1
        return self._call(x)[1]

    def inverse_log_det_jacobian(self, y, event_ndims):
        return self._back(y)[1]


class Reversible(Scale):
    """As FrEIA does: tuples, and one function for both directions."""

    dims_in = ((3,),)

    def __call__(self, x, c=None, rev=False, jac=True):
        (x,) = x
        y, log_det = self._back(x) if rev else self._call(x)
        return (y,), float(log_det[0])

    forward = __call__


class Mode(Scale):
    """As pytorch-flows does: log-dets of shape (n, 1)."""

    def forward(self, x, mode="direct"):
        y, log_det = self._call(x) if mode == "direct" else self._back(x)
        return y, log_det[:, None]

    __call__ = forward


@pytest.mark.parametrize("kind", [Pair, Distribution, LogDets, Bijector, Reversible, Mode])
def test_conventions(kind, rng):
    report = report_of(kind(), rng)
    assert report.passed, report
    assert any(note.startswith("understood: ") for note in report.notes)
    wrong = type(
        "Wrong", (kind,), {"_call": lambda self, x: (x * self.scale.astype(x.dtype), 1 + 0 * x[:, 0])}
    )
    if kind is Distribution:
        wrong.log_abs_det_jacobian = lambda self, x, y: np.log(np.abs(self.scale)).astype(x.dtype) + 1
    assert "log-det" in report_of(wrong(), rng).cause


def test_two_functions(rng):
    scale = Pair()
    assert report_of(scale, rng, inverse=lambda y: scale._back(y)).passed
    assert not report_of(scale, rng, inverse=lambda y: scale._call(y)).passed


def test_without_inverse(rng):
    class Planar(Pair):
        def inverse(self, y):
            raise NotImplementedError("This flow has no algebraic inverse.")

    report = report_of(Planar(), rng)
    assert report.passed
    assert any("the forward half is checked" in note for note in report.notes)
    assert not any("inverse" in check.name for check in report.checks)


class Conditional:
    """As pyro does: a transform for each context."""

    def condition(self, context):
        made = Distribution()
        made.scale = SCALE * (2 + np.sin(context[:, :1]))
        return made


def test_conditional(rng):
    x, context = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    report = Plain(Conditional(), None, x, context).check("it", False)
    assert report.passed, report


def test_moved_parameters_show_what_the_start_hides(rng):
    class Sign(Pair):
        def __init__(self):
            self.scale = np.ones(3)

        def inverse(self, y):
            return y / self.scale.astype(y.dtype), self._call(y)[1]  # not negated; 0 at the start

    assert report_of(Sign(), rng, move=False).passed
    report = report_of(Sign(), rng, move=True)
    assert "with parameters moved" in report.cause
    assert "negated" in report.cause or "sign" in report.cause


def test_what_is_kept_from_before_a_move_does_not_count(rng):
    class Caching(Pair):
        kept = None

        def inverse(self, y):
            if self.kept is None:
                self.kept = 1 / self.scale
            return y * self.kept.astype(y.dtype), -self._call(y)[1]

    assert report_of(Caching(), rng, move=True).passed


def test_start_is_a_point(rng):
    class Norm(Pair):
        def __init__(self):
            self.scale = np.ones(3)

    peer = Plain(Norm(), None, rng.normal(size=(8, 3)), None)
    peer.gradients = lambda version, dtype: [("scale", np.array([np.nan, 0, 0]))]
    report = peer.check("it", True)
    assert "the gradient in scale is not finite" in report["where parameters start"].sentence


def test_the_transform_is_left_as_it_is(rng):
    class Counter(Pair):
        def __init__(self):
            super().__init__()
            self.calls = np.zeros(1)

        def forward(self, x):
            self.calls += 1
            return self._call(x)

    counter = Counter()
    report_of(counter, rng)
    assert counter.calls == 0


def test_float32_alone(rng):
    class Single(Pair):
        def forward(self, x):
            if x.dtype != np.float32:
                raise TypeError("expected Float but found Double")
            return self._call(x)

    report = report_of(Single(), rng)
    assert report.passed, report
    assert any("float32 alone" in note for note in report.notes)


def test_arrays_of_float32_are_exact_to_float32_alone(rng):
    class Cached(Pair):
        def __init__(self):
            self.scale = SCALE.astype(np.float32) / 3
            self.log_det = np.sum(np.log(np.abs(self.scale))) + np.float32(1e-6)
            self.held = np.array([self.log_det], np.float32)

        def forward(self, x):
            return self._call(x)[0], np.full(len(x), self.held[0], x.dtype)

    report = report_of(Cached(), rng)
    assert report.passed, report
    assert any("float32" in note for note in report.notes)


def test_fewer_components(rng):
    class Simplex:
        """The logarithms of the ratios to the last component, from a simplex."""

        def forward(self, x):
            y = np.log(x[:, :-1] / x[:, -1:])
            return y, -np.sum(np.log(x), axis=1)

        def inverse(self, y):
            x = np.exp(np.concatenate([y, np.zeros((len(y), 1), y.dtype)], axis=1))
            x = x / x.sum(1, keepdims=True)
            return x, np.sum(np.log(x), axis=1)

    x = rng.dirichlet(np.ones(4), 16)
    peer = Plain(Simplex(), None, x, None)
    peer.differentiable = False
    report = peer.check("it", False)
    assert report.passed, report
    assert any("the other way round" in note for note in report.notes)


@pytest.mark.parametrize("transform", [3.0, object()])
def test_no_convention(transform, rng):
    with pytest.raises(InputError, match="expected a transform with forward and inverse"):
        report_of(transform, rng)


def test_no_pair(rng):
    with pytest.raises(InputError, match="an array and its log-det"):
        report_of(SimpleNamespace(forward=lambda x: x, inverse=lambda y: y), rng)


def test_raises_in_each_dtype(rng):
    class Broken:
        def forward(self, x):
            raise ValueError("of no use")

    with pytest.raises(InputError, match="ValueError: of no use"):
        report_of(Broken(), rng)


def test_domains():
    interval = SimpleNamespace(lower_bound=0.0, upper_bound=1.0)
    assert inside_of(interval, None) == (0.0, 1.0)
    assert inside_of(SimpleNamespace(base_constraint=SimpleNamespace(lower_bound=2.0)), None) == (2.0, np.inf)
    assert inside_of(None, None) is None
    assert inside_of(type("_Real", (), {})(), None) is None
    simplex = SimpleNamespace(check=lambda rows: np.abs(rows.sum(1) - 1) < 1e-6)
    inside = inside_of(simplex, np.asarray)
    assert list(inside(np.array([[0.5, 0.5], [1.0, 1.0]]))) == [True, False]


def test_the_domain_of_a_composition_is_not_known():
    composed = Distribution()
    assert convention_of(composed).domain is composed.domain
    composed.parts = [composed]
    assert convention_of(composed).domain is None


def test_arrays_are_found_and_replaced():
    held = np.arange(3.0)
    value = SimpleNamespace(a=[held, {"b": held}], f=functools.partial(np.add, held), g=Pair().forward)
    assert [path for path, _ in arrays_in(value, np.ndarray)] == ["a.0", "g.__self__.scale"]
    new = copied(value, np.ndarray, lambda path, array: array + 1)
    assert new.a[0] is new.a[1]["b"]
    assert new.f.args[0][0] == 1
    assert held[0] == 0
    lock = SimpleNamespace(lock=sys.stdout)
    assert copied(lock, np.ndarray, None) is lock


def test_moved(rng):
    start = np.concatenate([np.ones(50), np.full(50, 30.0)])
    away = moved(rng, start, 0.1, True)
    assert np.sum(away[:50] < 0) > 10
    assert np.all(away[50:] > 0)
    assert moved(rng, np.array(1.0), 0.1, True).shape == ()


def test_joined():
    one = Report("it", [Check("a", 0.0, 1.0, "passed"), Check("b", 0.0, 1.0, "passed")])
    two = Report("it", [Check("a", 2.0, 1.0, "failed", "wrong"), Check("b", 0.0, 1.0, "not run")])
    report = joined([one, two], ["", "moved"])
    assert [check.status for check in report.checks] == ["failed", "passed"]
    assert report["a"].sentence == "wrong (moved)"


def test_nothing_is_imported_before_it_is_asked_for():
    code = "import sys, npflow.verify; print({'torch', 'jax'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "set()\n"


def test_unknown_name():
    import npflow.verify

    with pytest.raises(AttributeError, match="no attribute"):
        npflow.verify.check_tensorflow  # noqa: B018
