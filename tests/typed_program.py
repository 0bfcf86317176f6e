"""What a typed program may write; `.ci/run` lets mypy check it in full, and no test runs it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

import npflow
from npflow import Dequantized, Flow, estimators, plots, verify
from npflow.layers import ActNorm, AffineCoupling, Chain, Layer
from npflow.networks import MADE, MLP
from npflow.priors import GaussianMixture, Logistic, Normal
from npflow.training import Adam, History, WarmupCosine


@dataclass(frozen=True)
class Double(Layer):
    def init(self, rng: np.random.Generator, x: ndarray) -> dict[str, ndarray]:
        return {}

    def forward(self, params: Any, x: ndarray) -> tuple[ndarray, ndarray]:
        return 2 * x, np.full(len(x), x.shape[1] * np.log(2))

    def inverse(self, params: Any, z: ndarray) -> tuple[ndarray, ndarray]:
        return z / 2, np.full(len(z), -z.shape[1] * np.log(2))


def main(path: str) -> float:
    rng = np.random.default_rng(0)
    x = npflow.datasets.moons(100, rng=rng)
    flow = Flow(Chain([ActNorm(), AffineCoupling(MLP([16])), Double()]), Normal(2))
    params = flow.init(rng, x)
    params, history = npflow.fit(
        flow, params, x, rng=rng, steps=3, optimizer=Adam(WarmupCosine(1e-3, steps=3))
    )
    recorded: History = history
    draws: ndarray = flow.sample(params, rng, 5, temperature=0.7)
    log_prob: ndarray = flow.log_prob(params, draws)
    priors = [Logistic(2), GaussianMixture(means=[[0.0, 1.0], [2.0, 3.0]], stds=[1.0, 1.0])]
    npflow.models.maf(2, network=MADE((16,)), prior=priors[1])
    Dequantized(npflow.models.image_glow((4, 4, 1), levels=1, steps=1), levels=17)
    report: verify.Report = verify.check(Double(), x)
    report.raise_if_failed()
    verify.assert_flow(np.tanh, None, x, domain=lambda x: x > 0).raise_if_failed()
    verify.check_functions(np.tanh, None, x, domain=(np.zeros(2), 1), codomain=(0, np.inf))
    npflow.save(path, flow, params)
    print(npflow.summary(flow, params), npflow.load(path).flow, recorded.loss[-1])
    plots.samples(draws, title="samples")
    level: float = plots.mass_levels(x, cell=1.0, shares=(0.5, 0.9))[0.5]
    vae = npflow.models.VAE(2, posterior=Double(), prior=npflow.models.maf(2), draws=5)
    mean, log_std = vae.decode(params, vae.encode(params, x)[0] + vae.sample_posterior(params, rng, x))
    of_the_same_form: object = Double()
    verify.check(of_the_same_form, mean * level + log_std)
    return estimators.FlowDensity(steps=3).fit(x).score(x) + float(log_prob.mean())
