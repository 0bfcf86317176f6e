"""A step of training of a continuous flow: npflow beside torchdiffeq, zuko and plain PyTorch.

All have the same field, two hidden layers of 64 tanh that see x and the time, in float32; a batch of 256 rows:

- trace: the likelihood with the exact trace. npflow's `ExactTrace` and torchdiffeq's `odeint` take the same 16 steps of
  RK4. zuko's CNF chooses its steps by a tolerance, 1e-6 by default, and computes the gradient by the adjoint equation.
- estimate: the same with Hutchinson's estimate of the trace, `EstimatedTrace`.
- log-det: npflow's flow itself, with the exact log-det of its steps; beside the peers' trace.
- matching: flow matching, beside PyTorch without a library.

A step draws the noise, takes the gradient, and applies Adam; one step after the other in one process, each library with
its default threads. A ratio is the median over rounds of a peer's seconds divided by npflow's: above 1 npflow is faster.
Peers that are not installed are left out.

    pip install -e '.[benchmarks]' torchdiffeq
    python benchmarks/continuous.py
"""

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np

from npflow.autodiff import Layout
from npflow.autodiff.program.slices import ProgramGradient
from npflow.autodiff.program.threads import available_cores, one_blas_thread
from npflow.flow import Flow
from npflow.layers import Chain, Continuous
from npflow.models import EstimatedTrace, ExactTrace, FlowMatching
from npflow.priors import Normal
from npflow.training import Adam

ROWS, HIDDEN, STEPS, SCALE = 256, 64, 16, 0.3


def start(features):
    """A flow, and parameters whose field is not zero."""
    rng = np.random.default_rng(0)
    flow = Flow(Chain([Continuous((HIDDEN, HIDDEN), STEPS)]), Normal(features))
    params = flow.init(rng, np.zeros((1, features), np.float32))
    last = params["layer"][0][-1]["weight"]
    last += (SCALE * rng.standard_normal(last.shape) / math.sqrt(HIDDEN)).astype(np.float32)
    return flow, params


class Npflow:
    """The step that `fit` makes."""

    name = "npflow"

    def __init__(self, task, features, x):
        flow, params = start(features)
        kinds = {"trace": ExactTrace, "estimate": EstimatedTrace, "log-det": lambda flow: flow}
        self.model, self.x = (kinds | {"matching": FlowMatching})[task](flow), x
        layout = Layout(params)
        self.vector, self.rng = layout.pack(params), np.random.default_rng(0)
        self.params = layout.unpack(self.vector, params)
        self.adam, self.gradient, self.made = Adam(1e-6), np.empty_like(self.vector), 0
        self.state = self.adam.init(self.vector)
        self.loss = ProgramGradient(self.model.loss, self.params, available_cores())

    def step(self):
        """Make a step; return the loss."""
        noise = self.model.noise(self.rng, len(self.x), self.vector.dtype)
        with one_blas_thread():
            loss = self.loss((self.x, *noise), self.gradient)
        self.made += 1
        self.adam.update(self.state, self.vector, self.gradient, self.made)
        return float(loss)


def network(params):
    """The field of npflow's parameters as a module of PyTorch: ``f(t, x)``, for a number t or a column."""
    import torch
    from torch import nn

    tensor = lambda array: nn.Parameter(torch.tensor(array))

    class Field(nn.Module):
        def __init__(self):
            super().__init__()
            layers = params["layer"][0]
            self.time = tensor(layers[0]["time"])
            self.weights = nn.ParameterList([tensor(layer["weight"]) for layer in layers])
            self.biases = nn.ParameterList([tensor(layer["bias"]) for layer in layers])
            self.register_buffer("waves", math.pi * torch.arange(1.0, 1 + len(self.time)))

        def forward(self, t, x):
            h = x @ self.weights[0] + self.biases[0] + torch.cos(t * self.waves) @ self.time
            for weight, bias in zip(self.weights[1:], self.biases[1:]):
                h = torch.tanh(h) @ weight + bias
            return h

    return Field()


class Torch:
    """What the peers share: Adam on a loss of the field."""

    def __init__(self, task, features, x):
        import torch

        torch.manual_seed(0)
        self.torch, self.task, self.x = torch, task, torch.tensor(x)
        self.model = self.make(features)
        self.adam = torch.optim.Adam(self.model.parameters(), lr=1e-6)

    def make(self, features):
        return network(start(features)[1])

    def step(self):
        """Make a step; return the loss."""
        self.adam.zero_grad()
        loss = self.loss()
        loss.backward()
        self.adam.step()
        return float(loss.detach())

    def nll(self, z, log_det):
        return (0.5 * (z * z).sum(1) + 0.5 * z.shape[1] * math.log(2 * math.pi) - log_det).mean()


class Plain(Torch):
    """Matching, in a few lines."""

    name, tasks = "PyTorch", ("matching",)

    def loss(self):
        x, torch = self.x, self.torch
        t, z = torch.rand(len(x), 1), torch.randn_like(x)
        off = self.model(t, (1 - t) * x + t * z) - (z - x)
        return (off * off).sum(1).mean()


class Torchdiffeq(Torch):
    """The same steps by `odeint`, with the gradient through them, and traces by autograd, as FFJORD does."""

    name, tasks = "torchdiffeq", ("trace", "estimate", "log-det")

    def loss(self):
        from torchdiffeq import odeint

        torch, x = self.torch, self.x
        signs = torch.randint(0, 2, x.shape) * 2.0 - 1.0

        def slopes(t, state):
            with torch.enable_grad():
                y = state[0].requires_grad_(True)
                f = self.model(t, y)
                along = lambda v: torch.autograd.grad(f, y, v, create_graph=True)[0]
                if self.task == "estimate":
                    trace = (along(signs) * signs).sum(1)
                else:
                    units = torch.eye(x.shape[1])
                    trace = sum(along(unit.expand_as(y))[:, i] for i, unit in enumerate(units))
            return f, trace

        times = torch.tensor([0.0, 1.0])
        options = {"step_size": 1 / STEPS}
        z, log_det = odeint(slopes, (x.clone(), torch.zeros(len(x))), times, method="rk4", options=options)
        return self.nll(z[-1], log_det[-1])


class Zuko(Torch):
    """zuko's CNF, by its own solver."""

    name, tasks = "zuko", ("trace", "estimate", "log-det")

    def make(self, features):
        import torch
        import zuko

        exact = self.task != "estimate"
        return zuko.flows.CNF(
            features, hidden_features=(HIDDEN, HIDDEN), activation=torch.nn.Tanh, exact=exact
        )

    def loss(self):
        return -self.model().log_prob(self.x).mean()


def turn(side, calls):
    """The seconds of a step."""
    clock = time.perf_counter()
    for _ in range(calls):
        side.step()
    return (time.perf_counter() - clock) / calls


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--features", type=int, nargs="+", default=(2, 8), help="D")
    parser.add_argument("--rounds", type=int, default=9, help="number of interleaved rounds")
    parser.add_argument("--calls", type=int, default=3, help="steps in a turn")
    parser.add_argument("--out", type=Path, default=Path("out/benchmarks/continuous.json"))
    options = parser.parse_args()
    results = []
    for features in options.features:
        x = np.random.default_rng(1).standard_normal((ROWS, features)).astype(np.float32)
        for task in ("trace", "estimate", "log-det", "matching"):
            sides, losses = [], {}
            for kind in (Npflow, Torchdiffeq, Zuko, Plain):
                if kind is Npflow or task in kind.tasks:
                    try:
                        side = kind(task, features, x)
                        losses[kind.name] = side.step()
                        sides.append(side)
                    except ImportError:
                        print(f"left out: {kind.name}, which is not installed")
            seconds = np.array(
                [[turn(side, options.calls) for side in sides] for _ in range(options.rounds + 1)]
            )[1:]
            ours = float(np.median(seconds[:, 0]))
            ratios = np.median(seconds[:, 1:] / seconds[:, :1], axis=0)
            ratios = {side.name: float(ratio) for side, ratio in zip(sides[1:], ratios)}
            row = {"task": task, "features": features, "ms": 1e3 * ours, "ratios": ratios, "losses": losses}
            results.append(row)
            beside = ", ".join(f"{name} {ratio:.2g}" for name, ratio in ratios.items())
            shown = ", ".join(f"{name} {loss:.4f}" for name, loss in losses.items())
            print(
                f"{task:9} D = {features}: npflow {row['ms']:8.3f} ms; ratios: {beside}; losses: {shown}",
                flush=True,
            )
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2))
    print(f"written to {options.out}")


if __name__ == "__main__":
    main()
