"""A flow trained to a density: the loss and both gradients, a given score, what is learned, the loop, refusals."""

import autograd.numpy as anp
import numpy as np
import pytest
from helpers import assert_agrees, moved, refusal, same_bits, vector
from scipy.stats import multivariate_normal

from npflow import Flow, InputError, NonFiniteError, fit, load
from npflow.autodiff import Layout, record, value_and_grad
from npflow.autodiff.gpu.devices import HOST
from npflow.layers import Affine, Conv1x1
from npflow.layers.chain import Chain
from npflow.models import ReverseKL, real_nvp
from npflow.models.distillation import Distillation
from npflow.models.reverse_kl import OwnSamples
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import Adam, WarmupCosine, importance_sample

MEAN, COVARIANCE = np.array([1.0, -2.0]), np.array([[2.0, 0.9], [0.9, 0.5]])
PRECISION = np.linalg.inv(COVARIANCE)


def log_density(x):
    """A normal density with correlation, without its constant."""
    offset = x - MEAN.astype(x.dtype)
    return -0.5 * anp.sum(anp.dot(offset, PRECISION.astype(x.dtype)) * offset, axis=1)


def plain(x):
    """The same in float64, by code that autograd knows nothing of."""
    return np.array([-0.5 * (row - MEAN) @ PRECISION @ (row - MEAN) for row in x.astype(np.float64)])


def score(x):
    return -(x.astype(np.float64) - MEAN) @ PRECISION


LOG_Z = np.log(2 * np.pi) + np.linalg.slogdet(COVARIANCE)[1] / 2
DENSITIES = {"autograd": (log_density,), "score": (plain, score)}


def small(context_features=0):
    return real_nvp(2, 2, MLP((8,), "tanh"), context_features=context_features)


def started(flow, dtype=np.float64, **context):
    rng = np.random.default_rng(0)
    return moved(flow.init(rng, rng.standard_normal((50, 2)).astype(dtype), **context), rng, by=0.2)


def run(model, params, *, seed=0, **options):
    options = {"steps": 12, "batch_size": 32, "progress": False} | options
    return fit(model, params, None, rng=np.random.default_rng(seed), **options)


# ---------------------------------------------------------------- the loss


@pytest.mark.parametrize("path_gradient", [True, False])
@pytest.mark.parametrize("density", DENSITIES)
def test_a_rows_loss_is_the_flows_log_density_of_its_own_sample_less_the_targets(density, path_gradient, rng):
    flow = small()
    params, z = started(flow), rng.standard_normal((20, 2))
    x = flow.decode(params, z)
    model = ReverseKL(flow, *DENSITIES[density], path_gradient=path_gradient)
    expected = flow.log_prob(params, x) - plain(x)
    np.testing.assert_allclose(model.losses(params, z), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("density", DENSITIES)
def test_its_gradient_is_that_of_finite_differences(density, rng):
    flow = small()
    model, params = ReverseKL(flow, *DENSITIES[density], path_gradient=False), started(flow)
    z, layout = rng.standard_normal((5, 2)), Layout(params)
    start = layout.pack(params)
    gradient = layout.pack(value_and_grad(model.loss)(params, z)[1])
    for direction in [*rng.standard_normal((3, layout.size)), *np.eye(layout.size)[:: layout.size // 10]]:
        ends = (layout.unpack(start + h * direction, params) for h in (1e-5, -1e-5))
        ahead, behind = (model.loss(end, z) for end in ends)
        assert gradient @ direction == pytest.approx((ahead - behind) / 2e-5, rel=1e-5, abs=1e-7)


def test_the_path_gradient_has_the_mean_of_the_other_and_is_zero_where_the_flow_is_the_density(rng):
    flow = Flow(Chain([Conv1x1(), Affine()]), Normal(2))
    params = flow.init(rng, rng.standard_normal((50, 2)))
    z, exact = rng.standard_normal((200_000, 2)), flow.log_prob

    def gradients(target, rows):
        for path_gradient in (True, False):
            loss = ReverseKL(flow, target, path_gradient=path_gradient).loss
            yield Layout(params).pack(value_and_grad(loss)(params, rows)[1])

    parts = np.array([list(gradients(log_density, rows)) for rows in np.split(z, 20)])
    difference = parts[:, 0] - parts[:, 1]
    assert (np.abs(np.mean(difference, axis=0)) < 4.5 * np.std(difference, axis=0) / np.sqrt(20) + 1e-9).all()

    def itself(x):
        return -flow.losses(params, x)

    path, other = gradients(itself, z[:10])
    np.testing.assert_allclose(path, 0, atol=1e-12)
    assert np.abs(other).max() > 0.01
    np.testing.assert_allclose(exact(params, z[:5]), itself(z[:5]))


@pytest.mark.parametrize("path_gradient", [True, False])
@pytest.mark.parametrize("density", DENSITIES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_its_program_has_the_bits_of_the_plain_path_and_keeps_the_dtype(dtype, density, path_gradient, rng):
    flow = small()
    model, params = ReverseKL(flow, *DENSITIES[density], path_gradient=path_gradient), started(flow, dtype)
    (z,) = model.noise(rng, 16, dtype)
    loss, gradient = record(model.loss, params, z)(params, z)
    expected, slopes = value_and_grad(model.loss)(params, z)
    assert loss.dtype == gradient.dtype == z.dtype == dtype
    assert loss.tobytes() == expected.tobytes()
    assert gradient.tobytes() == Layout(params).pack(slopes).tobytes()


def test_distillation_is_a_case_of_it(rng):
    student, teacher = small(), small()
    params, teacher_params = started(student), started(teacher)
    distillation = Distillation(student, teacher, teacher_params)
    assert isinstance(distillation, OwnSamples)
    model = ReverseKL(student, lambda x: -teacher.losses(teacher_params, x), path_gradient=False)
    z = rng.standard_normal((20, 2))
    one, other = (value_and_grad(either.loss)(params, z) for either in (distillation, model))
    assert same_bits(one, other)


# ---------------------------------------------------------------- learning


@pytest.mark.parametrize("density", DENSITIES)
def test_a_gaussian_is_learned_and_its_constant_with_it(density, rng):
    flow = Flow(Chain([Conv1x1(), Affine()]), Normal(2))
    params = flow.init(rng, 3 * rng.standard_normal((100, 2)))
    options = {"steps": 600, "optimizer": Adam(WarmupCosine(0.03, 600))}
    params, history = run(ReverseKL(flow, *DENSITIES[density], path_gradient=True), params, **options)
    assert -history.loss[-1] == pytest.approx(LOG_Z, abs=2e-3)
    x = rng.standard_normal((50, 2))
    exact = multivariate_normal(MEAN, COVARIANCE).logpdf(x)
    np.testing.assert_allclose(flow.log_prob(params, x), exact, rtol=0.02)
    sample = importance_sample(flow, params, plain, rng, 2000)
    assert sample.effective_sample_size > 0.999
    assert abs(sample.log_z - LOG_Z) < 4 * sample.log_z_error + 1e-6


@pytest.mark.parametrize("scored", [False, True])
def test_a_conditional_flow_learns_a_density_at_each_context(scored, rng):
    flow = small(context_features=1)
    context = np.repeat([[-1.0], [1.0]], 100, axis=0)
    params = started(flow, context=context[::4])
    density = lambda x, c: -0.5 * anp.sum((x - 2 * c) ** 2, axis=1) * 4
    slope = (lambda x, c: -4 * (x - 2 * c),) if scored else ()
    options = {"rng": rng, "steps": 300, "batch_size": 64, "optimizer": Adam(0.01), "progress": False}
    params, _ = fit(ReverseKL(flow, density, *slope), params, None, context, **options)
    for at in (-1.0, 1.0):
        sample = importance_sample(flow, params, density, rng, 1000, context=[[at]])
        assert sample.effective_sample_size > 0.8
        assert np.abs(sample.mean(lambda x: x)[0] - 2 * at).max() < 0.1


# ---------------------------------------------------------------- the loop


@pytest.mark.parametrize("density", DENSITIES)
def test_a_run_by_programs_has_the_bits_of_one_through_the_layers(density):
    flow = small()
    model, params = ReverseKL(flow, *DENSITIES[density]), started(flow)
    (a, first), (b, second) = run(model, params), run(model, params, record=False)
    assert same_bits(a, b)
    assert first.loss == second.loss


def test_a_resumed_run_ends_with_the_bits_of_one_left_alone_and_holds_the_flow(tmp_path):
    flow, path = small(), tmp_path / "run.npz"
    params = started(flow)
    model = lambda: ReverseKL(flow, lambda x: log_density(x))
    alone, _ = run(model(), params, steps=20)
    run(model(), params, steps=7, checkpoint=path)
    resumed, _ = run(model(), params, seed=9, steps=20, checkpoint=path)
    assert same_bits(resumed, alone)
    saved = load(path)
    assert saved.flow == flow
    assert same_bits(saved.params, alone)
    other = ReverseKL(flow, lambda x: 0.5 * log_density(x))
    assert "another log_density" in refusal(run, other, params, steps=20, checkpoint=path)
    other = ReverseKL(flow, log_density, path_gradient=True)
    assert "another path_gradient" in refusal(run, other, params, steps=20, checkpoint=path)


def test_a_conditional_run_can_be_saved(tmp_path, rng):
    flow, context = small(context_features=1), rng.standard_normal((40, 1))
    params = started(flow, context=np.zeros((50, 1)))
    model = ReverseKL(flow, lambda x, c: log_density(x - c))
    fit(model, params, None, context, rng=rng, steps=2, progress=False, checkpoint=tmp_path / "run.npz")
    assert load(tmp_path / "run.npz").flow == flow


@pytest.mark.parametrize("density", [*DENSITIES, "autograd on the device"])
def test_it_runs_on_a_device_as_on_the_host(density, device):
    flow = small()
    params, given = started(flow, np.float32), DENSITIES.get(density)
    if density != "score":  # arrays of NumPy's, as in `log_density`, would not mix with those of a device
        given = (lambda x: -anp.sum(x**2 - anp.cos(x), axis=1),)
    expected, history = run(ReverseKL(flow, *given), params)
    learned, there = run(ReverseKL(flow, *given), params, device=device.name)
    if device.exact:
        assert_agrees(HOST, learned, expected)
        assert there.loss == history.loss
    assert np.isfinite(there.loss).all()


def test_the_parameters_passed_in_are_left_as_they_are():
    flow = small()
    params = started(flow)
    before = vector(params)
    run(ReverseKL(flow, log_density), params)
    assert np.array_equal(vector(params), before)


# ---------------------------------------------------------------- failures and refusals


def test_a_density_that_is_not_finite_is_said_to_be_it():
    flow = small()
    model = ReverseKL(flow, lambda x: anp.log(anp.sum(x, axis=1)))
    with pytest.raises(NonFiniteError, match=r"not finite is that of log_density"):
        run(model, started(flow))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda flow: (flow.layer, log_density), "ReverseKL's flow to be an instance of Flow, got a Chain"),
        (lambda flow: (flow, 3), "expected ReverseKL's log_density to be a function, got 3"),
        (lambda flow: (flow, plain, 3), "expected ReverseKL's score to be a function, got 3"),
        (lambda flow: (flow, plain, score, 3), "expected ReverseKL's path_gradient to be True or False"),
    ],
)
def test_what_it_is_made_of_is_checked(make, words):
    assert words in refusal(ReverseKL, *make(small()))


def test_rows_and_a_trained_prior_are_refused(rng):
    flow = small()
    model, params = ReverseKL(flow, log_density), started(flow)
    assert "expected no rows" in refusal(fit, model, params, np.zeros((5, 2)), rng=rng, steps=1)
    flow = Flow(Affine(), Normal(2, trained=True))
    said = refusal(run, ReverseKL(flow, log_density), flow.init(rng, rng.standard_normal((9, 2))))
    assert "expected a flow with a fixed prior" in said


@pytest.mark.parametrize("record", [True, False])
@pytest.mark.parametrize("wrong", ["log_density", "score", "by autograd"])
def test_results_of_another_shape_are_refused(wrong, record):
    flow = small()
    given = {"log_density": (lambda x: plain(x)[:, None], score), "score": (plain, lambda x: score(x)[:1])}
    model = ReverseKL(flow, *given.get(wrong, (lambda x: anp.sum(x),)))
    name = "log_density" if wrong == "by autograd" else wrong
    with pytest.raises(InputError, match=rf"expected {name} to return an array of shape \(32"):
        run(model, started(flow), record=record)
