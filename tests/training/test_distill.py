"""Distillation: the divergence and its gradient, what a student learns, repeatability, refusals."""

from dataclasses import dataclass

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, rows, same_bits, vector

from npflow import Flow, InputError, NonFiniteError, load, to_device
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.gpu.devices import HOST
from npflow.layers import Affine, Chain, Layer, Reverse
from npflow.layers.units import context_units
from npflow.models import iaf, maf, real_nvp
from npflow.models.distillation import Distillation
from npflow.networks import MADE
from npflow.priors import GaussianMixture, Logistic, Normal
from npflow.training import Adam, WarmupCosine, distill, kl_divergence
from npflow.training.run import Run

small = MADE((8,), "tanh")


def pair(dtype=np.float64, features=3, context_features=0):
    """A teacher that is no Gaussian, and a student at its start: flows and parameters."""
    rng = np.random.default_rng(1)
    teacher = maf(features, 2, small, context_features=context_features)
    student = iaf(features, 2, small, context_features=context_features)
    x = rng.normal(2, 3, (60, features)).astype(dtype)
    context = {"context": rng.normal(size=(60, context_features)).astype(dtype)} if context_features else {}
    teacher_params = moved(teacher.init(rng, x, **context), rng, by=0.2)
    student_params = student.init(rng, teacher.sample(teacher_params, rng, 60, **context), **context)
    return student, student_params, teacher, teacher_params


def run(flows=None, *, seed=0, **options):
    student, student_params, teacher, teacher_params = flows or pair()
    options = {"steps": 12, "batch_size": 32, "progress": False} | options
    return distill(
        student, student_params, teacher, teacher_params, rng=np.random.default_rng(seed), **options
    )


# ---------------------------------------------------------------- the loss


def test_a_rows_loss_is_the_students_log_density_of_its_own_sample_less_the_teachers(rng):
    student, params, teacher, teacher_params = pair()
    params = moved(params, rng, by=0.2)
    z = rng.standard_normal((20, 3))
    x = student.decode(params, z)
    expected = student.log_prob(params, x) - teacher.log_prob(teacher_params, x)
    losses = Distillation(student, teacher, teacher_params).losses(params, z)
    np.testing.assert_allclose(losses, expected, rtol=1e-9, atol=1e-9)


def test_a_student_and_a_teacher_see_a_context_in_units_of_their_own(rng):
    student, params, teacher, teacher_params = pair(context_features=2)
    context, z = rng.normal(2000, 10, (20, 2)), rng.standard_normal((20, 3))
    params = moved(params, rng, by=0.2) | {"context": context_units(context)}
    x = student.decode(params, z, context)
    expected = student.log_prob(params, x, context) - teacher.log_prob(teacher_params, x, context)
    model = Distillation(student, teacher, teacher_params)
    np.testing.assert_allclose(model.losses(params, context, z), expected, rtol=1e-9, atol=1e-9)
    *_, last = model.visits(params, context, z)
    assert same_bits(last.result[0], teacher.prior.log_prob({}, teacher.encode(teacher_params, x, context)))


@pytest.mark.parametrize("context_features", [0, 2])
def test_its_gradient_is_that_of_finite_differences(context_features, rng):
    student, params, teacher, teacher_params = pair(context_features=context_features)
    model, params = Distillation(student, teacher, teacher_params), moved(params, rng, by=0.2)
    batch = [rng.standard_normal((5, 3))]
    if context_features:
        batch.insert(0, rng.standard_normal((5, context_features)))
    layout = Layout(params)
    start = layout.pack(params)
    _, gradient = value_and_grad(model.loss)(params, *batch)
    gradient = layout.pack(gradient)
    directions = [*rng.standard_normal((4, layout.size)), *np.eye(layout.size)[:: layout.size // 20]]
    for direction in directions:
        ahead, behind = (
            model.loss(layout.unpack(start + h * direction, params), *batch) for h in (1e-5, -1e-5)
        )
        assert gradient @ direction == pytest.approx((ahead - behind) / 2e-5, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_program_has_the_bits_of_the_plain_path_and_keeps_the_dtype(dtype, rng):
    student, params, teacher, teacher_params = pair(dtype)
    model = Distillation(student, teacher, teacher_params)
    (z,) = model.noise(rng, 16, dtype)
    loss, gradient = record(model.loss, params, z)(params, z)
    expected, slopes = value_and_grad(model.loss)(params, z)
    assert loss.dtype == gradient.dtype == z.dtype == dtype
    assert loss.tobytes() == expected.tobytes()
    assert gradient.tobytes() == Layout(params).pack(slopes).tobytes()


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_divergence_falls(dtype):
    student, params, teacher, teacher_params = pair(dtype)
    options = {"steps": 150, "optimizer": Adam(0.01), "clip_norm": 10.0}
    learned, history = run((student, params, teacher, teacher_params), **options)
    assert vector(learned).dtype == dtype
    before, _ = kl_divergence(student, params, teacher, teacher_params, np.random.default_rng(1), 500)
    after, _ = kl_divergence(student, learned, teacher, teacher_params, np.random.default_rng(1), 500)
    assert after < before / 3
    assert np.mean(history.loss[-20:]) < np.mean(history.loss[:20]) / 3


def test_a_student_of_a_gaussian_becomes_that_gaussian(rng):
    x = rng.normal(size=(300, 2)) @ np.array([[2.0, 1.0], [0.0, 0.3]]) + 5
    teacher, student = maf(2, 1, MADE(())), iaf(2, 1, MADE(()))  # no hidden layer: the shift is linear
    params = teacher.init(rng, x)
    weights = params["layer"][2][0]["weight"]
    weights[0, 3] = -0.7  # the shift of the second component, by the first
    start = student.init(rng, teacher.sample(params, rng, 500))
    options = {"rng": rng, "steps": 600, "batch_size": 128, "progress": False}
    learned, _ = distill(student, start, teacher, params, optimizer=Adam(WarmupCosine(0.03, 600)), **options)
    for p, q in (((student, learned), (teacher, params)), ((teacher, params), (student, learned))):
        mean, error = kl_divergence(*p, *q, rng, 4000)
        assert abs(mean) < 1e-3
        assert error < 1e-3


def test_a_conditional_student_learns_the_teachers_density_at_each_context(rng):
    student, params, teacher, teacher_params = pair(context_features=1)
    context = np.repeat([[-1.0], [1.0]], 100, axis=0)
    flows = student, params, teacher, teacher_params
    learned, history = run(flows, context=context, steps=200, optimizer=Adam(0.01), clip_norm=10.0)
    assert history.steps == 200
    for at in (-1.0, 1.0):
        there = np.full((400, 1), at)
        before, _ = kl_divergence(student, params, teacher, teacher_params, rng, 400, there)
        after, _ = kl_divergence(student, learned, teacher, teacher_params, rng, 400, there)
        assert after < before / 2


def test_the_parameters_passed_in_are_left_as_they_are():
    flows = pair()
    before = vector(flows[1]), vector(flows[3])
    learned, _ = run(flows)
    assert np.array_equal(vector(flows[1]), before[0])
    assert np.array_equal(vector(flows[3]), before[1])
    assert not np.array_equal(vector(learned), before[0])


def test_any_fixed_prior_can_be_the_students(rng):
    student, _, teacher, teacher_params = pair()
    student = Flow(student.layer, Logistic(3))
    params = student.init(rng, teacher.sample(teacher_params, rng, 50))
    _, history = run((student, params, teacher, teacher_params))
    assert np.isfinite(history.loss).all()


# ---------------------------------------------------------------- the loop


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    (a, first), (b, second), (c, _) = run(), run(), run(seed=1)
    assert same_bits(a, b)
    assert first.loss == second.loss
    assert not same_bits(a, c)


def test_a_run_by_programs_has_the_bits_of_one_through_the_layers():
    (a, first), (b, second) = run(), run(record=False)
    assert same_bits(a, b)
    assert first.loss == second.loss


@pytest.mark.parametrize("context_features", [0, 2])
def test_a_resumed_run_ends_with_the_bits_of_one_left_alone_and_holds_the_student(context_features, tmp_path):
    flows, path = pair(context_features=context_features), tmp_path / "run.npz"
    options = {"average": 0.9, "optimizer": Adam(WarmupCosine(1e-2, 20))}
    if context_features:
        options["context"] = np.random.default_rng(3).normal(size=(70, context_features))
    alone, whole = run(flows, steps=20, **options)
    run(flows, steps=7, checkpoint=path, **options)
    resumed, history = run(flows, seed=99, steps=20, checkpoint=path, **options)
    assert same_bits(resumed, alone)
    assert history.loss == whole.loss
    saved = load(path)
    assert saved.flow == flows[0]
    assert same_bits(saved.params, alone)


def test_a_warning_of_a_full_disk_points_to_the_call(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr(Run, "save", full)
    with (
        pytest.warns(RuntimeWarning, match="no space left") as warned,
        pytest.raises(OSError, match="no space left"),
    ):
        run(steps=3, checkpoint=tmp_path / "run.npz", checkpoint_every=1)
    assert warned[0].filename == __file__


def test_a_checkpoint_of_another_teachers_student_is_refused(tmp_path):
    student, params, teacher, teacher_params = pair()
    path = tmp_path / "run.npz"
    run((student, params, teacher, teacher_params), checkpoint=path)
    other = moved(teacher_params, np.random.default_rng(5))
    assert "another teacher_params" in refusal(run, (student, params, teacher, other), checkpoint=path)
    wider = maf(3, 2, MADE((9,), "tanh"))
    wider_params = wider.init(np.random.default_rng(0), np.ones((9, 3)))
    assert "another teacher " in refusal(run, (student, params, wider, wider_params), checkpoint=path)


def test_it_runs_on_a_device_as_on_the_host(device):
    student, params, teacher, teacher_params = pair(np.float32)
    options = {"steps": 10, "clip_norm": 1.0, "average": 0.9}
    expected, history = run((student, params, teacher, teacher_params), **options)
    if device.exact:
        learned, there = run((student, params, teacher, teacher_params), device=device.name, **options)
        assert_agrees(HOST, learned, expected)
        assert there.loss == history.loss
    on_device = to_device((params, teacher_params), device.name)
    learned, there = run((student, on_device[0], teacher, on_device[1]), **options)
    if device.exact:
        assert_agrees(device, learned, expected)
    assert np.isfinite(there.loss).all()
    mean, _ = kl_divergence(student, learned, teacher, on_device[1], np.random.default_rng(0), 50)
    assert np.isfinite(mean)


# ---------------------------------------------------------------- the divergence


def test_the_divergence_of_two_normals_is_the_closed_form(rng):
    flow = Flow(Affine(), Normal(2))
    p = {"layer": {"mean": np.array([1.0, 0.0]), "log_std": np.array([0.3, -0.2])}, "prior": {}}
    q = {"layer": {"mean": np.array([0.5, -1.0]), "log_std": np.array([0.0, 0.4])}, "prior": {}}
    std_p, std_q = np.exp(p["layer"]["log_std"]), np.exp(q["layer"]["log_std"])
    offset = p["layer"]["mean"] - q["layer"]["mean"]
    expected = np.sum(np.log(std_q / std_p) + (std_p**2 + offset**2) / (2 * std_q**2) - 0.5)
    mean, error = kl_divergence(flow, p, flow, q, rng, 50_000)
    assert type(mean) is type(error) is float
    assert error < 0.01
    assert abs(mean - expected) < 4 * error


def test_the_divergence_of_a_density_from_itself_is_zero(rng):
    student, params, _, _ = pair()
    mean, error = kl_divergence(student, params, student, params, rng, 50)
    assert mean == pytest.approx(0, abs=1e-10)
    assert error < 1e-10


# ---------------------------------------------------------------- failures and refusals


@dataclass(frozen=True)
class Exploding(Layer):
    """Large outside, so that exp overflows."""

    def forward(self, params, x):
        return anp.exp(1e4 * x * x), anp.zeros_like(x, shape=(len(x),))

    def inverse(self, params, z):
        return self.forward(params, z)


def test_a_loss_that_is_not_finite_names_the_layer_of_the_student_or_the_teacher(rng):
    x = rng.normal(size=(40, 2))
    sound, exploding = Flow(Affine(), Normal(2)), Flow(Chain([Affine(), Exploding()]), Normal(2))
    good = sound.init(rng, x)
    with np.errstate(all="ignore"):
        bad = {"layer": [good["layer"], {}], "prior": {}}
        with pytest.raises(NonFiniteError, match=r"is that of teacher/layer/1 \(Exploding\)"):
            run((sound, good, exploding, bad))
        with pytest.raises(NonFiniteError, match=r"is that of student/layer/1 \(Exploding\)"):
            run((exploding, bad, sound, good))


def test_a_prior_that_is_not_finite_is_said_to_be_it(rng):
    teacher = Flow(Affine(), GaussianMixture([[0.0, 0.0]], [1.0], trained=True))
    params = teacher.init(rng, rng.normal(size=(40, 2)))
    params["prior"]["log_stds"][...] = -1e4
    student = Flow(Affine(), Normal(2))
    with pytest.raises(NonFiniteError, match=r"that of teacher/prior \(GaussianMixture\)"):
        run((student, student.init(rng, rng.normal(size=(40, 2))), teacher, params))


@dataclass(frozen=True)
class HostBound(Layer):
    """The identity, which makes an array of NumPy's."""

    def forward(self, params, x):
        return x, np.zeros(len(x), x.dtype)

    def inverse(self, params, z):
        return z, np.zeros(len(z), z.dtype)


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_a_layer_that_makes_numpy_arrays_is_named(whose, rng):
    sound, bound = Flow(Affine(), Normal(2)), Flow(Chain([Affine(), HostBound()]), Normal(2))
    good = sound.init(rng, rng.normal(size=(40, 2)))
    bad = {"layer": [good["layer"], {}], "prior": {}}
    flows = (bound, bad, sound, good) if whose == "student" else (sound, good, bound, bad)
    with pytest.raises(InputError, match=rf"^{whose}/layer/1 \(HostBound\): expected .* on strict alone"):
        run(flows, device="strict")


def conditional():
    return pair(context_features=2)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s, p, t, q: (s.layer, p, t, q), "student to be an instance of Flow, got a Chain"),
        (lambda s, p, t, q: (s, p, None, q), "teacher to be an instance of Flow, got None"),
        (lambda s, p, t, q: (s, to_params(3), t, q), "expected the parameters of this flow"),
        (lambda s, p, t, q: (s, p, t, to_params(3)), "expected the parameters of this flow"),
        (
            lambda s, p, t, q: (s, p, Flow(Affine(), Normal(2)), to_params(2)),
            "student and teacher to have rows of one shape, got (3,) and (2,)",
        ),
        (
            lambda s, p, t, q: (s, p, *conditional()[2:]),
            "expected student and teacher to take one kind of context, got context_features=0 and 2",
        ),
        (
            lambda s, p, t, q: (s, p, *pair(np.float32)[2:]),
            "expected the parameters of student and teacher in one dtype, got float64 and float32",
        ),
        (
            lambda s, p, t, q: (Flow(Affine(), Normal(3, trained=True)), trained_params(), t, q),
            "a student with a fixed prior",
        ),
        (lambda *_: conditional(), "expected a context of 2 features for each row, got none"),
    ],
)
def test_flows_that_do_not_fit_together_get_a_sentence(change, words):
    assert words in refusal(run, change(*pair()))


def to_params(features):
    return Flow(Affine(), Normal(features)).init(np.random.default_rng(0), np.ones((4, features)))


def trained_params():
    return Flow(Affine(), Normal(3, trained=True)).init(np.random.default_rng(0), np.ones((4, 3)))


def test_bad_contexts_get_a_sentence():
    for flows, context, words in (
        (pair(), np.zeros((5, 1)), "no context for a flow with context_features=0, got one"),
        (conditional(), np.zeros((40, 3)), "context with rows of 2 features, got rows of 3"),
        (conditional(), np.zeros((40, 2), np.float32), "context in float64, the dtype of the parameters"),
    ):
        assert words in refusal(run, flows, context=context)
    assert "at most 5, the 5 rows" in refusal(run, conditional(), context=np.zeros((5, 2)), batch_size=6)


def test_other_arguments_that_cannot_be_used_get_a_sentence():
    assert "rng to be a numpy.random.Generator, got an int" in refusal(distill, *pair(), rng=0)
    assert "no rows, as a student learns" in refusal(run, validation=np.zeros((5, 3)))


def test_a_divergence_of_what_does_not_fit_together_gets_a_sentence(rng):
    student, params, teacher, teacher_params = pair()
    flow = real_nvp(2)
    for q, n, words in (
        ((teacher, teacher_params), 1, "the number of samples to be at least 2, got 1"),
        ((3, teacher_params), 10, "q to be an instance of Flow, got 3"),
        ((flow, flow.init(rng, np.ones((5, 2)))), 10, "p and q to have rows of one shape"),
        ((teacher, pair(np.float32)[3]), 10, "the parameters of p and q in one dtype"),
    ):
        assert words in refusal(kl_divergence, student, params, *q, rng, n)


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("size", [2, 3])  # an array of two rows could be unpacked
def test_a_student_whose_inverse_returns_no_pair_is_refused(size, record, rng):
    class NoPair(Reverse):
        def inverse(self, params, z):
            return super().inverse(params, z)[0]

    teacher, x = maf(features=2, steps=1), rows(9, 2)
    student = Flow(NoPair(), Normal(2))
    arguments = student, student.init(rng, x), teacher, teacher.init(rng, x)
    options = {"rng": rng, "steps": 1, "batch_size": size, "progress": False, "record": record}
    said = refusal(distill, *arguments, **options)
    assert f"expected inverse to return a pair, array and log_det, got an ndarray, at {__file__}" in said


def test_a_student_whose_prior_draws_what_cannot_be_used_is_refused(rng):
    class Odd(Normal):
        def sample(self, params, rng, n, dtype=np.float64, temperature=1.0):
            return super().sample(params, rng, n, dtype, temperature)[0]

    teacher, x = maf(features=2, steps=1), rows(9, 2)
    student = Flow(Reverse(), Odd(2))
    arguments = student, student.init(rng, x), teacher, teacher.init(rng, x)
    said = refusal(distill, *arguments, rng=rng, steps=1, batch_size=2, progress=False)
    assert said.startswith(
        "prior (Odd): expected sample to return float64 of shape (2, 2), got float64 of shape (2,), at"
    )
