"""A step of training of a VAE with planar flows in its posterior: npflow beside normflows' `NormalizingFlowVAE`.

Both have 64 features, 16 components of z, networks of two hidden layers of 128 units, and eight planar layers between
the encoder and z, the same for all rows, as normflows hands no context to its layers. A step draws z, takes the gradient
of the mean -ELBO in the parameters, and applies Adam; in float32, one step after the other in one process, each library
with its default threads. npflow's model also has the layers that remove the units of the data. A ratio is the median
over rounds of normflows' seconds divided by npflow's: above 1 npflow is faster.

    pip install -e '.[benchmarks]'
    python benchmarks/vae.py
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout
from npflow.autodiff.program.slices import ProgramGradient
from npflow.autodiff.program.threads import available_cores
from npflow.layers import Chain, Planar
from npflow.models import VAE
from npflow.networks import MLP
from npflow.training import Adam

FEATURES, LATENT, HIDDEN, LAYERS = 64, 16, 128, 8
STEPS = 10  # in a turn


class Npflow:
    """The step that `fit` makes of a `VAE`."""

    def __init__(self, x):
        network = MLP((HIDDEN, HIDDEN), "leaky_relu")
        self.model = VAE(FEATURES, LATENT, network, network, posterior=Chain([Planar()] * LAYERS))
        self.x, self.rng = x, np.random.default_rng(0)
        start = self.model.init(self.rng, x)
        layout = Layout(start)
        self.vector = layout.pack(start)
        self.params, self.parameters = layout.unpack(self.vector, start), layout.size
        self.adam, self.gradient, self.made = Adam(1e-4), np.empty_like(self.vector), 0
        self.state = self.adam.init(self.vector)
        self.loss = ProgramGradient(self.model.loss, self.params, available_cores())

    def step(self):
        """Make a step."""
        noise = self.model.noise(self.rng, len(self.x), self.vector.dtype)
        self.loss((self.x, *noise), out=self.gradient)
        self.made += 1
        self.adam.update(self.state, self.vector, self.gradient, self.made)


class Normflows:
    """The same in normflows."""

    def __init__(self, x):
        import normflows
        import torch

        def network(inputs, outputs):
            return normflows.nets.MLP([inputs, HIDDEN, HIDDEN, outputs], leaky=0.01)

        self.x = torch.tensor(x)
        self.model = normflows.NormalizingFlowVAE(
            normflows.distributions.DiagGaussian(LATENT, trainable=False),
            normflows.distributions.NNDiagGaussian(network(FEATURES, 2 * LATENT)),
            [normflows.flows.Planar((LATENT,)) for _ in range(LAYERS)],
            normflows.distributions.NNDiagGaussianDecoder(network(LATENT, 2 * FEATURES)),
        )
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self.parameters = sum(parameter.numel() for parameter in trained)
        self.adam = torch.optim.Adam(trained, lr=1e-4)

    def step(self):
        """Make a step."""
        self.adam.zero_grad()
        _, log_q, log_p = self.model(self.x)
        (log_q - log_p).mean().backward()
        self.adam.step()


def turn(side):
    """The seconds of a step."""
    clock = time.perf_counter()
    for _ in range(STEPS):
        side.step()
    return (time.perf_counter() - clock) / STEPS


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=(64, 256, 1024), help="rows of a step")
    parser.add_argument("--rounds", type=int, default=15, help="number of interleaved rounds")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/vae.json"))
    options = parser.parse_args()
    results = []
    for rows in options.rows:
        x = np.random.default_rng(1).random((rows, FEATURES), np.float32)
        sides = Npflow(x), Normflows(x)
        seconds = np.array([[turn(side) for side in sides] for _ in range(options.rounds + 1)])[1:]
        ours, theirs = np.median(seconds, axis=0)
        ratio = float(np.median(seconds[:, 1] / seconds[:, 0]))
        parameters = " and ".join(f"{side.parameters:,}" for side in sides)
        print(
            f"{rows:5} rows: npflow {1e3 * ours:6.2f} ms, normflows {1e3 * theirs:6.2f} ms, ratio {ratio:.2f} "
            f"({parameters} parameters)"
        )
        results.append({"rows": rows, "ratio": ratio, "npflow": ours, "normflows": theirs})
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
