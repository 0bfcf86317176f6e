"""Flow matching: the paths, the field that they have, training, refusals."""

import numpy as np
import pytest
from helpers import assert_agrees, perturbed, refusal, rows, same_bits

from npflow import Flow, fit, to_device
from npflow.autodiff import tree, value_and_grad
from npflow.autodiff.gpu.devices import to_host
from npflow.errors import NonFiniteError
from npflow.layers import Affine, Chain, Continuous
from npflow.models import EstimatedTrace, FlowMatching, Solved, continuous_flow, glow
from npflow.models.flow_matching import PATHS
from npflow.priors import Logistic, Normal
from npflow.training import Adam

every_path = pytest.mark.parametrize("path", PATHS)


@every_path
def test_a_path_goes_from_x_to_z_with_its_velocity(path):
    x, z, t = rows(9, 2), rows(9, 2, seed=2), np.random.default_rng(0).random((9, 1))
    at = lambda t: PATHS[path](x, z, t)[0]
    np.testing.assert_allclose(at(0.0), x, atol=1e-15)
    np.testing.assert_allclose(at(1.0), z, atol=1e-15)
    h = 1e-6
    np.testing.assert_allclose((at(t + h) - at(t - h)) / (2 * h), PATHS[path](x, z, t)[1], atol=1e-8)


def test_the_diffusion_preserves_variance_and_the_straight_path_does_not():
    x, z = np.sqrt(2) * np.eye(2)  # of mean square 1, and uncorrelated
    squares = {path: np.mean(PATHS[path](x, z, 0.5)[0] ** 2) for path in PATHS}
    assert squares == pytest.approx({"straight": 0.5, "diffusion": 1.0})


@every_path
def test_the_mean_velocity_is_that_which_moves_the_density(path):
    # For x of variance s^2, x_t is normal with a variance v(t). The linear field that moves it is x_t v'(t) / 2 v(t).
    s, t, h, n = 0.4, 0.6, 1e-5, 200_000
    x, z = s * rows(n, 1), rows(n, 1, seed=2)
    at, u = PATHS[path](x, z, t)
    parts = lambda t: [PATHS[path](*pair, t)[0] for pair in ((s, 0.0), (0.0, 1.0))]
    variance = lambda t: sum(part**2 for part in parts(t))
    expected = (variance(t + h) - variance(t - h)) / (4 * h * variance(t))
    slope = np.sum(at * u) / np.sum(at * at)
    off = u - slope * at
    error = np.sqrt(np.mean(off**2) / np.sum(at * at))
    assert abs(slope - expected) < 4 * error


@pytest.mark.usefixtures("uncovered")
@every_path
def test_a_flow_learns_a_density_without_its_likelihood(path):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2000, 2)) * [1.0, 0.4] + [3.0, 0.0]
    x[:, 1] += 0.5 * (x[:, 0] - 3) ** 2
    flow = continuous_flow(2, (24, 24))
    params = flow.init(rng, x)
    model = FlowMatching(flow, path)
    learned, history = fit(model, params, x, rng=rng, steps=300, optimizer=Adam(1e-2), progress=False)
    # The entropy of x is log(2 pi e) + log 0.4; a Gaussian of its covariance is 0.37 nats above.
    entropy = np.log(2 * np.pi * np.e) + np.log(0.4)
    solved = Flow(Solved(flow.layer, 1e-4, 1e-4), flow.prior)
    assert -solved.log_prob(learned, x[:500]).mean() < entropy + 0.2
    assert np.mean(history.loss[-50:]) < np.mean(history.loss[:20])
    for number in (0, 1):  # Units and ActNorm
        assert same_bits(learned["layer"][number], params["layer"][number])


def test_a_recorded_step_and_a_plain_one_have_the_same_bits():
    x = rows(64, 2, dtype=np.float32)
    flow = continuous_flow(2, (8,))
    params = flow.init(np.random.default_rng(0), x)
    learned = [
        fit(
            FlowMatching(flow),
            params,
            x,
            rng=np.random.default_rng(1),
            steps=3,
            record=record,
            progress=False,
        )[0]
        for record in (True, False)
    ]
    assert same_bits(*learned)


def test_the_layer_that_is_not_finite_is_named():
    model, x = FlowMatching(continuous_flow(2, (8,))), rows(5, 2)
    params = model.flow.init(np.random.default_rng(0), x)
    names = [
        visit.name for visit in model.visits(params, x, *model.noise(np.random.default_rng(0), 5, x.dtype))
    ]
    assert names == ["layer/0 (Units)", "layer/1 (ActNorm)", "layer/2 (Continuous)"]
    params["layer"][2][1]["bias"][...] = 1e200  # its square is not finite
    with pytest.raises(NonFiniteError, match="although parameters and outputs are finite"):
        fit(model, params, x, rng=np.random.default_rng(0), steps=2, progress=False)
    params["layer"][1]["log_scale"][...] = 800
    with pytest.raises(NonFiniteError, match=r"is that of layer/1 \(ActNorm\)"):
        fit(model, params, x, rng=np.random.default_rng(0), steps=2, progress=False)


@pytest.mark.parametrize(
    ("flow", "words"),
    [
        (glow(2), "a Chain that ends with a Continuous layer"),
        (Flow(Continuous(), Normal(2)), "a Chain that ends with a Continuous layer"),
        (
            Flow(Chain([Continuous(), Affine()]), Normal(2)),
            "a Chain that ends with a Continuous layer, got one that ends with Affine()",
        ),
        (continuous_flow(2, prior=Logistic(2)), "a standard normal prior"),
        (continuous_flow(2, prior=Normal(2, trained=True)), "a standard normal prior"),
    ],
)
def test_a_flow_that_the_paths_do_not_fit_is_refused(flow, words):
    assert words in refusal(FlowMatching, flow)


def test_a_path_that_is_not_known_is_refused():
    assert "straight" in refusal(FlowMatching, continuous_flow(2), "curved")


@pytest.mark.parametrize("kind", [FlowMatching, lambda flow: FlowMatching(flow, "diffusion"), EstimatedTrace])
def test_on_a_device_it_learns_and_its_loss_is_that_of_the_host(kind, device):
    flow, x = continuous_flow(2, (6,), steps=2), rows(40, 2, dtype=np.float32)
    model, params = kind(flow), perturbed(flow, x)
    batch = x, *model.noise(np.random.default_rng(0), 40, np.float32)
    there = to_device((params, *batch), device.name)
    leaves = lambda result: [leaf for _, leaf in tree.items(result) if leaf is not None]
    loss = value_and_grad(model.loss)
    assert_agrees(device, leaves(loss(*there)), leaves(loss(params, *batch)))
    learned, _ = fit(model, *there[:2], rng=np.random.default_rng(0), steps=2, batch_size=20, progress=False)
    solved = Flow(Solved(flow.layer), flow.prior)
    found = solved.log_prob(learned, there[1])
    np.testing.assert_allclose(to_host(found), solved.log_prob(to_host(learned), x), rtol=1e-4)
