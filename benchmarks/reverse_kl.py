"""A step of training to a density, without data: npflow's `ReverseKL` beside normflows.

Both have the same flow on the plane and the same density, a ring of eight Gaussians: couplings of RealNVP with networks
of two hidden layers of 64 units, or planar layers. A step draws z, maps it to x, takes the gradient of
log q(x) - log p~(x) in the parameters, and applies Adam. All is in float32. The libraries take turns in one process, each
with its default threads. A ratio is the median over rounds of normflows' seconds divided by npflow's: above 1
npflow is faster.

    pip install -e '.[benchmarks]'
    python benchmarks/reverse_kl.py
"""

import argparse
import json
import time
from pathlib import Path

import autograd.numpy as anp
import numpy as np

from npflow import Flow, models
from npflow.autodiff import Layout
from npflow.autodiff.primitives import logsumexp_last
from npflow.autodiff.program.slices import ProgramGradient
from npflow.autodiff.program.threads import available_cores
from npflow.layers import AffineCoupling, Chain, Inverse, Planar, Reverse
from npflow.networks import MLP
from npflow.priors import Normal
from npflow.training import Adam

LAYERS = {"RealNVP": 8, "planar": 16}
HIDDEN, STD = 64, 0.5
ANGLES = 2 * np.pi * np.arange(8) / 8
MEANS = (4 * np.stack([np.cos(ANGLES), np.sin(ANGLES)], axis=1)).astype(np.float32)
STEPS = 10  # in a turn


def log_density(x):
    """The logarithm of the sum of eight Gaussians, without its constant."""
    distance = x[:, None, :] - MEANS.astype(x.dtype)
    return logsumexp_last(-0.5 / STD**2 * anp.sum(distance * distance, axis=-1))


class Npflow:
    """The step that `fit` makes of a `ReverseKL`."""

    def __init__(self, family, rows):
        if family == "planar":
            flow = Flow(Inverse(Chain([Planar()] * LAYERS[family])), Normal(2))  # z to x in closed form
        else:
            layers = [
                [AffineCoupling(MLP((HIDDEN, HIDDEN), "relu")), Reverse()] for _ in range(LAYERS[family])
            ]
            flow = Flow(Chain([layer for pair in layers for layer in pair]), Normal(2))
        self.model, self.rows, self.rng = models.ReverseKL(flow, log_density), rows, np.random.default_rng(0)
        start = flow.init(self.rng, 3 * self.rng.standard_normal((1000, 2)).astype(np.float32))
        layout = Layout(start)
        self.vector = layout.pack(start)
        self.params, self.parameters = layout.unpack(self.vector, start), layout.size
        self.adam, self.gradient, self.made = Adam(1e-4), np.empty_like(self.vector), 0
        self.state = self.adam.init(self.vector)
        self.loss = ProgramGradient(self.model.loss, self.params, available_cores())

    def step(self):
        """Make a step."""
        z = self.model.noise(self.rng, self.rows, self.vector.dtype)
        self.loss(z, out=self.gradient)
        self.made += 1
        self.adam.update(self.state, self.vector, self.gradient, self.made)


class Normflows:
    """The same in normflows, by its `reverse_kld`."""

    def __init__(self, family, rows):
        import normflows
        import torch

        self.rows, flows = rows, []
        for _ in range(LAYERS[family]):
            if family == "planar":
                flows.append(normflows.flows.Planar((2,)))
            else:
                network = normflows.nets.MLP([1, HIDDEN, HIDDEN, 2], init_zeros=True)
                flows += [
                    normflows.flows.AffineCouplingBlock(network),
                    normflows.flows.Permute(2, mode="swap"),
                ]
        means = torch.tensor(MEANS)

        class Target:
            def log_prob(self, x):
                distance = x[:, None, :] - means
                return torch.logsumexp(-0.5 / STD**2 * (distance * distance).sum(-1), dim=1)

        base = normflows.distributions.DiagGaussian(2, trainable=False)
        self.model = normflows.NormalizingFlow(base, flows, Target())
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.parameters = sum(parameter.numel() for parameter in trained)
        self.adam = torch.optim.Adam(trained, lr=1e-4)

    def step(self):
        """Make a step."""
        self.adam.zero_grad()
        self.model.reverse_kld(self.rows).backward()
        self.adam.step()


def turn(side):
    """The seconds of a step."""
    clock = time.perf_counter()
    for _ in range(STEPS):
        side.step()
    return (time.perf_counter() - clock) / STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=(256, 1024), help="samples of a step")
    parser.add_argument("--rounds", type=int, default=15, help="number of interleaved rounds")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/reverse_kl.json"))
    options = parser.parse_args()
    results = []
    for family in LAYERS:
        for rows in options.rows:
            sides = Npflow(family, rows), Normflows(family, rows)
            seconds = np.array([[turn(side) for side in sides] for _ in range(options.rounds + 1)])[1:]
            ours, theirs = np.median(seconds, axis=0)
            ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
            parameters = " and ".join(f"{side.parameters:,}" for side in sides)
            print(
                f"{family:8}, {rows:5} rows: npflow {1e3 * ours:6.2f} ms, normflows {1e3 * theirs:6.2f} ms, "
                f"ratio {ratio:.2f} ({parameters} parameters)"
            )
            results.append(
                {"family": family, "rows": rows, "ratio": ratio, "npflow": ours, "normflows": theirs}
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
