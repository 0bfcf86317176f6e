"""An affine map whose numbers come from the context alone."""

import numpy as np
from helpers import perturbed, refusal, rows
from scipy.stats import norm

from npflow import Flow
from npflow.layers import AffineInjector, Chain
from npflow.networks import MLP, ConvNet
from npflow.priors import Normal


def test_at_the_end_of_a_flow_it_makes_a_normal_distribution_whose_mean_and_scale_depend_on_the_context():
    flow = Flow(Chain([AffineInjector(MLP((4,), "tanh"))]), Normal(3), context_features=2)
    x, context = rows(20, 3), rows(20, 2, seed=2)
    params = perturbed(flow, x, context)
    layer = flow.layer.layers[0]
    log_scale, shift = layer.numbers(params["layer"][0], x, context * np.exp2(-params["context"]["exponent"]))
    expected = norm(-shift * np.exp(-log_scale), np.exp(-log_scale)).logpdf(x).sum(axis=1)
    np.testing.assert_allclose(flow.log_prob(params, x, context), expected, rtol=1e-10)


def test_it_starts_as_the_identity_and_sees_the_image_at_each_pixel():
    layer, x, small = AffineInjector(ConvNet((), (1,))), rows(5, 4, 4, 2), rows(5, 2, 2, 3, seed=2)
    params = layer.init(np.random.default_rng(0), x, small)
    z, log_det = layer.forward(params, x, small)
    assert np.array_equal(z, x)
    assert not log_det.any()
    params[-1]["weight"][0, 0, 0, 2] = np.sqrt(
        3
    )  # the shift of the first channel is the first channel of the image
    z, _ = layer.forward(params, x, small)
    np.testing.assert_allclose(z[..., 0] - x[..., 0], np.kron(small[..., 0], np.ones((2, 2))), rtol=1e-12)


def test_without_a_context_it_is_refused():
    layer, x = AffineInjector(), rows(5, 3)
    sentence = "expected a context for AffineInjector, got none"
    assert refusal(layer.init, np.random.default_rng(0), x) == sentence
    assert refusal(layer.forward, perturbed(layer, x, x), x) == sentence
